"""Objects fetched and written in bounded memory: small ones with one request, large ones in parts at once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

import obstore

from synapse_kernel.storage.errors import StorageIntegrityError
from synapse_plugins.storage.object_stores import AT_ONCE, IN_MEMORY, PART, get_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from obstore import Bytes, GetOptions, GetResult
    from obstore.store import S3Store

    from synapse_kernel.storage.providers import Entry, Told
    from synapse_kernel.storage.sources import Source
    from synapse_plugins.storage.object_stores import MemoryBound

_SMALL = 1 << 20
_PIECE = 1 << 20
_MOST_PARTS = 9_000
"""The service's own limit is 10,000."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_RANGES = "non-partial response"


def bare(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None


def is_md5(etag: str) -> bool:
    """Tell whether an ETag has the form of an MD5: that of an object written in parts has not."""
    return _MD5.fullmatch(etag) is not None


def put_file(store: S3Store, memory: MemoryBound, source: Source, path: str, told: Told) -> None:
    """Write an object; the service checks each request's SHA-256, which its signature holds."""
    if source.size <= PART:
        with memory.hold(source.size):
            with source.open() as file:
                data = file.read(source.size)
            source.check()
            # One that has nothing to send any more is not to begin: it could not be stopped later.
            told(0)
            obstore.put(store, path, data, use_multipart=False)
        told(source.size)
        return
    part = max(PART, -(-source.size // _MOST_PARTS))
    at_once = max(1, min(AT_ONCE, IN_MEMORY // part))
    moved = 0

    def pieces() -> Iterator[bytes]:
        nonlocal moved
        with source.open() as file:
            while data := file.read(min(_PIECE, source.size - moved)):
                moved += len(data)
                yield data
                told(len(data))
        source.check()

    with memory.hold(part * at_once):
        try:
            # An error of `pieces` ends the upload, and takes back the parts that are there.
            obstore.put(store, path, pieces(), chunk_size=part, max_concurrency=at_once, use_multipart=True)
        except BaseException:
            with contextlib.suppress(Exception):
                told(-moved)
            raise


class Fetching:
    """Reads objects, and remembers what the service turned out not to do."""

    def __init__(self, store: S3Store, memory: MemoryBound, is_encrypted: Callable[[str], bool]) -> None:
        self._store = store
        self._memory = memory
        self._is_encrypted = is_encrypted
        self._has_ranges = True
        self.etags_are_md5 = True

    def read(self, entry: Entry, path: str, start: int, length: int) -> bytes:
        """Return a range of an object."""
        length = min(length, (entry.size or 0) - start)
        if length <= 0:
            return b""
        if self._has_ranges:
            try:
                return bytes(self._part(entry, path, start, length))
            except obstore.exceptions.GenericError as error:
                if _NO_RANGES not in str(error):
                    raise
                self._has_ranges = False
        found = bytearray()
        at = 0
        for data in self._whole(entry, path).stream(_PIECE):
            found += memoryview(data)[max(0, start - at) : start + length - at]
            at += len(data)
            if at >= start + length:
                break
        return bytes(found)

    def read_whole(self, path: str) -> bytes:
        """Return an object's content."""
        result = obstore.get(self._store, path)
        data = bytes(result.bytes())
        self._verify(path, bare(result.meta["e_tag"]), lambda: _md5(data))
        return data

    def get_file(self, entry: Entry, path: str, target: Path, told: Told) -> None:
        """Write an object into a file; what broke off is good up to the file's end."""
        size = entry.size or 0
        if self._has_ranges and size > 2 * PART:
            try:
                self._get_parts(entry, path, target, told)
            except obstore.exceptions.GenericError as error:
                if _NO_RANGES not in str(error):
                    raise
                self._has_ranges = False
            else:
                self._verify(path, entry.etag, lambda: _md5_of(target))
                return
        self._get_whole(entry, path, target, told)

    def _get_whole(self, entry: Entry, path: str, target: Path, told: Told) -> None:
        moved = 0
        digest = hashlib.md5(usedforsecurity=False)
        checked = entry.etag is not None and is_md5(entry.etag)
        try:
            with target.open("wb") as file:
                result = self._whole(entry, path)
                for data in [result.bytes()] if (entry.size or 0) <= _SMALL else result.stream(_PIECE):
                    if checked:
                        digest.update(data)
                    file.write(data)
                    moved += len(data)
                    told(len(data))
        except BaseException:
            target.unlink(missing_ok=True)
            with contextlib.suppress(Exception):
                told(-moved)
            raise
        self._verify(path, entry.etag, digest.hexdigest)

    def _get_parts(self, entry: Entry, path: str, target: Path, told: Told) -> None:
        def fetch(start: int, length: int) -> memoryview:
            return memoryview(self._part(entry, path, start, length))

        get_parts(fetch, entry.size or 0, target, self._memory, told)

    def _part(self, entry: Entry, path: str, start: int, length: int) -> Bytes:
        options: GetOptions = {"range": (start, start + length)}
        result = obstore.get(self._store, path, options=self._matching(entry, options))
        return self._same(entry, result).bytes()

    def _whole(self, entry: Entry, path: str) -> GetResult:
        return self._same(entry, obstore.get(self._store, path, options=self._matching(entry, {})))

    def _matching(self, entry: Entry, options: GetOptions) -> GetOptions:
        if entry.etag is not None and not entry.etag.startswith("W/"):
            options["if_match"] = f'"{entry.etag}"'
        return options

    def _same(self, entry: Entry, result: GetResult) -> GetResult:
        # Not every service looks at the condition.
        if entry.etag is not None and bare(result.meta["e_tag"]) not in {None, entry.etag}:
            raise StorageIntegrityError("it changed while it was read")
        return result

    def _verify(self, path: str, etag: str | None, digest: Callable[[], str]) -> None:
        if etag is None or not is_md5(etag) or not self.etags_are_md5 or digest() == etag:
            return
        if self._is_encrypted(path):
            self.etags_are_md5 = False
            return
        raise StorageIntegrityError("what arrived does not have the MD5 of its ETag", transient=True)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
