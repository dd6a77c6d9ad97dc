"""What a run needs on a worker: its code, put into Ray's object store once, and its runtime environment."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from ray import cloudpickle

from synapse_plugins.ray_executors import entry
from synapse_plugins.ray_executors.code_bundles import code_bundles, kernel_requirements
from synapse_plugins.ray_executors.entry import Packed, Shipment
from synapse_plugins.ray_executors.environments import environment_of

if TYPE_CHECKING:
    from synapse_kernel.contracts import Task
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.bundles import Bundle
    from synapse_plugins.ray_executors.connection import Connection
    from synapse_plugins.ray_executors.settings import RaySettings

# It puts the code in its place, so it cannot come from there.
cloudpickle.register_pickle_by_value(entry)  # type: ignore[no-untyped-call]


_MOST_KEPT = 512 << 20
# How often it is looked whether the board still has it.
_LOOK_SECONDS = 5.0


class Cargo(msgspec.Struct, frozen=True):
    """What goes along with an attempt."""

    shipment: Packed
    runtime_env: dict[str, object] | None
    key: str
    """Tells environments apart: attempts of the same one may share a worker."""


class Shipper:
    """Puts code where the workers of a connection find it; what is there already costs nothing."""

    def __init__(self, kernel: Kernel, settings: RaySettings) -> None:
        self._kernel = kernel
        self._settings = settings
        self._kept: dict[str, int] = {}
        """What the connection's board has, and its size; the newest last."""
        self._looked_at = 0.0
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def load(self, task: Task, connection: Connection) -> Cargo:
        """Return what a task needs; raises `UsageError` for a folder that is too large."""
        with self._lock:
            if self._connection is not connection:
                self._connection = connection
                self._kept.clear()
                self._looked_at = monotonic()
            if self._kept and monotonic() - self._looked_at > _LOOK_SECONDS:
                self._looked_at = monotonic()
                for digest in connection.board.lacking(list(self._kept)):
                    self._kept.pop(digest)
        environment = environment_of(self._settings, task)
        ship = not connection.started if self._settings.ship_code is None else self._settings.ship_code
        paths = code_bundles(self._kernel, task, limit=self._settings.upload_limit) if ship else []
        folder = environment.folder
        for bundle in (*paths, *([] if folder is None else [folder])):
            self._keep(bundle, connection)
        return Cargo(
            tuple(
                Shipment(
                    paths=tuple(bundle.digest for bundle in paths),
                    folder=None if folder is None else (folder.digest, folder.name),
                    wheels=tuple(environment.wheels),
                    installer=environment.package_manager,
                    installer_options=tuple(environment.package_manager_options),
                    requirements=kernel_requirements() if paths else (),
                )
            ),
            environment.runtime_env,
            environment.key,
        )

    def _keep(self, bundle: Bundle, connection: Connection) -> None:
        """Let the board have a bundle, and no more of the oldest than it should hold."""
        with self._lock:
            size = self._kept.pop(bundle.digest, None)
            if size is None:
                data = bundle.data()
                connection.board.keep(bundle.digest, data)
                size = len(data)
            self._kept[bundle.digest] = size
            while sum(self._kept.values()) > _MOST_KEPT and len(self._kept) > 1:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                connection.board.drop(oldest)
