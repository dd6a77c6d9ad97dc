"""Folders of this machine's file system, as transfers see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """
    Yield each file below a folder with its key relative to it, in the order of the keys; links are followed.

    A link that leads to a folder above itself is passed over; so are folders that went away meanwhile and
    files that are being written.
    Raises `OSError` for a folder that cannot be read, `StorageConfigError` for a name that is no text.
    """
    for key, path in names_below(str(folder)):
        yield key, Path(path)


def names_below(folder: str) -> Iterator[tuple[str, str]]:
    """Yield what `files_below` yields, the paths as text: that is much less work."""
    return _below(folder, "", frozenset({os.path.realpath(folder)}))


def _below(folder: str, prefix: str, above: frozenset[str]) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            # As S3 orders keys: 'a.txt' before 'a/b'.
            ordered = sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)
    except FileNotFoundError:
        if prefix:
            return
        raise
    for entry in ordered:
        key = f"{prefix}{entry.name}"
        if not entry.name.isascii():
            check_text(entry.name, folder, "upload")
        if not entry.is_dir():
            if not is_part(entry.name):
                yield key, entry.path
        elif not entry.is_symlink():
            yield from _below(entry.path, f"{key}/", above)
        else:
            real = os.path.realpath(entry.path)
            if real not in above:
                yield from _below(entry.path, f"{key}/", above | {real})


def check_text(name: str, folder: str, operation: str) -> None:
    """Raise `StorageConfigError` for a name that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StorageConfigError(
            f"the name {name!r} in {folder} is not valid UTF-8, and cannot be a key: rename it",
            operation=operation,
        ) from None


def part_beside(target: Path) -> Path:
    """Return where a file is written before it takes its place: beside it, hidden, with a name of its own."""
    return target.with_name(part_name())


def part_name() -> str:
    """Return a new name for a file that is being written; nobody lists or uploads one of that form."""
    return f".synapse-{os.urandom(8).hex()}.part"


def is_part(name: str) -> bool:
    """Tell whether a name is one of `part_name`."""
    return name.startswith(".synapse-") and name.endswith(".part")
