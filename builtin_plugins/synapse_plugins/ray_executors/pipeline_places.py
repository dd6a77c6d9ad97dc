"""Where a pipeline in the cluster keeps things: its record, and the folders of its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

import msgspec

from synapse_kernel.errors import UsageError, listing
from synapse_kernel.settings import state_home
from synapse_kernel.stores import RunStore
from synapse_plugins.ray_executors.reach import is_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_kernel.contracts import JsonObject
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import PipelineOrder
    from synapse_plugins.ray_executors.settings import RaySettings

_NONE = (None, "none")


class StorePlace(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator's store."""

    url: str
    """As the coordinator opens it."""
    store: RunStore
    """The same, opened here."""
    mirrored: bool
    """True if the run has a record in the kernel's own store too, which is another."""
    here_only: bool
    """True if it is a file that is not known to be there on other machines."""


def store_place(kernel: Kernel, settings: RaySettings) -> StorePlace:
    """Return the store of this kernel's coordinators; raises `UsageError` where none is named."""
    own, named = kernel.settings.kernel.store, settings.store
    if (own if named is None else named) in _NONE:
        raise UsageError(
            "A pipeline on Ray needs a run store that its coordinator reaches, and the settings name none\n"
            "  set store: auto for one on this machine, or the URL of a server that the cluster reaches,\n"
            "  as store or as ray.store"
        )
    if named is None:
        store = kernel.store
        assert store is not None
        assert own is not None
        return StorePlace(
            url=own if is_server(own) else store.url,
            store=store,
            mirrored=False,
            here_only=not is_server(own),
        )
    factory = cast("Callable[[str], RunStore]", kernel.resolve("stores", named.partition(":")[0]))
    store = factory(named)
    if kernel.store is not None and kernel.store.url == store.url:
        store.close()
        store = kernel.store
    return StorePlace(
        url=named if is_server(named) else store.url,
        store=store,
        mirrored=own not in _NONE and store is not kernel.store,
        here_only=False,
    )


def work_root(kernel: Kernel, settings: RaySettings, *, here_only: bool) -> str | None:
    """
    Return the folder under which the coordinator makes its run's; None leaves it to its machine.

    Raises `UsageError` for a storage that cannot be used for that.
    """
    if settings.storage is not None:
        return storage_folder(kernel, settings.storage)
    given = kernel.settings.kernel.work_dir
    if given is not None:
        return str(Path(given).absolute())
    return str(state_home() / "runs") if here_only else None


def storage_folder(kernel: Kernel, storage: str) -> str:
    """Return the folder of ``ray.storage``; raises `UsageError` where it is none."""
    scheme, separator, _ = storage.partition("://")
    if not separator:
        return str(Path(storage).expanduser().absolute())
    if scheme == "file":
        return unquote(urlsplit(storage).path)
    known = kernel.registry.names("storage")
    here = f"; storage providers here: {listing(known)}" if known else ""
    raise UsageError(
        f"ray.storage {storage!r}: nodes cannot hand folders over by {scheme!r} yet{here}\n"
        "  give a folder that all machines of the cluster reach, as a path or a file:// URL"
    )


def check_hand_overs(order: PipelineOrder, settings: RaySettings, machines: list[str]) -> None:
    """Raise `UsageError` if nodes on different machines would hand each other paths that are not there."""
    if settings.storage is not None or len(machines) < 2 or not order.hand_overs:
        return
    lines = "".join(f"\n    {line}" for line in order.hand_overs[:5])
    more = f"\n    and {len(order.hand_overs) - 5} more" if len(order.hand_overs) > 5 else ""
    raise UsageError(
        f"The pipeline {order.name!r} hands paths from node to node, and the cluster has "
        f"{len(machines)} machines, of which each has its own files:{lines}{more}\n"
        "  name a folder that all of them reach: --set ray.storage=/shared/folder\n"
        "  or put these nodes on one machine: resources: {custom: {NAME: 1}}"
    )


def coordinator_settings(
    values: Mapping[str, object], place: StorePlace, *, work_dir: str | None, ship_code: bool
) -> JsonObject:
    """Return the settings of the coordinator's kernel, from those of this one."""
    section = dict(cast("Mapping[str, object]", values.get("ray") or {}))
    # It is in the cluster, and has the token.
    for name in ("address", "token_path", "store"):
        section.pop(name, None)
    made: JsonObject = {
        **values,
        "store": place.url,
        "sinks": [],
        "ray": {**section, "ship_code": ship_code},
    }
    return made if work_dir is None else {**made, "work_dir": work_dir}
