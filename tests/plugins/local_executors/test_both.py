"""What holds wherever an action runs: here, or in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_kernel import Kernel, Log, Message, Metrics, Progress, State
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.testing import RecordedSink

ACTIONS = '''
    import asyncio
    import math
    import os
    import sys

    from pydantic import BaseModel

    from synapse_kernel import BaseAction, action


    class Params(BaseModel):
        x: int = 1


    class Doubled(BaseModel):
        value: int


    class DoubleAction(BaseAction[Params, Doubled]):
        """Double."""

        def execute(self):
            return {"value": 2 * self.params.x}


    @action
    def double_function(params: Params, ctx) -> Doubled:
        return Doubled(value=2 * params.x)


    class DoubleLater(BaseAction[Params, Doubled]):
        async def execute(self):
            await asyncio.sleep(0)
            return Doubled(value=2 * self.params.x)


    @action
    def talk(params, ctx):
        ctx.log("one", {"n": 1})
        ctx.set_metrics({"loss": 0.5, "odd": math.nan}, "train")
        ctx.log_message("two", "success")
        ctx.logger.warning("three %d", 3)
        ctx.set_progress(5, 10, "epochs")


    def helper():
        raise LookupError("no such colour")


    @action
    def fail(params, ctx):
        helper()


    class Unprintable(Exception):
        def __init__(self, needs, two):
            super().__init__(needs)

        def __str__(self):
            raise RuntimeError("not even this")


    @action
    def fail_strangely(params, ctx):
        raise Unprintable("a", "b")


    class Unpicklable(Exception):
        def __init__(self, first, second):
            super().__init__(f"{first} and {second}")
            self.lock = open(os.devnull)


    @action
    def fail_unpicklably(params, ctx):
        error = Unpicklable("salt", "pepper")
        error.lock.close()
        raise error


    @action
    def leave(params, ctx):
        sys.exit(params.get("code"))


    @action
    def wrong(params, ctx) -> Doubled:
        return {"value": "many"}


    @action
    def flaky(params, ctx):
        if ctx.attempt < 3:
            raise OSError(f"attempt {ctx.attempt}")
        return ctx.attempt


    @action
    def places(params, ctx):
        (ctx.work_dir / "a.txt").write_text("a")
        ctx.log_artifact("a.txt")
        return {"work_dir": ctx.work_dir, "env": dict(ctx.env), "run": ctx.run_id, "file": __file__}


    @action
    def numbers(params, ctx):
        return {"nan": math.nan, "inf": -math.inf, "got": params["x"], "big": 2**80, "text": "😀 é"}
'''


class Keep(RecordedSink):
    """Tells the final states alone."""

    @property
    def final_states(self) -> list[str]:
        return [state for state in self.states if state in FINAL_STATUSES]


@pytest.fixture(params=["local", "process"])
def executor(request: pytest.FixtureRequest) -> str:
    """Return the name of each executor in turn."""
    return str(request.param)


@pytest.fixture
def target(make_folder: Callable[..., Path]) -> Path:
    """Return a Python file with the actions above."""
    return make_folder({"actions.py": ACTIONS}) / "actions.py"


@pytest.fixture
def quick() -> Iterator[Kernel]:
    """Return a kernel that retries at once and gives no grace worth speaking of."""
    with Kernel({"retry": {"initial": 0.001, "maximum": 0.001}, "grace": 0.1}, strict=True) as kernel:
        yield kernel


@pytest.mark.parametrize("name", ["double", "double_function", "double_later"])
def test_classes_functions_and_async_ones_are_equals(quick: Kernel, target: Path, executor: str, name: str):
    outcome = quick.run(target, name, {"x": 21}, executor=executor)

    assert "succeeded" == outcome.status
    assert ("Doubled", 42) == (type(outcome.result).__name__, outcome.result.value)  # type: ignore[attr-defined]


def test_events_come_in_order_with_one_numbering(quick: Kernel, target: Path, executor: str):
    sink = Keep()

    outcome = quick.run(target, "talk", executor=executor, sinks=[sink])

    assert ["pending", "running", "succeeded"] == [e.state for e in sink.events if isinstance(e, State)]
    said = [e for e in sink.events if not isinstance(e, State)]
    assert [Log, Metrics, Message, Log, Progress] == [type(e) for e in said]
    assert list(range(1, 9)) == [e.seq for e in sink.events]
    assert {outcome.run_id} == {e.run_id for e in sink.events}
    assert {"n": 1} == said[0].data  # type: ignore[union-attr]
    assert 0.5 == said[1].values["loss"]  # type: ignore[union-attr]
    assert ("two", "success") == (said[2].text, said[2].context)  # type: ignore[union-attr]
    assert ("warning", "three 3") == (said[3].level, said[3].data["message"])  # type: ignore[union-attr]
    assert ("epochs", 5, 10) == (said[4].category, said[4].current, said[4].total)  # type: ignore[union-attr]


def test_an_exception_becomes_data_with_the_actions_own_traceback(quick: Kernel, target: Path, executor: str):
    outcome = quick.run(target, "fail", executor=executor)

    assert outcome.error is not None
    assert ("failed", "LookupError", "no such colour", "action") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
    )
    frames = [
        line.rpartition(" in ")[2] for line in outcome.error.traceback.splitlines() if "  File " in line
    ]
    assert ["fail", "helper"] == frames
    assert str(target) in outcome.error.traceback


def test_an_exception_whose_text_cannot_be_read_is_still_told(quick: Kernel, target: Path, executor: str):
    error = quick.run(target, "fail_strangely", executor=executor).error

    assert error is not None
    assert ("Unprintable", "<Unprintable whose text cannot be read>") == (error.type, error.message)
    assert "in fail_strangely" in error.traceback


def test_an_exception_that_does_not_pickle_is_still_told(quick: Kernel, target: Path, executor: str):
    error = quick.run(target, "fail_unpicklably", executor=executor).error

    assert error is not None
    assert ("Unpicklable", "salt and pepper") == (error.type, error.message)


@pytest.mark.parametrize(("code", "text"), [(None, ""), (3, "3"), ("bye", "'bye'")])
def test_sys_exit_in_an_action_fails_the_run_and_nothing_else(
    quick: Kernel, target: Path, executor: str, code: object, text: str
):
    outcome = quick.run(target, "leave", {"code": code}, executor=executor)

    assert outcome.error is not None
    assert ("failed", "SystemExit", f"the action called sys.exit({text})") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
    )


def test_a_result_that_breaks_its_schema_fails_the_run(quick: Kernel, target: Path, executor: str):
    outcome = quick.run(target, "wrong", executor=executor, retries=2)

    assert outcome.error is not None
    assert ("failed", "ResultError", "result", 1) == (
        outcome.status,
        outcome.error.type,
        outcome.error.kind,
        outcome.attempts,
    )
    assert (
        "the result of 'wrong' does not fit Doubled: value: input should be a valid integer, unable to parse "
        "string as an integer, got 'many'\n"
        '  fix the result, or set result_check = "warn" on the action to keep it as it is'
    ) == outcome.error.message


def test_retries_try_again_with_one_numbering_of_events(quick: Kernel, target: Path, executor: str):
    sink = Keep()

    outcome = quick.run(target, "flaky", executor=executor, retries=2, sinks=[sink])

    assert ("succeeded", 3, 3) == (outcome.status, outcome.result, outcome.attempts)
    assert [1, 1, 1, 2, 2, 3, 3] == [e.attempt for e in sink.events if isinstance(e, State)]
    assert ["succeeded"] == sink.final_states
    assert list(range(1, len(sink.events) + 1)) == [e.seq for e in sink.events]


def test_a_run_has_a_folder_of_its_own_and_the_variables_that_were_named(
    target: Path, executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OF_THE_CALLER", "unnamed")
    monkeypatch.setenv("NAMED", "yes")
    work = tmp_path / "work"

    with Kernel({"work_dir": str(work)}, strict=True) as kernel:
        outcome = kernel.run(target, "places", executor=executor, env=["NAMED"])

    found = outcome.unwrap()
    assert isinstance(found, dict)
    assert str(work / outcome.run_id) == str(found["work_dir"])
    assert {"NAMED": "yes"} == found["env"]
    assert outcome.run_id == found["run"]
    assert str(target) == found["file"]
    assert "a" == (work / outcome.run_id / "a.txt").read_text()


def test_numbers_and_text_that_json_knows_badly_go_there_and_back(quick: Kernel, target: Path, executor: str):
    result = quick.run(target, "numbers", {"x": float("inf")}, executor=executor).unwrap()

    assert isinstance(result, dict)
    assert "nan" == str(result.pop("nan"))
    assert {"inf": -float("inf"), "got": float("inf"), "big": 2**80, "text": "😀 é"} == result


def test_the_callers_process_is_as_it_was(quick: Kernel, target: Path, executor: str):
    before = dict(os.environ)

    quick.run(target, "leave", executor=executor, env={"LEFT": "behind"})

    assert before == dict(os.environ)
