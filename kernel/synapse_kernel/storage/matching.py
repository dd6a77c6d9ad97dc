"""Keys by pattern."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import StorageNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.storage import Storage

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Tell whether a text holds ``*``, ``?`` or ``[``."""
    return _MAGIC.search(text) is not None


def matching(storage: Storage, pattern: str) -> Iterator[Entry]:
    """Yield the entries of a storage whose keys match; no folder is listed that none could be in."""
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]

    parts = pattern.split("/")
    fixed = next((at for at, part in enumerate(parts) if is_pattern(part)), len(parts))
    folder = "/".join(parts[:fixed])
    if fixed == len(parts):
        try:
            yield storage.info(pattern)
        except StorageNotFoundError:
            return
        return
    try:
        if "**" in pattern:
            whole = re.compile(glob_translate(pattern))
            yield from (entry for entry in storage.list(folder, recursive=True) if whole.match(entry.key))
            return
        yield from _level(storage, folder, parts[fixed:])
    except StorageNotFoundError:
        return


def _level(storage: Storage, folder: str, parts: list[str]) -> Iterator[Entry]:
    """Go down one folder for each part of the pattern."""
    import fnmatch

    part, rest = parts[0], parts[1:]
    name = re.compile(fnmatch.translate(part))
    for entry in storage.list(folder):
        if not name.match(entry.key.rpartition("/")[2]):
            continue
        if not rest:
            yield entry
        elif entry.is_folder:
            yield from _level(storage, entry.key, rest)
