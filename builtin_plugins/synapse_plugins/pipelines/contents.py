"""
The content of files and folders as a hash, each file read once a process as long as it does not change.

What cannot be read is never the same twice.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time

# A file this young may change again without a change of its times: by the clock tick of its system, or by
# the second where the times hold no fractions.
_TICK_SECONDS = 0.1
_COARSE_SECONDS = 2.0
_MOST_KEPT = 100_000
_kept: dict[tuple[int, ...], bytes] = {}


def content_hash(path: str | os.PathLike[str]) -> str | None:
    """
    Return a hash of what is at a path, or None if nothing is.

    A folder counts by the names and contents of all that is in it, at any depth, by way of links too.
    """
    try:
        return _hash_of(os.fspath(path), ()).hex()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return None
    except OSError:
        return os.urandom(20).hex()


def add_texts(digest: hashlib.blake2b, *texts: str | bytes) -> None:
    """Add texts to a hash, each with its length, so that no two lists of them run together alike."""
    for text in texts:
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        digest.update(b"%d:" % len(data))
        digest.update(data)


def _hash_of(path: str, around: tuple[tuple[int, int], ...]) -> bytes:
    """Hash a file or a folder; `around` are the folders on the way, in which a link may lead back."""
    status = os.stat(path)  # noqa: PTH116 - a folder may hold a million
    if stat.S_ISREG(status.st_mode):
        return _file_hash(path)
    if not stat.S_ISDIR(status.st_mode):
        # A pipe or a device: to read it may never end.
        return os.urandom(20)
    here = (status.st_dev, status.st_ino)
    if here in around:
        return b"loop %d" % around.index(here)
    digest = hashlib.blake2b(b"folder", digest_size=20)
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208
    except OSError:
        return os.urandom(20)
    for name in names:
        inner = os.path.join(path, name)  # noqa: PTH118
        try:
            found = _hash_of(inner, (*around, here))
        except OSError:
            found = _link_text(inner)
        add_texts(digest, name, found)
    return digest.digest()


def _link_text(path: str) -> bytes:
    """Stand for what cannot be read: a link that leads nowhere by its text, else never the same."""
    try:
        return os.fsencode(os.readlink(path))  # noqa: PTH115
    except OSError:
        return os.urandom(20)


def _file_hash(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = _kept.get(key)
            if known is not None:
                return known
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).digest()
    except OSError:
        return os.urandom(20)
    settled = _COARSE_SECONDS if status.st_mtime_ns % 1_000_000_000 == 0 else _TICK_SECONDS
    if time.time() - max(status.st_mtime, status.st_ctime) > settled:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[key] = found
    return found
