"""Folders of the server: listed, made and taken away; links that leave the root are passed over."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, cast

import asyncssh

from synapse_kernel.storage.keys import join_key, name_of, parent_key
from synapse_kernel.storage.local_trees import check_text, is_part
from synapse_kernel.storage.providers import Entry
from synapse_plugins.storage.sftp.explaining import NOT_THERE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from synapse_plugins.storage.sftp.sessions import Session

PAGE = 1000
"""How many names are handed over at once."""

_FOLDER = asyncssh.FILEXFER_TYPE_DIRECTORY
_LINK = asyncssh.FILEXFER_TYPE_SYMLINK
_UNKNOWN = asyncssh.FILEXFER_TYPE_UNKNOWN


class Scan:
    """A folder that is being listed, page by page."""

    def __init__(self, folder: str, above: frozenset[str] = frozenset()) -> None:
        self.folder = folder
        self._above = above
        self._inner: dict[str, frozenset[str]] = {}
        # Who stops it does not wait for the page that is under way.
        self._one_at_a_time = asyncio.Lock()
        self._names: AsyncGenerator[asyncssh.SFTPName, None] | None = None

    async def page(self, session: Session) -> tuple[list[Entry], bool]:
        """Return the next entries, and whether that was all; the root is there even if nobody wrote to it."""
        async with self._one_at_a_time:
            return await self._next(session)

    def inner(self, folder: str) -> Scan:
        """Return the scan of a folder that was found in this one."""
        return Scan(folder, self._inner.get(folder, self._above))

    async def _next(self, session: Session) -> tuple[list[Entry], bool]:
        if self._names is None:
            await session.real_folder(self.folder)
            names = session.client.scandir(session.path(self.folder))
            self._names = cast("AsyncGenerator[asyncssh.SFTPName, None]", names)
        found: list[tuple[str, asyncssh.SFTPAttrs]] = []
        try:
            async for name in self._names:
                text = str(name.filename)
                if text not in {".", ".."} and not is_part(text):
                    check_text(text, session.path(self.folder), "list")
                    found.append((join_key(self.folder, text), name.attrs))
                if len(found) == PAGE:
                    break
        except NOT_THERE:
            if self.folder:
                raise
        return await self._entries(session, found), len(found) < PAGE

    async def _entries(self, session: Session, found: list[tuple[str, asyncssh.SFTPAttrs]]) -> list[Entry]:
        unclear = [key for key, attrs in found if attrs.type in {_LINK, _UNKNOWN}]
        meant = dict(
            zip(unclear, await asyncio.gather(*(self._led_to(session, key) for key in unclear)), strict=True)
        )
        entries = [meant[key] if key in meant else entry_of(key, attrs) for key, attrs in found]
        return [entry for entry in entries if entry is not None]

    async def _led_to(self, session: Session, key: str) -> Entry | None:
        """Return the end of a link; None where that is nothing, out of the root, or a folder above it."""
        path = session.path(key)
        try:
            real, here, attrs = await asyncio.gather(
                session.client.realpath(path),
                session.client.realpath(session.path(self.folder)),
                session.client.stat(path),
            )
        except (*NOT_THERE, asyncssh.SFTPFailure):
            return None
        entry = entry_of(key, attrs)
        above = self._above | {here}
        if not session.is_inside(real) or any(f"{one}/".startswith(f"{real}/") for one in above):
            return None
        if entry.is_folder:
            self._inner[key] = above
        return entry

    async def close(self, session: Session) -> None:
        """Stop before its end."""
        del session
        async with self._one_at_a_time:
            if self._names is not None:
                await self._names.aclose()


def entry_of(key: str, attrs: asyncssh.SFTPAttrs) -> Entry:
    """Return an entry with what the server tells."""
    modified = None if attrs.mtime is None else float(attrs.mtime)
    if attrs.type == _FOLDER:
        return Entry(key=key, modified=modified, is_folder=True)
    return Entry(key=key, size=attrs.size or 0, modified=modified)


async def stat(session: Session, key: str) -> Entry:
    """Return the entry of a key, that of its end for a link; raises for one that leaves the root."""
    if not key:
        return await _stat_root(session)
    await session.real_folder(parent_key(key))
    path = session.path(key)
    attrs = await session.client.lstat(path)
    if attrs.type == _LINK:
        session.check_inside(await session.client.realpath(path))
        attrs = await session.client.stat(path)
    return entry_of(key, attrs)


async def _stat_root(session: Session) -> Entry:
    try:
        return entry_of("", await session.client.stat(session.root))
    except NOT_THERE:
        # It is there even if nobody wrote to it yet.
        return Entry(key="", is_folder=True)


async def place_of(session: Session, key: str) -> str:
    """Return the path that a key is written to, its folder made: where it is a link, that of its end."""
    folder = parent_key(key)
    await make_folder(session, folder)
    path = session.path(key)
    try:
        real = await session.client.realpath(path)
    except NOT_THERE:
        # Somebody deleted the folder, which was there a while ago.
        session.forget_folders()
        await make_folder(session, folder)
        return path
    here = await session.real_folder(folder)
    if here is None or real == f"{here.rstrip('/')}/{name_of(key)}":
        return path
    session.check_inside(real)
    return real


async def make_folder(session: Session, folder: str) -> None:
    """Make a folder and those above it; raises `NotADirectoryError` where a file stands."""
    if folder in session.made:
        return
    if folder:
        await session.real_folder(parent_key(folder))
        await _make(session, folder)
    else:
        await session.client.makedirs(session.root, exist_ok=True)
    session.made.add(folder)


async def _make(session: Session, folder: str) -> None:
    try:
        await _make_one(session, folder)
    except NOT_THERE:
        above = parent_key(folder)
        if await _is_file(session, above):
            raise NotADirectoryError(folder) from None
        # It may have been there a while ago.
        session.forget_folders()
        await make_folder(session, above)
        await _make_one(session, folder)


async def _make_one(session: Session, folder: str) -> None:
    try:
        await session.client.mkdir(session.path(folder))
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists, asyncssh.SFTPPermissionDenied):
        if await _is_file(session, folder):
            raise NotADirectoryError(folder) from None
        if not await _is_folder(session, folder):
            raise


async def _is_folder(session: Session, key: str) -> bool:
    try:
        return (await stat(session, key)).is_folder
    except NOT_THERE:
        return False


async def _is_file(session: Session, key: str) -> bool:
    try:
        return not (await stat(session, key)).is_folder
    except NOT_THERE:
        return False


async def deletable(session: Session, folder: str) -> tuple[list[str], list[str]]:
    """Return the keys of the files and links in a folder, and those of the folders: no link is followed."""
    await session.real_folder(parent_key(folder))
    path = session.path(folder)
    if folder and (await session.client.lstat(path)).type == _LINK:
        await session.real_folder(folder)
        return [], []
    files: list[str] = []
    inner: list[str] = []
    try:
        async for name in session.client.scandir(path):
            text = str(name.filename)
            if text not in {".", ".."}:
                (inner if name.attrs.type == _FOLDER else files).append(join_key(folder, text))
    except NOT_THERE:
        if folder:
            raise
    return files, inner


async def delete_files(session: Session, keys: Sequence[str]) -> None:
    """Delete files, or links; one that is not there is passed over."""

    async def delete(key: str) -> None:
        await session.real_folder(parent_key(key))
        try:
            await session.client.remove(session.path(key))
        except NOT_THERE:
            return

    await asyncio.gather(*(delete(key) for key in keys))


async def delete_folder(session: Session, key: str) -> None:
    """Delete an empty folder, and the empty ones below it; where it is a link, the link."""
    session.forget_folders()
    path = session.path(key)
    await session.real_folder(parent_key(key))
    try:
        is_link = (await session.client.lstat(path)).type == _LINK
    except NOT_THERE:
        return
    if is_link:
        await session.real_folder(key)
        await session.client.remove(path)
        return
    _, inner = await deletable(session, key)
    for folder in inner:
        await delete_folder(session, folder)
    try:
        await session.client.rmdir(path)
    except (asyncssh.SFTPFailure, asyncssh.SFTPDirNotEmpty):
        raise OSError(errno.ENOTEMPTY, "the folder is not empty") from None
