"""A machine that one reaches with SSH: the storage provider `sftp`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StorageSpec


@hookimpl
def synapse_register_storage() -> list[StorageSpec]:
    """Register it."""
    return [
        StorageSpec(
            name="sftp",
            target="synapse_plugins.storage.sftp.provider:SftpProvider",
            summary="a machine that one reaches with SSH (sftp://user@host/path)",
            schemes=("sftp",),
            requires=("asyncssh", "bcrypt"),
            extra="sftp",
        )
    ]
