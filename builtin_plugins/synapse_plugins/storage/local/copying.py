"""The content of one open file put into another: by the system itself, its holes kept."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Told = Callable[[int], None]

_SMALL = 256 << 10
_PIECE = 8 << 20
# What a system or file system says that cannot copy between these two by itself.
_UNABLE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.EIO}
_FICLONE = 0x40049409


def copy_content(source: int, target: int, status: os.stat_result, told: Told) -> None:
    """
    Write all of a file, whose status is known, into an empty one; of a small file as much as there is.

    File systems that can (Btrfs, XFS) share the blocks; elsewhere nothing passes through this process but
    small files.
    """
    if status.st_size <= _SMALL:
        data = os.read(source, status.st_size + 1)
        write_all(target, data)
        told(len(data))
        return
    if status.st_blocks * 512 >= status.st_size or not hasattr(os, "SEEK_DATA"):
        _copy_range(source, target, 0, status.st_size, told)
        return
    at = 0
    while at < status.st_size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        told(start - at)
        at = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        _copy_range(source, target, start, at - start, told)
    os.ftruncate(target, status.st_size)
    told(max(0, status.st_size - at))


def clone_content(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another; False where the file system cannot."""
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def write_all(target: int, data: bytes) -> None:
    """Write bytes, all of them: a call may take fewer."""
    written = os.write(target, data)
    while written < len(data):
        written += os.write(target, memoryview(data)[written:])


def _copy_range(source: int, target: int, start: int, length: int, told: Told) -> None:
    os.lseek(source, start, os.SEEK_SET)
    left = length
    by_system = hasattr(os, "copy_file_range")
    while left > 0:
        if by_system:
            try:
                moved = os.copy_file_range(source, target, min(left, _PIECE))
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                by_system = False
                continue
        else:
            data = os.read(source, min(left, _PIECE // 8))
            write_all(target, data)
            moved = len(data)
        if not moved:
            # It became shorter: whoever asked compares sizes.
            return
        left -= moved
        told(moved)
