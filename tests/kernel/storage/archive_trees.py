"""Trees of files for the tests of archives."""

from __future__ import annotations

from pathlib import Path

FORMATS = ["zip", "tar.gz", "tar.zst"]


def make_tree(folder: Path, files: dict[str, bytes | str | None]) -> Path:
    """Write files of bytes, links of texts and, for None, empty folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


def read_tree(folder: Path) -> dict[str, bytes | str | None]:
    """Return what `make_tree` makes of it, the folders that hold nothing with it."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = None
    return found


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones too, in order."""
    return sorted(path.name for path in folder.iterdir())
