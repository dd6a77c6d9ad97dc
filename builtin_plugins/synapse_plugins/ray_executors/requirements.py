"""
Requirements files, made into lines that mean the same on another machine.

Files that they include are put in their place, comments go, and relative paths become absolute. Options are
kept, and so are ``${VARIABLES}``: the installer fills them in where it runs, so that no password is copied.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMENT = re.compile(r"(^|\s+)#.*$")
# A comment goes on on no other line.
_CONTINUED = re.compile(r"^(?!\s*#)(.*)\\\r?\n", re.MULTILINE)
_OPTION = re.compile(
    r"(?P<name>-[rcfe]|--(?:requirement|constraint|find-links|editable))(?:\s*=\s*|\s+|(?<=-[rcfe])(?=\S))(?P<value>.+)"
)
_SHORT = {"-r": "--requirement", "-c": "--constraint", "-f": "--find-links", "-e": "--editable"}
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What a requirements file asks for; `files` are those that were read, to see when they change."""

    lines: list[str] = []
    wheels: list[str] = []
    """Wheels that lie in the folder itself, relative to it: they travel with it."""
    files: list[str] = []


def read_requirements(file: Path, folder: Path) -> Requirements:
    """
    Read a requirements file that belongs to a folder; one that is not there asks for nothing.

    Raises `UsageError` for an included file that cannot be read, naming the line.
    """
    if not file.is_file():
        return Requirements()
    files: list[str] = []
    lines: list[str] = []
    wheels: list[str] = []
    for where, line in _lines(file, files):
        option = _OPTION.fullmatch(line)
        if option is None:
            wheel = _own_wheel(line, where.parent, folder)
            if wheel is None:
                lines.append(_absolute_requirement(line, where.parent))
            else:
                wheels.append(wheel)
            continue
        name = _SHORT.get(option["name"], option["name"])
        value = " ".join(shlex.split(option["value"])) if option["value"][0] in "\"'" else option["value"]
        if name == "--requirement":
            # A URL; Ray takes a line that begins with the option for a file of this machine.
            lines.append(f" {name} {value}")
            continue
        lines.append(f"{name} {_absolute(value, where.parent)}")
        if name == "--constraint" and not _HAS_SCHEME.match(value):
            constraints = where.parent / value
            files.append(str(constraints))
            # A comment that changes with the file: an environment is known by its lines.
            lines.append(f"# {hashlib.sha256(_read(constraints, where).encode()).hexdigest()}")
    asks = any(not line.lstrip().startswith(("-", "#")) or _asks(line) for line in lines)
    return Requirements(lines=lines if asks else [], wheels=wheels, files=files)


def _asks(line: str) -> bool:
    return line.lstrip().startswith(("--editable", "--requirement"))


def _lines(file: Path, files: list[str], asked: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the lines of a file and of those it includes, each with the file it is in."""
    if str(file) in files:
        return
    files.append(str(file))
    text = _read(file, asked or file)
    for raw in _CONTINUED.sub(r"\1", text).splitlines():
        line = _COMMENT.sub("", raw).strip()
        option = _OPTION.fullmatch(line)
        if option is not None and _SHORT.get(option["name"], option["name"]) == "--requirement":
            value = option["value"].strip("\"'")
            if not _HAS_SCHEME.match(value):
                yield from _lines(Path(os.path.normpath(file.parent / value)), files, file)
                continue
        if line:
            yield file, line


def _read(file: Path, asked: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        by = "" if asked == file else f", which {asked} names"
        raise UsageError(f"The requirements file {file}{by}, cannot be read: {reason}") from None


def _own_wheel(line: str, beside: Path, folder: Path) -> str | None:
    """Return the path in the folder of a wheel that a line names, and nothing besides."""
    named = Path(os.path.normpath(beside / line))
    if line.endswith(".whl") and named.is_file() and named.is_relative_to(folder):
        return named.relative_to(folder).as_posix()
    return None


def _absolute_requirement(line: str, beside: Path) -> str:
    path, space, rest = line.partition(" ")
    is_path = path.startswith(("./", "../")) or path == "." or path.endswith((".whl", ".tar.gz", ".zip"))
    return f"{_absolute(path, beside)}{space}{rest}" if is_path else line


def _absolute(value: str, beside: Path) -> str:
    if _HAS_SCHEME.match(value) or value.startswith(("/", "$", "~")):
        return value
    return os.path.normpath(beside / value)
