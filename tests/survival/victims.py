"""The pipelines that are killed. What their nodes do is a line in a ledger, in one write."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boundaries
from pydantic import BaseModel

from synapse_kernel import (
    BaseStep,
    BaseStepContext,
    Orchestrator,
    RuntimeContext,
    StepRegistry,
    StepResult,
    action,
)
from synapse_plugins.pipelines import REQUIRED, Pipeline


class Mark(BaseModel):
    """What each action is given: where the ledger is, and who it is there."""

    ledger: str
    node: str
    value: int = 0


def effect(params: Mark, ctx: RuntimeContext, step: str = "") -> None:
    """Do what cannot be taken back."""
    boundaries.cross(f"before the effect {params.node} {step}")
    line = {
        "life": boundaries.life(),
        "run": ctx.run_id,
        "attempt": ctx.attempt,
        "node": params.node,
        "step": step,
        "pid": os.getpid(),
    }
    ledger = os.open(params.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(ledger, json.dumps(line).encode() + b"\n")
    os.close(ledger)
    boundaries.cross(f"after the effect {params.node} {step}")


def ledger_of(path: str | Path) -> list[dict[str, Any]]:
    """Return what was done, in order."""
    if not Path(path).exists():
        return []
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@action
def plan(params: Mark, ctx: RuntimeContext) -> dict[str, Any]:
    effect(params, ctx)
    return {"items": [10 * (number + 1) for number in range(params.value)], "count": params.value}


@action
def mark(params: Mark, ctx: RuntimeContext) -> int:
    ctx.log("marking", {"value": params.value})
    ctx.end_log()
    effect(params, ctx)
    ctx.set_metrics({"value": params.value})
    return params.value + 1


@action
def flaky(params: Mark, ctx: RuntimeContext) -> int:
    """Fail until it was tried twice."""
    effect(params, ctx, "try")
    tries = [
        line for line in ledger_of(params.ledger) if (params.node, "try") == (line["node"], line["step"])
    ]
    if len(tries) < 2:
        raise OSError("the first time it never works")
    effect(params, ctx)
    return params.value


@action
def fail(params: Mark, ctx: RuntimeContext) -> int:
    effect(params, ctx)
    raise ValueError("this never works")


@dataclass
class Building(BaseStepContext):
    params: Mark
    seen: list[str] = field(default_factory=list)


class Part(BaseStep[Building]):
    """A step with an effect, and one that undoes it."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self._name = name
        self._fails = fails

    @property
    def name(self) -> str:
        return self._name

    def execute(self, context: Building) -> StepResult:
        if self._fails:
            raise ValueError(f"{self._name} never works")
        effect(context.params, context.runtime, self._name)
        context.seen.append(self._name)
        return StepResult(data={"done": self._name})

    def rollback(self, context: Building, result: StepResult) -> None:
        effect(context.params, context.runtime, f"undo {self._name}")


@action
def build(params: Mark, ctx: RuntimeContext) -> dict[str, Any]:
    context = Building(ctx, params)
    results = Orchestrator(StepRegistry([Part("lay"), Part("raise"), Part("roof")]), context).execute()
    return {"seen": context.seen, "data": [result.data["done"] for result in results.values()]}


@action
def collapse(params: Mark, ctx: RuntimeContext) -> int:
    """Build three parts, fail at the fourth and undo the three."""
    parts = [Part("lay"), Part("raise"), Part("roof"), Part("paint", fails=True)]
    Orchestrator(StepRegistry(parts), Building(ctx, params)).execute()
    return 0


class Gathered(BaseModel):
    ledger: str
    node: str
    drawn: list[int]
    rest: list[Any]
    missing: Any = None


@action
def report(params: Gathered, ctx: RuntimeContext) -> dict[str, Any]:
    effect(Mark(ledger=params.ledger, node=params.node), ctx)
    return {"drawn": params.drawn, "rest": params.rest, "missing": params.missing}


class Waiting(Mark):
    gate: str
    """A file: the action waits until it is there."""


@action
def wait(params: Waiting, ctx: RuntimeContext) -> int:
    """Say that it is here, and go on once the gate is open."""
    Path(f"{params.gate}.reached").touch()
    while not Path(params.gate).exists():
        ctx.check_cancelled()
        time.sleep(0.01)
    effect(params, ctx)
    return params.value


NEEDS = {
    "plan": (),
    "left": ("plan",),
    "flaky": ("left",),
    "right": ("plan",),
    "build": ("right",),
    "broken": ("plan",),
    "draw": ("plan",),
    "report": ("flaky", "build", "draw", "kept"),
    "kept": ("left",),
    "last": ("report",),
}
"""Which node needs which, of `survivor`."""


def survivor(**changed: Any) -> Pipeline:
    """Return a pipeline with branches, a `foreach`, retries, a workflow, a condition and a cached node."""

    def own(node: str, value: object = 0) -> dict[str, object]:
        return {"ledger": "${params.ledger}", "node": node, "value": value}

    made = Pipeline(
        "survivor",
        params={"ledger": REQUIRED, "count": 8},
        output={"report": "${report}", "last": "${last}"},
        concurrency=4,
    )
    made.add("plan", plan, with_=own("plan", "${params.count}"))
    made.add("left", mark, with_=own("left", "${plan.count}"), **changed.get("left", {}))
    made.add("flaky", flaky, with_=own("flaky", "${left}"), retries=2)
    made.add("kept", mark, with_=own("kept", "${left}"), cache=True)
    made.add("right", mark, with_=own("right", "${plan.count}"), executor=changed.get("executor"))
    made.add("build", build, with_=own("build", "${right}"))
    made.add("broken", fail, with_=own("broken", "${plan.count}"), on_failure="continue")
    made.add("maybe", mark, with_=own("maybe", "${plan.count}"), when="${plan.count} > 100")
    made.add("draw", mark, with_=own("draw[${index}]", "${item}"), foreach="${plan.items}", max_parallel=3)
    gathered = {
        "ledger": "${params.ledger}",
        "node": "report",
        "drawn": "${draw}",
        "rest": ["${flaky}", "${build}", "${kept}"],
        "missing": "${maybe:-none}",
    }
    made.add("report", report, with_=gathered)
    made.add("last", mark, with_=own("last"), needs=["report"])
    return made


def rolled_back() -> Pipeline:
    """Return a pipeline whose node fails in the middle of a workflow and undoes it."""
    made = Pipeline("rolled_back", params={"ledger": REQUIRED})
    made.add("first", mark, with_={"ledger": "${params.ledger}", "node": "first"})
    own = {"ledger": "${params.ledger}", "node": "collapse"}
    made.add("collapse", collapse, with_=own, needs=["first"])
    return made


def gated(executor: str | None = None, retries: int = 0, extra: bool = False) -> Pipeline:
    """Return a pipeline of three nodes whose second one waits for a gate to be opened."""
    made = Pipeline("gated", params={"ledger": REQUIRED, "gate": REQUIRED, "value": 1})
    own = {"ledger": "${params.ledger}", "value": "${params.value}"}
    made.add("before", mark, with_={**own, "node": "before"})
    waiting = {**own, "node": "wait", "value": "${before}", "gate": "${params.gate}"}
    made.add("wait", wait, with_=waiting, executor=executor, retries=retries)
    made.add("after", mark, with_={**own, "node": "after", "value": "${wait}"})
    if extra:
        made.add("extra", mark, with_={**own, "node": "extra", "value": "${before}"})
    return made


def remembered() -> Pipeline:
    """Return a pipeline with a cached node, a failure that is tolerated, a condition, and then a gate."""
    made = Pipeline("remembered", params={"ledger": REQUIRED, "gate": REQUIRED})
    ledger = "${params.ledger}"
    made.add("kept", mark, with_={"ledger": ledger, "node": "kept", "value": 1}, cache=True)
    made.add("broken", fail, with_={"ledger": ledger, "node": "broken"}, on_failure="continue")
    made.add("maybe", mark, with_={"ledger": ledger, "node": "maybe", "value": "${kept}"}, when="${kept} > 5")
    waiting = {"ledger": ledger, "node": "wait", "value": "${maybe:-0}", "gate": "${params.gate}"}
    made.add("wait", wait, with_=waiting, needs=["kept"])
    made.add("after", mark, with_={"ledger": ledger, "node": "after", "value": "${wait}"})
    return made


PIPELINES = {"survivor": survivor, "rolled_back": rolled_back, "gated": gated, "remembered": remembered}
