"""S3 through obstore: many threads' requests over one pool of connections, none with Python's lock held."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Literal, cast
from urllib.parse import quote

import obstore
from obstore.store import S3Store
from pydantic import Field, SecretStr, model_validator

from synapse_kernel.storage.errors import StorageConfigError, StorageError
from synapse_kernel.storage.providers import Configuration, Entry
from synapse_plugins.storage.object_stores import BucketConfiguration, ObjectStoreProvider
from synapse_plugins.storage.s3 import explaining, transfers
from synapse_plugins.storage.s3.credentials import Keys, found_keys, found_region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3CredentialProvider

    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source

_PAGE = 1000
_LONGEST_SIGNED = 7 * 24 * 3600
_COPIED_ELSEWHERE = {"EntityTooLarge", "InvalidRequest", "NotImplemented"}


class S3Configuration(BucketConfiguration):
    """Where a bucket is, and with which keys it is asked."""

    access_key: SecretStr | None = Field(
        None, description="The access key's id; without it the keys are those that the AWS tools would take."
    )
    secret_key: SecretStr | None = Field(None, description="The secret access key.")
    session_token: SecretStr | None = Field(
        None, description="The session token of keys that are valid for some time only."
    )
    region_name: str | None = Field(
        None,
        description="The bucket's region; without it that of the environment or the profile, or us-east-1.",
    )
    anonymous: bool = Field(False, description="Ask without credentials: for public data.")

    @model_validator(mode="after")
    def _both_keys(self) -> S3Configuration:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key are given together, or neither of them")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token belongs to an access_key and a secret_key")
        return self


class S3Provider(ObjectStoreProvider):
    """A bucket of Amazon S3, or of a service that speaks its protocol."""

    name: ClassVar[str] = "s3"
    scheme: ClassVar[str] = "s3"
    configuration_type: ClassVar[type[Configuration]] = S3Configuration

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._settings = settings = cast("S3Configuration", configuration)
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._endpoint = settings.endpoint_url or (named.rstrip("/") if named else None)
        self._region = settings.region_name or found_region() or "us-east-1"
        self._keys = self._credentials()
        self._store = self._made(self._timeout)
        # A time-out counts from the first byte that is sent, and sending takes time.
        self._uploads = self._made(4 * self._timeout)
        self._fetching = transfers.Fetching(self._store, self._memory, self._is_encrypted)

    def stat(self, key: str) -> Entry:
        """Return the entry of a key: an object's, else that of a folder which has objects below it."""
        path = self._path(key)
        if path:
            try:
                return self._entry(obstore.head(self._store, path))
            except FileNotFoundError:
                pass
        there = self._has_objects(path)
        if not there and key:
            raise FileNotFoundError(key)
        return Entry(key=key, is_folder=True)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what lies in a folder; a marker, the object that tools name ``folder/``, is no file."""
        path = self._path(folder)
        if recursive:
            for chunk in obstore.list(self._store, path or None, chunk_size=_PAGE):
                yield from self._files_of(chunk, path)
            return
        found = obstore.list_with_delimiter(self._store, path or None)
        for inner in found["common_prefixes"]:
            yield Entry(key=self._key(inner), is_folder=True)
        yield from (self._entry(meta) for meta in found["objects"] if meta["path"] != path)

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """Return a range of an object, if it still is the one of the entry."""
        return self._fetching.read(entry, self._path(entry.key), start, length)

    def read_whole(self, key: str) -> bytes:
        """Return an object's content with one request."""
        return self._fetching.read_whole(self._path(key))

    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """Write an object into a file, a large one in several ranges at once."""
        self._fetching.get_file(entry, self._path(entry.key), target, told)

    def put_file(self, source: Source, key: str, told: Told) -> None:
        """Write an object: in one request, or in parts that are nothing before the last of them is there."""
        transfers.put_file(self._uploads, self._memory, source, self._path(key), told)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, up to 1,000 with a request."""
        obstore.delete(self._store, [self._path(key) for key in keys])

    def delete_folder(self, key: str) -> None:
        """Delete the markers of a folder that has no files."""
        path = self._path(key)
        for chunk in obstore.list(self._store, path, chunk_size=_PAGE):
            if any(meta["size"] for meta in chunk):
                return
            for meta in chunk:
                self._delete_marker(meta["path"])

    def copy_file(self, source: str, target: str) -> bool:
        """Copy an object within the bucket; False for one that is too large for that."""
        try:
            obstore.copy(self._store, self._path(source), self._path(target))
        except obstore.exceptions.BaseError as error:
            if any(f"<Code>{code}</Code>" in str(error) for code in _COPIED_ELSEWHERE):
                return False
            raise
        return True

    def move_file(self, source: str, target: str) -> bool:
        """Copy an object, and delete it at its old place."""
        if not self.copy_file(source, target):
            return False
        self.delete([source])
        return True

    def signed_url(self, key: str, expires: float, method: str) -> str:
        """Return a URL that is valid for up to 7 days."""
        if not 0 < expires <= _LONGEST_SIGNED:
            raise StorageConfigError(
                f"a signed URL is valid for 1 to {_LONGEST_SIGNED:,} seconds (7 days), not {expires:g}",
                provider=self.name,
                operation="signed_url",
                key=key,
            )
        if method not in {"GET", "PUT", "HEAD", "DELETE"}:
            raise StorageConfigError(
                f"a signed URL is for GET, HEAD, PUT or DELETE, not {method!r}",
                provider=self.name,
                operation="signed_url",
                key=key,
            )
        return self._signed(self._store, self._path(key), expires, method)

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Return the storage's error for one of obstore's."""
        return explaining.explain(error, operation, key, bucket=self.bucket, service=self._service)

    # Inner steps

    @property
    def _service(self) -> str:
        return self._endpoint or f"https://s3.{self._region}.amazonaws.com"

    def _credentials(self) -> S3CredentialProvider | None:
        settings = self._settings
        if settings.anonymous:
            return None
        if settings.access_key is None or settings.secret_key is None:
            return found_keys()
        token = settings.session_token
        return Keys(
            settings.access_key.get_secret_value(),
            settings.secret_key.get_secret_value(),
            token.get_secret_value() if token is not None else None,
        )

    def _made(self, timeout: float, endpoint: str | None = None) -> S3Store:
        config: S3Config = {"region": self._region}
        if self._settings.anonymous:
            config["skip_signature"] = True
        if endpoint is not None:
            config["endpoint"] = endpoint
            config["virtual_hosted_style_request"] = config["disable_bulk_delete"] = True
        elif self._endpoint is not None:
            config["endpoint"] = self._endpoint
            config["virtual_hosted_style_request"] = False
        else:
            # Amazon checks it against what it stores; others do not know it, or not for parts.
            config["checksum_algorithm"] = "SHA256"
            config["virtual_hosted_style_request"] = "." not in self.bucket
        client: ClientConfig = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=min(5.0, self._timeout)),
            "read_timeout": timedelta(seconds=timeout),
            # Of a whole answer, however large: the one above tells whether it goes on.
            "timeout": timedelta(hours=1),
        }
        # One part of many is asked for again here; what fails longer is `Storage`'s to try again.
        retry: RetryConfig = {
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=self._timeout),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        }
        return S3Store(
            self.bucket,
            config=config,
            client_options=client,
            retry_config=retry,
            credential_provider=self._keys,
        )

    def _entry(self, meta: ObjectMeta) -> Entry:
        etag = transfers.bare(meta["e_tag"])
        has_md5 = etag is not None and transfers.is_md5(etag) and self._fetching.etags_are_md5
        return Entry(
            key=self._key(meta["path"]),
            size=meta["size"],
            modified=meta["last_modified"].timestamp(),
            etag=etag,
            checksums={"md5": etag} if has_md5 and etag else {},
        )

    def _has_objects(self, path: str) -> bool:
        try:
            return next(iter(obstore.list(self._store, path or None, chunk_size=1)), None) is not None
        except obstore.exceptions.InvalidPathError:
            return True

    def _files_of(self, chunk: Sequence[ObjectMeta], folder: str) -> Iterator[Entry]:
        # obstore names the marker 'a/' as it names a file 'a' without content.
        doubtful = {meta["path"] for meta in chunk if meta["size"] == 0 and meta["path"] != folder}
        markers = set[str]()
        if doubtful:
            with ThreadPoolExecutor(min(32, len(doubtful))) as pool:
                told = pool.map(lambda path: (path, self._is_object(path)), doubtful)
                markers = {path for path, there in told if not there}
        last = ""
        for meta in chunk:
            path = meta["path"]
            if path == folder or path in markers or (path == last and meta["size"] == 0):
                continue
            last = path
            yield self._entry(meta)

    def _is_object(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def _delete_marker(self, path: str) -> None:
        # obstore drops the last '/' of a path: a store whose root is the folder has it in its address.
        folder = self._made(self._timeout, f"{self._service}/{self.bucket}/{quote(path)}")
        obstore.delete(folder, "")

    def _is_encrypted(self, path: str) -> bool:
        """Tell whether an object's ETag is no MD5 because the service encrypts it with keys of its own."""
        from urllib.request import Request, urlopen

        url = self._signed(self._store, path, 60, "HEAD")
        with urlopen(Request(url, method="HEAD"), timeout=self._timeout) as answer:  # noqa: S310 - endpoint_url
            kind = answer.headers.get("x-amz-server-side-encryption", "")
            own = answer.headers.get("x-amz-server-side-encryption-customer-algorithm")
        return kind.startswith("aws:kms") or own is not None

    def _signed(self, store: S3Store, path: str, expires: float, method: str) -> str:
        verb = cast("Literal['GET', 'PUT', 'HEAD', 'DELETE']", method)
        return obstore.sign(store, verb, path, timedelta(seconds=expires))
