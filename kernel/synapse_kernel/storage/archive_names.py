"""What the names and links of an archive may be: such that it stays in its target wherever it is."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_LINK = 4096
# A system follows so many links after another and gives up: those go round in a circle.
_MOST_HOPS = 40


def wrong_with(name: str) -> str | None:
    """Return why an entry cannot have a name, as the end of a sentence; None if it can."""
    if "\0" in name:
        return "holds a NUL character"
    if "\\" in name:
        return "holds a backslash, which separates folders on some systems"
    if name.startswith("/"):
        return "is absolute"
    if _DRIVE.match(name):
        return "begins with a drive letter"
    if ".." in name.split("/"):
        return "leads out of the folder with '..'"
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            return "is not valid UTF-8"
    return None


def wrong_with_link(target: str) -> str | None:
    """Return why a link cannot lead where it does, whatever is there; None if it can."""
    if not target or len(target) > _LONGEST_LINK:
        return "leads nowhere"
    inner = "/".join(part for part in target.split("/") if part != "..")
    return wrong_with(target if target.startswith("/") else inner or ".")


def links_out(links: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """
    Yield the links, of name to target, that lead out of the folder they are in, also by way of others.

    A link that goes round in a circle leads nowhere, and not out.
    """
    for name, target in links.items():
        if _leads_out(name, target, links):
            yield name, target


def _leads_out(name: str, target: str, links: Mapping[str, str]) -> bool:
    here = name.split("/")[:-1]
    waiting, hops = deque(target.split("/")), 0
    while waiting:
        part = waiting.popleft()
        if part in {"", "."}:
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        inner = links.get("/".join((*here, part)))
        if inner is None:
            here.append(part)
            continue
        hops += 1
        if hops > _MOST_HOPS:
            return False
        waiting.extendleft(reversed(inner.split("/")))
    return False


def collisions_in(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of names that are one where a file system ignores case or the form of accents."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if first != name:
            yield first, name
