"""Files written on the server: under a hidden name, which takes the place of the key when all is there."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from typing import TYPE_CHECKING

import asyncssh

from synapse_kernel.storage.errors import StorageError, StorageUploadError
from synapse_kernel.storage.keys import join_key, parent_key
from synapse_plugins.storage.sftp.explaining import LOST
from synapse_plugins.storage.sftp.folders import make_folder, stat
from synapse_plugins.storage.sftp.sessions import wait

if TYPE_CHECKING:
    from concurrent.futures import Future

    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source
    from synapse_plugins.storage.sftp.sessions import Session, Sessions

SMALL = 1 << 20
"""Files up to this size are written in one step."""
AHEAD = 8
"""How many pieces of one file are on their way at once."""
_TRIES = 4
_COPIED_AT_ONCE = 64 << 20


def put_file(sessions: Sessions, source: Source, key: str, told: Told) -> None:
    """Write a file whole or not at all."""
    temporary = temporary_beside(key)
    try:
        if source.size <= SMALL:
            with source.open() as content:
                data = content.read(source.size)
            sessions.call(lambda session: _write_small(session, temporary, data, source))
            told(len(data))
        else:
            _LargeFile(sessions, source, temporary, told).write()
        source.check()
        sessions.call(lambda session: _place(session, temporary, key))
    except BaseException as error:
        _discard(sessions, temporary, lost=isinstance(error, LOST))
        raise


def temporary_beside(key: str) -> str:
    """Return the key under which a file is written: in the same folder, hidden, and never listed."""
    return join_key(parent_key(key), f".synapse-{os.urandom(8).hex()}.part")


async def copy_file(session: Session, source: str, target: str) -> bool:
    """Copy a file within the server, whole or not at all; False if it cannot."""
    if not session.client.supports_remote_copy:
        return False
    entry = await stat(session, source)
    temporary = temporary_beside(target)
    try:
        read = await session.client.open(session.path(source), asyncssh.FXF_READ, block_size=0)
        async with read, await _create(session, temporary) as written:
            size = entry.size or 0
            for start in range(0, size, _COPIED_AT_ONCE):
                length = min(_COPIED_AT_ONCE, size - start)
                await session.client.remote_copy(read, written, start, length, start)
            await _finish(written, size, entry.modified)
        await _place(session, temporary, target)
    except BaseException:
        session.later(session.client.remove(session.path(temporary)))
        raise
    return True


async def move_file(session: Session, source: str, target: str) -> bool:
    """Move a file within the server."""
    await session.real_folder(parent_key(source))
    await make_folder(session, parent_key(target))
    await _place(session, source, target)
    return True


class _LargeFile:
    """A file that is sent piece by piece, and sent on after a connection that broke off."""

    def __init__(self, sessions: Sessions, source: Source, temporary: str, told: Told) -> None:
        self._sessions = sessions
        self._source = source
        self._temporary = temporary
        self._told = told
        self._sent = 0
        """How many bytes from the beginning the server has confirmed."""

    def write(self) -> None:
        failed = 0
        while True:
            before = self._sent
            try:
                self._write_on()
            except LOST:
                failed = 1 if self._sent > before else failed + 1
                if failed >= _TRIES:
                    raise
                time.sleep(0.1 * 2**failed)
            else:
                return

    def _write_on(self) -> None:
        session, file = self._sessions.call(self._open)
        under_way: deque[tuple[int, Future[None]]] = deque()

        def confirm() -> None:
            length, future = under_way.popleft()
            wait(future)
            self._sent += length
            self._told(length)

        try:
            with self._source.open() as content:
                content.seek(self._sent)
                at = self._sent
                while data := content.read(min(session.write_chunk, self._source.size - at)):
                    if len(under_way) >= AHEAD:
                        confirm()
                    under_way.append((len(data), self._send(session, file, data, at)))
                    at += len(data)
                while under_way:
                    confirm()
            wait(self._sessions.start_in(session, lambda: self._end(file)))
        except asyncssh.SFTPFailure:
            self._sessions.call(lambda session: _check_space(session, self._temporary, self._source.size))
            raise
        finally:
            for _, future in under_way:
                future.cancel()

    async def _open(self, session: Session) -> tuple[Session, asyncssh.SFTPClientFile]:
        if not self._sent:
            # What a broken connection left of it is begun anew.
            return session, await _create(session, self._temporary, asyncssh.FXF_TRUNC)
        path = session.path(self._temporary)
        return session, await session.client.open(path, asyncssh.FXF_WRITE, block_size=0)

    def _send(self, session: Session, file: asyncssh.SFTPClientFile, data: bytes, at: int) -> Future[None]:
        return self._sessions.start_in(session, lambda: session.write(file, at, data))

    async def _end(self, file: asyncssh.SFTPClientFile) -> None:
        await _finish(file, self._source.size, self._source.modified)
        await file.close()


async def _write_small(session: Session, temporary: str, data: bytes, source: Source) -> None:
    file = await _create(session, temporary)
    try:
        for start in range(0, len(data), session.write_chunk):
            piece = data[start : start + session.write_chunk]
            await session.write(file, start, piece)
        await _finish(file, len(data), source.modified)
        await file.close()
    except asyncssh.SFTPFailure:
        await _check_space(session, temporary, len(data))
        raise


async def _create(
    session: Session, temporary: str, flags: int = asyncssh.FXF_EXCL
) -> asyncssh.SFTPClientFile:
    folder = parent_key(temporary)
    new = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | flags
    await make_folder(session, folder)
    try:
        return await session.client.open(session.path(temporary), new, block_size=0)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        # Somebody deleted the folder, which was there a while ago.
        session.forget_folders()
        await make_folder(session, folder)
        return await session.client.open(session.path(temporary), new, block_size=0)


async def _finish(file: asyncssh.SFTPClientFile, size: int, modified: float | None) -> None:
    """Set the modification time, and see that all of it is there."""
    if modified is not None and modified >= 0:
        await file.utime((modified, modified))
    there = (await file.stat()).size
    if there != size:
        raise StorageUploadError(f"the server has {there} bytes of it, and {size} were sent", transient=True)


async def _place(session: Session, source: str, target: str) -> None:
    """Let a file take the place of another, in one step."""
    old, new = session.path(source), session.path(target)
    try:
        await session.client.posix_rename(old, new)
    except asyncssh.SFTPOpUnsupported:
        await _place_in_two_steps(session, old, new)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileIsADirectory):
        with contextlib.suppress(asyncssh.SFTPNoSuchFile):
            if (await stat(session, target)).is_folder:
                raise IsADirectoryError(target) from None
        raise


async def _place_in_two_steps(session: Session, old: str, new: str) -> None:
    # Such a server renames to a free name only: for a moment there is neither, and never half a file.
    with contextlib.suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        await session.client.remove(new)
    await session.client.rename(old, new)


async def _check_space(session: Session, temporary: str, needed: int) -> None:
    """Raise what says that the disk is full, if that is why a write failed."""
    try:
        room = await session.client.statvfs(session.path(parent_key(temporary)))
    except asyncssh.SFTPError:
        return
    if room.bavail * room.frsize < needed:
        raise OSError(errno.ENOSPC, "no space is left")


def _discard(sessions: Sessions, temporary: str, *, lost: bool) -> None:
    async def remove(session: Session) -> None:
        with contextlib.suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await session.client.remove(session.path(temporary))

    if not lost:
        with contextlib.suppress(asyncssh.Error, OSError, StorageError):
            sessions.call(remove)
            return
    sessions.left_over.add(temporary)
