"""The run store's contract: runs, their events and what became of them."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from synapse_kernel.contracts import Resources
from synapse_kernel.events import (
    Artifact,
    Event,
    Message,
    Metrics,
    Progress,
    Status,
    encode_metrics,
)
from synapse_kernel.stores import (
    ChildResult,
    RunBusyError,
    RunNotFoundError,
    RunStore,
    StoreError,
)
from synapse_kernel.testing.run_store_parts import (
    NOON,
    StoreFixtures,
    end,
    ended,
    events_of,
    log,
    record,
    state,
)

if TYPE_CHECKING:
    from synapse_kernel.owners import Owner

_MANY = 10_000


class RecordContract(StoreFixtures):
    """Starting, going on and ending."""

    def test_it_has_every_method_of_a_run_store(self, store: RunStore) -> None:
        assert isinstance(store, RunStore)

    def test_a_run_is_returned_as_it_was_started(self, store: RunStore, me: Owner) -> None:
        whole = record(
            "r1",
            kind="pipeline",
            executor="process",
            lasting=True,
            params={"epochs": 3, "name": "zoë", "nested": {"list": [1, 2.5, None, True]}},
            masked=["login.password"],
            resources=Resources(cpus=2, memory=1 << 40, custom={"tpu": 1}),
            timeout=3600.0,
            retries=2,
            env_names=["HF_HOME"],
            parent="r0",
            root="r0",
            node="draw[3]",
            tags=["nightly", "ünï"],
            job_id="job-7",
            cwd="/srv/project",
            work_dir="/srv/work/r1",
            commit="0a1b2c",
            environment="env1",
            definition={"nodes": {"a": {"needs": []}}},
            cached_from="r-1",
        )
        store.start(whole, me)

        assert msgspec.structs.replace(whole, owner=me) == store.get("r1")

    def test_a_run_without_a_parent_is_its_own_root(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1", root=""), me)

        found = store.get("r1")
        assert found is not None
        assert "r1" == found.root

    def test_a_large_record_comes_back_whole_after_each_change(self, store: RunStore, me: Owner) -> None:
        whole = record("r1", params={"text": "x" * 300_000}, definition={"nodes": ["n" * 100_000]})
        store.start(whole, me)
        store.append("r1", [state("r1", "running")])
        store.finish(end("r1"))

        found = store.get("r1")
        assert found is not None
        assert (whole.params, whole.definition) == (found.params, found.definition)
        assert [whole.params] == [listed.params for listed in store.runs()]

    def test_times_keep_their_microseconds_whatever_zone_they_were_given_in(
        self, store: RunStore, me: Owner
    ) -> None:
        moment = datetime.fromisoformat("2026-03-29T02:59:59.999999+02:00")
        store.start(record("r1", created=moment), me)

        found = store.get("r1")
        assert found is not None
        assert moment == found.created
        assert UTC == found.created.tzinfo

    def test_the_same_id_twice_is_an_error_that_names_it(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)

        with pytest.raises(StoreError) as caught:
            store.start(record("r1", action="other"), me)

        assert f"A run r1 is in {store.url} already" == str(caught.value)
        assert store.url == caught.value.url
        assert ["train"] == [listed.action for listed in store.runs()]

    @pytest.mark.parametrize("run_id", ["", "gone", "%", "_", "r\0", "\udce9", "' OR 1=1 --"])
    def test_there_is_no_run_of_another_id(self, store: RunStore, me: Owner, run_id: str) -> None:
        ended(store, me, "r1")

        assert store.get(run_id) is None
        assert store.outcome(run_id) is None
        assert ([], []) == (store.children(run_id), store.events(run_id))

    def test_what_changes_an_unknown_run_says_so(self, store: RunStore, me: Owner) -> None:
        for change in (
            lambda: store.append("gone", [log("gone")]),
            lambda: store.finish(end("gone")),
            lambda: store.claim("gone", me),
            lambda: store.request_cancel("gone"),
        ):
            with pytest.raises(RunNotFoundError) as caught:
                change()
            assert "gone" == caught.value.run_id

    def test_events_move_the_run_from_state_to_state(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        seen = []
        batches: list[list[Event]] = [
            [log("r1", 1)],
            [state("r1", "running", 2, at=1.5), log("r1", 3)],
            [state("r1", "retrying", 4, at=2), state("r1", "running", 5, attempt=2, at=3)],
        ]
        for events in batches:
            store.append("r1", events)
            run = store.get("r1")
            assert run is not None
            seen.append((run.status, run.attempt, run.started, run.last_seq))

        first = NOON + timedelta(seconds=1.5)
        assert [("pending", 1, None, 1), ("running", 1, first, 3), ("running", 2, first, 5)] == seen

    def test_no_events_change_nothing(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        before = store.get("r1")
        store.append("r1", [])

        assert before == store.get("r1")

    def test_events_come_back_as_they_were(self, store: RunStore, me: Owner) -> None:
        raw = msgspec.Raw(encode_metrics({"loss": float("nan"), "best": float("inf"), "n": 3}))
        events: list[Event] = [
            state("r1", "running", 1),
            log("r1", 2, "ünï 🎉 'quoted' \x00 %s ?"),
            Metrics("r1", 3, 1.25, "train", "fit", "val", raw),
            Progress("r1", 4, 2.0, "train", None, None, 3.0, 10.0),
            Message("r1", 5, 3.0, "train", None, "half done", "success"),
            Artifact("r1", 6, 4.0, "train", None, "best", "/w/best.pt", 1 << 40),
        ]
        store.start(record("r1"), me)
        store.append("r1", events)

        read = events_of(store, "r1")
        assert events == read
        assert isinstance(read[2], Metrics)
        assert {"loss": "nan", "best": "inf", "n": "3"} == {k: str(v) for k, v in read[2].values.items()}

    def test_events_stay_in_order_where_the_clock_jumps_back(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.append("r1", [log("r1", 1, at=100), log("r1", 2, at=-3600)])
        store.append("r1", [log("r1", 3, at=-7200), log("r1", 4, at=50)])

        assert [1, 2, 3, 4] == [event.seq for event in events_of(store, "r1")]

    def test_ten_thousand_events_come_back_in_order(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        for first in range(1, _MANY + 1, 1024):
            store.append("r1", [log("r1", seq) for seq in range(first, min(first + 1024, _MANY + 1))])

        stored = store.events("r1")
        positions = [one.position for one in stored]
        assert list(range(1, _MANY + 1)) == [one.event.seq for one in stored]
        assert sorted(set(positions)) == positions

    def test_events_are_followed_by_position(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.append("r1", [log("r1", 1), log("r1", 2)])
        seen = store.events("r1", limit=1)
        assert [1] == [one.event.seq for one in seen]

        seen = store.events("r1", after=seen[-1].position)
        assert [2] == [one.event.seq for one in seen]
        assert [] == store.events("r1", after=seen[-1].position)

        store.append("r1", [log("r1", 3)])
        assert [3] == [one.event.seq for one in store.events("r1", after=seen[-1].position)]

    def test_events_are_chosen_by_kind(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        raw = msgspec.Raw(b'{"loss":1.0}')
        store.append(
            "r1",
            [state("r1", "running"), log("r1", 2), Metrics("r1", 3, 0.0, "t", None, None, raw), log("r1", 4)],
        )

        assert [2, 4] == [one.event.seq for one in store.events("r1", kinds=["log"])]
        assert [1, 3] == [one.event.seq for one in store.events("r1", kinds=["metrics", "state"])]
        [first] = store.events("r1", kinds=["log"], limit=1)
        assert [4] == [one.event.seq for one in store.events("r1", kinds=["log"], after=first.position)]
        assert [] == store.events("r1", kinds=["artifact", "what'ever"])

    def test_events_of_all_runs_below_come_in_the_order_they_were_stored(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("top"), me)
        store.start(record("mid", parent="top"), me)
        store.start(record("low", parent="mid", root="top"), me)
        store.start(record("apart"), me)
        for seq, run_id in enumerate(("top", "low", "apart", "mid", "low", "top"), 1):
            store.append(run_id, [log(run_id, seq)])

        below = store.events("top", descendants=True)
        assert ["top", "low", "mid", "low", "top"] == [one.event.run_id for one in below]
        assert [5, 6] == [
            one.event.seq for one in store.events("top", descendants=True, after=below[2].position)
        ]
        assert ["low", "mid", "low"] == [one.event.run_id for one in store.events("mid", descendants=True)]
        assert [1, 6] == [one.event.seq for one in store.events("top")]

    def test_a_follower_misses_nothing_after_other_runs_were_deleted(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("top"), me)
        store.append("top", [log("top", 1)])
        store.start(record("child", parent="top"), me)
        store.finish(end("child"), [log("child", seq) for seq in range(1, 5)])
        last = store.events("top", descendants=True)[-1].position
        store.delete(["child"])
        store.append("top", [log("top", 2)])

        assert [2] == [one.event.seq for one in store.events("top", descendants=True, after=last)]

    def test_a_follower_misses_nothing_of_runs_that_write_at_once(
        self, store: RunStore, other: RunStore, me: Owner
    ) -> None:
        store.start(record("top"), me)
        for name in ("a", "b"):
            store.start(record(name, parent="top"), me)
        rounds = 60

        def write(place: RunStore, name: str) -> None:
            for turn in range(rounds):
                place.append(name, [log(name, turn * 5 + n + 1) for n in range(5)])

        writers = [threading.Thread(target=write, args=pair) for pair in ((store, "a"), (other, "b"))]
        for writer in writers:
            writer.start()
        seen: list[tuple[str, int]] = []
        position, going = 0, True
        while going:
            going = any(writer.is_alive() for writer in writers)
            for stored in store.events("top", after=position, descendants=True):
                seen.append((stored.event.run_id, stored.event.seq))
                position = stored.position
        for writer in writers:
            writer.join()

        assert sorted((n, seq + 1) for n in ("a", "b") for seq in range(rounds * 5)) == sorted(seen)

    def test_an_ended_run_has_its_outcome_and_its_last_events(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.finish(
            end("r1", "failed", result={"n": [1, "ünï"]}),
            [state("r1", "running", 1, at=1), state("r1", "failed", 2, at=2)],
        )

        run = store.get("r1")
        assert run is not None
        assert ("failed", 1, 2, "ValueError: no") == (run.status, run.attempt, run.last_seq, run.error)
        assert (NOON + timedelta(seconds=1), NOON + timedelta(minutes=1)) == (run.started, run.finished)
        assert {"run_id": "r1", "status": "failed", "result": {"n": [1, "ünï"]}} == store.outcome("r1")
        assert [1, 2] == [event.seq for event in events_of(store, "r1")]

    def test_a_run_that_goes_on_has_no_outcome(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)

        assert store.outcome("r1") is None

    def test_a_result_may_be_large(self, store: RunStore, me: Owner) -> None:
        result = {"rows": ["x" * 1000] * 8000}
        store.start(record("r1", parent="top", node="n"), me)
        store.finish(end("r1", result=result))

        outcome = store.outcome("r1")
        assert outcome is not None
        assert result == outcome["result"]
        [child] = store.children("top")
        assert child.result is not None
        assert result == msgspec.json.decode(child.result)

    def test_what_is_said_of_an_error_may_hold_any_character(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.finish(msgspec.structs.replace(end("r1", "failed"), error="no file caf\udce9 \0 ünï"))

        run = store.get("r1")
        assert run is not None
        assert run.error is not None
        assert run.error.endswith("ünï")

    def test_events_after_the_end_are_kept_and_change_no_state(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1")
        store.append("r1", [state("r1", "running", 7), log("r1", 8)])

        run = store.get("r1")
        assert run is not None
        assert ("succeeded", 8) == (run.status, run.last_seq)
        assert [7, 8] == [event.seq for event in events_of(store, "r1")]

    def test_a_state_of_an_attempt_that_was_taken_over_changes_nothing(
        self, store: RunStore, me: Owner
    ) -> None:
        ended(store, me, "r1", status="failed")
        store.claim("r1", me)
        store.append("r1", [state("r1", "running", 2, attempt=2), state("r1", "failed", 3, attempt=1)])

        run = store.get("r1")
        assert run is not None
        assert ("running", 2) == (run.status, run.attempt)

    def test_an_end_of_an_attempt_that_was_taken_over_is_refused(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", status="failed")
        store.claim("r1", me)

        with pytest.raises(RunBusyError) as caught:
            store.finish(end("r1", attempt=1), [log("r1", 9)])

        run = store.get("r1")
        assert run is not None
        assert ("r1", me, "pending") == (caught.value.run_id, caught.value.owner, run.status)
        assert [] == events_of(store, "r1")

    @pytest.mark.parametrize("status", ["succeeded", "failed"])
    def test_an_end_of_an_attempt_is_refused_also_after_a_later_one_has_ended(
        self, store: RunStore, me: Owner, status: Status
    ) -> None:
        ended(store, me, "r1", status="failed")
        store.claim("r1", me)
        store.finish(end("r1", status, result="new", attempt=2))
        before = store.get("r1")

        with pytest.raises(StoreError) as caught:
            store.finish(end("r1", "crashed", result="old", attempt=1), [log("r1", 9)])

        assert store.url == caught.value.url
        assert before == store.get("r1")
        assert {"run_id": "r1", "status": status, "result": "new"} == store.outcome("r1")
        assert [] == events_of(store, "r1")

    def test_an_end_of_an_attempt_is_refused_also_after_a_later_one_has_crashed(
        self, store: RunStore, me: Owner
    ) -> None:
        ended(store, me, "r1", status="failed")
        store.claim("r1", me)
        store.forget(me)
        store.reap()
        before = store.get("r1")

        with pytest.raises(StoreError):
            store.finish(end("r1", attempt=1))

        assert before == store.get("r1")
        assert store.outcome("r1") is None

    def test_children_are_told_in_the_order_they_started(self, store: RunStore, me: Owner) -> None:
        store.start(record("top"), me)
        for number, node in enumerate("cabd"):
            store.start(record(f"r{node}", after=-number, parent="top", node=node), me)
        store.start(record("deeper", parent="rc", root="top", node="x"), me)
        store.finish(end("ra", result={"path": "/a"}))
        store.finish(end("rb", "failed"))
        store.finish(msgspec.structs.replace(end("rd", result="***"), reusable=False))

        told = store.children("top")
        assert [("rc", "c"), ("ra", "a"), ("rb", "b"), ("rd", "d")] == [(c.run_id, c.node) for c in told]
        assert ["pending", "succeeded", "failed", "succeeded"] == [child.status for child in told]
        assert [False, True, True, False] == [child.reusable for child in told]
        assert [None, b'{"path":"/a"}', None, None] == [c.result and bytes(c.result) for c in told]
        assert [] == store.children("ra")

    def test_a_child_that_was_taken_over_has_no_result(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1", parent="top", node="n"), me)
        store.finish(end("r1", result=1))
        store.claim("r1", me)

        expected = ChildResult(run_id="r1", node="n", status="pending", attempt=2)
        assert [expected] == store.children("top")
