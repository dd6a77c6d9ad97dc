"""The provider `local`: files below a folder of this machine, or of a disk that it has mounted."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field, field_validator

from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageError,
    StorageIntegrityError,
    StoragePermissionError,
)
from synapse_kernel.storage.keys import join_key
from synapse_kernel.storage.local_trees import check_text, is_part, part_name
from synapse_kernel.storage.providers import Configuration, Entry, Provider
from synapse_plugins.storage.local.copying import clone_content, copy_content, write_all
from synapse_plugins.storage.local.rooted import Root, real_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from synapse_kernel.storage.sources import Source

    Told = Callable[[int], None]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SCHEME = "file://"


class LocalConfiguration(Configuration):
    """Where the files are."""

    location: str = Field(
        min_length=1,
        description="the folder; relative to the working folder, ~ is the home folder; made when it is first "
        "written to",
    )

    @field_validator("location")
    @classmethod
    def _absolute(cls, location: str) -> str:
        # Here, so that two working folders make two configurations.
        return os.path.abspath(os.path.expanduser(location))  # noqa: PTH100, PTH111


class LocalProvider(Provider):
    """
    Files below a folder.

    A file is written beside its place and renamed into it: readers see the old or the new one, whole. That is
    not waited for until it is on the disk: after a power cut a file may be missing or empty, as with `cp`.
    Modification times are kept. Symbolic links are followed as long as they stay below the folder.
    """

    name: ClassVar[str] = "local"
    configuration_type: ClassVar[type[Configuration]] = LocalConfiguration
    # Threads cost more than they give where files are small, and disks are no faster with more.
    concurrency: ClassVar[int] = 1

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._root = Root(cast("LocalConfiguration", configuration).location)

    @classmethod
    def from_url(cls, url: str) -> Mapping[str, object]:
        """Return the folder of ``file:///path``; the path is literal, no ``%20`` in it is a space."""
        path = url.removeprefix(_SCHEME).removeprefix("localhost")
        if not path.startswith("/"):
            raise StorageConfigError(
                f"{url!r} names the host {path.partition('/')[0]!r}: a path of this machine has three "
                f"slashes, as in file:///data",
                provider=cls.name,
                operation="open",
            )
        return {"location": path}

    def url_of(self, key: str) -> str:
        """Return ``file:///path``."""
        return f"{_SCHEME}{self._root.path(key)}"

    def stat(self, key: str) -> Entry:
        """Return the entry of a file or folder; the root is there even if nobody wrote to it yet."""
        try:
            with self._root.look(key) as fd:
                status = os.fstat(fd)
        except (FileNotFoundError, NotADirectoryError):
            if not key:
                return Entry(key="", is_folder=True)
            raise FileNotFoundError(key) from None
        return _entry(key, status)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """
        Yield what lies in a folder, as the system tells it.

        A link that leads out of the root, to nothing, or to a folder above itself is passed over; so are
        files that are being written, pipes and devices.
        """
        folders = [folder]
        while folders:
            current = folders.pop()
            try:
                fd = self._root.list_folder(current)
            except FileNotFoundError:
                if current == folder and folder:
                    raise
                continue
            try:
                with os.scandir(fd) as found:
                    for item in found:
                        entry = self._listed(fd, current, item)
                        if entry is None:
                            continue
                        if recursive and entry.is_folder:
                            folders.append(entry.key)
                        else:
                            yield entry
            finally:
                os.close(fd)

    def deletable(self, folder: str) -> Iterator[str]:
        """Yield the keys of the files in a folder and of the links, wherever they lead."""
        for folder_key, name, is_folder in self._own(folder):
            if not is_folder:
                yield join_key(folder_key, name)

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """Return part of a file."""
        fd, _ = self._open(entry)
        try:
            return _read(fd, start, length)
        finally:
            os.close(fd)

    def read_whole(self, key: str) -> bytes:
        """Return the content of a file, of the one that is there when it begins."""
        fd, status = self._root.open_file(key)
        try:
            return _read(fd, 0, status.st_size)
        finally:
            os.close(fd)

    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """Copy a file."""
        source, status = self._open(entry)
        try:
            into = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                copy_content(source, into, status, told)
            finally:
                os.close(into)
        finally:
            os.close(source)

    def link_file(self, entry: Entry, target: Path, kind: str) -> bool:
        """Give a file the name `target` too, or let one of that name share its blocks."""
        source, _ = self._open(entry)
        try:
            if kind == "hardlink":
                return _hard_link(real_path(source, self._root.path(entry.key)), str(target), None)
            into = os.open(target, _NEW, 0o666)
            try:
                done = clone_content(source, into)
            finally:
                os.close(into)
        finally:
            os.close(source)
        if not done:
            os.unlink(target)  # noqa: PTH108
        return done

    def put_file(self, source: Source, key: str, told: Told) -> None:
        """Copy or write a file beside its place, then rename it."""
        folder, name = self._root.place(key)
        part = part_name()
        try:
            linked = (
                source.link == "hardlink"
                and source.local is not None
                and _hard_link(source.local, part, folder)
            )
            if linked:
                told(source.size)
                source.check()
            else:
                self._write(source, part, folder, told)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            if linked:
                # Renaming onto another name of the same file does nothing at all.
                _remove(part, folder)
        except BaseException:
            _remove(part, folder)
            raise
        finally:
            os.close(folder)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files and links."""
        for key in keys:
            folder, _, name = key.rpartition("/")
            try:
                fd = self._root.open_folder(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue
            finally:
                os.close(fd)

    def delete_folder(self, key: str) -> None:
        """Delete a folder that holds no files, whatever folders it holds; of no folder there is none."""
        folder, _, name = key.rpartition("/")
        try:
            below = list(self._own(key, parts=True))
            fd = self._root.open_folder(folder)
        except FileNotFoundError:
            return
        try:
            if any(not is_folder and not is_part(inner) for _, inner, is_folder in below):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            for above, inner, is_folder in reversed(below):
                with self._root.look(above) as inner_fd:
                    _remove(inner, inner_fd, is_folder=is_folder)
            os.rmdir(name, dir_fd=fd)
        finally:
            os.close(fd)

    def make_folder(self, key: str) -> None:
        """Make a folder and those above it."""
        os.close(self._root.open_folder(key, make=True))

    def copy_file(self, source: str, target: str) -> bool:
        """Copy a file by the system, sharing its blocks where the file system can."""
        folder, name = self._root.place(target)
        part = part_name()
        try:
            fd, status = self._root.open_file(source)
            try:
                _copy(fd, status, part, folder, lambda _: None)
            finally:
                os.close(fd)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _remove(part, folder)
            raise
        finally:
            os.close(folder)
        return True

    def move_file(self, source: str, target: str) -> bool:
        """Rename a file; one that is a link, or that links lead to, is not taken away from where it is."""
        above, _, name = source.rpartition("/")
        fd = self._root.open_folder(above)
        try:
            if self._root.through_link(fd, above) or not stat.S_ISREG(os.lstat(name, dir_fd=fd).st_mode):
                return False
            folder, new = self._root.place(target)
            try:
                os.rename(name, new, src_dir_fd=fd, dst_dir_fd=folder)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # Another disk is mounted below the root.
                return False
            finally:
                os.close(folder)
        finally:
            os.close(fd)
        return True

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Say what an error of the file system means here, and what to do."""
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            told = self._advice(error, key)
            if told is not None:
                error = told
        return super().explain(error, operation, key)

    def _advice(self, error: OSError, key: str | None) -> StorageError | None:
        place = self._root.path(key or "")
        if error.errno == errno.ENAMETOOLONG:
            return StorageConfigError(
                "it is too long: this file system takes 255 bytes for a part of a key, and 4,095 for a path"
            )
        if error.errno == errno.EROFS:
            return StoragePermissionError(f"the file system of {place} is mounted for reading only")
        if error.errno == errno.ENOTEMPTY:
            return StorageError("the folder is not empty: delete what is in it, or ask for that (recursive)")
        if error.errno == errno.ELOOP:
            return StorageError("its symbolic links lead in a circle")
        if isinstance(error, PermissionError):
            return StoragePermissionError(
                f"user {os.geteuid()} is not allowed to: see the owner and mode of {place} and above it"
            )
        return None

    def _open(self, entry: Entry) -> tuple[int, os.stat_result]:
        fd, status = self._root.open_file(entry.key)
        if entry.etag is not None and _etag(status) != entry.etag:
            os.close(fd)
            raise StorageIntegrityError("it was changed since it was looked at: try again")
        return fd, status

    def _write(self, source: Source, part: str, folder: int, told: Told) -> None:
        if source.local is None:
            fd = os.open(part, _NEW, 0o666, dir_fd=folder)
            try:
                write_all(fd, source.data)
            finally:
                os.close(fd)
            told(source.size)
            return
        fd = os.open(source.local, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy(fd, os.fstat(fd), part, folder, told, clone=source.link is not None)
            source.check(fd)
        finally:
            os.close(fd)

    def _listed(self, fd: int, folder: str, item: os.DirEntry[str]) -> Entry | None:
        name = item.name
        if name.startswith(".") and is_part(name):
            return None
        if not name.isascii():
            check_text(name, self._root.path(folder), "list")
        key = f"{folder}/{name}" if folder else name
        if not item.is_symlink():
            try:
                return _entry(key, item.stat(follow_symlinks=False))
            except (FileNotFoundError, StorageError):
                return None
        try:
            with self._root.look(key) as there:
                status, real = os.fstat(there), real_path(there, self._root.path(key))
        except (OSError, StorageError):
            return None
        if stat.S_ISDIR(status.st_mode) and f"{real_path(fd, self._root.path(folder))}/".startswith(
            f"{real}/"
        ):
            return None
        return _entry(key, status)

    def _own(self, folder: str, *, parts: bool = False) -> Iterator[tuple[str, str, bool]]:
        """Yield what lies below a folder without following a link, each folder before what is in it."""
        folders = [folder]
        while folders:
            current = folders.pop()
            fd = self._root.list_folder(current)
            try:
                with os.scandir(fd) as found:
                    for item in found:
                        is_folder = item.is_dir(follow_symlinks=False)
                        if is_folder:
                            folders.append(join_key(current, item.name))
                        if parts or not is_part(item.name):
                            yield current, item.name, is_folder
            finally:
                os.close(fd)


def _entry(key: str, status: os.stat_result) -> Entry:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return Entry(key=key, size=status.st_size, modified=status.st_mtime, etag=_etag(status))
    if stat.S_ISDIR(mode):
        return Entry(key=key, modified=status.st_mtime, is_folder=True)
    raise StorageError("it is neither a file nor a folder: a pipe, a socket or a device")


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _read(fd: int, start: int, length: int) -> bytes:
    data = os.pread(fd, length, start)
    if len(data) == length or not data:
        return data
    # A call gives 2 GiB at most.
    pieces = [data]
    while data and (left := length - sum(map(len, pieces))) > 0:
        data = os.pread(fd, left, start + length - left)
        pieces.append(data)
    return b"".join(pieces)


def _copy(
    source: int, status: os.stat_result, part: str, folder: int, told: Told, *, clone: bool = False
) -> None:
    fd = os.open(part, _NEW, 0o666, dir_fd=folder)
    try:
        if clone and clone_content(source, fd):
            told(status.st_size)
        else:
            copy_content(source, fd, status, told)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def _hard_link(source: str, target: str, folder: int | None) -> bool:
    # What a link leads to is meant, and systems differ in what they would take.
    real = os.path.realpath(source) if os.path.islink(source) else source  # noqa: PTH114
    try:
        os.link(real, target, dst_dir_fd=folder)
    except OSError:
        # Another disk, no such thing there, too many already, or somebody else's file: it is copied.
        return False
    return True


def _remove(name: str, folder: int, *, is_folder: bool = False) -> None:
    try:
        if is_folder:
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
