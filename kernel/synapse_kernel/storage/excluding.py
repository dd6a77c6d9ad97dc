"""Which keys a person leaves out of a transfer, by patterns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def excluding(patterns: Iterable[str]) -> Callable[[str], bool]:
    """
    Return what tells whether a key is left out.

    A pattern without ``/`` is matched with each name of a key, a file's and the folders' above it; one with
    ``/`` with the key, or the folder, from the top. ``*`` and ``?`` stay within a name, ``**`` stands for any
    folders. One that ends in ``/`` is a folder's. Raises `StorageConfigError` for an empty one.
    """
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]

    names: list[re.Pattern[str]] = []
    paths: list[re.Pattern[str]] = []
    for pattern in patterns:
        inner = pattern.strip("/")
        if not inner:
            raise StorageConfigError(
                f"the pattern {pattern!r} to exclude is empty: write it like '*.tmp', 'cache/' or 'raw/**'"
            )
        # What is matched with: 'name' for a file, 'name/' for a folder.
        ending = "/" if pattern.endswith("/") else "/?"
        compiled = re.compile(f"(?:{glob_translate(inner)[: -len(_END)]}){ending}{_END}")
        (paths if "/" in pattern.rstrip("/") else names).append(compiled)

    def is_excluded(key: str) -> bool:
        parts = key.split("/")
        last = len(parts) - 1
        if any(
            name.match(part if at == last else f"{part}/") for at, part in enumerate(parts) for name in names
        ):
            return True
        if not paths:
            return False
        tops = ["/".join(parts[: at + 1]) + ("/" if at < last else "") for at in range(len(parts))]
        return any(path.match(top) for top in tops for path in paths)

    return is_excluded


_END = r"\Z"
