"""Files written on the server: under a hidden name, which takes the place of the key when all is there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections import deque
from typing import TYPE_CHECKING

import asyncssh

from synapse_kernel.storage.errors import StorageConnectionError, StorageError, StorageUploadError
from synapse_kernel.storage.keys import parent_key
from synapse_kernel.storage.local_trees import part_name
from synapse_plugins.storage.sftp.explaining import LOST, NOT_THERE
from synapse_plugins.storage.sftp.folders import place_of, stat
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
# A write that failed on a full disk left less than this.
_LITTLE_ROOM = 1 << 20

_NEW = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL


class _Written:
    """A file that is being written: where it is to be, and where it is until then; both are paths."""

    def __init__(self, file: asyncssh.SFTPClientFile, place: str, temporary: str) -> None:
        self.file = file
        self.place = place
        self.temporary = temporary

    @classmethod
    async def begin(cls, session: Session, key: str) -> _Written:
        """Make the folder and the file."""
        try:
            return await cls._begin(session, key)
        except NOT_THERE:
            # Somebody deleted the folder, which was there a while ago.
            session.forget_folders()
            return await cls._begin(session, key)

    @classmethod
    async def _begin(cls, session: Session, key: str) -> _Written:
        place = await place_of(session, key)
        temporary = f"{parent_key(place)}/{part_name()}"
        return cls(await session.client.open(temporary, _NEW, encoding=None, block_size=0), place, temporary)

    async def reopen(self, session: Session) -> None:
        """Go on in another session."""
        self.file = await session.client.open(self.temporary, asyncssh.FXF_WRITE, encoding=None, block_size=0)

    async def finish(self, size: int, modified: float | None) -> None:
        """Set the modification time, see that all of it is there, and close it."""
        attrs, _ = await asyncio.gather(self.file.stat(), self._keep(modified))
        if attrs.size != size:
            raise StorageUploadError(
                f"the server has {attrs.size} bytes of it, and {size} were sent", transient=True
            )
        await self.file.close()

    async def _keep(self, modified: float | None) -> None:
        if modified is not None and modified >= 0:
            await self.file.utime((modified, modified))

    async def put_in_place(self, session: Session) -> None:
        """Let it take the place of what is there, in one step."""
        await _rename(session, self.temporary, self.place)

    async def break_off(self, session: Session, error: BaseException | None = None) -> None:
        """Close it without waiting; raises what says that the disk is full, if that is why a write failed."""
        session.later(self.file.close())
        if not isinstance(error, asyncssh.SFTPFailure):
            return
        with contextlib.suppress(asyncssh.SFTPError):
            room = await session.client.statvfs(parent_key(self.temporary))
            if room.bavail * room.frsize < _LITTLE_ROOM:
                raise OSError(errno.ENOSPC, "no space is left")


def put_file(sessions: Sessions, source: Source, key: str, told: Told) -> None:
    """Write a file whole or not at all."""
    written = (_send_small if source.size <= SMALL else _send_large)(sessions, source, key, told)
    try:
        source.check()
        sessions.call(written.put_in_place)
    except BaseException as error:
        _discard(sessions, written, error)
        raise


async def copy_file(session: Session, source: str, target: str) -> bool:
    """Copy a file within the server, whole or not at all; False if it cannot."""
    if not session.client.supports_remote_copy:
        return False
    entry = await stat(session, source)
    written = await _Written.begin(session, target)
    size = entry.size or 0
    try:
        path = session.path(source)
        read = await session.client.open(path, asyncssh.FXF_READ, encoding=None, block_size=0)
        async with read:
            for start in range(0, size, _COPIED_AT_ONCE):
                length = min(_COPIED_AT_ONCE, size - start)
                await session.client.remote_copy(read, written.file, start, length, start)
        await written.finish(size, entry.modified)
        await written.put_in_place(session)
    except BaseException as error:
        session.later(session.client.remove(written.temporary))
        await written.break_off(session, error)
        raise
    return True


async def move_file(session: Session, source: str, target: str) -> bool:
    """Move a file, or a link, within the server."""
    await session.real_folder(parent_key(source))
    await _rename(session, session.path(source), await place_of(session, target))
    return True


async def was_moved(session: Session, source: str, target: str) -> bool:
    """Tell whether a move, of which no answer came, was done."""
    try:
        await session.client.lstat(session.path(source))
    except NOT_THERE:
        await session.client.lstat(session.path(target))
        return True
    return False


async def _rename(session: Session, old: str, new: str) -> None:
    try:
        await session.client.posix_rename(old, new)
    except asyncssh.SFTPOpUnsupported:
        # Such a server renames to a free name only: for a moment there is neither, and never half a file.
        with contextlib.suppress(*NOT_THERE):
            await session.client.remove(new)
        await session.client.rename(old, new)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileIsADirectory):
        if await session.client.isdir(new):
            raise IsADirectoryError(new) from None
        raise


def _send_small(sessions: Sessions, source: Source, key: str, told: Told) -> _Written:
    with source.open() as content:
        data = content.read(source.size)

    async def send(session: Session) -> _Written:
        written = await _Written.begin(session, key)
        try:
            for start in range(0, len(data), session.write_chunk):
                await session.write(written.file, start, data[start : start + session.write_chunk])
            await written.finish(len(data), source.modified)
        except BaseException as error:
            session.later(session.client.remove(written.temporary))
            await written.break_off(session, error)
            raise
        return written

    written = sessions.call(send)
    try:
        told(len(data))
    except BaseException as error:
        _discard(sessions, written, error)
        raise
    return written


def _send_large(sessions: Sessions, source: Source, key: str, told: Told) -> _Written:
    async def begin(session: Session) -> tuple[Session, _Written]:
        return session, await _Written.begin(session, key)

    session, written = sessions.call(begin)
    sending = _Sending(sessions, source, written, told)
    try:
        sending.send(session)
    except BaseException as error:
        _discard(sessions, written, error)
        raise
    return written


class _Sending:
    """A file that is sent piece by piece, and sent on after a connection that broke off."""

    def __init__(self, sessions: Sessions, source: Source, written: _Written, told: Told) -> None:
        self._sessions = sessions
        self._source = source
        self._written = written
        self._told = told
        self._sent = 0
        """How many bytes from the beginning the server has confirmed."""

    def send(self, session: Session | None) -> None:
        """Send all of it, at first in the session it was begun in."""
        failed = 0
        while True:
            before = self._sent
            try:
                self._send_on(session or self._sessions.call(self._reopen))
            except (*LOST, StorageConnectionError) as error:
                if isinstance(error, StorageConnectionError) and not error.transient:
                    raise
                failed = 1 if self._sent > before else failed + 1
                if failed >= _TRIES:
                    raise
                time.sleep(0.1 * 2**failed)
                session = None
            else:
                return

    async def _reopen(self, session: Session) -> Session:
        await self._written.reopen(session)
        return session

    def _send_on(self, session: Session) -> None:
        under_way: deque[tuple[int, Future[None]]] = deque()
        try:
            with self._source.open() as content:
                at = content.seek(self._sent)
                while data := content.read(min(session.write_chunk, self._source.size - at)):
                    if len(under_way) >= AHEAD:
                        self._confirm(*under_way.popleft())
                    under_way.append((len(data), self._start(session, data, at)))
                    at += len(data)
                while under_way:
                    self._confirm(*under_way.popleft())
            size, modified = self._source.size, self._source.modified
            wait(self._sessions.start_in(session, lambda: self._written.finish(size, modified)))
        except BaseException as error:
            for _, future in under_way:
                future.cancel()
            # Bound here: the name is gone by the time it runs.
            reason = error
            wait(self._sessions.start_in(session, lambda: self._written.break_off(session, reason)))
            raise

    def _start(self, session: Session, data: bytes, at: int) -> Future[None]:
        return self._sessions.start_in(session, lambda: session.write(self._written.file, at, data))

    def _confirm(self, length: int, future: Future[None]) -> None:
        wait(future)
        self._sent += length
        self._told(length)


def _discard(sessions: Sessions, written: _Written, error: BaseException) -> None:
    async def remove(session: Session) -> None:
        with contextlib.suppress(*NOT_THERE):
            await session.client.remove(written.temporary)

    if not isinstance(error, (*LOST, StorageConnectionError)):
        with contextlib.suppress(asyncssh.Error, OSError, StorageError):
            sessions.call(remove)
            return
    sessions.left_over.add(written.temporary)
