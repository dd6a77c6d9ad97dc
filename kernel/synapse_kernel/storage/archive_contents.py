"""What goes into an archive: the files of a local folder, or of one in a storage, that are not left out."""

from __future__ import annotations

import io
import os
import stat
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from synapse_kernel.errors import MissingPackageError
from synapse_kernel.ignoring import IgnoreRules, never_packed, rules_above, rules_of, text_of
from synapse_kernel.storage.archive_formats import INSTALL, ArchiveError
from synapse_kernel.storage.archive_names import links_out, wrong_with, wrong_with_link
from synapse_kernel.storage.checksums import open_to_read_on
from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.keys import clean_key, key_below
from synapse_kernel.storage.providers import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO, TypeAlias

    from pathspec import GitIgnoreSpec

    from synapse_kernel.storage.storage import Storage

    Contents: TypeAlias = Iterator[tuple["Item", BinaryIO | None]]

_AHEAD = 1 << 20
"""Files of a storage up to this size in bytes are read while others are written."""
_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
_LEAVE_OUT = "leave it out with exclude= or an ignore file"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A file, link or empty folder that goes into an archive."""

    name: str
    """Relative to the folder that is packed, with slashes."""
    size: int = 0
    """In bytes."""
    is_folder: bool = False
    executable: bool = False
    link: str | None = None
    """Where it leads, from its own folder, if it is a link."""
    entry: Entry | None = None
    """What it is in its storage, if it comes from one."""


class Folder(Protocol):
    """A folder that can be packed."""

    def rules_above(self) -> tuple[str, IgnoreRules]:
        """Return its place below the ignore files above it, and these."""

    def ignore_text(self, name: str) -> str | None:
        """Return the text of an ignore file in it, or None."""

    def listing(self, inside: str) -> Sequence[tuple[str, bool]]:
        """Return the names in a folder of it, each with whether it is a folder too, in order."""

    def item(self, name: str) -> Item:
        """Return a file or link of it; raises `ArchiveError` for what no archive holds."""

    def contents(self, items: Sequence[Item]) -> AbstractContextManager[Contents]:
        """Give each item with its content, open until the next is asked for; None for folders and links."""


class Choice:
    """What of a folder is wanted: by ignore files, and by patterns that are written like theirs."""

    def __init__(self, *, ignore: bool, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self.ignore = ignore
        self._include = _patterns(include, "include")
        self._exclude = _patterns(exclude, "exclude")

    def wants(self, name: str, *, ignored: bool) -> bool:
        """Tell whether a file, a link, or an empty folder with a slash at its end is wanted."""
        if ignored or self._excludes(name):
            return False
        return self._include is None or self._include.match_file(name)

    def enters(self, folder: str, rules: IgnoreRules, *, ignored: bool) -> bool:
        """Tell whether something in a folder may be wanted."""
        return (not ignored or rules.rescues) and not self._excludes(folder)

    def never(self, name: str, *, is_folder: bool) -> bool:
        """Tell whether something is left out for its name alone."""
        return self.ignore and never_packed(name, is_folder=is_folder)

    def rules(self, folder: Folder, rules: IgnoreRules, place: str, inside: str) -> IgnoreRules:
        """Return the rules that count in a folder, its own ignore files with them."""
        if not self.ignore:
            return rules
        try:
            return rules_of(rules, place + inside, lambda name: folder.ignore_text(inside + name))
        except ImportError as error:
            raise _missing_pathspec("ignore files") from error

    def _excludes(self, name: str) -> bool:
        return self._exclude is not None and self._exclude.match_file(name)


class _Waiting(msgspec.Struct, frozen=True):
    inside: str
    rules: IgnoreRules
    ignored: bool


def items_of(folder: Folder, choice: Choice) -> list[Item]:
    """Return what of a folder is wanted, in an order that depends on the names alone."""
    place, above = _above(folder, choice)
    found: list[Item] = []
    # No recursion: folders nest as deep as the system lets them.
    waiting: list[_Waiting | str] = [_Waiting("", above, False)]
    while waiting:
        here = waiting.pop()
        if isinstance(here, str):
            found.append(folder.item(here))
            continue
        listing = folder.listing(here.inside)
        rules = choice.rules(folder, here.rules, place, here.inside)
        if not listing and here.inside and choice.wants(here.inside, ignored=here.ignored):
            _check_name(here.inside)
            found.append(Item(name=here.inside.rstrip("/"), is_folder=True))
        for name, is_folder in reversed(listing):
            if choice.never(name, is_folder=is_folder):
                continue
            inner = f"{here.inside}{name}/" if is_folder else f"{here.inside}{name}"
            ignored = rules.ignores(place + inner, inherited=here.ignored)
            if not is_folder and choice.wants(inner, ignored=ignored):
                waiting.append(inner)
            elif is_folder and choice.enters(inner, rules, ignored=ignored):
                waiting.append(_Waiting(inner, rules, ignored))
    _check_links(found)
    return found


def would_take(folder: Folder, choice: Choice, name: str) -> bool:
    """Tell whether a file of this name would be among the items, were it there."""
    place, rules = _above(folder, choice)
    inside, ignored = "", False
    *folders, last = name.split("/")
    for part in folders:
        rules = choice.rules(folder, rules, place, inside)
        inside += f"{part}/"
        ignored = rules.ignores(place + inside, inherited=ignored)
        if choice.never(part, is_folder=True) or not choice.enters(inside, rules, ignored=ignored):
            return False
    rules = choice.rules(folder, rules, place, inside)
    ignored = rules.ignores(place + name, inherited=ignored)
    return not choice.never(last, is_folder=False) and choice.wants(name, ignored=ignored)


class LocalFolder:
    """A folder of this machine; a link in it is kept as a link."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rules_above(self) -> tuple[str, IgnoreRules]:
        """Return its place in its Git repository, and the rules of the folders above it there."""
        return rules_above(self.path)

    def ignore_text(self, name: str) -> str | None:
        """Return the text of an ignore file."""
        return text_of(self.path / name)

    def listing(self, inside: str) -> Sequence[tuple[str, bool]]:
        """Return the names in a folder."""
        with os.scandir(self.path / inside) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)

    def item(self, name: str) -> Item:
        """Return a file or link; raises `ArchiveError` for a socket, a named pipe or a device."""
        _check_name(name)
        path = self.path / name
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            return Item(name=name, link=os.readlink(path))  # noqa: PTH115 - as it is written
        if kind != stat.S_IFREG:
            raise ArchiveError(
                f"{name!r} is {_KINDS.get(kind, 'no file')}, which no archive holds: {_LEAVE_OUT}"
            )
        return Item(name=name, size=status.st_size, executable=bool(status.st_mode & 0o100))

    @contextmanager
    def contents(self, items: Sequence[Item]) -> Iterator[Contents]:
        """Give each item with its content."""

        def each() -> Contents:
            for item in items:
                if item.is_folder or item.link is not None:
                    yield item, None
                    continue
                with (self.path / item.name).open("rb") as file:
                    before = os.fstat(file.fileno())
                    yield item, file
                    after = os.fstat(file.fileno())
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise changed(item.name)

        yield each()


class StoredFolder:
    """A folder of a storage, listed once; its files are read as they are packed."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        key = clean_key(key, provider=storage.provider.name, operation="create_archive")
        if not storage.info(key).is_folder:
            raise StorageConfigError(
                "an archive is made of a folder, and this is a file",
                provider=storage.provider.name,
                operation="create_archive",
                key=key,
            )
        self._entries = {key_below(each.key, key): each for each in storage.list(key, recursive=True)}
        self._folders: dict[str, dict[str, bool]] = {"": {}}
        for name in self._entries:
            self._place(name)

    def rules_above(self) -> tuple[str, IgnoreRules]:
        """Return none: what lies above it in the storage is not its own."""
        return "", IgnoreRules()

    def ignore_text(self, name: str) -> str | None:
        """Return the text of an ignore file."""
        entry = self._entries.get(name)
        return None if entry is None else self._storage.read_bytes(entry.key).decode(errors="replace")

    def listing(self, inside: str) -> Sequence[tuple[str, bool]]:
        """Return the names in a folder."""
        return sorted(self._folders[inside].items())

    def item(self, name: str) -> Item:
        """Return a file."""
        _check_name(name)
        entry = self._entries[name]
        return Item(name=name, size=entry.size or 0, entry=entry)

    @contextmanager
    def contents(self, items: Sequence[Item]) -> Iterator[Contents]:
        """Give each item with its content; the next small ones are on their way meanwhile."""
        from concurrent.futures import ThreadPoolExecutor

        limit = max(1, self._storage.provider.concurrency)
        pool = ThreadPoolExecutor(limit, thread_name_prefix="synapse-archive")

        def each() -> Contents:
            coming: deque[tuple[Item, Future[bytes] | None]] = deque()
            for item in [*items, None]:
                if item is not None:
                    key = cast("Entry", item.entry).key
                    small = item.size <= _AHEAD
                    coming.append((item, pool.submit(self._storage.read_bytes, key) if small else None))
                while coming and (item is None or len(coming) > limit):
                    ready, data = coming.popleft()
                    with self._opened(ready, data) as file:
                        yield ready, file

        try:
            yield each()
        finally:
            pool.shutdown(cancel_futures=True)

    def _opened(self, item: Item, data: Future[bytes] | None) -> BinaryIO:
        if data is not None:
            return io.BytesIO(data.result())
        return open_to_read_on(self._storage, cast("Entry", item.entry).key)

    def _place(self, name: str) -> None:
        folder, _, last = name.rpartition("/")
        self._folders.setdefault(f"{folder}/" if folder else "", {})[last] = False
        while folder:
            folder, _, last = folder.rpartition("/")
            above = self._folders.setdefault(f"{folder}/" if folder else "", {})
            if last in above:
                return
            above[last] = True


def changed(name: str) -> ArchiveError:
    """Return the error for a file that is not what it was."""
    return ArchiveError(f"{name!r} changed while it was read: let its writer finish, and try again")


def _above(folder: Folder, choice: Choice) -> tuple[str, IgnoreRules]:
    if not choice.ignore:
        return "", IgnoreRules()
    try:
        return folder.rules_above()
    except ImportError as error:
        raise _missing_pathspec("ignore files") from error


def _patterns(patterns: Sequence[str], what: str) -> GitIgnoreSpec | None:
    if isinstance(patterns, str):
        patterns = [patterns]
    if not patterns:
        return None
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as error:
        raise _missing_pathspec(f"{what}=") from error
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise StorageConfigError(f"{what}= has a pattern that cannot be used: {error}") from None


def _missing_pathspec(what: str) -> MissingPackageError:
    return MissingPackageError("Archive option", what, "pathspec", INSTALL)


def _check_name(name: str) -> None:
    wrong = wrong_with(name)
    if wrong is not None:
        raise ArchiveError(
            f"the name {name!r} {wrong}, and could not be unpacked everywhere: rename it, or {_LEAVE_OUT}"
        )


def _check_links(items: Sequence[Item]) -> None:
    links = {item.name: item.link for item in items if item.link is not None}
    wrong = next(
        ((name, target, why) for name, target in links.items() if (why := wrong_with_link(target))), None
    )
    if wrong is None:
        wrong = next(((*each, "leads out of the folder") for each in links_out(links)), None)
    if wrong is not None:
        name, target, why = wrong
        raise ArchiveError(
            f"the link {name!r} -> {target!r} {why}, and would lead elsewhere where it is unpacked: make it "
            f"a relative one to something in the folder, or {_LEAVE_OUT}"
        )
