"""The store `postgres`: a server that a team shares."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from synapse_kernel.stores import StoreError
from synapse_plugins.history import rows
from synapse_plugins.history.postgres_schema import APPLICATION, LOCK, MIGRATIONS, VERSION
from synapse_plugins.history.sql_store import SqlStore
from synapse_plugins.history.urls import postgres_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synapse_kernel.events import Event
    from synapse_kernel.owners import Owner
    from synapse_plugins.history.rows import Kept, Row, Value
    from synapse_plugins.history.sql_reading import Transaction

_ELSEWHERE = "name another store with the setting store, or the variable SYNAPSE_STORE"

_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()
# Connections of the parent process: to let go of one would say good-bye to the server in its name.
_inherited: list[object] = []


class PostgresStore(SqlStore):
    """
    A run store in a PostgreSQL database.

    `url` is libpq's: ``postgresql://user:password@host:5432/database``, or ``postgres`` alone for what the
    variables ``PGHOST`` and so on say. ``?schema=`` names the schema for the tables, by default
    ``synapse_kernel``, which is made if it is not there; ``?timeout=`` the seconds to wait for the server or
    for another process. Raises `StoreError` for a schema of another program, and leaves it as it is.
    """

    for_update = " FOR UPDATE OF r"

    def __init__(self, url: str = "postgres") -> None:
        self._place = postgres_place(url)
        self.url = self._place.shown
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Row] | None = None
        with self._told():
            self._open()
        _stores.add(self)

    def close(self) -> None:
        """Release the connection; a later call opens it anew."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()

    def after_fork(self) -> None:
        """Leave the connection to the parent process."""
        _inherited.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[_Statements]:
        with self._lock, self._told(), self._transaction("BEGIN READ ONLY") as statements:
            yield statements

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_Statements]:
        with self._lock, self._told(), self._transaction("BEGIN") as statements:
            yield statements

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[_Statements]:
        connection = self._begun(begin)
        try:
            with connection.cursor() as cursor:
                yield _Statements(cursor)
            connection.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                # Where the server is gone there is nothing to take back, and the first error tells more.
                with contextlib.suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
            raise

    def _begun(self, begin: str) -> psycopg.Connection[Row]:
        """Begin a transaction, over a new connection if the server has dropped the one there is."""
        if self._connection is not None:
            try:
                if self._connection.info.transaction_status != TransactionStatus.IDLE:
                    # A thread was interrupted after it began one, and before it could end it.
                    self._connection.execute("ROLLBACK")
                self._connection.execute(begin)
            except psycopg.OperationalError:
                self.close()
            else:
                return self._connection
        connection = self._open()
        connection.execute(begin)
        return connection

    def _add_events(self, tx: Transaction, kept: Kept, events: Sequence[Event]) -> None:
        assert isinstance(tx, _Statements)
        # Positions are given before a commit. Who follows a run and its children would miss what is committed
        # later under a lower one, so those under one root take turns.
        tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (kept.root,))
        with tx.cursor.copy("COPY events (run, kind, body) FROM STDIN") as copy:
            for row in rows.event_rows(kept.key, events):
                copy.write_row(row)

    def _silence(self, owner: Owner, row: Sequence[Value]) -> float:  # noqa: ARG002 - the server's clock alone
        seen, _, now, _ = (int(value or 0) for value in row)
        return (now - seen) / 1e6

    def _open(self) -> psycopg.Connection[Row]:
        connection = psycopg.connect(
            self._place.conninfo,
            autocommit=True,
            client_encoding="utf8",
            connect_timeout=max(2, int(self._place.timeout)),
            application_name="synapse-kernel",
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: psycopg.Connection[Row]) -> None:
        schema = sql.Identifier(self._place.schema)
        wait = sql.Literal(int(self._place.timeout * 1000))
        # No name of another schema may stand for one of ours.
        connection.execute(sql.SQL("SET search_path = {}; SET lock_timeout = {}").format(schema, wait))
        if self._version(connection) == VERSION:
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            version = self._version(connection)
            if version > VERSION:
                raise self._error(
                    f"was written by a newer synapse-kernel: its schema is {version}, this one knows "
                    f"{VERSION}\n  upgrade with: pip install --upgrade synapse-kernel\n  or {_ELSEWHERE}"
                )
            if not version:
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            for statements in MIGRATIONS[version:]:
                connection.execute(statements.encode())
            for name, value in (("application", APPLICATION), ("version", str(VERSION))):
                connection.execute(
                    "INSERT INTO about (name, value) VALUES (%s, %s) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (name, value),
                )

    def _version(self, connection: psycopg.Connection[Row]) -> int:
        """Return the version of the tables, 0 where there are none; raises `StoreError` for others'."""
        found = connection.execute(
            "SELECT c.relname::text FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s ORDER BY c.relname <> 'about' LIMIT 1",
            (self._place.schema,),
        ).fetchone()
        if found is None:
            return 0
        if found[0] != "about":
            raise self._foreign()
        try:
            found_about = connection.execute("SELECT name, value FROM about").fetchall()
        except errors.ProgrammingError:
            raise self._foreign() from None
        about = {str(name): str(value) for name, value in found_about}
        if about.get("application") != APPLICATION:
            raise self._foreign()
        return int(about["version"])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._error(self._why(error)) from error

    def _why(self, error: psycopg.Error) -> str:
        if isinstance(error, errors.LockNotAvailable):
            return f"is locked by another process, for more than {self._place.timeout:g} s"
        said = str(error)
        for secret in self._place.secrets:
            said = said.replace(secret, "***")
        said = " ".join(said.split())
        if isinstance(error, errors.InsufficientPrivilege):
            return f"cannot be used: {said}\n  ask for the right to create the schema, or {_ELSEWHERE}"
        return f"cannot be used: {said}"

    def _foreign(self) -> StoreError:
        return self._error(
            f"has a schema {self._place.schema!r} of another program; it was left as it is\n"
            f"  name another schema with ?schema=NAME, or {_ELSEWHERE}"
        )

    def _error(self, why: str) -> StoreError:
        return StoreError(f"The run store {self.url} {why}", url=self.url)


class _Statements:
    """Takes statements as `SqlStore` writes them."""

    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self.cursor = cursor

    def execute(self, statement: str, values: Sequence[Value] = ()) -> psycopg.Cursor[Row]:
        return self.cursor.execute(_translated(statement), values)

    def executemany(self, statement: str, values: Iterable[Sequence[Value]]) -> None:
        self.cursor.executemany(_translated(statement), values)


@functools.lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)
