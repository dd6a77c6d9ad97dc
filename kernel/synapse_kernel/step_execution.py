"""
One execution of a workflow of steps, from what an earlier attempt left to the last step or the rollback.

Everything that was done is known here before anything else may raise: what ends the workflow finds it and
undoes it, and what kills the process leaves it in the records.
"""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

from synapse_kernel.emitter import current_step
from synapse_kernel.errors import UsageError
from synapse_kernel.snapshots import NotKeptError
from synapse_kernel.step_checkpoints import Left, Numbers, Records, quoted
from synapse_kernel.step_results import StepFailed, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.context import RuntimeContext
    from synapse_kernel.step_checkpoints import StepCheckpoints
    from synapse_kernel.steps import BaseStep, BaseStepContext

C = TypeVar("C", bound="BaseStepContext")

OnInterrupt = Literal["resume", "rollback"]


_around: ContextVar[Execution[BaseStepContext] | None] = ContextVar("synapse_workflow", default=None)
"""The workflow in one of whose steps the caller is."""


@dataclass(slots=True)
class Workflow(Generic[C]):
    """How steps are to be executed, and with what."""

    name: str
    context: C
    progress: Callable[[float, float], object] | None
    checkpoint: StepCheckpoints | Literal["run"] | None
    on_interrupt: OnInterrupt


class Execution(Generic[C]):
    """Runs the steps of a workflow once."""

    def __init__(self, workflow: Workflow[C], steps: Sequence[BaseStep[C]]) -> None:
        self._workflow = workflow
        self._steps = steps
        self._context = workflow.context
        self._done: list[tuple[str, BaseStep[C] | None, StepResult]] = []
        """What a rollback undoes, in order; None for a step that is registered no more."""
        self._begun: list[str] = []
        self._records: Records | None = None
        self._at = ""
        """The step that is at work, with what it does, as a part of the keys of workflows inside it."""
        self._path = ""
        self._place: str | None = "steps/"
        self._inherited: StepCheckpoints | None = None
        around = _around.get()
        # A run that a step starts in its own thread has workflows of its own.
        if around is not None and around._context.runtime is workflow.context.runtime:
            step = current_step.get()
            self._path = f"{step}/" if step else ""
            # Around it nothing is kept: what is kept inside would outlive the rollback.
            self._place = None
            if around._records is not None:
                self._place = f"{around._records.base}{around._at}/"
                self._inherited = around._records.store

    def run(self) -> dict[str, StepResult]:
        """Execute every step that was not done before, and return all results."""
        around = _around.set(cast("Execution[BaseStepContext]", self))
        try:
            store = self._store()
            self._context.results.clear()
            if store is None:
                self._run_all(Left())
            else:
                self._run_kept(store)
            return dict(self._context.results)
        finally:
            _around.reset(around)

    def _run_kept(self, store: StepCheckpoints) -> None:
        workflow = self._workflow
        numbers = _numbers_of(self._context.runtime)
        place = f"{self._place or 'steps/'}{quoted(workflow.name)}/"
        kind, number = numbers.claim(place, tuple(each.name for each in self._steps))
        try:
            base = f"{place}{kind.ordinal}.{number}/"
            self._records = Records(store, base, workflow.name, self._context)
            self._run_all(self._take_up(self._records))
        except BaseException:
            numbers.release(kind, number)
            raise

    def _store(self) -> StepCheckpoints | None:
        chosen = self._workflow.checkpoint
        if chosen != "run":
            return chosen
        if self._place is None:
            return None
        return self._inherited or self._context.runtime.checkpoint_store

    # What an earlier attempt left

    def _take_up(self, records: Records) -> Left:
        """Go on from what an attempt left that was killed, or undo it; return what need not be done again."""
        left = records.read()
        if not left.results and not left.rolling_back:
            return left
        before = records.restore(left)
        self._context.results.update(left.results)
        steps = {each.name: each for each in self._steps}
        self._done = [
            (name, steps.get(name), result)
            for name, result in left.results.items()
            if not result.skipped and name not in left.undone
        ]
        undo = left.rolling_back or (self._workflow.on_interrupt == "rollback" and not left.finished)
        self._begun = list(left.begun)
        try:
            self._tell_of(left, undo=undo)
        except BaseException as stopped:
            self._undo_for(stopped)
            raise
        if not undo:
            return left
        self._roll_back()
        # From the first step means from the context as the author made it.
        for name, value in before.items():
            setattr(self._context, name, value)
        self._context.results.clear()
        self._done, self._begun = [], []
        return Left()

    def _tell_of(self, left: Left, *, undo: bool) -> None:
        data: dict[str, object] = {
            "workflow": self._workflow.name,
            "done": len(left.results),
            "then": "rollback" if undo else "resume",
        }
        self._context.runtime.log("workflow_interrupted", data)
        for name, each, _ in self._done:
            if each is None:
                hint = "an earlier attempt did it, and it is registered no more: it cannot be undone"
                self._log(name, "step_unknown", {"hint": hint}, level="warning")

    # The steps

    def _run_all(self, left: Left) -> None:
        progress = self._workflow.progress
        total = sum(each.progress_weight for each in self._steps) or 1.0
        last = len(self._steps)
        weight = 0.0
        for number, each in enumerate(self._steps, start=1):
            name = each.name
            try:
                if name in left.results:
                    self._restored(name, left, last=number == last)
                else:
                    result = self._run(each, name)
                    if self._records is not None:
                        self._record(self._records, name, result, finished=number == last)
                weight += each.progress_weight
                if progress is not None:
                    progress(100.0 if number == last else 100.0 * weight / total, 100.0)
            except Exception as error:
                if isinstance(error, StepFailed) and not error.concluded:
                    self._undo_for(error)
                    raise
                failed = StepFailed(name, f"{type(error).__name__}: {error}")
                self._undo_for(failed)
                raise failed from error
            except BaseException as stopped:
                self._undo_for(stopped)
                raise

    def _restored(self, name: str, left: Left, *, last: bool) -> None:
        self._log(name, "step_restored")
        if last and self._records is not None and not left.finished:
            self._records.finish()

    def _run(self, each: BaseStep[C], name: str) -> StepResult:
        context = self._context
        log = context.runtime.log
        path = self._path + name
        self._begun.append(name)
        self._at = f"in/{quoted(name)}"
        mark = current_step.set(path)
        start = perf_counter()
        state = "failed"
        try:
            skip = each.can_skip(context)
            if skip is not False and awaited(skip):
                state = "skipped"
                result = context.results[name] = StepResult(skipped=True)
                return result
            log("step_start", {"step": path})
            returned = each.execute(context)
            result = cast("StepResult", returned if returned.__class__ is StepResult else awaited(returned))
            if not isinstance(result, StepResult):
                raise StepFailed(name, f"it returned {type(result).__name__}, not a StepResult")
            if not result.success:
                raise StepFailed(name, result.error or "it did not succeed", result)
            context.results[name] = result
            if result.skipped:
                state = "skipped"
            else:
                self._done.append((name, each, result))
                state = "succeeded"
            return result
        finally:
            try:
                log("step_end", {"step": path, "state": state, "seconds": round(perf_counter() - start, 6)})
            finally:
                current_step.reset(mark)

    def _record(self, records: Records, name: str, result: StepResult, *, finished: bool) -> None:
        """Keep what a step did; without that, the workflow fails or goes on unkept, as the author asked."""
        try:
            records.record(name, result, finished=finished)
        except NotKeptError as error:
            if self._workflow.checkpoint != "run":
                reason = f"the checkpoint cannot hold it: {error}\n  {_way_out(error)}"
                raise StepFailed(name, reason) from error
            # Half a state would be worse than none: a later attempt starts with the first step.
            records.clear()
            self._records = None
            data: dict[str, object] = {
                "workflow": self._workflow.name,
                "field": error.where,
                "reason": error.why,
                "hint": _way_out(error),
            }
            self._log(name, "steps_not_durable", data, level="warning")
        except Exception as error:
            raise StepFailed(name, f"its checkpoint could not be written: {error}") from error

    # The rollback

    def _undo_for(self, error: BaseException) -> None:
        """Roll back what was done, and attach to the error what the rollbacks raised."""
        errors = self._roll_back()
        if isinstance(error, StepFailed):
            error.rollback_errors = errors
            error.concluded = True
        for name, raised in errors.items():
            error.add_note(f"the rollback of step {name!r} raised {type(raised).__name__}: {raised}")

    def _roll_back(self) -> dict[str, Exception]:
        """Undo what was done, the last first; every one is tried, and what each raised is returned."""
        errors: dict[str, Exception] = {}
        stopped: BaseException | None = None
        complete = True
        if self._done:
            results = [(name, result) for name, _, result in self._done]
            self._keep(functools.partial(Records.begin_rollback, done=results, begun=self._begun))
        for name, each, result in reversed(self._done):
            path = self._path + name
            mark = current_step.set(path)
            self._at = f"undo/{quoted(name)}"
            tried = False
            try:
                try:
                    if each is None:
                        raise UsageError("it is registered no more: undo by hand what it did")  # noqa: TRY301
                    awaited(each.rollback(self._context, result))
                except Exception as error:  # noqa: BLE001 - the others must still be undone
                    errors[name] = error
                tried = True
                self._keep(functools.partial(Records.compensated, step=name))
                self._tell_rollback(path, errors.get(name))
            except BaseException as stop:  # noqa: BLE001 - told to stop meanwhile: first undo the rest
                stopped = stopped or stop
                complete = complete and tried
            finally:
                current_step.reset(mark)
        # A compensation that was broken off stays in the records, for the next attempt to do again.
        if complete:
            self._keep(functools.partial(Records.clear, begun=self._begun))
        if stopped is not None:
            raise stopped
        return errors

    def _keep(self, write: Callable[[Records], None]) -> None:
        """Write to the records; a store that fails must not keep a step from being undone."""
        if self._records is None:
            return
        try:
            write(self._records)
        except Exception as error:  # noqa: BLE001 - told, and the compensations go on
            self._records = None
            data = {"workflow": self._workflow.name, "error": f"{type(error).__name__}: {error}"}
            self._context.runtime.log("rollback_not_recorded", data, level="error")

    def _tell_rollback(self, path: str, error: Exception | None) -> None:
        log = self._context.runtime.log
        if error is None:
            log("step_rolled_back", {"step": path})
        else:
            log("rollback_failed", {"step": path, "error": f"{type(error).__name__}: {error}"}, level="error")

    def _log(
        self,
        name: str,
        event: str,
        data: dict[str, object] | None = None,
        *,
        level: Literal["info", "warning"] = "info",
    ) -> None:
        path = self._path + name
        mark = current_step.set(path)
        try:
            self._context.runtime.log(event, {"step": path, **(data or {})}, level=level)
        finally:
            current_step.reset(mark)


def awaited(returned: object) -> object:
    """Return what a step returned, once it is there."""
    if not inspect.isawaitable(returned):
        return returned
    from synapse_kernel.worker import run_awaitable

    return run_awaitable(returned)


def _numbers_of(runtime: RuntimeContext) -> Numbers:
    """Return the numbering of a run's attempt: it lives and dies with the run's surroundings."""
    return cast("Numbers", vars(runtime).setdefault("_step_numbers", Numbers()))


def _way_out(error: NotKeptError) -> str:
    if error.where.startswith("context."):
        return (
            "give it a type that JSON can hold, or leave it out of checkpoints with "
            'field(metadata={"checkpoint": False})'
        )
    return "return text, numbers, lists and mappings, or keep the rest in a file and return its path"
