"""Files of a storage that are open: read in ranges, written whole or not at all."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synapse_kernel.storage.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Fetch = Callable[[int, int], bytes]
    Commit = Callable[[Source], None]

BUFFER = 1 << 20
"""How many bytes are asked for at once while small pieces are read."""
_READ_ALL = 8 << 20


class RangeFile(io.RawIOBase):
    """A file that is read with `fetch(start, length)`; seeking costs nothing."""

    def __init__(self, fetch: Fetch, size: int, name: str) -> None:
        self._fetch = fetch
        self._size = size
        self._at = 0
        self.name = name

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in bytes; raises `ValueError` for one before the beginning."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"there is no position {start + offset} in a file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as the file reaches."""
        view = memoryview(cast("bytearray", buffer)).cast("B")
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._fetch(self._at, wanted)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return the rest of the file."""
        pieces = []
        while self._at < self._size:
            piece = self._fetch(self._at, min(_READ_ALL, self._size - self._at))
            if not piece:
                break
            self._at += len(piece)
            pieces.append(piece)
        return b"".join(pieces)


def open_reader(fetch: Fetch, size: int, name: str) -> io.BufferedReader:
    """Return a file open for reading, buffered."""
    return io.BufferedReader(RangeFile(fetch, size, name), BUFFER)


class WholeWriter(io.BufferedIOBase):
    """
    A file that is written at its close, whole; left by an exception, or forgotten, it is not written at all.

    What is written waits in a temporary file of this machine.
    """

    def __init__(self, commit: Commit, name: str, content: bytes = b"") -> None:
        self._commit = commit
        self._file = tempfile.NamedTemporaryFile(prefix="synapse-")  # noqa: SIM115 - closed by `discard`
        self._file.write(content)
        self.name = name

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: nothing was sent yet."""
        return True

    def write(self, data: object) -> int:
        """Take bytes; returns how many."""
        return self._file.write(memoryview(cast("bytes", data)))

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in bytes."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Write it to the storage; raises what `Storage.upload` raises, and nothing was written then."""
        if self.closed:
            return
        try:
            self._file.flush()
            self._commit(Source.of_file(Path(self._file.name)))
        finally:
            self.discard()

    def discard(self) -> None:
        """Close it without writing anything."""
        self._file.close()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        else:
            self.close()

    def __del__(self) -> None:
        # Whoever forgets to close a file has not said that it is whole.
        if not self.closed:
            self.discard()


class TextWriter(io.TextIOWrapper):
    """Text over a `WholeWriter`, with its rule for exceptions."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            cast("WholeWriter", self.buffer).discard()
        else:
            self.close()
