"""Folders of the server: listed, made and taken away; links that leave the root are passed over."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, cast

import asyncssh

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.keys import join_key, name_of, parent_key
from synapse_kernel.storage.providers import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from synapse_plugins.storage.sftp.sessions import Session

PAGE = 1000
"""How many names are handed over at once."""
TEMPORARY = re.compile(r"\.synapse-[0-9a-f]{16}\.part")

_FOLDER = asyncssh.FILEXFER_TYPE_DIRECTORY
_LINK = asyncssh.FILEXFER_TYPE_SYMLINK
_UNKNOWN = asyncssh.FILEXFER_TYPE_UNKNOWN


class Scan:
    """A folder that is being listed, page by page."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.links: set[str] = set()
        """Keys of the folders found that are links."""
        # Who stops it does not wait for the page that is under way.
        self._one_at_a_time = asyncio.Lock()
        self._names: AsyncGenerator[asyncssh.SFTPName, None] | None = None

    async def page(self, session: Session) -> tuple[list[Entry], bool]:
        """Return the next entries, and whether that was all."""
        async with self._one_at_a_time:
            return await self._next(session)

    async def _next(self, session: Session) -> tuple[list[Entry], bool]:
        if self._names is None:
            await session.real_folder(self.folder)
            names = session.client.scandir(session.path(self.folder))
            self._names = cast("AsyncGenerator[asyncssh.SFTPName, None]", names)
        found: list[tuple[str, asyncssh.SFTPAttrs]] = []
        async for name in self._names:
            text = str(name.filename)
            if text in {".", ".."} or TEMPORARY.fullmatch(text):
                continue
            found.append((self._key(text), name.attrs))
            if len(found) == PAGE:
                break
        return await self._entries(session, found), len(found) < PAGE

    async def _entries(self, session: Session, found: list[tuple[str, asyncssh.SFTPAttrs]]) -> list[Entry]:
        unclear = [key for key, attrs in found if attrs.type in {_LINK, _UNKNOWN}]
        answers = await asyncio.gather(*(resolved(session, key) for key in unclear))
        meant = dict(zip(unclear, answers, strict=True))
        entries = []
        for key, attrs in found:
            if key not in meant:
                entries.append(entry_of(key, attrs))
            elif (answer := meant[key]) is not None:
                entries.append(answer[0])
                if answer[1]:
                    self.links.add(key)
        return entries

    def _key(self, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise StorageConfigError(
                f"the name {name!r} in it is not valid UTF-8, and cannot be a key: rename it there"
            ) from None
        return join_key(self.folder, name)

    async def close(self, session: Session) -> None:
        """Stop before its end."""
        del session
        async with self._one_at_a_time:
            if self._names is not None:
                await self._names.aclose()


async def resolved(session: Session, key: str) -> tuple[Entry, bool] | None:
    """
    Return what a key leads to that may be a link, and whether it is a link to a folder.

    None where that is nothing, out of the root, or a folder that it is in.
    """
    path = session.path(key)
    try:
        real, here = await asyncio.gather(
            session.client.realpath(path), session.client.realpath(session.path(parent_key(key)))
        )
        attrs = await session.client.stat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPFailure):
        return None
    if not session.is_inside(real) or f"{here}/".startswith(f"{real}/"):
        return None
    entry = entry_of(key, attrs)
    return entry, entry.is_folder and real != f"{here.rstrip('/')}/{name_of(key)}"


def entry_of(key: str, attrs: asyncssh.SFTPAttrs) -> Entry:
    """Return an entry with what the server tells."""
    modified = None if attrs.mtime is None else float(attrs.mtime)
    if attrs.type == _FOLDER:
        return Entry(key=key, modified=modified, is_folder=True)
    return Entry(key=key, size=attrs.size or 0, modified=modified)


async def stat(session: Session, key: str) -> Entry:
    """Return the entry of a key, that of its end for a link; raises for one that leaves the root."""
    if key:
        await session.real_folder(parent_key(key))
    path = session.path(key)
    attrs = await session.client.lstat(path)
    if attrs.type == _LINK:
        if key:
            session.check_inside(await session.client.realpath(path))
        attrs = await session.client.stat(path)
    return entry_of(key, attrs)


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
    path = session.path(folder)
    try:
        await session.client.mkdir(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        above = parent_key(folder)
        if not folder or await _is_file(session, above):
            raise NotADirectoryError(folder) from None
        await make_folder(session, above)
        await session.client.mkdir(path)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists, asyncssh.SFTPPermissionDenied):
        if (await stat(session, folder)).is_folder:
            return
        raise NotADirectoryError(folder) from None


async def _is_file(session: Session, key: str) -> bool:
    try:
        return not (await stat(session, key)).is_folder
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return False


async def delete_files(session: Session, keys: Sequence[str]) -> None:
    """Delete files, or links; one that is not there is passed over."""

    async def delete(key: str) -> None:
        await session.real_folder(parent_key(key))
        try:
            await session.client.remove(session.path(key))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return

    await asyncio.gather(*(delete(key) for key in keys))


async def delete_folder(session: Session, key: str) -> None:
    """Delete a folder that holds no files, with the folders below it, and the links that were not listed."""
    session.forget_folders()
    await session.real_folder(parent_key(key))
    path = session.path(key)
    try:
        attrs = await session.client.lstat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return
    if attrs.type == _LINK:
        await session.client.remove(path)
        return
    for name in await session.client.readdir(path):
        text = str(name.filename)
        if text in {".", ".."}:
            continue
        inner = join_key(key, text)
        if name.attrs.type == _FOLDER:
            await delete_folder(session, inner)
        elif TEMPORARY.fullmatch(text) or (
            name.attrs.type == _LINK and not await _is_listed_file(session, inner)
        ):
            await session.client.remove(session.path(inner))
    try:
        await session.client.rmdir(path)
    except (asyncssh.SFTPFailure, asyncssh.SFTPDirNotEmpty) as error:
        raise OSError(f"the folder is not empty, or may not be deleted: {error.reason}") from None


async def _is_listed_file(session: Session, key: str) -> bool:
    answer = await resolved(session, key)
    return answer is not None and not answer[0].is_folder
