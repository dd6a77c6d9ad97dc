"""
The two ends of a transfer: folders of this machine or of a storage.

And how a file gets from one to the other.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.storage.keys import clean_key
from synapse_kernel.storage.local_trees import files_below
from synapse_kernel.storage.providers import Entry
from synapse_kernel.storage.transfers import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from synapse_kernel.storage.finding import Location
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress


class _Located(Protocol):
    @property
    def storage(self) -> Storage: ...
    @property
    def key(self) -> str: ...


if TYPE_CHECKING:
    Place: TypeAlias = str | os.PathLike[str] | Storage | _Located
    """A local path, a URL, a `Storage`, a `Location` or a `StoragePath`."""

LOCAL = "file://"


class Unusable(Entry, frozen=True, kw_only=True):
    """What is listed and cannot be carried: it is passed over, and told."""

    reason: str


class End:
    """
    A folder, or a file, at one end of a transfer.

    `storage` has it as its root; None for a local path that no storage was needed for yet. `path` is where it
    lies on this machine, if it does: a file is then read and written there, without a detour.
    """

    def __init__(self, storage: Storage | None, path: Path | None) -> None:
        self._storage = storage
        self._path = path
        self.text = str(path) if storage is None else storage.url
        """What it is called in messages."""
        # Of a named storage with a root of its own, links must not lead out: it is listed by its provider.
        self._within = _root_of(storage) if storage is not None else Path("/")

    @classmethod
    def of(cls, place: Place) -> End:
        """Return what a place is; raises what `Kernel.storage` raises."""
        from synapse_kernel.storage.storage import Storage

        if isinstance(place, Storage):
            return cls(place, _path_of(place))
        if hasattr(place, "storage") and hasattr(place, "key"):
            located = cast("_Located", place)
            storage = located.storage.at(located.key)
            return cls(storage, _path_of(storage))
        text = os.fspath(place)
        if "://" in text and isinstance(place, str):
            return cls.of(_location(text))
        return cls(None, Path(os.path.abspath(os.path.expanduser(text))))  # noqa: PTH100, PTH111

    @property
    def storage(self) -> Storage:
        """The storage whose root it is."""
        if self._storage is None:
            located = _location(str(self._path))
            self._storage = located.storage.at(located.key)
        return self._storage

    @property
    def in_order(self) -> bool:
        """Whether it is expected to be listed in the order of its keys."""
        return self._is_plain or not self.storage.provider.has_folders

    @property
    def is_remote(self) -> bool:
        """Whether its files are elsewhere than on this machine."""
        return self._path is None

    def entry(self, key: str = "") -> Entry:
        """Return what is there; raises `StorageNotFoundError`."""
        if self._storage is not None:
            return self._storage.info(key)
        path = cast("Path", self._path) / key
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise StorageNotFoundError(f"there is no local file or folder {path}") from None
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
        is_folder = stat.S_ISDIR(found.st_mode)
        return Entry(
            key=key,
            size=None if is_folder else found.st_size,
            modified=found.st_mtime,
            is_folder=is_folder,
        )

    def exists(self, key: str = "") -> bool:
        """Tell whether something is there."""
        try:
            self.entry(key)
        except StorageNotFoundError:
            return False
        return True

    def files(self) -> Iterator[Entry]:
        """Yield its files at every depth; none if it is not there."""
        try:
            if self._is_plain:
                yield from _local_entries(cast("Path", self._path))
            else:
                for entry in self.storage.list(recursive=True):
                    yield entry if _is_clean(entry.key) else _without_place(entry)
        except StorageNotFoundError:
            return

    def path_of(self, key: str) -> Path | None:
        """Return where a key lies on this machine; None for what must be asked of its storage."""
        if self._path is None or not _is_clean(key):
            return None
        path = self._path / key if key else self._path
        if self._is_plain:
            return path
        real, within = os.path.realpath(path), os.path.realpath(cast("Path", self._within))
        return path if os.path.commonpath([real, within]) == within else None

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; one that is not there is no error."""
        provider = self.storage.provider
        full = [self.storage._full(key, "delete") for key in keys]
        self.storage._call("delete", full[0], lambda: provider.delete(full))

    def delete_folder_if_empty(self, key: str) -> None:
        """Delete a folder that holds nothing, where the service has folders."""
        if self.storage.provider.has_folders:
            with contextlib.suppress(StorageError):
                if next(self.storage.list(key), None) is None:
                    self.storage.delete_folder(key)

    def is_at(self, other: End) -> bool:
        """Tell whether it is the other or lies inside it."""
        if self._path is not None and other._path is not None:
            mine, its = os.path.realpath(self._path), os.path.realpath(other._path)
            return os.path.commonpath([mine, its]) == its
        if self._path is not None or other._path is not None:
            return False
        mine_at, its_at = self.storage.provider, other.storage.provider
        if mine_at is not its_at and (
            type(mine_at) is not type(its_at) or mine_at.configuration != its_at.configuration
        ):
            return False
        return f"{self.storage.url.rstrip('/')}/".startswith(f"{other.storage.url.rstrip('/')}/")

    def leads_out(self, key: str) -> bool:
        """Tell whether a key lies behind a link that leads to elsewhere on this machine."""
        path = self._path / key if self._path is not None else None
        if path is None:
            return False
        top = os.path.realpath(cast("Path", self._path))
        return os.path.commonpath([os.path.realpath(path.parent), top]) != top

    def content(self, key: str) -> Path | Location:
        """Return where a file is to be read: its path on this machine, else its place in the storage."""
        from synapse_kernel.storage.finding import Location

        return self.path_of(key) or Location(self.storage, key)

    @property
    def _is_plain(self) -> bool:
        return self._path is not None and self._within == Path("/")


def carry(entry: Entry, source: End, target: End, key: str, meter: Meter) -> None:
    """
    Carry one file from `source`, where it was listed, to a key of `target`; whole or not at all.

    Within one service by its own copy; from and to this machine right away; else through a temporary file.
    """
    path = source.path_of(entry.key)
    if path is not None:
        target.storage.upload(path, key, progress=forwarded(meter))
    elif (into := target.path_of(key)) is not None:
        _download(source, entry, into, Meter("download", forwarded(meter)))
    elif not _copied_within(entry, source, target, key):
        _carry_through(entry, source, target, key, meter)
    else:
        meter.moved(entry.size or 0)
    meter.file_done()


def most_at_once(ends: Iterable[End]) -> int:
    """Return how many files to carry side by side between some ends: what the slowest service wants."""
    providers = [(end.is_remote, end.storage.provider) for end in ends]
    remote = [provider.concurrency for is_remote, provider in providers if is_remote]
    return min(remote or [provider.concurrency for _, provider in providers])


def forwarded(meter: Meter) -> Callable[[TransferProgress], None]:
    """Return a listener for the transfer of one file of many, which ends when theirs does."""
    before = 0

    def listen(progress: TransferProgress) -> None:
        nonlocal before
        moved, before = progress.bytes - before, progress.bytes
        meter.moved(moved)

    return listen


def _download(source: End, entry: Entry, into: Path, meter: Meter) -> None:
    storage = source.storage
    # Not `download`, which would ask for the entry again.
    full = msgspec.structs.replace(entry, key=storage._full(entry.key, "download"))
    storage._download_file(full, into, meter, None)


def _copied_within(entry: Entry, source: End, target: End, key: str) -> bool:
    provider = source.storage.provider
    if target.storage.provider is not provider:
        return False
    from_key = source.storage._full(entry.key, "copy")
    to_key = target.storage._full(key, "copy")
    return source.storage._call("copy", from_key, lambda: provider.copy_file(from_key, to_key))


def _carry_through(entry: Entry, source: End, target: End, key: str, meter: Meter) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="synapse-") as folder:
        local = Path(folder) / "content"
        _download(source, entry, local, Meter("download", forwarded(meter)))
        # Its bytes were counted; it must end with the others all the same.
        target.storage.upload(local, key, progress=lambda _: meter.moved(0))


def _location(text: str) -> _Located:
    from synapse_kernel.current import kernel_here

    return kernel_here().storages.location(text)


def _path_of(storage: Storage) -> Path | None:
    url = storage.url
    return Path(url.removeprefix(LOCAL)) if url.startswith(LOCAL) else None


def _root_of(storage: Storage) -> Path | None:
    url = storage.provider.url_of("")
    return Path(url.removeprefix(LOCAL)) if url.startswith(LOCAL) else None


def _local_entries(folder: Path) -> Iterator[Entry]:
    try:
        for key, path in files_below(folder):
            try:
                found = path.stat()
            except FileNotFoundError:
                if path.is_symlink():
                    yield Unusable(key=key, reason="it is a link that leads nowhere")
                continue
            if stat.S_ISREG(found.st_mode):
                yield Entry(key=key, size=found.st_size, modified=found.st_mtime)
            else:
                yield Unusable(key=key, reason="it is neither a file nor a folder")
    except FileNotFoundError as error:
        if not folder.is_dir():
            return
        raise StorageError(f"{error.filename} went away while it was listed: try again") from error
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be listed: {error.strerror or error}") from error


def _is_clean(key: str) -> bool:
    try:
        return clean_key(key) == key
    except StorageConfigError:
        return False


def _without_place(entry: Entry) -> Unusable:
    return Unusable(
        key=entry.key, size=entry.size, modified=entry.modified, reason="such a key has no place in a folder"
    )
