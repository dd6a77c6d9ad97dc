"""
Workflows of steps inside an action: done in order, rolled back in reverse when they end early.

For each step: can it be skipped? → execute → record its result → progress. If anything ends the workflow
before its last step — a step fails, raises or returns no `StepResult`, `can_skip` or the progress callback
raises, the run is cancelled, times out or is interrupted — what was done is rolled back, the last first, all
of it, whatever one rollback raises.
"""

from __future__ import annotations

import abc
import inspect
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

import msgspec

from synapse_kernel.emitter import current_step
from synapse_kernel.errors import SynapseError, UsageError, listing, suggest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from synapse_kernel.context import RuntimeContext
    from synapse_kernel.events import Level

C = TypeVar("C", bound="BaseStepContext")


class StepResult(msgspec.Struct, kw_only=True):
    """What a step did: its data for later steps, and what its own rollback will need."""

    success: bool = True
    data: dict[str, object] = {}
    rollback_data: dict[str, object] = {}
    skipped: bool = False
    error: str | None = None


class StepFailed(SynapseError):  # noqa: N818 - the name that authors of workflows know
    """
    A step ended its workflow; raised from the cause, where there is an exception.

    `step` is its name, `result` what it returned, `rollback_errors` maps steps to what their rollback raised.
    """

    exit_code = 1

    def __init__(self, step: str, reason: str, result: StepResult | None = None) -> None:
        self.step = step
        self.result = result
        self.rollback_errors: dict[str, Exception] = {}
        super().__init__(f"Step {step!r} failed: {reason}")


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
    """One step of a workflow; `execute` and `rollback` may be ``async``."""

    progress_weight: float = 1.0
    """Its share of the workflow's progress, relative to the others'."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the step is called: unique in its workflow, and on every event that it emits."""

    @abc.abstractmethod
    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Do the step; a result without success fails the workflow."""

    def can_skip(self, context: C) -> bool:  # noqa: ARG002 - for those who override it
        """Tell whether there is nothing to do."""
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
        return self._steps.pop(self._index(name))

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
        if any(each.name == new.name for each in self._steps):
            raise UsageError(f"A step named {new.name!r} is registered already")
        if not new.progress_weight >= 0:
            raise UsageError(
                f"Step {new.name!r} has the weight {new.progress_weight!r}; it must not be negative"
            )
        self._steps.insert(index, new)


class Orchestrator(Generic[C]):
    """
    Runs the steps of a registry; can be executed again, each time from the first step.

    `progress_callback` is called as ``callback(percent, 100.0)`` after each step, at last with exactly 100.
    """

    def __init__(
        self,
        registry: StepRegistry[C],
        context: C,
        progress_callback: Callable[[float, float], object] | None = None,
    ) -> None:
        self._registry = registry
        self._context = context
        self._progress = progress_callback

    def execute(self) -> dict[str, StepResult]:
        """
        Run every step and return their results by name.

        Raises `StepFailed` from the cause once what was done is rolled back. What asks the whole run to stop
        (`RunCancelled`, `KeyboardInterrupt`) is raised as it is, after the rollback.
        """
        context = self._context
        context.results.clear()
        steps = self._registry.get_steps()
        total = self._registry.total_weight or 1.0
        done: list[tuple[BaseStep[C], StepResult]] = []
        weight = 0.0
        for number, each in enumerate(steps, start=1):
            try:
                result = self._run(each)
                context.results[each.name] = result
                if not result.skipped:
                    done.append((each, result))
                weight += each.progress_weight
                if self._progress is not None:
                    self._progress(100.0 if number == len(steps) else 100.0 * weight / total, 100.0)
            except StepFailed as failed:
                self._undo_for(failed, done)
                raise
            except Exception as error:
                wrapped = StepFailed(each.name, f"{type(error).__name__}: {error}")
                self._undo_for(wrapped, done)
                raise wrapped from error
            except BaseException as stopped:
                self._undo_for(stopped, done)
                raise
        return dict(context.results)

    def _undo_for(self, error: BaseException, done: list[tuple[BaseStep[C], StepResult]]) -> None:
        """Roll back what was done, and attach to the error what the rollbacks raised."""
        errors = self._roll_back(done)
        if isinstance(error, StepFailed):
            error.rollback_errors = errors
        for name, raised in errors.items():
            error.add_note(f"the rollback of step {name!r} raised {type(raised).__name__}: {raised}")

    def _run(self, each: BaseStep[C]) -> StepResult:
        context = self._context
        mark = current_step.set(each.name)
        start = perf_counter()
        state = "failed"
        try:
            if each.can_skip(context):
                state = "skipped"
                return StepResult(skipped=True)
            context.runtime.log("step_start", {"step": each.name})
            result = _awaited(each.execute(context))
            if not isinstance(result, StepResult):
                raise StepFailed(each.name, f"it returned {type(result).__name__}, not a StepResult")
            if not result.success:
                raise StepFailed(each.name, result.error or "it did not succeed", result)
            state = "skipped" if result.skipped else "succeeded"
            return result
        finally:
            data = {"step": each.name, "state": state, "seconds": round(perf_counter() - start, 6)}
            try:
                context.runtime.log("step_end", data)
            finally:
                current_step.reset(mark)

    def _roll_back(self, done: list[tuple[BaseStep[C], StepResult]]) -> dict[str, Exception]:
        """Undo the steps that were done, the last first; every one is tried."""
        errors: dict[str, Exception] = {}
        stopped: BaseException | None = None
        for each, result in reversed(done):
            mark = current_step.set(each.name)
            try:
                try:
                    _awaited(each.rollback(self._context, result))
                except Exception as error:  # noqa: BLE001 - the others must still be undone
                    errors[each.name] = error
                self._tell_rollback(each.name, errors.get(each.name))
            except BaseException as stop:  # noqa: BLE001 - told to stop meanwhile: first undo the rest
                stopped = stopped or stop
            finally:
                current_step.reset(mark)
        if stopped is not None:
            raise stopped
        return errors

    def _tell_rollback(self, name: str, error: Exception | None) -> None:
        log = self._context.runtime.log
        if error is None:
            log("step_rolled_back", {"step": name})
        else:
            log("rollback_failed", {"step": name, "error": f"{type(error).__name__}: {error}"}, level="error")


def _awaited(returned: object) -> object:
    if not inspect.isawaitable(returned):
        return returned
    from synapse_kernel.worker import run_awaitable

    return run_awaitable(returned)


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

    def can_skip(self, context: C) -> bool:
        return self._inner.can_skip(context)

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        return self._inner.rollback(context, result)


class LoggingStep(_Wrapper[C]):
    """Logs a step's data when it succeeded, and its error when it did not."""

    def execute(self, context: C) -> StepResult:
        """Run the inner step and log what came of it."""
        try:
            result = cast("StepResult", _awaited(self._inner.execute(context)))
        except Exception as error:
            context.log("step_error", {"error": f"{type(error).__name__}: {error}"}, level="error")
            raise
        if isinstance(result, StepResult):
            context.log("step_result", {"success": result.success, "data": result.data})
        return result


class TimingStep(_Wrapper[C]):
    """Records how long a step took, as the metric ``seconds`` of the category ``NAME.timing``."""

    def execute(self, context: C) -> StepResult:
        """Run the inner step and measure it."""
        start = perf_counter()
        try:
            return cast("StepResult", _awaited(self._inner.execute(context)))
        finally:
            context.set_metrics({"seconds": perf_counter() - start}, f"{self.name}.timing")


class ValidationStep(_Wrapper[C]):
    """Checks before a step that it can run: `check` returns what is wrong, or nothing."""

    def __init__(self, inner: BaseStep[C], check: Callable[[C], str | None]) -> None:
        super().__init__(inner)
        self._check = check

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Run the inner step if the check has nothing against it."""
        problem = self._check(context)
        if problem:
            return StepResult(success=False, error=problem)
        return self._inner.execute(context)
