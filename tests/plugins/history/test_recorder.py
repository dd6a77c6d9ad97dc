"""The sink that records: what is in the store when, and what becomes of it when the store fails."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, SecretStr

from synapse_kernel import BaseAction, Kernel, RuntimeContext, UsageError, action
from synapse_kernel.contracts import Outcome, RunInfo, RunPlace
from synapse_kernel.control import Control
from synapse_kernel.events import Message, State
from synapse_kernel.opening import open_sinks
from synapse_kernel.preparation import RunOptions, prepare
from synapse_kernel.runs import conduct
from synapse_kernel.stores import RunStore, StoreError
from synapse_plugins.history import recorder
from synapse_plugins.history.recorder import BATCH, KEPT, SLICE, Heart, Recorder
from synapse_plugins.history.sqlite_store import SqliteStore

WAIT = 60


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Return the URL of a store that is not there yet."""
    return f"sqlite://{tmp_path}/history.db"


@pytest.fixture
def recording(place: str) -> Iterator[Kernel]:
    """Return a kernel that records."""
    with Kernel({"store": place}, strict=True) as kernel:
        yield kernel


@pytest.fixture
def other(place: str) -> Iterator[RunStore]:
    """Return the same store as another process would see it."""
    store = SqliteStore(place)
    yield store
    store.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for a minute at most."""
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def threads() -> list[str]:
    """Return the names of the threads that record."""
    return [thread.name for thread in threading.enumerate() if thread.name == "synapse-history"]


class Failing:
    """Fails as often as it is told to, as a store does whose disk is full."""

    def __init__(self, store: RunStore) -> None:
        self.failing = threading.Event()
        self.refused = 0
        for name in ("append", "finish"):
            setattr(store, name, self._wrapped(store, getattr(store, name)))

    def _wrapped(self, store: RunStore, call: Callable[..., None]) -> Callable[..., None]:
        def write(*given: Any) -> None:
            if self.failing.is_set():
                self.refused += 1
                raise StoreError("The disk is full", url=store.url)
            call(*given)

        return write


@pytest.fixture
def failing(recording: Kernel) -> Failing:
    """Return what makes the recording kernel's store fail."""
    assert recording.store is not None
    return Failing(recording.store)


@action
def call(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Call what it is given."""
    return params["call"](ctx)


@action
def hold(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Wait until told to stop."""
    while True:
        ctx.check_cancelled()
        time.sleep(0.01)


def run_as_part(kernel: Kernel, params: dict[str, Any]) -> Outcome:
    """Run an action as the only part of a run `p`, and return the part's outcome."""
    parts: list[Outcome] = []

    def begin(ctx: RuntimeContext) -> None:
        parts.append(kernel.run(call, params=params, place=RunPlace(parent="p", node="n")))

    kernel.run(call, params={"call": begin}, place=RunPlace(run_id="p"))
    return parts[0]


def messages(store: RunStore, run_id: str) -> list[str]:
    """Return what the recorded messages of a run say."""
    return [stored.event.text for stored in store.events(run_id, kinds=["message"])]  # type: ignore[union-attr]


def test_a_run_is_in_the_store_before_its_action_begins_and_its_end_before_anyone_hears_of_it(
    recording: Kernel, other: RunStore
) -> None:
    seen: list[object] = []

    def look(ctx: RuntimeContext) -> None:
        found = other.get(ctx.run_id)
        assert found is not None
        assert found.owner is not None
        seen.append((found.action, found.owner.token == recording.owner.token, other.outcome(ctx.run_id)))

    outcome = recording.run(call, params={"call": look})

    assert [("call", True, None)] == seen
    found = other.get(outcome.run_id)
    assert found is not None
    assert ("succeeded", outcome.finished) == (found.status, found.finished)
    assert "succeeded" == (other.outcome(outcome.run_id) or {})["status"]


def test_a_handles_run_is_recorded_when_its_result_is_there(recording: Kernel, other: RunStore) -> None:
    run = recording.submit(call, params={"call": lambda ctx: 3})

    assert run.result(WAIT).ok
    assert 3 == (other.outcome(run.id) or {})["result"]


def test_events_are_written_while_the_run_goes_on(recording: Kernel, other: RunStore) -> None:
    def speak(ctx: RuntimeContext) -> None:
        ctx.log_message("so far")
        wait_until(lambda: messages(other, ctx.run_id) == ["so far"])

    assert recording.run(call, params={"call": speak}).ok


def test_a_full_batch_is_written_at_once_by_who_brings_it(recording: Kernel) -> None:
    assert recording.store is not None
    writers: list[tuple[str, int]] = []
    append = recording.store.append

    def write(run_id: str, events: Any) -> None:
        writers.append((threading.current_thread().name, len(events)))
        append(run_id, events)

    recording.store.append = write  # type: ignore[method-assign]

    def speak(ctx: RuntimeContext) -> None:
        for number in range(BATCH * 3):
            ctx.log_message(str(number))

    outcome = recording.run(call, params={"call": speak})

    own = [count for name, count in writers if name == threading.current_thread().name]
    assert own
    assert BATCH <= min(own)
    assert [str(number) for number in range(BATCH * 3)] == messages(recording.store, outcome.run_id)


def test_every_event_is_in_the_store_in_order_and_without_a_gap(recording: Kernel, other: RunStore) -> None:
    def speak(ctx: RuntimeContext) -> None:
        threads = [threading.Thread(target=lambda: [ctx.log_message("x") for _ in range(3000)]) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    outcome = recording.run(call, params={"call": speak})

    seqs = [stored.event.seq for stored in other.events(outcome.run_id)]
    assert list(range(1, 6004)) == seqs
    found = other.get(outcome.run_id)
    assert found is not None
    assert 6003 == found.last_seq


def test_events_that_cannot_be_written_are_written_when_they_can_although_nothing_more_is_said(
    recording: Kernel, failing: Failing, other: RunStore
) -> None:
    def speak(ctx: RuntimeContext) -> None:
        failing.failing.set()
        ctx.log_message("meanwhile")
        wait_until(lambda: failing.refused > 0)
        failing.failing.clear()
        wait_until(lambda: messages(other, ctx.run_id) == ["meanwhile"])

    outcome = recording.run(call, params={"call": speak})

    assert outcome.ok
    assert outcome.unrecorded is None


def test_events_that_cannot_be_written_until_the_end_are_written_with_it(
    recording: Kernel, failing: Failing, other: RunStore
) -> None:
    def speak(ctx: RuntimeContext) -> None:
        failing.failing.set()
        for number in range(BATCH + 10):
            ctx.log_message(str(number))
        ctx.end_log()
        wait_until(lambda: failing.refused > 0)
        failing.failing.clear()

    outcome = recording.run(call, params={"call": speak})

    assert outcome.unrecorded is None
    assert [str(number) for number in range(BATCH + 10)] == messages(other, outcome.run_id)


def test_where_the_store_fails_until_the_end_the_outcome_says_so_and_the_run_is_unharmed(
    recording: Kernel, failing: Failing, other: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(ctx: RuntimeContext) -> str:
        failing.failing.set()
        return "done"

    outcome = recording.run(call, params={"call": fill})

    assert ("succeeded", "done") == (outcome.status, outcome.result)
    assert "The disk is full" == str(outcome.unrecorded)
    assert ["Sink 'history' failed to close: StoreError: The disk is full"] == [
        record.message for record in caplog.records
    ]
    assert other.outcome(outcome.run_id) is None


def test_a_store_that_raises_what_it_should_not_harms_no_other_run(
    recording: Kernel, other: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert recording.store is not None
    append = recording.store.append

    def refuse(run_id: str, events: Any) -> None:
        if run_id == "bad":
            raise LookupError("a bug")
        append(run_id, events)

    recording.store.append = refuse  # type: ignore[method-assign]
    go_on = threading.Event()

    def speak(ctx: RuntimeContext) -> None:
        ctx.log_message("heard")
        assert go_on.wait(WAIT)

    bad = recording.submit(call, params={"call": speak}, place=RunPlace(run_id="bad"))
    good = recording.submit(call, params={"call": speak}, place=RunPlace(run_id="good"))
    wait_until(lambda: messages(other, "good") == ["heard"])
    go_on.set()

    assert bad.result(WAIT).ok
    assert good.result(WAIT).ok
    assert ["heard"] == messages(other, "bad")
    assert ["The history of run bad waits, it cannot be written now: LookupError: a bug"] == [
        record.message for record in caplog.records if "waits" in record.message
    ]


class Away:
    """A store that nothing can be written to until it is back; notes who writes how many events a call."""

    def __init__(self, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back = False
        self.calls: list[tuple[str, int]] = []
        self._append, self._finish, self._url = store.append, store.finish, store.url
        monkeypatch.setattr(store, "append", self.append)
        monkeypatch.setattr(store, "finish", self.finish)

    def append(self, run_id: str, events: Any) -> None:
        """Write, if it is back."""
        self.note(events)
        self._append(run_id, events)

    def finish(self, end: Any, events: Any) -> None:
        """Write, if it is back."""
        self.note(events)
        self._finish(end, events)

    def note(self, events: Any) -> None:
        """Note a call, and refuse it unless it is back."""
        self.calls.append((threading.current_thread().name, len(events)))
        if not self.back:
            raise StoreError("The server is away", url=self._url)


def batches(run_id: str, count: int) -> Iterator[list[Any]]:
    """Return messages of a run, numbered on after its first state."""
    for start in range(2, count + 2, 1000):
        yield [
            Message(run_id, seq, 0.0, "a", None, str(seq), "info")
            for seq in range(start, min(start + 1000, count + 2))
        ]


def test_while_the_store_is_away_a_run_neither_waits_for_it_nor_tells_it_twice(
    recording: Kernel, other: RunStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert recording.store is not None
    monkeypatch.setattr(recorder, "LAST_RETRY_SECONDS", 0.1)
    sink = Recorder(info(recording), None)
    away = Away(recording.store, monkeypatch)
    sink.accept([State("r", 1, 0.0, "a", None, "running", 1)])
    wait_until(lambda: bool(away.calls))

    for batch in batches("r", 25_000):
        sink.accept(batch)
    own = [count for name, count in away.calls if name == threading.current_thread().name]
    wait_until(lambda: len(away.calls) > 2)
    away.back = True
    wait_until(lambda: [25_001] == [run.last_seq for run in other.runs()])

    assert [] == own
    assert SLICE == max(count for _, count in away.calls)
    assert ["The history of run r waits, it cannot be written now: StoreError: The server is away"] == [
        record.message for record in caplog.records
    ]
    assert list(range(1, 25_002)) == [stored.event.seq for stored in other.events("r")]
    sink.close(ended("r"))


def test_a_store_that_stays_away_is_tried_less_and_less_often(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recording.store is not None
    monkeypatch.setattr(Heart, "arm", lambda *_: None)
    sink = Recorder(info(recording), None)
    away = Away(recording.store, monkeypatch)
    sink.accept([State("r", 1, 0.0, "a", None, "running", 1)])

    waits = []
    for _ in range(9):
        assert sink.flush() is False
        waits.append(sink.retry_seconds)
    away.back = True

    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] == waits
    assert sink.flush() is True
    assert 0.0 == sink.retry_seconds
    sink.close(ended("r"))


def test_at_the_end_of_a_run_all_that_waits_is_tried_once_more_in_slices(
    recording: Kernel, other: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recording.store is not None
    sink = Recorder(info(recording), None)
    away = Away(recording.store, monkeypatch)
    for batch in batches("r", 25_000):
        sink.accept(batch)

    away.back = True
    sink.close(ended("r"))

    assert SLICE == max(count for _, count in away.calls)
    assert list(range(2, 25_002)) == [stored.event.seq for stored in other.events("r")]
    assert "succeeded" == (other.outcome("r") or {})["status"]


def test_beyond_what_is_kept_for_a_store_that_is_away_the_run_goes_on_unrecorded(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recording.store is not None
    sink = Recorder(info(recording), None)
    Away(recording.store, monkeypatch)
    for batch in batches("r", KEPT):
        sink.accept(batch)

    with pytest.raises(StoreError, match="The server is away"):
        sink.accept([State("r", KEPT + 2, 0.0, "a", None, "running", 1)])
    with pytest.raises(StoreError, match="The server is away"):
        sink.close(ended("r"))


def ended(run_id: str) -> Outcome:
    """Return the outcome of a run that succeeded."""
    now = datetime.now(UTC)
    return Outcome(run_id=run_id, status="succeeded", action="a", started=now, finished=now)


class Hidden(BaseModel):
    """Params with secrets."""

    pin: SecretStr = SecretStr("default-pin-hushhush")
    api_key: str = "default-key-hushhush"
    size: int = 3


class Leak(BaseAction[Hidden, dict[str, Any]]):
    """Says all it knows, wherever it can."""

    action_name = "leak"

    def execute(self) -> dict[str, Any]:
        """Say it, and fail if it is told to."""
        pin, key = self.params.pin.get_secret_value(), self.params.api_key
        ctx = self.ctx
        everything = f"{pin} {key} {ctx.env['MY_TOKEN']}"
        ctx.log_message(everything)
        ctx.log("said", {"text": everything, "password": "logged-word-hushhush", "list": [everything]})
        ctx.set_progress(1, 2, everything)
        ctx.set_metrics({"x": 1}, everything)
        ctx.logger.error(everything)
        if self.params.size > 3:
            raise ValueError(f"what is wrong is {everything}")
        return {"secret": "returned-word-hushhush", "text": everything, "nested": [{"note": everything}]}


@pytest.mark.parametrize("size", [3, 4], ids=["succeeds", "fails"])
def test_no_secret_is_in_the_bytes_of_the_database(tmp_path: Path, place: str, size: int) -> None:
    for given in ({}, {"pin": "given-pin-hushhush", "api_key": "given-key-hushhush"}):
        with Kernel({"store": place}, strict=True) as kernel:
            outcome = kernel.run(
                Leak, params={**given, "size": size}, env={"MY_TOKEN": "given-token-hushhush"}
            )
            assert kernel.store is not None
            assert 5 < len(kernel.store.events(outcome.run_id))

    raw = b"".join(file.read_bytes() for file in tmp_path.glob("history.db*"))
    assert b"leak" in raw
    assert b"***" in raw
    assert b"hushhush" not in raw


def test_a_result_with_a_secret_cannot_be_gone_on_from(recording: Kernel) -> None:
    outcome = run_as_part(recording, {"call": lambda ctx: {"api_key": "hush-hush"}})

    assert recording.store is not None
    assert {"api_key": "***"} == (recording.store.outcome(outcome.run_id) or {})["result"]
    assert {"api_key": "hush-hush"} == outcome.result
    assert [(False, None)] == [(c.reusable, c.result) for c in recording.store.children("p")]


def test_params_and_results_that_are_not_json_are_recorded_as_their_text(recording: Kernel) -> None:
    given = object()

    outcome = run_as_part(
        recording, {"call": lambda ctx: {1, 2}.__class__, "thing": given, "number": np.float32(0.5)}
    )

    assert recording.store is not None
    found = recording.store.get(outcome.run_id)
    assert found is not None
    assert (repr(given), 0.5) == (found.params["thing"], found.params["number"])
    assert "<class 'set'>" == (recording.store.outcome(outcome.run_id) or {})["result"]
    assert [False] == [child.reusable for child in recording.store.children("p")]


def test_another_process_stops_a_run_through_the_store(recording: Kernel, other: RunStore) -> None:
    run = recording.submit(hold, place=RunPlace(run_id="r1"))
    wait_until(lambda: run.status == "running")

    assert other.request_cancel("r1", "cancelled by a colleague") is True

    outcome = run.result(WAIT)
    assert outcome.error is not None
    assert ("cancelled", "the run was cancelled by a colleague") == (outcome.status, outcome.error.message)


def test_a_request_to_stop_that_comes_before_the_run_begins_is_not_lost(
    recording: Kernel, other: RunStore
) -> None:
    store = recording.store
    assert store is not None
    prepared = prepare(recording, hold, None, None, RunOptions(timeout=WAIT, place=RunPlace(run_id="r1")))
    first = recording.submit(hold)
    opened = open_sinks(recording, prepared)
    assert other.request_cancel("r1", "cancelled by a colleague") is True
    heart = recorder._heart_of(recording, store)
    for _ in range(3):
        heart._hear()

    outcome = conduct(recording, prepared, Control(0.1), opened)

    first.cancel()
    assert "cancelled" == first.result(WAIT).status
    assert outcome.error is not None
    assert "the run was cancelled by a colleague" == outcome.error.message


def test_a_request_to_stop_is_kept_while_the_store_cannot_take_it_back(
    recording: Kernel, other: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = recording.store
    assert store is not None
    prepared = prepare(recording, hold, None, None, RunOptions(timeout=WAIT, place=RunPlace(run_id="r1")))
    first = recording.submit(hold)
    opened = open_sinks(recording, prepared)
    heart = recorder._heart_of(recording, store)

    def refuse(*_: object) -> bool:
        raise StoreError("The disk is full", url="")

    with monkeypatch.context() as patched:
        patched.setattr(store, "request_cancel", refuse)
        assert other.request_cancel("r1") is True
        wait_until(lambda: bool(heart._asked))
    outcome = conduct(recording, prepared, Control(0.1), opened)

    first.cancel()
    assert "cancelled" == first.result(WAIT).status
    assert "cancelled" == outcome.status


def test_a_request_to_stop_a_run_whose_end_could_not_be_recorded_is_not_asked_again(
    recording: Kernel, failing: Failing, other: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = recording.store
    assert store is not None
    failing.failing.set()
    assert recording.run(call, params={"call": lambda ctx: 3}, place=RunPlace(run_id="r1")).unrecorded
    failing.failing.clear()
    assert other.request_cancel("r1") is True

    with recording.submit(hold):
        wait_until(lambda: not asked_to_stop(other))  # type: ignore[arg-type]
        for _ in range(3):
            recorder._heart_of(recording, store)._hear()
            assert [] == asked_to_stop(other)  # type: ignore[arg-type]


def asked_to_stop(store: SqliteStore) -> list[Any]:
    """Return the requests to stop that are in the store."""
    with store._reading() as tx:
        return tx.execute("SELECT reason FROM cancels").fetchall()


def test_a_kernel_without_runs_leaves_the_store_alone(recording: Kernel) -> None:
    recording.run(call, params={"call": lambda ctx: None})
    assert recording.store is not None
    asked: list[str] = []
    for name in ("cancel_requests", "heartbeat", "append"):
        setattr(recording.store, name, lambda *_, name=name: asked.append(name) or [])  # type: ignore[func-returns-value]

    heart = recorder._heart_of(recording, recording.store)
    heart._hear()
    heart._live()

    assert [] == asked


def test_one_thread_records_for_a_kernel_and_ends_with_it(place: str) -> None:
    with Kernel({"store": place}, strict=True) as kernel:
        assert [] == threads()
        for _ in range(3):
            kernel.run(call, params={"call": lambda ctx: None})
        assert ["synapse-history"] == threads()
    assert [] == threads()


def test_two_kernels_of_a_process_record_side_by_side(place: str, tmp_path: Path) -> None:
    second_place = f"sqlite://{tmp_path}/second.db"
    with (
        Kernel({"store": place}, strict=True) as first,
        Kernel({"store": second_place}, strict=True) as second,
    ):
        for kernel in (first, second):
            kernel.run(call, params={"call": lambda ctx: None})
        assert first.store is not None
        assert second.store is not None
        assert (1, 1) == (first.store.count(), second.store.count())
        assert 2 == len(threads())
    assert [] == threads()


def test_the_thread_of_a_kernel_that_was_forgotten_ends(place: str) -> None:
    kernel = Kernel({"store": place}, strict=True)
    kernel.run(call, params={"call": lambda ctx: None})
    assert kernel.store is not None
    kernel.store.close()

    del kernel
    gc.collect()

    wait_until(lambda: threads() == [])


def test_a_kernel_that_was_shut_down_records_nothing_more(place: str, other: SqliteStore) -> None:
    with Kernel({"store": place}, strict=True) as kernel:
        kernel.run(call, params={"call": lambda ctx: None})

    outcomes = [kernel.run(call, params={"call": lambda ctx: None}, record=wish) for wish in (None, True)]

    assert ["cancelled", "cancelled"] == [outcome.status for outcome in outcomes]
    assert [] == threads()
    assert isinstance(kernel.store, SqliteStore)
    assert kernel.store._connection is None
    assert 1 == other.count()


FORKING = """
    import os, signal, sys, time
    from synapse_kernel import Kernel, action
    from synapse_kernel.contracts import RunPlace

    @action
    def add(params):
        return 3

    @action
    def die(params, ctx):
        until = time.monotonic() + 60
        while kernel.store.get(ctx.run_id).status != "running":
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    kernel = Kernel({"store": sys.argv[1]})
    kernel.run(add)
    child = os.fork()
    if child == 0:
        try:
            kernel.run(die, place=RunPlace(run_id="forked"))
        finally:
            os._exit(1)
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert kernel.store.reap() == ["forked"], "not reaped"
    assert kernel.run(add).unrecorded is None
    print(child, os.getpid())
    kernel.shutdown()
"""


def test_a_forked_process_records_under_its_own_name_and_dies_alone(place: str, other: RunStore) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKING), place],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT * 2,
    )

    assert (0, "") == (done.returncode, done.stderr)
    child, parent = map(int, done.stdout.split())
    found = [(run.status, run.owner.pid) for run in other.runs() if run.owner is not None]
    assert [("succeeded", parent), ("crashed", child), ("succeeded", parent)] == found


def test_after_the_kernel_has_shut_down_its_process_counts_as_gone(place: str, other: SqliteStore) -> None:
    with Kernel({"store": place}, strict=True) as kernel:
        kernel.run(call, params={"call": lambda ctx: None})
        owner = kernel.owner

    with other._reading() as tx:
        assert (1,) == tx.execute("SELECT gone FROM owners WHERE token = ?", (owner.token,)).fetchone()


def test_the_environment_is_recorded_once_and_found_from_each_run(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import platform

    assert recording.store is not None
    put: list[str] = []
    original = recording.store.put_environment
    monkeypatch.setattr(
        recording.store, "put_environment", lambda e: (put.append(e.id), original(e)), raising=True
    )

    runs = [recording.run(call, params={"call": lambda ctx: None}).run_id for _ in range(3)]

    found = {record.environment for run_id in runs if (record := recording.store.get(run_id))}
    assert put == list(found)
    environment = recording.store.environment(put[0])
    assert environment is not None
    assert platform.python_version() == environment.python
    assert f"{platform.system()}-{platform.release()}-{platform.machine()}" == environment.platform
    assert {"synapse-kernel", "pytest", "msgspec"} <= environment.packages.keys()


def test_a_run_says_where_it_was_started(
    recording: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    outcome = recording.run(
        call,
        params={"call": lambda ctx: None},
        timeout=30,
        retries=2,
        env={"B": "secret", "A": "2"},
    )

    assert recording.store is not None
    found = recording.store.get(outcome.run_id)
    assert found is not None
    assert (str(tmp_path), 30.0, 2, ["B", "A"]) == (found.cwd, found.timeout, found.retries, found.env_names)


def test_the_sink_asked_for_by_name_does_not_record_twice(recording: Kernel) -> None:
    outcome = recording.run(call, params={"call": lambda ctx: None}, sinks=["history"])

    assert outcome.ok
    assert recording.store is not None
    assert 3 == len(recording.store.events(outcome.run_id))


def info(kernel: Kernel | None) -> RunInfo:
    """Describe a run of a kernel."""
    made = RunInfo(run_id="r", action="a", target="t", executor="local", params={}, started=datetime.now(UTC))
    made.__dict__["kernel"] = kernel
    return made


def test_the_sink_is_not_opened_without_a_store(kernel: Kernel) -> None:
    for given in (None, kernel):
        with pytest.raises(UsageError) as caught:
            Recorder(info(given), None)
        assert "The sink 'history' records in the kernel's run store; the setting store names none" == (
            str(caught.value)
        )


def test_the_sink_takes_no_argument(recording: Kernel) -> None:
    with pytest.raises(UsageError) as caught:
        Recorder(info(recording), "x.db")
    assert "The sink 'history' takes no argument, got 'x.db'" == str(caught.value)


def test_nothing_is_logged_about_runs_that_are_recorded(
    recording: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        recording.run(call, params={"call": lambda ctx: os.getpid()})
    assert [] == caplog.records
