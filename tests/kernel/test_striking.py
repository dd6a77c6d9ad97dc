"""A run in the thread that asked for it, stopped from another: by force, and never afterwards."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from synapse_kernel import Kernel, RunCancelled, RuntimeContext, action
from synapse_kernel.contracts import ActionRef, Outcome, RunPlace, Send, Task
from synapse_kernel.emitter import CancelToken
from synapse_kernel.events import State
from synapse_kernel.striking import FreshThreads, InlineJob, ThreadJob
from synapse_kernel.testing import RecordedSink

# A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

WAIT = 60


@pytest.fixture
def quick() -> Iterator[Kernel]:
    """Return a kernel that gives no grace worth speaking of."""
    with Kernel({"grace": 0.05}, strict=True) as kernel:
        yield kernel


@action
def busy(params: dict[str, Any], ctx: RuntimeContext) -> str:
    """Count for as long as it is told to, deaf to whoever asks it to stop."""
    params["started"].set()
    until = time.monotonic() + params.get("seconds", WAIT)
    while time.monotonic() < until:
        pass
    return "done"


@action
def interrupt(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Raise what a person's Ctrl-C raises."""
    params["started"].set()
    while not ctx.cancelled and params.get("when_told"):
        time.sleep(0.001)
    raise KeyboardInterrupt


@action
def stubborn(params: dict[str, Any], ctx: RuntimeContext) -> str:
    """Go on although it was struck once."""
    params["started"].set()
    try:
        while True:
            time.sleep(0.001)
    except RunCancelled:
        params["struck"].set()
    while True:
        time.sleep(0.001)


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Call in another thread; the list gets what it returned or raised."""
    said: list[object] = []

    def work() -> None:
        try:
            said.append(call())
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, said


def ended(thread: threading.Thread, said: list[object]) -> Outcome:
    """Wait for a thread and return the outcome it got."""
    thread.join(WAIT)
    assert not thread.is_alive()
    assert isinstance(said[0], Outcome), said
    return said[0]


def test_a_run_that_ignores_that_it_is_to_stop_is_broken_off_after_the_grace_period(quick: Kernel) -> None:
    sink, started = RecordedSink(), threading.Event()
    place = RunPlace(run_id="r1")
    thread, said = in_thread(lambda: quick.run(busy, params={"started": started}, sinks=[sink], place=place))
    assert started.wait(WAIT)

    assert quick.cancel("r1", "cancelled: enough") is True

    outcome = ended(thread, said)
    assert "cancelled" == outcome.status
    assert outcome.error is not None
    assert ("RunCancelled", "the run was cancelled: enough") == (outcome.error.type, outcome.error.message)
    assert ["pending", "running", "cancelled"] == [e.state for e in sink.events if isinstance(e, State)]


def test_a_second_request_without_grace_stops_it_at_once(kernel: Kernel) -> None:
    started = threading.Event()
    thread, said = in_thread(
        lambda: kernel.run(busy, params={"started": started}, place=RunPlace(run_id="r1"))
    )
    assert started.wait(WAIT)

    kernel.cancel("r1", grace=WAIT * 60)
    kernel.cancel("r1", grace=0)

    assert "cancelled" == ended(thread, said).status


def test_what_swallows_a_forced_stop_is_struck_again_when_asked_again(quick: Kernel) -> None:
    started, struck = threading.Event(), threading.Event()
    params = {"started": started, "struck": struck}
    thread, said = in_thread(lambda: quick.run(stubborn, params=params, place=RunPlace(run_id="r1")))
    assert started.wait(WAIT)

    quick.cancel("r1")
    assert struck.wait(WAIT)
    quick.cancel("r1", grace=0)

    assert "cancelled" == ended(thread, said).status


def test_a_run_that_is_cancelled_before_it_begins_does_not_run(kernel: Kernel) -> None:
    place = RunPlace(run_id="r1")

    class CancelsAtOnce(RecordedSink):
        def accept(self, events: Any) -> None:
            super().accept(events)
            kernel.cancel("r1", grace=0)

    thread, said = in_thread(
        lambda: kernel.run(busy, params={"started": threading.Event()}, sinks=[CancelsAtOnce()], place=place)
    )

    assert "cancelled" == ended(thread, said).status


def test_an_action_that_interrupts_itself_ends_its_own_run_alone(kernel: Kernel) -> None:
    thread, said = in_thread(lambda: kernel.run(interrupt, params={"started": threading.Event()}))

    outcome = ended(thread, said)
    assert "cancelled" == outcome.status
    assert outcome.error is not None
    assert "KeyboardInterrupt: the action interrupted its run" == (
        f"{outcome.error.type}: {outcome.error.message}"
    )


def test_nothing_strikes_after_an_action_that_interrupted_itself_as_it_was_told_to_stop(
    quick: Kernel,
) -> None:
    started = threading.Event()
    params = {"started": started, "when_told": True}

    def run_and_go_on() -> Outcome:
        outcome = quick.run(interrupt, params=params, place=RunPlace(run_id="r1"))
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        return outcome

    thread, said = in_thread(run_and_go_on)
    assert started.wait(WAIT)
    quick.cancel("r1")

    assert "cancelled" == ended(thread, said).status


def test_the_work_after_a_job_is_not_struck_however_late_it_is_cancelled() -> None:
    def work() -> str:
        job = InlineJob(CancelToken())
        job.over = True
        job.end()
        job.cancel(0)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        return "unharmed"

    thread, said = in_thread(work)
    thread.join(WAIT)

    assert ["unharmed"] == said


def test_what_is_under_way_with_the_lock_it_was_given_is_not_struck() -> None:
    """As where events are handed on: broken off in the middle, half of one would stand there."""
    sending, begun, done = threading.Lock(), threading.Event(), threading.Event()

    def run(task: Task, send: Send, token: CancelToken) -> Outcome:
        with sending:
            begun.set()
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                pass
            done.set()
        while True:
            pass

    task = Task(run_id="r", action="a", ref=ActionRef("m:a"))
    job = ThreadJob(run, task, lambda _events: None, sending=sending)
    assert begun.wait(WAIT)
    job.cancel(0)

    assert job.wait(WAIT) is None
    assert done.is_set()


def test_each_piece_of_work_has_a_thread_that_did_nothing_before() -> None:
    threads, own = FreshThreads(), threading.local()
    found: list[tuple[str, bool]] = []

    def work() -> None:
        found.append((threading.current_thread().name, hasattr(own, "left")))
        own.left = True

    for name in ("one", "two", "three"):
        threads.start(work, name).join(WAIT)

    assert [("one", False), ("two", False), ("three", False)] == found


def test_a_thread_is_ready_for_the_next_piece_of_work_once_one_is_done() -> None:
    threads, before = FreshThreads(), set(threading.enumerate())

    threads.start(lambda: None, "first").join(WAIT)
    (ready,) = (thread for thread in threading.enumerate() if thread not in before)

    assert ready is threads.start(lambda: None, "next")
    assert "next" == ready.name


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns every hundredth of a millisecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Let no finalizer run, of other tests' garbage: a stop that comes within one is lost to Python."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("grace", [0.0, 0.0005])
@pytest.mark.usefixtures("restless")
def test_no_stop_leaks_out_of_runs_that_are_cancelled_at_any_moment(grace: float) -> None:
    rounds = 500
    chance = random.Random(7)
    go, over = threading.Semaphore(0), threading.Semaphore(0)
    unexpected: list[object] = []
    statuses: dict[str, int] = {}
    with no_collection(), Kernel({"grace": grace}, strict=True) as kernel:

        def conduct() -> None:
            for number in range(rounds):
                go.release()
                place = RunPlace(run_id=f"r{number}")
                params = {"started": threading.Event(), "seconds": 0.001}
                try:
                    status = kernel.run(busy, params=params, place=place).status
                    statuses[status] = statuses.get(status, 0) + 1
                    # Where a stop that came too late would be raised.
                    for _ in range(500):
                        pass
                except BaseException as error:
                    unexpected.append((number, error))
                over.acquire()

        thread = threading.Thread(target=conduct, daemon=True)
        thread.start()
        for number in range(rounds):
            assert go.acquire(timeout=WAIT)
            until = time.perf_counter() + chance.uniform(0, 0.003)
            while time.perf_counter() < until:
                time.sleep(0)
            kernel.cancel(f"r{number}")
            kernel.cancel(f"r{number}", grace=0)
            over.release()
        thread.join(WAIT)

    assert not thread.is_alive()
    assert [] == unexpected
    assert {"cancelled", "succeeded"} == set(statuses)
    assert rounds == sum(statuses.values())
