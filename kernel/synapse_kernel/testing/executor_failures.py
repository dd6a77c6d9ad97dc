"""The executor's contract: whatever goes wrong is an outcome, with its cause and with all that was said."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.events import Metrics
from synapse_kernel.serialization import NotJsonError
from synapse_kernel.testing.executor_folders import write_what_loads_here
from synapse_kernel.testing.executor_parts import ExecutorFixtures

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel

_FRAME = re.compile(r'  File "(.+)", line \d+, in (\w+)')


class FailureContract(ExecutorFixtures):
    """Exceptions, results that do not fit, crashes, and secrets in all of them."""

    def test_an_exception_becomes_data_with_the_actions_own_traceback(
        self, kernel: Kernel, folder: Path
    ) -> None:
        watched = self.ended(kernel, folder, "fail")

        assert ("failed", ("action", "LookupError", "no such colour")) == (
            watched.outcome.status,
            watched.error,
        )
        assert watched.outcome.error is not None
        frames = _FRAME.findall(watched.outcome.error.traceback)
        assert [("failing.py", "fail"), ("failing.py", "helper")] == [
            (Path(file).name, function) for file, function in frames
        ]
        assert watched.outcome.error.traceback.endswith("LookupError: no such colour\n")
        assert ["said before"] == watched.heard.texts
        assert [("pending", 1), ("running", 1), ("failed", 1)] == watched.heard.stages

    @pytest.mark.parametrize(
        ("action", "kind", "message"),
        [
            ("fail_unpicklably", "Unpicklable", "salt and pepper"),
            ("fail_unpickled", "Unpickled", "wanted more"),
            ("fail_strangely", "Unprintable", "<Unprintable whose text cannot be read>"),
        ],
    )
    def test_an_exception_that_cannot_travel_is_told_all_the_same(
        self, kernel: Kernel, folder: Path, action: str, kind: str, message: str
    ) -> None:
        watched = self.ended(kernel, folder, action)

        assert ("action", kind, message) == watched.error
        assert watched.outcome.error is not None
        assert f"in {action}" in watched.outcome.error.traceback

    @pytest.mark.parametrize(("code", "text"), [(None, ""), (3, "3"), ("bye", "'bye'")])
    def test_sys_exit_in_an_action_fails_its_run_and_nothing_else(
        self, kernel: Kernel, folder: Path, code: object, text: str
    ) -> None:
        watched = self.ended(kernel, folder, "leave", {"code": code})

        assert ("action", "SystemExit", f"the action called sys.exit({text})") == watched.error
        assert self.ended(kernel, folder, "double").outcome.ok

    def test_an_action_that_interrupts_ends_cancelled(self, kernel: Kernel, folder: Path) -> None:
        watched = self.start(kernel, folder, "interrupt")
        try:
            watched.end()
        except KeyboardInterrupt:
            pytest.fail("the interrupt of the action came through the executor")

        assert "cancelled" == watched.outcome.status
        assert ("cancelled", "KeyboardInterrupt", "the action interrupted its run") == watched.error

    def test_a_result_that_breaks_its_model_fails_the_run_at_once(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "wrong", retries=2)

        kind, name, message = watched.error
        assert ("failed", 1, "result", "ResultError") == (
            watched.outcome.status,
            watched.outcome.attempts,
            kind,
            name,
        )
        assert message.startswith("the result of 'wrong' does not fit Doubled: value: ")

    def test_a_result_that_is_not_json_fails_with_where_and_what_to_do(
        self, kernel: Kernel, folder: Path, in_process: bool
    ) -> None:
        if in_process:
            pytest.skip("in the caller's process a result may be any object")

        watched = self.ended(kernel, folder, "return_a_lock", retries=2)

        expected = str(NotJsonError("it['fine'][1]['deep']", "lock"))
        assert ("result", "ResultError", expected) == watched.error
        assert 1 == watched.outcome.attempts

    def test_code_that_does_not_load_where_it_runs_fails_the_run_at_once(
        self, kernel: Kernel, tmp_path: Path, in_process: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if in_process:
            pytest.skip("the action was loaded already")
        monkeypatch.setenv("CONTRACT_OF_THE_CALLER", "is not passed on")

        watched = self.ended(kernel, write_what_loads_here(tmp_path / "once"), "run", retries=3)

        assert ("load", "RuntimeError", "this module needs CONTRACT_OF_THE_CALLER") == watched.error
        assert ("failed", 1) == (watched.outcome.status, watched.outcome.attempts)

    def test_secrets_reach_neither_events_nor_the_error(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(
            kernel, folder, "tell_secrets", {"token": "tok-98765"}, env={"API_KEY": "sk-12345"}
        )

        assert ("action", "ValueError", "the server refused *** and ***") == watched.error
        heard = watched.heard
        told = repr([(event, getattr(event, "data", None)) for event in heard.events])
        told += repr(watched.outcome.error)
        assert [] == [secret for secret in ("sk-12345", "tok-98765") if secret in told]
        assert ["the key is ***"] == heard.texts
        assert [{"it": ["***", "***"]}] == heard.logged("***")
        assert {"printed ***"} >= {data["text"] for data in heard.logged("output")}

    @pytest.mark.parametrize("how", ["exit", "exit-0", "kill", "segfault"])
    def test_a_crash_is_a_failed_outcome_with_all_that_was_said_before(
        self, kernel: Kernel, folder: Path, how: str
    ) -> None:
        self._only_isolated()

        watched = self.ended(kernel, folder, "crash", {"how": how})

        kind, _, message = watched.error
        assert ("failed", "crash") == (watched.outcome.status, kind)
        assert message
        assert [("pending", 1), ("running", 1), ("failed", 1)] == watched.heard.stages
        assert list(range(100)) == [data["n"] for data in watched.heard.logged("step")]
        assert list(range(100)) == [metrics.values["n"] for metrics in watched.heard.of(Metrics)]

    def test_a_crash_disturbs_neither_its_neighbour_nor_the_next_run(
        self, kernel: Kernel, folder: Path
    ) -> None:
        self._only_isolated()
        neighbour = self.start(kernel, folder, "polite")
        neighbour.started()

        assert "failed" == self.ended(kernel, folder, "crash", {"how": "kill"}).outcome.status

        assert self.ended(kernel, folder, "double").outcome.ok
        assert not neighbour.run.done
        neighbour.run.cancel(grace=self.patience)
        assert "cancelled" == neighbour.end().status
        assert ["cleaned up 1"] == neighbour.heard.texts

    def test_a_crash_is_retried(self, kernel: Kernel, folder: Path) -> None:
        self._only_isolated()

        watched = self.ended(kernel, folder, "crash_once", retries=2)

        assert (2, 2) == (watched.result, watched.outcome.attempts)
        assert ["attempt 1", "attempt 2"] == watched.heard.texts
        assert [("pending", 1), ("running", 1), ("retrying", 1), ("running", 2), ("succeeded", 2)] == (
            watched.heard.stages
        )

    def _only_isolated(self) -> None:
        if not self.isolated:
            pytest.skip("a crash of the action is one of this process")
