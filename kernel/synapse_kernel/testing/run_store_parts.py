"""What the parts of the run store's contract share: the fixtures, and runs, outcomes and events to keep."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec
import pytest

from synapse_kernel.events import Event, Log, State, Status
from synapse_kernel.owners import Owner, is_alive, this_process
from synapse_kernel.stores import RunEnd, RunRecord, RunStore

OpenStore: TypeAlias = Callable[[], RunStore]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""When the runs of the tests are made."""

# Long enough for any machine; none of it is waited for where all is well.
PATIENCE = 60.0

_PROCESS = """
import sys, msgspec
from synapse_kernel.owners import this_process
sys.stdout.buffer.write(msgspec.json.encode(this_process()) + b"\\n")
sys.stdout.flush()
sys.stdin.read()
"""


class StoreFixtures:
    """The fixtures; a subclass gives `open_store`."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return a function that opens a store on this test's place; to be overridden."""
        raise NotImplementedError("a subclass of RunStoreContract overrides the fixture open_store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[RunStore]:
        """Open a store that is empty."""
        with contextlib.closing(open_store()) as opened:
            yield opened

    @pytest.fixture
    def other(self, open_store: OpenStore, store: RunStore) -> Iterator[RunStore]:  # noqa: ARG002 - after it
        """Open the same place a second time."""
        with contextlib.closing(open_store()) as opened:
            yield opened

    @pytest.fixture
    def me(self) -> Owner:
        """Describe this process."""
        return this_process("me")

    @pytest.fixture
    def far(self) -> Owner:
        """Describe a process that cannot be looked at from here: its number means nothing on this side."""
        return msgspec.structs.replace(this_process("far"), namespace="another container")

    @pytest.fixture
    def process(self) -> Iterator[OtherProcess]:
        """Start a process that does nothing."""
        started = OtherProcess()
        yield started
        started.end()


class OtherProcess:
    """A process that lives until it is told otherwise; `owner` describes it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.owner = msgspec.json.decode(self._process.stdout.readline(), type=Owner)

    def suspend(self) -> None:
        """Stop it as Ctrl-Z does."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it, and leave what the system keeps of it: a zombie."""
        self._process.kill()
        end = time.monotonic() + PATIENCE
        while is_alive(self.owner):
            assert time.monotonic() < end, "the process does not die"
            time.sleep(0.001)

    def end(self) -> None:
        """Kill it and let nothing of it remain."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def record(run_id: str, *, after: float = 0.0, **changes: object) -> RunRecord:
    """Describe a run that was made some seconds after noon."""
    made = RunRecord(
        run_id=run_id,
        action="train",
        target="./plugin",
        created=NOON + timedelta(seconds=after),
        root=str(changes.get("parent") or run_id),
    )
    return msgspec.structs.replace(made, **changes)


def end(run_id: str, status: Status = "succeeded", *, result: object = None, attempt: int = 1) -> RunEnd:
    """Describe how it ended."""
    return RunEnd(
        run_id=run_id,
        status=status,
        finished=NOON + timedelta(minutes=1),
        attempt=attempt,
        outcome=msgspec.Raw(msgspec.json.encode({"run_id": run_id, "status": status, "result": result})),
        error=None if status == "succeeded" else "ValueError: no",
    )


def state(run_id: str, status: Status, seq: int = 1, *, attempt: int = 1, at: float = 0.0) -> State:
    """Make the event that tells of a new state, some seconds after noon."""
    return State(run_id, seq, NOON.timestamp() + at, "train", None, status, attempt)


def log(run_id: str, seq: int = 1, text: str = "said", *, at: float = 0.0) -> Log:
    """Make a log event, some seconds after noon."""
    raw = msgspec.Raw(msgspec.json.encode({"text": text}))
    return Log(run_id, seq, NOON.timestamp() + at, "train", None, text, "info", raw)


def events_of(store: RunStore, run_id: str) -> list[Event]:
    """Return all events of a run."""
    return [stored.event for stored in store.events(run_id)]


def ended(store: RunStore, owner: Owner, *run_ids: str, status: Status = "succeeded") -> None:
    """Record runs that have ended."""
    for run_id in run_ids:
        store.start(record(run_id), owner)
        store.finish(end(run_id, status))
