"""The executor `local`: this process, its objects, and threads that cannot be killed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from synapse_kernel import Kernel, Message, RunCancelled, RuntimeContext, State, action
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
def raise_it(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Raise what it is given."""
    raise params["error"]


@action
def give_back(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Return what it is given."""
    return params["it"]


@action
def name_thread(params: dict[str, Any], ctx: RuntimeContext) -> threading.Thread:
    """Return the thread it runs in."""
    return threading.current_thread()


@pytest.mark.parametrize("threaded", [False, True], ids=["inline", "in-a-thread"])
def test_the_exception_itself_is_kept_with_its_traceback(kernel: Kernel, threaded: bool):
    error = LookupError("gone")

    outcome = kernel.run(raise_it, params={"error": error}, timeout=WAIT if threaded else None)

    assert outcome.exception is error
    names = []
    trace = error.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "raise_it" == names[-1]


@pytest.mark.parametrize("threaded", [False, True], ids=["inline", "in-a-thread"])
def test_params_and_result_may_be_any_object(kernel: Kernel, threaded: bool):
    it = threading.Lock()

    outcome = kernel.run(give_back, params={"it": it}, timeout=WAIT if threaded else None)

    assert outcome.result is it


def test_run_uses_the_callers_thread_and_submit_one_of_its_own(kernel: Kernel):
    assert kernel.run(name_thread).result is threading.current_thread()
    assert kernel.submit(name_thread).result(WAIT).result is not threading.current_thread()


def test_context_variables_of_the_caller_are_seen(kernel: Kernel):
    from contextvars import ContextVar

    colour: ContextVar[str] = ContextVar("colour", default="none")

    @action
    def see(params: dict[str, Any], ctx: RuntimeContext) -> str:
        return colour.get()

    colour.set("red")

    assert "red" == kernel.run(see).result
    assert "red" == kernel.run(see, timeout=WAIT).result


def test_what_an_action_prints_goes_where_the_process_prints(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
):
    @action
    def shout(params: dict[str, Any], ctx: RuntimeContext) -> None:
        print("hello")

    kernel.run(shout)

    assert "hello\n" == capsys.readouterr().out


def test_an_action_stuck_in_a_call_into_c_is_left_behind_unheard(quick: Kernel):
    """A thread cannot be killed: the run ends all the same, and says nothing more."""
    here, there = socket.socketpair()
    released = threading.Event()

    @action
    def stuck(params: dict[str, Any], ctx: RuntimeContext) -> None:
        ctx.log_message("before")
        ctx.end_log()
        try:
            there.recv(1)
        except RunCancelled:
            pass
        finally:
            ctx.log_message("after")
            ctx.end_log()
            released.set()

    with here, there:
        run = quick.submit(stuck)
        next(e for e in iter(run.events()) if isinstance(e, Message))

        run.cancel()
        outcome = run.result(WAIT)
        ended = list(run.events())
        here.send(b"x")
        assert released.wait(WAIT)

    assert "cancelled" == outcome.status
    assert ["before"] == [e.text for e in ended if isinstance(e, Message)]
    assert ended == list(run.events())
    assert ["pending", "running", "cancelled"] == [e.state for e in ended if isinstance(e, State)]


def test_a_time_out_leaves_a_stuck_action_behind_and_the_next_attempt_runs(quick: Kernel):
    here, there = socket.socketpair()

    @action
    def stuck_once(params: dict[str, Any], ctx: RuntimeContext) -> str:
        if ctx.attempt == 1:
            there.recv(1)
        return f"attempt {ctx.attempt}"

    sink = RecordedSink()
    settings = {"grace": 0.05, "retry": {"initial": 0.001, "maximum": 0.001}}
    with here, there, Kernel(settings, strict=True) as kernel:
        outcome = kernel.run(stuck_once, timeout=0.2, retries=1, sinks=[sink])
        here.send(b"x")

    assert ("succeeded", "attempt 2", 2) == (outcome.status, outcome.result, outcome.attempts)
    assert ["pending", "running", "retrying", "running", "succeeded"] == sink.states


def test_an_action_in_a_thread_that_interrupts_ends_cancelled(kernel: Kernel):
    run = kernel.submit(raise_it, params={"error": KeyboardInterrupt()})

    outcome = run.result(WAIT)

    assert "cancelled" == outcome.status
    assert ["pending", "running", "cancelled"] == [e.state for e in run.events() if isinstance(e, State)]


def test_a_stop_by_force_does_not_reach_what_runs_after(quick: Kernel):
    """Many runs are cancelled as they end: no stop may strike their thread's last steps."""
    for _ in range(100):
        run = quick.submit(give_back, params={"it": 1})
        run.cancel(grace=0)

        assert run.result(WAIT).status in {"succeeded", "cancelled"}


def test_two_actions_at_once_keep_their_events_apart(kernel: Kernel):
    barrier = threading.Barrier(2, timeout=WAIT)

    @action
    def say(params: dict[str, Any], ctx: RuntimeContext) -> None:
        barrier.wait()
        for _ in range(100):
            ctx.log_message(params["word"])

    runs = {word: kernel.submit(say, params={"word": word}) for word in ("left", "right")}

    for word, run in runs.items():
        assert [word] * 100 == [e.text for e in run.events() if isinstance(e, Message)]
