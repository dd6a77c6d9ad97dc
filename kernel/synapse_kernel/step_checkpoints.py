"""
What a workflow of steps leaves behind, so that the next attempt of its run can go on where it was.

One write after each step holds the step's result and what changed in the context; a rollback announces itself
before its first compensation and notes each one that was tried. The keys of an execution are::

    steps/NAME/KIND.NUMBER/done/STEP       the result of a step that was done or skipped
                           field/FIELD     a field of the context, as the last step left it
                           finished        every step is done
                           rollback        a rollback began: what is done is to be undone
                           undone/STEP     its compensation was tried
                           in/STEP/…       workflows that the step's `execute` ran, named in the same way
                           undo/STEP/…     those that its `rollback` ran
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, Protocol, cast, get_type_hints

import msgspec

from synapse_kernel.errors import SynapseError
from synapse_kernel.redaction import may_hold_secret_names, redact
from synapse_kernel.snapshots import NotKeptError, encoded, packed, unpacked
from synapse_kernel.step_results import StepResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synapse_kernel.steps import BaseStepContext


class StepCheckpoints(Protocol):
    """Where steps keep their records: what `CheckpointStore` offers of its own. Each call is durable."""

    def put_all(self, values: Mapping[str, object]) -> None:
        """Keep several JSON-like values under their keys, all or none."""

    def items(self, prefix: str = "") -> list[tuple[str, object]]:
        """Return the keys that start with a prefix and their values, in the order they were first put."""

    def remove(self, *keys: str) -> None:
        """Forget values, all or none; one that is not there is no error."""


class CheckpointError(SynapseError):
    """A record that an earlier attempt left cannot be read; `workflow` and `step` say whose."""

    exit_code = 1

    def __init__(self, workflow: str, step: str, reason: str) -> None:
        self.workflow = workflow
        self.step = step
        super().__init__(
            f"The checkpoint of step {step!r} in workflow {workflow!r} cannot be read: {reason}\n"
            "  it is damaged, or the code that wrote it was another; start a new run instead of this one's "
            "next attempt"
        )


def quoted(name: str) -> str:
    """Return a name as a part of a key."""
    return name.replace("%", "%25").replace("/", "%2F")


def _unquoted(part: str) -> str:
    return part.replace("%2F", "/").replace("%25", "%")


class _Kind:
    """Executions of workflows with the same steps: which numbers are taken."""

    __slots__ = ("free", "ordinal", "taken")

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.taken: set[int] = set()
        self.free = 1


class Numbers:
    """
    Numbers the executions of one attempt, so that the next one finds each under the same key.

    Workflows of one name are told apart by their steps, in the order in which they first come; executions
    of one by their number. One that was rolled back gives its number back: what the author tries again is
    the same execution, also when the tries of the next attempt are fewer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, dict[tuple[str, ...], _Kind]] = {}

    def claim(self, place: str, steps: tuple[str, ...]) -> tuple[_Kind, int]:
        """Take the first free number of a workflow."""
        with self._lock:
            kinds = self._kinds.setdefault(place, {})
            kind = kinds.get(steps)
            if kind is None:
                kind = kinds[steps] = _Kind(len(kinds) + 1)
            number = kind.free
            while number in kind.taken:
                number += 1
            kind.taken.add(number)
            kind.free = number + 1
            return kind, number

    def release(self, kind: _Kind, number: int) -> None:
        """Give a number back."""
        with self._lock:
            kind.taken.discard(number)
            kind.free = min(kind.free, number)


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    hint: object
    forced: bool


@functools.lru_cache(maxsize=256)
def _fields_of(of: object) -> tuple[_Field, ...]:
    """Return the fields of a context that checkpoints hold, with their types as far as they can be told."""
    kind = cast("type[BaseStepContext]", of)
    return tuple(
        _Field(each.name, _hint_of(kind, each.name, each.type), each.metadata.get("checkpoint") is True)
        for each in dataclasses.fields(kind)
        if each.name not in {"runtime", "results"} and each.metadata.get("checkpoint") is not False
    )


def _hint_of(kind: type, name: str, annotation: object) -> object:
    # One by one: a name that is imported for type checkers alone must not hide the types of the others.
    home = next((base for base in kind.__mro__ if name in inspect.get_annotations(base)), kind)
    alone = type(home.__name__, (), {"__annotations__": {name: annotation}, "__module__": home.__module__})
    try:
        return get_type_hints(alone, include_extras=True)[name]
    except Exception:  # noqa: BLE001 - a name that does not resolve says nothing of the type
        return Any


_NOT_SET = object()


class Left:
    """What an execution left in the store: results by step, in order, and how far its rollback came."""

    def __init__(self) -> None:
        self.results: dict[str, StepResult] = {}
        self.fields: dict[str, object] = {}
        self.undone: set[str] = set()
        self.finished = False
        self.rolling_back = False
        self.begun: set[str] = set()
        """Steps that the interrupted rollback's attempt had begun."""


class Records:
    """The records of one execution of a workflow."""

    def __init__(self, store: StepCheckpoints, base: str, workflow: str, context: BaseStepContext) -> None:
        self.base = base
        self.store = store
        self._workflow = workflow
        self._context = context
        self._fields = _fields_of(cast("object", type(context)))
        self._written: dict[str, bytes] = {}
        self._done: set[str] = set()
        # As the author made it: a secret that no step changed comes the same way in the next attempt.
        self._given = {each.name: self._raw(each) for each in self._fields}

    def read(self) -> Left:
        """Return what an earlier attempt left; raises `CheckpointError` for what cannot be read."""
        left = Left()
        for key, value in self.store.items(self.base):
            kind, _, part = key.removeprefix(self.base).partition("/")
            name = _unquoted(part)
            if kind == "done":
                left.results[name] = self._result(name, value)
                self._done.add(name)
            elif kind == "field":
                left.fields[name] = value
            elif kind == "undone":
                left.undone.add(name)
            elif kind == "finished":
                left.finished = True
            elif kind == "rollback":
                left.rolling_back = True
                left.begun = set(value) if isinstance(value, list) else set()
        return left

    def restore(self, left: Left) -> dict[str, object]:
        """Set the context's fields to what the last step left; return what they were, by name."""
        step = next(reversed(left.results), "")
        before: dict[str, object] = {}
        for each in self._fields:
            if each.name not in left.fields:
                continue
            try:
                value = unpacked(left.fields[each.name], each.hint)
            except (ValueError, TypeError, NotImplementedError) as error:
                reason = f"context.{each.name}: {error}"
                raise CheckpointError(self._workflow, step, reason) from error
            before[each.name] = getattr(self._context, each.name, None)
            setattr(self._context, each.name, value)
        return before

    def record(self, step: str, result: StepResult, *, finished: bool) -> None:
        """Keep a step's result and the context in one write; raises `NotKeptError` for what cannot be."""
        entries: dict[str, object] = {f"{self.base}done/{quoted(step)}": _packed_result(step, result)}
        written = self._changed(entries)
        if finished:
            entries[f"{self.base}finished"] = True
        self.store.put_all(entries)
        self._written.update(written)
        self._done.add(step)

    def finish(self) -> None:
        """Note that every step is done."""
        self.store.put_all({f"{self.base}finished": True})

    def begin_rollback(self, done: Iterable[tuple[str, StepResult]], begun: Iterable[str]) -> None:
        """Announce a rollback, and note the steps whose own record was not written any more."""
        entries: dict[str, object] = {f"{self.base}rollback": list(begun)}
        for step, result in done:
            if step not in self._done:
                try:
                    entries[f"{self.base}done/{quoted(step)}"] = _packed_result(step, result)
                except NotKeptError:
                    continue
        try:
            self._changed(entries)
        except NotKeptError:
            fields = f"{self.base}field/"
            entries = {key: value for key, value in entries.items() if not key.startswith(fields)}
        self.store.put_all(entries)

    def compensated(self, step: str) -> None:
        """Note that the compensation of a step was tried."""
        entries: dict[str, object] = {f"{self.base}undone/{quoted(step)}": True}
        try:
            written = self._changed(entries)
        except NotKeptError:
            entries, written = {f"{self.base}undone/{quoted(step)}": True}, {}
        self.store.put_all(entries)
        self._written.update(written)

    def clear(self, begun: Iterable[str] | None = None) -> None:
        """
        Forget this execution once it is rolled back.

        Workflows inside a step that was not done stay if this attempt has not `begun` it: an earlier one was
        killed in it. They are to be rolled back when the step comes to run them. None keeps nothing.
        """
        inside = f"{self.base}in/"
        gone = {f"{inside}{quoted(step)}/" for step in {*self._done, *(begun or ())}}
        ours: list[str] = []
        pending: dict[str, object] = {}
        for key, _ in self.store.items(self.base):
            step, _, rest = key.removeprefix(inside).partition("/")
            if begun is None or not key.startswith(inside) or f"{inside}{step}/" in gone:
                ours.append(key)
                continue
            name, number, _ = rest.split("/", 2)
            pending.setdefault(f"{inside}{step}/{name}/{number}/rollback", [])
        if pending:
            self.store.put_all(pending)
        if ours:
            self.store.remove(*ours)
        self._done.clear()
        self._written.clear()

    def _result(self, step: str, value: object) -> StepResult:
        try:
            record = msgspec.convert(value, dict[str, object])
            for name in record.keys() & {"data", "rollback_data"}:
                record[name] = unpacked(record[name], dict[str, object])
            return msgspec.convert(record, StepResult)
        except (ValueError, TypeError, NotImplementedError, msgspec.ValidationError) as error:
            raise CheckpointError(self._workflow, step, str(error)) from error

    def _changed(self, entries: dict[str, object]) -> dict[str, bytes]:
        """Add the context's fields that are not as they were last written; return what they are now."""
        written: dict[str, bytes] = {}
        for each in self._fields:
            value = getattr(self._context, each.name, _NOT_SET)
            if value is _NOT_SET:
                continue
            where = f"context.{each.name}"
            plain, raw = encoded(value, where)
            if raw == self._written.get(each.name):
                continue
            if not each.forced and _is_secret(each.name, raw):
                if raw == self._given[each.name]:
                    continue
                raise NotKeptError(where, "it holds a secret, by its name, and secrets are not written down")
            entries[f"{self.base}field/{each.name}"] = packed(value, plain, raw, each.hint, where)
            written[each.name] = raw
        return written

    def _raw(self, field: _Field) -> bytes | None:
        try:
            return encoded(getattr(self._context, field.name), field.name)[1]
        except (NotKeptError, AttributeError):
            return None


def _packed_result(step: str, result: StepResult) -> dict[str, object]:
    record: dict[str, object] = {}
    if result.skipped:
        record["skipped"] = True
    if result.error is not None:
        record["error"] = result.error
    for name in ("data", "rollback_data"):
        value = getattr(result, name)
        if not value:
            continue
        where = f"results[{step!r}].{name}"
        plain, raw = encoded(value, where)
        if _is_secret(name, raw):
            raise NotKeptError(where, "it holds a secret, by its name, and secrets are not written down")
        record[name] = packed(value, plain, raw, dict[str, object], where)
    return record


def _is_secret(name: str, raw: bytes) -> bool:
    named = b'{"%s":%s}' % (name.encode(), raw)
    if not may_hold_secret_names(named):
        return False
    held = cast("dict[str, object]", msgspec.json.decode(named))
    return redact(held) != held
