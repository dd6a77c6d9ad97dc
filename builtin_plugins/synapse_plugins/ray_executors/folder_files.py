"""
Which files of a folder travel to a worker.

`.gitignore` files are honoured as Git does, nested ones too, and `.synapseignore` files have the last word.
What no worker needs (`.git`, virtual environments, caches) never travels. A folder that is looked at again
costs a `stat` a file: what was said of each name is kept while the ignore files stay as they are.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from pathspec import GitIgnoreSpec

from synapse_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GIT_IGNORE = ".gitignore"
OWN_IGNORE = ".synapseignore"
NEVER_FOLDERS = frozenset(
    {
        ".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache",
        ".pytest_cache", ".hypothesis", ".tox", ".nox", ".ipynb_checkpoints",
    }
)  # fmt: skip
_NEVER_SUFFIXES = (".pyc", ".pyo")
# A link that leads to the root of a disk must end somewhere.
MOST_FILES = 200_000

Stamp = tuple[str, int, int, int]


class FoundFile(NamedTuple):
    """A file that travels; equal to one found before if nothing tells that it has changed."""

    relative: str
    """Its path in the folder, with slashes."""
    path: str
    size: int
    mtime_ns: int
    inode: int
    executable: bool


class _Rules(msgspec.Struct, frozen=True):
    """The ignore files that count in a directory, those nearest to it last, each with its own place."""

    git: tuple[tuple[str, GitIgnoreSpec], ...] = ()
    own: tuple[tuple[str, GitIgnoreSpec], ...] = ()
    rescues: bool = False
    """Whether something that is ignored may be named again further down."""

    def ignores(self, relative: str, inherited: bool) -> bool:
        own = _last_word(self.own, relative)
        if own is not None:
            return own
        return inherited or bool(_last_word(self.git, relative))


class _Directory(msgspec.Struct):
    """What is known of a directory from the last look."""

    parent: _Rules
    stamps: list[Stamp]
    rules: _Rules
    verdicts: dict[tuple[str, bool], bool] = {}


class FolderFiles:
    """The files of one folder that travel; `git` tells whether its `.gitignore` files count."""

    def __init__(self, folder: str, *, git: bool = True) -> None:
        self.folder = folder
        self._names = (GIT_IGNORE, OWN_IGNORE) if git else (OWN_IGNORE,)
        self._seen: dict[str, _Directory] = {}
        self._nothing = _Rules()

    def look(self, keep: Sequence[str] = ()) -> list[FoundFile]:
        """
        Return the files, sorted; those of `keep`, relative paths, come whatever an ignore file says.

        Links are followed, out of the folder too, but not round in a circle. Raises `UsageError` for a
        folder that is not there, cannot be read or has no end.
        """
        found: dict[str, FoundFile] = {}
        try:
            top = os.stat(self.folder)  # noqa: PTH116 - on the way of every run
            if not stat.S_ISDIR(top.st_mode):
                raise NotADirectoryError(20, "it is not a folder", self.folder)
            for file in self._walk(self.folder, "", self._nothing, False, ((top.st_dev, top.st_ino),)):
                found[file.relative] = file
                if len(found) > MOST_FILES:
                    raise UsageError(
                        f"The folder {self.folder} cannot be shipped: it has more than {MOST_FILES:,} files\n"
                        f"  does a link lead out of it? Name what the action does not need in "
                        f"{Path(self.folder, OWN_IGNORE)}"
                    )
            for relative in keep:
                status = os.stat(path := f"{self.folder}/{relative}")  # noqa: PTH116
                found[relative] = _found(relative, path, status)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"The folder {self.folder} cannot be shipped: {error.filename or self.folder}: {reason}"
            ) from None
        return [found[relative] for relative in sorted(found)]

    def _walk(
        self, path: str, inside: str, parent: _Rules, inherited: bool, above: tuple[tuple[int, int], ...]
    ) -> Iterator[FoundFile]:
        with os.scandir(path) as listing:
            entries = list(listing)
        if inside and any(entry.name == "pyvenv.cfg" for entry in entries):
            return
        directory = self._directory(inside, parent, entries)
        for entry in entries:
            name = entry.name
            is_folder = entry.is_dir()
            if name in NEVER_FOLDERS if is_folder else name.endswith(_NEVER_SUFFIXES):
                continue
            relative = f"{inside}{name}"
            key = (name, inherited)
            ignored = directory.verdicts.get(key)
            if ignored is None:
                tried = f"{relative}/" if is_folder else relative
                ignored = directory.verdicts[key] = directory.rules.ignores(tried, inherited)
            if ignored and not (is_folder and directory.rules.rescues):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # a link that leads nowhere, or gone since
            if is_folder:
                here = (status.st_dev, status.st_ino)
                if here not in above:
                    yield from self._walk(
                        entry.path, f"{relative}/", directory.rules, ignored, (*above, here)
                    )
            elif stat.S_ISREG(status.st_mode):
                yield _found(relative, entry.path, status)

    def _directory(self, inside: str, parent: _Rules, entries: list[os.DirEntry[str]]) -> _Directory:
        stamps: list[Stamp] = []
        for entry in entries:
            if entry.name in self._names and entry.is_file():
                status = entry.stat()
                stamps.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
        known = self._seen.get(inside)
        if known is not None and known.parent is parent and known.stamps == stamps:
            return known
        rules = parent
        for name, *_ in stamps:
            rules = self._read(rules, name, inside)
        made = self._seen[inside] = _Directory(parent, stamps, rules)
        return made

    def _read(self, rules: _Rules, name: str, inside: str) -> _Rules:
        text = Path(self.folder, inside, name).read_text(encoding="utf-8", errors="replace")
        spec = GitIgnoreSpec.from_lines(text.splitlines())
        if name == GIT_IGNORE:
            return _Rules((*rules.git, (inside, spec)), rules.own, rules.rescues)
        rescues = rules.rescues or any(pattern.include is False for pattern in spec.patterns)
        return _Rules(rules.git, (*rules.own, (inside, spec)), rescues)


def _last_word(specs: tuple[tuple[str, GitIgnoreSpec], ...], relative: str) -> bool | None:
    for inside, spec in reversed(specs):
        said = spec.check_file(relative[len(inside) :]).include
        if said is not None:
            return said
    return None


def _found(relative: str, path: str, status: os.stat_result) -> FoundFile:
    executable = bool(status.st_mode & 0o100)
    return FoundFile(relative, path, status.st_size, status.st_mtime_ns, status.st_ino, executable)
