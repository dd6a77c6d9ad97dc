"""Buckets of the tests' own servers, as the provider opens them."""

from __future__ import annotations

from tests.storage_servers.s3 import S3Server

from synapse_kernel.storage import RetryPolicy, Storage
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.s3.provider import S3Provider

QUICK = RetryPolicy(initial=0.01, maximum=0.02)
ONCE = RetryPolicy(attempts=1)


def storage_of(
    server: S3Server, bucket: str | None = None, *, retries: RetryPolicy = QUICK, **more: object
) -> Storage:
    """Return a storage whose root is a bucket; without a name a new, empty one."""
    values: dict[str, object] = {
        "bucket_name": bucket or server.make_bucket(),
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "endpoint_url": server.endpoint_url,
        "region_name": server.region,
    }
    return Storage(S3Provider(configured(S3Provider, values | more)), retries=retries)


def bucket_of(storage: Storage) -> str:
    """Return the name of the bucket that a storage is."""
    assert isinstance(storage.provider, S3Provider)
    return storage.provider.bucket
