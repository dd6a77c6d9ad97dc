"""PNG images of red, green and blue with the standard library: as much of the format as is needed here."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass
class Image:
    """Rows of pixels, three bytes each."""

    width: int
    height: int
    rows: list[bytearray]

    @classmethod
    def filled(cls, width: int, height: int, colour: tuple[int, int, int]) -> "Image":
        """Return an image of one colour."""
        return cls(width, height, [bytearray(colour * width) for _ in range(height)])

    def mirrored(self) -> "Image":
        """Return the image with left and right exchanged."""
        flipped = []
        for row in self.rows:
            pixels = (row[at : at + 3] for at in range(len(row) - 3, -1, -3))
            flipped.append(bytearray().join(pixels))
        return Image(self.width, self.height, flipped)


def encoded(image: Image) -> bytes:
    """Return an image as a PNG file."""
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    # The byte before each row names a filter: none.
    pixels = zlib.compress(b"".join(b"\0" + row for row in image.rows))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def decoded(data: bytes) -> Image:
    """Read an image that `encoded` wrote."""
    chunks = dict(_chunks(data))
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    pixels = zlib.decompress(chunks[b"IDAT"])
    length = 1 + 3 * width
    rows = [bytearray(pixels[at * length + 1 : (at + 1) * length]) for at in range(height)]
    return Image(width, height, rows)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
