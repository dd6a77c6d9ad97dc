"""Checksums of files, wherever they are: read in pieces, whatever their size."""

from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from synapse_kernel.errors import MissingPackageError, listing, suggest
from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
)
from synapse_kernel.storage.transfers import Meter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import BinaryIO, TypeAlias

    from synapse_kernel.storage.finding import Location
    from synapse_kernel.storage.paths import StoragePath
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress

    Local: TypeAlias = str | os.PathLike[str]
    Stored: TypeAlias = Location | StoragePath
    Content: TypeAlias = Local | Stored | bytes | bytearray | memoryview | BinaryIO
    """What has a checksum: a local path, a file of a storage, bytes, or a file open for reading bytes."""

PIECE = 1 << 20
"""How many bytes are read at once."""

_RANGE = 8 << 20

_INSTALL = "pip install 'synapse-kernel[archives]'"


class Checksum(NamedTuple):
    """A checksum as it is written, ``sha256:…``."""

    algorithm: str
    digits: str
    """Hexadecimal, in lower case."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}"


class _Digest(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Crc:
    """A check value of 32 bits as a digest; `extend` takes the value so far and more bytes."""

    def __init__(self, extend: Callable[[int, bytes], int]) -> None:
        self._extend = extend
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._extend(self._value, data)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _standard(name: str) -> Callable[[], _Digest]:
    # They find out whether a file is what it was, which md5 and sha1 still do where others are forbidden.
    return lambda: cast("_Digest", hashlib.new(name, usedforsecurity=False))


def _xxhash(name: str) -> Callable[[], _Digest]:
    def made() -> _Digest:
        import xxhash

        return cast("_Digest", getattr(xxhash, name)())

    return made


def _crc32c() -> _Digest:
    import google_crc32c

    return _Crc(lambda value, data: cast("int", google_crc32c.extend(value, data)))


_MAKERS: dict[str, tuple[Callable[[], _Digest], int, str]] = {
    "md5": (_standard("md5"), 32, ""),
    "sha1": (_standard("sha1"), 40, ""),
    "sha256": (_standard("sha256"), 64, ""),
    "sha512": (_standard("sha512"), 128, ""),
    "blake2b": (_standard("blake2b"), 128, ""),
    "blake2s": (_standard("blake2s"), 64, ""),
    "crc32": (lambda: _Crc(lambda value, data: zlib.crc32(data, value)), 8, ""),
    "crc32c": (_crc32c, 8, "google-crc32c"),
    "xxh3": (_xxhash("xxh3_64"), 16, "xxhash"),
    "xxh3_64": (_xxhash("xxh3_64"), 16, "xxhash"),
    "xxh3_128": (_xxhash("xxh3_128"), 32, "xxhash"),
}
"""How each algorithm's digest is made, how many digits it has, and the package that it needs."""

ALGORITHMS = tuple(_MAKERS)
"""The algorithms' names; ``xxh3`` is ``xxh3_64``."""


def calculate_checksum(
    source: Content, algorithm: str = "sha256", *, progress: Callable[[TransferProgress], None] | None = None
) -> str:
    """
    Return the checksum of a content, as hexadecimal digits in lower case.

    A file that is open is read from where it stands. `progress` is called with a `TransferProgress` as bytes
    are read. Raises `StorageConfigError` for an algorithm that there is none of, `MissingPackageError` for
    one whose package is not installed, `StorageError` or its kinds for what cannot be read.
    """
    digest = _made(algorithm)
    meter = Meter("checksum", progress)
    if isinstance(source, (bytes, bytearray, memoryview)):
        _feed(io.BytesIO(source), digest, meter)
    elif hasattr(source, "read"):
        _feed(cast("BinaryIO", source), digest, meter)
    elif in_storage(source):
        _feed_stored(cast("Stored", source), digest, meter)
    else:
        _feed_local(Path(cast("Local", source)), digest, meter)
    return digest.hexdigest()


def parse_checksum(text: str) -> Checksum:
    """Return what ``algorithm:digits`` says; raises `StorageConfigError` for what is none."""
    algorithm, separator, digits = text.strip().partition(":")
    if not separator:
        raise StorageConfigError(
            f"{text!r} is no checksum: write algorithm:digits, such as sha256:e3b0c4…\n"
            f"  algorithms: {listing(ALGORITHMS)}"
        )
    algorithm, digits = algorithm.lower(), digits.lower()
    length = _found(algorithm)[1]
    if len(digits) != length or set(digits) - set("0123456789abcdef"):
        raise StorageConfigError(
            f"{text!r} is no checksum: one of {algorithm} has {length} hexadecimal digits"
            + (f", and this has {len(digits)}" if len(digits) != length else "")
        )
    return Checksum(algorithm, digits)


def verify_checksum(
    source: Content, checksum: str, *, progress: Callable[[TransferProgress], None] | None = None
) -> None:
    """
    Raise `StorageIntegrityError`, with both values, unless a content has a checksum such as ``sha256:…``.

    Raises what `parse_checksum` and `calculate_checksum` raise, too.
    """
    expected = parse_checksum(checksum)
    actual = calculate_checksum(source, expected.algorithm, progress=progress)
    if actual == expected.digits:
        return
    reason = f"its {expected.algorithm} is {actual}, and it should be {expected.digits}"
    if in_storage(source):
        place = cast("Stored", source)
        raise StorageIntegrityError(
            reason, provider=place.storage.provider.name, operation="checksum", key=place.key
        )
    error = StorageIntegrityError(reason, operation="checksum", key=_name_of(source))
    # A local file has no key: who fetched it for a key may say which.
    error.operation, error.key = "", None
    raise error


def _found(algorithm: str) -> tuple[Callable[[], _Digest], int, str]:
    found = _MAKERS.get(algorithm)
    if found is None:
        raise StorageConfigError(
            f"there is no checksum {algorithm!r}{suggest(algorithm, ALGORITHMS)}\n"
            f"  algorithms: {listing(ALGORITHMS)}"
        )
    return found


def _made(algorithm: str) -> _Digest:
    maker, _, package = _found(algorithm)
    try:
        return maker()
    except ImportError as error:
        raise MissingPackageError("Checksum", algorithm, package, _INSTALL) from error
    except ValueError as error:
        raise StorageConfigError(
            f"this Python cannot calculate {algorithm}: {error}\n  algorithms: {listing(ALGORITHMS)}"
        ) from None


def _feed(file: BinaryIO, digest: _Digest, meter: Meter) -> None:
    if hasattr(file, "encoding"):
        raise StorageConfigError(
            "a checksum is of bytes, and this file is open for text: open it with mode 'rb'",
            operation="checksum",
        )
    while piece := file.read(PIECE):
        digest.update(piece)
        meter.moved(len(piece))
    meter.file_done()


def _feed_stored(source: Stored, digest: _Digest, meter: Meter) -> None:
    meter.expect(source.storage.info(source.key).size)
    with open_to_read_on(source.storage, source.key) as file:
        _feed(file, digest, meter)


def _feed_local(path: Path, digest: _Digest, meter: Meter) -> None:
    try:
        with path.open("rb") as file:
            meter.expect(path.stat().st_size)
            _feed(file, digest, meter)
    except FileNotFoundError:
        raise StorageNotFoundError(f"there is no local file {path}", operation="checksum") from None
    except IsADirectoryError:
        raise StorageConfigError(
            f"a checksum is one file's, and {path} is a folder", operation="checksum"
        ) from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}", operation="checksum"
        ) from error


def open_to_read_on(storage: Storage, key: str) -> BinaryIO:
    """Open a file of a storage that is read from its start to its end: in ranges larger than others."""
    reader = cast("io.BufferedReader", storage.open(key, "rb"))
    return io.BufferedReader(reader.detach(), _RANGE)


def in_storage(source: object) -> bool:
    """Tell whether something is a place in a storage: a `Location` or a `StoragePath`."""
    return hasattr(source, "storage") and hasattr(source, "key")


def _name_of(source: Content) -> str | None:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return None
    name = getattr(source, "name", None) if hasattr(source, "read") else source
    return None if name is None else str(name)
