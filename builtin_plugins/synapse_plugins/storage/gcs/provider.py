"""Google Cloud Storage through Google's own client."""

from __future__ import annotations

import base64
import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, ClassVar, cast

import google_crc32c
from google.api_core.exceptions import NotFound
from google.api_core.retry import Retry
from google.auth.credentials import Signing
from google.cloud.storage.exceptions import DataCorruption  # type: ignore[import-untyped]
from pydantic import Field, SecretStr

from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageIntegrityError
from synapse_kernel.storage.keys import clean_key
from synapse_kernel.storage.providers import Configuration, Entry
from synapse_plugins.storage.gcs import explaining
from synapse_plugins.storage.gcs.connections import Connections
from synapse_plugins.storage.object_stores import PART, BucketConfiguration, ObjectStoreProvider, get_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from google.api_core.page_iterator import HTTPIterator
    from google.cloud.storage import Blob, Bucket  # type: ignore[import-untyped]

    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source

_FIELDS = "items(name,size,updated,generation,md5Hash,crc32c),prefixes,nextPageToken"
_LONGEST_SIGNED = 7 * 24 * 3600


class GcsConfiguration(BucketConfiguration):
    """Where a bucket is, and with which account it is asked."""

    credentials: SecretStr | None = Field(
        None,
        description="The path of an account's JSON file, or the JSON; without it the application default "
        "credentials, or none where endpoint_url is given.",
    )
    project: str | None = Field(None, description="The project that requests belong to.")
    anonymous: bool = Field(False, description="Ask without credentials: for public data.")


class GcsProvider(ObjectStoreProvider):
    """A bucket of Google Cloud Storage."""

    name: ClassVar[str] = "gcs"
    scheme: ClassVar[str] = "gs"
    configuration_type: ClassVar[type[Configuration]] = GcsConfiguration

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        settings = cast("GcsConfiguration", configuration)
        self._endpoint = settings.endpoint_url
        self._connections = Connections(
            settings.bucket_name,
            credentials=settings.credentials.get_secret_value() if settings.credentials else None,
            anonymous=settings.anonymous,
            project=settings.project,
            endpoint=settings.endpoint_url,
        )
        self._retry = Retry(
            predicate=lambda error: isinstance(error, Exception) and explaining.passes(error),
            initial=0.1,
            maximum=2.0,
            timeout=self._timeout,
        )

    def stat(self, key: str) -> Entry:
        """Return the entry of a key: an object's, else that of a folder which has objects below it."""
        path = self._path(key)
        with self._connections.bucket() as bucket:
            if path:
                blob = bucket.get_blob(path, timeout=self._timeout, retry=None)
                if blob is not None:
                    return self._entry(blob)
            there = next(iter(self._blobs(bucket, path, max_results=1)), None) is not None
        if not there and key:
            raise FileNotFoundError(key)
        return Entry(key=key, is_folder=True)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what lies in a folder; a marker, the object that tools name ``folder/``, is no file."""
        with self._connections.bucket() as bucket:
            found = self._blobs(bucket, self._path(folder), delimiter=None if recursive else "/")
            for page in found.pages:
                for prefix in getattr(page, "prefixes", ()):
                    key = self._key(prefix.removesuffix("/"))
                    # Below a folder without a name nothing has a key.
                    if key and not key.startswith("/") and clean_key(key) == key:
                        yield Entry(key=key, is_folder=True)
                for blob in page:
                    if not blob.name.endswith("/"):
                        yield self._entry(blob)

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """Return a range of an object, if it still is the one of the entry."""
        length = min(length, (entry.size or 0) - start)
        return b"" if length <= 0 else self._part(entry, start, length)

    def read_whole(self, key: str) -> bytes:
        """Return an object's content with one request."""
        with self._connections.bucket() as bucket:
            blob = bucket.blob(self._path(key))
            return cast("bytes", blob.download_as_bytes(raw_download=True, timeout=self._timeout, retry=None))

    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """Write an object into a file, a large one in several ranges at once."""
        size = entry.size or 0
        if size > 2 * PART:
            get_parts(
                lambda at, count: memoryview(self._part(entry, at, count)), size, target, self._memory, told
            )
            wanted = entry.checksums.get("crc32c")
            if wanted is not None and _crc32c_of(target) != wanted:
                target.unlink()
                raise DataCorruption(None, "crc32c")
            return
        with target.open("wb") as file, self._connections.bucket() as bucket:
            counted = _Counted(cast("BinaryIO", file), told)
            blob = bucket.blob(self._path(entry.key))
            try:
                blob.download_to_file(
                    counted,
                    raw_download=True,
                    if_generation_match=_generation(entry),
                    timeout=self._timeout,
                    retry=None,
                )
                _same(entry, blob)
            except BaseException:
                counted.take_back()
                file.truncate(0)
                raise

    def put_file(self, source: Source, key: str, told: Told) -> None:
        """Write an object, a large one piece by piece; Google checks its CRC32C before it is there."""
        large = source.size > PART
        with (
            self._memory.hold(min(source.size, PART)),
            self._connections.bucket() as bucket,
            source.open() as file,
        ):
            told(0)
            counted = _Counted(file, told, source)
            if source.size == 0:
                source.check()
            blob = bucket.blob(self._path(key), chunk_size=PART if large else None)
            try:
                blob.upload_from_file(
                    counted,
                    size=source.size,
                    checksum="crc32c",
                    content_type="application/octet-stream",
                    timeout=4 * self._timeout,
                    retry=self._retry if large else None,
                )
            except BaseException:
                counted.take_back()
                raise

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, several at once: Google has no request for many of them."""
        with ThreadPoolExecutor(min(16, max(1, len(keys)))) as pool:
            # A list, so that the first error is raised.
            list(pool.map(self._delete, map(self._path, keys)))

    def delete_folder(self, key: str) -> None:
        """Delete the markers of a folder that has no files."""
        with self._connections.bucket() as bucket:
            names = [blob.name for blob in self._blobs(bucket, self._path(key))]
        if all(name.endswith("/") for name in names):
            for name in names:
                self._delete(name)

    def copy_file(self, source: str, target: str) -> bool:
        """Copy an object within the bucket."""
        with self._connections.bucket() as bucket:
            from_, to = bucket.blob(self._path(source)), bucket.blob(self._path(target))
            token, _, _ = to.rewrite(from_, timeout=self._timeout, retry=None)
            while token is not None:
                token, _, _ = to.rewrite(from_, token=token, timeout=self._timeout, retry=None)
        return True

    def move_file(self, source: str, target: str) -> bool:
        """Copy an object, and delete it at its old place."""
        self.copy_file(source, target)
        self.delete([source])
        return True

    def signed_url(self, key: str, expires: float, method: str) -> str:
        """Return a URL that is valid for up to 7 days; only a service account can sign one."""
        if not 0 < expires <= _LONGEST_SIGNED:
            raise StorageConfigError(
                f"a signed URL is valid for 1 to {_LONGEST_SIGNED:,} seconds (7 days), not {expires:g}"
            )
        with self._connections.bucket() as bucket:
            credentials = bucket.client._credentials
            if not isinstance(credentials, Signing):
                raise StorageError("only a service account can sign a URL: give its file as credentials")
            url = bucket.blob(self._path(key)).generate_signed_url(
                expiration=timedelta(seconds=expires),
                method=method,
                version="v4",
                api_access_endpoint=self._endpoint,
            )
        return cast("str", url)

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Return the storage's error for one of Google's client."""
        service = self._endpoint or "https://storage.googleapis.com"
        return explaining.explain(error, operation, key, bucket=self.bucket, service=service)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    # Inner steps

    def _blobs(
        self, bucket: Bucket, folder: str, *, delimiter: str | None = None, max_results: int | None = None
    ) -> HTTPIterator:
        found = bucket.list_blobs(
            prefix=f"{folder}/" if folder else None,
            delimiter=delimiter,
            max_results=max_results,
            fields=_FIELDS,
            timeout=self._timeout,
            retry=self._retry,
        )
        return cast("HTTPIterator", found)

    def _entry(self, blob: Blob) -> Entry:
        known = {"md5": blob.md5_hash, "crc32c": blob.crc32c}
        return Entry(
            key=self._key(blob.name),
            size=blob.size,
            modified=blob.updated.timestamp() if blob.updated else None,
            etag=str(blob.generation) if blob.generation else None,
            checksums={name: base64.b64decode(value).hex() for name, value in known.items() if value},
        )

    def _part(self, entry: Entry, start: int, length: int) -> bytes:
        with self._connections.bucket() as bucket:
            blob = bucket.blob(self._path(entry.key))
            data = blob.download_as_bytes(
                start=start,
                end=start + length - 1,
                raw_download=True,
                if_generation_match=_generation(entry),
                checksum=None,
                timeout=self._timeout,
                retry=None,
            )
        _same(entry, blob)
        return cast("bytes", data)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(NotFound), self._connections.bucket() as bucket:
            bucket.blob(path).delete(timeout=self._timeout, retry=None)


class _Counted(io.RawIOBase):
    """A file that tells what is read or written; at the end of a source it sees that it did not change."""

    def __init__(self, file: BinaryIO, told: Told, source: Source | None = None) -> None:
        self._file = file
        self._told = told
        self._source = source
        self._moved = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return bytes of the source, and none of what was added to it since."""
        assert self._source is not None
        left = self._source.size - self._file.tell()
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._count(len(data))
        if data and self._file.tell() >= self._source.size:
            self._source.check()
        return data

    def write(self, data: object) -> int:
        """Write bytes."""
        count = self._file.write(cast("bytes", data))
        self._count(count)
        return count

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in bytes, from which it is read again."""
        before = self._file.tell()
        after = self._file.seek(offset, whence)
        if after < before:
            self._count(after - before)
        return after

    def take_back(self) -> None:
        """Tell that all of it has to be moved again."""
        with contextlib.suppress(Exception):
            self._count(-self._moved)

    def _count(self, count: int) -> None:
        self._moved += count
        self._told(count)


def _generation(entry: Entry) -> int | None:
    return int(entry.etag) if entry.etag else None


def _same(entry: Entry, blob: Blob) -> None:
    # Not every service looks at the condition.
    if entry.etag is not None and str(blob.generation or entry.etag) != entry.etag:
        raise StorageIntegrityError("it changed while it was read")


def _crc32c_of(path: Path) -> str:
    digest = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)  # type: ignore[no-untyped-call]
    return cast("bytes", digest.digest()).hex()  # type: ignore[no-untyped-call]
