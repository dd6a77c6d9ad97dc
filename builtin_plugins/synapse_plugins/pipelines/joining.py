"""
What the actions of a linear pipeline take and give, and whether that joins.

An action may take a field from the initial params or from the result of any action before it; the later goes
before the earlier. Of a result whose fields its type does not tell, nothing is held against anyone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.actions import ActionCode
from synapse_kernel.contracts import ActionSpec
from synapse_kernel.errors import ParamsError, Problem, SynapseError, listing, suggest
from synapse_kernel.models import adapter_of, default_of, fields_of
from synapse_kernel.params import check_params, explain
from synapse_kernel.serialization import NotJsonError, to_plain
from synapse_kernel.types import is_compatible
from synapse_plugins.pipelines.definition import REQUIRED
from synapse_plugins.pipelines.field_types import FieldType, clash, record_fields, takes_other_fields
from synapse_plugins.pipelines.type_shapes import UNKNOWN, is_record, shape_of, shown_type, without_none

if TYPE_CHECKING:
    from collections.abc import Iterable

_SCALARS = frozenset({str, int, float, bool, type(None)})


class Link(msgspec.Struct, frozen=True):
    """One action of the chain: what it takes and what it gives."""

    name: str
    spec: ActionSpec
    code: ActionCode
    takes: dict[str, FieldType]
    """The fields of its params, by key."""
    takes_others: bool
    gives: dict[str, object]
    """The fields of its result that its type tells, with their types."""
    gives_others: bool
    """Its result may have fields that its type does not tell."""


class Initial(msgspec.Struct, frozen=True):
    """What is said of the initial params before any are given."""

    model: object = None
    types: dict[str, object] = {}
    defaults: dict[str, object] = {}
    required: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """True where there are no others."""
        return self.model is not None and getattr(self.model, "model_config", {}).get("extra") != "allow"


def link(name: str, spec: ActionSpec, code: ActionCode) -> Link:
    """Describe an action as part of a chain."""
    gives, gives_others = _given_by(code.result_type, name)
    return Link(
        name=name,
        spec=spec,
        code=code,
        takes=record_fields(code.params_type, for_input=True) or {},
        takes_others=takes_other_fields(code.params_type),
        gives=gives,
        gives_others=gives_others,
    )


def initial_of(params: object) -> Initial:
    """Read what a caller says of the initial params: a model, an instance of one, defaults, or nothing."""
    if params is None:
        return Initial()
    if isinstance(params, Mapping):
        return Initial(
            defaults={str(key): value for key, value in params.items() if value is not REQUIRED},
            required=tuple(str(key) for key, value in params.items() if value is REQUIRED),
        )
    kind = params if isinstance(params, type) else type(params)
    fields = record_fields(kind, for_input=True) or {}
    types = {field.name: field.annotation for field in fields.values()}
    if not isinstance(params, type):
        return Initial(model=kind, types=types, defaults=fields_by_name(params, ""))
    required = tuple(dict.fromkeys(field.name for field in fields.values() if field.required))
    known = fields_of(kind)
    defaults = {name: default_of(known[name]) for name in types if name in known and name not in required}
    return Initial(model=kind, types=types, defaults=defaults, required=required)


def chain_problems(links: Sequence[Link], initial: Initial) -> Iterator[Problem]:
    """Yield all that does not fit in a chain of actions."""
    given: dict[str, tuple[str, object]] = {
        name: ("the initial params give", annotation) for name, annotation in initial.types.items()
    }
    is_open = False
    for at, own in enumerate(links):
        yield from _semantic_problems(own, links[:at])
        for key, field in own.takes.items():
            where = f"{own.name}.{key}"
            if key in given:
                who, annotation = given[key]
                reason = clash(annotation, field.annotation)
                if reason:
                    yield Problem(where, f"{who} {reason}")
            elif key in initial.defaults:
                if not is_open:
                    for text in _value_problems(initial.defaults[key], field):
                        yield Problem(where, f"the initial params give {initial.defaults[key]!r}: {text}")
            elif initial.is_complete and not is_open and _is_wanting(key, own, given):
                near = suggest(key, given)
                yield Problem(where, f"neither the initial params nor an action before give it (required, "
                              f"{shown_type(field.annotation)}){near}")  # fmt: skip
        if own.gives_others:
            is_open = True
            # Any of them may be overwritten.
            given = {key: (who, UNKNOWN) for key, (who, _) in given.items()}
        given.update({key: (f"{own.name!r} gives", annotation) for key, annotation in own.gives.items()})
    if initial.is_complete and not any(own.takes_others for own in links):
        taken = {key for own in links for key in own.takes}
        for name in initial.types:
            if name not in taken:
                yield Problem(f"params.{name}", f"no action takes it{suggest(name, taken)}")


def required_initially(links: Sequence[Link], initial: Initial) -> dict[str, FieldType]:
    """Return the params that must be given, with their types."""
    takers = {key: field for own in reversed(links) for key, field in own.takes.items()}
    found = {
        name: FieldType(name, initial.types.get(name) or _type_of(takers.get(name)), required=True)
        for name in initial.required
    }
    given: dict[str, object] = {**initial.types, **initial.defaults}
    for own in links:
        for key, field in own.takes.items():
            if key not in found and _is_wanting(key, own, given):
                found[key] = field
        if own.gives_others:
            break
        given.update(own.gives)
    return found


def initial_values(initial: Initial, given: object) -> tuple[dict[str, object], list[Problem]]:
    """Return given params over the defaults, and what the model of the initial params has against them."""
    values = given if isinstance(given, Mapping) else fields_by_name(given, "")
    values = {str(key): value for key, value in values.items()}
    if initial.model is None:
        return {**initial.defaults, **values}, []
    if not initial.required:
        values = {**initial.defaults, **values}
    try:
        built = check_params(_code_of(initial.model), values, {})
    except ParamsError as error:
        return {**initial.defaults, **values}, error.problems
    return fields_by_name(built, ""), []


def value_problems(
    links: Sequence[Link], initial: Initial, values: Mapping[str, object]
) -> Iterator[Problem]:
    """Yield what the actions would have against initial params when their turn comes."""
    known = {key for own in links for key in own.takes} | set(initial.defaults) | set(initial.required)
    if initial.model is None and not any(own.takes_others for own in links):
        for key in values:
            if key not in known:
                yield Problem(key, f"unknown{suggest(key, known) or f'; known: {listing(known)}'}")
    for key, field in required_initially(links, initial).items():
        if key not in values and initial.model is None:
            yield Problem(key, f"missing (required, {shown_type(field.annotation)})")
    overwritten: set[str] = set()
    for own in links:
        for key, field in own.takes.items():
            if key in values and key not in overwritten:
                for text in _value_problems(values[key], field):
                    yield Problem(key, text)
        if own.gives_others:
            return
        overwritten.update(own.gives)


def fields_by_name(value: object, name: str) -> dict[str, object]:
    """Return the fields of a result as plain data where they can be; one without fields under a name."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    kind: type = value.__class__
    names = _field_names(kind)
    if names is None:
        return {name: _plain(value)}
    found = {field: _plain(getattr(value, field)) for field in names}
    extra = getattr(value, "model_extra", None)
    if isinstance(extra, Mapping):
        found.update({str(key): _plain(item) for key, item in extra.items()})
    return found


@functools.lru_cache(maxsize=256)
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Return the names under which a result of a type joins, or None for one without fields."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    fields = getattr(kind, "model_fields", None)
    if isinstance(fields, dict):
        return (*fields, *getattr(kind, "model_computed_fields", ()))
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return None


def _plain(value: object) -> object:
    """Return a value as the other executors would hand it on; what is not JSON stays as it is."""
    if value.__class__ in _SCALARS:
        return value
    try:
        return to_plain(value)
    except NotJsonError:
        return value


def _given_by(result_type: object, name: str) -> tuple[dict[str, object], bool]:
    """Return the fields that a result of a type joins with, and whether there may be others."""
    if result_type is None:
        return {}, True
    kind = without_none(result_type)
    if not (isinstance(kind, type) and is_record(kind)):
        shape = shape_of(kind)
        if shape in {None, "dict", "object"}:
            return {}, True
        return ({} if shape == "null" else {name: result_type}), False
    typed = record_fields(kind)
    names = _field_names(kind) or fields_of(kind)
    told = {field: typed[field].annotation if typed and field in typed else UNKNOWN for field in names}
    return told, typed is None


def _is_wanting(key: str, own: Link, given: Mapping[str, object]) -> bool:
    """Tell whether an action needs a field that nothing gives, under this key or another of its."""
    field = own.takes[key]
    if not field.required:
        return False
    keys = [other for other, found in own.takes.items() if found.name == field.name]
    return key == keys[0] and not any(other in given or other in own.spec.params for other in keys)


def _semantic_problems(own: Link, before: Sequence[Link]) -> Iterator[Problem]:
    """Tell an action that takes data of a type which none of those before it gives."""
    wanted = own.spec.input_type or own.code.input_type
    made = {other.name: other.spec.output_type or other.code.output_type for other in before}
    typed = {name: kind for name, kind in made.items() if kind is not None}
    if wanted is None or not typed:
        return
    try:
        if any(is_compatible(kind, wanted) for kind in typed.values()):
            return
    except SynapseError as error:
        text = "; ".join(line.strip() for line in str(error).splitlines())
        yield Problem(own.name, text)
        return
    told = ", ".join(f"{name!r} gives {kind}" for name, kind in typed.items())
    yield Problem(own.name, f"it takes {wanted}, and {told}")


def _value_problems(value: object, field: FieldType) -> Iterable[str]:
    try:
        adapter_of(field.annotation).validate_python(value)
    except ValueError as error:
        return [text.removeprefix("it: ") for text in explain(error).split("; ")]
    return ()


def _type_of(field: FieldType | None) -> object:
    return UNKNOWN if field is None else field.annotation


def _code_of(model: object) -> ActionCode:
    return ActionCode(obj=model, name="params", is_class=False, arity=1, params_type=model)
