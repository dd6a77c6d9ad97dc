"""Ways to break what makes a pipeline survive: each must be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synapse_kernel.events import Event
from synapse_plugins.history import recorder
from synapse_plugins.history.sqlite_store import SqliteStore
from synapse_plugins.pipelines.nodes import NodeRunner


def forgetful() -> None:
    """Run the nodes again that were done."""
    NodeRunner.restored = lambda runner, job: None  # type: ignore[method-assign]


def hasty() -> None:
    """Let a node's successors start before its outcome is recorded."""
    import threading

    finish = recorder.Recorder.close

    def later(self: recorder.Recorder, outcome: Any) -> None:
        if self._run_id and outcome.action != "survivor":
            timer = threading.Timer(0.5, finish, (self, outcome))
            timer.start()
        else:
            finish(self, outcome)

    recorder.Recorder.close = later  # type: ignore[method-assign]


def silent() -> None:
    """Acknowledge events without writing them."""

    def append(self: SqliteStore, run_id: str, events: list[Event]) -> None:
        pass

    import deadly_store

    SqliteStore.append = append  # type: ignore[assignment,method-assign]
    deadly_store.DeadlyStore.append = deadly_store._bounded("append")


def strange_ids() -> None:
    """Give a node another run each time."""
    import os

    NodeRunner.child_id = lambda runner, key: _id(key, os.getpid())  # type: ignore[method-assign]


def _id(key: str, pid: int) -> str:
    return f"{pid}-{key.replace('[', '-').replace(']', '')}"


def unannounced() -> None:
    """Undo the steps without noting that they are undone."""
    from synapse_kernel.step_checkpoints import Records

    Records.compensated = lambda records, step: None  # type: ignore[method-assign,misc]


SABOTAGES: dict[str, Callable[[], None]] = {
    "forgetful": forgetful,
    "hasty": hasty,
    "silent": silent,
    "unannounced": unannounced,
    "strange_ids": strange_ids,
}
