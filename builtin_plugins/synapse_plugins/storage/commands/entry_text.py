"""Entries of a storage as text, and as data for scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from synapse_kernel.event_text import size_text

if TYPE_CHECKING:
    from synapse_kernel.storage.providers import Entry


def document_of(entry: Entry, url: str) -> dict[str, object]:
    """Return what is known of an entry, as data for scripts."""
    return {
        "key": entry.key,
        "url": url,
        "kind": "folder" if entry.is_folder else "file",
        "size": entry.size,
        "modified": None if entry.modified is None else time_of(entry.modified).isoformat(),
        "etag": entry.etag,
        "checksums": entry.checksums,
    }


def time_of(seconds: float) -> datetime:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def size_cell(size: int | None, *, human: bool) -> str:
    """Return a size in bytes, or as people read it; ``-`` for one that there is none of."""
    return "-" if size is None else size_text(size) if human else str(size)


def time_cell(seconds: float | None) -> str:
    """Return a time in this machine's zone, to the second; ``-`` if it is not known."""
    return "-" if seconds is None else f"{time_of(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def files_text(count: int) -> str:
    """Return ``1 file`` or ``1,200 files``."""
    return f"{count:,} file{'' if count == 1 else 's'}"
