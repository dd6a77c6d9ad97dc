"""What a workflow of steps costs, against calling its functions in a bare loop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from figures import Figure, at_least

from synapse_kernel import (
    BaseStepContext,
    Kernel,
    Orchestrator,
    RuntimeContext,
    StepRegistry,
    StepResult,
    action,
    step,
)
from synapse_kernel.stores import CheckpointStore

ROUNDS = 5


@dataclass
class Counted(BaseStepContext):
    """Two fields, one of which changes with each step."""

    count: int = 0
    folder: Path = Path("data")


def count(context: Counted) -> StepResult:
    """Count a step."""
    context.count += 1
    return StepResult(data={"count": context.count})


def figures() -> list[Figure]:
    """Measure long and short workflows without listeners, and with checkpoints in a database."""
    with tempfile.TemporaryDirectory() as folder, Kernel({"store": f"sqlite://{folder}/runs.db"}) as kernel:
        bare = max(_bare(10_000) for _ in range(ROUNDS))
        label = f"the functions in a loop: {bare:,.0f}/s"
        rate = partial(_rate, kernel)
        return [
            at_least("steps, 10,000 in a workflow", rate(10_000, 1), 100_000, baseline=label),
            at_least("steps, 10 in a workflow, repeated", rate(10, 1_000), 100_000, baseline=label),
            at_least("steps with checkpoints in SQLite (aim 5,000)", rate(2_000, 1, kept=True), 2_000),
            at_least("the same, 10 in a workflow, repeated", rate(10, 100, kept=True), 2_000),
            at_least("steps that a new attempt restores", _restored(kernel, 10_000), 10_000),
        ]


def _bare(times: int) -> float:
    functions = [count] * times
    context = Counted(None)  # type: ignore[arg-type]
    start = perf_counter()
    for number, function in enumerate(functions):
        context.results[str(number)] = function(context)
    return times / (perf_counter() - start)


def _rate(kernel: Kernel, steps: int, times: int, *, kept: bool = False) -> float:
    """Return the steps per second of a workflow that is executed some times, the best of some rounds."""
    return max(_in_run(kernel, partial(_timed, steps, times), kept=kept) for _ in range(ROUNDS))


def _restored(kernel: Kernel, steps: int) -> float:
    """Return how many finished steps per second a new attempt goes past."""

    def measure(runtime: RuntimeContext, store: CheckpointStore | None) -> float:
        _timed(steps, 1, runtime, store)
        # What numbers the executions of an attempt is gone with the attempt.
        vars(runtime).pop("_step_numbers")
        return _timed(steps, 1, runtime, store)

    return max(_in_run(kernel, measure, kept=True) for _ in range(ROUNDS))


def _timed(steps: int, times: int, runtime: RuntimeContext, store: CheckpointStore | None) -> float:
    registry = StepRegistry(step(name=f"step{number}")(count) for number in range(steps))
    orchestrator = Orchestrator(registry, Counted(runtime), checkpoint=store)
    start = perf_counter()
    for _ in range(times):
        orchestrator.execute()
    return steps * times / (perf_counter() - start)


def _in_run(
    kernel: Kernel, measure: Callable[[RuntimeContext, CheckpointStore | None], float], *, kept: bool
) -> float:
    @action
    def work(params: object, ctx: RuntimeContext) -> float:
        assert kernel.store is not None
        store = CheckpointStore(kernel.store, ctx.run_id) if kept else None
        return measure(ctx, store)

    outcome = kernel.run(work, sinks=["none"], record=False)
    assert isinstance(outcome.result, float), outcome.error
    return outcome.result
