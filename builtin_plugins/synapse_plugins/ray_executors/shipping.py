"""What a run needs on a worker: its code, put into Ray's object store once, and its runtime environment."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import ray
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
        self._references: dict[str, object] = {}
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def load(self, task: Task, connection: Connection) -> Cargo:
        """Return what a task needs; raises `UsageError` for a folder that is too large."""
        with self._lock:
            if self._connection is not connection:
                self._connection = connection
                self._references.clear()
        environment = environment_of(self._settings, task)
        ship = not connection.started if self._settings.ship_code is None else self._settings.ship_code
        paths = code_bundles(self._kernel, task, limit=self._settings.upload_limit) if ship else []
        folder = environment.folder
        return Cargo(
            tuple(
                Shipment(
                    paths=tuple((bundle.digest, self._reference(bundle)) for bundle in paths),
                    folder=None if folder is None else (folder.digest, folder.name, self._reference(folder)),
                    wheels=tuple(environment.wheels),
                    installer=environment.package_manager,
                    installer_options=tuple(environment.package_manager_options),
                    requirements=kernel_requirements() if paths else (),
                )
            ),
            environment.runtime_env,
            environment.key,
        )

    def _reference(self, bundle: Bundle) -> object:
        with self._lock:
            found = self._references.get(bundle.digest)
            if found is None:
                found = self._references[bundle.digest] = ray.put(bundle.data())
            return found
