"""The executor's contract: cancelling, time-outs, attempts, and the end of the kernel."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.events import Message
from synapse_kernel.owners import is_alive
from synapse_kernel.testing.executor_parts import QUICK, ExecutorFixtures, MakeKernel

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.owners import Owner

# Seconds in which an action that listens has ended, or a killed process is gone: far more than it takes.
_SOON = 30.0


# A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
class StopContract(ExecutorFixtures):
    """Every run ends, once, when it is told to."""

    @pytest.mark.parametrize("action", ["polite", "polite_later"])
    def test_a_cancelled_action_is_told_and_its_clean_up_is_heard(
        self, kernel: Kernel, folder: Path, action: str
    ) -> None:
        watched = self.start(kernel, folder, action)
        watched.started()

        watched.run.cancel(grace=10 * _SOON)

        assert "cancelled" == watched.end(min(_SOON, self.patience)).status
        assert ("cancelled", "RunCancelled", "the run was cancelled") == watched.error
        assert ["cleaned up 1"] == watched.heard.texts
        assert [("pending", 1), ("running", 1), ("cancelled", 1)] == watched.heard.stages

    def test_an_action_that_does_not_look_is_stopped_between_byte_codes(
        self, kernel: Kernel, folder: Path
    ) -> None:
        self._only_by_force()
        watched = self.start(kernel, folder, "busy")
        process = watched.started()

        watched.run.cancel()

        assert "cancelled" == watched.end().status
        if self.isolated and watched.heard.texts != ["stopped"]:
            self._is_gone(process)
        else:
            assert ["stopped"] == watched.heard.texts
        assert [("pending", 1), ("running", 1), ("cancelled", 1)] == watched.heard.stages
        assert self.ended(kernel, folder, "double").outcome.ok

    def test_an_action_that_ignores_all_is_ended_with_its_process_or_left_behind(
        self, kernel: Kernel, folder: Path
    ) -> None:
        self._only_by_force()
        watched = self.start(kernel, folder, "deaf")
        process = watched.started()

        watched.run.cancel()

        assert "cancelled" == watched.end().status
        self._is_gone(process)
        assert self.ended(kernel, folder, "double").outcome.ok

    def test_cancelling_again_without_grace_stops_by_force(self, kernel: Kernel, folder: Path) -> None:
        self._only_by_force()
        watched = self.start(kernel, folder, "busy")
        watched.started()

        watched.run.cancel(grace=2 * self.patience)
        watched.run.cancel(grace=0)

        assert "cancelled" == watched.end().status

    def test_a_run_that_is_cancelled_before_it_has_begun_ends(self, kernel: Kernel, folder: Path) -> None:
        watched = self.start(kernel, folder, "polite")

        watched.run.cancel(grace=2 * self.patience)

        assert "cancelled" == watched.end().status
        assert ("cancelled", "RunCancelled", "the run was cancelled") == watched.error

    def test_cancelling_a_run_that_has_ended_changes_nothing(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "double")
        outcome = watched.outcome

        watched.run.cancel()
        watched.run.cancel(grace=0)

        assert outcome is watched.end()

    @pytest.mark.parametrize("action", ["polite", "polite_later", "busy"])
    def test_a_run_that_takes_longer_than_its_time_out_is_stopped(
        self, kernel: Kernel, folder: Path, action: str
    ) -> None:
        if action == "busy":
            self._only_by_force()

        watched = self.ended(kernel, folder, action, timeout=0.75)

        assert "timed_out" == watched.outcome.status
        assert ("timeout", "RunTimedOut", "the run took longer than its 0.75 s") == watched.error
        assert [("pending", 1), ("running", 1), ("timed_out", 1)] == watched.heard.stages

    def test_a_run_that_ends_in_time_is_not_disturbed(self, kernel: Kernel, folder: Path) -> None:
        assert self.ended(kernel, folder, "double", timeout=2 * self.patience).outcome.ok

    def test_a_time_out_is_for_each_attempt(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "polite", timeout=0.75, retries=1)

        assert ("timed_out", 2) == (watched.outcome.status, watched.outcome.attempts)
        assert [("pending", 1), ("running", 1), ("retrying", 1), ("running", 2), ("timed_out", 2)] == (
            watched.heard.stages
        )
        for attempt, event in watched.heard.said:
            if isinstance(event, Message):
                assert f"cleaned up {attempt}" == event.text

    def test_attempts_are_one_run_and_do_not_mix(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "flaky", {"until": 3}, retries=4)

        assert (3, 3) == (watched.result, watched.outcome.attempts)
        expected = [("pending", 1), ("running", 1), ("retrying", 1), ("running", 2), ("retrying", 2)]
        assert [*expected, ("running", 3), ("succeeded", 3)] == watched.heard.stages
        said = [(attempt, event.text) for attempt, event in watched.heard.said if isinstance(event, Message)]
        assert [(n, f"attempt {n}") for n in (1, 2, 3)] == said

    def test_the_last_attempts_failure_is_the_runs(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "flaky", {"until": 9}, retries=1)

        assert ("failed", 2) == (watched.outcome.status, watched.outcome.attempts)
        assert ("action", "OSError", "no luck in attempt 2") == watched.error

    def test_the_next_attempt_finds_the_checkpoints_of_the_one_before(
        self, make_kernel: MakeKernel, folder: Path, tmp_path: Path
    ) -> None:
        with make_kernel({**QUICK, "store": f"sqlite://{tmp_path}/history.db"}) as kernel:
            watched = self.ended(kernel, folder, "go_on", retries=1)

            assert (1, 2) == (watched.result, watched.outcome.attempts)

    def test_the_end_of_the_kernel_is_the_end_of_its_runs(
        self, make_kernel: MakeKernel, folder: Path
    ) -> None:
        with make_kernel(QUICK) as kernel:
            watched = self.start(kernel, folder, "polite")
            watched.started()
            kernel.shutdown()

            assert "cancelled" == watched.end().status

    def test_the_end_of_the_kernel_leaves_no_process_that_ignores_it(
        self, make_kernel: MakeKernel, folder: Path
    ) -> None:
        self._only_by_force()
        with make_kernel(QUICK) as kernel:
            watched = self.start(kernel, folder, "deaf")
            process = watched.started()
            kernel.shutdown()

            assert "cancelled" == watched.end().status
            self._is_gone(process)

    def _only_by_force(self) -> None:
        if not self.forces:
            pytest.skip("the executor stops no action by force")

    def _is_gone(self, process: Owner) -> None:
        """Wait until a process has ended, where it was one of the run's own."""
        end = time.monotonic() + min(_SOON, self.patience)
        while self.isolated and is_alive(process):
            assert time.monotonic() < end, f"the process {process.pid} of the run is still there"
            time.sleep(0.01)
