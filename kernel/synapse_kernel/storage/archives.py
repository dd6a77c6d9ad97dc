"""Archives of folders: the same files give the same bytes, on any machine and at any time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.storage.archive_contents import (
    Choice,
    LocalFolder,
    StoredFolder,
    items_of,
    would_take,
)
from synapse_kernel.storage.archive_formats import ArchiveError, format_for, level_for
from synapse_kernel.storage.archive_names import collisions_in
from synapse_kernel.storage.archive_packing import pack
from synapse_kernel.storage.checksums import in_storage
from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.storage.explaining import explain_os_error, reason_of
from synapse_kernel.storage.keys import clean_key
from synapse_kernel.storage.local_trees import part_beside
from synapse_kernel.storage.transfers import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.storage.archive_contents import Folder
    from synapse_kernel.storage.checksums import Local, Stored
    from synapse_kernel.storage.transfers import TransferProgress

    Listener = Callable[[TransferProgress], None]


class ArchiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was packed or unpacked."""

    files: int
    """How many files and links."""
    bytes: int
    """The size of their contents."""
    collisions: tuple[tuple[str, str], ...] = ()
    """Pairs of names of which only one file remains where the file system ignores case."""


def create_archive(
    source: Local | Stored,
    target: Local | Stored,
    *,
    format: str | None = None,  # noqa: A002 - what it is
    ignore: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    level: int | None = None,
    progress: Listener | None = None,
) -> ArchiveReport:
    """
    Pack the files of a folder into a ``zip``, ``tar.gz`` or ``tar.zst``, by the target's name or `format`.

    `source` and `target` are local paths or places in a storage. With `ignore`, what `.gitignore` and
    `.synapseignore` files name is left out (those above the folder count as far as its Git repository
    reaches), and so are `.git`, virtual environments and caches. `include` and `exclude` are patterns as in
    these files: of what is not ignored they take only some, or all but some.

    The target appears whole or not at all. Times, owners and modes are not kept, except whether a file is
    executable; links are kept as links. Raises `ArchiveError` for what no archive should hold,
    `StorageConfigError` for options that cannot be used, and other kinds of `StorageError`.
    """
    name = cast("Stored", target).key if in_storage(target) else os.fspath(cast("Local", target))
    try:
        kind = format_for(name, format)
        used = level_for(kind, level)
        folder = _folder(source)
        choice = Choice(ignore=ignore, include=include, exclude=exclude)
        _check_target(source, target, folder, choice)
        items = items_of(folder, choice)
        if not items and folder.listing(""):
            raise ArchiveError(
                "nothing of the folder is left to pack: see its ignore files, include= and exclude=, or pack "
                "all of it with ignore=False"
            )
        meter = Meter("create_archive", progress)
        for item in items:
            if not item.is_folder:
                meter.expect(item.size)
        if in_storage(target):
            place = cast("Stored", target)
            with tempfile.TemporaryDirectory(prefix="synapse-") as temporary:
                packed = Path(temporary, "archive")
                pack(packed, kind, used, folder, items, meter)
                place.storage.upload(packed, place.key, progress=progress)
        else:
            path = Path(cast("Local", target))
            part = part_beside(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                pack(part, kind, used, folder, items, meter)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except (OSError, StorageError) as error:
        raise _explained(error, name) from error
    report = meter.report
    collisions = tuple(collisions_in(item.name for item in items))
    return ArchiveReport(files=report.files, bytes=report.bytes, collisions=collisions)


def _explained(error: OSError | StorageError, name: str) -> StorageError:
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.filename is not None:
        return ArchiveError(f"{error.filename}: {reason_of(error)}", operation="create_archive", key=name)
    return explain_os_error(error, "", "create_archive", name)


def _folder(source: Local | Stored) -> Folder:
    if in_storage(source):
        place = cast("Stored", source)
        return StoredFolder(place.storage, place.key)
    path = Path(cast("Local", source))
    if not path.exists():
        raise StorageNotFoundError(f"there is no local folder {path}")
    if not path.is_dir():
        raise StorageConfigError(f"an archive is made of a folder, and {path} is a file")
    return LocalFolder(path)


def _check_target(source: Local | Stored, target: Local | Stored, folder: Folder, choice: Choice) -> None:
    """Raise if the archive would be among the files that the next one is made of."""
    if in_storage(source) != in_storage(target):
        return
    if in_storage(source):
        from_place, to_place = cast("Stored", source), cast("Stored", target)
        above = f"{from_place.storage.get_url(clean_key(from_place.key)).rstrip('/')}/"
        name = to_place.storage.get_url(clean_key(to_place.key))
    else:
        to_path = Path(cast("Local", target))
        above = f"{os.path.realpath(cast('Local', source)).rstrip('/')}/"
        name = str(Path(os.path.realpath(to_path.parent), to_path.name))
        if to_path.is_dir():
            raise StorageConfigError(f"{to_path} is a folder: give the archive a name in it")
    if name.startswith(above) and would_take(folder, choice, name[len(above) :]):
        raise ArchiveError(
            "it lies in the folder that it is made of, and would hold the archive before it: put it "
            "elsewhere, or leave it out with exclude= or an ignore file"
        )
