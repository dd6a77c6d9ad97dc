"""Archives unpacked: whole or not at all, and nothing outside of the folder that they are unpacked to."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synapse_kernel.storage.archive_entries import PIECE, opened_entries, read_safely
from synapse_kernel.storage.archive_formats import ArchiveError
from synapse_kernel.storage.archive_names import collisions_in, links_out, wrong_with, wrong_with_link
from synapse_kernel.storage.archives import ArchiveReport
from synapse_kernel.storage.checksums import in_storage
from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.storage.explaining import explain_os_error, reason_of
from synapse_kernel.storage.local_trees import part_beside
from synapse_kernel.storage.transfers import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from synapse_kernel.storage.archive_entries import Found
    from synapse_kernel.storage.checksums import Local, Stored
    from synapse_kernel.storage.transfers import TransferProgress

MAX_SIZE = 64 << 30
"""How many bytes an archive may unpack to unless told otherwise."""
MAX_FILES = 1_000_000
"""How many files, links and folders it may hold unless told otherwise."""


def extract_archive(
    source: Local | Stored,
    target: Local,
    *,
    max_size: int = MAX_SIZE,
    max_files: int = MAX_FILES,
    overwrite: bool = False,
    progress: Callable[[TransferProgress], None] | None = None,
) -> ArchiveReport:
    """
    Unpack a zip, tar.gz or tar.zst, told by its content, into a local folder: all of it or nothing.

    `source` is a local path or a place in a storage. `target` must be empty or not there; with `overwrite`
    the archive takes the place of all that is in it. Of an entry its name, content and whether it is
    executable count; its time is now. Links are made where they stay in the folder.

    Raises `ArchiveError` for what is no archive, is damaged or encrypted, leaves the target, holds a device
    or a name twice, or unpacks to more than `max_size` bytes or `max_files` files, links and folders, which
    are counted as they are unpacked; and other kinds of `StorageError`.
    """
    name = cast("Stored", source).key if in_storage(source) else os.fspath(cast("Local", source))
    try:
        # A link as target stands for the folder it leads to.
        path = Path(os.path.realpath(_local_target(target)))
        _check_target(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        unpacked, fetched = part_beside(path), part_beside(path)
        try:
            if in_storage(source):
                place = cast("Stored", source)
                place.storage.download(place.key, fetched, progress=progress)
                packed = fetched
            else:
                packed = Path(cast("Local", source))
                _check_source(packed)
            unpacking = _Unpacking(unpacked, max_size, max_files, Meter("extract_archive", progress))
            unpacking.run(packed)
            _put_in_place(unpacked, path)
        finally:
            fetched.unlink(missing_ok=True)
            shutil.rmtree(unpacked, ignore_errors=True)
    except OSError as error:
        if error.filename is None:
            raise explain_os_error(error, "", "extract_archive", name) from error
        reason = f"{error.filename}: {reason_of(error)}"
        raise ArchiveError(reason, operation="extract_archive", key=name) from error
    except StorageError as error:
        raise explain_os_error(error, "", "extract_archive", name) from error
    return unpacking.report


def _local_target(target: Local) -> Local:
    if in_storage(target):
        raise StorageConfigError(
            "an archive is unpacked into a local folder: upload the folder then with Storage.upload"
        )
    return target


def _check_source(path: Path) -> None:
    if not path.exists():
        raise StorageNotFoundError(f"there is no local file {path}")
    if not path.is_file():
        raise StorageConfigError(f"an archive is a file, and {path} is none")


def _check_target(path: Path, *, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise StorageConfigError(f"the target {path} is a file: name a folder")
    if not overwrite and any(path.iterdir()):
        raise StorageConfigError(
            f"the target {path} is not empty: name a folder that is, or is not there yet, or have all in it "
            f"replaced with overwrite=True"
        )


def _put_in_place(unpacked: Path, path: Path) -> None:
    if not path.exists() or not any(path.iterdir()):
        unpacked.rename(path)
        return
    old = part_beside(path)
    path.rename(old)
    try:
        unpacked.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


class _Unpacking:
    """One archive on its way into a folder that nobody else uses."""

    def __init__(self, folder: Path, max_size: int, max_files: int, meter: Meter) -> None:
        self._folder = folder
        self._max_size = max_size
        self._max_files = max_files
        self._meter = meter
        self._bytes = 0
        self._kinds: dict[str, str] = {}
        self._links: dict[str, str] = {}

    @property
    def report(self) -> ArchiveReport:
        done = self._meter.report
        return ArchiveReport(files=done.files, bytes=done.bytes, collisions=tuple(collisions_in(self._kinds)))

    def run(self, packed: Path) -> None:
        self._folder.mkdir()
        with ExitStack() as stack:
            # Not around all of it: what a listener raises is no damage.
            with read_safely():
                entries = stack.enter_context(opened_entries(packed))
            while True:
                with read_safely():
                    entry = next(entries, None)
                if entry is None:
                    break
                self._add(*entry)
        self._make_links()

    def _add(self, found: Found, content: IO[bytes] | None) -> None:
        name = self._checked(found)
        if not name:
            return
        if found.kind == "folder":
            self._make_folders(name, found.name)
            return
        self._make_folders(name.rpartition("/")[0], found.name)
        self._take(name, found)
        if found.kind == "file" and content is not None:
            self._write(name, found, content)
        elif found.kind == "hard link":
            self._make_hard_link(name, found)
        else:
            self._links[name] = found.target
        self._meter.file_done()

    def _checked(self, found: Found) -> str:
        """Return an entry's name in its one form; '' is the root."""
        wrong = wrong_with(found.name)
        name = "/".join(part for part in found.name.split("/") if part not in {"", "."})
        if not name and found.kind != "folder":
            wrong = "is no name"
        if wrong is not None:
            raise ArchiveError(f"the name {found.name!r} in it {wrong}")
        return name

    def _make_folders(self, name: str, told: str) -> None:
        """Make a folder and those above it."""
        made = ""
        for part in name.split("/") if name else ():
            made = f"{made}/{part}" if made else part
            kind = self._kinds.get(made)
            if kind == "folder":
                continue
            if kind is not None:
                raise ArchiveError(f"the name {told!r} in it lies behind the {kind} {made!r}")
            self._note(made, "folder")
            with self._writing(made):
                self._path(made).mkdir()

    def _take(self, name: str, found: Found) -> None:
        if name in self._kinds:
            raise ArchiveError(f"it holds {name!r} twice")
        self._note(name, found.kind)

    def _note(self, name: str, kind: str) -> None:
        if len(self._kinds) >= self._max_files:
            raise ArchiveError(
                f"it holds more than max_files={self._max_files} files, links and folders: allow more if you "
                f"know where it comes from"
            )
        self._kinds[name] = kind

    def _write(self, name: str, found: Found, content: IO[bytes]) -> None:
        size = 0
        mode = 0o777 if found.executable else 0o666
        with self._writing(name):
            file = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(file, "wb", buffering=0) as out:  # noqa: PTH123 - of a descriptor
            while True:
                with read_safely():
                    piece = content.read(PIECE)
                if not piece:
                    break
                size += len(piece)
                self._bytes += len(piece)
                if self._bytes > self._max_size:
                    raise ArchiveError(
                        f"it unpacks to more than max_size={self._max_size} bytes: allow more if you know "
                        f"where it comes from"
                    )
                with self._writing(name):
                    out.write(piece)
                self._meter.moved(len(piece))
        if size != found.size:
            raise ArchiveError(
                f"it is damaged or cut off: {name!r} should have {found.size} bytes, and {size} came"
            )

    def _make_hard_link(self, name: str, found: Found) -> None:
        first = "/".join(part for part in found.target.split("/") if part not in {"", "."})
        if wrong_with(found.target) is not None or self._kinds.get(first) != "file":
            raise ArchiveError(
                f"the hard link {name!r} in it is to {found.target!r}, which is no file in it before the link"
            )
        with self._writing(name):
            self._path(name).hardlink_to(self._path(first))
        # What is linked to can be linked to again.
        self._kinds[name] = "file"

    def _make_links(self) -> None:
        """Make the symbolic links: last, so that nothing is ever written through one."""
        for name, target in self._links.items():
            wrong = wrong_with_link(target)
            if wrong is not None:
                raise ArchiveError(f"the link {name!r} -> {target!r} in it {wrong}")
        for name, target in links_out(self._links):
            raise ArchiveError(f"the link {name!r} -> {target!r} in it leads out of the target")
        for name, target in self._links.items():
            with self._writing(name):
                self._path(name).symlink_to(target)

    def _path(self, name: str) -> Path:
        return self._folder / name

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise ArchiveError(
                f"it holds {name!r} and another name that this file system takes for the same"
            ) from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageError("no space is left at the target") from error
            raise ArchiveError(f"{name!r} in it cannot be written here: {reason_of(error)}") from error
