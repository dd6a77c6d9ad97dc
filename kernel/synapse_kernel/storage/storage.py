"""The storage: what actions, pipelines and people do with any provider, in one way."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast

import msgspec

from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
)
from synapse_kernel.storage.explaining import reason_of
from synapse_kernel.storage.keys import clean_key, join_key, key_below, name_of
from synapse_kernel.storage.local_trees import names_below, part_name
from synapse_kernel.storage.retrying import RetryPolicy, call_again
from synapse_kernel.storage.sources import Source
from synapse_kernel.storage.transfers import FileMeter, Meter, TransferReport, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from synapse_kernel.storage.checking import CheckReport
    from synapse_kernel.storage.ends import Place
    from synapse_kernel.storage.filesystem import StorageFileSystem
    from synapse_kernel.storage.paths import StoragePath
    from synapse_kernel.storage.providers import Entry, Provider
    from synapse_kernel.storage.sources import Link
    from synapse_kernel.storage.syncing import SyncReport
    from synapse_kernel.storage.transfers import TransferProgress

    Listener = Callable[[TransferProgress], None]

R = TypeVar("R")

_DELETE_AT_ONCE = 500


class Storage:
    """
    Files under keys, wherever they are: below one root, whole or not at all.

    Made by `Kernel.storage`, `get_storage` or ``ctx.storage``. It may be used from several threads; transfers
    of many files run side by side. Every key is relative to the root and literal. Each call raises
    `StorageError` or one of its kinds; those that pass are tried again first. `progress`, given here or to a
    call, is called with a `TransferProgress` from the threads that transfer: what it raises ends the call.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        base: str = "",
        name: str | None = None,
        progress: Listener | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.provider = provider
        self._base = base
        self._name = name
        self._progress = progress
        self._retries = retries or RetryPolicy()

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    @property
    def url(self) -> str:
        """The URL of its root."""
        return self.provider.url_of(self._base)

    def at(self, folder: str, *, progress: Listener | None = None) -> Storage:
        """Return the storage whose root is a folder of this one; it shares the connections."""
        base = self._full(folder, "at")
        return Storage(
            self.provider,
            base=base,
            name=None if self._name is None else join_key(self._name, self._own_key(base)),
            progress=progress or self._progress,
            retries=self._retries,
        )

    # What is there

    def info(self, key: str = "") -> Entry:
        """Return the entry of a file or folder; raises `StorageNotFoundError`."""
        return self._own(self._stat(self._full(key, "info"), "info"))

    def exists(self, key: str = "") -> bool:
        """Tell whether a file or folder is there."""
        try:
            self._stat(self._full(key, "exists"), "exists")
        except StorageNotFoundError:
            return False
        return True

    def list(self, folder: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        """
        Yield the entries of a folder as they come, in the provider's order.

        With `recursive` these are the files at every depth. Raises `StorageNotFoundError` for a
        folder that is not there.
        """
        full = self._full(folder, "list")
        return (self._own(entry) for entry in self._entries(full, recursive=recursive, operation="list"))

    def glob(self, pattern: str) -> Iterator[Entry]:
        """
        Yield the files and folders whose key matches a pattern of ``*``, ``?``, ``[a-z]`` and ``**``.

        ``**`` stands for any folders, and gives files only.
        """
        from synapse_kernel.storage.matching import matching

        return matching(self, clean_key(pattern, provider=self.provider.name, operation="glob"))

    def walk(self, folder: str = "") -> Iterator[tuple[str, Sequence[Entry], Sequence[Entry]]]:
        """Yield each folder's key with the folders and the files in it, the upper ones first, by name."""
        entries = sorted(self.list(folder), key=lambda entry: entry.key)
        inner = [entry for entry in entries if entry.is_folder]
        yield (
            clean_key(folder, provider=self.provider.name, operation="walk"),
            inner,
            [entry for entry in entries if not entry.is_folder],
        )
        for entry in inner:
            yield from self.walk(entry.key)

    def get_path_file_count(self, key: str = "") -> int:
        """Return how many files are under a key, at every depth; 1 for a file."""
        return sum(1 for _ in self._files(key, "count"))

    def get_path_total_size(self, key: str = "") -> int:
        """Return the size in bytes of all files under a key."""
        return sum(entry.size or 0 for entry in self._files(key, "size"))

    # Contents

    def read_bytes(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return a file's content, or `length` bytes of it from `start`."""
        full = self._full(key, "read")
        if start == 0 and length is None:
            return self._call("read", full, lambda: self.provider.read_whole(full))
        entry = self._stat(full, "read")
        if length is None and entry.size is None:
            return self.read_bytes(key)[start:]
        wanted = max(0, (entry.size or 0) - start) if length is None else length
        return self._call("read", full, lambda: self.provider.read(entry, start, wanted))

    def read_text(self, key: str, *, encoding: str = "utf-8") -> str:
        """Return a file's content as text."""
        return self.read_bytes(key).decode(encoding)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        self._put(Source.of_bytes(bytes(data)), self._file_key(key, "write"), Meter("write", None), "write")

    def write_text(self, key: str, text: str, *, encoding: str = "utf-8") -> None:
        """Write a file of text, whole or not at all."""
        self.write_bytes(key, text.encode(encoding))

    def open(self, key: str, mode: str = "rb", *, encoding: str | None = None) -> IO[str] | IO[bytes]:
        """
        Open a file: ``r``, ``w``, ``x`` or ``a``, with ``b`` or ``t``; as with `open`, text is the default.

        What is written appears at the close, whole; not at all if the ``with`` block is left by an exception.
        """
        from synapse_kernel.storage.opened_files import TextWriter, WholeWriter, open_reader

        kind = mode.replace("b", "").replace("t", "")
        if kind not in {"r", "w", "x", "a"} or ("b" in mode and "t" in mode):
            raise StorageConfigError(
                f"there is no mode {mode!r}: use r, w, x or a, with b for bytes",
                provider=self.provider.name,
                operation="open",
                key=key,
            )
        full = self._file_key(key, "open")
        if kind == "r":
            entry = self._stat(full, "open")
            if entry.is_folder:
                raise self.provider.explain(IsADirectoryError(), "open", full)
            fetch, size = partial(self._fetch, entry), entry.size
            if size is None:
                # A service that tells no size gives it whole or not at all.
                whole = self._call("open", full, lambda: self.provider.read_whole(full))
                fetch, size = partial(_part_of, whole), len(whole)
            reader = open_reader(fetch, size, self.provider.url_of(full))
            return reader if "b" in mode else io.TextIOWrapper(reader, encoding or "utf-8")
        content = self._content_for(kind, full)
        writer = WholeWriter(self._commit(full), self.provider.url_of(full), content)
        if "b" in mode:
            return cast("IO[bytes]", writer)
        return TextWriter(cast("IO[bytes]", writer), encoding or "utf-8", newline="")

    # Transfers

    def upload(
        self,
        source: str | os.PathLike[str],
        key: str | None = None,
        *,
        link: Link | None = None,
        progress: Listener | None = None,
    ) -> TransferReport:
        """
        Write a local file, or all files below a local folder, under a key; without one under its own name.

        Each file is written whole or not at all. The first failure ends the call; the files written before it
        stay. With `link` a file is not copied, where the provider is of this machine and the file system can:
        ``reflink`` shares the content until either is changed, ``hardlink`` is one file of two names, which
        programs that write into it change for both. Raises `StorageNotFoundError` if `source` is not there.
        """
        path = Path(source)
        target = self._full(path.resolve().name if key is None else key, "upload")
        meter = self._meter("upload", progress)
        if not path.exists():
            raise StorageNotFoundError(
                f"there is no local file or folder {path}", provider=self.provider.name, operation="upload"
            )
        if not path.is_dir():
            self._upload_file(str(path), target or path.name, meter, link)
            return meter.report

        def work(item: tuple[str, str]) -> None:
            self._upload_file(item[1], join_key(target, item[0]), meter, link)

        run_all(names_below(str(path)), work, limit=self.provider.concurrency, meter=meter)
        return meter.report

    def download(
        self,
        key: str,
        target: str | os.PathLike[str],
        *,
        checksum: str | None = None,
        link: Link | None = None,
        progress: Listener | None = None,
    ) -> TransferReport:
        """
        Write a file, or all files under a key, to a local path.

        A file goes into `target` if that is a folder, else it takes that name; a folder's files go below
        `target`. `checksum`, as ``sha256:…``, is what a file must have. Each appears whole or not at all.
        `link` is what it is for `upload`.
        """
        full, path = self._full(key, "download"), Path(target)
        meter = self._meter("download", progress)
        entry = self._stat(full, "download")
        if not entry.is_folder:
            into = path / name_of(full) if path.is_dir() or str(target).endswith(os.sep) else path
            self._download_file(entry, into, meter, checksum, link)
            return meter.report
        if checksum is not None:
            raise StorageConfigError(
                "a checksum is one file's, and this is a folder",
                provider=self.provider.name,
                operation="download",
                key=full,
            )

        folders: set[str] = set()

        def work(inner: Entry) -> None:
            into = f"{path}/{self._local(inner.key, full)}"
            self._download_file(inner, into, meter, None, link, folders)

        entries = self._entries(full, recursive=True, operation="download")
        run_all(entries, work, limit=self.provider.concurrency, meter=meter)
        path.mkdir(parents=True, exist_ok=True)
        return meter.report

    def delete(
        self, key: str, *, recursive: bool = False, progress: Listener | None = None
    ) -> TransferReport:
        """
        Delete a file, or with `recursive` a folder and all in it.

        Raises `StorageNotFoundError` for what is not there, `StorageConfigError` for a folder without
        `recursive`.
        """
        full = self._full(key, "delete")
        meter = self._meter("delete", progress)
        entry = self._stat(full, "delete")
        if not entry.is_folder:
            self._call("delete", full, lambda: self.provider.delete([full]))
            meter.file_done()
            return meter.report
        if not recursive:
            raise StorageConfigError(
                "it is a folder: ask for all in it to be deleted with recursive=True (--recursive)",
                provider=self.provider.name,
                operation="delete",
                key=full,
            )

        def work(keys: Sequence[str]) -> None:
            self._call("delete", full, lambda: self.provider.delete(keys))
            for _ in keys:
                meter.file_done()

        run_all(_batches(self._deletable(full)), work, limit=self.provider.concurrency, meter=meter)
        if full != self._base:
            self._call("delete", full, lambda: self.provider.delete_folder(full))
        return meter.report

    def copy(self, source: str, target: str, *, progress: Listener | None = None) -> TransferReport:
        """Copy a file or a folder to another key of this storage, by the service itself where it can."""
        return self._carry("copy", source, target, progress)

    def move(self, source: str, target: str, *, progress: Listener | None = None) -> TransferReport:
        """Move a file or a folder to another key of this storage; a file is at one of both at any moment."""
        report = self._carry("move", source, target, progress)
        if self.exists(source):
            self.delete(source, recursive=True)
        return report

    def sync(
        self,
        source: Place,
        target: Place,
        *,
        delete: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        exclude: Iterable[str] = (),
        max_delete: int | None = None,
        progress: Listener | None = None,
    ) -> SyncReport:
        """
        Make the folder `target` hold the files of `source`; only what differs is carried.

        A text is the key of a folder in this storage; a `Path` is one of this machine, and a `Storage`,
        `Location` or `StoragePath` what it says. See `synapse_kernel.storage.syncing.sync` for the rest.
        """
        from synapse_kernel.storage.syncing import sync

        return sync(
            self.at(source) if isinstance(source, str) else source,
            self.at(target) if isinstance(target, str) else target,
            delete=delete,
            checksum=checksum,
            dry_run=dry_run,
            exclude=exclude,
            max_delete=max_delete,
            progress=progress or self._progress,
        )

    def check(self) -> CheckReport:
        """Try to list, write, read and delete here, and tell what works; nothing is left behind."""
        from synapse_kernel.storage.checking import check

        return check(self)

    # Addresses

    def get_url(self, key: str = "") -> str:
        """Return the URL of a key; it holds no credentials."""
        return self.provider.url_of(self._full(key, "get_url"))

    def get_address(self, key: str = "") -> str:
        """Return by what a kernel with these settings finds a key: ``storage://name/key``, else its URL."""
        full = self._full(key, "get_address")
        if self._name is None:
            return self.provider.url_of(full)
        return f"storage://{join_key(self._name, self._own_key(full))}"

    def signed_url(self, key: str, expires: float = 3600, *, method: str = "GET") -> str:
        """
        Return a URL with which anyone can GET (or PUT) a file for `expires` seconds.

        Raises `StorageError` for a provider that has none.
        """
        full = self._file_key(key, "signed_url")
        return self._call("signed_url", full, lambda: self.provider.signed_url(full, expires, method))

    def get_pathlib(self, key: str = "") -> StoragePath:
        """Return a key as a path with the interface of `pathlib.Path` (a `UPath`)."""
        from synapse_kernel.storage.paths import path_in

        return path_in(self, self._own_key(self._full(key, "get_pathlib")))

    @property
    def filesystem(self) -> StorageFileSystem:
        """This storage as an fsspec file system, for whatever speaks fsspec."""
        from synapse_kernel.storage.filesystem import StorageFileSystem

        return StorageFileSystem(storage=self)

    def make_folder(self, key: str) -> None:
        """Make a folder, where the service has folders."""
        full = self._full(key, "make_folder")
        self._call("make_folder", full, lambda: self.provider.make_folder(full))

    def delete_folder(self, key: str) -> None:
        """Delete a folder that holds no files, where the service has folders."""
        full = self._file_key(key, "delete_folder")
        self._call("delete_folder", full, lambda: self.provider.delete_folder(full))

    def close(self) -> None:
        """Let go of its connections, which what came of `at` shares."""
        self.provider.close()

    # Inner steps

    def _full(self, key: str, operation: str) -> str:
        return join_key(self._base, clean_key(key, provider=self.provider.name, operation=operation))

    def _file_key(self, key: str, operation: str) -> str:
        full = self._full(key, operation)
        if full == self._base:
            raise StorageConfigError(
                "the key of a file is needed, and this is the root",
                provider=self.provider.name,
                operation=operation,
            )
        return full

    def _own_key(self, full: str) -> str:
        return key_below(full, self._base)

    def _own(self, entry: Entry) -> Entry:
        return msgspec.structs.replace(entry, key=self._own_key(entry.key)) if self._base else entry

    def _meter(self, operation: str, progress: Listener | None) -> Meter:
        return Meter(operation, progress or self._progress)

    def _call(self, operation: str, key: str | None, call: Callable[[], R]) -> R:
        return call_again(self._retries, call, lambda error: self.provider.explain(error, operation, key))

    def _stat(self, full: str, operation: str) -> Entry:
        return self._call(operation, full, lambda: self.provider.stat(full))

    def _entries(self, full: str, *, recursive: bool, operation: str) -> Iterator[Entry]:
        try:
            yield from self.provider.entries(full, recursive=recursive)
        except Exception as error:
            raise self.provider.explain(error, operation, full) from error

    def _deletable(self, full: str) -> Iterator[str]:
        try:
            yield from self.provider.deletable(full)
        except Exception as error:
            raise self.provider.explain(error, "delete", full) from error

    def _files(self, key: str, operation: str) -> Iterator[Entry]:
        full = self._full(key, operation)
        entry = self._stat(full, operation)
        if not entry.is_folder:
            yield entry
            return
        yield from self._entries(full, recursive=True, operation=operation)

    def _fetch(self, entry: Entry, start: int, length: int) -> bytes:
        return self._call("read", entry.key, lambda: self.provider.read(entry, start, length))

    def _content_for(self, kind: str, full: str) -> bytes:
        if kind == "w":
            return b""
        there = self.exists(self._own_key(full))
        if kind == "x" and there:
            raise StorageConfigError(
                "a file is there already, and mode 'x' makes a new one",
                provider=self.provider.name,
                operation="open",
                key=full,
            )
        return self._call("read", full, lambda: self.provider.read_whole(full)) if there else b""

    def _commit(self, full: str) -> Callable[[Source], None]:
        return lambda source: self._put(source, full, Meter("write", None), "write")

    def _put(self, source: Source, full: str, meter: Meter, operation: str) -> None:
        file = FileMeter(meter)
        self._call(operation, full, lambda: self.provider.put_file(source, full, file.moved))
        file.done(source.size)

    def _upload_file(self, path: str, full: str, meter: Meter, link: Link | None = None) -> None:
        try:
            source = Source.of_file(path, link)
        except FileNotFoundError:
            raise StorageNotFoundError(
                f"there is no local file {path}", provider=self.provider.name, operation="upload", key=full
            ) from None
        except (OSError, StorageError) as error:
            raise self.provider.explain(error, "upload", full) from error
        meter.expect(source.size)
        file = FileMeter(meter)

        def put() -> None:
            nonlocal source
            if file.bytes:
                # It may have changed since the last try: it is taken as it is now.
                source = Source.of_file(path, link)
            self.provider.put_file(source, full, file.moved)

        self._call("upload", full, put)
        file.done(source.size)

    def _local(self, key: str, folder: str) -> str:
        below = key_below(key, folder)
        # A service may list what our keys never are: '../x' must not be written beside the target.
        if clean_key(below, provider=self.provider.name, operation="download") != below:
            raise StorageConfigError(
                "this key has no place in a folder",
                provider=self.provider.name,
                operation="download",
                key=key,
            )
        return below

    def _download_file(
        self,
        entry: Entry,
        target: str | os.PathLike[str],
        meter: Meter,
        checksum: str | None,
        link: Link | None = None,
        folders: set[str] | None = None,
    ) -> None:
        """Get one file; the folders in `folders` are there, and the one of `target` joins them."""
        meter.expect(entry.size)
        file = FileMeter(meter)
        folder = os.path.dirname(target) or "."  # noqa: PTH120 - on every file's way
        if folders is None or folder not in folders:
            self._make_local_folder(folder, entry.key)
            if folders is not None:
                folders.add(folder)
        part = Path(f"{folder}/{part_name()}")

        def get() -> bool:
            if link is not None and self.provider.link_file(entry, part, link):
                return True
            self.provider.get_file(entry, part, file.moved)
            return False

        try:
            linked = self._call("download", entry.key, get)
            size = self._verify(entry, part, checksum)
            if entry.modified is not None and not linked:
                os.utime(part, (entry.modified, entry.modified))
            os.replace(part, target)  # noqa: PTH105 - on every file's way
            if linked:
                # Renaming onto another name of the same file does nothing at all.
                part.unlink(missing_ok=True)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, (OSError, StoragePermissionError)):
                raise self._unwritten(error, folder, entry.key) from error
            raise
        file.done(size)

    def _make_local_folder(self, folder: str, key: str) -> None:
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - on every file's way
        except OSError as error:
            kind = StoragePermissionError if isinstance(error, PermissionError) else StorageError
            raise kind(
                f"the local folder {folder} cannot be made: {reason_of(error)}",
                provider=self.provider.name,
                operation="download",
                key=key,
            ) from error

    def _unwritten(self, error: Exception, folder: str, key: str) -> StorageError:
        if isinstance(error, (PermissionError, StoragePermissionError)) and not os.access(folder, os.W_OK):
            # The provider met it first, and cannot know whose folder it was.
            return StoragePermissionError(
                f"the local folder {folder} cannot be written to",
                provider=self.provider.name,
                operation="download",
                key=key,
            )
        return self.provider.explain(error, "download", key)

    def _verify(self, entry: Entry, part: Path, checksum: str | None) -> int:
        size = os.stat(part).st_size  # noqa: PTH116 - on every file's way
        if entry.size is not None and size != entry.size:
            raise StorageIntegrityError(
                f"{size} bytes came, and it has {entry.size}",
                provider=self.provider.name,
                operation="download",
                key=entry.key,
            )
        if checksum is not None:
            from synapse_kernel.storage.checksums import verify_checksum

            try:
                verify_checksum(part, checksum)
            except StorageError as error:
                raise self.provider.explain(error, "download", entry.key) from error
        return size

    def _carry(self, operation: str, source: str, target: str, progress: Listener | None) -> TransferReport:
        from_key, to_key = self._full(source, operation), self._file_key(target, operation)
        if to_key == from_key or to_key.startswith(f"{from_key}/"):
            raise StorageConfigError(
                f"the target {to_key!r} is the source, or inside it",
                provider=self.provider.name,
                operation=operation,
                key=from_key,
            )
        meter = self._meter(operation, progress)
        entry = self._stat(from_key, operation)
        within = self.provider.move_file if operation == "move" else self.provider.copy_file

        def work(inner: Entry) -> None:
            meter.expect(inner.size)
            into = join_key(to_key, key_below(inner.key, from_key)) if entry.is_folder else to_key
            if self._call(operation, inner.key, lambda: within(inner.key, into)):
                meter.moved(inner.size or 0)
                meter.file_done()
            else:
                self._copy_through(inner, into, meter)

        files: Iterable[Entry] = (
            self._entries(from_key, recursive=True, operation=operation) if entry.is_folder else [entry]
        )
        if operation == "move":
            # What moves must not be met again by the listing.
            files = list(files)
        run_all(files, work, limit=self.provider.concurrency, meter=meter)
        return meter.report

    def _copy_through(self, entry: Entry, full: str, meter: Meter) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="synapse-") as folder:
            local = Path(folder) / "content"
            self._call("copy", entry.key, lambda: self.provider.get_file(entry, local, lambda _: None))
            self._verify(entry, local, None)
            self._put(Source.of_file(local), full, meter, "copy")


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == _DELETE_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _part_of(content: bytes, start: int, length: int) -> bytes:
    return content[start : start + length]
