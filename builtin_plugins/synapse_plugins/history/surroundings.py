"""What a run is recorded with besides itself: the git commit around its code, and what is installed."""

from __future__ import annotations

import os
import sys
import zlib
from functools import lru_cache
from pathlib import Path
from time import monotonic

from synapse_kernel.stores import Environment

# The nodes of a pipeline start within moments of each other: one look serves them all.
_SAME_MOMENT_SECONDS = 1.0
# What an installed distribution has beside its code: a folder named for it and its version.
_DISTRIBUTIONS = (".dist-info", ".egg-info")

_commits: dict[str, tuple[float, str | None]] = {}


def commit_of(folder: str) -> str | None:
    """Return the commit that is checked out around a folder, or None outside of a git repository."""
    known = _commits.get(folder)
    if known is not None and monotonic() - known[0] < _SAME_MOMENT_SECONDS:
        return known[1]
    place = _repository(folder)
    # A process for each run would cost more than all else that is recorded: the files are read.
    found = None if place is None else _head(place) or _asked(folder)
    _commits[folder] = monotonic(), found
    return found


@lru_cache(maxsize=64)
def _repository(folder: str) -> Path | None:
    for place in (Path(folder), *Path(folder).parents):
        found = place / ".git"
        # Not `Path.is_dir`, which raises where a folder above may not be searched.
        if os.path.isdir(found):  # noqa: PTH112
            return found
        # A worktree or submodule: one line that says where the repository's folder is.
        named = _text(found)
        if named is not None:
            return place / named.removeprefix("gitdir:").strip()
    return None


def _head(repository: Path) -> str | None:
    """Read HEAD and the branch that it names, where they are plain files."""
    head = _text(repository / "HEAD")
    if head is None or not head.startswith("ref:"):
        return _as_commit(head)
    branch = head.removeprefix("ref:").strip()
    common = _text(repository / "commondir")
    shared = repository / common if common else repository
    for place in (repository, shared):
        found = _as_commit(_text(place / branch))
        if found:
            return found
    for line in (_text(shared / "packed-refs") or "").splitlines():
        commit, _, name = line.partition(" ")
        if name == branch:
            return _as_commit(commit)
    return None


def _as_commit(text: str | None) -> str | None:
    if text and len(text) in {40, 64} and set(text) <= set("0123456789abcdef"):
        return text
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # a name that no file can have
        return None


@lru_cache(maxsize=64)
def _asked(folder: str) -> str | None:
    import subprocess

    try:
        said = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _as_commit(said.stdout.strip())


@lru_cache(maxsize=1)
def environment_id() -> str:
    """
    Return an id that changes with the interpreter and with what is installed for it.

    Installing or removing anything touches its folder, and changes the names there, which hold the versions:
    they are looked at, not every distribution. The times alone would not do: images for many machines set
    them all alike.
    """
    parts = [sys.version, sys.executable, _platform()]
    for entry in sys.path:
        if os.path.basename(entry) in {"site-packages", "dist-packages"}:  # noqa: PTH119 - on the way of each run
            try:
                parts.append(f"{entry} {os.stat(entry).st_mtime_ns}")  # noqa: PTH116
                parts += sorted(name for name in os.listdir(entry) if name.endswith(_DISTRIBUTIONS))  # noqa: PTH208
            except OSError:
                continue
    return _checksum(os.fsencode("\n".join(parts)))


def _checksum(data: bytes) -> str:
    """
    Return 64 bits of checksum.

    From what is there already: to import hashlib costs as much as to record a run. Read backwards, the
    checksum is that of another polynomial, so that the two together are one of 64 bits; with another start
    value alone it would tell nothing more.
    """
    return f"{zlib.crc32(data):08x}{zlib.crc32(data[::-1]):08x}"


def environment_of(environment: str) -> Environment:
    """Describe this process's environment under an id; takes tens of milliseconds."""
    from importlib.metadata import distributions

    packages = {d.name: d.version for d in distributions() if d.name}
    version = sys.version_info
    return Environment(
        id=environment,
        python=f"{version.major}.{version.minor}.{version.micro}",
        platform=_platform(),
        packages=dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    )


def _platform() -> str:
    system = os.uname()
    return f"{system.sysname}-{system.release}-{system.machine}"
