"""
Workflows whose process is killed: what was recorded is not done again, what was begun is undone.

This file is also the program that the tests run: it forks a process for each point at which one can be
killed, and a second one that goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import (
    BaseStep,
    BaseStepContext,
    Kernel,
    Log,
    Orchestrator,
    RuntimeContext,
    StepFailed,
    StepRegistry,
    StepResult,
)
from synapse_kernel.contracts import ActionRef, Task
from synapse_kernel.emitter import Emitter
from synapse_kernel.stores import CheckpointStore
from synapse_kernel.testing import RecordedSink
from synapse_plugins.history.sqlite_store import SqliteStore

STEPS = "abcd"
INSIDE = [f"in {name}" for name in STEPS]


class Points:
    """Counts the points at which a process can be killed, and kills this one at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Killing:
    """Checkpoints in a real store; before and after each write is a point."""

    def __init__(self, store: CheckpointStore, point: Points) -> None:
        self._store = store
        self._point = point
        self.items = store.items

    def put_all(self, values: Mapping[str, object]) -> None:
        self._point()
        self._store.put_all(values)
        self._point()

    def remove(self, *keys: str) -> None:
        self._point()
        self._store.remove(*keys)
        self._point()


@dataclass
class Seen(BaseStepContext):
    seen: list[Path] = field(default_factory=list)


class Effect(BaseStep[Seen]):
    """A step whose effect is a line in a file, with a point before and after it."""

    def __init__(
        self,
        name: str,
        journal: Path,
        point: Points,
        then: Callable[[Seen], object] | None = None,
        inside: Iterable[str] = (),
    ) -> None:
        self._name = name
        self._journal = journal
        self._point = point
        self._then = then
        self._inside = list(inside)

    @property
    def name(self) -> str:
        return self._name

    def execute(self, context: Seen) -> StepResult:
        self._effect(f"do {self.name}")
        context.seen.append(Path(self.name))
        if self._then is not None:
            self._then(context)
        return StepResult(rollback_data={"name": self.name})

    def rollback(self, context: Seen, result: StepResult) -> None:
        assert self.name == result.rollback_data["name"]
        for name in reversed(self._inside):
            self._effect(f"undo {name}")
        self._effect(f"undo {self.name}")

    def _effect(self, line: str) -> None:
        self._point()
        with self._journal.open("a") as file:
            file.write(f"{line}\n")
        self._point()


def attempt_in_child(folder: Path, kill_at: int, scenario: str, number: int) -> None:
    """Execute the workflow of a scenario; write down how it ended and how many points there were."""
    point = Points(kill_at)
    raw = SqliteStore(f"sqlite:{folder}/store.db")
    store = Killing(CheckpointStore(raw, "run-1"), point)
    task = Task(run_id="run-1", action="work", ref=ActionRef("m:f"), attempt=number)
    runtime = RuntimeContext(task, Emitter("run-1", "work", None), Kernel)
    fails = scenario == "fails" and number == 1

    journal = folder / "journal"

    def inner(context: Seen) -> None:
        steps = [Effect(name, journal, point) for name in INSIDE]
        Orchestrator(StepRegistry(steps), Seen(runtime), checkpoint=store).execute()

    def last(context: Seen) -> None:
        if fails:
            raise ValueError("no")

    steps = {name: Effect(name, journal, point) for name in "abc"} | {"d": Effect("d", journal, point, last)}
    if scenario.startswith("nested"):
        steps["b"] = Effect("b", journal, point, inner, INSIDE)
    context = Seen(runtime)
    how = "rollback" if scenario.endswith("rollback") else "resume"
    try:
        Orchestrator(StepRegistry(steps.values()), context, checkpoint=store, on_interrupt=how).execute()  # type: ignore[arg-type]
        end = "done"
    except StepFailed:
        end = "failed"
    raw.close()
    told = {"points": point.count, "end": end, "seen": [str(path) for path in context.seen]}
    (folder / "end").write_text(json.dumps(told))


def in_child(folder: Path, kill_at: int, scenario: str, number: int) -> dict[str, Any]:
    """Run an attempt in a process of its own and return what there is afterwards."""
    (folder / "end").unlink(missing_ok=True)
    before = lines_of(folder)
    child = os.fork()
    if not child:
        try:
            attempt_in_child(folder, kill_at, scenario, number)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    store = SqliteStore(f"sqlite:{folder}/store.db")
    keys = [key.removeprefix("steps/steps/1.1/") for key, _ in CheckpointStore(store, "run-1").items()]
    store.close()
    told = json.loads((folder / "end").read_text()) if (folder / "end").exists() else {}
    return {"killed": os.WIFSIGNALED(status), "lines": lines_of(folder)[len(before) :], "keys": keys, **told}


def lines_of(folder: Path) -> list[str]:
    """Return what was done so far, each effect a line."""
    journal = folder / "journal"
    return journal.read_text().splitlines() if journal.exists() else []


def main() -> None:
    """Kill a workflow at each point, or at two points, and let a further attempt go on."""
    folder, scenario, pairs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    places = iter(range(1_000_000))

    def attempts(*kills: int) -> list[dict[str, Any]]:
        place = folder / str(next(places))
        place.mkdir()
        return [in_child(place, kill, scenario, number) for number, kill in enumerate((*kills, 0), start=1)]

    points = attempts()[0]["points"]
    if pairs:
        chosen = random.Random(pairs)
        told = [attempts(chosen.randint(1, points), chosen.randint(1, points)) for _ in range(pairs)]
    else:
        told = [attempts(point) for point in range(1, points + 1)]
    print(json.dumps(told))


def kill_everywhere(folder: Path, scenario: str, *, pairs: int = 0) -> list[list[dict[str, Any]]]:
    """Run this file as a program; return the attempts of each point, or of pairs of points."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), scenario, str(pairs)], capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr
    return list(json.loads(done.stdout))


def recorded(keys: list[str], kind: str = "done/") -> list[str]:
    """Return the steps of which there is a record."""
    return [key.removeprefix(kind) for key in keys if key.startswith(kind)]


def do(names: Iterable[str]) -> list[str]:
    return [f"do {name}" for name in names]


def undo(names: Iterable[str]) -> list[str]:
    return [f"undo {name}" for name in names]


def test_killed_anywhere_a_workflow_goes_on_with_the_first_step_that_is_not_recorded(tmp_path: Path):
    told = kill_everywhere(tmp_path, "plain")

    assert 16 == len(told)
    for first, second in told:
        done = recorded(first["keys"])
        assert first["killed"]
        assert do(STEPS)[: len(first["lines"])] == first["lines"]
        # Once where it was recorded, and again only where the kill fell between effect and record.
        assert len(first["lines"]) - len(done) in {0, 1}
        assert do(STEPS[len(done) :]) == second["lines"]
        assert ("done", list(STEPS)) == (second["end"], second["seen"])


def test_killed_anywhere_a_workflow_is_rolled_back_if_the_author_says_so(tmp_path: Path):
    for first, second in kill_everywhere(tmp_path, "rollback"):
        done = recorded(first["keys"])
        if "finished" in first["keys"]:
            assert [] == second["lines"]
        else:
            assert [*undo(reversed(done)), *do(STEPS)] == second["lines"]
        assert ("done", list(STEPS)) == (second["end"], second["seen"])


def test_killed_anywhere_in_a_rollback_each_compensation_is_done_in_order_and_again_only_unrecorded(
    tmp_path: Path,
):
    whole = [*do(STEPS), *undo("cba")]
    told = kill_everywhere(tmp_path, "fails")

    # effects with a point on each side, three records, the announcement, three compensations, the removal
    assert 2 * (4 + 3) + 2 * (3 + 1 + 3 + 1) == len(told)
    for first, second in told:
        assert whole[: len(first["lines"])] == first["lines"]
        done, undone = recorded(first["keys"]), recorded(first["keys"], "undone/")
        if "rollback" in first["keys"]:
            rest = [name for name in reversed(done) if name not in undone]
            assert [*undo(rest), *do(STEPS)] == second["lines"]
            assert len([line for line in first["lines"] if "undo" in line]) - len(undone) in {0, 1}
        else:
            assert do(STEPS[len(done) :]) == second["lines"]
        assert ("done", list(STEPS)) == (second["end"], second["seen"])


# How many effects can be without a record at once: of a step, of the step around it, and, while that one is
# rolled back, of all steps inside it. (What a step that fails did is its own to undo: it comes once more.)
UNRECORDED = {"plain": 1, "rollback": 1, "fails": 1, "nested": 2, "nested rollback": 5}


def check_pairs(folder: Path, scenario: str, pairs: int) -> None:
    """Kill two attempts at random points; after the third, every effect is there, and none too often."""
    for attempts in kill_everywhere(folder, scenario, pairs=pairs):
        there: Counter[str] = Counter()
        again = 0
        for line in [line for attempt in attempts for line in attempt["lines"]]:
            verb, _, name = line.partition(" ")
            # Done while it is there, or undone while it is not: a kill between effect and record.
            again += (verb == "do") == bool(there[name])
            there[name] = int(verb == "do")
        kills = sum(attempt["killed"] for attempt in attempts)
        inside = INSIDE if "nested" in scenario else []
        assert dict.fromkeys((*STEPS, *inside), 1) == dict(there)
        assert again <= kills * UNRECORDED[scenario] + (scenario == "fails")
        assert "done" == attempts[-1]["end"]


@pytest.mark.parametrize("scenario", UNRECORDED)
def test_killed_twice_a_workflow_ends_with_every_effect_there(tmp_path: Path, scenario: str):
    check_pairs(tmp_path, scenario, pairs=15)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", UNRECORDED)
def test_killed_twice_at_hundreds_of_points_a_workflow_ends_with_every_effect_there(
    tmp_path: Path, scenario: str
):
    check_pairs(tmp_path, scenario, pairs=300)


def test_killed_anywhere_in_a_workflow_inside_a_step_both_go_on(tmp_path: Path):
    for first, second in kill_everywhere(tmp_path, "nested"):
        done = recorded(first["keys"])
        inner = [name.removeprefix("in/b/steps/1.1/done/") for name in first["keys"] if "/done/in" in name]
        rest = do(STEPS[len(done) :])
        if "b" not in done:
            rest[1 - len(done) + 1 : 1 - len(done) + 1] = do(INSIDE)[len(inner) :]
        assert rest == second["lines"]
        assert ("done", list(STEPS)) == (second["end"], second["seen"])


def test_a_run_whose_worker_is_killed_goes_on_in_its_next_attempt(
    make_folder: Callable[..., Path], tmp_path: Path
):
    folder = make_folder(
        {
            "plugin.py": """
            import os
            import signal
            from dataclasses import dataclass
            from pathlib import Path

            from synapse_kernel import BaseStepContext, Orchestrator, StepRegistry, StepResult, action, step


            @dataclass
            class Seen(BaseStepContext):
                paths: tuple[Path, ...] = ()


            @step
            def first(context):
                context.paths = (Path("first"),)
                return StepResult(data={"attempt": context.runtime.attempt})


            @step
            def second(context):
                if context.runtime.attempt == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return StepResult(data={"attempt": context.runtime.attempt})


            @action
            def work(params, ctx):
                context = Seen(ctx)
                results = Orchestrator(StepRegistry([first, second]), context).execute()
                return [repr(context.paths), *(result.data["attempt"] for result in results.values())]
            """
        }
    )
    sink = RecordedSink()
    with Kernel({"store": f"sqlite://{tmp_path}/runs.db"}) as kernel:
        outcome = kernel.run(str(folder / "plugin.py"), "work", executor="process", retries=1, sinks=[sink])
        assert kernel.store is not None
        left = kernel.store.entries(outcome.run_id)

    assert ["(PosixPath('first'),)", 1, 2] == outcome.result, outcome.error
    assert ["first"] == [e.step for e in sink.events if isinstance(e, Log) and e.event == "step_restored"]
    assert [] == left


if __name__ == "__main__":
    main()
