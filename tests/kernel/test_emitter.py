"""The emitter, from any thread to the sinks: nothing lost, in order, progress coalesced, secrets masked."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import pytest

from synapse_kernel import (
    Artifact,
    CancelToken,
    Event,
    Kernel,
    Log,
    Message,
    Metrics,
    Progress,
    RunCancelled,
    action as as_action,
)
from synapse_kernel.emitter import BATCH, FLUSH_SECONDS, Channel, Emitter, Pulse, current_step

MakeEmitter = Callable[..., Emitter]


@pytest.fixture
def sent() -> list[list[Event]]:
    """Return the batches that an emitter sends."""
    return []


@pytest.fixture
def emitter(sent: list[list[Event]]) -> Emitter:
    """Return an emitter without a pulse: it sends when it is flushed, closed, or has a full batch."""
    return Emitter("run-1", "train", sent.append)


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    made = Pulse()
    yield made
    made.close()


def all_of(sent: list[list[Event]]) -> list[Event]:
    return list(itertools.chain.from_iterable(sent))


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do the work in several threads that start together and switch as often as they can."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        barrier.wait(60)
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(interval)
    assert [] == errors


# Order and numbering.


def test_events_are_sent_in_the_order_they_were_said(emitter: Emitter, sent: list[list[Event]]):
    emitter.log("first", {"n": 1})
    emitter.metrics({"loss": 0.5}, "train")
    emitter.message("hello", "warning")
    emitter.artifact("weights", "/w.pt", 5)
    emitter.log("last", level="error")
    emitter.close()

    (batch,) = sent
    assert [Log, Metrics, Message, Artifact, Log] == [type(e) for e in batch]
    assert [1, 2, 3, 4, 5] == [e.seq for e in batch]
    assert {("run-1", "train", None)} == {(e.run_id, e.action, e.step) for e in batch}
    log, metrics, message, artifact, last = batch
    assert ("first", {"n": 1}, "info") == (log.event, log.data, log.level)
    assert ("train", {"loss": 0.5}) == (metrics.category, metrics.values)
    assert ("hello", "warning") == (message.text, message.context)
    assert ("weights", "/w.pt", 5) == (artifact.name, artifact.path, artifact.size)
    assert ("last", {}, "error") == (last.event, last.data, last.level)


def test_the_numbering_goes_on_where_it_is_told_to(sent: list[list[Event]]):
    emitter = Emitter("run-1", "train", sent.append, seq=41)

    emitter.log("a")
    emitter.progress(1)
    emitter.close()

    assert [42, 43] == [e.seq for e in all_of(sent)]


def test_a_full_batch_is_sent_at_once(emitter: Emitter, sent: list[list[Event]]):
    for n in range(3 * BATCH + 5):
        emitter.log("step", {"n": n})

    assert [BATCH] * 3 == [len(batch) for batch in sent]
    emitter.close()
    assert list(range(1, 3 * BATCH + 6)) == [e.seq for e in all_of(sent)]
    assert list(range(3 * BATCH + 5)) == [e.data["n"] for e in all_of(sent)]


def test_events_carry_the_step_of_their_thread(emitter: Emitter, sent: list[list[Event]]):
    def work(number: int) -> None:
        current_step.set(f"step-{number}")
        for _ in range(200):
            emitter.log("said", {"by": f"step-{number}"})
            emitter.progress(number, category="train")

    run_in_threads(4, work)
    emitter.log("outside")
    emitter.close()

    said = [e for e in all_of(sent) if isinstance(e, Log)]
    assert all(e.data["by"] == e.step for e in said[:-1])
    assert None is said[-1].step
    progress = {(e.step, e.current) for e in all_of(sent) if isinstance(e, Progress)}
    assert {(f"step-{n}", n) for n in range(4)} == progress


# Nothing is lost.


def test_nothing_is_lost_under_many_threads(pulse: Pulse, sent: list[list[Event]]):
    emitter = Emitter("run-1", "train", sent.append, pulse=pulse)
    threads, each = 8, 2000

    def work(number: int) -> None:
        for n in range(each):
            emitter.log("said", {"thread": number, "n": n})
            emitter.metrics({"n": n}, str(number))
            emitter.message(f"{number}/{n}")
            emitter.artifact(str(n), str(number), n)
            emitter.progress(n, each, str(number))

    run_in_threads(threads, work)
    emitter.close()

    events = all_of(sent)
    assert list(range(1, len(events) + 1)) == [e.seq for e in events]
    for number in range(threads):
        assert list(range(each)) == [
            e.data["n"] for e in events if isinstance(e, Log) and e.data["thread"] == number
        ]
        assert list(range(each)) == [
            e.values["n"] for e in events if isinstance(e, Metrics) and e.category == str(number)
        ]
        assert [f"{number}/{n}" for n in range(each)] == [
            e.text for e in events if isinstance(e, Message) and e.text.startswith(f"{number}/")
        ]
        assert list(range(each)) == [
            e.size for e in events if isinstance(e, Artifact) and e.path == str(number)
        ]
        last = [e for e in events if isinstance(e, Progress) and e.category == str(number)][-1]
        assert (each - 1, each) == (last.current, last.total)


def test_batches_are_sent_one_at_a_time_in_order():
    inside = 0
    overlaps = 0
    seen: list[int] = []

    def send(batch: list[Event]) -> None:
        nonlocal inside, overlaps
        inside += 1
        overlaps += inside != 1
        sleep(0)  # lets another thread run, were it allowed to
        seen.extend(e.seq for e in batch)
        inside -= 1

    emitter = Emitter("run-1", "train", send)

    def work(number: int) -> None:
        for n in range(3000):
            emitter.log("x", {"n": n})
            emitter.progress(n)
            if n % 20 == number:
                emitter.flush()

    run_in_threads(4, work)
    emitter.close()

    assert 0 == overlaps
    assert list(range(1, len(seen) + 1)) == seen
    assert 12_000 < len(seen)


def test_what_is_waiting_is_sent_without_being_asked(pulse: Pulse):
    arrived = threading.Event()
    emitter = Emitter("run-1", "train", lambda batch: arrived.set(), pulse=pulse)

    for _ in range(3):
        arrived.clear()
        emitter.log("one")
        assert arrived.wait(60)


def test_one_pulse_serves_many_emitters(pulse: Pulse):
    arrived = [threading.Event() for _ in range(20)]
    emitters = [
        Emitter("run", "train", lambda batch, event=event: event.set(), pulse=pulse) for event in arrived
    ]
    before = threading.active_count()

    for emitter in emitters:
        emitter.progress(1)

    assert all(event.wait(60) for event in arrived)
    assert threading.active_count() <= before + 1


def test_a_pulse_ends_when_it_is_closed_between_two_beats():
    before = set(threading.enumerate())
    pulse = Pulse()
    Emitter("run-1", "train", lambda batch: None, pulse=pulse).log("one")
    (thread,) = set(threading.enumerate()) - before
    sleep(FLUSH_SECONDS / 2)

    pulse.close()

    assert not thread.is_alive()


def test_nothing_is_said_after_the_end(emitter: Emitter, sent: list[list[Event]]):
    emitter.log("before")
    emitter.close()
    emitter.log("after")
    emitter.progress(1)
    emitter.close()

    assert ["before"] == [e.event for e in all_of(sent)]


# Progress is state.


def test_a_loop_of_progress_gives_the_last_value_alone(emitter: Emitter, sent: list[list[Event]]):
    for n in range(100_001):
        emitter.progress(n, 100_000)
    emitter.close()

    (event,) = all_of(sent)
    assert (100_000, 100_000, None, 100.0) == (event.current, event.total, event.category, event.percent)


def test_the_last_progress_of_each_category_is_sent(emitter: Emitter, sent: list[list[Event]]):
    for n in range(1000):
        emitter.progress(n, 1000, "train")
        emitter.progress(n / 2, None, "val")
        emitter.progress(2 * n)
    emitter.close()

    assert {("train", 999, 1000), ("val", 499.5, None), (None, 1998, None)} == {
        (e.category, e.current, e.total) for e in all_of(sent)
    }


def test_the_last_progress_of_each_step_is_sent(emitter: Emitter, sent: list[list[Event]]):
    for step in ("load", "train"):
        mark = current_step.set(step)
        for n in range(100):
            emitter.progress(n, 100, "files")
        current_step.reset(mark)
    emitter.close()

    assert {("load", "files", 99), ("train", "files", 99)} == {
        (e.step, e.category, e.current) for e in all_of(sent)
    }


def test_progress_that_did_not_move_is_sent_once(emitter: Emitter, sent: list[list[Event]]):
    emitter.progress(1, 2)
    emitter.flush()
    emitter.flush()
    emitter.close()

    assert 1 == len(all_of(sent))


def test_a_long_loop_of_progress_gives_few_events(kernel: Kernel, recorder: Any):
    @as_action
    def work(params, ctx):
        for n in range(300_001):
            ctx.set_progress(n, 300_000)

    outcome = kernel.run(work, sinks=[recorder])

    progress = recorder.of(Progress)
    # About ten a second; the bound leaves room for a slow machine's slow beats, not for one event a call.
    assert 1 <= len(progress) <= 10 * outcome.seconds + 10
    assert 300_000 == progress[-1].current
    currents = [e.current for e in progress]
    assert sorted(currents) == currents


def test_eta_needs_a_total_and_some_way(emitter: Emitter, sent: list[list[Event]]):
    emitter.progress(0, 10)
    emitter.flush()
    emitter.progress(5, 10)
    emitter.flush()
    emitter.progress(10, 10)
    emitter.flush()
    emitter.progress(3)
    emitter.close()

    first, half, whole, unknown = (e.eta for e in all_of(sent))
    assert None is first
    assert half is not None
    assert half >= 0
    assert 0 == whole
    assert None is unknown


def test_memory_stays_flat_over_millions_of_progress_calls(pulse: Pulse):
    received = 0

    def count(batch: list[Event]) -> None:
        nonlocal received
        received += len(batch)

    emitter = Emitter("run-1", "train", count, pulse=pulse)
    progress = emitter.progress
    for n in range(10_000):
        progress(n, 2_000_000, "train")
    tracemalloc.start()
    try:
        for n in range(200_000):
            progress(n, 2_000_000, "train")
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for n in range(200_000, 400_000):
            progress(n, 2_000_000, "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for n in range(2_000_000):
        progress(n, 2_000_000, "train")
    emitter.close()

    assert peak - before < 200_000
    assert received < 10_000


# What is said is a snapshot.


def test_changing_data_later_changes_nothing(emitter: Emitter, sent: list[list[Event]]):
    data: dict[str, Any] = {"list": [1], "inner": {"a": 1}}
    values = {"loss": 0.5}

    emitter.log("said", data)
    emitter.metrics(values)
    data["list"].append(2)
    data["inner"]["a"] = 2
    data["new"] = 1
    values["loss"] = 0.1
    emitter.close()

    log, metrics = all_of(sent)
    assert {"list": [1], "inner": {"a": 1}} == log.data
    assert {"loss": 0.5} == metrics.values


def test_changing_what_an_event_gave_changes_nothing(emitter: Emitter, sent: list[list[Event]]):
    emitter.log("said", {"list": [1]})
    emitter.close()
    (event,) = all_of(sent)

    event.data["list"].append(2)

    assert {"list": [1]} == event.data


# Secrets.


def test_data_under_secret_names_is_masked(emitter: Emitter, sent: list[list[Event]]):
    emitter.log("said", {"api_key": "hush", "inner": [{"HF_TOKEN": "hush"}], "keypoints": "17", "n": 1})
    emitter.close()

    (event,) = all_of(sent)
    assert {"api_key": "***", "inner": [{"HF_TOKEN": "***"}], "keypoints": "17", "n": 1} == event.data


def test_known_secret_values_are_masked_everywhere(sent: list[list[Event]]):
    emitter = Emitter("run-1", "train", sent.append, secrets=["open-sesame", 'quo"ted'])

    emitter.log("with open-sesame", {"a": "<open-sesame>", "b": ['say quo"ted'], "open-sesame": 1})
    emitter.metrics({"open-sesame": 1}, "open-sesame")
    emitter.message("open-sesame it is", "open-sesame")
    emitter.artifact("open-sesame", "/open-sesame/w", 1)
    emitter.progress(1, 2, "open-sesame")
    emitter.close()

    log, metrics, message, artifact, progress = all_of(sent)
    assert ("with ***", {"a": "<***>", "b": ["say ***"], "***": 1}) == (log.event, log.data)
    assert ({"***": 1}, "***") == (metrics.values, metrics.category)
    assert ("*** it is", "***") == (message.text, message.context)
    assert ("***", "/***/w") == (artifact.name, artifact.path)
    assert "***" == progress.category


# What is refused.


@pytest.mark.parametrize("value", ["5", b"5", None, float("nan"), float("inf"), [1], object], ids=repr)
def test_progress_that_is_no_number_is_refused(emitter: Emitter, sent: list[list[Event]], value: Any):
    with pytest.raises(TypeError) as raised:
        emitter.progress(value, 10)

    assert f"set_progress: current is not a number: {value!r}" == str(raised.value)
    emitter.close()
    assert [] == sent


@pytest.mark.parametrize("value", ["5", float("nan"), float("inf"), [1]], ids=repr)
def test_a_total_that_is_no_number_is_refused(emitter: Emitter, value: Any):
    with pytest.raises(TypeError) as raised:
        emitter.progress(1, value)

    assert f"set_progress: total is not a number: {value!r}" == str(raised.value)


def test_progress_in_numbers_of_other_kinds_is_taken(emitter: Emitter, sent: list[list[Event]]):
    class Scalar:
        def __float__(self) -> float:
            return 2.5

    emitter.progress(Scalar(), True)  # type: ignore[arg-type]
    emitter.close()

    (event,) = all_of(sent)
    assert (2.5, 1.0) == (event.current, event.total)


def test_a_metric_that_is_no_number_is_refused_by_name(emitter: Emitter, sent: list[list[Event]]):
    with pytest.raises(TypeError) as raised:
        emitter.metrics({"loss": "low"})

    assert "metric 'loss' is not a number: 'low'" == str(raised.value)
    emitter.close()
    assert [] == sent


@pytest.mark.parametrize("sinks", [None, ["none"]], ids=["no sinks", "the null sink"])
def test_mistakes_are_told_even_when_nobody_listens(kernel: Kernel, sinks: Any):
    @as_action
    def measure(params, ctx):
        ctx.set_metrics({"loss": "low"})

    @as_action
    def move(params, ctx):
        ctx.set_progress("far")

    assert "metric 'loss' is not a number: 'low'" == kernel.run(measure, sinks=sinks).error.message
    assert "set_progress: current is not a number: 'far'" == kernel.run(move, sinks=sinks).error.message


# Cancelling.


@pytest.mark.parametrize("call", ["log", "metrics", "message", "progress", "artifact"])
def test_every_call_is_a_place_where_a_cancelled_run_stops_once(
    emitter: Emitter, sent: list[list[Event]], call: str
):
    arguments: dict[str, tuple[Any, ...]] = {
        "log": ("e",),
        "metrics": ({"a": 1},),
        "message": ("m",),
        "progress": (1,),
        "artifact": ("n", "p", 1),
    }
    emitter.cancel()

    with pytest.raises(RunCancelled):
        getattr(emitter, call)(*arguments[call])
    getattr(emitter, call)(*arguments[call])
    emitter.close()

    assert 1 == len(all_of(sent))


def test_a_cancel_token_calls_back_once_and_keeps_the_first_reason():
    token = CancelToken()
    calls: list[str] = []
    token.on_set(lambda: calls.append("early"))

    token.set("timeout")
    token.set("cancelled")
    token.on_set(lambda: calls.append("late"))

    assert token.is_set
    assert "timeout" == token.reason
    assert ["early", "late"] == calls


# Sinks.


class Failing:
    """A sink that fails at the n-th batch."""

    def __init__(self, after: int = 0, *, at_close: bool = False) -> None:
        self.after = after
        self.at_close = at_close
        self.accepted = 0

    def accept(self, events: Any) -> None:
        if self.accepted == self.after:
            raise OSError("disk full")
        self.accepted += 1

    def close(self, outcome: Any) -> None:
        if self.at_close:
            raise OSError("cannot close")


@as_action
def talk(params, ctx):
    for n in range(3):
        ctx.log("step", {"n": n})
        ctx.end_log()
    return "done"


@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_sink_that_raises_is_off_for_the_run_with_one_warning_and_the_run_goes_on(
    kernel: Kernel, recorder: Any, caplog: pytest.LogCaptureFixture, after: int
):
    failing = Failing(after)

    with caplog.at_level(logging.WARNING):
        outcome = kernel.run(talk, sinks=[failing, recorder])

    assert "done" == outcome.unwrap()
    assert ["Sink 'Failing' failed and is off for this run: OSError: disk full"] == caplog.messages
    assert after == failing.accepted
    assert [0, 1, 2] == [e.data["n"] for e in recorder.of(Log)]
    assert outcome is recorder.outcome


def test_a_sink_that_fails_is_on_again_in_the_next_run(kernel: Kernel, caplog: pytest.LogCaptureFixture):
    failing = Failing(after=1)

    kernel.run(talk, sinks=[failing])
    failing.after = 1000
    kernel.run(talk, sinks=[failing])

    assert 1 == len(caplog.messages)
    assert failing.accepted > 2


def test_a_sink_that_fails_to_close_is_a_warning(kernel: Kernel, caplog: pytest.LogCaptureFixture):
    outcome = kernel.run(talk, sinks=[Failing(after=1000, at_close=True)])

    assert "done" == outcome.unwrap()
    assert ["Sink 'Failing' failed to close: OSError: cannot close"] == caplog.messages


def test_two_sinks_of_one_class_fail_apart(kernel: Kernel):
    first, second = Failing(after=1), Failing(after=1000)

    kernel.run(talk, sinks=[first, second])

    assert 1 == first.accepted
    assert 6 == second.accepted


def test_several_sources_get_one_numbering(recorder: Any):
    channel = Channel("run-1", "train", [("recorder", recorder)])
    first = Emitter("run-1", "train", channel.deliver)
    second = Emitter("run-1", "train", channel.deliver)

    for n in range(3):
        first.log("first", {"n": n})
        first.flush()
        second.log("second", {"n": n})
        second.flush()

    assert [1, 2, 3, 4, 5, 6] == [e.seq for e in recorder.events]
    assert ["first", "second"] * 3 == [e.event for e in recorder.events]
