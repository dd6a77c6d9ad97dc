"""A recorded result counts only while all that it was built on is what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import Kernel, RuntimeContext, action
from synapse_kernel.contracts import Outcome
from synapse_kernel.stores import StoreError
from synapse_plugins.pipelines import ActionPipeline, Pipeline
from synapse_plugins.pipelines.followers import PREFIX


class World:
    """What the actions do, and what they did."""

    def __init__(self) -> None:
        self.says: dict[str, Callable[[Any], object]] = {}
        self.did: list[str] = []


WORLD = World()


@action
def do(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Do what the test says under a name, with what it is given."""
    name = params["name"]
    WORLD.did.append(name)
    return WORLD.says.get(name, lambda it: it)(params.get("it"))


@pytest.fixture
def world() -> Iterator[World]:
    """Return what the actions do, and what they did."""
    WORLD.__init__()  # type: ignore[misc]
    yield WORLD
    WORLD.__init__()  # type: ignore[misc]


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel that records."""
    with Kernel({"store": f"sqlite://{tmp_path}/history.db", "retry": {"initial": 0.0}}, strict=True) as made:
        yield made


def fail(it: object) -> object:
    """Fail."""
    raise LookupError("gone")


def again(kernel: Kernel, pipeline: Any, before: Outcome) -> Outcome:
    """Go on with a pipeline, and note only what is done from now on."""
    WORLD.did.clear()
    outcome: Outcome = pipeline.execute(kernel=kernel, resume=before.run_id)
    return outcome


def with_default() -> Pipeline:
    """Return a pipeline whose node `b` makes do without `a`, with `c` behind it and `d` beside it."""
    made = Pipeline("p", output={"b": "${b}", "c": "${c}"}, concurrency=1)
    made.add("a", do, with_={"name": "a", "it": 1}, on_failure="continue")
    made.add("b", do, with_={"name": "b", "it": "${a:-none}"})
    made.add("c", do, with_={"name": "c", "it": "${b}"})
    made.add("d", do, with_={"name": "d"})
    made.add("end", do, with_={"name": "end"}, needs=["c", "d"])
    return made


def test_a_node_that_made_do_without_another_runs_again_once_that_has_a_result(
    recording: Kernel, world: World
) -> None:
    world.says = {"a": fail, "end": fail}
    first = with_default().execute(kernel=recording)
    world.says = {}

    outcome = again(recording, with_default(), first)

    assert {"b": 1, "c": 1} == outcome.result
    assert ["a", "b", "c", "end"] == world.did


def test_a_node_that_fails_as_it_did_before_makes_nothing_stale(recording: Kernel, world: World) -> None:
    world.says = {"a": fail, "end": fail}
    first = with_default().execute(kernel=recording)
    world.says = {"a": fail}

    outcome = again(recording, with_default(), first)

    assert {"b": "none", "c": "none"} == outcome.result
    assert ["a", "end"] == world.did


def test_the_instances_of_a_foreach_run_again_where_its_items_are_made_again(
    recording: Kernel, world: World
) -> None:
    pipeline = Pipeline("p", output="${each}", concurrency=1)
    pipeline.add("up", do, with_={"name": "up"})
    pipeline.add("each", do, with_={"name": "each", "it": "${item}"}, foreach="${up.items}")
    pipeline.add("end", do, with_={"name": "end"}, needs=["each"])
    # The second is secret by its name, which is why the result is not there for another attempt.
    world.says = {"up": lambda _: {"items": ["x", "y"], "token": "hush"}, "end": fail}
    first = pipeline.execute(kernel=recording)
    world.says = {"up": lambda _: {"items": ["y", "z", "x"], "token": "hush"}}

    outcome = again(recording, pipeline, first)

    assert ["y", "z", "x"] == outcome.result
    assert ["up", "each", "each", "each", "end"] == world.did


def test_what_needs_a_foreach_runs_again_where_an_instance_that_failed_has_a_result(
    recording: Kernel, world: World
) -> None:
    pipeline = Pipeline("p", output="${sum}", concurrency=1)
    pipeline.add(
        "each", do, with_={"name": "each", "it": "${item}"}, foreach=[1, 2, 3], on_failure="continue"
    )
    pipeline.add("sum", do, with_={"name": "sum", "it": "${each}"})
    pipeline.add("end", do, with_={"name": "end"}, needs=["sum"])
    world.says = {"each": lambda it: fail(it) if it == 2 else it, "end": fail}
    first = pipeline.execute(kernel=recording)
    world.says = {}

    outcome = again(recording, pipeline, first)

    assert [1, 2, 3] == outcome.result
    assert ["each", "sum", "end"] == world.did


def test_a_chain_runs_again_from_what_could_not_be_recorded_on(recording: Kernel, world: World) -> None:
    @action(name="one")
    def one(params: dict[str, Any]) -> dict[str, Any]:
        WORLD.did.append("one")
        return {"token": f"hush {len(WORLD.did)}", "x": 1}

    @action(name="two")
    def two(params: dict[str, Any]) -> dict[str, Any]:
        WORLD.did.append("two")
        return {"y": 2}

    @action(name="three")
    def three(params: dict[str, Any]) -> dict[str, Any]:
        WORLD.did.append("three")
        return {"z": 3}

    @action(name="four")
    def four(params: dict[str, Any]) -> object:
        WORLD.did.append("four")
        return WORLD.says.get("four", lambda it: it)(4)

    pipeline = ActionPipeline([one, two, three, four], name="p")
    world.says = {"four": fail}
    first = pipeline.execute(kernel=recording)
    world.says = {}

    outcome = again(recording, pipeline, first)

    assert 4 == outcome.result
    assert ["one", "two", "three", "four"] == world.did


def test_a_node_whose_condition_holds_no_more_takes_its_followers_along(
    recording: Kernel, world: World
) -> None:
    pipeline = Pipeline("p", output="${last}", concurrency=1)
    pipeline.add("a", do, with_={"name": "a", "it": 1}, on_failure="continue")
    pipeline.add("b", do, with_={"name": "b", "it": "b"}, when="${a:-0} == 0")
    pipeline.add("last", do, with_={"name": "last", "it": "${b:-none}"})
    pipeline.add("end", do, with_={"name": "end"}, needs=["last"])
    world.says = {"a": fail, "end": fail}
    first = pipeline.execute(kernel=recording)
    world.says = {}

    outcome = again(recording, pipeline, first)

    assert "none" == outcome.result
    assert ["a", "last", "end"] == world.did


def test_what_became_stale_stays_so_where_the_pipeline_breaks_off_before_it_ran_again(
    recording: Kernel, world: World
) -> None:
    world.says = {"a": fail, "end": fail}
    first = with_default().execute(kernel=recording)
    world.says = {"b": fail}

    second = again(recording, with_default(), first)
    assert (False, ["a", "b"]) == (second.ok, world.did)
    world.says = {}
    outcome = again(recording, with_default(), first)

    # `c` was recorded with what `b` was at first, and `a` is as recorded by now.
    assert {"b": 1, "c": 1} == outcome.result
    assert ["b", "c", "end"] == world.did


def test_marks_are_made_before_a_node_runs_again_and_taken_back_if_it_is_as_it_was(
    recording: Kernel, world: World
) -> None:
    store = recording.store
    assert store is not None
    world.says = {"a": fail, "end": fail}
    first = with_default().execute(kernel=recording)
    seen: list[object] = []

    def look(it: object) -> object:
        seen.append(store.entries(first.run_id, PREFIX))
        return fail(it)

    world.says = {"a": look, "end": fail}
    again(recording, with_default(), first)

    assert [[(f"{PREFIX}a", b'{"b":1,"c":1}')]] == seen
    assert [] == store.entries(first.run_id, PREFIX)


def test_where_it_cannot_be_marked_what_becomes_stale_nothing_runs_again(
    recording: Kernel, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.says = {"a": fail, "end": fail}
    first = with_default().execute(kernel=recording)
    world.says = {}

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the disk is full", url="sqlite:x")

    with monkeypatch.context() as broken:
        broken.setattr(recording.store, "put", refuse)
        outcome = again(recording, with_default(), first)

    assert outcome.error is not None
    assert "node 'a' failed: StoreError: the disk is full" == outcome.error.message
    assert [] == world.did
