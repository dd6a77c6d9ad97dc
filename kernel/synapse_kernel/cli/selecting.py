"""Which recorded run a person means: an id, the beginning of one, or a word for the newest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.errors import UsageError
from synapse_kernel.stores import RunNotFoundError, RunQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import RunKind
    from synapse_kernel.stores import RunRecord, RunStore

NEWEST = {
    "@last": RunQuery(roots_only=True),
    "@last-failed": RunQuery(statuses=("failed", "crashed", "timed_out"), roots_only=True),
}
"""The words that stand for a run, and how it is found; ``~1`` behind one is the run before that."""

MOST_CANDIDATES = 10
MOST = 2**31 - 1
"""So many runs are asked for at most: a greater number is more than a store can count."""


def one_run(store: RunStore, given: str, *, kinds: tuple[RunKind, ...] = ()) -> RunRecord:
    """
    Return the run that a person means; of what `kinds` the words for the newest tell, those of all if empty.

    Raises `RunNotFoundError`, `UsageError` where several runs begin like this or none is there yet. Runs of
    dead processes are found as crashed only after `RunStore.reap`.
    """
    word, _, back = given.partition("~")
    query = NEWEST.get(word)
    if query is not None and (back.isdecimal() or word == given):
        # Of a number this long, the digits behind do not matter.
        before = min(int(back[:20] or 0), MOST - 1)
        newest = store.runs(msgspec.structs.replace(query, kinds=kinds, limit=before + 1))
        if len(newest) <= before:
            which = "failed run" if word == "@last-failed" else "run"
            of = " of a pipeline" if kinds == ("pipeline",) else ""
            there = f"only {len(newest)}" if newest else "none"
            raise UsageError(f"{given}: no such {which}{of} is in {store.url}, it has {there}")
        # Whole: what a store lists leaves a pipeline's definition out.
        return store.get(newest[before].run_id) or newest[before]
    exact = store.get(given)
    if exact is not None:
        return exact
    found = store.matching(given, MOST_CANDIDATES + 1) if given else []
    if len(found) > 1:
        raise UsageError(_ambiguous(store, given, found))
    record = store.get(found[0]) if found else None
    if record is None:
        raise RunNotFoundError(given, url=store.url)
    return record


def ago_text(moment: datetime, now: datetime | None = None) -> str:
    """Return a time as people say it, ``5 min ago``; one that is a month past or more as its date."""
    passed = ((now or datetime.now(UTC)) - moment).total_seconds()
    if passed < 1:
        return "just now"
    if passed < 60:
        return f"{int(passed)} s ago"
    if passed < 3600:
        return f"{int(passed // 60)} min ago"
    if passed < 86400:
        return f"{int(passed // 3600)} h ago"
    days = int(passed // 86400)
    if days < 30:
        return f"{days} day{'s' if days > 1 else ''} ago"
    return f"{moment.astimezone():%Y-%m-%d}"


def _ambiguous(store: RunStore, given: str, found: Sequence[str]) -> str:
    more = len(found) > MOST_CANDIDATES
    records = [record for run_id in found[:MOST_CANDIDATES] if (record := store.get(run_id)) is not None]
    lines = [
        f"  {record.run_id}  {record.action}  {record.status.replace('_', ' ')}  {ago_text(record.created)}"
        for record in records
    ]
    count = f"more than {MOST_CANDIDATES}" if more else str(len(found))
    return "\n".join([f"{given!r} is the beginning of {count} runs; give more of the id", *lines])
