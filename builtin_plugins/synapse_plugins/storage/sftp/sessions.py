"""The one SSH connection of a provider: shared by all threads, and made again when it broke."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast

import asyncssh

from synapse_kernel.storage.errors import StorageConnectionError, StoragePermissionError
from synapse_kernel.storage.explaining import reason_of
from synapse_kernel.storage.keys import parent_key
from synapse_plugins.storage.sftp.connecting import connect
from synapse_plugins.storage.sftp.explaining import LOST, NOT_THERE
from synapse_plugins.storage.sftp.loops import LoopThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Future

    from synapse_plugins.storage.sftp.configuration import SftpConfiguration

R = TypeVar("R")

MOST_AT_ONCE = 64
"""How many requests with data are on their way at once: of 256 KiB each, this bounds the memory."""
_LONGEST = 120.0
_SEEN_FOR = 30.0
# Every server takes the first; what some say they would take is more than is of use.
_LEAST_MOVED = 32 << 10
_MOST_MOVED = 256 << 10


class Session:
    """A connection, its one SFTP channel, and what is known of the folders there."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, client: asyncssh.SFTPClient, root: str, real_root: str
    ) -> None:
        self.client = client
        self.root = root
        self.lost = False
        self.made: set[str] = set()
        """Folders that are there, and may be written into."""
        self.read_chunk = min(_MOST_MOVED, max(_LEAST_MOVED, client.limits.max_read_len))
        """How many bytes one request reads; a server may give fewer."""
        self.write_chunk = min(_MOST_MOVED, max(_LEAST_MOVED, client.limits.max_write_len))
        """How many bytes one request writes."""
        self._connection = connection
        self._real_root = real_root
        self._seen: dict[str, tuple[float, str]] = {}
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._later: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        """False once it broke off."""
        return not self.lost and not self._connection.is_closed()

    def path(self, key: str) -> str:
        """Return a key as a path of the server."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root

    async def read(self, file: asyncssh.SFTPClientFile, start: int, length: int) -> bytes:
        """Return `length` bytes of a file, at most `read_chunk`, when there is room for them."""
        async with self._slots, asyncio.timeout(_LONGEST):
            return cast("bytes", await file.read(length, start))

    async def write(self, file: asyncssh.SFTPClientFile, start: int, data: bytes) -> None:
        """Write bytes, at most `write_chunk`, when there is room for them."""
        async with self._slots, asyncio.timeout(_LONGEST):
            await file.write(data, start)

    async def real_folder(self, folder: str) -> str | None:
        """
        Return where a folder really is; None if it is not there.

        Raises `StoragePermissionError` if a link in it leads out of the root. What was seen holds for
        half a minute.
        """
        seen = self._seen.get(folder)
        if seen is not None and monotonic() < seen[0]:
            return seen[1]
        try:
            real = await self.client.realpath(self.path(folder))
        except NOT_THERE:
            if folder:
                await self.real_folder(parent_key(folder))
            return None
        self.check_inside(real)
        self._seen[folder] = (monotonic() + _SEEN_FOR, real)
        return real

    def check_inside(self, real: str) -> None:
        """Raise `StoragePermissionError` for a real path that is not below the root."""
        if not self.is_inside(real):
            raise StoragePermissionError(
                f"a symbolic link leads out of the root {self.root}, to {real}: a storage gives only what is "
                f"below its root"
            )

    def is_inside(self, real: str) -> bool:
        """Tell whether a real path is the root, or below it."""
        return self._real_root == "/" or f"{real}/".startswith(f"{self._real_root}/")

    def forget_folders(self) -> None:
        """Look at each folder again: one of them is not what it was."""
        self.made.clear()
        self._seen.clear()

    def later(self, work: Coroutine[object, object, object]) -> None:
        """Do what nobody waits for; its errors are nobody's either."""

        async def quietly() -> None:
            with contextlib.suppress(asyncssh.Error, OSError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Hang up, after what was left to be done."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await asyncio.gather(*self._later)
                self._connection.close()
                await self._connection.wait_closed()
        self.abort()

    def abort(self) -> None:
        """Hang up at once."""
        self.lost = True
        self._connection.abort()


class _Engine:
    """A loop's thread and the session that lives in it."""

    def __init__(self, configuration: SftpConfiguration, left_over: set[str]) -> None:
        self.thread = LoopThread("synapse-sftp")
        self._configuration = configuration
        self._left_over = left_over
        self._session: Session | None = None
        self._connecting: asyncio.Task[Session] | None = None

    async def run(self, operation: Callable[[Session], Coroutine[object, object, R]]) -> R:
        session = await self._connected()
        try:
            return await operation(session)
        except LOST:
            session.abort()
            raise

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._session is not None:
            await self._session.close()

    async def _connected(self) -> Session:
        if self._session is not None and self._session.usable:
            return self._session
        if self._connecting is None:
            # All who need it wait for the same attempt, and share its failure.
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add_done_callback(self._attempted)
        return await asyncio.shield(self._connecting)

    def _attempted(self, attempt: asyncio.Task[Session]) -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._session = attempt.result()

    async def _connect(self) -> Session:
        connection = await connect(self._configuration)
        try:
            async with asyncio.timeout(self._configuration.timeout):
                session = await _open(connection, self._configuration.root_path)
        except BaseException:
            connection.abort()
            raise
        while self._left_over:
            session.later(session.client.remove(self._left_over.pop()))
        return session


async def _open(connection: asyncssh.SSHClientConnection, root: str) -> Session:
    try:
        # A name that is no text is refused where it is met, and does not hide the others.
        client = await connection.start_sftp_client(path_errors="surrogateescape")
    except (asyncssh.SFTPError, asyncssh.ChannelOpenError) as error:
        raise StorageConnectionError(
            f"the server lets in, but serves no SFTP: {reason_of(error)}", transient=connection.is_closed()
        ) from None
    try:
        real = await client.realpath(root)
    except NOT_THERE:
        # It is made when something is written.
        real = root
    return Session(connection, client, root, real)


class Sessions:
    """Runs operations on the server for any thread, in a session that is there when it is needed."""

    def __init__(self, configuration: SftpConfiguration) -> None:
        self.left_over: set[str] = set()
        """Paths of temporary files that could not be removed: the next connection does it."""
        self._configuration = configuration
        self._lock = threading.Lock()
        self._engine: _Engine | None = None

    def call(self, operation: Callable[[Session], Coroutine[object, object, R]]) -> R:
        """Return what an operation gives; raises what asyncssh raises, or why there is no connection."""
        return wait(self.start(operation))

    def start(self, operation: Callable[[Session], Coroutine[object, object, R]]) -> Future[R]:
        """Begin an operation."""
        engine = self._running()
        return engine.thread.start(engine.run(operation))

    def start_in(self, session: Session, work: Callable[[], Awaitable[R]]) -> Future[R]:
        """Begin what belongs to one session; it fails if that broke off."""

        async def run() -> R:
            try:
                return await work()
            except LOST:
                session.abort()
                raise

        return self._running().thread.start(run())

    def close(self) -> None:
        """Hang up; what comes later connects again."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is None or engine.thread.process != os.getpid():
            return
        wait(engine.thread.start(engine.close()))
        engine.thread.stop()

    def _running(self) -> _Engine:
        with self._lock:
            if self._engine is None or self._engine.thread.process != os.getpid():
                self._engine = _Engine(self._configuration, self.left_over)
            return self._engine


def wait(future: Future[R]) -> R:
    """Return the result; where this thread is interrupted, the work is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
