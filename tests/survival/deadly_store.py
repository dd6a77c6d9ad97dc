"""A plugin for these tests: the store `deadly`, a SQLite store whose writes are boundaries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import boundaries

from synapse_kernel import Outcome
from synapse_kernel.events import Event, Log, State
from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import StoreSpec
from synapse_plugins.history.sqlite_store import SqliteStore

WRITES = ("start", "claim", "append", "finish", "put", "remove", "put_environment", "forget", "reap")


class DeadlyStore(SqliteStore):
    """Says what was acknowledged once it was."""

    def __init__(self, url: str) -> None:
        super().__init__(url.replace("deadly", "sqlite", 1))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        with super()._writing() as tx:
            yield tx
            boundaries.cross("before a commit")


def _bounded(name: str) -> Any:
    inner = getattr(SqliteStore, name)

    def call(self: DeadlyStore, *args: Any, **options: Any) -> Any:
        what = f"{name} {args[0]}" if args and isinstance(args[0], str) else name
        boundaries.cross(f"before {what}")
        returned = inner(self, *args, **options)
        boundaries.say(call=name, **_acknowledged(name, args))
        boundaries.cross(f"after {what}")
        return returned

    return call


def _acknowledged(name: str, args: Sequence[Any]) -> dict[str, object]:
    if name == "start":
        return {"run": args[0].run_id}
    if name == "append":
        return {"events": [[event.run_id, event.seq] for event in args[1]]}
    if name == "finish":
        events = args[1] if len(args) > 1 else ()
        ended = {"ended": args[0].run_id, "status": args[0].status}
        return {**ended, "events": [[event.run_id, event.seq] for event in events]}
    if name == "put":
        return {"scope": args[0], "keys": list(args[1])}
    return {}


for _name in WRITES:
    setattr(DeadlyStore, _name, _bounded(_name))


@hookimpl
def synapse_register_stores() -> list[StoreSpec]:
    return [StoreSpec(name="deadly", target="deadly_store:DeadlyStore", summary="", schemes=("deadly",))]


class Watcher:
    """A sink for which each event is a boundary."""

    def accept(self, events: Sequence[Event]) -> None:
        for event in events:
            what = event.event if isinstance(event, Log) else type(event).__name__.lower()
            what = event.state if isinstance(event, State) else what
            boundaries.cross(f"event {event.run_id} {what}")

    def close(self, outcome: Outcome) -> None:
        boundaries.cross(f"close {outcome.run_id}")
