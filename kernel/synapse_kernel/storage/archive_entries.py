"""The entries of an archive that may be damaged, or made to do harm: read forward, in bounded memory."""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from synapse_kernel.storage.archive_formats import FORMATS, ArchiveError, format_of, open_unpacked
from synapse_kernel.storage.explaining import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO, BinaryIO, TypeAlias

    Entries: TypeAlias = Iterator[tuple["Found", IO[bytes] | None]]

_LONGEST_HEADER = 1 << 20
"""No name, link or attribute needs more bytes; more at once than contents are read with."""
PIECE = 1 << 20
"""How many bytes of a content are read at once."""
_LONGEST_LINK = 1 << 16


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as the archive tells it: nothing of it is to be trusted."""

    name: str
    kind: Literal["file", "folder", "link", "hard link"]
    size: int = 0
    executable: bool = False
    target: str = ""
    """Where a link leads, from its folder; what file a hard link is, from the root of the archive."""


@contextmanager
def opened_entries(path: Path) -> Iterator[Entries]:
    """
    Give the entries of an archive, each file's with its content, open until the next is asked for.

    To be called, and what it gives to be read, within `read_safely`. Raises `ArchiveError` for what is no
    archive.
    """
    with path.open("rb") as file:
        start = file.read(4)
        kind = format_of(start)
        if kind is None:
            raise ArchiveError(
                f"it is {'empty' if not start else 'no archive'}: it begins as none of "
                f"{', '.join(FORMATS)} does"
            )
        file.seek(0)
        if kind.name == "zip":
            with zipfile.ZipFile(file) as archive:
                yield _zip_entries(archive)
            return
        with open_unpacked(file, kind) as stream:
            forward = _Forward(stream)
            yield _tar_entries(forward)


@contextmanager
def read_safely() -> Iterator[None]:
    """Raise `ArchiveError` for whatever the bytes of a damaged archive make its readers raise."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(error) from error
    except NotImplementedError as error:
        raise ArchiveError(f"it is packed in a way that is not supported here: {reason_of(error)}") from error
    except Exception as error:
        if isinstance(error, _DAMAGES) or type(error).__name__ == "ZstdError":
            raise _damaged(error) from error
        raise


_DAMAGES = (
    EOFError,
    IndexError,
    OverflowError,
    RecursionError,
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _damaged(error: Exception) -> ArchiveError:
    return ArchiveError(f"it is damaged or cut off: {reason_of(error)}")


def _zip_entries(archive: zipfile.ZipFile) -> Entries:
    for info in archive.infolist():
        # The one that is not cut at a NUL.
        name = info.orig_filename
        if info.flag_bits & 0x1:
            raise ArchiveError(f"its entry {name!r} is encrypted, and there is no way to give a password")
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if name.endswith("/"):
            yield Found(name=name, kind="folder"), None
        elif kind == stat.S_IFLNK:
            with archive.open(info) as content:
                target = content.read(_LONGEST_LINK).decode(errors="surrogateescape")
            yield Found(name=name, kind="link", target=target), None
        elif kind in {0, stat.S_IFREG}:
            with archive.open(info) as content:
                yield (
                    Found(name=name, kind="file", size=info.file_size, executable=bool(mode & 0o100)),
                    content,
                )
        else:
            raise _no_file(name, kind)


_TAR_KINDS = {
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}


def _tar_entries(stream: _Forward) -> Entries:
    # Not `r|`: its stream reads a header as long as it says it is.
    with tarfile.TarFile(fileobj=cast("IO[bytes]", stream), encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            if member.size < 0:
                raise tarfile.ReadError(f"an entry of {member.size} bytes")
            if member.isreg():
                found = Found(
                    name=member.name, kind="file", size=member.size, executable=bool(member.mode & 0o100)
                )
                content = tar.extractfile(member)
                yield found, content
            elif member.isdir():
                yield Found(name=member.name, kind="folder"), None
            elif member.issym():
                yield Found(name=member.name, kind="link", target=member.linkname), None
            elif member.islnk():
                yield Found(name=member.name, kind="hard link", target=member.linkname), None
            else:
                raise _no_file(member.name, _TAR_KINDS.get(member.type, -1))
        stream.finish()


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _no_file(name: str, kind: int) -> ArchiveError:
    return ArchiveError(f"its entry {name!r} is {_KINDS.get(kind, 'of an unknown kind')}, and not unpacked")


class _Forward:
    """A stream as a tar archive is read from: forward, but for one byte, and never much at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        self._last = b""
        self._again = False
        self._header = b""

    def tell(self) -> int:
        return self._at - self._again

    def seekable(self) -> bool:
        return True

    def seek(self, position: int) -> int:
        """Go on to a position; the byte before the present one can be read again."""
        if position == self._at - 1 and self._last:
            self._again = True
            return position
        if position < self.tell():
            raise tarfile.ReadError("its parts are out of order")
        self._again = False
        while self._at < position:
            if not self._read(min(PIECE, position - self._at)):
                break
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        if self._again and size:
            self._again = False
            return self._last + (self._read(size - 1) if size > 1 else b"")
        return self._read(size)

    def finish(self) -> None:
        """See that it ended as an archive does, and read on to where the checksum of the stream is."""
        if any(self._header):
            raise tarfile.ReadError("a header that is none")
        while self._read(PIECE):
            if any(self._header):
                raise tarfile.ReadError("something follows its end")

    def _read(self, size: int) -> bytes:
        pieces, left = [], size
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        data = b"".join(pieces)
        self._at += len(data)
        self._last = data[-1:] or self._last
        self._header = data
        return data
