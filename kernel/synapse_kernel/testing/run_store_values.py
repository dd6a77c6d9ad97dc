"""The run store's contract: checkpoints, environments, and what several users of one place see."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.stores import CheckpointStore, Environment, RunStore
from synapse_kernel.testing.run_store_parts import StoreFixtures, end, ended, events_of, log, record

if TYPE_CHECKING:
    from synapse_kernel.owners import Owner


class ValueContract(StoreFixtures):
    """Keeping values, and sharing the place."""

    def test_a_value_is_kept_byte_by_byte(self, store: RunStore) -> None:
        values = {"bytes": bytes(range(256)), "empty": b"", "large": b"x" * 3_000_000}
        store.put("r1", values)

        assert values == {key: store.value("r1", key) for key in values}

    def test_there_is_no_value_under_another_key_or_scope(self, store: RunStore) -> None:
        store.put("r1", {"k": b"1"})

        assert [None, None, None] == [store.value("r1", "K"), store.value("r2", "k"), store.value("r", "1k")]

    def test_entries_come_in_the_order_they_were_first_put(self, store: RunStore) -> None:
        store.put("r1", {"b": b"1", "a": b"2"})
        store.put("r2", {"z": b"9"})
        store.put("r1", {"c": b"3", "b": b"4"})

        assert [("b", b"4"), ("a", b"2"), ("c", b"3")] == store.entries("r1")

    def test_a_key_that_was_removed_and_put_again_comes_last(self, store: RunStore) -> None:
        store.put("r1", {"a": b"1", "b": b"2"})
        store.remove("r1", ["a"])
        store.put("r1", {"a": b"3"})

        assert [("b", b"2"), ("a", b"3")] == store.entries("r1")

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [("", 8), ("step", 3), ("step/", 2), ("%", 1), ("_", 1), ("é", 1), ("🎉", 1), ("\\", 1), ("x", 0)],
    )
    def test_entries_are_chosen_by_the_start_of_their_key(
        self, store: RunStore, prefix: str, expected: int
    ) -> None:
        keys = ["step/1", "steps", "step/2", "%", "_a", "é1", "🎉", "\\"]
        store.put("r1", {key: key.encode() for key in keys})

        assert [(k, k.encode()) for k in keys if k.startswith(prefix)] == store.entries("r1", prefix)
        assert expected == len(store.entries("r1", prefix))

    def test_values_are_removed_by_key_or_all_at_once(self, store: RunStore) -> None:
        store.put("r1", {"a": b"1", "b": b"2", "c": b"3"})
        store.put("r2", {"a": b"4"})
        store.remove("r1", ["a", "gone"])
        assert ["b", "c"] == [key for key, _ in store.entries("r1")]

        store.remove("r1", [])
        assert ["b", "c"] == [key for key, _ in store.entries("r1")]

        store.remove("r1")
        store.remove("r1")
        assert ([], [("a", b"4")]) == (store.entries("r1"), store.entries("r2"))

    def test_putting_nothing_is_no_error(self, store: RunStore) -> None:
        store.put("r1", {})

        assert [] == store.entries("r1")

    def test_values_are_kept_all_or_none(self, store: RunStore) -> None:
        with pytest.raises(Exception):  # noqa: B017, PT011 - whichever error a store raises for what is no bytes
            store.put("r1", {"a": b"1", "b": object()})  # type: ignore[dict-item]

        assert [] == store.entries("r1")

    @pytest.mark.parametrize("status", ["failed", "cancelled", "timed_out", "crashed"])
    def test_a_run_that_did_not_succeed_keeps_its_checkpoints(
        self, store: RunStore, me: Owner, status: str
    ) -> None:
        store.start(record("r1"), me)
        store.put("r1", {"k": b"v"})
        store.finish(end("r1", status))  # type: ignore[arg-type]
        store.claim("r1", me)

        assert [("k", b"v")] == store.entries("r1")

    def test_a_run_that_succeeded_loses_its_checkpoints_and_no_others(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("r1"), me)
        for scope in ("r1", "r1x", "r"):
            store.put(scope, {"k": b"v"})
        store.finish(end("r1"))

        assert [0, 1, 1] == [len(store.entries(scope)) for scope in ("r1", "r1x", "r")]

    def test_values_that_are_a_runs_go_with_it_and_no_others(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", "r2")
        store.put("cache", {"a": b"1", "b": b"2"}, run_id="r1")
        store.put("cache", {"c": b"3"}, run_id="r2")
        store.put("cache", {"d": b"4"})
        store.put("other", {"a": b"5"}, run_id="r1")
        store.delete(["r1"])

        assert [("c", b"3"), ("d", b"4")] == store.entries("cache")
        assert [] == store.entries("other")

    def test_a_value_is_whose_it_was_put_as_last(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", "r2")
        for owners in (("r1", "r2"), ("r2", "r1"), ("r1", None)):
            for run_id in owners:
                store.put("cache", {"to " + str(owners[-1]): b"v"}, run_id=run_id)
        store.delete(["r1"])

        assert ["to r2", "to None"] == [key for key, _ in store.entries("cache")]

    def test_values_that_are_a_runs_outlive_its_end(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.put("cache", {"k": b"v"}, run_id="r1")
        store.finish(end("r1"))

        assert b"v" == store.value("cache", "k")

    def test_checkpoints_of_a_run_are_json(self, store: RunStore) -> None:
        checkpoints = CheckpointStore(store, "r1")
        checkpoints.put("epoch", {"n": 3, "best": None})
        checkpoints.put_all({"step/1": [1.5], "step/2": "ünï"})

        assert {"n": 3, "best": None} == checkpoints.get("epoch")
        assert [("step/1", [1.5]), ("step/2", "ünï")] == checkpoints.items("step/")
        assert ["none", None] == [checkpoints.get("gone", "none"), checkpoints.get("gone")]

        checkpoints.remove("epoch", "gone")
        assert ["step/1", "step/2"] == [key for key, _ in checkpoints.items()]

    def test_an_environment_that_is_there_stays_as_it_is(self, store: RunStore) -> None:
        first = Environment(id="e1", python="3.11.7", platform="Linux", packages={"numpy": "2.0", "é": "1"})
        assert (False, None) == (store.has_environment("e1"), store.environment("e1"))

        store.put_environment(first)
        store.put_environment(Environment(id="e1", python="3.13", platform="other"))

        assert (True, first) == (store.has_environment("e1"), store.environment("e1"))
        assert (False, None) == (store.has_environment("e"), store.environment("e"))

    def test_what_one_user_wrote_another_reads_at_once(
        self, store: RunStore, other: RunStore, me: Owner
    ) -> None:
        store.start(record("r1"), me)
        assert store.get("r1") == other.get("r1")

        store.append("r1", [log("r1")])
        assert 1 == len(events_of(other, "r1"))

        other.put("r1", {"k": b"v"})
        assert b"v" == store.value("r1", "k")

        other.finish(end("r1", "failed"))
        assert ["failed"] == [run.status for run in store.runs()]

    def test_a_store_that_was_closed_opens_again(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.close()
        store.close()

        assert ["r1"] == [run.run_id for run in store.runs()]
        store.append("r1", [log("r1")])

    def test_many_threads_use_one_store(self, store: RunStore, other: RunStore, me: Owner) -> None:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            place = (store, other)[number % 2]
            try:
                for turn in range(10):
                    run_id = f"r{number}-{turn}"
                    place.start(record(run_id), me)
                    place.append(run_id, [log(run_id, 1), log(run_id, 2)])
                    place.put("all", {run_id: run_id.encode()})
                    place.finish(end(run_id))
                    place.runs()
            except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == errors
        assert 80 == store.count()
        assert {f"r{n}-{t}".encode() for n in range(8) for t in range(10)} == {
            value for _, value in store.entries("all")
        }
        assert {2} == {len(events_of(other, f"r{n}-{t}")) for n in range(8) for t in range(10)}
