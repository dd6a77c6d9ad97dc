"""
Which files of a folder are left out when it is packed: by ignore files, and what nobody else needs.

`.gitignore` files are honoured as Git does, nested ones too, and those of the folders above as far as the
repository reaches. `.synapseignore` files are written in the same way and have the last word: they may name
again what a `.gitignore` leaves out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeAlias

    Pattern: TypeAlias = tuple[re.Pattern[str], str | None, bool]
    """An expression, its group for the slash behind a folder, and whether it leaves out or names again."""
    Patterns: TypeAlias = tuple[Pattern, ...]
    """The last first: the first that names a path decides."""
    Files: TypeAlias = tuple[tuple[str, Patterns], ...]
    """Each ignore file's folder, ending with a slash or empty, and its patterns; the nearest is the last."""

GIT_IGNORE = ".gitignore"
OWN_IGNORE = ".synapseignore"
IGNORE_FILES = (GIT_IGNORE, OWN_IGNORE)

NEVER_FOLDERS = frozenset(
    {
        ".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache",
        ".pytest_cache", ".hypothesis", ".tox", ".nox", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Folders that are made anew wherever they are needed, or belong to one machine."""
NEVER_SUFFIXES = (".pyc", ".pyo")


class IgnoreRules:
    """
    The ignore files that count in a folder.

    Paths are relative to the one folder that the first rules were made for, and have slashes; a folder's end
    with one.
    """

    __slots__ = ("_git", "_own", "rescues")

    def __init__(self, git: Files = (), own: Files = (), *, rescues: bool = False) -> None:
        self._git = git
        self._own = own
        self.rescues = rescues
        """Whether something that is ignored may be named again further down."""

    def with_file(self, name: str, folder: str, text: str) -> IgnoreRules:
        """Return these rules with an ignore file of a folder; `ImportError` where pathspec is missing."""
        patterns = tuple(_patterns(reversed(text.removeprefix("\ufeff").splitlines())))
        if name == GIT_IGNORE:
            return IgnoreRules((*self._git, (folder, patterns)), self._own, rescues=self.rescues)
        rescues = self.rescues or not all(leaves_out for *_, leaves_out in patterns)
        return IgnoreRules(self._git, (*self._own, (folder, patterns)), rescues=rescues)

    def ignores(self, path: str, *, inherited: bool = False) -> bool:
        """Tell whether a path is left out; `inherited` says whether its folder is."""
        own = _last_word(self._own, path)
        if own is not None:
            return own
        return inherited or bool(_last_word(self._git, path))


def never_packed(name: str, *, is_folder: bool) -> bool:
    """Tell whether something of this name is left out whatever an ignore file says."""
    return name in NEVER_FOLDERS if is_folder else name.endswith(NEVER_SUFFIXES)


def rules_above(folder: Path) -> tuple[str, IgnoreRules]:
    """
    Return where a folder lies in its Git repository, and the rules of the folders above it.

    The place is relative to the repository's root and ends with a slash; it is empty outside of one. Where
    the rules leave the folder itself out they do not count: who names it wants it.
    """
    folder = Path(os.path.realpath(folder))
    root = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), folder)
    rules, place, ignored = IgnoreRules(), "", False
    for part in folder.relative_to(root).parts:
        here = root / place
        rules = rules_of(rules, place, lambda name, here=here: text_of(here / name))  # type: ignore[misc]
        place += f"{part}/"
        ignored = rules.ignores(place, inherited=ignored)
    return place, IgnoreRules() if ignored else rules


def rules_of(rules: IgnoreRules, folder: str, read: Callable[[str], str | None]) -> IgnoreRules:
    """Return the rules that count in a folder; `read` gives the text of an ignore file there, or None."""
    for name in IGNORE_FILES:
        text = read(name)
        if text is not None:
            rules = rules.with_file(name, folder, text)
    return rules


def text_of(file: Path) -> str | None:
    """Return the text of an ignore file, or None if there is none; a link is none, as for Git."""
    if file.is_symlink() or not file.is_file():
        return None
    return file.read_text(encoding="utf-8", errors="replace")


def _patterns(lines: Iterable[str]) -> Iterator[Pattern]:
    from pathspec import GitIgnoreSpec, RegexPattern

    for line in lines:
        try:
            found = GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:
            continue  # a line that is no pattern names nothing, as for Git
        for pattern in found:
            if (
                isinstance(pattern, RegexPattern)
                and pattern.regex is not None
                and pattern.include is not None
            ):
                # The one named group of pathspec's expressions is the slash at the end of a folder.
                yield pattern.regex, next(iter(pattern.regex.groupindex), None), pattern.include


def _last_word(files: Files, path: str) -> bool | None:
    for folder, patterns in reversed(files):
        inner = path[len(folder) :]
        bare = inner.removesuffix("/")
        for expression, mark, leaves_out in patterns:
            if mark is None:
                if expression.search(bare) is not None:
                    return leaves_out
            elif (found := expression.search(inner)) is not None and _names(found, mark, expression, inner):
                return leaves_out
    return None


def _names(found: re.Match[str], mark: str, expression: re.Pattern[str], path: str) -> bool:
    """
    Tell whether a pattern that matches names a path itself, and not just a folder above it.

    A path is looked at after the folders above it, whose own verdict it inherits. Git goes the same way;
    pathspec's match alone would let ``!keep/`` in a folder name again what another pattern leaves out there.
    """
    if path.endswith("/"):
        return any(each.end(mark) == len(path) for each in expression.finditer(path))
    return found.group(mark) is None
