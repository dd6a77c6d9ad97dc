"""Contents of files on the server: read in pieces that are asked for ahead of their turn."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING

import asyncssh

from synapse_kernel.storage.errors import StorageIntegrityError
from synapse_kernel.storage.keys import parent_key
from synapse_plugins.storage.sftp.folders import entry_of
from synapse_plugins.storage.sftp.sessions import wait

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future
    from pathlib import Path

    from synapse_kernel.storage.providers import Entry, Told
    from synapse_plugins.storage.sftp.sessions import Session, Sessions

SMALL = 1 << 20
"""Files up to this size are read in one step."""
AHEAD = 8
"""How many pieces of one file are on their way at once."""


async def read_range(session: Session, entry: Entry, start: int, length: int) -> bytes:
    """Return a range of a file, less only at its end."""
    file = await _open(session, entry.key)
    try:
        data, attrs = await asyncio.gather(_read(session, file, start, length), file.stat())
    finally:
        session.later(file.close())
    _check_same(entry, attrs)
    return data


async def read_whole(session: Session, key: str) -> bytes:
    """Return the content of a file; raises `IsADirectoryError` for a folder."""
    file = await _open(session, key)
    try:
        real, attrs = await asyncio.gather(session.client.realpath(session.path(key)), file.stat())
        session.check_inside(real)
        entry = entry_of(key, attrs)
        if entry.is_folder:
            raise IsADirectoryError(key)
        return await _read(session, file, 0, entry.size or 0)
    finally:
        session.later(file.close())


def get_file(sessions: Sessions, entry: Entry, target: Path, told: Told) -> None:
    """Write a file's content to a local file, after what that holds already."""
    size = entry.size or 0
    with target.open("ab") as local:
        have = local.tell()
        if have > size:
            local.truncate(0)
            told(-have)
            have = 0
        if size - have <= SMALL:
            data = sessions.call(lambda session: read_range(session, entry, have, size - have))
            local.write(data)
            told(len(data))
            return
        with closing(_pieces(sessions, entry, have, size)) as pieces:
            for data in pieces:
                local.write(data)
                told(len(data))


def _pieces(sessions: Sessions, entry: Entry, start: int, end: int) -> Generator[bytes, None, None]:
    async def opened(session: Session) -> tuple[Session, asyncssh.SFTPClientFile]:
        return session, await _open(session, entry.key)

    session, file = sessions.call(opened)
    under_way: deque[Future[bytes]] = deque()

    def ask(at: int) -> int:
        length = min(session.read_chunk, end - at)
        under_way.append(sessions.start_in(session, lambda: _read(session, file, at, length)))
        return at + length

    async def finish() -> asyncssh.SFTPAttrs:
        return await file.stat()

    async def close() -> None:
        session.later(file.close())

    at = start
    try:
        while at < end or under_way:
            while at < end and len(under_way) < AHEAD:
                at = ask(at)
            yield wait(under_way.popleft())
        _check_same(entry, wait(sessions.start_in(session, finish)))
    finally:
        for future in under_way:
            future.cancel()
        sessions.start_in(session, close)


async def _open(session: Session, key: str) -> asyncssh.SFTPClientFile:
    await session.real_folder(parent_key(key))
    return await session.client.open(session.path(key), asyncssh.FXF_READ, encoding=None, block_size=0)


async def _read(session: Session, file: asyncssh.SFTPClientFile, start: int, length: int) -> bytes:
    """Return a range, in requests of the size that the server answers whole."""
    if length <= session.read_chunk:
        return await _read_piece(session, file, start, length)
    starts = range(start, start + length, session.read_chunk)
    pieces = await asyncio.gather(
        *(_read_piece(session, file, at, min(session.read_chunk, start + length - at)) for at in starts)
    )
    return b"".join(pieces)


async def _read_piece(session: Session, file: asyncssh.SFTPClientFile, start: int, length: int) -> bytes:
    data = await session.read(file, start, length)
    while len(data) < length:
        more = await session.read(file, start + len(data), length - len(data))
        if not more:
            break
        data += more
    return data


def _check_same(entry: Entry, attrs: asyncssh.SFTPAttrs) -> None:
    now = entry_of(entry.key, attrs)
    if (now.size, now.modified) != (entry.size, entry.modified):
        raise StorageIntegrityError("it changed while it was read: let its writer finish, and try again")
