"""The executor's contract: every event, in order, while the action runs."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_kernel.events import Log, Message, Metrics, Progress
from synapse_kernel.testing.executor_parts import ExecutorFixtures

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.kernel import Kernel

_MANY = 20_000


class EventContract(ExecutorFixtures):
    """What an action says, and prints."""

    def test_events_come_in_the_order_they_were_said_with_all_they_hold(
        self, kernel: Kernel, folder: Path
    ) -> None:
        heard = self.ended(kernel, folder, "talk").heard

        assert [("pending", 1), ("running", 1), ("succeeded", 1)] == heard.stages
        log, metrics, message, warning, progress = [event for _, event in heard.said]
        assert isinstance(log, Log)
        assert ("one", "info", {"n": 1}) == (log.event, log.level, log.data)
        assert isinstance(metrics, Metrics)
        assert ("train", 0.5, "nan") == (metrics.category, metrics.values["loss"], str(metrics.values["odd"]))
        assert isinstance(message, Message)
        assert ("two \U0001f600", "success") == (message.text, message.context)
        assert isinstance(warning, Log)
        assert ("warning", "three 3") == (warning.level, warning.data["message"])
        assert isinstance(progress, Progress)
        assert ("epochs", 5, 10) == (progress.category, progress.current, progress.total)

    def test_many_events_arrive_all_and_the_last_progress_too(self, kernel: Kernel, folder: Path) -> None:
        heard = self.ended(kernel, folder, "talk_much", {"count": _MANY}).heard

        assert list(range(_MANY)) == [data["n"] for data in heard.logged("said")]
        assert (_MANY, _MANY) == (heard.of(Progress)[-1].current, heard.of(Progress)[-1].total)

    def test_what_several_threads_say_arrives_all(self, kernel: Kernel, folder: Path) -> None:
        texts = self.ended(kernel, folder, "talk_in_threads", {"count": 500}).heard.texts

        for thread in "0123":
            mine = [text for text in texts if text.startswith(f"{thread} ")]
            assert [f"{thread} {number}" for number in range(500)] == mine
        assert 2000 == len(texts)

    def test_events_name_the_step_they_were_said_in(self, kernel: Kernel, folder: Path) -> None:
        heard = self.ended(kernel, folder, "talk_in_steps").heard

        assert ["first", "second"] == [log.step for log in heard.of(Log) if log.event == "inside"]

    def test_events_are_heard_while_the_action_runs(self, kernel: Kernel, folder: Path) -> None:
        """It says one thing and goes on until it is told to stop."""
        watched = self.start(kernel, folder, "polite")
        watched.started()

        assert (False, "running") == (watched.run.done, watched.run.status)

        watched.run.cancel()
        watched.end()

    def test_printed_lines_become_events_each_stream_in_order(
        self, kernel: Kernel, folder: Path, in_process: bool
    ) -> None:
        if in_process:
            pytest.skip("what an action prints goes where the caller prints")

        heard = self.ended(kernel, folder, "print_lines", {"count": 2000}).heard

        printed = [(data["stream"], data["text"]) for data in heard.logged("output")]
        expected = [*(str(number) for number in range(2000)), "café 😀", "no end"]
        assert expected == [text for stream, text in printed if stream == "stdout"]
        assert ["to the other"] == [text for stream, text in printed if stream == "stderr"]

    def test_runs_that_are_submitted_together_all_end_each_with_its_own_events(
        self, kernel: Kernel, folder: Path
    ) -> None:
        runs = [self.start(kernel, folder, "talk_much", {"count": 100 + n}) for n in range(self.many)]

        for number, watched in enumerate(runs):
            assert watched.end(self.patience * 2).ok
            assert list(range(100 + number)) == [data["n"] for data in watched.heard.logged("said")]
