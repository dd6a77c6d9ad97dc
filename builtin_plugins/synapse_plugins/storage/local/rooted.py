"""Files and folders opened below one folder, and nowhere else, whatever the links in it say."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import StorageError, StoragePermissionError
from synapse_kernel.storage.keys import name_of, parent_key

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not to wait for the other end of a pipe, nor to become its terminal's.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Looking at what is there needs no permission to read it.
_LOOK = getattr(os, "O_PATH", _READ) | os.O_CLOEXEC
_FOLDER = os.O_DIRECTORY | _LOOK


class Root:
    """
    A folder that no key leads out of.

    Where something lies is asked after it was opened, of what was opened: a link that is put in place of
    a folder meanwhile is seen. What is changed is named relative to the open folder that it lies in.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._prefix = os.path.join(location, "")  # noqa: PTH118
        self._real = ""

    def path(self, key: str) -> str:
        """Return where a key lies, if no link leads elsewhere."""
        return f"{self._prefix}{key}" if key else self.location

    @contextmanager
    def look(self, key: str) -> Iterator[int]:
        """Open whatever there is under a key, to be looked at."""
        fd = self._opened(self.path(key), _LOOK)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_file(self, key: str) -> tuple[int, os.stat_result]:
        """
        Open a file for reading, and tell its status.

        Raises `IsADirectoryError`, and `StorageError` for a pipe or a device.
        """
        fd = self._opened(self.path(key), _READ)
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return fd, status
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(key)
        raise StorageError("it is neither a file nor a folder: a pipe, a socket or a device")

    def open_folder(self, key: str, *, make: bool = False) -> int:
        """Open a folder, to name what lies in it; with `make` it and those above it are made."""
        try:
            return self._opened(self.path(key), _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
        if not key:
            os.makedirs(self.location, exist_ok=True)  # noqa: PTH103
            return self._opened(self.location, _FOLDER)
        above = self.open_folder(parent_key(key), make=True)
        try:
            os.mkdir(name_of(key), dir_fd=above)
        except FileExistsError:
            pass
        finally:
            os.close(above)
        return self._opened(self.path(key), _FOLDER)

    def list_folder(self, key: str) -> int:
        """Open a folder, to read the names in it."""
        return self._opened(self.path(key), os.O_DIRECTORY | _READ)

    def place(self, key: str) -> tuple[int, str]:
        """
        Return the open folder that a file is to be written in, made where it is missing, and its name there.

        Where the key is a link, it is the place that the link leads to.
        """
        folder, _, name = key.rpartition("/")
        fd = self.open_folder(folder, make=True)
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError:
            # The common case: there is no link, be there a file or nothing.
            return fd, name
        try:
            inner = os.path.join(real_path(fd, self.path(folder)), target)  # noqa: PTH118
        finally:
            os.close(fd)
        real = os.path.realpath(inner)
        self._check(real)
        return self.place(os.path.relpath(real, self._real))

    def through_link(self, fd: int, key: str) -> bool:
        """Tell whether the way to an open folder led through a link."""
        real = real_path(fd, self.path(key))
        self._check(real)
        return os.path.relpath(real, self._real) != (key or ".")

    def is_inner(self, real: str) -> bool:
        """Tell whether a path without links is that of the root or below it."""
        if self._real and (real.startswith(self._real) or f"{real}/" == self._real):
            return True
        # The first time; or the root was moved, or is another folder now.
        self._real = os.path.join(os.path.realpath(self.location), "")  # noqa: PTH118
        return real.startswith(self._real) or f"{real}/" == self._real

    def _opened(self, path: str, flags: int) -> int:
        fd = os.open(path, flags)
        try:
            self._check(real_path(fd, path))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, real: str) -> None:
        if not self.is_inner(real):
            raise StoragePermissionError(
                f"a symbolic link leads out of the root {self.location}, to {real}: a storage gives only "
                f"what is below its root"
            )


if sys.platform == "linux":

    def real_path(fd: int, path: str) -> str:
        """Return where an open file or folder lies, without links."""
        try:
            return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - on every file's way
        except FileNotFoundError:
            # There is no /proc here: a link that is changed at this very moment is not seen.
            return os.path.realpath(path)

elif sys.platform == "darwin":

    def real_path(fd: int, path: str) -> str:
        """Return where an open file or folder lies, without links."""
        import fcntl

        del path
        return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))

else:

    def real_path(fd: int, path: str) -> str:
        """Return where an open file or folder lies, without links; one changed at this moment is not seen."""
        del fd
        return os.path.realpath(path)
