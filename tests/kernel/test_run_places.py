"""Runs that are part of others: whose events go where, and who stops whom."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import Kernel, RuntimeContext, UsageError, action
from synapse_kernel.contracts import KnownResult, Outcome, RunPlace
from synapse_kernel.events import Event, State
from synapse_kernel.stores import RunBusyError
from synapse_kernel.testing import RecordedSink

WAIT = 60
FORCE = pytest.mark.filterwarnings(
    # A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@action
def speak(params: dict[str, Any], ctx: RuntimeContext) -> str:
    """Say something."""
    ctx.log_message("from the child")
    if params.get("fail"):
        raise LookupError("gone")
    return "done"


@action
def parent_of(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Call what it is given with its context."""
    return params["call"](ctx)


@action
def hold(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Wait until told to stop."""
    params["started"].set()
    for _ in range(WAIT * 100):
        ctx.check_cancelled()
        threading.Event().wait(0.01)


@action
def ignore(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Wait, deaf to whoever asks it to stop."""
    params["started"].set()
    for _ in range(WAIT * 100):
        threading.Event().wait(0.01)


def run_with_child(kernel: Kernel, child_params: object = None, **options: Any) -> tuple[Outcome, str]:
    """Run an action that runs another as its part, and return its outcome and the child's id."""

    def call(ctx: RuntimeContext) -> str:
        place = RunPlace(parent=ctx.run_id, node="part", run_id="child")
        ctx.log_message("before")
        ctx.end_log()
        kernel.run(speak, params=child_params, place=place)
        ctx.log_message("after")
        return ctx.run_id

    return kernel.run(parent_of, params={"call": call}, **options), "child"


def by_run(events: list[Event], run_id: str) -> list[Event]:
    """Return the events of one run."""
    return [event for event in events if event.run_id == run_id]


def test_a_childs_events_reach_its_parents_sinks_under_its_own_id_and_numbers(kernel: Kernel) -> None:
    sink = RecordedSink()

    outcome, child = run_with_child(kernel, sinks=[sink])

    assert outcome.ok
    assert {outcome.run_id, child} == {event.run_id for event in sink.events}
    for run_id in (outcome.run_id, child):
        own = by_run(sink.events, run_id)
        assert list(range(1, len(own) + 1)) == [event.seq for event in own]
    assert ["state", "state", "message", "state"] == [
        event.__struct_config__.tag for event in by_run(sink.events, child)
    ]
    assert {"speak"} == {event.action for event in by_run(sink.events, child)}


def test_the_events_of_a_childs_child_reach_the_top(kernel: Kernel) -> None:
    sink = RecordedSink()

    def middle(ctx: RuntimeContext) -> None:
        kernel.run(speak, place=RunPlace(parent=ctx.run_id, run_id="bottom"))

    def top(ctx: RuntimeContext) -> None:
        place = RunPlace(parent=ctx.run_id, run_id="middle")
        kernel.run(parent_of, params={"call": middle}, place=place)

    kernel.run(parent_of, params={"call": top}, sinks=[sink], place=RunPlace(run_id="top"))

    assert ["top", "middle", "bottom"] == list(dict.fromkeys(event.run_id for event in sink.events))


def test_a_childs_end_is_not_its_parents(kernel: Kernel) -> None:
    seen: list[str] = []

    def call(ctx: RuntimeContext) -> None:
        kernel.run(speak, params={"fail": True}, place=RunPlace(parent=ctx.run_id))
        seen.append(handle[0].status)

    handle = []
    begin = threading.Event()

    def start(ctx: RuntimeContext) -> None:
        assert begin.wait(WAIT)
        call(ctx)

    handle.append(kernel.submit(parent_of, params={"call": start}))
    begin.set()

    assert handle[0].result(WAIT).ok
    assert ["running"] == seen
    assert "succeeded" == handle[0].status
    states = [e.state for e in handle[0].events() if isinstance(e, State) and e.run_id == handle[0].id]
    assert ["pending", "running", "succeeded"] == states


def test_a_handles_events_hold_those_of_children_plainly_and_async(kernel: Kernel) -> None:
    import asyncio

    async def listen() -> tuple[list[str], str]:
        def call(ctx: RuntimeContext) -> None:
            kernel.run(speak, place=RunPlace(parent=ctx.run_id, run_id="child"))

        run = kernel.submit(parent_of, params={"call": call})
        found = [event.run_id async for event in run.events()]
        assert found == [event.run_id for event in run.events()]
        return found, (await run).run_id

    found, parent = asyncio.run(asyncio.wait_for(listen(), WAIT))

    assert {parent, "child"} == set(found)


def test_without_sinks_of_its_parent_a_child_is_not_heard(kernel: Kernel) -> None:
    heard = RecordedSink()

    def call(ctx: RuntimeContext) -> None:
        kernel.run(speak, place=RunPlace(parent=ctx.run_id), sinks=[heard])

    assert kernel.run(parent_of, params={"call": call}).ok

    assert ["pending", "running", "succeeded"] == [e.state for e in heard.events if isinstance(e, State)]


def test_a_child_does_not_open_the_settings_sinks_again() -> None:
    opened: list[str] = []

    class Counting(RecordedSink):
        def __init__(self, run: Any, argument: str | None) -> None:
            super().__init__()
            opened.append(run.run_id)

    import synapse_kernel

    class Plugin:
        @synapse_kernel.hookimpl
        def synapse_register_sinks(self) -> list[synapse_kernel.SinkSpec]:
            import sys

            sys.modules["counting_sink"] = type(sys)("counting_sink")
            sys.modules["counting_sink"].Counting = Counting  # type: ignore[attr-defined]
            return [synapse_kernel.SinkSpec(name="counting", target="counting_sink:Counting")]

    with Kernel({"sinks": ["counting"]}, plugins=[Plugin()], strict=True) as kernel:
        outcome, _ = run_with_child(kernel)

    assert [outcome.run_id] == opened


def test_a_sink_sees_where_a_run_stands(kernel: Kernel, tmp_path: Path) -> None:
    from synapse_kernel.opening import open_sinks
    from synapse_kernel.preparation import RunOptions, prepare

    opened = []
    original = kernel.open_sinks
    kernel.open_sinks = lambda wanted, info: opened.append(info) or original(wanted, info)  # type: ignore[method-assign,func-returns-value]
    sink = RecordedSink()
    options = RunOptions(
        sinks=[sink],
        tags=["a", "b"],
        place=RunPlace(
            run_id="r1", kind="pipeline", node="n", definition={"name": "p"}, work_dir=str(tmp_path)
        ),
    )
    open_sinks(kernel, prepare(kernel, speak, None, {"api_key": "hush-hush", "n": 1}, options))

    (info,) = opened
    assert ("r1", "pipeline", "n", ("a", "b")) == (info.run_id, info.kind, info.node, info.tags)
    assert ("r1", {"name": "p"}, str(tmp_path)) == (info.root, info.definition, info.work_dir)
    assert ({"api_key": "***", "n": 1}, ("api_key",)) == (info.params, info.masked)
    assert info.kernel is kernel


def test_a_run_has_the_folder_that_its_place_names(kernel: Kernel, tmp_path: Path) -> None:
    outcome = kernel.run(
        parent_of,
        params={"call": lambda ctx: str(ctx.work_dir)},
        place=RunPlace(work_dir=str(tmp_path / "a" / "b")),
    )

    assert str(tmp_path / "a" / "b") == outcome.unwrap()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_known_result_is_taken_over_without_running_anything(kernel: Kernel) -> None:
    sink = RecordedSink()

    outcome = kernel.run(
        speak, params={"fail": True}, sinks=[sink], place=RunPlace(known=KnownResult("from before", "r0"))
    )

    assert ("succeeded", "from before", 1) == (outcome.status, outcome.result, outcome.attempts)
    assert ["pending", "succeeded"] == [event.state for event in sink.events if isinstance(event, State)]


def test_a_run_that_is_not_recorded_has_no_checkpoints(kernel: Kernel) -> None:
    assert kernel.run(parent_of, params={"call": lambda ctx: ctx.checkpoint_store}).unwrap() is None


def test_a_run_is_no_part_of_one_that_is_not_under_way(kernel: Kernel) -> None:
    sink = RecordedSink()
    told: list[str] = []

    def call(ctx: RuntimeContext) -> None:
        for start in (kernel.run, kernel.submit):
            with pytest.raises(UsageError) as caught:
                start(speak, sinks=[sink], place=RunPlace(parent="parrent"))
            told.append(str(caught.value))

    kernel.run(parent_of, params={"call": call}, place=RunPlace(run_id="parent")).unwrap()

    assert told == 2 * [
        "RunPlace.parent: no run 'parrent' is under way in this kernel; did you mean 'parent'?\n"
        "  a run can be part of one that the same kernel runs at this moment\n"
        "  under way: parent"
    ]
    assert [] == sink.events


def test_an_id_is_not_given_to_a_second_run_while_the_first_is_under_way(kernel: Kernel) -> None:
    sink = RecordedSink()

    def call(ctx: RuntimeContext) -> str:
        with pytest.raises(UsageError) as caught:
            kernel.run(speak, sinks=[sink], place=RunPlace(run_id="r1"))
        return str(caught.value)

    outcome = kernel.run(parent_of, params={"call": call}, place=RunPlace(run_id="r1"))

    assert outcome.unwrap() == (
        "RunPlace.run_id: a run 'r1' is under way in this kernel\n"
        "  give an id that no run has, or leave run_id out for a new one"
    )
    assert [] == sink.events
    assert kernel.run(speak, place=RunPlace(run_id="r1")).ok


def test_a_run_does_not_go_on_while_it_is_under_way_unrecorded(tmp_path: Path) -> None:
    with Kernel({"store": f"sqlite://{tmp_path}/history.db"}, strict=True) as recording:
        recording.run(speak, place=RunPlace(run_id="r1"))

        def call(ctx: RuntimeContext) -> None:
            with pytest.raises(RunBusyError):
                recording.run(speak, place=RunPlace(run_id="r1", resume=True))

        place = RunPlace(run_id="r1")
        assert recording.run(parent_of, params={"call": call}, place=place, record=False).ok


def test_cancelling_a_run_that_is_not_live_says_so(kernel: Kernel) -> None:
    assert kernel.cancel("nobody") is False


def start_with_parts(kernel: Kernel, part: object = hold, count: int = 2) -> tuple[Any, list[Any]]:
    """Start a run with parts of its own, and wait until all of them are under way."""
    parts: list[Any] = []
    started = [threading.Event() for _ in range(count)]
    ready = threading.Event()

    def call(ctx: RuntimeContext) -> list[str]:
        for at in range(count):
            place = RunPlace(parent=ctx.run_id, run_id=f"part-{at}")
            parts.append(kernel.submit(part, params={"started": started[at]}, place=place))
        ready.set()
        return [run.result(WAIT).status for run in parts]

    run = kernel.submit(parent_of, params={"call": call})
    assert ready.wait(WAIT)
    for event in started:
        assert event.wait(WAIT)
    return run, parts


def test_a_run_and_what_is_part_of_it_stop_together(kernel: Kernel) -> None:
    run, parts = start_with_parts(kernel)

    assert kernel.cancel(run.id, "cancelled: enough") is True

    assert ["cancelled", "cancelled"] == [part.result(WAIT).status for part in parts]
    assert run.result(WAIT).status in {"cancelled", "succeeded"}


def test_a_cancelled_handle_stops_the_parts_too(kernel: Kernel) -> None:
    run, parts = start_with_parts(kernel)

    run.cancel()

    assert ["cancelled", "cancelled"] == [part.result(WAIT).status for part in parts]
    run.result(WAIT)


def test_the_parts_alone_can_be_told_to_stop(kernel: Kernel) -> None:
    run, parts = start_with_parts(kernel)

    kernel.cancel_parts(run.id, "cancelled: not needed any more")

    error = parts[0].result(WAIT).error
    assert error is not None
    assert "the run was cancelled: not needed any more" == error.message
    assert ["cancelled", "cancelled"] == run.result(WAIT).unwrap()


@FORCE
def test_parts_that_do_not_listen_are_stopped_by_force() -> None:
    with Kernel({"grace": 0.05}, strict=True) as kernel:
        run, _ = start_with_parts(kernel, ignore)

        kernel.cancel_parts(run.id)

        assert ["cancelled", "cancelled"] == run.result(WAIT).unwrap()


def test_a_part_that_begins_after_its_run_was_told_to_stop_does_not_run(kernel: Kernel) -> None:
    begun, told = threading.Event(), threading.Event()

    def call(ctx: RuntimeContext) -> str:
        begun.set()
        assert told.wait(WAIT)
        return kernel.run(speak, place=RunPlace(parent=ctx.run_id)).status

    run = kernel.submit(parent_of, params={"call": call})
    assert begun.wait(WAIT)
    kernel.cancel_parts(run.id)
    told.set()

    assert "cancelled" == run.result(WAIT).unwrap()


def test_the_kernels_shutdown_stops_a_run_and_its_parts() -> None:
    with Kernel(strict=True) as kernel:
        run, parts = start_with_parts(kernel)

    assert ["cancelled", "cancelled"] == [part.result(WAIT).status for part in parts]
    assert run.done


def test_a_run_is_over_for_the_shutdown_when_its_sinks_have_its_end() -> None:
    closing, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(RecordedSink):
        def close(self, outcome: Outcome) -> None:
            closing.set()
            assert go_on.wait(WAIT)
            closed.set()

    with Kernel(strict=True) as kernel:
        kernel.submit(speak, sinks=[Slow()])
        assert closing.wait(WAIT)
        threading.Timer(0.2, go_on.set).start()

    assert closed.is_set()
