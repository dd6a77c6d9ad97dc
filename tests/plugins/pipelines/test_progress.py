"""The events of a pipeline's run, folded into how far it has come."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from synapse_kernel import Kernel, action
from synapse_kernel.events import Event, Log, Message, Metrics, Progress, State, encode_data, encode_metrics
from synapse_plugins.pipelines import folding
from synapse_plugins.pipelines.folding import ProgressFold
from synapse_plugins.pipelines.progress import (
    ActionProgress,
    ActionStatus,
    PipelineProgress,
    RunStatus,
    track,
    track_async,
)


class Told:
    """Makes events, one second after another, of the run `top` unless another is named."""

    def __init__(self) -> None:
        self._seq = itertools.count(1)

    def state(self, state: str, run: str = "top", attempt: int = 1, detail: str | None = None) -> Event:
        return State(run, *self._rest(), state, attempt, detail)

    def log(self, event: str, *, of: str = "top", **data: object) -> Event:
        return Log(of, *self._rest(), event, "info", msgspec.Raw(encode_data(data)))

    def progress(self, current: float, total: float, run: str, category: str | None = None) -> Event:
        return Progress(run, *self._rest(), category, current, total)

    def metrics(self, run: str, category: str | None = None, **values: float) -> Event:
        return Metrics(run, *self._rest(), category, msgspec.Raw(encode_metrics(values)))

    def message(self, text: str, run: str) -> Event:
        return Message(run, *self._rest(), text)

    def _rest(self) -> tuple[int, float, str, str | None]:
        seq = next(self._seq)
        return seq, float(seq), "act", None


@pytest.fixture
def told() -> Told:
    """Return a maker of events."""
    return Told()


@pytest.fixture
def begun(told: Told) -> list[Event]:
    """Return the first events of a pipeline of three nodes."""
    return [
        told.state("pending"),
        told.state("running"),
        told.log("pipeline_start", pipeline="shapes", nodes=["draw", "check", "report"]),
    ]


def folded(events: list[Event], run_id: str | None = None) -> PipelineProgress:
    """Return what a list of events comes to."""
    fold = ProgressFold(run_id)
    for event in events:
        fold.apply(event)
    return fold.snapshot()


def states(progress: PipelineProgress) -> dict[str, str]:
    """Return the state of each node."""
    return {action.name: action.status.value for action in progress.actions}


def time(seconds: float) -> datetime:
    """Return a time of the events'."""
    return datetime.fromtimestamp(seconds, UTC)


class TestAPipeline:
    def test_its_nodes_are_pending_in_their_order_once_it_starts(self, begun: list[Event]) -> None:
        progress = folded(begun)

        assert ("top", "shapes", RunStatus.RUNNING, 0.0) == (
            progress.run_id,
            progress.name,
            progress.status,
            progress.percent,
        )
        assert {"draw": "pending", "check": "pending", "report": "pending"} == states(progress)
        assert time(2) == progress.started
        assert 1.0 == progress.elapsed

    def test_the_last_state_says_how_it_ended(self, told: Told, begun: list[Event]) -> None:
        progress = folded([*begun, told.state("failed", detail="node 'draw' failed")])

        assert (RunStatus.FAILED, "node 'draw' failed", time(4), 2.0) == (
            progress.status,
            progress.error,
            progress.finished,
            progress.elapsed,
        )

    def test_one_that_succeeded_is_done_whatever_was_skipped(self, told: Told, begun: list[Event]) -> None:
        progress = folded([*begun, told.state("succeeded")])

        assert 100.0 == progress.percent

    def test_nodes_under_way_end_as_the_whole_did(self, told: Told, begun: list[Event]) -> None:
        progress = folded([*begun, told.log("node_start", node="draw", run="a"), told.state("cancelled")])

        assert {"draw": "cancelled", "check": "pending", "report": "pending"} == states(progress)
        assert [] == progress.current

    def test_a_resumed_one_starts_over_with_what_is_restored(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [
                *begun,
                told.log("node_start", node="draw", run="a"),
                told.log("node_end", node="draw", run="a", state="succeeded"),
                told.log("node_start", node="check", run="b"),
                told.state("pending", attempt=2),
                told.state("running", attempt=2),
                told.log("pipeline_start", pipeline="shapes", nodes=["draw", "check", "report"]),
                told.log("nodes_restored", nodes={"draw": "a"}),
            ]
        )

        assert {"draw": "restored", "check": "pending", "report": "pending"} == states(progress)
        assert (2, "a") == (progress.attempt, progress.actions[0].run_id)
        assert 33 == int(progress.percent)

    def test_the_runs_id_tells_it_from_its_children_where_their_events_come_first(
        self, told: Told, begun: list[Event]
    ) -> None:
        late = [told.state("running", run="a"), *begun]

        assert "top" == folded(late, run_id="top").run_id

    def test_it_is_plain_json_with_enums_by_value(self, begun: list[Event]) -> None:
        document = json.loads(folded(begun[:2]).model_dump_json())

        assert {
            "run_id": "top",
            "name": "",
            "status": "running",
            "attempt": 1,
            "percent": 0.0,
            "current": [],
            "actions": [],
            "started": "1970-01-01T00:00:02Z",
            "finished": None,
            "elapsed": 0.0,
            "error": None,
        } == document
        assert folded(begun) == PipelineProgress.model_validate_json(folded(begun).model_dump_json())


class TestANode:
    def test_it_runs_with_what_its_start_says(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [*begun, told.log("node_start", node="draw", run="a", action="plugin:draw", executor="process")]
        )

        assert ["draw"] == progress.current
        assert (
            ActionProgress(
                name="draw",
                status=ActionStatus.RUNNING,
                run_id="a",
                action="plugin:draw",
                executor="process",
                started=time(4),
            )
            == progress.actions[0]
        )

    def test_what_its_run_says_shows_on_it(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [
                *begun,
                told.log("node_start", node="draw", run="a"),
                told.progress(3, 12, "a", "images"),
                told.metrics("a", "shape", area=2.0),
                told.metrics("a", "shape", area=3.0),
                told.metrics("a", loss=0.5),
                told.message("a first", "a"),
                told.message("a second", "a"),
                told.log("whatever", of="a"),
            ]
        )

        node = progress.actions[0]
        assert (25.0, "images", "a second") == (node.progress, node.category, node.message)
        assert {"shape.area": 3.0, "loss": 0.5} == node.metrics
        assert 25 / 3 == pytest.approx(progress.percent)

    def test_progress_of_all_it_does_goes_before_that_of_a_category(
        self, told: Told, begun: list[Event]
    ) -> None:
        progress = folded(
            [
                *begun,
                told.log("node_start", node="draw", run="a"),
                told.progress(90, 100, "a", "epoch"),
                told.progress(1, 2, "a"),
                told.progress(100, 100, "a", "epoch"),
            ]
        )

        assert (50.0, None) == (progress.actions[0].progress, progress.actions[0].category)

    def test_attempts_and_their_errors_show_on_it(self, told: Told, begun: list[Event]) -> None:
        start = [*begun, told.log("node_start", node="draw", run="a")]
        again = [*start, told.state("retrying", "a", 1, "OSError: full"), told.state("running", "a", 2)]

        assert ("retrying", "OSError: full") == (
            folded(again[:-1]).actions[0].status,
            folded(again[:-1]).actions[0].error,
        )
        assert ["draw"] == folded(again[:-1]).current
        assert ("running", 2) == (folded(again).actions[0].status, folded(again).actions[0].attempt)

    def test_its_end_is_final_though_its_runs_events_come_late(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [
                *begun,
                told.log("node_start", node="draw", run="a"),
                told.log("node_end", node="draw", run="a", state="failed", error="ValueError: no"),
                told.state("running", "a"),
            ]
        )

        assert ("failed", "ValueError: no", time(5)) == (
            progress.actions[0].status,
            progress.actions[0].error,
            progress.actions[0].finished,
        )

    def test_events_of_its_run_that_come_before_its_start_count(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [
                *begun,
                told.state("running", "a", 1),
                told.progress(1, 4, "a"),
                told.log("node_start", node="draw", run="a"),
            ]
        )

        assert 25.0 == progress.actions[0].progress

    def test_a_cached_result_says_whose_it_is(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [*begun, told.log("node_end", node="draw", run="b", state="succeeded", cached_from="older")]
        )

        assert ("cached", "older", "b") == (
            progress.actions[0].status,
            progress.actions[0].cached_from,
            progress.actions[0].run_id,
        )

    def test_a_skipped_one_says_why(self, told: Told, begun: list[Event]) -> None:
        progress = folded([*begun, told.log("node_skipped", node="check", reason="draw was skipped")])

        assert ("skipped", "draw was skipped") == (progress.actions[1].status, progress.actions[1].message)
        assert 100 / 3 == pytest.approx(progress.percent)


class TestInstances:
    def test_they_stand_after_their_node_which_runs_as_long_as_they_do(
        self, told: Told, begun: list[Event]
    ) -> None:
        events = [
            *begun,
            told.log("node_items", node="draw", count=2),
            told.log("node_start", node="draw[0]", run="a"),
            told.log("node_end", node="draw[0]", run="a", state="succeeded"),
        ]
        half = folded(events)
        whole = folded([*events, told.log("node_end", node="draw[1]", run="b", state="succeeded")])

        assert {"draw": "running", "draw[0]": "succeeded", "check": "pending", "report": "pending"} == states(
            half
        )
        assert ["draw", "draw[0]", "check", "report"] == [action.name for action in half.actions]
        assert 100 / 6 == pytest.approx(half.percent)
        assert "succeeded" == states(whole)["draw"]
        assert 100 / 3 == pytest.approx(whole.percent)

    def test_only_they_are_current_not_their_node(self, told: Told, begun: list[Event]) -> None:
        progress = folded([*begun, told.log("node_start", node="draw[0]", run="a")])

        assert ["draw[0]"] == progress.current
        assert "running" == states(progress)["draw"]

    def test_one_that_failed_shows_on_their_node(self, told: Told, begun: list[Event]) -> None:
        progress = folded(
            [
                *begun,
                told.log("node_items", node="draw", count=3),
                told.log("node_end", node="draw[0]", run="a", state="failed"),
                told.log("node_end", node="draw[1]", run="b", state="succeeded"),
                told.log("nodes_restored", nodes={"draw[2]": "c"}),
            ]
        )

        assert "failed" == states(progress)["draw"]

    def test_a_node_without_items_is_done(self, told: Told, begun: list[Event]) -> None:
        assert "succeeded" == states(folded([*begun, told.log("node_items", node="draw", count=0)]))["draw"]


class TestTracking:
    def test_the_last_snapshot_holds_all_that_was_told(self, told: Told, begun: list[Event]) -> None:
        events = [*begun, told.log("node_start", node="draw", run="a"), told.state("succeeded")]

        *_, last = track(events)

        assert folded(events) == last

    def test_no_event_at_all_is_one_empty_snapshot(self) -> None:
        assert [PipelineProgress()] == list(track([]))

    def test_a_changed_state_is_told_though_no_more_events_come(self, told: Told, begun: list[Event]) -> None:
        go_on = threading.Event()

        def events() -> Iterator[Event]:
            yield from begun
            yield told.log("node_start", node="draw", run="a")
            assert go_on.wait(30)
            yield told.state("succeeded")

        snapshots = track(events())
        for progress in snapshots:
            if progress.current == ["draw"]:
                go_on.set()

        assert RunStatus.SUCCEEDED == progress.status

    def test_the_last_progress_is_told_though_no_more_events_come(
        self, told: Told, begun: list[Event]
    ) -> None:
        go_on = threading.Event()

        def events() -> Iterator[Event]:
            yield from begun
            yield told.log("node_start", node="draw", run="a")
            for done in range(1, 101):
                yield told.progress(done, 100, "a")
            assert go_on.wait(30)

        for progress in track(events()):
            if progress.actions and progress.actions[0].progress == 100.0:
                go_on.set()

        assert go_on.is_set()

    def test_many_events_are_few_snapshots(
        self, told: Told, begun: list[Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folding, "_PACE_SECONDS", 3600.0)
        monkeypatch.setattr(folding, "_STATE_SECONDS", 3600.0)
        events = [*begun, told.log("node_start", node="draw", run="a")]
        events += [told.progress(done, 5000, "a") for done in range(5000)]

        assert 2 == len(list(track(events)))

    def test_what_the_stream_raises_is_raised(self, begun: list[Event]) -> None:
        def events() -> Iterator[Event]:
            yield from begun
            raise OSError("the pipe is broken")

        with pytest.raises(OSError, match="the pipe is broken"):
            list(track(events()))

    def test_one_who_stops_looking_leaves_no_thread_behind(self, told: Told, begun: list[Event]) -> None:
        go_on = threading.Event()

        def events() -> Iterator[Event]:
            yield from begun
            assert go_on.wait(30)
            while True:
                yield told.progress(1, 2, "a")

        snapshots = track(events())
        next(snapshots)
        snapshots.close()
        go_on.set()

        for thread in threading.enumerate():
            if thread.name == "synapse-track":
                thread.join(60)
                assert not thread.is_alive()

    def test_the_async_twin_yields_the_same(self, told: Told, begun: list[Event]) -> None:
        events = [*begun, told.log("node_start", node="draw", run="a"), told.state("succeeded")]

        async def stream() -> AsyncIterator[Event]:
            for event in events:
                yield event

        async def last() -> PipelineProgress:
            async for progress in track_async(stream()):
                found = progress
            return found

        assert folded(events) == asyncio.run(last())

    def test_what_the_async_stream_raises_is_raised(self, begun: list[Event]) -> None:
        async def stream() -> AsyncIterator[Event]:
            for event in begun:
                yield event
            raise TimeoutError("the server is gone")

        async def look() -> None:
            async for _ in track_async(stream()):
                pass

        with pytest.raises(TimeoutError, match="the server is gone"):
            asyncio.run(look())

    def test_the_async_twin_does_not_block_the_loop(self, told: Told, begun: list[Event]) -> None:
        async def look() -> list[str]:
            go_on = asyncio.Event()
            seen: list[str] = []

            async def stream() -> AsyncIterator[Event]:
                for event in begun:
                    yield event
                await go_on.wait()
                yield told.state("succeeded")

            async for progress in track_async(stream()):
                seen.append(progress.status.value)
                go_on.set()
            return seen

        assert "succeeded" == asyncio.run(look())[-1]

    @pytest.mark.parametrize("take", [list, None], ids=["plain", "async"])
    def test_a_run_can_be_given_as_it_is(self, kernel: Kernel, take: Callable[..., object] | None) -> None:
        @action
        def work(params, ctx):
            ctx.log("pipeline_start", {"pipeline": "p", "nodes": ["a"]})
            ctx.log("node_skipped", {"node": "a", "reason": "of no use"})

        async def last_of(run: object) -> PipelineProgress:
            async for progress in track_async(run):
                found = progress
            return found

        run = kernel.submit(work, sinks=[])
        last = list(track(run))[-1] if take else asyncio.run(last_of(run))

        assert (run.id, "p", RunStatus.SUCCEEDED, {"a": "skipped"}) == (
            last.run_id,
            last.name,
            last.status,
            states(last),
        )


def test_ten_thousand_nodes_are_folded_and_told_in_linear_time(told: Told) -> None:
    """Each event costs the same however many nodes there are: counted, not timed."""
    fold = ProgressFold()
    fold.apply(told.log("pipeline_start", pipeline="p", nodes=["n"]))
    fold.apply(told.log("node_items", node="n", count=10_000))
    for index in range(10_000):
        fold.apply(told.log("node_end", node=f"n[{index}]", run=str(index), state="succeeded"))

    progress = fold.snapshot()

    assert 10_001 == len(progress.actions)
    assert (ActionStatus.SUCCEEDED, 100.0) == (progress.actions[0].status, progress.percent)
    assert progress.actions[5] is fold.snapshot().actions[5]


@pytest.mark.parametrize(
    ("status", "final"),
    [("pending", False), ("running", False), ("retrying", False), ("failed", True), ("timed_out", True)],
)
def test_states_know_whether_they_are_final(status: str, final: bool) -> None:
    assert (final, final) == (RunStatus(status).is_final, ActionStatus(status).is_final)


def test_states_of_nodes_alone_are_final() -> None:
    assert all(ActionStatus(status).is_final for status in ("skipped", "cached", "restored"))
