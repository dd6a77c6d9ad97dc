"""Files of any storage kept in a folder of this machine: each is got once, and gone on with after a break."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import msgspec

from synapse_kernel.current import kernel_here
from synapse_kernel.files import write_whole
from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageIntegrityError
from synapse_kernel.storage.keys import name_of
from synapse_kernel.storage.transfers import FileMeter, Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.storage.finding import Location
    from synapse_kernel.storage.paths import StoragePath
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.transfers import TransferProgress

_LONGEST_NAME = 120
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


class _Content(msgspec.Struct, frozen=True):
    """What the service called a content when it was got."""

    size: int | None
    modified: float | None
    etag: str | None

    @property
    def is_known(self) -> bool:
        """Whether another content would be called something else."""
        return self.etag is not None or (self.modified is not None and self.size is not None)


class _Part(msgspec.Struct, frozen=True):
    """What a part is of, and whether whoever wrote it left it in order."""

    content: _Content
    is_left: bool


N = TypeVar("N", _Content, _Part)


def download_file(
    source: str | Location | StoragePath,
    folder: str | os.PathLike[str],
    *,
    checksum: str | None = None,
    progress: Callable[[TransferProgress], None] | None = None,
    kernel: Kernel | None = None,
) -> Path:
    """
    Return the local copy of a file of any storage, which is got where it is not in `folder` yet.

    `source` is a URL, ``storage://name/key``, a `Location` or a path of a storage. The copy's name holds a
    digest of the whole address, what stands behind ``?`` too. The service is asked each time whether its file
    is still the same, and a changed one is got anew; where the copy has the `checksum` given (``sha256:…``)
    nobody is asked. A download that broke off is gone on with, by another process too, if the file is still
    the same one. Processes that want one file at once wait for the first. Raises `StorageError` and its
    kinds; what the folder had it keeps then.
    """
    location, address = _found(source, kernel)
    if not location.key:
        raise StorageConfigError(
            "the address of a file is needed, and this is the root",
            provider=location.storage.provider.name,
            operation="download",
        )
    if checksum is not None:
        from synapse_kernel.storage.checksums import parse_checksum

        parse_checksum(checksum)
    digest = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()[:16]
    copy = Path(folder) / f"{digest}-{_file_name(name_of(location.key))}"
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with _alone(_beside(copy, "lock")):
            return _Download(location, copy, checksum, Meter("download", progress)).got()
    except OSError as error:
        raise location.storage.provider.explain(error, "download", location.key) from error


class _Download:
    """One file on its way; no other process is at it."""

    def __init__(self, location: Location, copy: Path, checksum: str | None, meter: Meter) -> None:
        self._storage = location.storage
        self._full = location.storage._full(location.key, "download")
        self._copy = copy
        self._checksum = checksum
        self._meter = meter
        self._part, self._part_note = _beside(copy, "part"), _beside(copy, "part.json")
        self._note = _beside(copy, "json")

    def got(self) -> Path:
        """Return the copy, made if it has to be."""
        if self._checksum is not None and self._copy.exists() and self._is_right(self._copy):
            return self._copy
        entry = self._storage._stat(self._full, "download")
        if entry.is_folder:
            raise self._error(StorageConfigError, "it is a folder: name one file, or use Storage.download")
        content = _Content(entry.size, entry.modified, entry.etag)
        if self._copy.exists() and _noted(self._note, _Content) == content and content.is_known:
            if self._checksum is not None:
                # It is what the service has, and that is not what was asked for.
                self._verify(self._copy)
            return self._copy
        self._get(entry, content)
        return self._copy

    def _get(self, entry: Entry, content: _Content) -> None:
        provider, file = self._storage.provider, FileMeter(self._meter)
        self._meter.expect(entry.size)
        if self._is_good(content):
            file.moved(self._part.stat().st_size)
        else:
            self._part.unlink(missing_ok=True)
        self._mark(content, is_left=False)
        try:
            self._storage._call(
                "download", self._full, lambda: provider.get_file(entry, self._part, file.moved)
            )
        except BaseException:
            self._mark(content, is_left=True)
            raise
        try:
            size = self._part.stat().st_size
            if entry.size is not None and size != entry.size:
                raise self._error(StorageIntegrityError, f"{size} bytes came, and it has {entry.size}")
            self._verify(self._part)
        except StorageError:
            # What is wrong as a whole is not to be gone on with.
            self._part.unlink(missing_ok=True)
            raise
        # A copy without its note is got again: never is the note that of another content.
        self._note.unlink(missing_ok=True)
        if entry.modified is not None:
            os.utime(self._part, (entry.modified, entry.modified))
        self._part.replace(self._copy)
        write_whole(self._note, msgspec.json.encode(content).decode())
        self._part_note.unlink(missing_ok=True)
        file.done(size)

    def _is_good(self, content: _Content) -> bool:
        note = _noted(self._part_note, _Part)
        if note is None or note.content != content or not content.is_known or not self._part.exists():
            return False
        # One who was killed may have written the end before the middle.
        return note.is_left or self._storage.provider.gets_in_order

    def _mark(self, content: _Content, *, is_left: bool) -> None:
        write_whole(self._part_note, msgspec.json.encode(_Part(content, is_left)).decode())

    def _verify(self, file: Path) -> None:
        if self._checksum is None:
            return
        from synapse_kernel.storage.checksums import verify_checksum

        try:
            verify_checksum(file, self._checksum)
        except StorageError as error:
            raise self._storage.provider.explain(error, "download", self._full) from error

    def _is_right(self, file: Path) -> bool:
        try:
            self._verify(file)
        except StorageIntegrityError:
            return False
        return True

    def _error(self, kind: type[StorageError], reason: str) -> StorageError:
        return kind(reason, provider=self._storage.provider.name, operation="download", key=self._full)


def _found(source: str | Location | StoragePath, kernel: Kernel | None) -> tuple[Location, str]:
    from synapse_kernel.storage.finding import Location

    if not isinstance(source, str):
        location = Location(source.storage, source.key)
        return location, location.url
    location = (kernel or kernel_here()).storages.location(source)
    query = urlsplit(source).query if source.startswith(("http://", "https://")) else ""
    return location, f"{location.url}?{query}" if query else location.url


def _file_name(name: str) -> str:
    """Return a name that any file system takes; its end, which tells the kind of file, is kept."""
    plain = _NOT_IN_NAMES.sub("_", name)
    while len(plain.encode(errors="replace")) > _LONGEST_NAME:
        plain = plain[1:]
    return plain


def _beside(copy: Path, kind: str) -> Path:
    return copy.with_name(f".{copy.name}.{kind}")


def _noted(note: Path, kind: type[N]) -> N | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    # The file stays: whoever deletes a lock's file lets two in that hold different ones.
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
