"""The run store's contract: runs that go on elsewhere, without a process that looks after them."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import threading

import msgspec
import pytest

from synapse_kernel.owners import Owner, this_process
from synapse_kernel.stores import RunBusyError, RunNotFoundError, RunRecord, RunStore, StoreError
from synapse_kernel.testing.run_store_parts import (
    OtherProcess,
    StoreFixtures,
    end,
    ended,
    events_of,
    log,
    record,
    state,
)

_HOUR = 3600.0
# By a lease this short, whoever is judged by silence has been silent too long.
_NONE = -1.0


def _found(store: RunStore, run_id: str = "r1") -> RunRecord:
    found = store.get(run_id)
    assert found is not None
    return found


class DetachedContract(StoreFixtures):
    """Releasing and adopting."""

    def test_a_run_that_was_released_has_no_owner_and_is_otherwise_as_it_was(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("r1", tags=["t"], lasting=True), me)
        store.append("r1", [state("r1", "running", 1, at=1), log("r1", 2)])
        before = _found(store)

        store.release("r1", me)

        assert msgspec.structs.replace(before, owner=None) == _found(store) == store.runs()[0]
        assert [1, 2] == [event.seq for event in events_of(store, "r1")]

    def test_a_run_is_released_by_its_owner_alone(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        store.release("r1", me)
        assert process.owner == _found(store).owner

        ended(store, me, "r2")
        store.release("r2", me)
        assert ("succeeded", me) == ((run := _found(store, "r2")).status, run.owner)

        with pytest.raises(RunNotFoundError):
            store.release("gone", me)

    def test_a_run_that_was_released_is_never_taken_for_crashed(self, store: RunStore, far: Owner) -> None:
        """Whatever executor its record names."""
        store.start(record("r1"), far)
        store.release("r1", far)
        store.forget(far)

        assert [] == store.reap(lease=_NONE)
        assert ("pending", None) == ((run := _found(store)).status, run.owner)

    def test_a_run_that_was_released_does_not_come_back_with_a_heartbeat(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("r1"), me)
        store.release("r1", me)
        store.heartbeat(me)

        assert _found(store).owner is None

    def test_a_lasting_run_goes_on_when_its_process_is_killed(
        self, store: RunStore, process: OtherProcess
    ) -> None:
        store.start(record("r1", lasting=True, params={"large": "x" * 100_000}), process.owner)
        store.start(record("r2"), process.owner)
        store.append("r1", [state("r1", "running")])
        process.kill()
        before = _found(store)

        assert ["r2"] == store.reap(lease=_HOUR)
        assert [] == store.reap(lease=_HOUR)
        assert msgspec.structs.replace(before, owner=None) == _found(store)
        assert "crashed" == _found(store, "r2").status

    def test_a_heartbeat_takes_back_a_lasting_run_that_nobody_adopted(
        self, store: RunStore, far: Owner, me: Owner
    ) -> None:
        for run_id in ("r1", "r2"):
            store.start(record(run_id, lasting=True), far)
        store.reap(lease=_NONE)
        store.adopt("r2", me)
        store.heartbeat(far)

        assert ["pending", "pending"] == [run.status for run in store.runs()]
        assert (far, me) == (_found(store, "r1").owner, _found(store, "r2").owner)

    def test_who_adopts_a_run_is_its_owner_and_goes_on_with_it(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1", definition={"n": 1}), process.owner)
        store.append("r1", [state("r1", "running", 1, attempt=2, at=1), log("r1", 2)])
        store.release("r1", process.owner)
        before = _found(store)

        adopted = store.adopt("r1", me)

        assert msgspec.structs.replace(before, owner=me) == adopted == _found(store)
        assert (2, 2) == (adopted.attempt, adopted.last_seq)
        store.append("r1", [log("r1", 3)])
        store.finish(end("r1", attempt=2, result=1), [state("r1", "succeeded", 4, attempt=2)])
        assert [1, 2, 3, 4] == [event.seq for event in events_of(store, "r1")]
        assert ("succeeded", me) == ((run := _found(store)).status, run.owner)

    def test_a_run_is_adopted_at_once_when_its_process_was_killed(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1", lasting=True), process.owner)
        process.kill()

        assert me == store.adopt("r1", me, lease=_HOUR).owner

    def test_what_was_taken_for_crashed_runs_again_when_it_is_adopted(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        process.kill()
        store.reap()

        adopted = store.adopt("r1", me)

        assert ("running", None, None, me, 1) == (
            adopted.status,
            adopted.finished,
            adopted.error,
            adopted.owner,
            adopted.attempt,
        )
        assert adopted == _found(store)

    @pytest.mark.parametrize("lease", [_NONE, _HOUR])
    def test_a_run_whose_process_lives_is_not_adopted(
        self, store: RunStore, me: Owner, process: OtherProcess, lease: float
    ) -> None:
        store.start(record("r1", lasting=True), process.owner)
        store.start(record("mine", lasting=True), me)
        before = _found(store)

        with pytest.raises(RunBusyError) as caught:
            store.adopt("r1", me, lease=lease)
        assert process.owner == caught.value.owner
        with pytest.raises(RunBusyError):
            store.adopt("mine", me, lease=lease)

        assert before == _found(store)

    def test_a_run_that_has_ended_is_not_adopted(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", status="failed")
        before = _found(store)

        with pytest.raises(StoreError) as caught:
            store.adopt("r1", me)

        assert f"Run r1 has ended in {store.url}: failed" == str(caught.value)
        assert before == _found(store)
        with pytest.raises(RunNotFoundError):
            store.adopt("gone", me)

    def test_of_many_that_adopt_a_run_one_wins(self, store: RunStore, other: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.release("r1", me)
        owners = [this_process(f"adopter {number}") for number in range(6)]
        won: list[RunRecord] = []
        lost: list[Owner | None] = []
        barrier = threading.Barrier(len(owners))

        def race(place: RunStore, owner: Owner) -> None:
            barrier.wait()
            try:
                won.append(place.adopt("r1", owner))
            except RunBusyError as error:
                lost.append(error.owner)

        threads = [
            threading.Thread(target=race, args=((store, other)[number % 2], owner))
            for number, owner in enumerate(owners)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [won[0].owner] * 5 == lost
        assert [won[0]] == won == [_found(store)]

    @pytest.mark.parametrize("how", ["released", "left"])
    def test_a_run_that_goes_on_elsewhere_is_neither_claimed_nor_deleted(
        self, store: RunStore, me: Owner, process: OtherProcess, how: str
    ) -> None:
        store.start(record("r1", lasting=True), process.owner)
        if how == "released":
            store.release("r1", process.owner)
        else:
            process.kill()
        before = _found(store)

        with pytest.raises(RunBusyError) as caught:
            store.claim("r1", me, lease=_NONE)
        assert (
            "Run r1 goes on elsewhere\n"
            "  watch it with: synapse-kernel runs watch r1\n"
            "  stop it with:  synapse-kernel runs cancel r1"
        ) == str(caught.value)
        assert caught.value.owner is None
        assert before == _found(store)

        with pytest.raises(RunBusyError):
            store.delete(["r1"])
        assert 1 == store.count()

    def test_who_knows_that_a_run_goes_on_elsewhere_no_more_claims_it(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1", lasting=True), process.owner)
        with pytest.raises(RunBusyError):
            store.claim("r1", me, elsewhere=True)
        process.kill()
        store.start(record("r2"), me)
        store.release("r2", me)

        claimed = [store.claim(run_id, me, elsewhere=True) for run_id in ("r1", "r2")]

        assert [("pending", 2, me)] * 2 == [(run.status, run.attempt, run.owner) for run in claimed]

    def test_a_final_state_without_an_outcome_is_no_end_of_a_run_that_goes_on_elsewhere(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        for run_id, owner in (("r1", process.owner), ("r2", me)):
            store.start(record(run_id, lasting=True), owner)
            store.append(run_id, [state(run_id, "succeeded")])
        process.kill()
        store.reap()
        store.release("r2", me)

        assert [("running", None)] * 2 == [(run.status, run.owner) for run in store.runs()]
        assert "running" == store.adopt("r1", me).status

    def test_a_request_to_cancel_waits_for_who_adopts_the_run(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.release("r1", me)

        assert store.request_cancel("r1", "no longer wanted")
        assert [] == store.cancel_requests(me)
        store.adopt("r1", me)
        assert [("r1", "no longer wanted")] == store.cancel_requests(me)
        assert [] == store.cancel_requests(me)

    def test_what_a_process_adds_to_a_run_that_it_was_taken_to_have_left_counts(
        self, store: RunStore, far: Owner
    ) -> None:
        store.start(record("r1", lasting=True), far)
        store.reap(lease=_NONE)
        store.append("r1", [state("r1", "running", 1, at=1)])
        assert ("running", None) == ((run := _found(store)).status, run.owner)

        store.finish(end("r1", result=1), [state("r1", "succeeded", 2)])
        assert ("succeeded", far) == ((run := _found(store)).status, run.owner)

    def test_the_end_of_an_earlier_attempt_is_refused_while_the_run_goes_on_elsewhere(
        self, store: RunStore, me: Owner
    ) -> None:
        ended(store, me, "r1", status="failed")
        store.claim("r1", me)
        store.release("r1", me)

        with pytest.raises(RunBusyError) as caught:
            store.finish(end("r1"))

        assert caught.value.owner is None
