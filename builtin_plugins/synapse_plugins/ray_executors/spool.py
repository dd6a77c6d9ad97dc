"""
Where a worker writes what its action says: a ring of bytes in a file, mapped into memory.

A line that was written is there when the process is killed the next moment: the system keeps the page. So an
action need not wait until its events have left the machine, and none is lost but with the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from time import time

from synapse_plugins.ray_executors.bootstrap import private_folder

SIZE = 4 << 20
"""Bytes of the ring; who writes more than this ahead of the reader waits."""
_TOTALS = struct.Struct("=QQ")
# Where the attempt that writes began, and the digest of its key.
_ATTEMPT = struct.Struct("=Q32s")
_HEAD = _TOTALS.size + _ATTEMPT.size
# What was handed on may not have arrived yet: so many bytes of it are kept from being written over.
_KEPT = SIZE // 4
_LEFT = ".left"
# A driver asks for what a killed worker said within a minute or so.
_LEFT_SECONDS = 600.0


class Spool:
    """
    A ring between one thread that reads and any that write under one lock of their own.

    Positions count all bytes ever written; the file begins with the end of what was written and of what was
    handed on, where the attempt under way began, and its key.
    """

    def __init__(self) -> None:
        self.path = path = _folder() / f"{os.getpid()}-{os.urandom(4).hex()}.spool"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, _HEAD + SIZE)
            self._map = mmap.mmap(descriptor, _HEAD + SIZE)
        finally:
            os.close(descriptor)
        # Views: on the way of every event they cost half of what the map itself does.
        self._ring = memoryview(self._map)[_HEAD:]
        self._totals = memoryview(self._map)[: _TOTALS.size].cast("Q")
        self.written = 0
        self.read = 0
        # Of all that wakes a thread the cheapest: it is on the way of an event that comes alone.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._room = threading.Event()
        self._waiting = False

    def begin(self, key: str) -> None:
        """Know whose lines come from here on."""
        _ATTEMPT.pack_into(self._map, _TOTALS.size, self.written, _digest(key))

    def write(self, data: bytes) -> None:
        """Append; waits while the ring is full. What is longer than the ring goes in parts."""
        end = self.written + len(data)
        # The usual case, without a loop: it is on the way of every event.
        if end - self.read <= SIZE - _KEPT and (start := self.written % SIZE) + len(data) <= SIZE:
            self._ring[start : start + len(data)] = data
            # After the bytes themselves: what the number covers is whole, whenever the process ends.
            self.written = self._totals[0] = end
            if self._waiting:
                self._waiting = False
                self._wake.put(None)
            return
        view = memoryview(data)
        while view:
            start = self.written % SIZE
            free = min(SIZE - _KEPT - (self.written - self.read), SIZE - start, len(view))
            if free <= 0:
                self._room.clear()
                if self.written - self.read >= SIZE - _KEPT:
                    self._room.wait(0.05)
                continue
            self._ring[start : start + free] = view[:free]
            self._publish(self.written + free)
            view = view[free:]

    def take(self, most: int) -> bytes:
        """Return what was written and not taken yet, at most so many bytes."""
        data = _piece(self._map, self.read, min(self.written, self.read + most))
        self.read += len(data)
        self._totals[1] = self.read
        self._room.set()
        return data

    def wait(self, timeout: float | None) -> bool:
        """
        Return once there is something to take, or `wake` was called; False after `timeout` seconds.

        It may return once more than that: for a word that came while nobody waited.
        """
        if self.written > self.read:
            return True
        self._waiting = True
        try:
            # Looked at again: a writer that saw nobody waiting wakes nobody.
            if self.written == self.read:
                self._wake.get(timeout=timeout)
        except Empty:
            return False
        finally:
            self._waiting = False
        return True

    def wake(self) -> None:
        """Let `wait` return."""
        self._wake.put(None)

    def remove(self) -> None:
        """Delete the file."""
        self._ring.release()
        self._totals.release()
        self._map.close()
        self.path.unlink(missing_ok=True)

    def _publish(self, end: int) -> None:
        self.written = self._totals[0] = end
        if self._waiting:
            self._waiting = False
            self._wake.put(None)


def rest_of(key: str, position: int | None) -> bytes | None:
    """
    Return what a dead process wrote of an attempt from a position on, or all of it, and delete its spool.

    Whole lines alone; nothing where they were written over. None if no spool here is the attempt's.
    """
    for file in _folder().iterdir():
        try:
            with file.open("rb") as stream:
                head = stream.read(_HEAD)
                begun, owner = _ATTEMPT.unpack_from(head, _TOTALS.size)
                if owner != _digest(key):
                    continue
                content = head + stream.read()
        except (OSError, struct.error):
            continue
        file.unlink(missing_ok=True)
        begin = begun if position is None else position
        written, _ = _TOTALS.unpack_from(content)
        if not written - SIZE <= begin <= written:
            return b""
        rest = _piece(content, begin, written)
        return rest[: rest.rfind(b"\n") + 1]
    return None


def sweep() -> None:
    """Delete the spools of processes that have been dead for some minutes: nobody reads those any more."""
    for file in _folder().iterdir():
        with contextlib.suppress(OSError):
            if file.suffix == _LEFT:
                # Since it was renamed; when it was last written to the system need not know.
                if time() - file.stat().st_ctime > _LEFT_SECONDS:
                    file.unlink()
            elif not _is_running(file):
                file.rename(file.with_suffix(_LEFT))


def _is_running(file: Path) -> bool:
    try:
        os.kill(int(file.stem.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _folder() -> Path:
    return Path(private_folder("spool"))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _piece(ring: mmap.mmap | bytes, begin: int, end: int) -> bytes:
    begin_at, count = begin % SIZE, end - begin
    first = min(count, SIZE - begin_at)
    data = ring[_HEAD + begin_at : _HEAD + begin_at + first]
    return data if first == count else data + ring[_HEAD : _HEAD + count - first]
