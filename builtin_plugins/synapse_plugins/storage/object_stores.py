"""What the providers of object stores share: a bucket, a root inside it, and folders that only names make."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field, field_validator

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.keys import clean_key, join_key, key_below
from synapse_kernel.storage.providers import Configuration, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from synapse_kernel.storage.providers import Told

    Fetch = Callable[[int, int], memoryview]

PART = 8 << 20
"""How many bytes of a large file are moved by one request."""
AT_ONCE = 4
"""How many parts of one file are on their way: more of them are not faster."""
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
    concurrency: ClassVar[int] = 64
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

    @contextlib.contextmanager
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


def get_parts(fetch: Fetch, size: int, target: Path, memory: MemoryBound, told: Told) -> None:
    """
    Write what `fetch(start, length)` gives into a file, several parts at once, from where the file ends.

    A file that is left by an error is good up to its end.
    """
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        good = os.fstat(descriptor).st_size
        done: dict[int, int] = {}
        try:
            _fill(descriptor, fetch, range(good, size, PART), size, memory, told, done)
        except BaseException:
            end = good
            while end in done:
                end += done[end]
            os.ftruncate(descriptor, end)
            with contextlib.suppress(Exception):
                told(end - good - sum(done.values()))
            raise
    finally:
        os.close(descriptor)


def _fill(
    descriptor: int,
    fetch: Fetch,
    parts: range,
    size: int,
    memory: MemoryBound,
    told: Told,
    done: dict[int, int],
) -> None:
    starts, lock, stop = iter(parts), threading.Lock(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                start = next(starts, None)
            if start is None:
                return
            with memory.hold(PART):
                data = fetch(start, min(PART, size - start))
                _write_at(descriptor, data, start)
            with lock:
                done[start] = len(data)
            told(len(data))

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="synapse-parts") as pool:
        workers = [pool.submit(work) for _ in range(AT_ONCE)]
        try:
            for worker in workers:
                worker.result()
        finally:
            stop.set()


def _write_at(descriptor: int, data: memoryview, start: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, start)
        data, start = data[count:], start + count
