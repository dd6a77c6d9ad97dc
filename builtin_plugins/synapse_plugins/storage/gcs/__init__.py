"""Google Cloud Storage: the storage provider `gcs`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StorageSpec


@hookimpl
def synapse_register_storage() -> list[StorageSpec]:
    """Register it."""
    return [
        StorageSpec(
            name="gcs",
            target="synapse_plugins.storage.gcs.provider:GcsProvider",
            summary="Google Cloud Storage (gs://bucket/prefix)",
            schemes=("gs",),
            aliases=("gcp",),
            requires=("google.cloud.storage",),
            extra="gcs",
        )
    ]
