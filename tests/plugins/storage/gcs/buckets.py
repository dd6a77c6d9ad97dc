"""Buckets of the emulator, as the provider opens them."""

from __future__ import annotations

from tests.storage_servers.gcs import GcsServer

from synapse_kernel.storage import RetryPolicy, Storage
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.gcs.provider import GcsProvider

QUICK = RetryPolicy(initial=0.01, maximum=0.02)


def storage_of(
    server: GcsServer, bucket: str | None = None, *, retries: RetryPolicy = QUICK, **more: object
) -> Storage:
    """Return a storage whose root is a bucket; without a name a new, empty one."""
    values = {"bucket_name": bucket or server.make_bucket(), "endpoint_url": server.endpoint_url}
    return Storage(GcsProvider(configured(GcsProvider, values | more)), retries=retries)
