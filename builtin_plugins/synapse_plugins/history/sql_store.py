"""
A run store in SQL: what SQLite and PostgreSQL do alike.

The statements are of the part of SQL that both speak, with ``?`` for a value; a database gives the functions
`micros_now` (its clock, microseconds since the epoch) and `ticks_now` (a clock of this machine that no one
sets), or 0. What differs is behind the abstract methods.
"""

# ruff: noqa: S608 - statements are made of constants here; what comes from outside goes as values

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.stores import RunBusyError, StoreError
from synapse_plugins.history import rows
from synapse_plugins.history.sql_ownership import SqlOwnership
from synapse_plugins.history.sql_reading import UNDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_kernel.events import Event
    from synapse_kernel.owners import Owner
    from synapse_kernel.stores import Environment, RunEnd, RunRecord
    from synapse_plugins.history.rows import Kept, Value
    from synapse_plugins.history.sql_reading import Transaction

_DAY = 86_400_000_000


class SqlStore(SqlOwnership):
    """A `RunStore` over a connection that a subclass opens."""

    def _add_events(self, tx: Transaction, kept: Kept, events: Sequence[Event]) -> None:
        tx.executemany(
            "INSERT INTO events (run, kind, body) VALUES (?, ?, ?)", rows.event_rows(kept.key, events)
        )

    def _drop_events(self, tx: Transaction, keys: Sequence[tuple[Value]]) -> None:
        """Delete the events of runs; no later event may get a position that was given before."""
        tx.executemany("DELETE FROM events WHERE run = ?", keys)

    def start(self, record: RunRecord, owner: Owner) -> None:
        """Record a run that begins, `owner` being its process; raises `StoreError` if the id is there."""
        body = rows.fixed_part(record)
        definition = None if record.definition is None else rows.encoded(record.definition)
        tags = [rows.text(tag) for tag in record.tags]
        values = (
            rows.text(record.run_id),
            rows.micros(record.created),
            record.kind,
            rows.text(record.action),
            rows.text_or_none(record.parent),
            rows.text(rows.root_of(record)),
            rows.text_or_none(record.node),
            record.status,
            record.attempt,
            None if record.started is None else rows.micros(record.started),
            record.last_seq,
            None if len(body) > rows.LARGE else body,
        )
        with self._writing() as tx:
            added = tx.execute(
                "INSERT INTO runs (id, created, kind, action, parent, root, node, status, attempt, started, "
                "last_seq, body, open, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?) "
                "ON CONFLICT (id) DO NOTHING RETURNING key",
                (*values, self._heard(tx, owner)),
            ).fetchone()
            if added is None:
                raise StoreError(f"A run {record.run_id} is in {self.url} already", url=self.url)
            if len(body) > rows.LARGE or definition is not None:
                tx.execute(
                    "INSERT INTO details (run, body, definition) VALUES (?, ?, ?)",
                    (added[0], body, definition),
                )
            if tags:
                tx.executemany(
                    "INSERT INTO tags (run, tag) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    [(added[0], tag) for tag in tags],
                )

    def append(self, run_id: str, events: Sequence[Event]) -> None:
        """Add events of one run, in order; raises `RunNotFoundError`."""
        if not events:
            return
        with self._writing() as tx:
            kept = self._kept(tx, run_id)
            self._add_events(tx, kept, events)
            after = rows.moved_on(kept, events)
            if after[2:5] == kept[2:5]:
                tx.execute(
                    "UPDATE runs SET last_seq = ?, touched = micros_now() WHERE key = ?",
                    (after.last_seq, kept.key),
                )
            else:
                tx.execute(
                    "UPDATE runs SET last_seq = ?, touched = micros_now(), status = ?, attempt = ?, "
                    "started = ? WHERE key = ?",
                    (after.last_seq, after.status, after.attempt, after.started, kept.key),
                )

    def finish(self, end: RunEnd, events: Sequence[Event] = ()) -> None:
        """
        Add the run's last events and its outcome, together.

        Raises `RunNotFoundError`; for the end of an earlier attempt `RunBusyError` while the later one goes
        on, and `StoreError` after it.
        """
        with self._writing() as tx:
            kept = self._kept(tx, end.run_id)
            if end.attempt < kept.attempt:
                if kept.open:
                    raise RunBusyError(end.run_id, self._holder(tx, kept.key, kept.open))
                raise StoreError(
                    f"The end of attempt {end.attempt} of run {end.run_id} comes too late: "
                    f"attempt {kept.attempt} of it is {kept.status} in {self.url}",
                    url=self.url,
                )
            if events:
                self._add_events(tx, kept, events)
            after = rows.moved_on(kept, events)
            tx.execute(
                "UPDATE runs SET status = ?, attempt = ?, started = ?, finished = ?, last_seq = ?, "
                "error = ?, reusable = ?, outcome = ?, touched = micros_now(), open = NULL WHERE key = ?",
                (
                    end.status,
                    end.attempt,
                    after.started,
                    rows.micros(end.finished),
                    after.last_seq,
                    None if end.error is None else rows.text(end.error),
                    int(end.reusable),
                    bytes(end.outcome),
                    kept.key,
                ),
            )
            tx.execute("DELETE FROM cancels WHERE run = ?", (kept.key,))
            if end.status == "succeeded":
                tx.execute("DELETE FROM checkpoints WHERE scope = ?", (rows.text(end.run_id),))

    def delete(self, run_ids: Sequence[str]) -> int:
        """Forget ended runs with all that is under them; raises `RunBusyError` for one that has not ended."""
        with self._writing() as tx:
            going: list[tuple[Value, ...]] = []
            for run_id in map(rows.text, run_ids):
                going += tx.execute(f"{UNDER} SELECT key, id FROM under", (run_id,)).fetchall()
            going = list(dict.fromkeys(going))
            for key, run in going:
                found = tx.execute(
                    f"SELECT r.open FROM runs r WHERE r.key = ?{self.for_update}", (key,)
                ).fetchone()
                if found is not None and found[0]:
                    raise RunBusyError(str(run), self._holder(tx, key, found[0]))
            keys = [(key,) for key, _ in going]
            self._drop_events(tx, keys)
            for table in ("tags", "cancels", "details"):
                tx.executemany(f"DELETE FROM {table} WHERE run = ?", keys)
            tx.executemany("DELETE FROM checkpoints WHERE scope = ?", [(run,) for _, run in going])
            tx.executemany("DELETE FROM checkpoints WHERE run = ?", [(run,) for _, run in going])
            tx.executemany("DELETE FROM runs WHERE key = ?", keys)
            tx.execute(
                "DELETE FROM owners WHERE (gone = 1 OR seen < micros_now() - ?) "
                "AND key NOT IN (SELECT owner FROM runs)",
                (_DAY,),
            )
            return len(going)

    def put_environment(self, environment: Environment) -> None:
        """Record an environment; one that is there already stays."""
        with self._writing() as tx:
            tx.execute(
                "INSERT INTO environments (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
                (rows.text(environment.id), rows.encoded(environment)),
            )

    def put(self, scope: str, entries: Mapping[str, bytes], *, run_id: str | None = None) -> None:
        """Keep values under keys, replacing what is there, all or none; they go with a run that is named."""
        if not entries:
            return
        scope, run = rows.text(scope), rows.text_or_none(run_id)
        with self._writing() as tx:
            tx.executemany(
                "INSERT INTO checkpoints (scope, key, value, run) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, run = excluded.run",
                [(scope, rows.text(key), value, run) for key, value in entries.items()],
            )

    def remove(self, scope: str, keys: Sequence[str] | None = None) -> None:
        """Forget values, all of the scope's where `keys` is None; one that is not there is no error."""
        scope = rows.text(scope)
        with self._writing() as tx:
            if keys is None:
                tx.execute("DELETE FROM checkpoints WHERE scope = ?", (scope,))
            else:
                tx.executemany(
                    "DELETE FROM checkpoints WHERE scope = ? AND key = ?",
                    [(scope, rows.text(key)) for key in keys],
                )
