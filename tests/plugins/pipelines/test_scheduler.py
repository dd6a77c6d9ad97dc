"""Which node instance runs when: `foreach`, its bounds and its failures, and the order of what is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from synapse_kernel import Kernel, RuntimeContext, action
from synapse_kernel.events import Log, State
from synapse_kernel.testing import RecordedSink
from synapse_plugins.pipelines import Pipeline

WAIT = 60


@action
def echo(params: dict[str, Any]) -> object:
    """Return what it is given."""
    return params.get("it")


@action
def odd_only(params: dict[str, Any]) -> int:
    """Return an odd number, refuse an even one."""
    if params["it"] % 2 == 0:
        raise ValueError(f"{params['it']} is even")
    return int(params["it"])


@action
def call(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Call a function of the test's."""
    return CALLS[params["name"]](params.get("it"), ctx)


CALLS: dict[str, Callable[[Any, RuntimeContext], object]] = {}


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Forget the functions of other tests."""
    yield
    CALLS.clear()


def logged(sink: RecordedSink, name: str) -> list[dict[str, Any]]:
    """Return the data of the log events of a name."""
    return [event.data for event in sink.events if isinstance(event, Log) and event.event == name]


def fan(items: object, run: object = echo, **options: Any) -> Pipeline:
    """Return a pipeline with one node that runs once for each item."""
    pipeline = Pipeline("fan", output="${n}", params={"items": items})
    options = {"with_": {"it": "${item}"}, **options}
    pipeline.add("n", run, foreach="${params.items}", **options)
    return pipeline


def test_the_results_of_instances_are_in_the_order_of_their_items_however_they_end(kernel: Kernel) -> None:
    ended = [threading.Event() for _ in range(4)]

    def last_first(at: int, ctx: RuntimeContext) -> int:
        if at < 3:
            assert ended[at + 1].wait(WAIT)
        ended[at].set()
        return at * 10

    CALLS["last_first"] = last_first
    pipeline = fan([0, 1, 2, 3], call, with_={"name": "last_first", "it": "${item}"})

    assert [0, 10, 20, 30] == pipeline.execute(kernel=kernel, concurrency=4).unwrap()


def test_an_instance_knows_its_item_and_its_index(kernel: Kernel) -> None:
    pipeline = fan([{"name": "a"}, {"name": "b"}], with_={"it": "${index}:${item.name}"})

    assert ["0:a", "1:b"] == pipeline.execute(kernel=kernel).unwrap()


def test_a_list_of_a_nodes_own_is_as_good_as_one_that_is_referred_to(kernel: Kernel) -> None:
    pipeline = Pipeline("p", output="${n}")
    first = pipeline.add("first", echo, with_={"it": 5})
    pipeline.add("n", echo, foreach=[1, first, [first]], with_={"it": "${item}"})

    assert [1, 5, [5]] == pipeline.execute(kernel=kernel).unwrap()


def test_results_of_instances_feed_the_next_instances(kernel: Kernel) -> None:
    pipeline = Pipeline("p", output="${b}")
    pipeline.add("a", echo, foreach=[{"x": 1}, {"x": 2}], with_={"it": "${item}"})
    pipeline.add("b", echo, foreach="${a}", with_={"it": ["${item.x}", "${a[0].x}", "${a[*].x}"]})

    assert [[1, 1, [1, 2]], [2, 1, [1, 2]]] == pipeline.execute(kernel=kernel).unwrap()


def test_an_empty_list_gives_an_empty_list(kernel: Kernel) -> None:
    sink = RecordedSink()

    assert [] == fan([]).execute(kernel=kernel, sinks=[sink]).unwrap()

    assert [] == logged(sink, "node_start")


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ("abc", "str: 'abc'"),
        ({"a": 1}, "dict: {'a': 1}"),
        (None, "NoneType: None"),
        ("x" * 100, f"str: '{'x' * 78}…"),
    ],
)
def test_what_is_no_list_fails_the_node_and_is_told(kernel: Kernel, items: object, told: str) -> None:
    pipeline = Pipeline("p")
    source = pipeline.add("source", echo, with_={"it": items})
    pipeline.add("n", echo, foreach=source, with_={"it": "${item}"})

    outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    assert outcome.error.message == (
        f"node 'n' failed: SynapseError: foreach needs a list, and ${{source}} is {told}"
    )


@pytest.mark.parametrize(("most", "concurrency"), [(1, 8), (3, 8), (8, 3)])
def test_no_more_instances_than_allowed_run_at_once_and_as_many_as_allowed(
    kernel: Kernel, most: int, concurrency: int
) -> None:
    bound = min(most, concurrency)
    lock, now, peak = threading.Lock(), [0], [0]
    together = threading.Barrier(bound)

    def count(it: int, ctx: RuntimeContext) -> None:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        together.wait(WAIT)
        with lock:
            now[0] -= 1

    CALLS["count"] = count
    pipeline = fan(list(range(bound * 4)), call, with_={"name": "count", "it": "${item}"}, max_parallel=most)

    assert pipeline.execute(kernel=kernel, concurrency=concurrency).ok
    assert bound == peak[0]


def test_a_bounded_node_does_not_keep_another_from_running(kernel: Kernel) -> None:
    met = threading.Barrier(2)
    CALLS["meet"] = lambda it, ctx: met.wait(WAIT)
    pipeline = Pipeline("p")
    pipeline.add("many", call, foreach=[1, 2, 3], max_parallel=1, with_={"name": "meet"})
    pipeline.add("other", call, foreach=[1, 2, 3], max_parallel=1, with_={"name": "meet"})

    assert pipeline.execute(kernel=kernel).ok


def test_a_failed_instance_stops_the_pipeline_and_no_other_starts(kernel: Kernel) -> None:
    sink = RecordedSink()

    outcome = fan([1, 2, 3, 5, 7], odd_only, max_parallel=1).execute(kernel=kernel, sinks=[sink])

    assert "failed" == outcome.status
    assert ["n[0]", "n[1]"] == [data["node"] for data in logged(sink, "node_start")]
    (bad,) = [data for data in logged(sink, "node_end") if data["state"] == "failed"]
    assert outcome.error is not None
    assert f"node 'n[1]' failed (run {bad['run']}): ValueError: 2 is even" == outcome.error.message


def test_failed_instances_that_are_put_up_with_leave_null_in_the_list(kernel: Kernel) -> None:
    pipeline = fan([1, 2, 3, 4], odd_only, on_failure="continue")

    assert [1, None, 3, None] == pipeline.execute(kernel=kernel).unwrap()


def test_a_node_whose_instances_all_failed_is_without_a_result(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("n", odd_only, foreach=[2, 4], with_={"it": "${item}"}, on_failure="continue")
    pipeline.add("after", echo, with_={"it": "${n}"})
    sink = RecordedSink()

    assert {} == pipeline.execute(kernel=kernel, sinks=[sink]).unwrap()

    assert [{"node": "after", "reason": "n failed"}] == logged(sink, "node_skipped")


def test_several_failures_are_all_told(kernel: Kernel) -> None:
    met = threading.Barrier(2)

    def bad(it: object, ctx: RuntimeContext) -> None:
        met.wait(WAIT)
        raise LookupError(f"gone {it}")

    CALLS["bad"] = bad
    pipeline = Pipeline("p")
    for name in "ab":
        pipeline.add(name, call, with_={"name": "bad", "it": name})

    outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    lines = sorted(outcome.error.message.splitlines())
    assert 2 == len(lines)
    assert lines[0].startswith("node 'a' failed (run ")
    assert lines[0].endswith("): LookupError: gone a")
    assert lines[1].endswith("): LookupError: gone b")


def test_a_condition_sees_results_and_is_asked_once_they_are_there(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("check", echo, with_={"it": {"images": 3}})
    pipeline.add("yes", echo, with_={"it": 1}, when="${check.images} > 2")
    pipeline.add("no", echo, with_={"it": 1}, when="${check.images} > 3")
    pipeline.add("lone", echo, with_={"it": 1}, when="${check.images}")

    assert {"yes": 1, "lone": 1} == pipeline.execute(kernel=kernel).unwrap()


def test_a_condition_that_cannot_be_evaluated_fails_its_node(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("check", echo, with_={"it": "text"})
    pipeline.add("n", echo, when="${check} > 3")

    outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    assert outcome.error.message == (
        "node 'n' failed: ConditionError: The condition '${check} > 3' cannot be evaluated: "
        "'>' not supported between instances of 'str' and 'int'\n  with check = 'text'"
    )


def test_a_result_of_which_it_cannot_be_said_whether_it_is_true_fails_the_node_that_asks(
    kernel: Kernel,
) -> None:
    import numpy as np

    CALLS["array"] = lambda it, ctx: np.array([1, 2])
    pipeline = Pipeline("p")
    pipeline.add("source", call, with_={"name": "array"})
    pipeline.add("n", echo, when="${source}", on_failure="continue")
    pipeline.add("other", echo, needs=["source"], with_={"it": 1})

    assert {"other": 1} == pipeline.execute(kernel=kernel).unwrap()


def test_a_reference_that_leads_nowhere_fails_its_node(kernel: Kernel) -> None:
    pipeline = Pipeline("p")
    pipeline.add("source", echo, with_={"it": {"paths": 1}})
    pipeline.add("n", echo, with_={"it": "${source.path}"})

    outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    assert outcome.error.message.startswith("node 'n' failed: ReferenceLookupError: "), outcome.error.message
    assert "paths" in outcome.error.message


def test_what_is_told_of_nodes_is_in_the_order_it_happened(kernel: Kernel) -> None:
    sink = RecordedSink()
    pipeline = Pipeline("p")
    first = pipeline.add("first", echo, with_={"it": 1})
    pipeline.add("second", echo, with_={"it": first}, executor="local")

    run_id = pipeline.execute(kernel=kernel, sinks=[sink]).run_id

    told = [
        (event.event, event.data.get("node")) if isinstance(event, Log) else event.state
        for event in sink.events
        if (isinstance(event, Log) and event.run_id == run_id) or isinstance(event, State)
    ]
    child = ["pending", "running", "succeeded"]
    # A node's start is there before its run says anything; its end may come a moment later than its run's.
    starts = [at for at, entry in enumerate(told) if isinstance(entry, tuple) and entry[0] == "node_start"]
    assert [child, child] == [told[at + 1 : at + 4] for at in starts]
    assert [("pipeline_start", None), ("node_start", "first"), ("node_end", "first")] == [
        entry for entry in told if isinstance(entry, tuple)
    ][:3]
    assert "succeeded" == told[-1]
    data: Any = logged(sink, "node_start")[1]
    assert ("second", "local") == (data["node"], data["executor"])
    end: Any = logged(sink, "node_end")[1]
    assert ("second", data["run"], "succeeded") == (end["node"], end["run"], end["state"])
    assert 0 <= end["seconds"] < WAIT


def test_each_run_of_a_pipeline_has_node_runs_of_its_own(kernel: Kernel) -> None:
    sink, ids = RecordedSink(), []
    for _ in range(2):
        assert fan([1, 2]).execute(kernel=kernel, sinks=[sink]).ok
        ids.append({data["run"] for data in logged(sink, "node_start")})

    assert [2, 4] == [len(found) for found in ids]


def test_a_pipeline_that_is_told_to_stop_starts_nothing_more(kernel: Kernel) -> None:
    began, go_on = threading.Event(), threading.Event()

    def deaf(it: object, ctx: RuntimeContext) -> None:
        began.set()
        assert go_on.wait(WAIT)

    CALLS["deaf"] = deaf
    pipeline = fan([1, 2, 3], call, with_={"name": "deaf"}, max_parallel=1)
    sink = RecordedSink()

    run = pipeline.submit(kernel=kernel, sinks=[sink])
    assert began.wait(WAIT)
    run.cancel(grace=WAIT)
    go_on.set()

    assert "cancelled" == run.result(WAIT).status
    assert ["n[0]"] == [data["node"] for data in logged(sink, "node_start")]
    assert ["n[0]"] == [data["node"] for data in logged(sink, "node_end")]
