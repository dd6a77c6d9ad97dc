"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """
    Write a text file beside its place, then rename it there; its mode stays as it was.

    Raises `OSError`; what stood there before still does then.
    """
    target = Path(path)
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def size_and_checksum(path: Path) -> tuple[int, str]:
    """
    Return the size of a file or folder in bytes, and its SHA-256 as an `Artifact` has it.

    Links are not followed inside a folder.
    """
    import hashlib

    if not path.is_dir():
        with path.open("rb") as stream:
            return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    size, lines = 0, hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file() and not f.is_symlink()):
        inner_size, checksum = size_and_checksum(file)
        size += inner_size
        lines.update(f"{checksum}  {file.relative_to(path).as_posix()}\n".encode())
    return size, lines.hexdigest()
