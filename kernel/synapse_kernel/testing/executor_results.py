"""The executor's contract: what an action is given, and what it returns."""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest

from synapse_kernel.contracts import Executor, Resources
from synapse_kernel.errors import ParamsError
from synapse_kernel.events import Artifact
from synapse_kernel.testing.executor_folders import write_twin
from synapse_kernel.testing.executor_parts import QUICK, ExecutorFixtures, Heard, MakeKernel

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.contracts import Outcome
    from synapse_kernel.kernel import Kernel


class ResultContract(ExecutorFixtures):
    """Params, surroundings and results."""

    def test_it_has_the_methods_of_an_executor(self, kernel: Kernel) -> None:
        assert isinstance(kernel.executor(self.executor_name), Executor)

    @pytest.mark.parametrize("action", ["double", "double_function", "double_later"])
    def test_classes_functions_and_async_ones_return_their_model(
        self, kernel: Kernel, folder: Path, action: str
    ) -> None:
        result = self.ended(kernel, folder, action, {"x": 21}).result

        assert ("Doubled", 42) == (type(result).__name__, vars(result)["value"])

    def test_params_have_the_defaults_of_their_model(self, kernel: Kernel, folder: Path) -> None:
        assert {"value": 2} == vars(self.ended(kernel, folder, "double").result)

    def test_params_and_results_go_there_and_back_as_they_are(self, kernel: Kernel, folder: Path) -> None:
        it = {
            "nested": {"ключ 😀": [{"": [[], {}]}, "\u2028\x00\"\\'\n", None]},
            "numbers": [0, -1, 2**53 + 1, 2**80, 0.1, 1e300, float("inf"), -float("inf")],
            "flags": [True, False],
            "long": "é" * 2_000_000,
        }

        assert it == self.ended(kernel, folder, "give_back", {"it": it}).result

    def test_what_is_not_a_number_stays_so(self, kernel: Kernel, folder: Path) -> None:
        assert "nan" == str(self.ended(kernel, folder, "give_back", {"it": float("nan")}).result)

    def test_nothing_is_a_result_too(self, kernel: Kernel, folder: Path) -> None:
        assert self.ended(kernel, folder, "give_back", {"it": None}).result is None

    def test_params_that_do_not_fit_are_told_before_anything_starts(
        self, kernel: Kernel, folder: Path
    ) -> None:
        heard = Heard()
        with pytest.raises(ParamsError):
            kernel.submit(
                str(folder), "double", {"x": "many"}, executor=self.executor_name, sinks=[heard], retries=3
            )

        assert ([], []) == (heard.events, heard.outcomes)

    def test_an_action_finds_on_its_context_what_the_run_was_given(
        self, kernel: Kernel, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONTRACT_NAMED", "yes é")
        monkeypatch.setenv("CONTRACT_OF_THE_CALLER", "unnamed")

        watched = self.ended(
            kernel,
            folder,
            "surroundings",
            env=["CONTRACT_NAMED"],
            job_id="j7",
            checkpoint={"path": "epoch-3"},
        )

        found = cast("dict[str, object]", watched.result)
        assert {"CONTRACT_NAMED": "yes é"} == found["env"]
        assert (watched.run.id, "j7", 1, {"path": "epoch-3"}) == (
            found["run"],
            found["job"],
            found["attempt"],
            found["checkpoint"],
        )

    def test_another_process_has_none_of_the_callers_variables(
        self, kernel: Kernel, folder: Path, in_process: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if in_process:
            pytest.skip("the action runs in the caller's process")
        monkeypatch.setenv("CONTRACT_OF_THE_CALLER", "unnamed")

        found = cast("dict[str, list[str]]", self.ended(kernel, folder, "surroundings").result)

        assert [] == [name for name in found["variables"] if name == "CONTRACT_OF_THE_CALLER"]

    def test_each_run_has_a_folder_of_its_own(self, kernel: Kernel, folder: Path) -> None:
        runs = [self.ended(kernel, folder, "surroundings") for _ in range(2)]

        found = [cast("dict[str, str]", watched.result) for watched in runs]
        assert ["a", "a"] == [each["read"] for each in found]
        assert found[0]["work_dir"] != found[1]["work_dir"]
        for each, watched in zip(found, runs, strict=True):
            told = [(one.name, one.path, one.size) for one in watched.heard.of(Artifact)]
            assert [("a.txt", f"{each['work_dir']}/a.txt", 1)] == told

    def test_a_run_that_asks_for_resources_that_are_there_is_run(self, kernel: Kernel, folder: Path) -> None:
        watched = self.ended(kernel, folder, "double", resources=Resources(cpus=1, memory=2**20))

        assert watched.outcome.ok

    def test_packages_of_one_name_in_two_folders_do_not_mix(self, kernel: Kernel, tmp_path: Path) -> None:
        words = ("left", "right")
        folders = [write_twin(tmp_path / word, word) for word in words]

        runs = [self.start(kernel, twin, "say") for twin in folders * 2]

        for watched, word in zip(runs, words * 2, strict=True):
            watched.end()
            assert {"word": word, "later": word} == vars(watched.result)
            assert [word] == watched.heard.texts

    def test_running_at_once_comes_to_the_same_as_submitting(self, kernel: Kernel, folder: Path) -> None:
        """`Kernel.run` may take another way, through the caller's thread."""
        heard = Heard()
        outcomes: list[Outcome] = []

        def run() -> None:
            outcomes.append(kernel.run(str(folder), "talk", executor=self.executor_name, sinks=[heard]))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.patience)

        submitted = self.ended(kernel, folder, "talk")
        assert ["succeeded"] == [outcome.status for outcome in outcomes]
        assert submitted.heard.stages == heard.stages
        assert [type(event) for _, event in submitted.heard.said] == [type(event) for _, event in heard.said]

    def test_a_kernel_that_was_shut_down_leaves_the_next_one_working(
        self, make_kernel: MakeKernel, folder: Path
    ) -> None:
        for _ in range(2):
            with make_kernel(QUICK) as kernel:
                assert self.ended(kernel, folder, "double").outcome.ok
