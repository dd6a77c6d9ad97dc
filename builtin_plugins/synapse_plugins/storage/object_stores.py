"""What the providers of object stores share: a bucket, a root inside it, and folders that only names make."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field, field_validator

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.keys import clean_key, join_key, key_below
from synapse_kernel.storage.providers import Configuration, Provider

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PART = 8 << 20
"""How many bytes of a large file are moved by one request."""
IN_MEMORY = 64 << 20
"""How many bytes of files a provider holds in memory at once, whatever their number."""


class BucketConfiguration(Configuration):
    """What every object store is configured with."""

    bucket_name: str = Field(min_length=1, description="The name of the bucket.")
    prefix: str = Field("", description="The folder of the bucket that is the root; empty for all of it.")
    endpoint_url: str | None = Field(
        None, description="The URL of the service, where it is not the provider's own; http:// is allowed."
    )
    timeout: float = Field(
        30.0, gt=0, description="Seconds to wait for an answer, before it is asked for again."
    )

    @field_validator("prefix")
    @classmethod
    def _clean(cls, value: str) -> str:
        try:
            return clean_key(value.lstrip("/"))
        except StorageConfigError as error:
            raise ValueError(error.reason) from None

    @field_validator("endpoint_url")
    @classmethod
    def _with_scheme(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("it begins with http:// or https://")
        return value.rstrip("/")


class ObjectStoreProvider(Provider):
    """A provider whose keys are the names of a bucket's objects."""

    has_folders: ClassVar[bool] = False
    concurrency: ClassVar[int] = 32
    scheme: ClassVar[str]
    """The one that its URLs begin with."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        bucket = cast("BucketConfiguration", configuration)
        self.bucket = bucket.bucket_name
        self._prefix = bucket.prefix
        self._timeout = bucket.timeout
        self._memory = MemoryBound(IN_MEMORY)

    @classmethod
    def from_url(cls, url: str) -> Mapping[str, object]:
        """Return the configuration of ``scheme://bucket/prefix``."""
        bucket, _, prefix = url.partition("://")[2].partition("/")
        if not bucket:
            raise StorageConfigError(
                f"the URL {url!r} names no bucket: write {cls.scheme}://BUCKET/FOLDER",
                provider=cls.name,
                operation="open",
            )
        return {"bucket_name": bucket, "prefix": prefix}

    def url_of(self, key: str) -> str:
        """Return ``scheme://bucket/prefix/key``, the key as it is."""
        return f"{self.scheme}://{join_key(self.bucket, self._path(key))}"

    def _path(self, key: str) -> str:
        return join_key(self._prefix, key)

    def _key(self, path: str) -> str:
        return key_below(path, self._prefix)


class MemoryBound:
    """So many bytes, which threads take before they hold a part of a file in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes may be held, and give them back at the end; more than all is all."""
        size = min(size, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
