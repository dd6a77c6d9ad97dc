"""
A run store in SQL: what SQLite and PostgreSQL do alike.

The statements are of the part of SQL that both speak, with ``?`` for a value; a database gives the functions
`micros_now` (its clock, microseconds since the epoch) and `ticks_now` (a clock of this machine that no one
sets), or 0. What differs is behind the abstract methods.
"""

# ruff: noqa: S608 - statements are made of constants here; what comes from outside goes as values

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.owners import is_alive
from synapse_kernel.stores import CHANGEABLE, LEASE_SECONDS, RunBusyError, RunNotFoundError, StoreError
from synapse_plugins.history import rows
from synapse_plugins.history.rows import OWNER, Kept, Value
from synapse_plugins.history.sql_reading import UNDER, SqlReader, Transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from synapse_kernel.events import Event
    from synapse_kernel.owners import Owner
    from synapse_kernel.stores import Environment, RunEnd, RunRecord

_OWNED = "runs r JOIN owners o ON o.key = r.owner"
_DAY = 86_400_000_000
_NOW = "o.seen, o.ticks, o.gone, micros_now(), ticks_now()"


class SqlStore(SqlReader):
    """A `RunStore` over a connection that a subclass opens."""

    for_update = ""
    """What makes a SELECT keep its rows of `runs` from other transactions until this one ends."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Transaction]:
        """Enter a transaction that is committed at the end, or rolled back by an error."""

    @abstractmethod
    def _silence(self, owner: Owner, row: Sequence[Value]) -> float:
        """Return the seconds since a process was heard of, from the columns seen, ticks and both clocks."""

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

    def claim(
        self,
        run_id: str,
        owner: Owner,
        *,
        lease: float = LEASE_SECONDS,
        changes: Mapping[str, object] = MappingProxyType({}),
    ) -> RunRecord:
        """Take a run over for its next attempt; raises `RunBusyError` and `RunNotFoundError`."""
        fixed = sorted(set(changes) - set(CHANGEABLE))
        if fixed:
            raise ValueError(
                f"{', '.join(fixed)}: not what an attempt changes; that is {', '.join(CHANGEABLE)}"
            )
        with self._writing() as tx:
            # First the run alone: one who had to wait for it would be shown an owner of before.
            kept = self._kept(tx, run_id)
            key = kept.key
            holder = tx.execute(f"SELECT {OWNER}, {_NOW} FROM {_OWNED} WHERE r.key = ?", (key,)).fetchone()
            assert holder is not None
            if kept.open is not None and self._lives(holder, lease):
                raise RunBusyError(run_id, rows.owner_of(holder[:6]))
            tx.execute(
                "UPDATE runs SET status = 'pending', attempt = attempt + 1, started = NULL, finished = NULL, "
                "error = NULL, "
                "reusable = NULL, outcome = NULL, open = 1, owner = ? WHERE key = ?",
                (self._heard(tx, owner), key),
            )
            tx.execute("DELETE FROM cancels WHERE run = ?", (key,))
            if changes:
                self._change(tx, key, run_id, changes)
            claimed = self._record(tx, run_id)
        assert claimed is not None
        return claimed

    def _change(self, tx: Transaction, key: int, run_id: str, changes: Mapping[str, object]) -> None:
        record = self._record(tx, run_id)
        assert record is not None
        body = rows.fixed_part(msgspec.structs.replace(record, **changes))
        small = len(body) <= rows.LARGE
        tx.execute("UPDATE runs SET body = ? WHERE key = ?", (body if small else None, key))
        if not small:
            tx.execute(
                "INSERT INTO details (run, body) VALUES (?, ?) "
                "ON CONFLICT (run) DO UPDATE SET body = excluded.body",
                (key, body),
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
                if kept.open == 1:
                    raise RunBusyError(end.run_id, self._owner(tx, kept.key))
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
                if found == (1,):
                    raise RunBusyError(str(run), self._owner(tx, key))
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

    def request_cancel(self, run_id: str, reason: str = "cancelled") -> bool:
        """Ask the process of a run that has not ended to stop it; False if it has; `RunNotFoundError`."""
        with self._writing() as tx:
            kept = self._kept(tx, run_id)
            if kept.open != 1:
                return False
            tx.execute(
                "INSERT INTO cancels (run, reason) VALUES (?, ?) "
                "ON CONFLICT (run) DO UPDATE SET reason = excluded.reason",
                (kept.key, rows.text(reason)),
            )
            return True

    def cancel_requests(self, owner: Owner) -> list[tuple[str, str]]:
        """Return the runs of a process that were asked to stop, with the reason; each is told once."""
        asked = (
            "SELECT c.run, r.id FROM cancels c JOIN runs r ON r.key = c.run JOIN owners o ON o.key = r.owner "
            "WHERE o.token = ? AND r.open = 1 ORDER BY c.run"
        )
        with self._reading() as tx:
            if tx.execute(asked, (owner.token,)).fetchone() is None:
                return []
        told: list[tuple[str, str]] = []
        with self._writing() as tx:
            for key, run_id in tx.execute(asked, (owner.token,)).fetchall():
                taken = tx.execute("DELETE FROM cancels WHERE run = ? RETURNING reason", (key,)).fetchone()
                if taken is not None:
                    told.append((str(run_id), str(taken[0])))
        return told

    def heartbeat(self, owner: Owner) -> None:
        """Say that a process is alive; a run of it that was taken for crashed is ``running`` again."""
        with self._writing() as tx:
            tx.execute(
                "UPDATE runs SET open = 1, status = 'running', finished = NULL, error = NULL "
                "WHERE open = 0 AND owner = ?",
                (self._heard(tx, owner),),
            )

    def forget(self, owner: Owner) -> None:
        """Say that a process has ended its last run and will say nothing more."""
        with self._writing() as tx:
            tx.execute("UPDATE owners SET gone = 1 WHERE token = ?", (owner.token,))

    def reap(self, *, lease: float = LEASE_SECONDS) -> list[str]:
        """Mark as ``crashed`` the runs whose process is dead, and return their ids."""
        running = (
            f"SELECT o.key, {OWNER}, {_NOW} FROM owners o "
            "WHERE o.key IN (SELECT owner FROM runs WHERE open = 1) ORDER BY o.key"
        )
        with self._reading() as tx:
            if all(self._lives(row[1:], lease) for row in tx.execute(running).fetchall()):
                return []
        reaped: list[str] = []
        with self._writing() as tx:
            for key, *holder in tx.execute(running).fetchall():
                if self._lives(holder, lease):
                    continue
                dead = rows.owner_of(holder[:6])
                found = tx.execute(
                    "SELECT r.key, r.id, r.created, r.started, r.touched FROM runs r "
                    f"WHERE r.open = 1 AND r.owner = ? ORDER BY r.key{self.for_update}",
                    (key,),
                ).fetchall()
                error = rows.text(f"its process, {dead.pid} on {dead.host}, ended before it did")
                # They all ended with their process: at the last that any of them, or it, was heard of.
                last = max(int(t or 0) for t in (holder[6], *(t for _, _, *times in found for t in times)))
                tx.executemany(
                    "UPDATE runs SET open = 0, status = 'crashed', finished = ?, error = ? WHERE key = ?",
                    [(last, error, run) for run, *_ in found],
                )
                reaped += [str(run_id) for _, run_id, *_ in found]
        return reaped

    def _heard(self, tx: Transaction, owner: Owner, recent: int = 1_000_000) -> Value:
        """Note that a process is alive, unless it was within the last microseconds, and return its key."""
        found = tx.execute(
            "SELECT key FROM owners WHERE token = ? AND gone = 0 "
            "AND seen > micros_now() - ? AND seen <= micros_now()",
            (owner.token, recent),
        ).fetchone()
        if found is not None:
            return found[0]
        found = tx.execute(
            "INSERT INTO owners (token, host, pid, started, boot, namespace, seen, ticks) "
            "VALUES (?, ?, ?, ?, ?, ?, micros_now(), ticks_now()) ON CONFLICT (token) "
            "DO UPDATE SET seen = excluded.seen, ticks = excluded.ticks, gone = 0 RETURNING key",
            (owner.token, rows.text(owner.host), owner.pid, owner.started, owner.boot, owner.namespace),
        ).fetchone()
        assert found is not None
        return found[0]

    def _lives(self, row: Sequence[Value], lease: float) -> bool:
        """Tell whether a process lives, from its columns and `_NOW`."""
        owner, (seen, ticks, gone, *clocks) = rows.owner_of(row[:6]), row[6:]
        if gone:
            return False
        alive = is_alive(owner)
        return self._silence(owner, (seen, ticks, *clocks)) <= lease if alive is None else alive

    def _kept(self, tx: Transaction, run_id: str) -> Kept:
        found = tx.execute(
            "SELECT r.key, r.open, r.status, r.attempt, r.started, r.last_seq, r.root FROM runs r "
            f"WHERE r.id = ?{self.for_update}",
            (rows.text(run_id),),
        ).fetchone()
        if found is None:
            raise RunNotFoundError(run_id, url=self.url)
        return Kept(*found)  # type: ignore[arg-type]

    def _owner(self, tx: Transaction, key: Value) -> Owner:
        found = tx.execute(f"SELECT {OWNER} FROM {_OWNED} WHERE r.key = ?", (key,)).fetchone()
        assert found is not None
        return rows.owner_of(found)
