"""Between what the stores keep in columns and what the kernel knows: records, events, times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, get_args

import msgspec

from synapse_kernel.events import FINAL_STATUSES, Event, State, Status, encode_event
from synapse_kernel.owners import Owner
from synapse_kernel.stores import RunRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from synapse_kernel.stores import RunQuery

Value: TypeAlias = str | int | bytes | None
Row: TypeAlias = tuple[Value, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KINDS = {kind: str(kind.__struct_config__.tag) for kind in get_args(Event)}
_encode = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder(RunRecord).decode


class _Lasting(msgspec.Struct):
    lasting: bool = False


_decode_lasting = msgspec.json.Decoder(_Lasting).decode

OWNER = "o.token, o.host, o.pid, o.started, o.boot, o.namespace"
RECORD = (
    "coalesce(r.body, d.body), r.status, r.attempt, r.started, r.finished, r.last_seq, r.error, r.open, "
    f"{OWNER}"
)
"""The columns of a record, from `JOINED`."""
JOINED = "runs r JOIN owners o ON o.key = r.owner LEFT JOIN details d ON d.run = r.key"

LEFT, GIVEN_UP = 2, 3
"""What `open` is for a run that goes on elsewhere: its owner is dead, or has given it up."""
RUNNING_AGAIN = (
    f"CASE WHEN status IN ({', '.join(map(repr, sorted(FINAL_STATUSES)))}) THEN 'running' ELSE status END"
)
"""The status of a run that turns out not to have ended."""

LARGE = 2000
"""Bytes of a record's body beyond which it is kept apart."""


class Kept(NamedTuple):
    """What of a run changes with its events."""

    key: int
    open: int | None
    status: Status
    attempt: int
    started: int | None
    last_seq: int
    root: str


def micros(moment: datetime) -> int:
    """Return a time as microseconds since the epoch; a naive one is local."""
    return ((moment if moment.tzinfo else moment.astimezone()) - _EPOCH) // _MICROSECOND


def moment(value: int | None) -> datetime | None:
    """Return the time that `micros` gave."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def text(value: str) -> str:
    """Return a text that any database takes: what was said of a file may hold bytes that are no text."""
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def text_or_none(value: str | None) -> str | None:
    """Return `text` of what may be missing."""
    return None if value is None else text(value)


def encoded(value: object) -> bytes:
    """Encode as JSON; what is no text in it is written as `text` writes it."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_escaped(msgspec.to_builtins(value)))


def _escaped(plain: object) -> object:
    if isinstance(plain, str):
        return text(plain)
    if isinstance(plain, dict):
        return {_escaped(key): _escaped(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_escaped(value) for value in plain]
    return plain


def fixed_part(record: RunRecord) -> bytes:
    """Encode what of a record never changes; the definition apart, which may be large."""
    return encoded(
        msgspec.structs.replace(
            record,
            created=record.created.astimezone(UTC),
            root=root_of(record),
            definition=None,
            status="pending",
            attempt=1,
            started=None,
            finished=None,
            last_seq=0,
            owner=None,
            error=None,
        )
    )


def root_of(record: RunRecord) -> str:
    """Return the run at the top."""
    return record.root or record.parent or record.run_id


def owner_of(row: Sequence[Value]) -> Owner:
    """Make an owner of the columns `OWNER`."""
    token, host, pid, started, boot, namespace = row
    return Owner(token=token, host=host, pid=pid, started=started, boot=boot, namespace=namespace)  # type: ignore[arg-type]


def record_of(row: Sequence[Value], definition: Value = None) -> RunRecord:
    """Make a record of the columns `RECORD`."""
    body, status, attempt, started, finished, last_seq, error, is_open, *owner = row
    return msgspec.structs.replace(
        _decode_record(body),  # type: ignore[arg-type]
        status=status,
        attempt=attempt,
        started=moment(started),  # type: ignore[arg-type]
        finished=moment(finished),  # type: ignore[arg-type]
        last_seq=last_seq,
        error=error,
        owner=None if is_open in {LEFT, GIVEN_UP} else owner_of(owner),
        definition=None if definition is None else msgspec.json.decode(definition),  # type: ignore[arg-type]
    )


def is_lasting(body: Value) -> bool:
    """Tell from the body of a record whether the run outlives its process."""
    return _decode_lasting(body).lasting  # type: ignore[arg-type]


def event_rows(key: int, events: Sequence[Event]) -> list[tuple[int, str, bytes]]:
    """Encode events for the columns run, kind and body."""
    return [(key, _KINDS[type(event)], encode_event(event)) for event in events]


def moved_on(kept: Kept, events: Sequence[Event]) -> Kept:
    """
    Return what events make of a run.

    A state of an earlier attempt changes nothing: it comes from a process that was taken for dead, whose run
    another one goes on with. Nor does one of a run that has ended.
    """
    status, attempt, started = kept.status, kept.attempt, kept.started
    if kept.open:
        for event in events:
            if isinstance(event, State) and event.attempt >= attempt:
                status, attempt = event.state, event.attempt
                if started is None and status == "running":
                    started = round(event.time * 1_000_000)
    last_seq = max(kept.last_seq, max((event.seq for event in events), default=0))
    return kept._replace(status=status, attempt=attempt, started=started, last_seq=last_seq)


def beyond(prefix: str) -> str | None:
    """Return the first text, by code points, after all that start with a prefix; None if there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[end])
        if code < 0x10FFFF:
            # No text holds a surrogate.
            return prefix[:end] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def conditions(query: RunQuery, frequent: Collection[str] = ()) -> tuple[str, list[Value]]:
    """Return the WHERE clause of a query, for runs as r; `frequent` are those of its tags that many have."""
    terms: list[str] = []
    values: list[Value] = []
    for column, allowed in (("status", query.statuses), ("action", query.actions), ("kind", query.kinds)):
        if allowed:
            terms.append(f"r.{column} IN ({among(allowed)})")
            values += map(text, allowed)
    if query.since is not None:
        terms.append("r.created >= ?")
        values.append(micros(query.since))
    if query.until is not None:
        terms.append("r.created < ?")
        values.append(micros(query.until))
    if query.parent is not None:
        terms.append("r.parent = ?")
        values.append(text(query.parent))
    if query.roots_only:
        terms.append("r.parent IS NULL")
    for tag in query.tags:
        # A frequent tag is looked for in runs from the newest on; the few runs of another are fetched first.
        own = "EXISTS (SELECT 1 FROM tags WHERE run = r.key AND tag = ?)"
        terms.append(own if tag in frequent else "r.key IN (SELECT run FROM tags WHERE tag = ?)")
        values.append(text(tag))
    return (f"WHERE {' AND '.join(terms)}" if terms else ""), values


def among(values: Sequence[object]) -> str:
    """Return a placeholder for each value."""
    return ", ".join("?" * len(values))
