"""The store `sqlite`: one file, which many processes of a machine share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from synapse_kernel.stores import StoreError
from synapse_plugins.history.sql_store import SqlStore
from synapse_plugins.history.sqlite_schema import APPLICATION_ID, MIGRATIONS, VERSION
from synapse_plugins.history.urls import sqlite_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_kernel.owners import Owner
    from synapse_plugins.history.rows import Value
    from synapse_plugins.history.sql_reading import Transaction

_ELSEWHERE = "name another file with the setting store, or the variable SYNAPSE_STORE"
_NO_DATABASE = f"is not a database; it was left as it is\n  move it away, or {_ELSEWHERE}"
# The size of the smallest page.
_SMALLEST = 512
# No one can set it, and it stands still while the machine sleeps: who is awake first would otherwise take the
# others, that had no time to say anything, for dead. On macOS the monotonic one goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
# The first that knows RETURNING.
_OLDEST = (3, 35)
# Pages are written twice, the second time together: the more at once, the fewer.
_CHECKPOINT_PAGES = 2000

# SQLITE_IOERR_SHMSIZE: on a disk without a byte left not even what processes share can be made.
_NO_ROOM_TO_SHARE = 4874

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
# None is added while another thread forks: they are being counted then. It may be that thread's own doing, in
# the handler of a signal.
_stores_lock = threading.RLock()
# Those that a thread which forks keeps from others meanwhile.
_held = threading.local()


class SqliteStore(SqlStore):
    """
    A run store in a file.

    `url` is ``sqlite:///absolute/path.db``, ``sqlite:relative.db`` or ``sqlite`` alone for ``history.db`` in
    the state folder. ``?synchronous=full`` has each write survive a loss of power too, ``?timeout=`` gives
    the seconds to wait for other processes. Raises `StoreError` for a file that is not a store's, and leaves
    it as it is.
    """

    def __init__(self, url: str = "sqlite") -> None:
        place = sqlite_place(url)
        self.path = place.path
        self.url = f"sqlite://{quote(str(place.path))}"
        self._timeout = place.timeout
        self._synchronous = place.synchronous
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        with _stores_lock:
            _stores.add(self)
        with self._reading():
            # What is wrong with the file is told now.
            pass

    def close(self) -> None:
        """Release the connection; a later call opens it anew."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection or self._open()
            except sqlite3.Error as error:
                raise self._error(self._why(error)) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connection or self._open()
                if connection.in_transaction:
                    # A thread was interrupted after it began one, and before it could end it.
                    connection.execute("ROLLBACK")
                # One that reads first and writes later could be told that it is too late.
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._error(self._why(error)) from error

    def _drop_events(self, tx: Transaction, keys: Sequence[tuple[Value]]) -> None:
        # SQLite gives the last position again once its row is gone. A row of no run keeps it, which costs
        # each event less than a counter would.
        last = tx.execute("SELECT max(position) FROM events").fetchone()
        super()._drop_events(tx, [*keys, (0,)])
        if last is not None and last[0] is not None:
            tx.execute(
                "INSERT INTO events (position, run, kind, body) VALUES (?, 0, '', x'') "
                "ON CONFLICT DO NOTHING",
                last,
            )

    def _silence(self, owner: Owner, row: Sequence[Value]) -> float:
        from synapse_kernel.owners import this_process

        seen, ticks, now, ticks_now = (int(value or 0) for value in row)
        # One that is ahead was read from another clock: an older version's.
        if owner.boot and owner.boot == this_process().boot and ticks <= ticks_now:
            return (ticks_now - ticks) / 1e6
        return (now - seen) / 1e6

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise self._error(
                f"needs SQLite {'.'.join(map(str, _OLDEST))} or later; this Python comes with "
                f"{sqlite3.sqlite_version}\n"
                "  use a Python that has a newer one, or name a PostgreSQL database with the setting store, "
                "or the variable SYNAPSE_STORE"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._error(
                f"cannot be made: {error.strerror}: {self.path.parent}\n  {_ELSEWHERE}"
            ) from error
        self._refuse_foreign()
        connection = self._connect(str(self.path))
        try:
            connection.create_function("micros_now", 0, _micros_now)
            connection.create_function("ticks_now", 0, _ticks_now)
            try:
                self._bring_up_to_date(connection)
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                self._insist(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _connect(self, place: str, *, uri: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(
            place, uri=uri, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )

    def _refuse_foreign(self) -> None:
        """
        Raise `StoreError` for a file that is there and not ours, without touching it.

        To open it as usual would already write: SQLite tidies up after others. Nor may the file be read past
        SQLite: to close it would drop the locks that other connections of this process hold.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(f"cannot be opened: {error.strerror}\n  {_ELSEWHERE}") from error
        if not self.path.is_file():
            raise self._error(f"cannot be opened: a folder or device is there\n  {_ELSEWHERE}")
        if not status.st_size:
            return
        if status.st_size < _SMALLEST:
            # SQLite takes one so short for a database that has nothing in it yet, and would write over it.
            raise self._error(_NO_DATABASE)
        place = f"file:{quote(str(self.path))}?mode=ro&immutable=1"
        with contextlib.closing(self._connect(place, uri=True)) as looking:
            try:
                # What is in the journal alone does not show here. Ours says whose it is in the file itself.
                journal = Path(f"{self.path}-wal")
                if not _is_ours(looking) and (not _is_blank(looking) or journal.exists()):
                    raise self._foreign()
            except sqlite3.DatabaseError as error:
                # It looks damaged while another process makes it grow. Opened as usual it tells for sure.
                if _code(error) != sqlite3.SQLITE_CORRUPT:
                    raise

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "user_version") != VERSION or not _is_ours(connection):
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._migrate(connection)
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            # Not in a transaction, and not before the file says that it is ours.
            connection.execute("PRAGMA journal_mode = WAL")

    def _insist(self, connection: sqlite3.Connection) -> None:
        """Try again: SQLite does not wait for others when it is to change the kind of journal."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

        Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random(0.001, 0.02),
            stop=stop_after_delay(self._timeout),
            reraise=True,
        )(self._bring_up_to_date, connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = _pragma(connection, "user_version")
        if not _is_ours(connection):
            if not _is_blank(connection):
                raise self._foreign()
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if version > VERSION:
            raise self._error(
                f"was written by a newer synapse-kernel: its schema is {version}, this one knows {VERSION}\n"
                f"  upgrade with: pip install --upgrade synapse-kernel\n  or {_ELSEWHERE}"
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    def _why(self, error: sqlite3.Error) -> str:
        code = _code(error)
        if _is_busy(error):
            return (
                f"is locked by another process, for more than {self._timeout:g} s\n"
                f"  see which with: fuser {self.path}"
            )
        if code == sqlite3.SQLITE_FULL or getattr(error, "sqlite_errorcode", 0) == _NO_ROOM_TO_SHARE:
            return f"cannot be written: the disk is full\n  free some space there, or {_ELSEWHERE}"
        if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}:
            return f"cannot be used: {error}\n  let your user write it and its folder, or {_ELSEWHERE}"
        if code == sqlite3.SQLITE_NOTADB:
            return _NO_DATABASE
        if code == sqlite3.SQLITE_CORRUPT:
            return (
                f"is damaged ({error}); it was left as it is\n"
                f"  move it away, or {_ELSEWHERE}\n"
                f"  save what can be saved with: sqlite3 {self.path} .recover"
            )
        return f"cannot be used: {error}\n  {_ELSEWHERE}"

    def _foreign(self) -> StoreError:
        return self._error(
            f"is a database of another program; it was left as it is\n  move it away, or {_ELSEWHERE}"
        )

    def _error(self, why: str) -> StoreError:
        return StoreError(f"The run store {self.path} {why}", url=self.url)


def _code(error: BaseException) -> int:
    """Return SQLite's own number of an error, without its refinement."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_busy(error: BaseException) -> bool:
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _is_ours(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "application_id") == APPLICATION_ID


def _is_blank(connection: sqlite3.Connection) -> bool:
    """Tell whether a database has nothing in it, not even what says whose it is."""
    if _pragma(connection, "application_id") or _pragma(connection, "user_version"):
        return False
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _micros_now() -> int:
    return time.time_ns() // 1000


def _ticks_now() -> int:
    return time.clock_gettime_ns(_CLOCK) // 1000


def _before_fork() -> None:
    """Let go of every file: a connection that both processes hold would damage it."""
    _stores_lock.acquire()
    _held.stores = list(_stores)
    for store in _held.stores:
        store._lock.acquire()
        store.close()


def _after_fork() -> None:
    for store in _held.stores:
        store._lock.release()
    _held.stores = []
    _stores_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
