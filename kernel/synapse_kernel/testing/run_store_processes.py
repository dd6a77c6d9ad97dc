"""The run store's contract: whose a run is, who is alive, and how one asks another to stop."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from synapse_kernel.owners import Owner, this_process
from synapse_kernel.stores import RunBusyError, RunRecord, RunStore
from synapse_kernel.testing.run_store_parts import (
    OpenStore,
    OtherProcess,
    StoreFixtures,
    end,
    ended,
    events_of,
    log,
    record,
    state,
)

if TYPE_CHECKING:
    from synapse_kernel.contracts import JsonObject

_HOUR = 3600.0
# By a lease this short, whoever is judged by silence has been silent too long.
_NONE = -1.0


class ProcessContract(StoreFixtures):
    """Claiming, reaping, heartbeats and requests to cancel."""

    def test_the_run_of_a_process_that_lives_is_never_reaped(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        """However long its last heartbeat is ago."""
        store.start(record("mine"), me)
        store.start(record("others"), process.owner)

        assert [] == store.reap(lease=_NONE)
        assert ["pending", "pending"] == [run.status for run in store.runs()]

    def test_the_run_of_a_suspended_process_is_never_reaped(
        self, store: RunStore, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        process.suspend()

        assert [] == store.reap(lease=_NONE)

    def test_the_run_of_a_killed_process_has_crashed_at_once(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        store.start(record("r1", created=before), process.owner)
        store.append("r1", [state("r1", "running")])
        store.start(record("mine"), me)
        process.kill()

        assert ["r1"] == store.reap(lease=_HOUR)
        assert [] == store.reap(lease=_HOUR)

        run = store.get("r1")
        assert run is not None
        assert ("crashed", process.owner) == (run.status, run.owner)
        assert run.finished is not None
        # Give or take what two clocks may differ by.
        assert before <= run.finished <= datetime.now(UTC) + timedelta(minutes=1)
        assert f"its process, {process.owner.pid} on {process.owner.host}, ended before it did" == run.error
        assert ["crashed"] == [run.status for run in store.runs() if run.run_id == "r1"]
        assert store.outcome("r1") is None

    def test_a_process_whose_number_was_used_again_is_dead(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), msgspec.structs.replace(me, started="1"))

        assert ["r1"] == store.reap(lease=_HOUR)

    def test_runs_that_have_ended_are_left_as_they_are(self, store: RunStore, process: OtherProcess) -> None:
        ended(store, process.owner, "r1", "r2", status="failed")
        process.kill()

        assert [] == store.reap()
        assert ["failed", "failed"] == [run.status for run in store.runs()]

    def test_a_final_state_without_an_outcome_is_no_end(self, store: RunStore, process: OtherProcess) -> None:
        store.start(record("r1"), process.owner)
        store.append("r1", [state("r1", "succeeded")])
        process.kill()

        assert ["r1"] == store.reap()
        assert ["crashed"] == [run.status for run in store.runs()]

    def test_a_process_out_of_sight_is_judged_by_its_silence(self, store: RunStore, far: Owner) -> None:
        store.start(record("r1"), far)

        assert [] == store.reap(lease=_HOUR)
        assert ["r1"] == store.reap(lease=_NONE)

    def test_a_process_of_another_machine_is_judged_by_its_silence(self, store: RunStore, far: Owner) -> None:
        store.start(record("r1"), msgspec.structs.replace(far, boot="another machine", host="elsewhere"))

        assert [] == store.reap(lease=_HOUR)
        assert ["r1"] == store.reap(lease=_NONE)

    def test_a_heartbeat_revives_what_was_taken_for_crashed(self, store: RunStore, far: Owner) -> None:
        store.start(record("r1"), far)
        ended(store, far, "done", status="crashed")
        store.reap(lease=_NONE)
        store.heartbeat(far)

        run = store.get("r1")
        assert run is not None
        assert ("running", None, None) == (run.status, run.finished, run.error)
        assert [] == store.reap(lease=_HOUR)
        assert ["crashed"] == [run.status for run in store.runs() if run.run_id == "done"]

        store.finish(end("r1"))
        assert {"succeeded", "crashed"} == {run.status for run in store.runs()}

    def test_a_heartbeat_revives_nothing_that_another_has_claimed(
        self, store: RunStore, far: Owner, me: Owner
    ) -> None:
        store.start(record("r1"), far)
        store.reap(lease=_NONE)
        store.claim("r1", me, lease=_NONE)
        store.heartbeat(far)

        run = store.get("r1")
        assert run is not None
        assert ("pending", me) == (run.status, run.owner)

    def test_a_heartbeat_of_a_process_without_runs_is_no_error(self, store: RunStore, me: Owner) -> None:
        store.heartbeat(me)
        store.forget(me)
        store.forget(this_process("never heard of"))

        assert [] == store.reap()

    def test_a_process_that_said_it_has_ended_leaves_no_run_behind(self, store: RunStore, me: Owner) -> None:
        """The kernel is closed while its process goes on."""
        store.start(record("r1"), me)
        store.forget(me)

        assert ["r1"] == store.reap(lease=_HOUR)

    def test_starting_or_claiming_again_takes_back_a_farewell(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", status="failed")
        store.forget(me)
        store.claim("r1", me)
        assert [] == store.reap()

        store.forget(me)
        store.start(record("r2"), me)
        assert [] == store.reap()

    def test_finishing_counts_for_a_run_that_was_taken_for_crashed(self, store: RunStore, far: Owner) -> None:
        store.start(record("r1"), far)
        store.reap(lease=_NONE)
        store.finish(end("r1", result=1))

        run = store.get("r1")
        assert run is not None
        assert ("succeeded", None) == (run.status, run.error)

    def test_a_claim_makes_an_ended_run_the_callers_next_attempt(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1", tags=["t"], definition={"n": 1}), process.owner)
        store.put("r1", {"k": b"v"})
        store.start(record("child", parent="r1", node="n"), process.owner)
        store.finish(end("child", result=1))
        store.finish(end("r1", "failed"), [state("r1", "running", 1, at=1), log("r1", 2)])
        before = store.get("r1")
        assert before is not None

        claimed = store.claim("r1", me)

        expected = msgspec.structs.replace(
            before, status="pending", attempt=2, owner=me, started=None, finished=None, error=None
        )
        assert expected == claimed == store.get("r1")
        assert store.outcome("r1") is None
        assert [1, 2] == [event.seq for event in events_of(store, "r1")]
        assert b"v" == store.value("r1", "k")
        assert ["child"] == [child.run_id for child in store.children("r1")]

    @pytest.mark.parametrize("size", [1, 100_000])
    @pytest.mark.parametrize("definition", [None, {"n": 1}])
    def test_the_next_attempt_may_have_another_executor_and_place(
        self, store: RunStore, me: Owner, size: int, definition: JsonObject | None
    ) -> None:
        store.start(
            record("r1", params={"p": "x" * size}, tags=["t"], definition=definition, cached_from="r0"), me
        )
        store.finish(end("r1", "failed"))
        before = store.get("r1")
        assert before is not None
        changes = {
            "executor": "process",
            "lasting": True,
            "cached_from": None,
            "cwd": "/elsewhere/caf\udce9",
            "commit": "c2",
            "environment": "x" * 3000,
        }

        claimed = store.claim("r1", me, changes=changes)

        assert claimed.cwd.startswith("/elsewhere/caf")
        expected = msgspec.structs.replace(
            before,
            **{**changes, "cwd": claimed.cwd},
            status="pending",
            attempt=2,
            finished=None,
            error=None,
        )
        assert expected == claimed == store.get("r1")

        store.finish(end("r1", "failed", attempt=2))
        back = store.claim("r1", me, changes={"environment": None})
        assert (None, "process", "x" * size) == (back.environment, back.executor, back.params["p"])
        assert back == store.get("r1")

    def test_a_claim_that_changes_what_a_run_is_is_refused(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", status="failed")
        before = store.get("r1")

        with pytest.raises(ValueError, match=r"\bparams, run_id\b"):
            store.claim("r1", me, changes={"run_id": "r2", "cwd": "/", "params": {}})

        assert before == store.get("r1")

    def test_a_claim_that_is_refused_changes_nothing(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        before = store.get("r1")

        with pytest.raises(RunBusyError):
            store.claim("r1", me, changes={"executor": "process"})

        assert before == store.get("r1")

    def test_an_ended_run_can_be_claimed_by_the_process_that_ran_it(self, store: RunStore, me: Owner) -> None:
        ended(store, me, "r1", status="failed")

        assert [2, 3] == [store.claim("r1", me).attempt, self._ended_again(store, me)]

    def _ended_again(self, store: RunStore, me: Owner) -> int:
        store.finish(end("r1", "failed", attempt=2))
        return store.claim("r1", me).attempt

    def test_a_run_whose_process_lives_cannot_be_claimed(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        before = store.get("r1")
        process.suspend()

        with pytest.raises(RunBusyError) as caught:
            store.claim("r1", me, lease=_NONE)

        owner = process.owner
        assert ("r1", owner) == (caught.value.run_id, caught.value.owner)
        assert (
            f"Run r1 is running in process {owner.pid} on {owner.host}\n"
            f"  watch it with: synapse-kernel runs watch r1\n"
            f"  stop it with:  synapse-kernel runs cancel r1"
        ) == str(caught.value)
        assert before == store.get("r1")

    def test_a_run_of_the_callers_own_that_goes_on_cannot_be_claimed(
        self, store: RunStore, me: Owner
    ) -> None:
        store.start(record("r1"), me)

        with pytest.raises(RunBusyError):
            store.claim("r1", me, lease=_NONE)

    def test_a_run_whose_process_was_killed_can_be_claimed_at_once(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        process.kill()

        assert (me, 2) == ((claimed := store.claim("r1", me, lease=_HOUR)).owner, claimed.attempt)

    def test_a_run_out_of_sight_can_be_claimed_after_its_lease(
        self, store: RunStore, me: Owner, far: Owner
    ) -> None:
        store.start(record("r1"), far)

        with pytest.raises(RunBusyError):
            store.claim("r1", me, lease=_HOUR)

        assert me == store.claim("r1", me, lease=_NONE).owner

    def test_of_many_that_claim_a_run_one_wins(
        self, open_store: OpenStore, store: RunStore, other: RunStore, me: Owner
    ) -> None:
        third = open_store()
        for turn in range(10):
            run_id = f"r{turn}"
            ended(store, me, run_id, status="failed")
            won: list[RunRecord] = []
            lost: list[Owner | None] = []
            errors: list[BaseException] = []
            owners = [this_process(f"claimant {turn} {n}") for n in range(6)]
            barrier = threading.Barrier(len(owners))

            def race(
                number: int,
                owner: Owner,
                *,
                run_id: str = run_id,
                won: list[RunRecord] = won,
                lost: list[Owner | None] = lost,
                errors: list[BaseException] = errors,
                barrier: threading.Barrier = barrier,
            ) -> None:
                try:
                    barrier.wait()
                    won.append((store, other, third)[number % 3].claim(run_id, owner))
                except RunBusyError as error:
                    lost.append(error.owner)
                except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
                    errors.append(error)

            threads = [threading.Thread(target=race, args=pair) for pair in enumerate(owners)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert [] == errors
            assert [2] == [claimed.attempt for claimed in won]
            assert [won[0].owner] * 5 == lost
            assert won[0] == store.get(run_id)
        third.close()

    def test_a_request_to_cancel_is_told_once_to_the_process_of_the_run(
        self, store: RunStore, other: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), me)
        store.start(record("r2"), me)
        store.start(record("theirs"), process.owner)
        assert [] == store.cancel_requests(me)

        assert other.request_cancel("r2", "no longer ünï\udce9 wanted")
        assert other.request_cancel("theirs")

        [(run_id, reason)] = store.cancel_requests(me)
        assert ("r2", True) == (run_id, reason.startswith("no longer ünï"))
        assert [] == store.cancel_requests(me)
        assert [("theirs", "cancelled")] == other.cancel_requests(process.owner)

    def test_a_request_can_be_made_again(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.request_cancel("r1", "first")
        store.request_cancel("r1", "second")
        assert [("r1", "second")] == store.cancel_requests(me)

        store.request_cancel("r1", "third")
        assert [("r1", "third")] == store.cancel_requests(me)

    def test_a_run_that_has_ended_cannot_be_cancelled(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        ended(store, me, "r1")
        store.start(record("r2"), process.owner)
        process.kill()
        store.reap()

        assert [False, False] == [store.request_cancel("r1"), store.request_cancel("r2")]
        assert [] == store.cancel_requests(me)

    def test_a_claim_forgets_a_request_to_cancel(
        self, store: RunStore, me: Owner, process: OtherProcess
    ) -> None:
        store.start(record("r1"), process.owner)
        store.request_cancel("r1")
        process.kill()
        store.claim("r1", me)

        assert [] == store.cancel_requests(me)

    def test_the_end_of_a_run_forgets_a_request_to_cancel(self, store: RunStore, me: Owner) -> None:
        store.start(record("r1"), me)
        store.request_cancel("r1")
        store.finish(end("r1", "failed"))
        store.claim("r1", me)

        assert [] == store.cancel_requests(me)
