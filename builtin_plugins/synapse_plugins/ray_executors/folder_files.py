"""
Which files of a folder travel to a worker.

`.gitignore` files are honoured as Git does, nested ones and those above in the repository too, and
`.synapseignore` files have the last word. What no worker needs (`.git`, virtual environments, caches) never
travels. A folder that is looked at again costs a `stat` a file: what was said of each name is kept while the
ignore files stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from synapse_kernel.errors import UsageError
from synapse_kernel.ignoring import IGNORE_FILES, OWN_IGNORE, IgnoreRules, never_packed, rules_above

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


class _Directory(msgspec.Struct):
    """What is known of a directory from the last look."""

    parent: IgnoreRules
    stamps: list[Stamp]
    rules: IgnoreRules
    verdicts: dict[tuple[str, bool], bool] = {}


class FolderFiles:
    """The files of one folder that travel; `git` tells whether its `.gitignore` files count."""

    def __init__(self, folder: str, *, git: bool = True) -> None:
        self.folder = folder
        self._names = IGNORE_FILES if git else (OWN_IGNORE,)
        self._git = git
        self._seen: dict[str, _Directory] = {}
        self._stamps_above: list[Stamp] | None = None
        self._place = ""
        self._above = IgnoreRules()

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
            if self._git:
                self._look_above()
            for file in self._walk(self.folder, "", self._above, False, ((top.st_dev, top.st_ino),)):
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

    def _look_above(self) -> None:
        """Read the ignore files above the folder, unless they are as they were."""
        stamps = _stamps_above(self.folder)
        if stamps != self._stamps_above:
            # The rules are others by that, and with them what was said of each name.
            self._place, self._above = rules_above(Path(self.folder))
            self._stamps_above = stamps

    def _walk(
        self, path: str, inside: str, parent: IgnoreRules, inherited: bool, above: tuple[tuple[int, int], ...]
    ) -> Iterator[FoundFile]:
        with os.scandir(path) as listing:
            entries = list(listing)
        if inside and any(entry.name == "pyvenv.cfg" for entry in entries):
            return
        directory = self._directory(inside, parent, entries)
        for entry in entries:
            name = entry.name
            is_folder = entry.is_dir()
            if never_packed(name, is_folder=is_folder):
                continue
            relative = f"{inside}{name}"
            key = (name, inherited)
            ignored = directory.verdicts.get(key)
            if ignored is None:
                tried = f"{self._place}{relative}{'/' if is_folder else ''}"
                ignored = directory.verdicts[key] = directory.rules.ignores(tried, inherited=inherited)
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

    def _directory(self, inside: str, parent: IgnoreRules, entries: list[os.DirEntry[str]]) -> _Directory:
        stamps: list[Stamp] = []
        for entry in entries:
            # Git follows no link to a .gitignore.
            if entry.name in self._names and entry.is_file(follow_symlinks=entry.name == OWN_IGNORE):
                status = entry.stat()
                stamps.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
        known = self._seen.get(inside)
        if known is not None and known.parent is parent and known.stamps == stamps:
            return known
        rules = parent
        for name, *_ in stamps:
            text = Path(self.folder, inside, name).read_text(encoding="utf-8", errors="replace")
            rules = rules.with_file(name, f"{self._place}{inside}", text)
        made = self._seen[inside] = _Directory(parent, stamps, rules)
        return made


def _stamps_above(folder: str) -> list[Stamp]:
    """Return what tells whether `rules_above` may say something else."""
    above = os.path.realpath(folder)
    stamps: list[Stamp] = []
    while not os.path.exists(f"{above}/.git"):  # noqa: PTH110 - on the way of every run
        below, above = above, os.path.dirname(above)  # noqa: PTH120
        if above == below:
            break
        for path in (f"{above}/{name}" for name in IGNORE_FILES):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                stamps.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return [*stamps, (above, 0, 0, 0)]


def _found(relative: str, path: str, status: os.stat_result) -> FoundFile:
    executable = bool(status.st_mode & 0o100)
    return FoundFile(relative, path, status.st_size, status.st_mtime_ns, status.st_ino, executable)
