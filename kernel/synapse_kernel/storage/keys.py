"""Keys: where something lies below the root of a storage, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


def clean_key(key: str, *, provider: str = "", operation: str = "") -> str:
    """
    Return a key in its one form: parts joined by ``/``, none of them empty, ``.`` or ``..``; '' is the root.

    A key is literal: ``%2e`` are three characters, not a dot. A trailing ``/`` is dropped. Raises
    `StorageConfigError` for one that is absolute, would leave the root, or holds a NUL.
    """
    wrong = ""
    if "\0" in key:
        wrong = "a key cannot hold a NUL character"
    elif key.startswith("/"):
        wrong = "a key is relative to the root of its storage: leave the first '/' out"
    if not wrong and not ("//" in key or "." in key or key.endswith("/")):
        return key
    parts = [part for part in key.split("/") if part not in {"", "."}]
    if ".." in parts:
        wrong = "a key cannot leave the root of its storage: '..' is not allowed in it"
    if wrong:
        raise StorageConfigError(wrong, provider=provider, operation=operation, key=key)
    return "/".join(parts)


def join_key(*parts: str) -> str:
    """Return clean keys joined to one."""
    return "/".join(part for part in parts if part)


def key_below(key: str, folder: str) -> str:
    """Return what of a key stands below a folder's; both are clean, and the key is in the folder."""
    return key[len(folder) + 1 :] if folder else key


def parent_key(key: str) -> str:
    """Return the folder that a key lies in; '' is the root."""
    return key.rpartition("/")[0]


def name_of(key: str) -> str:
    """Return the last part of a key."""
    return key.rpartition("/")[2]


def folders_of(keys: Iterable[str]) -> set[str]:
    """Return every folder above some keys, the root left out."""
    found: set[str] = set()
    for key in keys:
        folder = parent_key(key)
        while folder and folder not in found:
            found.add(folder)
            folder = parent_key(folder)
    return found
