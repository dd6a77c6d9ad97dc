"""
Workflows that go on in a further attempt: what is kept, what is done again, what is undone.

An attempt finds the checkpoints as they were after some write of an earlier one, as if that had been killed
there; `test_killed_steps.py` kills real processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from synapse_kernel import (
    BaseStep,
    BaseStepContext,
    Kernel,
    Log,
    Orchestrator,
    RunCancelled,
    RuntimeContext,
    StepFailed,
    StepRegistry,
    StepResult,
    UsageError,
    step,
)
from synapse_kernel.contracts import ActionRef, Task
from synapse_kernel.emitter import Emitter
from synapse_kernel.events import Event
from synapse_kernel.step_checkpoints import CheckpointError
from synapse_kernel.stores import StoreError


class Kept:
    """Checkpoints in memory, as JSON, with what they were after each write."""

    def __init__(self, found: Mapping[str, bytes] = {}) -> None:
        self.now = dict(found)
        self.after: list[dict[str, bytes]] = []
        self.broken: Callable[[Iterable[str]], bool] = lambda keys: False

    def put_all(self, values: Mapping[str, object]) -> None:
        if self.broken(values):
            raise StoreError("the disk is full", url="sqlite:///x.db")
        self.now |= {key: msgspec.json.encode(value) for key, value in values.items()}
        self.after.append(dict(self.now))

    def items(self, prefix: str = "") -> list[tuple[str, object]]:
        return [(key, msgspec.json.decode(raw)) for key, raw in self.now.items() if key.startswith(prefix)]

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.now.pop(key, None)
        self.after.append(dict(self.now))


@dataclass
class Notes(BaseStepContext):
    """Notes what happens; `seen` is restored, `said` is what this attempt did."""

    said: list[str] = field(default_factory=list, metadata={"checkpoint": False})
    seen: list[str] = field(default_factory=list)


class Note(BaseStep[Notes]):
    """A step that notes what is done with it."""

    def __init__(
        self, name: str, then: Callable[[Notes], object] | None = None, *, skip: bool = False
    ) -> None:
        self._name = name
        self._then = then
        self._skip = skip

    @property
    def name(self) -> str:
        return self._name

    def can_skip(self, context: Notes) -> bool:
        return self._skip

    def execute(self, context: Notes) -> StepResult:
        context.said.append(f"do {self.name}")
        context.seen.append(self.name)
        if self._then is not None:
            returned = self._then(context)
            if isinstance(returned, StepResult):
                return returned
        return StepResult(data={"of": self.name}, rollback_data={"seen": list(context.seen)})

    def rollback(self, context: Notes, result: StepResult) -> None:
        context.said.append(f"undo {self.name} of {''.join(result.rollback_data['seen'])}")


def fail(text: str = "no") -> Callable[..., object]:
    """Return a function that raises."""

    def call(*_: object) -> object:
        raise ValueError(text)

    return call


def runtime_of(send: Callable[[list[Event]], None] | None = None) -> RuntimeContext:
    """Return what a step finds around it in an attempt of a run."""
    emitter = Emitter("run-1", "work", send, eager=True)
    return RuntimeContext(Task(run_id="run-1", action="work", ref=ActionRef("m:f")), emitter, Kernel)


class Attempt:
    """An attempt of a run: executes workflows, and holds what was noted, logged and raised."""

    def __init__(self, store: object = None, *, default: bool = False) -> None:
        self.events: list[Event] = []
        self.runtime = runtime_of(self.events.extend)
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.seen: list[float] = []
        self.options: dict[str, object] = {"checkpoint": store}
        if default:
            self.options = {}

    def stop(self) -> None:
        """Let the next thing that is said raise `RunCancelled`."""
        self.runtime._emitter.cancel()

    def execute(self, *steps: BaseStep[Notes], **options: object) -> dict[str, StepResult]:
        """Execute a workflow; an error is kept in `error`."""
        self.context = Notes(self.runtime, said=self.said)
        orchestrator = Orchestrator(
            StepRegistry(steps),
            self.context,
            lambda percent, total: self.seen.append(round(percent)),
            **{**self.options, **options},  # type: ignore[arg-type]
        )
        try:
            return orchestrator.execute()
        except (StepFailed, CheckpointError) as error:
            self.error = error
            return {}

    def logged(self, name: str) -> list[dict[str, object]]:
        """Return the data of the logged events of a name."""
        return [event.data for event in self.events if isinstance(event, Log) and event.event == name]


def killed_after(writes: int, *steps: BaseStep[Notes], **options: object) -> Kept:
    """Return the checkpoints of an attempt as they were after so many writes."""
    store = Kept()
    Attempt(store).execute(*steps, **options)
    return Kept(store.after[writes - 1] if writes else {})


@pytest.fixture
def of_the_run(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Return the checkpoints that runs find as their own."""
    store = Kept()
    monkeypatch.setattr(RuntimeContext, "checkpoint_store", store)
    return store


# -- going on


def test_a_new_attempt_does_not_repeat_what_is_recorded_and_has_its_results_and_context():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c"), Note("d")))

    results = attempt.execute(Note("a"), Note("b"), Note("c"), Note("d"))

    assert ["do c", "do d"] == attempt.said
    assert ["a", "b", "c", "d"] == attempt.context.seen
    assert {name: {"of": name} for name in "abcd"} == {name: r.data for name, r in results.items()}


def test_restored_steps_are_told_and_progress_jumps_over_them():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c"), Note("d")))

    attempt.execute(Note("a"), Note("b"), Note("c"), Note("d"))

    told = [(e.step, e.event) for e in attempt.events if isinstance(e, Log)]
    assert [(None, "workflow_interrupted"), ("a", "step_restored"), ("b", "step_restored")] == told[:3]
    assert ("c", "step_start") == told[3]
    assert [{"workflow": "steps", "done": 2, "then": "resume"}] == attempt.logged("workflow_interrupted")
    assert [25, 50, 75, 100] == attempt.seen


def test_a_skipped_step_is_not_asked_again_and_not_rolled_back():
    attempt = Attempt(killed_after(2, Note("a", skip=True), Note("b"), Note("c")))

    attempt.execute(Note("a", fail()), Note("b"), Note("c", fail()))

    assert ["do c", "undo b of b"] == attempt.said


def test_a_failure_after_a_resume_rolls_back_the_restored_steps_too_by_their_own_data():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c")))

    attempt.execute(Note("a"), Note("b"), Note("c", fail()))

    assert ["do c", "undo b of ab", "undo a of a"] == attempt.said
    assert "Step 'c' failed: ValueError: no" == str(attempt.error)


def test_a_finished_workflow_is_not_done_again_before_its_run_has_ended():
    store = Kept()
    first = Attempt(store).execute(Note("a"), Note("b"))
    attempt = Attempt(store)

    assert first == attempt.execute(Note("a"), Note("b"), on_interrupt="rollback")
    assert [] == attempt.said
    assert [50, 100] == attempt.seen


def test_a_step_that_was_inserted_since_is_executed_and_the_others_are_not_repeated():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c")))

    attempt.execute(Note("new"), Note("a"), Note("b"), Note("c"))

    assert ["do new", "do c"] == attempt.said


def test_a_recorded_step_that_is_registered_no_more_is_told_and_cannot_be_undone():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c")))

    attempt.execute(Note("b"), Note("c", fail()))

    hint = "an earlier attempt did it, and it is registered no more: it cannot be undone"
    assert [{"step": "a", "hint": hint}] == attempt.logged("step_unknown")
    assert ["do c", "undo b of ab"] == attempt.said
    assert isinstance(attempt.error, StepFailed)
    assert {"a": "it is registered no more: undo by hand what it did"} == {
        name: str(raised) for name, raised in attempt.error.rollback_errors.items()
    }


def test_the_last_step_may_be_gone_when_a_workflow_goes_on():
    store = killed_after(2, Note("a"), Note("b"), Note("c"), Note("d"))

    Attempt(store).execute(Note("a"), Note("b"))

    assert [True] == [value for key, value in store.items() if key.endswith("/finished")]


# -- rolling back


def test_the_author_may_have_an_interrupted_workflow_rolled_back_and_started_anew():
    attempt = Attempt(killed_after(2, Note("a"), Note("b"), Note("c")))

    attempt.execute(Note("a"), Note("b"), Note("c"), on_interrupt="rollback")

    assert ["undo b of ab", "undo a of a", "do a", "do b", "do c"] == attempt.said
    assert ["a", "b", "c"] == attempt.context.seen


def test_a_rollback_that_was_interrupted_is_finished_before_the_first_step():
    steps = Note("a"), Note("b"), Note("c"), Note("d", fail())
    # three steps, the announcement, the first compensation
    attempt = Attempt(killed_after(5, *steps))

    attempt.execute(Note("a"), Note("b"), Note("c"), Note("d"))

    assert ["undo b of ab", "undo a of a", "do a", "do b", "do c", "do d"] == attempt.said
    assert ["a", "b", "c", "d"] == attempt.context.seen


def test_a_compensation_that_raised_was_tried_and_is_not_tried_again():
    class Bad(Note):
        def rollback(self, context: Notes, result: StepResult) -> None:
            super().rollback(context, result)
            raise OSError("gone")

    attempt = Attempt(killed_after(4, Note("a"), Bad("b"), Note("c", fail())))

    attempt.execute(Note("a"), Bad("b"), Note("c"))

    assert ["undo a of a", "do a", "do b", "do c"] == attempt.said


def test_nothing_is_left_once_a_workflow_is_rolled_back():
    store = Kept()

    Attempt(store).execute(Note("a"), Note("b", fail()))

    assert {} == store.now


def test_a_failed_run_that_is_tried_again_starts_with_the_first_step():
    store = Kept()
    Attempt(store).execute(Note("a"), Note("b", fail()))
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"))

    assert ["do a", "do b"] == attempt.said


def test_a_compensation_that_is_broken_off_stays_for_the_next_attempt():
    class Stopped(Note):
        def rollback(self, context: Notes, result: StepResult) -> None:
            raise KeyboardInterrupt

    store = Kept()
    with pytest.raises(KeyboardInterrupt):
        Attempt(store).execute(Note("a"), Stopped("b"), Note("c", fail()))
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"), Note("c"))

    assert ["undo b of ab", "do a", "do b", "do c"] == attempt.said


def test_a_run_that_is_stopped_before_it_goes_on_rolls_back_what_is_restored():
    store = killed_after(2, Note("a"), Note("b"), Note("c"))
    attempt = Attempt(store)
    attempt.stop()

    with pytest.raises(RunCancelled):
        attempt.execute(Note("a"), Note("b"), Note("c"))

    assert ["undo b of ab", "undo a of a"] == attempt.said
    assert {} == store.now


def test_a_step_that_was_done_as_the_run_was_stopped_is_undone_by_the_next_attempt_too():
    store = Kept()
    first = Attempt(store)
    with pytest.raises(RunCancelled):
        first.execute(Note("a"), Note("b", lambda context: first.stop()))
    # Killed when the rollback was announced: the step itself had not been recorded.
    attempt = Attempt(Kept(store.after[1]))

    attempt.execute(Note("a"), Note("b"))

    assert ["undo b of ab", "undo a of a", "do a", "do b"] == attempt.said


# -- which execution is which


def test_executions_of_one_orchestrator_are_told_apart():
    said: list[str] = []
    store = Kept()

    def twice(store: Kept) -> None:
        context = Notes(runtime_of(), said=said)
        orchestrator = Orchestrator(StepRegistry([Note("a"), Note("b")]), context, checkpoint=store)
        orchestrator.execute()
        orchestrator.execute()

    twice(store)
    assert ["do a", "do b"] * 2 == said
    said.clear()
    twice(Kept(store.after[2]))  # the first execution and one step
    assert ["do b"] == said


def test_workflows_of_one_name_are_told_apart_by_their_steps():
    store = Kept()
    first = Attempt(store)
    first.execute(Note("a"))
    first.execute(Note("x"), Note("y"))
    attempt = Attempt(Kept(store.after[1]))

    attempt.execute(Note("a"))
    attempt.execute(Note("x"), Note("y"))

    assert ["do y"] == attempt.said


def test_a_workflow_that_the_author_tries_again_goes_on_in_the_try_that_was_killed():
    store = Kept()
    first = Attempt(store)
    first.execute(Note("a"), Note("b", fail()))
    first.execute(Note("a"), Note("b"), Note("c", fail()))
    first.execute(Note("a"), Note("b"))
    attempt = Attempt(Kept(store.after[-2]))  # killed in the third, which has done a

    attempt.execute(Note("a"), Note("b"))

    assert ["do b"] == attempt.said


def test_workflows_of_two_names_do_not_meet_whatever_the_names_hold():
    store = Kept()
    first = Attempt(store)
    first.execute(Note("b"), name="x/1.1/in/a/steps")
    first.execute(Note("a", fail()), name="x")  # whose rollback forgets all that is in its steps
    attempt = Attempt(store)

    assert ["b"] == list(attempt.execute(Note("b"), name="x/1.1/in/a/steps"))
    assert [] == attempt.said


# -- what is kept


class Color(Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: float
    y: float


class Model(BaseModel):
    path: Path
    epochs: int = 3


@dataclass
class Box:
    corner: Point
    label: str | None = None


@dataclass
class Typed(BaseStepContext):
    """One field of each type that comes back."""

    path: Path = Path()
    maybe: Path | None = None
    either: Path | str = ""
    when: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    color: Color = Color.RED
    names: set[str] = field(default_factory=set)
    shape: tuple[int, int] = (0, 0)
    boxes: list[Box] = field(default_factory=list)
    model: Model | None = None
    by_class: dict[int, Path] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    best: float = inf
    raw: bytes = b""
    anything: Any = None
    late: int = field(init=False)


VALUES: dict[str, object] = {
    "path": Path("/data"),
    "maybe": Path("x"),
    "either": Path("y"),
    "when": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
    "color": Color.RED,
    "names": {"a", "b"},
    "shape": (3, 4),
    "boxes": [Box(Point(1, inf), "cat"), Box(Point(0, 0))],
    "model": Model(path=Path("m.pt")),
    "by_class": {1: Path("one")},
    "counts": Counter("aab"),
    "best": -inf,
    "raw": b"\x00\xff",
    "anything": {"path": Path("z"), "pair": (1, {2}), "of": {7: "seven"}, "when": datetime(2024, 1, 1)},
    "late": 5,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_field_of_the_context_comes_back_with_its_type(name: str):
    def fill(context: Typed) -> None:
        setattr(context, name, VALUES[name])

    restored = filled(Typed, fill)

    assert VALUES[name] == getattr(restored, name)
    assert VALUES[name].__class__ is getattr(restored, name).__class__


def filled(kind: type[BaseStepContext], fill: Callable[[Any], object], store: Kept | None = None) -> Any:
    """Return a context as another attempt finds it after a step that fills it."""
    store = store or Kept()

    @step(name="fill")
    def fill_it(context: BaseStepContext) -> StepResult:
        returned = fill(context)
        return returned if isinstance(returned, StepResult) else StepResult()

    Orchestrator(StepRegistry([fill_it]), kind(runtime_of()), checkpoint=store).execute()
    context = kind(runtime_of())
    Orchestrator(StepRegistry([fill_it]), context, checkpoint=store).execute()
    return context


def test_results_come_back_as_they_were():
    data: dict[str, object] = {"path": Path("x"), "shape": (1, 2), "loss": inf, "of": {1: 0.5}, "none": None}

    context = filled(BaseStepContext, lambda context: StepResult(data=data, error="almost"))

    assert StepResult(data=data, error="almost") == context.results["fill"]


def test_a_field_that_opts_out_is_as_the_author_made_it():
    @dataclass
    class Partly(BaseStepContext):
        lock: object = field(default=None, metadata={"checkpoint": False})

    context = filled(Partly, lambda context: setattr(context, "lock", object()))

    assert context.lock is None


def test_only_the_fields_that_changed_are_written_again():
    @dataclass
    class Large(BaseStepContext):
        much: list[int] = field(default_factory=lambda: [1] * 1000)
        count: int = 0

    class Keys(Kept):
        def put_all(self, values: Mapping[str, object]) -> None:
            written.append([key.rpartition("/")[2] for key in values])
            super().put_all(values)

    @step
    def idle(context: Large) -> StepResult:
        return StepResult()

    @step
    def count(context: Large) -> StepResult:
        context.count += 1
        return StepResult()

    written: list[list[str]] = []
    Orchestrator(StepRegistry([idle, count]), Large(runtime_of()), checkpoint=Keys()).execute()

    assert [["idle", "much", "count"], ["count", "count", "finished"]] == written


# -- what cannot be kept


class Thing:
    """What JSON cannot hold."""


@dataclass
class WithThing(Notes):
    thing: object = None
    loose: list = field(default_factory=list)  # type: ignore[type-arg]
    named: dict[str, int] = field(default_factory=dict)
    api_key: str = "from the settings"


def put(name: str, value: object) -> Callable[[Notes], object]:
    """Return what sets a field of the context."""
    return lambda context: setattr(context, name, value)


UNKEPT = {
    "no JSON": (
        put("thing", Thing()),
        "context.thing",
        "it is of type Thing, which JSON cannot hold",
    ),
    "no JSON inside": (
        put("loose", [1, Thing()]),
        "context.loose[1]",
        "it is of type Thing, which JSON cannot hold",
    ),
    "another type": (
        put("loose", [Color.RED]),
        "context.loose",
        "a value of type list would not come back as it is through its annotation list",
    ),
    "another kind of mapping": (
        put("named", defaultdict(int, a=1)),
        "context.named",
        "a value of type defaultdict would not come back as it is through its annotation dict",
    ),
    "a secret": (
        put("api_key", "hunter2"),
        "context.api_key",
        "it holds a secret, by its name, and secrets are not written down",
    ),
    "a result": (
        lambda context: StepResult(data={"a": [Thing()]}),
        "results['b'].data['a'][0]",
        "it is of type Thing, which JSON cannot hold",
    ),
    "a secret result": (
        lambda context: StepResult(rollback_data={"token": "hunter2"}),
        "results['b'].rollback_data",
        "it holds a secret, by its name, and secrets are not written down",
    ),
    "no text": (
        put("thing", "\ud800"),
        "context.thing",
        "JSON cannot hold it ('utf-8' codec can't encode character '\\ud800' in position 0: "
        "surrogates not allowed)",
    ),
}
LEAVE_OUT = (
    "give it a type that JSON can hold, or leave it out of checkpoints with "
    'field(metadata={"checkpoint": False})'
)
RETURN_LESS = "return text, numbers, lists and mappings, or keep the rest in a file and return its path"


@pytest.mark.parametrize("what", UNKEPT)
def test_with_the_runs_own_checkpoint_a_workflow_goes_on_without_it_after_one_warning(
    what: str, of_the_run: Kept
):
    change, where, why = UNKEPT[what]
    events: list[Event] = []
    context = WithThing(runtime_of(events.extend))

    Orchestrator(StepRegistry([Note("a"), Note("b", change), Note("c"), Note("d")]), context).execute()

    assert ["do a", "do b", "do c", "do d"] == context.said
    assert {} == of_the_run.now
    (warning,) = [e for e in events if isinstance(e, Log) and e.event == "steps_not_durable"]
    hint = LEAVE_OUT if where.startswith("context") else RETURN_LESS
    assert {"step": "b", "workflow": "steps", "field": where, "reason": why, "hint": hint} == warning.data
    assert ("b", "warning") == (warning.step, warning.level)


@pytest.mark.parametrize("what", UNKEPT)
def test_with_a_checkpoint_that_was_asked_for_the_step_fails_and_is_rolled_back(what: str):
    change, where, why = UNKEPT[what]
    store = Kept()
    context = WithThing(runtime_of())

    def note(context: Notes) -> StepResult | None:
        returned = change(context)
        if isinstance(returned, StepResult):
            returned.rollback_data.setdefault("seen", "ab")
        return returned  # type: ignore[return-value]

    with pytest.raises(StepFailed) as raised:
        Orchestrator(StepRegistry([Note("a"), Note("b", note)]), context, checkpoint=store).execute()

    hint = LEAVE_OUT if where.startswith("context") else RETURN_LESS
    assert f"Step 'b' failed: the checkpoint cannot hold it: {where}: {why}\n  {hint}" == str(raised.value)
    assert ["do a", "do b", "undo b of ab", "undo a of a"] == context.said
    assert {} == store.now


def test_a_secret_that_no_step_changed_is_not_written_and_comes_from_the_author_again():
    store = Kept()
    context = WithThing(runtime_of())

    Orchestrator(StepRegistry([Note("a")]), context, checkpoint=store).execute()

    assert "from the settings" not in str(store.now)
    assert [] == [key for key in store.now if "api_key" in key]


def test_a_field_under_a_secret_name_is_kept_where_the_author_says_so():
    @dataclass
    class Keyed(BaseStepContext):
        best_key: str = field(default="", metadata={"checkpoint": True})

    assert "a1" == filled(Keyed, put("best_key", "a1")).best_key


def test_a_write_that_fails_fails_the_step_which_is_rolled_back_with_the_others():
    store = Kept()
    store.broken = lambda keys: any(key.endswith("done/b") for key in keys)
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"))

    assert "Step 'b' failed: its checkpoint could not be written: the disk is full" == str(attempt.error)
    assert isinstance(attempt.error, StepFailed)
    assert isinstance(attempt.error.__cause__, StoreError)
    assert ["do a", "do b", "undo b of ab", "undo a of a"] == attempt.said


@pytest.mark.parametrize("key", ["rollback", "undone/b"])
def test_a_store_that_fails_during_a_rollback_keeps_no_step_from_being_undone(key: str):
    store = Kept()
    store.broken = lambda keys: any(each.endswith(key) for each in keys)
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"), Note("c", fail()))

    assert ["undo b of ab", "undo a of a"] == attempt.said[-2:]
    assert "Step 'c' failed: ValueError: no" == str(attempt.error)
    assert [{"workflow": "steps", "error": "StoreError: the disk is full"}] == attempt.logged(
        "rollback_not_recorded"
    )


GARBAGE = {
    "no record": (b"[1]", "Expected `object`, got `array`"),
    "no snapshot": (b'{"data": 5}', "it is no snapshot of a value"),
    "another type": (b'{"skipped": 1}', "Expected `bool`, got `int` - at `$.skipped`"),
    "notes that lead nowhere": (b'{"data": {"value": {}, "types": [[["x"], "path"]]}}', "'x'"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_record_that_cannot_be_read_is_told_with_the_way_out_before_any_step(what: str):
    raw, why = GARBAGE[what]
    store = killed_after(2, Note("a"), Note("b"), Note("c"))
    store.now["steps/steps/1.1/done/b"] = raw
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"), Note("c"))

    assert (
        f"The checkpoint of step 'b' in workflow 'steps' cannot be read: {why}\n"
        "  it is damaged, or the code that wrote it was another; start a new run instead of this one's next "
        "attempt"
    ) == str(attempt.error)
    assert [] == attempt.said


def test_a_field_that_cannot_be_read_any_more_is_told_too():
    store = killed_after(2, Note("a"), Note("b"), Note("c"))
    store.now["steps/steps/1.1/field/seen"] = b'{"value": 5}'
    attempt = Attempt(store)

    attempt.execute(Note("a"), Note("b"), Note("c"))

    assert "context.seen: Expected `array`, got `int`" in str(attempt.error)


def test_without_a_checkpoint_nothing_is_kept(of_the_run: Kept):
    attempt = Attempt(None)

    attempt.execute(Note("a"))

    assert (["do a"], {}) == (attempt.said, of_the_run.now)


def test_what_is_done_on_an_interrupt_is_one_of_two_things():
    with pytest.raises(UsageError, match=r"^on_interrupt is 'resume' or 'rollback', not 'retry'$"):
        Attempt(Kept()).execute(Note("a"), on_interrupt="retry")


# -- workflows inside steps


def outer(said: list[str], *inner: BaseStep[Notes], after: Callable[..., object] | None = None) -> Note:
    """Return a step that executes a workflow of its own."""

    def run_inner(context: Notes) -> None:
        Orchestrator(StepRegistry(inner), Notes(context.runtime, said=said)).execute()
        if after is not None:
            after()

    return Note("outer", run_inner)


def test_a_workflow_inside_a_step_goes_on_where_it_was(of_the_run: Kept):
    first = Attempt(default=True)
    first.execute(Note("a"), outer(first.said, Note("x"), Note("y"), Note("z")))
    of_the_run.now = of_the_run.after[2]  # a, x, y
    attempt = Attempt(default=True)

    attempt.execute(Note("a"), outer(attempt.said, Note("x"), Note("y"), Note("z")))

    assert ["do outer", "do z"] == attempt.said


def test_a_rollback_of_the_workflow_around_forgets_those_inside(of_the_run: Kept):
    first = Attempt(default=True)
    first.execute(Note("a"), outer(first.said, Note("x")), Note("c", fail()))
    attempt = Attempt(default=True)

    attempt.execute(Note("a"), outer(attempt.said, Note("x")), Note("c"))

    assert ["do a", "do outer", "do x", "do c"] == attempt.said


def test_a_failure_of_the_step_around_forgets_the_workflows_inside(of_the_run: Kept):
    first = Attempt(default=True)
    first.execute(Note("a"), outer(first.said, Note("x"), after=fail()))
    attempt = Attempt(default=True)

    attempt.execute(Note("a"), outer(attempt.said, Note("x")))

    assert ["do a", "do outer", "do x"] == attempt.said


def test_workflows_inside_keep_their_records_where_the_one_around_keeps_them(of_the_run: Kept):
    store = Kept()
    attempt = Attempt(store)

    attempt.execute(outer(attempt.said, Note("x")))

    assert {} == of_the_run.now
    assert ["steps/steps/1.1/in/outer/steps/1.1/done/x"] == [key for key in store.now if key.endswith("/x")]


def test_what_an_interrupted_step_did_inside_is_rolled_back_with_the_workflow_around(of_the_run: Kept):
    first = Attempt(default=True)
    first.execute(Note("a"), outer(first.said, Note("x"), Note("y")))
    of_the_run.now = of_the_run.after[1]  # a, x
    attempt = Attempt(default=True)

    attempt.execute(Note("a"), outer(attempt.said, Note("x"), Note("y")), on_interrupt="rollback")

    assert ["undo a of a", "do a", "do outer", "undo x of x", "do x", "do y"] == attempt.said


def test_inside_a_workflow_that_keeps_nothing_nothing_is_kept_either(of_the_run: Kept):
    attempt = Attempt(None)

    attempt.execute(outer(attempt.said, Note("x")))

    assert (["do outer", "do x"], {}) == (attempt.said, of_the_run.now)
