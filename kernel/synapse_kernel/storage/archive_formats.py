"""The formats of archives: how each is recognised, and the streams that pack and unpack it."""

from __future__ import annotations

import gzip
import sys
from typing import TYPE_CHECKING, NamedTuple, cast

from synapse_kernel.errors import MissingPackageError, listing, suggest
from synapse_kernel.storage.errors import StorageConfigError, StorageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import BinaryIO

INSTALL = "pip install 'synapse-kernel[archives]'"

EPOCH = 315_532_800
"""The time of every entry, 1980-01-01 UTC in seconds since 1970: no zip holds an earlier one."""


class ArchiveError(StorageError):
    """An archive that cannot be made, is damaged, or holds what must not be unpacked."""


class Format(NamedTuple):
    """A format of archives."""

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    levels: tuple[int, int]
    """The least and the greatest level of compression."""
    level: int
    """The one that is used unless another is asked for."""


FORMATS = {
    each.name: each
    for each in (
        Format("zip", (".zip",), (b"PK\x03\x04", b"PK\x05\x06"), (0, 9), 6),
        Format("tar.gz", (".tar.gz", ".tgz"), (b"\x1f\x8b",), (0, 9), 6),
        Format("tar.zst", (".tar.zst", ".tzst"), (b"\x28\xb5\x2f\xfd",), (1, 22), 3),
    )
}


def format_for(name: str, wanted: str | None) -> Format:
    """Return the format that is wanted, or that a file's name tells; raises `StorageConfigError` for none."""
    if wanted is not None:
        known = FORMATS.get(wanted.lower().lstrip("."))
        if known is None:
            raise StorageConfigError(
                f"there is no archive format {wanted!r}{suggest(wanted, FORMATS)}; "
                f"formats: {listing(FORMATS)}",
                operation="create_archive",
            )
        return known
    for each in FORMATS.values():
        if name.lower().endswith(each.suffixes):
            return each
    endings = [suffix for each in FORMATS.values() for suffix in each.suffixes]
    raise StorageConfigError(
        f"the name does not tell the format: let it end in one of {listing(endings)}, or give format=",
        operation="create_archive",
        key=name,
    )


def level_for(kind: Format, wanted: int | None) -> int:
    """Return the level of compression to use; raises `StorageConfigError` for one that there is none of."""
    least, greatest = kind.levels
    if wanted is not None and not least <= wanted <= greatest:
        raise StorageConfigError(
            f"{kind.name} has the levels {least} to {greatest}, and {wanted} is none of them",
            operation="create_archive",
        )
    return kind.level if wanted is None else wanted


def format_of(start: bytes) -> Format | None:
    """Return the format of an archive that begins with these bytes; None if it is none."""
    return next((each for each in FORMATS.values() if start.startswith(each.magic)), None)


def open_packed(file: BinaryIO, kind: Format, level: int) -> AbstractContextManager[BinaryIO]:
    """Return a stream that compresses into a file what a tar archive writes; its end leaves the file open."""
    if kind.name == "tar.gz":
        packed = gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0)
        return cast("AbstractContextManager[BinaryIO]", packed)
    return _zstd_file(file, level)


def open_unpacked(file: BinaryIO, kind: Format) -> AbstractContextManager[BinaryIO]:
    """Return a stream that decompresses a file."""
    if kind.name == "tar.gz":
        return cast("AbstractContextManager[BinaryIO]", gzip.GzipFile(mode="rb", fileobj=file))
    return _zstd_file(file, None)


def _zstd_file(file: BinaryIO, level: int | None) -> AbstractContextManager[BinaryIO]:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise MissingPackageError("Archive format", "tar.zst", "backports.zstd", INSTALL) from error
    if level is None:
        return cast("AbstractContextManager[BinaryIO]", zstd.ZstdFile(file, "rb"))
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return cast("AbstractContextManager[BinaryIO]", zstd.ZstdFile(file, "wb", options=options))
