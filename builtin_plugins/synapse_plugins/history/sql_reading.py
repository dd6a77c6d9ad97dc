"""What a run store in SQL is asked for: runs, events, outcomes, environments and checkpoints."""

# ruff: noqa: S608 - statements are made of constants here; what comes from outside goes as values

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import msgspec

from synapse_kernel.contracts import JsonObject
from synapse_kernel.events import decode_event
from synapse_kernel.stores import ChildResult, Environment, RunQuery, RunRecord, StoredEvent
from synapse_plugins.history import rows
from synapse_plugins.history.rows import JOINED, RECORD, Row, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

# UNION, not UNION ALL: a run that is its own ancestor ends the search rather than not.
UNDER = """
    WITH RECURSIVE under (key, id) AS (
      SELECT key, id FROM runs WHERE id = ?
      UNION SELECT runs.key, runs.id FROM runs JOIN under ON runs.parent = under.id
    )
"""


class Cursor(Protocol):
    """The answer to a statement."""

    @property
    def rowcount(self) -> int: ...  # noqa: D102 - as in Python's database interface

    def fetchone(self) -> Row | None: ...  # noqa: D102

    def fetchall(self) -> list[Row]: ...  # noqa: D102


class Transaction(Protocol):
    """What statements are given to."""

    def execute(self, sql: str, values: Sequence[Value] = ..., /) -> Cursor:
        """Carry a statement out."""

    def executemany(self, sql: str, values: Iterable[Sequence[Value]], /) -> object:
        """Carry a statement out for each row of values."""


class _Result(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")


_decode_result = msgspec.json.Decoder(_Result).decode


class SqlReader(ABC):
    """The part of a `RunStore` that changes nothing."""

    url: str

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Transaction]:
        """Enter a transaction that changes nothing; raises `StoreError` for what the database says."""

    def get(self, run_id: str) -> RunRecord | None:
        """Return the run of this id."""
        with self._reading() as tx:
            return self._record(tx, run_id)

    def matching(self, prefix: str, limit: int = 10) -> list[str]:
        """Return the ids that start with a prefix, newest first; `prefix` may hold any characters."""
        prefix = rows.text(prefix)
        where, values = _starting("id", prefix)
        with self._reading() as tx:
            found = tx.execute(
                f"SELECT id FROM runs WHERE {where} ORDER BY created DESC, id LIMIT {int(limit)}", values
            ).fetchall()
        return [str(run_id) for (run_id,) in found]

    def runs(self, query: RunQuery = RunQuery()) -> list[RunRecord]:  # noqa: B008 - frozen
        """Return the runs that a query asks for, newest first, without their definitions."""
        limit = "" if query.limit is None else f"LIMIT {int(query.limit)}"
        with self._reading() as tx:
            where, values = rows.conditions(query, _frequent(tx, query.tags))
            # What is asked for is found in the index alone; the rest is read for those that are shown.
            listed = f"SELECT r.key FROM runs r {where} ORDER BY r.created DESC, r.id {limit}"
            found = tx.execute(
                f"SELECT {RECORD} FROM {JOINED} WHERE r.key IN ({listed}) ORDER BY r.created DESC, r.id",
                values,
            ).fetchall()
        return [rows.record_of(row, None) for row in found]

    def count(self, query: RunQuery = RunQuery()) -> int:  # noqa: B008 - frozen
        """Return how many runs a query matches, its limit apart."""
        with self._reading() as tx:
            where, values = rows.conditions(query, _frequent(tx, query.tags))
            found = tx.execute(f"SELECT count(*) FROM runs r {where}", values).fetchone()
        assert found is not None
        return int(found[0] or 0)

    def outcome(self, run_id: str) -> JsonObject | None:
        """Return a run's outcome as JSON-like data, or None while it has none."""
        run_id = rows.text(run_id)
        with self._reading() as tx:
            found = tx.execute(
                "SELECT outcome FROM runs WHERE id = ? AND outcome IS NOT NULL", (run_id,)
            ).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=JsonObject)  # type: ignore[arg-type]

    def children(self, parent: str) -> list[ChildResult]:
        """Return what became of a run's children, in the order they started."""
        parent = rows.text(parent)
        with self._reading() as tx:
            found = tx.execute(
                "SELECT id, node, status, attempt, reusable, outcome FROM runs WHERE parent = ? ORDER BY key",
                (parent,),
            ).fetchall()
        return list(map(_child, found))

    def events(
        self,
        run_id: str,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        descendants: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Return the events of a run, with `descendants` also those of all runs under it."""
        run_id = rows.text(run_id)
        values: list[Value] = [run_id, after]
        if descendants:
            head, whose = UNDER, "SELECT key FROM under"
        else:
            head, whose = "", "SELECT key FROM runs WHERE id = ?"
        where = f"run IN ({whose}) AND position > ?"
        if kinds:
            where += f" AND kind IN ({rows.among(kinds)})"
            values += map(rows.text, kinds)
        tail = "" if limit is None else f"LIMIT {int(limit)}"
        with self._reading() as tx:
            # Who follows a run asks often, and most often there is nothing new in the whole store.
            if (
                after
                and not tx.execute("SELECT 1 FROM events WHERE position > ? LIMIT 1", (after,)).fetchone()
            ):
                return []
            found = tx.execute(
                f"{head} SELECT position, body FROM events WHERE {where} ORDER BY position {tail}", values
            ).fetchall()
        return [StoredEvent(position, decode_event(body)) for position, body in found]  # type: ignore[arg-type]

    def has_environment(self, environment_id: str) -> bool:
        """Tell whether an environment is recorded already."""
        with self._reading() as tx:
            found = tx.execute(
                "SELECT 1 FROM environments WHERE id = ?", (rows.text(environment_id),)
            ).fetchone()
        return found is not None

    def environment(self, environment_id: str) -> Environment | None:
        """Return a recorded environment."""
        with self._reading() as tx:
            found = tx.execute(
                "SELECT body FROM environments WHERE id = ?", (rows.text(environment_id),)
            ).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=Environment)  # type: ignore[arg-type]

    def value(self, scope: str, key: str) -> bytes | None:
        """Return a kept value."""
        with self._reading() as tx:
            found = tx.execute(
                "SELECT value FROM checkpoints WHERE scope = ? AND key = ?",
                (rows.text(scope), rows.text(key)),
            ).fetchone()
        return None if found is None else found[0]  # type: ignore[return-value]

    def entries(self, scope: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Return the keys that start with a prefix and their values, in the order they were first put."""
        where, values = _starting("key", rows.text(prefix))
        with self._reading() as tx:
            return tx.execute(
                f"SELECT key, value FROM checkpoints WHERE scope = ? AND {where} ORDER BY position",
                [rows.text(scope), *values],
            ).fetchall()  # type: ignore[return-value]

    def _record(self, tx: Transaction, run_id: str) -> RunRecord | None:
        found = tx.execute(
            f"SELECT d.definition, {RECORD} FROM {JOINED} WHERE r.id = ?",
            (rows.text(run_id),),
        ).fetchone()
        return None if found is None else rows.record_of(found[1:], found[0])


def _frequent(tx: Transaction, tags: Sequence[str]) -> set[str]:
    """Return those of some tags that many runs have."""
    probe = "SELECT 1 FROM tags WHERE tag = ? LIMIT 1 OFFSET 1000"
    return {tag for tag in tags if tx.execute(probe, (rows.text(tag),)).fetchone() is not None}


def _starting(column: str, prefix: str) -> tuple[str, list[Value]]:
    """Return a condition, and its values, that holds for what starts with a prefix."""
    end = rows.beyond(prefix)
    if end is None:
        return f"{column} >= ?", [prefix]
    return f"{column} >= ? AND {column} < ?", [prefix, end]


def _child(row: Row) -> ChildResult:
    run_id, node, status, attempt, reusable, outcome = row
    usable = status == "succeeded" and bool(reusable)
    return ChildResult(
        run_id=run_id,  # type: ignore[arg-type]
        node=node or "",  # type: ignore[arg-type]
        status=status,  # type: ignore[arg-type]
        attempt=attempt,  # type: ignore[arg-type]
        result=_decode_result(outcome).result if usable else None,  # type: ignore[arg-type]
        reusable=bool(reusable),
    )
