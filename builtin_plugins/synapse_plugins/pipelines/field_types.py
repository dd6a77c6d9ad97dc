"""
The fields of params and results, and whether what one gives can be what another takes.

Only definite clashes are told: where a type says nothing, or may fit, there is none.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast, get_args, get_origin, get_type_hints

import msgspec
import typing_extensions
from typing_extensions import is_typeddict

from synapse_kernel.models import fields_by_any_key, fields_by_key, fields_of
from synapse_plugins.pipelines.type_shapes import (
    UNKNOWN,
    bare,
    is_record,
    is_unknown,
    item_of,
    members,
    shape_of,
    shown_type,
    value_type,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from synapse_kernel.actions import ActionCode

_FITS: Final[Mapping[str, frozenset[str]]] = {
    "null": frozenset({"null"}),
    "bool": frozenset({"bool"}),
    "int": frozenset({"int", "bool"}),
    "float": frozenset({"float", "int", "bool"}),
    "str": frozenset({"str", "text", "time"}),
    "text": frozenset({"str", "text", "time"}),
    "time": frozenset({"str", "text", "time", "int", "float"}),
}
"""Which shapes of what is produced may be what a shape needs."""


class FieldType(msgspec.Struct, frozen=True):
    """A field of params or of a result, as it is seen by its key."""

    name: str
    """The field's own name; its key is an alias where it has one."""
    annotation: object
    required: bool = False


def params_fields(code: ActionCode) -> dict[str, FieldType]:
    """
    Return the fields of an action's params by the keys that values for them are given under.

    Empty for an action that takes any mapping; `takes_other_fields` tells that from a model without fields.
    """
    return record_fields(code.params_type, for_input=True) or {}


def result_fields(code: ActionCode) -> dict[str, FieldType] | None:
    """
    Return the fields of an action's result by name and alias, its properties too.

    None where the type of the result does not say which fields there are.
    """
    return record_fields(code.result_type)


def takes_other_fields(wanted: object) -> bool:
    """Tell whether a params type takes keys that are none of its fields, as `check_params` sees it."""
    if not is_record(wanted):
        return True
    return getattr(wanted, "model_config", {}).get("extra") in {"allow", "ignore"}


def record_fields(wanted: object, *, for_input: bool = False) -> dict[str, FieldType] | None:
    """
    Return the fields of a record type, or None for any other type and for one that may hold more.

    `for_input` gives them by the keys under which values are taken, and tells those of a model that takes
    more besides; else they are told by every name under which they can be read.
    """
    wanted = bare(wanted)
    if not isinstance(wanted, type) or not is_record(wanted):
        return None
    return _kept_fields(wanted, for_input)


@functools.lru_cache(maxsize=512)
def _kept_fields(wanted: type, for_input: bool) -> dict[str, FieldType] | None:
    if issubclass(wanted, msgspec.Struct):
        return {f.name: FieldType(f.name, f.type, f.required) for f in msgspec.structs.fields(wanted)}
    if not for_input and getattr(wanted, "model_config", {}).get("extra") == "allow":
        return None
    keyed = fields_by_key(cast("Hashable", wanted)) if for_input else fields_by_any_key(wanted)
    names = {id(field): name for name, field in fields_of(wanted).items()}
    required = _required_names(wanted)
    rewritten = _rewritten(wanted) if for_input else frozenset()
    found: dict[str, FieldType] = {}
    for key, field in keyed.items():
        name = names[id(field)]
        annotation = UNKNOWN if {name, "*"} & rewritten else _with_metadata(field)
        found[key] = FieldType(name, annotation, name in required and "*" not in rewritten)
    if not for_input:
        found.update({name: FieldType(name, UNKNOWN) for name in _properties(wanted) if name not in found})
    return found


def clash(produced: object, expected: object) -> str | None:
    """
    Say why a value of one type can never be what another type takes, or return None.

    A whole number is a number, and text is a path and whatever else is written as text. A union fits if one
    of its types does. Lists, mappings and records are compared by what is in them.
    The reason reads like ``str where int is needed``.
    """
    produced, expected = bare(produced), bare(expected)
    if is_unknown(produced) or is_unknown(expected):
        return None
    reasons = [_member_clash(given, wanted) for given in members(produced) for wanted in members(expected)]
    if None in reasons:
        return None
    return reasons[0] if len(reasons) == 1 else _where(produced, expected)


def _where(produced: object, expected: object) -> str:
    return f"{shown_type(produced)} where {shown_type(expected)} is needed"


def _member_clash(produced: object, expected: object) -> str | None:
    if is_unknown(produced) or is_unknown(expected) or produced == expected:
        return None
    choices, given = _choices(expected), _choices(produced)
    if choices is not None:
        return None if _may_be_one_of(produced, given, choices) else _where(produced, expected)
    if given is not None:
        fits = any(_member_clash(type(value), expected) is None for value in given)
        return None if fits else _where(produced, expected)
    made, needed = shape_of(produced), shape_of(expected)
    if made is None or needed is None:
        return None
    if "object" in {made, needed}:
        return None if _related(produced, expected) else _where(produced, expected)
    if made == needed == "list":
        return _where(produced, expected) if clash(item_of(produced), item_of(expected)) else None
    if {made, needed} <= {"dict", "record"}:
        return _mapping_clash(produced, expected)
    return None if made in _FITS.get(needed, ()) else _where(produced, expected)


def _choices(annotation: object) -> tuple[object, ...] | None:
    """Return the values that a Literal or an Enum allows, as JSON has them."""
    if get_origin(annotation) is Literal:
        return tuple(c.value if isinstance(c, enum.Enum) else c for c in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    return None


def _may_be_one_of(produced: object, given: tuple[object, ...] | None, choices: tuple[object, ...]) -> bool:
    if given is not None:
        return any(value in choices for value in given)
    return any(_member_clash(produced, kind) is None for kind in {type(choice) for choice in choices})


def _mapping_clash(produced: object, expected: object) -> str | None:
    if _related(produced, expected):
        return None
    given = record_fields(produced) if is_record(produced) else None
    wanted = record_fields(expected, for_input=True) if is_record(expected) else None
    if given is not None and wanted is not None:
        return _records_clash(produced, expected, given, wanted)
    needed = value_type(expected)
    if needed is None:
        return None
    if given is None:
        made = value_type(produced)
        return _where(produced, expected) if made is not None and clash(made, needed) else None
    for key, field in given.items():
        reason = clash(field.annotation, needed) if key == field.name else None
        if reason:
            return f"{_where(produced, expected)}: its field {key!r} is {reason}"
    return None


def _records_clash(
    produced: object, expected: object, given: Mapping[str, FieldType], wanted: Mapping[str, FieldType]
) -> str | None:
    filled = {wanted[key].name for key in given if key in wanted}
    for field in wanted.values():
        if field.required and field.name not in filled:
            return f"{_where(produced, expected)}: it has no field {field.name!r}"
    for key, field in wanted.items():
        if key in given and (reason := clash(given[key].annotation, field.annotation)):
            return f"{_where(produced, expected)}: its field {key!r} is {reason}"
    return None


def _related(one: object, other: object) -> bool:
    """Tell whether one class derives from the other."""
    one, other = get_origin(one) or one, get_origin(other) or other
    if not (isinstance(one, type) and isinstance(other, type)):
        return False
    if is_typeddict(one) or is_typeddict(other) or one is dict or other is dict:
        return False
    return issubclass(one, other) or issubclass(other, one)


def _with_metadata(field: object) -> object:
    annotation = getattr(field, "annotation", UNKNOWN)
    metadata = tuple(getattr(field, "metadata", ()))
    return Annotated[annotation, *metadata] if metadata else annotation


def _required_names(wanted: type) -> set[str]:
    """Return the fields of a record that have no default."""
    fields = getattr(wanted, "model_fields", None)
    if isinstance(fields, dict):
        return {name for name, field in fields.items() if field.is_required()}
    if is_typeddict(wanted):
        return {name for name, hint in get_type_hints(wanted, include_extras=True).items()
                if _is_required_key(wanted, name, hint)}  # fmt: skip
    missing = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(wanted)
        if field.default is missing and field.default_factory is missing
    }


def _is_required_key(wanted: type, name: str, hint: object) -> bool:
    """Tell whether a typed dict must have a key; where annotations are texts it does not know by itself."""
    origin = get_origin(hint)
    if origin in {typing.NotRequired, typing_extensions.NotRequired}:
        return False
    return origin in {typing.Required, typing_extensions.Required} or name in wanted.__required_keys__  # type: ignore[attr-defined]


def _rewritten(wanted: type) -> frozenset[str]:
    """Return the fields whose values a model's own validators may make of anything; ``*`` for all."""
    decorators = getattr(wanted, "__pydantic_decorators__", None)
    if decorators is None:
        return frozenset()
    free: set[str] = set()
    for found in decorators.field_validators.values():
        if found.info.mode != "after":
            free.update(found.info.fields)
    if any(found.info.mode != "after" for found in decorators.model_validators.values()):
        free.add("*")
    return frozenset(free)


def _properties(wanted: type) -> Iterator[str]:
    """Yield the names of what a record's own classes compute."""
    for base in wanted.__mro__:
        if base.__module__.startswith("pydantic"):
            continue
        for name, attribute in vars(base).items():
            kind = type(attribute).__name__
            if not name.startswith("_") and kind in {
                "property", "cached_property", "PydanticDescriptorProxy"
            }:  # fmt: skip
                yield name
