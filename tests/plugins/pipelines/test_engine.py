"""Running pipelines: results from node to node, failures, stopping, and what is recorded."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from synapse_kernel import Kernel, ParamsError, RuntimeContext, UsageError, action
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Log, Message, Progress, State
from synapse_kernel.stores import RunRecord, RunStore, StoreError
from synapse_kernel.testing import RecordedSink
from synapse_plugins.pipelines import REQUIRED, Pipeline

WAIT = 60
FORCE = pytest.mark.filterwarnings(
    # A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel that records."""
    with Kernel({"store": f"sqlite://{tmp_path}/history.db", "retry": {"initial": 0.0}}, strict=True) as made:
        yield made


def store_of(kernel: Kernel) -> RunStore:
    """Return the kernel's store, which is there."""
    assert kernel.store is not None
    return kernel.store


def records(kernel: Kernel) -> dict[str, RunRecord]:
    """Return the recorded runs by node, a pipeline's own by its action."""
    from synapse_kernel.stores import RunQuery

    return {record.node or record.action: record for record in store_of(kernel).runs(RunQuery(limit=None))}


class Number(BaseModel):
    """A number."""

    value: int


class Sum(BaseModel):
    """Two numbers."""

    a: int = 1
    b: int = 0


@action
def add(params: Sum) -> Number:
    """Add two numbers."""
    return Number(value=params.a + params.b)


@action
def echo(params: dict[str, Any]) -> object:
    """Return what it is given."""
    return params.get("it")


@action
def kind_of(params: dict[str, Any]) -> str:
    """Name the type of what it is given."""
    return type(params["it"]).__name__


@action
def fail(params: dict[str, Any]) -> None:
    """Fail, where it is told to."""
    if params.get("really", True):
        raise LookupError("gone")


@action
def meet(params: dict[str, Any]) -> str:
    """Wait for the others."""
    BARRIERS[params["barrier"]].wait(WAIT)
    return "met"


BARRIERS: dict[str, threading.Barrier] = {}


@action
def folder(params: dict[str, Any], ctx: RuntimeContext) -> list[object]:
    """Say where it runs, and as what."""
    return [str(ctx.work_dir), ctx.run_id, ctx.attempt]


@action
def call(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Call a function of the test's."""
    return CALLS[params["name"]](ctx)


CALLS: dict[str, Callable[[RuntimeContext], object]] = {}


@pytest.fixture
def on_call() -> Iterator[Callable[[str, Callable[[RuntimeContext], object]], None]]:
    """Return a function that says what `call` does under a name."""
    yield CALLS.__setitem__
    CALLS.clear()


def hold(ctx: RuntimeContext) -> None:
    """Wait until told to stop."""
    while True:
        ctx.check_cancelled()
        time.sleep(0.005)


def logged(sink: RecordedSink, name: str) -> list[dict[str, Any]]:
    """Return the data of the log events of a name."""
    return [event.data for event in sink.events if isinstance(event, Log) and event.event == name]


def chain(length: int = 3) -> Pipeline:
    """Return a pipeline in which each node adds one to the number before it."""
    pipeline = Pipeline("chain", params={"start": 1})
    before: object = "${params.start}"
    for at in range(length):
        before = pipeline.add(f"n{at}", add, with_={"a": before, "b": 1})["value"]
    return pipeline


def diamond() -> Pipeline:
    """Return a pipeline with two branches that meet again."""
    pipeline = Pipeline("diamond")
    top = pipeline.add("top", add, with_={"a": 3})
    left = pipeline.add("left", add, with_={"a": top["value"], "b": 10})
    right = pipeline.add("right", add, with_={"a": top["value"], "b": 20})
    pipeline.add("bottom", add, with_={"a": left["value"], "b": right["value"]})
    return pipeline


def test_each_node_of_a_chain_is_given_the_result_before_it(kernel: Kernel) -> None:
    outcome = chain().execute({"start": 10}, kernel=kernel)

    assert ("succeeded", "chain", {"n2": Number(value=13)}) == (
        outcome.status,
        outcome.action,
        outcome.result,
    )


def test_branches_meet_again(kernel: Kernel) -> None:
    assert {"bottom": Number(value=36)} == diamond().execute(kernel=kernel).unwrap()


def test_the_result_is_what_output_says(kernel: Kernel) -> None:
    pipeline = Pipeline(
        "p", params={"a": 1}, output={"sum": "${n.value}", "text": "got ${n.value}", "a": "${params.a}"}
    )
    pipeline.add("n", add, with_={"a": "${params.a}", "b": 2})

    assert {"sum": 3, "text": "got 3", "a": 1} == pipeline.execute(kernel=kernel).unwrap()


def test_a_lone_reference_keeps_its_type_and_a_nested_one_finds_its_place(kernel: Kernel) -> None:
    pipeline = Pipeline("p", output=["${a}", "${b}", "${c}"])
    pipeline.add("source", echo, with_={"it": {"list": [1, {"deep": [5, 6]}]}})
    pipeline.add("a", kind_of, with_={"it": "${source.list}"})
    pipeline.add("b", echo, with_={"it": {"x": ["${source.list[1].deep[0]}"], "y": "v${source.list[0]}"}})
    pipeline.add("c", kind_of, with_={"it": "${source.list[0]}"})

    assert ["list", {"x": [5], "y": "v1"}, "int"] == pipeline.execute(kernel=kernel).unwrap()


@pytest.mark.parametrize("count", [2, 4])
def test_branches_run_side_by_side(kernel: Kernel, count: int) -> None:
    BARRIERS["branches"] = threading.Barrier(count)
    pipeline = Pipeline("p")
    for at in range(count):
        pipeline.add(f"n{at}", meet, with_={"barrier": "branches"})

    assert {f"n{at}": "met" for at in range(count)} == pipeline.execute(kernel=kernel).unwrap()


def test_nodes_have_folders_in_the_pipelines(kernel: Kernel, own_home: Path) -> None:
    pipeline = Pipeline(
        "p",
        output={
            "one": "${one}",
            "many": "${many}",
            "data": "${run.datasets}",
            "id": "${run.id}",
            "top": "${run.folder}",
        },
    )
    pipeline.add("one", folder)
    pipeline.add("many", folder, foreach=[1, 2])

    outcome = pipeline.execute(kernel=kernel)

    result: Any = outcome.unwrap()
    top = own_home / "runs" / outcome.run_id
    assert (outcome.run_id, str(top), str(top / "datasets")) == (result["id"], result["top"], result["data"])
    assert str(top / "nodes" / "one") == result["one"][0]
    assert [str(top / "nodes" / "many" / str(at)) for at in (0, 1)] == [found[0] for found in result["many"]]
    assert (top / "datasets").is_dir()
    assert 3 == len({found[1] for found in (result["one"], *result["many"])})


def test_all_that_is_wrong_with_the_params_is_said_before_anything_starts(recording: Kernel) -> None:
    pipeline = Pipeline("p", params={"source": REQUIRED, "epochs": 3})
    pipeline.add("n", echo, with_={"it": ["${params.source}", "${params.epochs}"]})

    with pytest.raises(ParamsError) as caught:
        pipeline.execute({"epoch": 4}, kernel=recording)

    assert str(caught.value) == (
        "The params of the pipeline 'p' are not valid (2 mistakes):\n"
        "  epoch: unknown; did you mean 'epochs'?\n"
        "  source: missing (required)"
    )
    assert 0 == store_of(recording).count()


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_below_one_is_refused(kernel: Kernel, concurrency: int) -> None:
    with pytest.raises(UsageError) as caught:
        chain().execute(kernel=kernel, concurrency=concurrency)
    assert f"concurrency must be 1 or more, got {concurrency}" == str(caught.value)


def test_one_at_a_time_runs_all_in_one_thread_in_order(
    kernel: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    seen: list[tuple[str, int]] = []
    pipeline = Pipeline("p")
    for name in "cab":
        on_call(name, lambda ctx, name=name: seen.append((name, threading.get_ident())))  # type: ignore[misc]
        pipeline.add(name, call, with_={"name": name})

    assert pipeline.execute(kernel=kernel, concurrency=1).ok

    assert ["c", "a", "b"] == [name for name, _ in seen]
    assert 1 == len({thread for _, thread in seen})


def test_a_failed_node_fails_the_pipeline_with_its_error(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("ok", add)
    pipeline.add("bad", fail, needs=["ok"])
    pipeline.add("never", add, needs=["bad"])
    sink = RecordedSink()

    outcome = pipeline.execute(kernel=kernel, sinks=[sink])

    assert "failed" == outcome.status
    (end,) = [data for data in logged(sink, "node_end") if data["node"] == "bad"]
    assert outcome.error is not None
    assert ("PipelineFailed", "action") == (outcome.error.type, outcome.error.kind)
    assert f"node 'bad' failed (run {end['run']}): LookupError: gone" == outcome.error.message
    assert "raise LookupError" in outcome.error.traceback
    assert ["ok", "bad"] == [data["node"] for data in logged(sink, "node_start")]
    assert (1, 3) == last_progress(sink)


def last_progress(sink: RecordedSink) -> tuple[float, float | None]:
    """Return how far the pipeline came."""
    told = [e for e in sink.events if isinstance(e, Progress) and e.category == "nodes"]
    return told[-1].current, told[-1].total


def test_where_a_node_fails_those_under_way_finish_and_nothing_new_starts(
    kernel: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    began, failed = threading.Event(), threading.Event()

    def slow(ctx: RuntimeContext) -> str:
        began.set()
        assert failed.wait(WAIT)
        return "finished"

    def bad(ctx: RuntimeContext) -> None:
        assert began.wait(WAIT)
        raise LookupError("gone")

    class Watching(RecordedSink):
        def accept(self, events: Any) -> None:
            super().accept(events)
            if any(isinstance(e, State) and e.state == "failed" for e in events):
                failed.set()

    on_call("slow", slow)
    on_call("bad", bad)
    pipeline = Pipeline("p")
    pipeline.add("slow", call, with_={"name": "slow"})
    pipeline.add("bad", call, with_={"name": "bad"})
    pipeline.add("after", add, needs=["slow"])
    sink = Watching()

    outcome = pipeline.execute(kernel=kernel, sinks=[sink])

    assert "failed" == outcome.status
    assert {"slow": "succeeded", "bad": "failed"} == {
        data["node"]: data["state"] for data in logged(sink, "node_end")
    }
    assert {"slow", "bad"} == {data["node"] for data in logged(sink, "node_start")}


def test_a_failure_that_is_put_up_with_skips_what_needs_the_node_and_is_told(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("bad", fail, on_failure="continue")
    pipeline.add("needs_it", add, needs=["bad"])
    pipeline.add("next", add, needs=["needs_it"])
    pipeline.add("other", add)
    sink = RecordedSink()

    outcome = pipeline.execute(kernel=kernel, sinks=[sink])

    assert {"other": Number(value=1)} == outcome.unwrap()
    assert [
        {"node": "needs_it", "reason": "bad failed"},
        {"node": "next", "reason": "needs_it was skipped"},
    ] == logged(sink, "node_skipped")
    (end,) = [data for data in logged(sink, "node_end") if data["node"] == "bad"]
    said = [event.text for event in sink.events if event.__struct_config__.tag == "message"]  # type: ignore[union-attr]
    assert [
        f"node 'bad' failed (run {end['run']}): LookupError: gone; the pipeline goes on without it"
    ] == said
    assert (4, 4) == last_progress(sink)


def test_a_node_whose_condition_does_not_hold_is_skipped_and_a_default_stands_for_it(
    kernel: Kernel,
) -> None:
    pipeline = Pipeline("p", params={"mode": "fast"})
    pipeline.add("slow", echo, with_={"it": "thorough"}, when="${params.mode} == 'full'")
    pipeline.add("fast", echo, with_={"it": "quick"}, when="${params.mode} == 'fast'")
    pipeline.add("report", echo, with_={"it": ["${slow:-none}", "${fast:-none}"]})
    pipeline.add("dependent", echo, with_={"it": "${slow}"})
    sink = RecordedSink()

    outcome = pipeline.execute(kernel=kernel, sinks=[sink])

    assert {"report": ["none", "quick"]} == outcome.unwrap()
    assert [
        {"node": "slow", "reason": "its condition does not hold: ${params.mode} == 'full'"},
        {"node": "dependent", "reason": "slow was skipped"},
    ] == logged(sink, "node_skipped")


def test_params_that_an_action_does_not_take_fail_its_node(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("source", echo, with_={"it": "many"})
    pipeline.add("bad", add, with_={"a": "${source}"})

    outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    assert outcome.error.message.startswith(
        "node 'bad' failed: ParamsError: The params of 'add' are not valid (1 mistake):\n  a"
    ), outcome.error.message


def test_whatever_the_resolving_of_params_raises_fails_the_node_alone(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline("p")
    pipeline.add("bad", add, on_failure="continue")
    pipeline.add("good", add)
    resolve = pipeline.params_for

    def params_for(node: Any, scope: Any) -> Any:
        if node.name == "bad":
            raise ZeroDivisionError("a bug")
        return resolve(node, scope)

    monkeypatch.setattr(pipeline, "params_for", params_for)

    assert {"good": Number(value=1)} == pipeline.execute(kernel=kernel).unwrap()


def test_a_node_is_retried(
    recording: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    def flaky(ctx: RuntimeContext) -> list[object]:
        if ctx.attempt < 3:
            raise LookupError("gone")
        return [ctx.run_id, ctx.attempt]

    on_call("flaky", flaky)
    pipeline = Pipeline("p")
    pipeline.add("n", call, with_={"name": "flaky"}, retries=2)

    outcome = pipeline.execute(kernel=recording)

    found = records(recording)["n"]
    assert {"n": [found.run_id, 3]} == outcome.unwrap()
    assert ("succeeded", 3, 2) == (found.status, found.attempt, found.retries)


@FORCE
def test_a_node_that_takes_too_long_times_out(
    recording: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    on_call("hold", hold)
    pipeline = Pipeline("p")
    pipeline.add("n", call, with_={"name": "hold"}, timeout=0.1)

    outcome = pipeline.execute(kernel=recording)

    found = records(recording)
    assert ("failed", "timed_out") == (outcome.status, found["n"].status)
    assert outcome.error is not None
    assert outcome.error.message == (
        f"node 'n' timed out (run {found['n'].run_id}): RunTimedOut: the run took longer than its 0.1 s"
    )


def two_that_hold(
    on_call: Callable[[str, Callable[[RuntimeContext], object]], None],
) -> tuple[Pipeline, threading.Barrier]:
    """Return a pipeline with two nodes that wait, and a barrier that both have come to as they do."""
    barrier = threading.Barrier(3)

    def wait(ctx: RuntimeContext) -> None:
        barrier.wait(WAIT)
        hold(ctx)

    on_call("wait", wait)
    pipeline = Pipeline("p")
    for name in ("a", "b"):
        pipeline.add(name, call, with_={"name": "wait"})
    pipeline.add("after", add, needs=["a", "b"])
    return pipeline, barrier


def test_a_pipeline_that_takes_too_long_stops_its_nodes(
    recording: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    pipeline, barrier = two_that_hold(on_call)

    run = pipeline.submit(kernel=recording, timeout=2)
    barrier.wait(WAIT)
    outcome = run.result(WAIT)

    found = records(recording)
    assert ("timed_out", "timed_out") == (outcome.status, found["p"].status)
    reason = f"RunCancelled: the run was cancelled: run {run.id} took longer than its 2 s"
    assert [("cancelled", reason)] * 2 == [(found[name].status, found[name].error) for name in "ab"]
    assert "after" not in found


def test_a_cancelled_pipeline_waits_until_each_node_has_its_end(
    recording: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    sink, tidied = RecordedSink(), threading.Event()
    barrier = threading.Barrier(3)

    def tidy(ctx: RuntimeContext) -> None:
        barrier.wait(WAIT)
        try:
            hold(ctx)
        finally:
            time.sleep(0.3)
            tidied.set()

    def quick(ctx: RuntimeContext) -> None:
        barrier.wait(WAIT)
        hold(ctx)

    on_call("tidy", tidy)
    on_call("quick", quick)
    pipeline = Pipeline("p")
    pipeline.add("tidy", call, with_={"name": "tidy"})
    pipeline.add("quick", call, with_={"name": "quick"})
    pipeline.add("after", add, needs=["quick"])

    run = pipeline.submit(kernel=recording, sinks=[sink])
    barrier.wait(WAIT)
    run.cancel(reason="cancelled: enough")
    outcome = run.result(WAIT)

    assert tidied.is_set()
    assert outcome.error is not None
    assert ("cancelled", "the run was cancelled: enough") == (outcome.status, outcome.error.message)
    found = records(recording)
    assert {"p": "cancelled", "tidy": "cancelled", "quick": "cancelled"} == {
        name: record.status for name, record in found.items()
    }
    assert "RunCancelled: the run was cancelled: enough" == found["tidy"].error
    assert {"tidy", "quick"} == {data["node"] for data in logged(sink, "node_end")}
    ends = [e for e in sink.events if isinstance(e, State) and e.state == "cancelled"]
    assert run.id == ends[-1].run_id
    assert 3 == len(ends)


@FORCE
def test_nodes_that_do_not_listen_are_stopped_by_force(
    on_call: Callable[[str, Callable[[RuntimeContext], object]], None],
) -> None:
    barrier = threading.Barrier(3)

    def ignore(ctx: RuntimeContext) -> None:
        barrier.wait(WAIT)
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            time.sleep(0.001)

    on_call("ignore", ignore)
    pipeline = Pipeline("p")
    for name in "ab":
        pipeline.add(name, call, with_={"name": "ignore"})
    with Kernel({"grace": 0.1}, strict=True) as kernel:
        run = pipeline.submit(kernel=kernel)
        barrier.wait(WAIT)
        assert kernel.cancel(run.id)

        assert "cancelled" == run.result(WAIT).status


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_one_node_that_is_cancelled_counts_as_one_that_failed(
    recording: Kernel,
    on_call: Callable[[str, Callable[[RuntimeContext], object]], None],
    on_failure: Literal["stop", "continue"],
) -> None:
    began: list[str] = []

    def wait(ctx: RuntimeContext) -> None:
        began.append(ctx.run_id)
        hold(ctx)

    on_call("wait", wait)
    pipeline = Pipeline("p")
    pipeline.add("n", call, with_={"name": "wait"}, on_failure=on_failure)

    run = pipeline.submit(kernel=recording)
    while not began:
        time.sleep(0.005)
    recording.cancel(began[0])
    outcome = run.result(WAIT)

    sentence = f"node 'n' cancelled (run {began[0]}): RunCancelled: the run was cancelled"
    if on_failure == "stop":
        assert outcome.error is not None
        assert ("failed", sentence) == (outcome.status, outcome.error.message)
    else:
        assert "succeeded" == outcome.status
        said = [event.text for event in run.events() if isinstance(event, Message)]
        assert [f"{sentence}; the pipeline goes on without it"] == said


def test_the_kernels_shutdown_stops_a_pipeline_and_records_it(
    tmp_path: Path, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    pipeline, barrier = two_that_hold(on_call)
    url = f"sqlite://{tmp_path}/history.db"
    with Kernel({"store": url}, strict=True) as kernel:
        run = pipeline.submit(kernel=kernel)
        barrier.wait(WAIT)

    assert "cancelled" == run.result(WAIT).status
    with Kernel({"store": url}, strict=True) as kernel:
        assert {"cancelled"} == {record.status for record in records(kernel).values()}


CTRL_C = """
    import sys, time
    from synapse_kernel import Kernel, action
    from synapse_plugins.pipelines import Pipeline

    @action
    def wait(params, ctx):
        sys.stdout.write("waiting\\n")
        sys.stdout.flush()
        while True:
            ctx.check_cancelled()
            time.sleep(0.01)

    pipeline = Pipeline("p")
    pipeline.add("a", wait)
    pipeline.add("b", wait)
    with Kernel({"store": sys.argv[1]}, strict=True) as kernel:
        try:
            pipeline.execute(kernel=kernel)
        except KeyboardInterrupt:
            print("interrupted", {r.node or r.action: r.status for r in kernel.store.runs()}, flush=True)
"""


def test_ctrl_c_in_execute_stops_the_nodes_and_is_raised(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    script = make_folder({"main.py": CTRL_C}) / "main.py"
    command = [sys.executable, str(script), f"sqlite://{tmp_path}/history.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert ["waiting\n"] * 2 == [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT)
        finally:
            process.kill()

    assert ("", 0) == (err, process.returncode)
    found = eval(out.removeprefix("interrupted "))
    assert {"p": "cancelled", "a": "cancelled", "b": "cancelled"} == found


ACTIONS = """
    import os
    import signal
    import time
    from pydantic import BaseModel
    from synapse_kernel import action

    class Made(BaseModel):
        pid: int
        value: int

    @action
    def make(params, ctx) -> Made:
        return Made(pid=os.getpid(), value=params.get("value", 1))

    @action
    def hold(params, ctx):
        ctx.log_message("holding")
        while True:
            ctx.check_cancelled()
            time.sleep(0.01)

    @action
    def die(params, ctx):
        os.kill(os.getpid(), signal.SIGKILL)

    @action
    def kind(params, ctx) -> list:
        return [os.getpid(), params["of"]]
"""


def test_nodes_run_where_they_say_and_the_rest_where_the_caller_says(
    kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": ACTIONS}) / "work.py"
    pipeline = Pipeline("p", output=["${far.pid}", "${near[0]}", "${near[1]}"])
    far = pipeline.add("far", f"{file}:make", with_={"value": 7})
    pipeline.add("near", f"{file}:kind", with_={"of": far["value"]}, executor="local")

    pid, here, value = pipeline.execute(kernel=kernel, executor="process").unwrap()  # type: ignore[misc]

    assert os.getpid() != pid
    assert (os.getpid(), 7) == (here, value)


def test_a_result_from_another_process_is_of_its_type_again(
    kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": ACTIONS}) / "work.py"
    pipeline = Pipeline("p")
    pipeline.add("far", f"{file}:make", executor="process")

    result: Any = pipeline.execute(kernel=kernel).unwrap()

    assert "Made" == type(result["far"]).__name__
    assert 1 == result["far"].value


def test_a_node_whose_process_is_killed_fails_the_pipeline(
    recording: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": ACTIONS}) / "work.py"
    pipeline = Pipeline("p")
    pipeline.add("n", f"{file}:die", executor="process")

    outcome = pipeline.execute(kernel=recording)

    found = records(recording)["n"]
    assert outcome.error is not None
    assert outcome.error.message.startswith(f"node 'n' {found.status} (run {found.run_id}): ")
    assert "killed" in outcome.error.message


def test_a_cancelled_pipeline_stops_nodes_in_other_processes(
    recording: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": ACTIONS}) / "work.py"
    pipeline = Pipeline("p")
    pipeline.add("n", f"{file}:hold", executor="process")

    run = pipeline.submit(kernel=recording)
    for event in run.events():
        if event.__struct_config__.tag == "message":
            run.cancel()
    assert "cancelled" == run.result(WAIT).status
    assert {"cancelled"} == {record.status for record in records(recording).values()}


def test_a_pipeline_and_its_nodes_are_in_the_history(recording: Kernel, own_home: Path) -> None:
    outcome = diamond().execute(kernel=recording, tags=["nightly"], target="./pipeline.yaml")

    found = records(recording)
    top = found["diamond"]
    assert ("pipeline", "pipeline", "succeeded", "./pipeline.yaml", ["nightly"]) == (
        top.kind,
        top.executor,
        top.status,
        top.target,
        top.tags,
    )
    whole = store_of(recording).get(outcome.run_id)
    assert whole is not None
    assert whole.definition is not None
    nodes: Any = whole.definition["nodes"]
    assert ["top", "left", "right", "bottom"] == [node["name"] for node in nodes]
    assert 1 == len({node["code"] for node in nodes})
    assert {"a": "${top.value}", "b": 10} == nodes[1]["with"]
    children = store_of(recording).children(outcome.run_id)
    assert {"top", "left", "right", "bottom"} == {child.node for child in children}
    assert {outcome.run_id} == {found[name].parent for name in ("top", "left", "right", "bottom")}
    assert {"a": 3, "b": 20} == found["right"].params
    assert str(own_home / "runs" / outcome.run_id / "nodes" / "left") == found["left"].work_dir
    assert {"bottom": {"value": 36}} == (store_of(recording).outcome(outcome.run_id) or {})["result"]


def test_a_nodes_result_is_recorded_before_what_needs_it_starts(
    recording: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    seen: list[object] = []
    on_call("look", lambda ctx: seen.extend(c.status for c in store_of(recording).children(parent[0])))
    parent: list[str] = []
    pipeline = Pipeline("p")
    first = pipeline.add("first", call, with_={"name": "note"})
    pipeline.add("second", call, with_={"name": "look"}, needs=[first])
    on_call("note", lambda ctx: parent.append(records(recording)["p"].run_id))

    assert pipeline.execute(kernel=recording).ok

    assert ["succeeded", "running"] == seen or ["succeeded", "pending"] == seen


def test_secrets_in_a_pipeline_are_not_in_the_history(recording: Kernel, tmp_path: Path) -> None:
    pipeline = Pipeline("p", params={"api_key": "default-sesame"})
    pipeline.add("n", echo, with_={"api_key": "${params.api_key}", "password": "literal-sesame"})
    pipeline.add("m", echo, env={"MY_TOKEN": "in-env-sesame"})

    assert pipeline.execute({"api_key": "given-sesame"}, kernel=recording).ok
    recording.shutdown()

    raw = b"".join(file.read_bytes() for file in tmp_path.glob("history.db*"))
    assert b"api_key" in raw
    assert b"sesame" not in raw


def test_a_pipeline_whose_store_cannot_be_opened_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("Not a database, but long enough to be looked at: " + "x" * 200)
    with Kernel({"store": f"sqlite://{tmp_path}/text.db"}, strict=True) as kernel:
        with pytest.raises(StoreError):
            chain().execute(kernel=kernel)
        assert chain().execute(kernel=kernel, record=False).ok


def test_a_pipeline_that_is_left_out_leaves_its_nodes_out(recording: Kernel) -> None:
    assert chain().execute(kernel=recording, record=False).ok
    assert 0 == store_of(recording).count()


def test_a_node_whose_outcome_cannot_be_recorded_stops_the_pipeline(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(recording)
    finish = store.finish

    def refuse(end: Any, events: Any = ()) -> None:
        if b'"action":"add"' in bytes(end.outcome):
            raise StoreError("The disk is full", url=store.url)
        finish(end, events)

    monkeypatch.setattr(store, "finish", refuse)
    pipeline = Pipeline("p")
    pipeline.add("first", add, on_failure="continue")
    pipeline.add("second", echo, needs=["first"])
    sink = RecordedSink()

    outcome = pipeline.execute(kernel=recording, sinks=[sink])

    (start,) = logged(sink, "node_start")
    assert outcome.error is not None
    assert outcome.error.message == (
        f"node 'first' failed (run {start['run']}): StoreError: its outcome could not be recorded, and the "
        "pipeline does not go on without: The disk is full"
    )


def test_progress_ends_at_all_nodes(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("skipped", add, when=False)
    pipeline.add("bad", fail, on_failure="continue")
    pipeline.add("many", add, foreach=[1, 2, 3], with_={"a": "${item}"})
    pipeline.add("none", add, foreach=[])
    pipeline.add("last", add, needs=["many"])
    sink = RecordedSink()

    assert pipeline.execute(kernel=kernel, sinks=[sink]).ok

    assert (5, 5) == last_progress(sink)


def test_a_chain_of_many_nodes_and_a_wide_graph_end_well(kernel: Kernel) -> None:
    length = 2000
    assert {f"n{length - 1}": Number(value=length + 1)} == chain(length).execute(kernel=kernel).unwrap()

    wide = Pipeline("wide", output="${all.value}")
    width = 300
    nodes = [wide.add(f"n{at}", echo, with_={"it": at}) for at in range(width)]
    wide.add("all", add, needs=nodes, with_={"a": "${n299}", "b": 1})
    assert width == wide.execute(kernel=kernel).unwrap()


def test_a_submitted_pipeline_is_awaited_and_its_events_hold_its_nodes(kernel: Kernel) -> None:
    async def both() -> tuple[Outcome, set[str]]:
        run = chain().submit(kernel=kernel)
        events = [event async for event in run.events()]
        return await run, {event.action for event in events}

    outcome, actions = asyncio.run(asyncio.wait_for(both(), WAIT))

    assert outcome.ok
    assert {"chain", "add"} == actions


def test_waiting_for_a_pipeline_may_time_out(
    kernel: Kernel, on_call: Callable[[str, Callable[[RuntimeContext], object]], None]
) -> None:
    pipeline, barrier = two_that_hold(on_call)
    with pipeline.submit(kernel=kernel) as run:
        barrier.wait(WAIT)
        with pytest.raises(TimeoutError) as caught:
            pipeline.wait(run, 0.01)
    assert f"run {run.id} is still running after 0.01 s" == str(caught.value)
    assert "cancelled" == pipeline.wait(run).status


def test_two_kernels_run_the_same_pipeline_at_once(tmp_path: Path) -> None:
    pipeline = chain(20)
    with (
        Kernel({"store": f"sqlite://{tmp_path}/1.db"}, strict=True) as one,
        Kernel({"store": f"sqlite://{tmp_path}/2.db"}, strict=True) as two,
    ):
        runs = [pipeline.submit({"start": start}, kernel=kernel) for start, kernel in ((0, one), (100, two))]

        assert [{"n19": Number(value=20)}, {"n19": Number(value=120)}] == [
            run.result(WAIT).unwrap() for run in runs
        ]
        assert [21, 21] == [store_of(kernel).count() for kernel in (one, two)]


def test_no_thread_of_a_pipeline_is_left(kernel: Kernel) -> None:
    assert diamond().execute(kernel=kernel).ok

    until = time.monotonic() + WAIT
    while any(t.name.startswith(("synapse-nodes", "synapse-pipeline")) for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_node_that_heeds_no_force_is_left_behind(
    recording: Kernel,
    on_call: Callable[[str, Callable[[RuntimeContext], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("synapse_plugins.pipelines.executor.ABANDON_SECONDS", 0.2)
    began, end = threading.Event(), threading.Event()

    def stubborn(ctx: RuntimeContext) -> None:
        began.set()
        while not end.is_set():
            try:
                end.wait(0.02)
            except BaseException:
                continue

    on_call("stubborn", stubborn)
    pipeline = Pipeline("p")
    pipeline.add("n", call, with_={"name": "stubborn"})

    run = pipeline.submit(kernel=recording)
    assert began.wait(WAIT)
    run.cancel(grace=0.1)
    try:
        outcome = run.result(WAIT)
        assert ("cancelled", "the run was cancelled") == (
            outcome.status,
            outcome.error and outcome.error.message,
        )
    finally:
        end.set()


def test_the_instances_of_a_foreach_are_parts_of_its_progress(kernel: Kernel) -> None:
    pipeline = Pipeline("p", concurrency=1)
    each = pipeline.add("each", echo, foreach=[1, 2, 3, 4], with_={"it": "${item}"})
    pipeline.add("last", echo, with_={"it": each.result})
    run = pipeline.submit(kernel=kernel)
    run.result(WAIT)

    told = [
        event.current for event in run.events() if isinstance(event, Progress) and event.category == "nodes"
    ]
    assert 2 == told[-1]
    assert {0.25, 0.5, 0.75, 1} >= {current for current in told if 0 < current <= 1}


@pytest.mark.parametrize("store", ["none", "auto"])
def test_a_pipeline_that_has_run_keeps_no_kernel_alive(store: str) -> None:
    pipeline = Pipeline("p")
    pipeline.add("n", echo, with_={"it": 1})
    kernel = Kernel({"store": store})
    assert pipeline.execute(kernel=kernel).ok
    kernel.shutdown()
    kept = weakref.ref(kernel)
    del kernel

    gc.collect()
    assert kept() is None
