"""Steps: their registry, their order, and rollback for every way a workflow can end early."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from synapse_kernel import (
    BaseStep,
    BaseStepContext,
    Kernel,
    Log,
    LoggingStep,
    Metrics,
    Orchestrator,
    Outcome,
    Progress,
    RuntimeContext,
    StepFailed,
    StepRegistry,
    StepResult,
    TimingStep,
    UsageError,
    ValidationStep,
    action,
    step,
)
from synapse_kernel.testing import RecordedSink

# A forced stop may strike inside a callback of the interpreter's own, which then says that it ignored it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@dataclass
class Notes(BaseStepContext):
    """Notes what happens."""

    said: list[str] = field(default_factory=list)


class Note(BaseStep[Notes]):
    """A step that notes what is done with it, and does as it is told."""

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1.0,
        then: Callable[[Notes], object] | None = None,
        undo: Callable[[], None] | None = None,
        skip: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name
        self.progress_weight = weight
        self._then = then
        self._undo = undo
        self._skip = skip

    @property
    def name(self) -> str:
        return self._name

    def can_skip(self, context: Notes) -> bool:
        return self._skip()

    def execute(self, context: Notes) -> StepResult:
        context.said.append(f"do {self.name}")
        if self._then is not None:
            return self._then(context)  # type: ignore[return-value]
        return StepResult(data={"of": self.name}, rollback_data={"undo": self.name})

    def rollback(self, context: Notes, result: StepResult) -> None:
        context.said.append(f"undo {result.rollback_data['undo']}")
        if self._undo is not None:
            self._undo()


def fail(error: BaseException) -> Callable[..., object]:
    """Return a function that raises."""

    def call(*_: object) -> object:
        raise error

    return call


def run_in_action(body: Callable[[RuntimeContext], object]) -> tuple[Outcome, list[object]]:
    """Run a body inside a real action; return its outcome and the events."""
    sink = RecordedSink()

    @action
    def workflow(params: object, ctx: RuntimeContext) -> object:
        return body(ctx)

    with Kernel(strict=True) as kernel:
        outcome = kernel.run(workflow, sinks=[sink])
    return outcome, list(sink.events)


def workflow(*steps: BaseStep[Notes], progress: Callable[[float, float], object] | None = None):
    """Run steps in an action; return what was noted, what was raised, and the events."""
    said: list[str] = []
    raised: list[BaseException] = []

    def body(ctx: RuntimeContext) -> None:
        try:
            Orchestrator(StepRegistry(steps), Notes(ctx, said=said), progress).execute()
        except BaseException as error:
            raised.append(error)
            raise

    outcome, events = run_in_action(body)
    return said, raised[0] if raised else None, events, outcome


def test_steps_run_in_order_and_see_the_results_before_them():
    def last(context: Notes) -> StepResult:
        return StepResult(data={"seen": sorted(context.results)})

    results: list[dict[str, StepResult]] = []

    def body(ctx: RuntimeContext) -> None:
        registry = StepRegistry([Note("a"), Note("b"), Note("c", then=last)])
        results.append(Orchestrator(registry, Notes(ctx)).execute())

    run_in_action(body)
    assert ["a", "b", "c"] == list(results[0])
    assert {"seen": ["a", "b"]} == results[0]["c"].data


def test_names_place_steps_and_unknown_or_doubled_ones_are_refused():
    registry: StepRegistry[Notes] = StepRegistry([Note("first"), Note("last", weight=2)])
    registry.insert_before("last", Note("middle"))
    registry.insert_after("first", Note("second"))
    assert ["first", "second", "middle", "last"] == [s.name for s in registry.get_steps()]
    assert (5.0, 4) == (registry.total_weight, len(registry))
    assert "second" == registry.unregister("second").name
    with pytest.raises(UsageError) as unknown:
        registry.insert_after("midle", Note("x"))
    assert "No step is named 'midle'; did you mean 'middle'?\n  steps: first, last, middle" == str(
        unknown.value
    )
    with pytest.raises(UsageError, match=r"^A step named 'last' is registered already$"):
        registry.register(Note("last"))
    with pytest.raises(UsageError, match=r"^Step 'w' has the weight -1; it must not be negative$"):
        registry.register(Note("w", weight=-1))
    with pytest.raises(UsageError, match=r"^Step 'w' has the weight inf; it must be finite$"):
        registry.register(Note("w", weight=float("inf")))
    registry.register(Note("second"))
    assert ["first", "middle", "last", "second"] == [s.name for s in registry.get_steps()]


def test_progress_follows_the_weights_and_ends_at_exactly_100():
    seen: list[float] = []
    workflow(
        *(Note(f"s{n}", weight=0.1) for n in range(10)), progress=lambda percent, total: seen.append(percent)
    )
    assert [10, 20, 30] == [round(percent) for percent in seen[:3]]
    assert (10, 100.0) == (len(seen), seen[-1])


def test_a_skipped_step_is_recorded_counts_as_progress_and_is_not_rolled_back():
    seen: list[float] = []
    said, error, _, _ = workflow(
        Note("a", skip=lambda: True),
        Note("b"),
        Note("c", then=fail(ValueError("no"))),
        progress=lambda percent, total: seen.append(round(percent)),
    )
    assert ["do b", "do c", "undo b"] == said
    assert [33, 67] == seen
    assert isinstance(error, StepFailed)


ENDINGS = {
    "fails": Note("end", then=lambda _: StepResult(success=False, error="no more")),
    "raises": Note("end", then=fail(ValueError("no more"))),
    "returns no result": Note("end", then=lambda _: {"success": True}),
    "cannot tell whether to skip": Note("end", skip=fail(ValueError("no more"))),  # type: ignore[arg-type]
}
MESSAGES = {
    "fails": "Step 'end' failed: no more",
    "raises": "Step 'end' failed: ValueError: no more",
    "returns no result": "Step 'end' failed: it returned dict, not a StepResult",
    "cannot tell whether to skip": "Step 'end' failed: ValueError: no more",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_what_was_done_is_rolled_back_in_reverse_when_a_step(how: str):
    said, error, _, outcome = workflow(Note("a"), Note("b"), ENDINGS[how], Note("never"))
    assert ["do a", "do b", "undo b", "undo a"] == [s for s in said if "end" not in s]
    assert MESSAGES[how] == str(error)
    assert isinstance(error, StepFailed)
    assert "end" == error.step
    assert ("failed", "StepFailed") == (outcome.status, outcome.error and outcome.error.type)


def test_the_cause_is_chained():
    cause = KeyError("lost")
    _, error, _, _ = workflow(Note("a", then=fail(cause)))
    assert error is not None
    assert cause is error.__cause__


def test_a_progress_callback_that_raises_rolls_back_the_step_it_was_told_of():
    said, error, _, _ = workflow(Note("a"), progress=fail(RuntimeError("bar broken")))
    assert ["do a", "undo a"] == said
    assert "Step 'a' failed: RuntimeError: bar broken" == str(error)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)], ids=["ctrl-c", "exit"])
def test_what_ends_the_process_is_raised_as_it_is_after_the_rollback(stop: BaseException):
    said: list[str] = []

    def body(ctx: RuntimeContext) -> None:
        with pytest.raises(type(stop)) as raised:
            Orchestrator(
                StepRegistry([Note("a"), Note("b", then=fail(stop))]), Notes(ctx, said=said)
            ).execute()
        assert stop is raised.value

    outcome, _ = run_in_action(body)
    assert outcome.ok, outcome.error
    assert ["do a", "do b", "undo a"] == said


@pytest.mark.parametrize("how", ["cancelled", "timed_out"])
def test_a_run_that_is_stopped_rolls_back_and_ends_as_it_should(how: str):
    said: list[str] = []

    def wait(context: Notes) -> StepResult:
        while True:
            context.set_progress(1, 2)
            time.sleep(0.005)

    @action
    def work(params: object, ctx: RuntimeContext) -> None:
        steps = [Note("a"), Note("b", undo=lambda: ctx.log("undoing")), Note("wait", then=wait)]
        Orchestrator(StepRegistry(steps), Notes(ctx, said=said)).execute()

    with Kernel(strict=True) as kernel:
        run = kernel.submit(work, timeout=0.3 if how == "timed_out" else None)
        if how == "cancelled":
            next(event for event in run.events() if isinstance(event, Progress))
            run.cancel()
        assert how == run.result(60).status
    assert ["do a", "do b", "do wait", "undo b", "undo a"] == said


def test_a_step_that_is_done_when_the_run_is_stopped_is_rolled_back_with_the_others():
    said: list[str] = []
    started = threading.Event()

    def unhearing(context: Notes) -> StepResult:
        started.set()
        while not context.runtime.cancelled:
            time.sleep(0.005)
        return StepResult(rollback_data={"undo": "deaf"})

    @action
    def work(params: object, ctx: RuntimeContext) -> None:
        steps = [Note("a"), Note("deaf", then=unhearing), Note("never")]
        Orchestrator(StepRegistry(steps), Notes(ctx, said=said)).execute()

    with Kernel(strict=True) as kernel:
        run = kernel.submit(work)
        assert started.wait(60)
        run.cancel()
        assert "cancelled" == run.result(60).status
    assert ["do a", "do deaf", "undo deaf", "undo a"] == said


def test_every_rollback_is_tried_and_what_they_raise_is_attached_and_logged():
    said, error, events, _ = workflow(
        Note("a"),
        Note("b", undo=fail(OSError("gone"))),  # type: ignore[arg-type]
        Note("c"),
        Note("d", then=fail(ValueError("no"))),
    )
    assert ["undo c", "undo b", "undo a"] == said[-3:]
    assert isinstance(error, StepFailed)
    assert {"b": "gone"} == {name: str(raised) for name, raised in error.rollback_errors.items()}
    assert ["the rollback of step 'b' raised OSError: gone"] == error.__notes__
    failed = [e for e in events if isinstance(e, Log) and e.event == "rollback_failed"]
    assert [("b", {"step": "b", "error": "OSError: gone"})] == [(e.step, e.data) for e in failed]


def test_a_workflow_can_be_executed_again():
    said: list[str] = []

    def body(ctx: RuntimeContext) -> None:
        orchestrator = Orchestrator(StepRegistry([Note("a")]), Notes(ctx, said=said))
        assert list(orchestrator.execute()) == list(orchestrator.execute()) == ["a"]

    outcome, _ = run_in_action(body)
    assert outcome.ok, outcome.error
    assert ["do a", "do a"] == said


def test_events_in_a_step_carry_its_name_and_start_and_end_are_told_also_when_it_raises():
    def talk(context: Notes) -> StepResult:
        context.log("talk")
        context.set_metrics({"loss": 1})
        raise ValueError("no")

    _, _, events, _ = workflow(Note("a"), Note("b", then=talk))
    told = [
        (e.step, e.event if isinstance(e, Log) else "metrics")
        for e in events
        if isinstance(e, (Log, Metrics))
    ]
    assert [
        ("a", "step_start"), ("a", "step_end"), ("b", "step_start"), ("b", "talk"), ("b", "metrics"),
        ("b", "step_end"), ("a", "step_rolled_back"),
    ] == told  # fmt: skip
    ends = [e.data for e in events if isinstance(e, Log) and e.event == "step_end"]
    assert [("a", "succeeded"), ("b", "failed")] == [(d["step"], d["state"]) for d in ends]
    assert all(isinstance(d["seconds"], float) for d in ends)


def test_functions_are_steps_too_plain_and_async():
    @step(weight=3)
    def first(context: Notes) -> StepResult:
        """Do the first thing."""
        return StepResult(data={"n": 1})

    @step(name="then")
    async def second(context: Notes) -> StepResult:
        await asyncio.sleep(0)
        return StepResult(data={"n": 2})

    results: list[dict[str, StepResult]] = []

    def body(ctx: RuntimeContext) -> None:
        results.append(Orchestrator(StepRegistry([first, second]), Notes(ctx)).execute())

    outcome, _ = run_in_action(body)
    assert outcome.ok, outcome.error
    assert {"first": 1, "then": 2} == {name: r.data["n"] for name, r in results[0].items()}
    assert (3, "Do the first thing.") == (first.progress_weight, first.__doc__)


def test_async_rollbacks_are_awaited():
    undone: list[str] = []

    class Later(Note):
        async def rollback(self, context: Notes, result: StepResult) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            undone.append(self.name)

    workflow(Later("a"), Note("b", then=fail(ValueError("no"))))
    assert ["a"] == undone


def test_wrappers_compose_and_keep_name_weight_skip_and_rollback():
    wrapped = LoggingStep(TimingStep(ValidationStep(Note("a", weight=2), lambda context: None)))
    assert ("a", 2) == (wrapped.name, wrapped.progress_weight)
    said, _, events, _ = workflow(wrapped, Note("b", then=fail(ValueError("no"))))
    assert ["do a", "do b", "undo a"] == said
    assert "a.timing" in [e.category for e in events if isinstance(e, Metrics)]
    logged = [e.data for e in events if isinstance(e, Log) and e.event == "step_result"]
    assert [{"success": True, "data": {"of": "a"}}] == logged
    assert LoggingStep(Note("s", skip=lambda: True)).can_skip(Notes(None))  # type: ignore[arg-type]


def test_a_validation_that_finds_something_fails_the_step_before_it_begins():
    said, error, _, _ = workflow(ValidationStep(Note("a"), lambda context: "no data"))
    assert ([], "Step 'a' failed: no data") == (said, str(error))


def test_a_validation_may_be_async():
    async def check(context: Notes) -> str | None:
        await asyncio.sleep(0)
        return None if context.said else "nothing was said"

    said, error, _, _ = workflow(ValidationStep(Note("a"), check))
    assert ([], "Step 'a' failed: nothing was said") == (said, str(error))


def test_a_logging_step_logs_the_error_of_one_that_did_not_succeed():
    def lose(context: Notes) -> StepResult:
        return StepResult(success=False, error="no data", data={"rows": 0})

    _, _, events, _ = workflow(LoggingStep(step(name="a")(lose)))
    assert [("error", {"error": "no data", "data": {"rows": 0}})] == [
        (e.level, e.data) for e in events if isinstance(e, Log) and e.event == "step_error"
    ]


def test_a_logging_step_logs_what_the_inner_one_raises():
    _, _, events, _ = workflow(LoggingStep(Note("a", then=fail(ValueError("no")))))
    assert [{"error": "ValueError: no"}] == [
        e.data for e in events if isinstance(e, Log) and e.event == "step_error"
    ]


def nested(inner: BaseStep[Notes]) -> tuple[list[str], BaseException | None, list[object]]:
    """Run a step whose own workflow is one inner step, after another step."""

    def run_inner(context: Notes) -> StepResult:
        Orchestrator(StepRegistry([Note("x"), inner]), Notes(context.runtime, said=context.said)).execute()
        return StepResult(rollback_data={"undo": "outer"})

    said, error, events, _ = workflow(Note("a"), Note("outer", then=run_inner))
    return said, error, events


def test_events_of_a_workflow_inside_a_step_carry_both_names():
    _, _, events = nested(Note("y", then=lambda context: context.log("talk")))

    told = [(e.step, e.event) for e in events if isinstance(e, Log)]
    assert ("outer/y", "talk") in told
    assert ["a", "outer", "outer/x", "outer/y"] == [name for name, event in told if event == "step_start"]


def test_a_failure_inside_a_step_rolls_back_both_workflows_and_each_error_keeps_its_own():
    said, error, _ = nested(Note("y", then=fail(ValueError("no"))))

    assert ["do a", "do outer", "do x", "do y", "undo x", "undo a"] == said
    assert isinstance(error, StepFailed)
    assert isinstance(error.__cause__, StepFailed)
    assert ("outer", "y") == (error.step, error.__cause__.step)
    assert "Step 'outer' failed: StepFailed: Step 'y' failed: ValueError: no" == str(error)
    assert isinstance(error.__cause__.__cause__, ValueError)


WRAPPERS: dict[str, Callable[[BaseStep[Notes]], BaseStep[Notes]]] = {
    "logging": LoggingStep,
    "timing": TimingStep,
    "validation": lambda inner: ValidationStep(inner, lambda context: None),
}


@pytest.mark.parametrize("order", list(itertools.permutations(WRAPPERS)), ids="-".join)
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_wrappers_compose_in_any_order_around_functions_too(order: tuple[str, ...], kind: str):
    if kind == "plain":

        @step(weight=2)
        def work(context: Notes) -> StepResult:
            return StepResult(data={"of": "work"})
    else:

        @step(weight=2)
        async def work(context: Notes) -> StepResult:
            await asyncio.sleep(0)
            return StepResult(data={"of": "work"})

    wrapped: BaseStep[Notes] = work
    for name in order:
        wrapped = WRAPPERS[name](wrapped)
    _, error, events, _ = workflow(wrapped)

    assert error is None
    assert ("work", 2) == (wrapped.name, wrapped.progress_weight)
    assert ["work.timing"] == [e.category for e in events if isinstance(e, Metrics)]
    assert [{"success": True, "data": {"of": "work"}}] == [
        e.data for e in events if isinstance(e, Log) and e.event == "step_result"
    ]


def test_whether_to_skip_may_be_found_out_asynchronously():
    class Later(Note):
        async def can_skip(self, context: Notes) -> bool:  # type: ignore[override]
            await asyncio.sleep(0)
            return self.name == "a"

    said, _, events, _ = workflow(Later("a"), LoggingStep(Later("b")), LoggingStep(Later("a2")))

    assert ["do b", "do a2"] == said
    ends = [e.data["state"] for e in events if isinstance(e, Log) and e.event == "step_end"]
    assert ["skipped", "succeeded", "succeeded"] == ends
