"""Whose a run in SQL is: who began it, who goes on with it, who is alive, and who is asked to stop."""

# ruff: noqa: S608 - statements are made of constants here; what comes from outside goes as values

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.owners import is_alive
from synapse_kernel.stores import CHANGEABLE, LEASE_SECONDS, RunBusyError, RunNotFoundError, StoreError
from synapse_plugins.history import rows
from synapse_plugins.history.rows import GIVEN_UP, LEFT, OWNER, RUNNING_AGAIN, Kept, Value
from synapse_plugins.history.sql_reading import SqlReader, Transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from synapse_kernel.owners import Owner
    from synapse_kernel.stores import RunRecord

_OWNED = "runs r JOIN owners o ON o.key = r.owner"
_NOW = "o.seen, o.ticks, o.gone, micros_now(), ticks_now()"


class SqlOwnership(SqlReader):
    """The part of a `RunStore` that knows processes."""

    for_update = ""
    """What makes a SELECT keep its rows of `runs` from other transactions until this one ends."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Transaction]:
        """Enter a transaction that is committed at the end, or rolled back by an error."""

    @abstractmethod
    def _silence(self, owner: Owner, row: Sequence[Value]) -> float:
        """Return the seconds since a process was heard of, from the columns seen, ticks and both clocks."""

    def claim(
        self,
        run_id: str,
        owner: Owner,
        *,
        lease: float = LEASE_SECONDS,
        changes: Mapping[str, object] = MappingProxyType({}),
        elsewhere: bool = False,
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
            if kept.open in {0, 1}:
                self._refuse_held(tx, run_id, key, lease)
            goes_on = kept.open in {LEFT, GIVEN_UP} or (kept.open == 1 and self._is_lasting(tx, run_id))
            if goes_on and not elsewhere:
                raise RunBusyError(run_id, None)
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

    def release(self, run_id: str, owner: Owner) -> None:
        """Give up a run that goes on elsewhere; nothing where `owner` does not hold it."""
        with self._writing() as tx:
            kept = self._kept(tx, run_id)
            tx.execute(
                f"UPDATE runs SET open = {GIVEN_UP}, status = {RUNNING_AGAIN} "
                "WHERE key = ? AND open = 1 AND owner IN (SELECT key FROM owners WHERE token = ?)",
                (kept.key, owner.token),
            )

    def adopt(self, run_id: str, owner: Owner, *, lease: float = LEASE_SECONDS) -> RunRecord:
        """
        Look after a run that goes on elsewhere, and return it.

        Raises `RunBusyError`, `RunNotFoundError`, and `StoreError` for one that has ended.
        """
        with self._writing() as tx:
            kept = self._kept(tx, run_id)
            if kept.open is None:
                raise StoreError(f"Run {run_id} has ended in {self.url}: {kept.status}", url=self.url)
            if kept.open in {0, 1}:
                self._refuse_held(tx, run_id, kept.key, lease)
            tx.execute(
                f"UPDATE runs SET open = 1, status = {RUNNING_AGAIN}, finished = NULL, error = NULL, "
                "owner = ? WHERE key = ?",
                (self._heard(tx, owner), kept.key),
            )
            adopted = self._record(tx, run_id)
        assert adopted is not None
        return adopted

    def _refuse_held(self, tx: Transaction, run_id: str, key: int, lease: float) -> None:
        """Raise `RunBusyError` for a run whose process lives."""
        holder = tx.execute(f"SELECT {OWNER}, {_NOW} FROM {_OWNED} WHERE r.key = ?", (key,)).fetchone()
        assert holder is not None
        if self._lives(holder, lease):
            raise RunBusyError(run_id, rows.owner_of(holder[:6]))

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

    def request_cancel(self, run_id: str, reason: str = "cancelled") -> bool:
        """Ask the process of a run that has not ended to stop it; False if it has; `RunNotFoundError`."""
        with self._writing() as tx:
            kept = self._kept(tx, run_id)
            if not kept.open:
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
        """Say that a process is alive; what it seemed to have left behind meanwhile is its own again."""
        with self._writing() as tx:
            tx.execute(
                f"UPDATE runs SET open = 1, status = {RUNNING_AGAIN}, finished = NULL, error = NULL "
                f"WHERE open IN (0, {LEFT}) AND owner = ?",
                (self._heard(tx, owner),),
            )

    def forget(self, owner: Owner) -> None:
        """Say that a process has ended its last run and will say nothing more."""
        with self._writing() as tx:
            tx.execute("UPDATE owners SET gone = 1 WHERE token = ?", (owner.token,))

    def reap(self, *, lease: float = LEASE_SECONDS) -> list[str]:
        """Mark as ``crashed`` the runs whose process is dead, and return their ids; lasting ones go on."""
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
                    "SELECT r.key, r.id, coalesce(r.body, d.body), r.created, r.started, r.touched "
                    "FROM runs r LEFT JOIN details d ON d.run = r.key "
                    f"WHERE r.open = 1 AND r.owner = ? ORDER BY r.key{self.for_update}",
                    (key,),
                ).fetchall()
                lasting = [(run,) for run, _, body, *_ in found if rows.is_lasting(body)]
                tx.executemany(
                    f"UPDATE runs SET open = {LEFT}, status = {RUNNING_AGAIN} WHERE key = ?", lasting
                )
                crashed = [row for row in found if row[:1] not in lasting]
                error = rows.text(f"its process, {dead.pid} on {dead.host}, ended before it did")
                # They all ended with their process: at the last that any of them, or it, was heard of.
                last = max(int(t or 0) for t in (holder[6], *(t for row in crashed for t in row[3:])))
                tx.executemany(
                    "UPDATE runs SET open = 0, status = 'crashed', finished = ?, error = ? WHERE key = ?",
                    [(last, error, run) for run, *_ in crashed],
                )
                reaped += [str(run_id) for _, run_id, *_ in crashed]
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

    def _holder(self, tx: Transaction, key: Value, is_open: Value) -> Owner | None:
        """Return the process that has a run which has not ended, None where it goes on without one."""
        if is_open in {LEFT, GIVEN_UP}:
            return None
        found = tx.execute(f"SELECT {OWNER} FROM {_OWNED} WHERE r.key = ?", (key,)).fetchone()
        assert found is not None
        return rows.owner_of(found)

    def _is_lasting(self, tx: Transaction, run_id: str) -> bool:
        record = self._record(tx, run_id)
        return record is not None and record.lasting
