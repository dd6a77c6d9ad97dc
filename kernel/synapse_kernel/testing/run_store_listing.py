"""The run store's contract: finding runs, and forgetting them."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from synapse_kernel.stores import RunBusyError, RunQuery, RunStore
from synapse_kernel.testing.run_store_parts import NOON, StoreFixtures, end, ended, log, record, state

if TYPE_CHECKING:
    from synapse_kernel.owners import Owner


class ListingContract(StoreFixtures):
    """Listing, looking up and deleting."""

    def test_runs_are_listed_newest_first_and_those_of_one_moment_by_id(
        self, store: RunStore, me: Owner
    ) -> None:
        for run_id, after in (("b", 5), ("new", 9), ("a", 5), ("old", -1), ("B", 5)):
            store.start(record(run_id, after=after), me)

        assert ["new", "B", "a", "b", "old"] == [run.run_id for run in store.runs()]
        assert ["new", "B"] == [run.run_id for run in store.runs(RunQuery(limit=2))]

    def test_a_listing_tells_as_much_of_a_run_as_asking_for_it(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1", definition={"nodes": {}}, tags=["t"], params={"n": 1}), me)
        store.finish(end("r1", "failed"), [state("r1", "running")])

        known = store.get("r1")
        assert known is not None
        assert known.definition == {"nodes": {}}
        assert [msgspec.structs.replace(known, definition=None)] == store.runs()

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (RunQuery(), ["e", "d", "c", "b", "a"]),
            (RunQuery(statuses=("succeeded",)), ["b"]),
            (RunQuery(statuses=("failed", "pending")), ["e", "d", "c", "a"]),
            (RunQuery(actions=("test", "tr%")), ["c"]),
            (RunQuery(kinds=("pipeline",)), ["d"]),
            (RunQuery(tags=("x",)), ["d", "a"]),
            (RunQuery(tags=("x", "y")), ["a"]),
            (RunQuery(tags=("'x",)), []),
            (RunQuery(since=NOON + timedelta(seconds=3)), ["e", "d"]),
            (RunQuery(until=NOON + timedelta(seconds=3)), ["c", "b", "a"]),
            (RunQuery(since=NOON + timedelta(seconds=1), until=NOON + timedelta(seconds=2)), ["b"]),
            (RunQuery(parent="d"), ["e"]),
            (RunQuery(roots_only=True), ["d", "c", "b", "a"]),
            (RunQuery(statuses=("pending",), actions=("train",), tags=("x",)), ["d"]),
            (RunQuery(statuses=("failed",), limit=None), ["a"]),
        ],
        ids=repr,
    )
    def test_a_query_chooses_the_runs_that_meet_all_its_conditions(
        self, store: RunStore, me: Owner, query: RunQuery, expected: list[str]
    ) -> None:
        store.start(record("a", tags=["y", "x", "x"]), me)
        store.start(record("b", after=1), me)
        store.start(record("c", after=2, action="test"), me)
        store.start(record("d", after=3, kind="pipeline", tags=["x"]), me)
        store.start(record("e", after=4, parent="d"), me)
        store.finish(end("a", "failed"))
        store.finish(end("b"))

        assert expected == [run.run_id for run in store.runs(query)]
        assert len(expected) == store.count(msgspec.structs.replace(query, limit=1))

    def test_ids_are_found_by_their_start_newest_first(self, store: RunStore, me: Owner) -> None:
        for after, run_id in enumerate(("ab1", "ab2", "b", "a%", "a_", "aé", "a\U0010ffffz")):
            store.start(record(run_id, after=after), me)

        assert ["ab2", "ab1"] == store.matching("ab")
        assert ["ab2"] == store.matching("ab", limit=1)
        assert ["a%"] == store.matching("a%")
        assert ["a_"] == store.matching("a_")
        assert ["aé"] == store.matching("aé")
        assert ["a\U0010ffffz"] == store.matching("a\U0010ffff")
        assert 7 == len(store.matching(""))
        assert [] == store.matching("A")

    @pytest.mark.parametrize("prefix", ["'", "\\", "*", "?", "[a", "a\0", "\udce9", "\U0010ffff", "🎉"])
    def test_a_prefix_may_hold_any_character(self, store: RunStore, me: Owner, prefix: str) -> None:
        ended(store, me, "a1")

        assert [] == store.matching(prefix)

    def test_deleting_forgets_a_run_and_all_under_it(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "apart")
        store.append("apart", [log("apart")])
        store.start(record("top", definition={}, tags=["t"]), me)
        store.start(record("mid", parent="top"), me)
        store.start(record("low", parent="mid", root="top"), me)
        for run_id in ("low", "mid", "top"):
            store.put(run_id, {"k": b"v"})
            store.finish(end(run_id, "failed"), [log(run_id)])

        assert 3 == store.delete(["top", "mid", "gone"])

        assert ["apart"] == [run.run_id for run in store.runs()]
        assert ["apart"] == [one.event.run_id for one in store.events("apart", descendants=True)]
        for run_id in ("low", "mid", "top"):
            assert store.get(run_id) is None
            assert ([], [], None) == (store.events(run_id), store.entries(run_id), store.outcome(run_id))
        assert 0 == store.count(RunQuery(tags=("t",)))

    def test_a_deleted_id_can_be_used_again(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1")
        store.append("r1", [log("r1")])
        store.delete(["r1"])
        store.start(record("r1", action="other"), me)

        assert ["other"] == [run.action for run in store.runs()]
        assert [] == store.events("r1")

    def test_a_run_that_has_not_ended_is_not_deleted_nor_those_beside_it(
        self, store: RunStore, me: Owner
    ) -> None:
        ended(store, me, "done")
        store.start(record("top"), me)
        store.start(record("child", parent="top"), me)
        store.finish(end("top"))

        with pytest.raises(RunBusyError) as caught:
            store.delete(["done", "top"])

        assert ("child", me) == (caught.value.run_id, caught.value.owner)
        assert 3 == store.count()

    def test_deleting_nothing_deletes_nothing(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1")

        assert 0 == store.delete([])
        assert 1 == store.count()
