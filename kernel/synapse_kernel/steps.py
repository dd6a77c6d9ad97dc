"""
Workflows of steps inside an action: done in order, rolled back in reverse when they end early.

For each step: can it be skipped? → execute → record its result, in the checkpoint too → progress. If
anything ends the workflow before its last step — a step fails, raises or returns no `StepResult`, `can_skip`
or the progress callback raises, the run is cancelled, times out or is interrupted — what was done is rolled
back, the last first, all of it, whatever one rollback raises.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast, overload

from synapse_kernel.errors import UsageError, listing, suggest
from synapse_kernel.step_checkpoints import CheckpointError
from synapse_kernel.step_execution import Execution, Workflow, awaited
from synapse_kernel.step_results import StepFailed, StepResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from synapse_kernel.context import RuntimeContext
    from synapse_kernel.events import Level
    from synapse_kernel.step_checkpoints import StepCheckpoints

__all__ = [
    "BaseStep",
    "BaseStepContext",
    "CheckpointError",
    "LoggingStep",
    "Orchestrator",
    "StepFailed",
    "StepRegistry",
    "StepResult",
    "TimingStep",
    "ValidationStep",
    "step",
]

C = TypeVar("C", bound="BaseStepContext")


@dataclass
class BaseStepContext:
    """
    What the steps of a workflow share; derive a dataclass with fields of your own.

    `results` holds each step's result by name, as far as the workflow has come.
    """

    runtime: RuntimeContext
    results: dict[str, StepResult] = field(default_factory=dict, kw_only=True)

    def log(self, event: str, data: Mapping[str, object] | None = None, *, level: Level = "info") -> None:
        """Log a named event; the step's name goes with it."""
        self.runtime.log(event, data, level=level)

    def set_progress(self, current: float, total: float | None = None, category: str | None = None) -> None:
        """Set how far the step has come."""
        self.runtime.set_progress(current, total, category)

    def set_metrics(self, values: Mapping[str, object], category: str | None = None) -> None:
        """Record numbers that were measured together."""
        self.runtime.set_metrics(values, category)


class BaseStep(abc.ABC, Generic[C]):
    """One step of a workflow; its methods may be ``async``."""

    progress_weight: float = 1.0
    """Its share of the workflow's progress, relative to the others'."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the step is called: unique in its workflow, and on every event that it emits."""

    @abc.abstractmethod
    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Do the step; a result without success fails the workflow."""

    def can_skip(self, context: C) -> bool | Awaitable[bool]:  # noqa: ARG002 - for those who override it
        """Tell whether there is nothing to do; may be ``async``."""
        return False

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """Undo what `execute` did, by its result; called only if it succeeded."""


class _FunctionStep(BaseStep[C]):
    """A step made of a function under `@step`."""

    def __init__(self, function: Callable[[C], object], name: str, weight: float) -> None:
        self._function = function
        self._name = name
        self.progress_weight = weight
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        return self._name

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        return cast("StepResult | Awaitable[StepResult]", self._function(context))


@overload
def step(function: Callable[[C], object], /) -> BaseStep[C]: ...
@overload
def step(
    *, name: str | None = None, weight: float = 1.0
) -> Callable[[Callable[[C], object]], BaseStep[C]]: ...
def step(
    function: Callable[[C], object] | None = None, /, *, name: str | None = None, weight: float = 1.0
) -> BaseStep[C] | Callable[[Callable[[C], object]], BaseStep[C]]:
    """Make a step of a function of the context, plain or ``async``, that returns a `StepResult`."""

    def decorate(function: Callable[[C], object]) -> BaseStep[C]:
        return _FunctionStep(function, name or function.__name__, weight)

    return decorate if function is None else decorate(function)


class StepRegistry(Generic[C]):
    """
    The steps of a workflow, in order.

    Raises `UsageError` for a name that is there already, and for one that is not there, with the nearest.
    """

    def __init__(self, steps: Iterable[BaseStep[C]] = ()) -> None:
        self._steps: list[BaseStep[C]] = []
        self._names: set[str] = set()
        for each in steps:
            self.register(each)

    def register(self, new: BaseStep[C]) -> None:
        """Add a step after the others."""
        self._insert(len(self._steps), new)

    def insert_before(self, name: str, new: BaseStep[C]) -> None:
        """Add a step before the one of this name."""
        self._insert(self._index(name), new)

    def insert_after(self, name: str, new: BaseStep[C]) -> None:
        """Add a step after the one of this name."""
        self._insert(self._index(name) + 1, new)

    def unregister(self, name: str) -> BaseStep[C]:
        """Take the step of this name out and return it."""
        removed = self._steps.pop(self._index(name))
        self._names.discard(name)
        return removed

    def get_steps(self) -> list[BaseStep[C]]:
        """Return the steps in order."""
        return list(self._steps)

    @property
    def total_weight(self) -> float:
        """The sum of the steps' weights."""
        return sum(each.progress_weight for each in self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def _index(self, name: str) -> int:
        names = [each.name for each in self._steps]
        if name not in names:
            raise UsageError(f"No step is named {name!r}{suggest(name, names)}\n  steps: {listing(names)}")
        return names.index(name)

    def _insert(self, index: int, new: BaseStep[C]) -> None:
        if new.name in self._names:
            raise UsageError(f"A step named {new.name!r} is registered already")
        if not new.progress_weight >= 0:
            raise UsageError(
                f"Step {new.name!r} has the weight {new.progress_weight!r}; it must not be negative"
            )
        if new.progress_weight == inf:
            raise UsageError(f"Step {new.name!r} has the weight inf; it must be finite")
        self._steps.insert(index, new)
        self._names.add(new.name)


class Orchestrator(Generic[C]):
    """
    Runs the steps of a registry; can be executed again, each time from the first step.

    `progress_callback` is called as ``callback(percent, 100.0)`` after each step, at last with exactly 100.

    What was done is kept in `checkpoint` after each step: in the run's own store unless another is given;
    None keeps nothing. Should the process be killed, the run's next attempt goes on with the first step that
    had not finished (`on_interrupt` is ``resume``), or undoes what was done and starts with the first step
    (``rollback``). The fields of the context are kept with the results, but for those declared with
    ``field(metadata={"checkpoint": False})``. Executions in one run are told apart by `name`, by their steps
    and by their order; workflows that run side by side in threads need a name each.
    """

    def __init__(
        self,
        registry: StepRegistry[C],
        context: C,
        progress_callback: Callable[[float, float], object] | None = None,
        *,
        checkpoint: StepCheckpoints | Literal["run"] | None = "run",
        on_interrupt: Literal["resume", "rollback"] = "resume",
        name: str = "steps",
    ) -> None:
        if on_interrupt not in {"resume", "rollback"}:
            raise UsageError(f"on_interrupt is 'resume' or 'rollback', not {on_interrupt!r}")
        self._registry = registry
        self._workflow = Workflow(name, context, progress_callback, checkpoint, on_interrupt)

    def execute(self) -> dict[str, StepResult]:
        """
        Run every step and return their results by name.

        Raises `StepFailed` from the cause once what was done is rolled back. What asks the whole run to stop
        (`RunCancelled`, `KeyboardInterrupt`) is raised as it is, after the rollback. Raises `CheckpointError`
        before any step if what an earlier attempt left cannot be read.
        """
        return Execution(self._workflow, self._registry.get_steps()).run()


class _Wrapper(BaseStep[C]):
    """A step around another: its name, weight, skipping and rollback are the inner one's."""

    def __init__(self, inner: BaseStep[C]) -> None:
        self._inner = inner
        self.progress_weight = inner.progress_weight

    @property
    def name(self) -> str:
        return self._inner.name

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        return self._inner.execute(context)

    def can_skip(self, context: C) -> bool | Awaitable[bool]:
        return self._inner.can_skip(context)

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        return self._inner.rollback(context, result)


class LoggingStep(_Wrapper[C]):
    """Logs a step's data when it succeeded, and its error when it did not."""

    def execute(self, context: C) -> StepResult:
        """Run the inner step and log what came of it."""
        try:
            result = cast("StepResult", awaited(self._inner.execute(context)))
        except Exception as error:
            context.log("step_error", {"error": f"{type(error).__name__}: {error}"}, level="error")
            raise
        if isinstance(result, StepResult) and result.success:
            context.log("step_result", {"success": True, "data": result.data})
        elif isinstance(result, StepResult):
            context.log("step_error", {"error": result.error, "data": result.data}, level="error")
        return result


class TimingStep(_Wrapper[C]):
    """Records how long a step took, as the metric ``seconds`` of the category ``NAME.timing``."""

    def execute(self, context: C) -> StepResult:
        """Run the inner step and measure it."""
        start = perf_counter()
        try:
            return cast("StepResult", awaited(self._inner.execute(context)))
        finally:
            context.set_metrics({"seconds": perf_counter() - start}, f"{self.name}.timing")


class ValidationStep(_Wrapper[C]):
    """Checks before a step that it can run: `check`, plain or ``async``, returns what is wrong, if so."""

    def __init__(self, inner: BaseStep[C], check: Callable[[C], str | Awaitable[str | None] | None]) -> None:
        super().__init__(inner)
        self._check = check

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Run the inner step if the check has nothing against it."""
        problem = awaited(self._check(context))
        if problem:
            return StepResult(success=False, error=str(problem))
        return self._inner.execute(context)
