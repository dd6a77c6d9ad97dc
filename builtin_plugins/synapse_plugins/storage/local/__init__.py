"""Files of this machine, or of a disk that it has mounted: the storage provider `local`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StorageSpec


@hookimpl
def synapse_register_storage() -> list[StorageSpec]:
    """Register it."""
    return [
        StorageSpec(
            name="local",
            target="synapse_plugins.storage.local.provider:LocalProvider",
            summary="files of this machine, or of a mounted disk (file:///data)",
            schemes=("file",),
            aliases=("file_system", "local_file_system"),
        )
    ]
