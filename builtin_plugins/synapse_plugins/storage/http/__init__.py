"""A web server, with WebDAV's methods where it takes them: the storage provider `http`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StorageSpec


@hookimpl
def synapse_register_storage() -> list[StorageSpec]:
    """Register it."""
    return [
        StorageSpec(
            name="http",
            target="synapse_plugins.storage.http.provider:HttpProvider",
            summary="a web server; written to where it takes PUT (https://host/path)",
            schemes=("http", "https"),
            aliases=(),
            requires=("urllib3",),
            extra="http",
        )
    ]
