"""The life of a run: its outcome, its handle, its attempts, and its one final state."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import (
    BaseAction,
    Event,
    ExecutorSpec,
    Kernel,
    Log,
    Message,
    Outcome,
    RunCancelled,
    RunFailedError,
    RuntimeContext,
    State,
    UnknownNameError,
    UsageError,
    action,
    hookimpl,
)
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.testing import RecordedSink

# A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

WAIT = 60


class Keep(RecordedSink):
    """Tells each state with its attempt."""

    @property
    def attempts(self) -> list[tuple[str, int]]:
        return [(event.state, event.attempt) for event in self.of(State)]


def final_states(events: list[Event]) -> list[str]:
    return [e.state for e in events if isinstance(e, State) and e.state in FINAL_STATUSES]


@pytest.fixture
def quick() -> Iterator[Kernel]:
    """Return a kernel that retries at once and gives no grace worth speaking of."""
    with Kernel({"retry": {"initial": 0.001, "maximum": 0.001}, "grace": 0.05}, strict=True) as kernel:
        yield kernel


@action
def add(params: dict[str, Any], ctx: RuntimeContext) -> int:
    """Add two numbers."""
    return params["a"] + params["b"]


@action
def divide(params: dict[str, Any], ctx: RuntimeContext) -> float:
    """Divide two numbers."""
    return params["a"] / params["b"]


@action
def talk(params: dict[str, Any], ctx: RuntimeContext) -> str:
    """Say three things."""
    for number in range(3):
        ctx.log("said", {"number": number})
    return "done"


@action
def gated(params: dict[str, Any], ctx: RuntimeContext) -> str:
    """Say `first`, wait for the gate, say `second`; cancelled, it stops."""
    ctx.log_message("first")
    ctx.end_log()
    while not params["gate"].wait(0.01):
        ctx.check_cancelled()
    ctx.log_message("second")
    return "through"


class Flaky(BaseAction[dict[str, Any]]):
    """Fails until the attempt that is given."""

    def execute(self) -> int:
        if self.ctx.attempt < self.params["succeeds_at"]:
            raise OSError(f"attempt {self.ctx.attempt}")
        return self.ctx.attempt


def test_an_outcome_of_success_has_result_and_times(kernel: Kernel):
    before = datetime.now(UTC)

    outcome = kernel.run(add, params={"a": 1, "b": 2})

    assert ("succeeded", True, 3, None, None) == (
        outcome.status,
        outcome.ok,
        outcome.result,
        outcome.error,
        outcome.exception,
    )
    assert ("add", 1, []) == (outcome.action, outcome.attempts, outcome.warnings)
    assert before <= outcome.started <= outcome.finished <= datetime.now(UTC)
    assert outcome.seconds == (outcome.finished - outcome.started).total_seconds()
    assert 16 == len(outcome.run_id)
    assert 3 == outcome.unwrap()


def test_an_outcome_of_failure_holds_the_error_as_data_and_the_exception_itself(kernel: Kernel):
    outcome = kernel.run(divide, params={"a": 1, "b": 0})

    assert outcome.error is not None
    assert ("failed", False, None) == (outcome.status, outcome.ok, outcome.result)
    assert ("ZeroDivisionError", "division by zero", "action") == (
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
    )
    assert isinstance(outcome.exception, ZeroDivisionError)
    assert outcome.error.traceback.splitlines()[1].endswith("in divide")
    with pytest.raises(RunFailedError) as caught:
        outcome.unwrap()
    assert f"Run {outcome.run_id} failed: ZeroDivisionError: division by zero" == str(caught.value)
    assert caught.value.__cause__ is outcome.exception


def test_an_outcome_is_json_like_data_on_demand(kernel: Kernel):
    data = kernel.run(add, params={"a": 1, "b": 2}).to_dict()

    assert {
        "run_id",
        "status",
        "action",
        "started",
        "finished",
        "result",
        "error",
        "attempts",
        "warnings",
    } == set(data)
    assert ("succeeded", 3) == (data["status"], data["result"])


def test_each_run_has_an_id_of_its_own(kernel: Kernel):
    assert 10 == len({kernel.run(add, params={"a": 1, "b": 2}).run_id for _ in range(10)})


def test_a_run_says_its_states_around_what_the_action_says(kernel: Kernel):
    sink = Keep()

    outcome = kernel.run(talk, sinks=[sink])

    told = [e.state if isinstance(e, State) else e.event for e in sink.events if isinstance(e, (State, Log))]
    assert ["pending", "running", "said", "said", "said", "succeeded"] == told
    assert list(range(1, 7)) == [event.seq for event in sink.events]
    assert {outcome.run_id} == {event.run_id for event in sink.events}
    assert [outcome] == sink.outcomes


def test_submit_returns_at_once_with_a_handle(kernel: Kernel):
    gate = threading.Event()

    run = kernel.submit(gated, params={"gate": gate})

    assert not run.done
    assert run.status in {"pending", "running"}
    gate.set()
    outcome = run.result(WAIT)
    assert (run.id, "through") == (outcome.run_id, outcome.result)
    assert (True, "succeeded") == (run.done, run.status)


def test_events_of_a_handle_come_as_they_are_said(kernel: Kernel):
    gate = threading.Event()
    run = kernel.submit(gated, params={"gate": gate})

    seen: list[str] = []
    for event in run.events():
        if isinstance(event, Message):
            seen.append(event.text)
            gate.set()  # only now can the action say the second

    assert ["first", "second"] == seen
    assert "succeeded" == run.status


def test_events_of_a_handle_are_replayed_to_those_who_come_late(kernel: Kernel):
    run = kernel.submit(talk)
    run.result(WAIT)

    first, second = list(run.events()), list(run.events())

    assert first == second
    assert list(range(1, 7)) == [event.seq for event in first]
    assert ["succeeded"] == final_states(first)


def test_two_readers_of_a_run_see_the_same_events(kernel: Kernel):
    gate = threading.Event()
    run = kernel.submit(gated, params={"gate": gate})
    seen: list[list[int]] = [[], []]

    def read(into: list[int]) -> None:
        into.extend(event.seq for event in run.events())

    readers = [threading.Thread(target=read, args=(into,)) for into in seen]
    for reader in readers:
        reader.start()
    gate.set()
    for reader in readers:
        reader.join(WAIT)

    assert [1, 2, 3, 4, 5] == seen[0] == seen[1]


def test_a_handle_keeps_the_newest_events_and_its_status(kernel: Kernel):
    """More events than are kept must not push the state out of the handle."""
    reached, gate = threading.Event(), threading.Event()

    @action
    def chatter(params: dict[str, Any], ctx: RuntimeContext) -> None:
        for number in range(70_000):
            ctx.log("n", {"n": number})
        ctx.end_log()
        reached.set()
        gate.wait(WAIT)

    run = kernel.submit(chatter)
    assert reached.wait(WAIT)

    assert "running" == run.status
    gate.set()
    run.result(WAIT)
    kept = list(run.events())
    assert run.EVENTS_KEPT == len(kept)
    assert 70_003 == kept[-1].seq


def test_result_raises_timeout_error_and_the_run_goes_on(kernel: Kernel):
    gate = threading.Event()
    run = kernel.submit(gated, params={"gate": gate})
    next(iter(e for e in run.events() if isinstance(e, Message)))

    with pytest.raises(TimeoutError) as caught:
        run.result(0.01)

    assert f"run {run.id} is still running after 0.01 s" == str(caught.value)
    gate.set()
    assert "through" == run.result(WAIT).result


def test_cancel_returns_at_once_and_the_run_ends_cancelled(quick: Kernel):
    run = quick.submit(gated, params={"gate": threading.Event()})
    next(iter(e for e in run.events() if isinstance(e, Message)))

    run.cancel(grace=WAIT)

    outcome = run.result(WAIT)
    assert outcome.error is not None
    assert ("cancelled", "RunCancelled", "the run was cancelled", "cancelled") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
    )
    assert ["cancelled"] == final_states(list(run.events()))


def test_a_reason_for_cancelling_is_told(quick: Kernel):
    run = quick.submit(gated, params={"gate": threading.Event()})

    run.cancel(reason="by the night watch")

    error = run.result(WAIT).error
    assert error is not None
    assert "the run was cancelled: by the night watch" == error.message


def test_a_run_cancelled_at_once_never_succeeds(quick: Kernel):
    for _ in range(50):
        run = quick.submit(gated, params={"gate": threading.Event()})
        run.cancel()

        assert "cancelled" == run.result(WAIT).status
        assert ["cancelled"] == final_states(list(run.events()))


def test_cancelling_a_run_that_is_over_changes_nothing(kernel: Kernel):
    run = kernel.submit(talk)
    run.result(WAIT)

    run.cancel()

    assert "succeeded" == run.result(WAIT).status


def test_an_action_that_finishes_although_it_was_told_to_stop_has_succeeded(kernel: Kernel):
    told = threading.Event()

    @action
    def stubborn(params: dict[str, Any], ctx: RuntimeContext) -> str:
        told.wait(WAIT)
        try:
            while True:
                ctx.check_cancelled()
        except RunCancelled:
            return "nearly done anyway"

    run = kernel.submit(stubborn)
    run.cancel(grace=WAIT)
    told.set()

    if run.result(WAIT).status == "succeeded":  # else it was told before it began
        assert "nearly done anyway" == run.result(WAIT).result


def test_done_callbacks_are_called_with_the_run_early_and_late(kernel: Kernel):
    gate, called = threading.Event(), threading.Event()
    run = kernel.submit(gated, params={"gate": gate})
    seen: list[object] = []

    def callback(done_run: object) -> None:
        seen.append((done_run, run.done))
        called.set()

    run.add_done_callback(callback)
    assert [] == seen
    gate.set()
    assert called.wait(WAIT)
    run.add_done_callback(callback)

    assert [(run, True), (run, True)] == seen


def test_a_done_callback_that_raises_is_logged_and_hinders_no_other(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
):
    gate, called = threading.Event(), threading.Event()
    run = kernel.submit(gated, params={"gate": gate})

    def broken(_: object) -> None:
        raise OSError("no one listens")

    run.add_done_callback(broken)
    run.add_done_callback(lambda _: called.set())
    with caplog.at_level(logging.ERROR, "synapse_kernel"):
        gate.set()
        assert called.wait(WAIT)

    assert f"a done callback of run {run.id} failed" in caplog.text
    assert "OSError: no one listens" in caplog.text


def test_leaving_the_context_of_a_handle_cancels_it(quick: Kernel):
    with quick.submit(gated, params={"gate": threading.Event()}) as run:
        pass

    assert "cancelled" == run.status


def test_a_handle_can_be_awaited(kernel: Kernel):
    async def main() -> list[Outcome]:
        runs = [kernel.submit(add, params={"a": n, "b": n}) for n in range(3)]
        return [*await asyncio.gather(*(outcome(run) for run in runs)), await runs[0]]

    async def outcome(run: Any) -> Outcome:
        found: Outcome = await run
        return found

    assert [0, 2, 4, 0] == [found.result for found in asyncio.run(main())]


def test_giving_up_an_await_leaves_the_run_alone(kernel: Kernel):
    """The loop that awaited is closed when the run ends: that must not disturb the run."""
    gate = threading.Event()
    run = kernel.submit(gated, params={"gate": gate})

    async def main() -> None:
        async def outcome() -> Outcome:
            found: Outcome = await run
            return found

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(outcome(), 0.01)

    asyncio.run(main())
    gate.set()

    assert "through" == run.result(WAIT).result


def test_events_can_be_read_with_async_for(kernel: Kernel):
    gate = threading.Event()

    async def main() -> tuple[list[str], list[int]]:
        run = kernel.submit(gated, params={"gate": gate})
        live: list[str] = []
        async for event in run.events():
            if isinstance(event, Message):
                live.append(event.text)
                gate.set()
        replayed = [event.seq async for event in run.events()]
        return live, replayed

    assert (["first", "second"], [1, 2, 3, 4, 5]) == asyncio.run(main())


def test_leaving_an_async_for_early_leaves_the_run_alone(kernel: Kernel):
    gate = threading.Event()
    run = kernel.submit(gated, params={"gate": gate})

    async def main() -> None:
        async for event in run.events():
            if isinstance(event, Message):
                break

    asyncio.run(main())
    gate.set()

    assert "through" == run.result(WAIT).result
    assert [1, 2, 3, 4, 5] == [event.seq for event in run.events()]


@pytest.mark.parametrize("start", ["run", "submit"])
def test_an_unknown_sink_is_told_before_anything_starts(kernel: Kernel, start: str):
    with pytest.raises(UnknownNameError, match=r"Sink 'consle' is not registered; did you mean 'console'?"):
        getattr(kernel, start)(talk, sinks=["consle"])

    assert {} == kernel.live_runs


def test_retries_run_it_again_until_it_succeeds(quick: Kernel):
    sink = Keep()

    outcome = quick.run(Flaky, params={"succeeds_at": 3}, retries=4, sinks=[sink])

    assert ("succeeded", 3, 3) == (outcome.status, outcome.result, outcome.attempts)
    assert [
        ("pending", 1),
        ("running", 1),
        ("retrying", 1),
        ("running", 2),
        ("retrying", 2),
        ("running", 3),
        ("succeeded", 3),
    ] == sink.attempts
    assert list(range(1, 8)) == [event.seq for event in sink.events]


def test_a_retry_says_why_and_when(quick: Kernel):
    sink = Keep()

    quick.run(Flaky, params={"succeeds_at": 2}, retries=1, sinks=[sink])

    (retrying,) = [e for e in sink.events if isinstance(e, State) and e.state == "retrying"]
    assert "OSError: attempt 1; again in 0.0 s" == retrying.detail


def test_when_retries_are_used_up_the_last_failure_stands(quick: Kernel):
    outcome = quick.run(Flaky, params={"succeeds_at": 9}, retries=2)

    assert outcome.error is not None
    assert ("failed", 3, "attempt 3") == (outcome.status, outcome.attempts, outcome.error.message)


def test_without_retries_it_is_run_once(quick: Kernel):
    outcome = quick.run(Flaky, params={"succeeds_at": 2})

    assert ("failed", 1) == (outcome.status, outcome.attempts)


def test_negative_retries_are_a_usage_error(kernel: Kernel):
    with pytest.raises(UsageError, match="retries must not be negative, got -1"):
        kernel.run(talk, retries=-1)


def test_a_result_that_breaks_its_schema_is_not_retried(quick: Kernel):
    class Wrong(BaseAction[dict[str, Any], int]):
        def execute(self) -> int:
            return "many"  # type: ignore[return-value]

    outcome = quick.run(Wrong, retries=3)

    assert outcome.error is not None
    assert ("failed", "result", 1) == (outcome.status, outcome.error.kind, outcome.attempts)


def test_a_cancelled_run_is_not_retried(quick: Kernel):
    @action
    def stop(params: dict[str, Any], ctx: RuntimeContext) -> None:
        raise RunCancelled

    outcome = quick.run(stop, retries=3)

    assert ("cancelled", 1) == (outcome.status, outcome.attempts)


def test_cancelling_while_it_waits_to_try_again_ends_the_run():
    with Kernel({"retry": {"initial": 3600, "maximum": 3600}}, strict=True) as kernel:
        run = kernel.submit(Flaky, params={"succeeds_at": 9}, retries=5)
        next(iter(e for e in run.events() if isinstance(e, State) and e.state == "retrying"))

        run.cancel()

        assert "cancelled" == run.result(WAIT).status
        assert ["cancelled"] == final_states(list(run.events()))


def test_ctrl_c_ends_the_run_cancelled_and_is_raised(kernel: Kernel, ctrl_c: Callable[[], None]):
    sink, cleaned = Keep(), []

    @action
    def interrupted(params: dict[str, Any], ctx: RuntimeContext) -> None:
        ctx.log("before")
        try:
            ctrl_c()
        finally:
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        kernel.run(interrupted, sinks=[sink])

    assert [True] == cleaned
    assert [("pending", 1), ("running", 1), ("cancelled", 1)] == sink.attempts
    assert ["before"] == [e.event for e in sink.events if isinstance(e, Log)]
    (outcome,) = sink.outcomes
    assert outcome.error is not None
    assert ("cancelled", "KeyboardInterrupt", "the run was interrupted") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
    )
    assert {} == kernel.live_runs


def test_ctrl_c_while_the_action_is_in_another_thread_tells_it_to_stop(
    kernel: Kernel, ctrl_c: Callable[[], None]
):
    """With a time-out the action has a thread of its own; it is told, and has its grace period."""
    sink, cleaned = Keep(), []

    @action
    def interrupted(params: dict[str, Any], ctx: RuntimeContext) -> None:
        while not waits_for_a_job(threading.main_thread()):
            pass
        time.sleep(0.1)  # a signal between that call and its system call would be seen only at the time-out
        ctrl_c()
        try:
            while True:
                ctx.check_cancelled()
        finally:
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        kernel.run(interrupted, sinks=[sink], timeout=WAIT)

    assert [True] == cleaned
    assert ["cancelled"] == final_states(sink.events)


def waits_for_a_job(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_qualname == "ThreadJob.wait":
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Return a function that does what the terminal does at Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


class BrokenExecutor:
    """An executor whose cluster is gone."""

    in_process = False

    def __init__(self, kernel: Kernel) -> None:
        self.tasks = 0

    def submit(self, task: object, send: object) -> object:
        self.tasks += 1
        raise ConnectionError(f"no cluster, task {self.tasks}")

    def shutdown(self) -> None: ...


class Broken:
    """The plugin of that executor."""

    @hookimpl
    def synapse_register_executors(self) -> list[ExecutorSpec]:
        return [ExecutorSpec(name="broken", target=f"{__name__}:BrokenExecutor")]


def test_an_executor_that_raises_fails_the_run(quick: Kernel):
    quick.register(Broken())
    sink = Keep()

    outcome = quick.run(add, params={"a": 1, "b": 2}, executor="broken", retries=1, sinks=[sink])

    assert outcome.error is not None
    assert ("failed", "ConnectionError", "no cluster, task 2", "executor") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
    )
    assert ["failed"] == final_states(sink.events)


def test_many_runs_at_once_each_end_once(quick: Kernel):
    runs = [quick.submit(add, params={"a": n, "b": 1}) for n in range(40)]

    assert list(range(1, 41)) == [run.result(WAIT).result for run in runs]
    assert [["succeeded"]] * 40 == [final_states(list(run.events())) for run in runs]
    assert {} == quick.live_runs


def test_shutting_down_lets_a_worker_process_clean_up(make_folder: Callable[..., Path], tmp_path: Path):
    folder = make_folder(
        {
            "main.py": """
                import time
                from pathlib import Path
                from synapse_kernel import action

                @action
                def work(params, ctx):
                    ctx.log_message("begun")
                    try:
                        while True:
                            ctx.set_progress(1, 2)
                            time.sleep(0.01)
                    finally:
                        time.sleep(0.2)
                        Path(params["mark"]).write_text("clean")
            """
        }
    )
    mark = tmp_path / "mark"
    with Kernel(strict=True) as kernel:
        run = kernel.submit(str(folder), "work", {"mark": str(mark)}, executor="process")
        next(event for event in run.events() if isinstance(event, Message))

    assert ("cancelled", "clean") == (run.result(WAIT).status, mark.read_text())


class Quick(BaseAction):
    def execute(self) -> int:
        return 1


def test_a_sink_that_fails_is_closed_all_the_same(kernel: Kernel):
    closed: list[Outcome] = []

    class Broken:
        def accept(self, events: list[Event]) -> None:
            raise OSError("full")

        def close(self, outcome: Outcome) -> None:
            closed.append(outcome)

    outcome = kernel.run(Quick, sinks=[Broken()])
    assert [outcome] == closed


def test_a_listener_whose_loop_is_gone_does_not_stop_the_others():
    @action
    def slow(params: object, ctx: RuntimeContext) -> None:
        for number in range(40):
            ctx.log("step", {"number": number})
            time.sleep(0.02)

    with Kernel(strict=True) as kernel:
        run = kernel.submit(slow)
        loop = asyncio.new_event_loop()

        async def first() -> None:
            async for _ in run.events():
                return

        loop.run_until_complete(first())
        loop.close()
        assert ("succeeded", "succeeded") == (run.result(WAIT).status, run.status)
        assert 40 == len([event for event in run.events() if isinstance(event, Log)])


def test_a_job_that_ends_without_an_outcome_fails_the_run():
    class Lost:
        in_process = True

        def submit(self, task: object, send: object) -> object:
            return self

        def wait(self, timeout: float | None = None) -> None:
            return None

        def cancel(self, grace: float) -> None: ...

        def shutdown(self) -> None: ...

    class Plugin:
        @hookimpl
        def synapse_register_executors(self) -> list[ExecutorSpec]:
            return [ExecutorSpec(name="lost", target=f"{__name__}:_lost")]

    globals()["_lost"] = lambda kernel: Lost()
    with Kernel(plugins=[Plugin()], strict=True) as kernel:
        error = kernel.run(Quick, executor="lost").error
    assert error is not None
    assert ("JobLost", "the executor lost the job", "executor") == (error.type, error.message, error.kind)


def test_progress_in_huge_numbers_stops_no_other_events(kernel: Kernel):
    sink = RecordedSink()

    @action
    def huge(params: object, ctx: RuntimeContext) -> None:
        ctx.set_progress(1, 10**400)
        ctx.end_log()
        ctx.set_progress(10**399, 10**400)
        ctx.log("after")

    assert kernel.run(huge, sinks=[sink]).ok
    assert ["after"] == [event.event for event in sink.of(Log)]


def test_a_callback_at_the_end_that_exits_loses_no_events(kernel: Kernel):
    sink = RecordedSink()

    @action
    def leave(params: object, ctx: RuntimeContext) -> None:
        ctx.log("said")
        ctx.at_end(lambda: sys.exit(3))

    assert kernel.run(leave, sinks=[sink]).ok
    assert ["said", "clean_up_failed"] == [event.event for event in sink.of(Log)]


def test_no_sink_is_opened_when_another_ones_name_is_wrong(kernel: Kernel, tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"^Sink 'nosuch' is not registered"):
        kernel.run(Quick, sinks=[f"jsonl:{tmp_path / 'events.jsonl'}", "nosuch"])
    assert not (tmp_path / "events.jsonl").exists()
