"""Many files moved side by side: a bound on how many, progress in bytes, and one end for all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

T = TypeVar("T")


class TransferProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an operation has come."""

    operation: str
    """``upload``, ``download``, ``copy``, ``sync``, ``delete``…"""
    files: int
    """How many are done."""
    bytes: int
    """How many were moved."""
    total_files: int | None = None
    """None while they are not counted yet."""
    total_bytes: int | None = None


class TransferReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload, download, copy or deletion did."""

    files: int
    bytes: int


class Meter:
    """Counts what several threads move, and tells a listener."""

    def __init__(self, operation: str, listener: Callable[[TransferProgress], None] | None) -> None:
        self._operation = operation
        self._listener = listener
        self._lock = threading.Lock()
        self._stopped = False
        self._files = self._bytes = self._total_files = self._total_bytes = 0

    def expect(self, size: int | None) -> None:
        """Take note of one more file of this size in bytes."""
        with self._lock:
            self._total_files += 1
            self._total_bytes += size or 0

    def moved(self, count: int) -> None:
        """Take note of bytes; raises what the listener raises, and `TransferStopped` after `stop`."""
        if self._stopped:
            raise TransferStopped
        with self._lock:
            self._bytes += count
            self._tell()

    def file_done(self, corrected: int = 0) -> None:
        """Take note of a file that is whole, and of what its `moved` missed, or counted twice."""
        with self._lock:
            self._files += 1
            self._bytes += corrected
            self._tell()

    def stop(self) -> None:
        """Make the transfers under way end at their next bytes."""
        self._stopped = True

    @property
    def report(self) -> TransferReport:
        """What was done so far."""
        return TransferReport(files=self._files, bytes=self._bytes)

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(
                TransferProgress(
                    operation=self._operation,
                    files=self._files,
                    bytes=self._bytes,
                    total_files=self._total_files or None,
                    total_bytes=self._total_bytes or None,
                )
            )


class FileMeter:
    """Counts what is moved of one file: tries that broke off are in it, until the file is whole."""

    __slots__ = ("_meter", "bytes")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.bytes = 0

    def moved(self, count: int) -> None:
        """Take note of bytes; raises what `Meter.moved` raises."""
        self.bytes += count
        self._meter.moved(count)

    def done(self, size: int) -> None:
        """Take note that it is whole and of this size in bytes."""
        self._meter.file_done(size - self.bytes)


class TransferStopped(Exception):  # noqa: N818 - it ends a thread, and no caller sees it
    """Another file of the same operation failed, or the caller was interrupted."""


def run_all(items: Iterable[T], work: Callable[[T], None], *, limit: int, meter: Meter) -> None:
    """
    Call `work` for each item, at most `limit` at once, drawing items as they are needed.

    The first failure stops the others and is raised when all have ended; so does an interrupt of this thread.
    """
    if limit <= 1:
        for item in items:
            work(item)
        return
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    pending: set[Future[None]] = set()
    with ThreadPoolExecutor(limit, thread_name_prefix="synapse-transfer") as pool:
        try:
            for item in items:
                pending.add(pool.submit(work, item))
                if len(pending) >= 2 * limit:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    _raise_first(done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                _raise_first(done)
        except BaseException:
            meter.stop()
            for future in pending:
                future.cancel()
            raise


def _raise_first(done: Iterable[Future[None]]) -> None:
    for future in done:
        future.result()
