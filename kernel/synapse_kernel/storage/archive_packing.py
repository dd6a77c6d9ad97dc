"""How items are written into a zip or tar, so that nothing but their names and contents decides the bytes."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from typing import TYPE_CHECKING, Protocol, cast

from synapse_kernel.storage.archive_contents import changed
from synapse_kernel.storage.archive_formats import EPOCH, open_packed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import IO, BinaryIO

    from synapse_kernel.storage.archive_contents import Contents, Folder, Item
    from synapse_kernel.storage.archive_formats import Format
    from synapse_kernel.storage.transfers import Meter

PIECE = 1 << 20
"""How many bytes are copied at once."""


def pack(path: Path, kind: Format, level: int, folder: Folder, items: Sequence[Item], meter: Meter) -> None:
    """Write an archive of a folder's items to a local file."""
    with path.open("wb") as file, folder.contents(items) as contents:
        if kind.name == "zip":
            with zipfile.ZipFile(file, "w") as archive:
                _pack_all(_Zip(archive, level), contents, meter)
            return
        with (
            open_packed(file, kind, level) as stream,
            tarfile.TarFile(
                fileobj=cast("IO[bytes]", stream),
                mode="w",
                format=tarfile.PAX_FORMAT,
                encoding="utf-8",
                copybufsize=PIECE,
            ) as tar,
        ):
            _pack_all(_Tar(tar), contents, meter)


class _Packer(Protocol):
    def add(self, item: Item, content: _Measured | None) -> None: ...


def _pack_all(packer: _Packer, contents: Contents, meter: Meter) -> None:
    for item, content in contents:
        packer.add(item, None if content is None else _Measured(item, content, meter))
        if not item.is_folder:
            meter.file_done()


class _Measured:
    """A content of a known size: one that turns out to be another is an error."""

    def __init__(self, item: Item, content: BinaryIO, meter: Meter) -> None:
        self._item = item
        self._content = content
        self._meter = meter
        self._left = item.size

    def read(self, size: int) -> bytes:
        piece = self._content.read(size)
        self._left -= len(piece)
        if self._left < 0 or (size and not piece and self._left):
            raise changed(self._item.name)
        self._meter.moved(len(piece))
        return piece

    def finish(self) -> None:
        """See that nothing more comes."""
        self.read(1)


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, level: int) -> None:
        self._archive = archive
        self._level = level

    def add(self, item: Item, content: _Measured | None) -> None:
        info = zipfile.ZipInfo(f"{item.name}/" if item.is_folder else item.name)
        info.create_system = 3  # whose modes are those of Unix
        if content is None:
            mode = stat.S_IFDIR | 0o755 if item.is_folder else stat.S_IFLNK | 0o777
            info.external_attr = mode << 16 | (0x10 if item.is_folder else 0)
            self._archive.writestr(info, (item.link or "").encode(), zipfile.ZIP_STORED)
            return
        info.external_attr = (stat.S_IFREG | _mode(item)) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        # Whether the header has room for a long size depends on it.
        info.file_size = item.size
        info._compresslevel = self._level  # type: ignore[attr-defined]
        with self._archive.open(info, "w") as entry:
            while piece := content.read(PIECE):
                entry.write(piece)


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, item: Item, content: _Measured | None) -> None:
        info = tarfile.TarInfo(item.name)
        info.mtime = EPOCH
        if content is not None:
            info.size, info.mode = item.size, _mode(item)
            self._tar.addfile(info, cast("IO[bytes]", content))
            content.finish()
        elif item.is_folder:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            self._tar.addfile(info)
        else:
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, item.link or ""
            self._tar.addfile(info)
        # It keeps what it wrote, and nobody asks for it.
        self._tar.getmembers().clear()


def _mode(item: Item) -> int:
    return 0o755 if item.executable else 0o644
