"""Amazon S3, and whatever speaks its protocol: the storage provider `s3`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StorageSpec


@hookimpl
def synapse_register_storage() -> list[StorageSpec]:
    """Register it."""
    return [
        StorageSpec(
            name="s3",
            target="synapse_plugins.storage.s3.provider:S3Provider",
            summary="Amazon S3, MinIO and others that speak its protocol (s3://bucket/prefix)",
            schemes=("s3",),
            aliases=("amazon_s3", "minio"),
            requires=("obstore",),
            extra="s3",
        )
    ]
