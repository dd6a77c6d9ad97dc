"""
Types as they are compared: without what wraps them, and by what they are as JSON.

Where nothing certain can be said of a type, it is `UNKNOWN`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import os
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
import typing_extensions
from typing_extensions import is_typeddict

UNKNOWN: Final[object] = Any
"""The type of what no annotation tells."""

Shape = Literal["null", "bool", "int", "float", "str", "text", "time", "list", "dict", "record", "object"]

_QUALIFIERS = {
    getattr(module, name)
    for module in (typing, typing_extensions)
    for name in ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
    if hasattr(module, name)
}
_CONVERTING = {"BeforeValidator", "PlainValidator", "WrapValidator"}
_SCALARS: Mapping[object, Shape] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "text",
}
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.deque)
_LIST_ABSTRACTS = {
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.MutableSequence,
    collections.abc.MutableSet,
}
_TIMES = (datetime.date, datetime.time, datetime.timedelta)
_CONVERTED_FROM_TEXT = {"builtins", "typing", "decimal", "uuid", "fractions", "ipaddress", "re"}


def bare(annotation: object) -> object:
    """
    Take off what says nothing of the values: Annotated, NewType, aliases, Required and their like.

    What a validator may make of anything is `UNKNOWN`.
    """
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *metadata = get_args(annotation)
            converts = any(type(entry).__name__ in _CONVERTING for entry in metadata)
            annotation = UNKNOWN if converts else inner
        elif origin in _QUALIFIERS:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing_extensions.TypeAliasType):
            annotation = annotation.__value__
        elif annotation is None:
            return type(None)
        else:
            return annotation


def is_unknown(annotation: object) -> bool:
    """Tell whether a type says nothing of its values."""
    if annotation is Any or annotation is object:
        return True
    return isinstance(annotation, (str, typing.ForwardRef, TypeVar, typing_extensions.TypeVar))


def members(annotation: object) -> tuple[object, ...]:
    """Return the types that a union is made of, without what wraps them, or the one type."""
    if get_origin(annotation) in {Union, types.UnionType}:
        return tuple(inner for arg in get_args(annotation) for inner in members(bare(arg)))
    return (annotation,)


def is_record(kind: object) -> bool:
    """Tell whether a type has named fields: a model, a dataclass, a typed dict, a msgspec struct."""
    if not isinstance(kind, type):
        return False
    return (
        isinstance(getattr(kind, "model_fields", None), dict)
        or dataclasses.is_dataclass(kind)
        or is_typeddict(kind)
        or issubclass(kind, msgspec.Struct)
    )


def shape_of(annotation: object) -> Shape | None:
    """
    Return what a type is as JSON; None where that cannot be told.

    ``text`` is what is written as text, such as a path; ``time`` what may be a number too; ``object`` is a
    class of which only its instances are known.
    """
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return None
    if kind in _SCALARS:
        return _SCALARS[kind]
    if is_record(kind):
        return "record"
    if issubclass(kind, enum.Enum):
        return None
    if kind in _LIST_ABSTRACTS or (issubclass(kind, _LISTS) and not issubclass(kind, (str, bytes))):
        return "list"
    if issubclass(kind, Mapping):
        return "dict"
    if issubclass(kind, os.PathLike):
        return "text"
    if issubclass(kind, _TIMES):
        return "time"
    for scalar, shape in _SCALARS.items():
        if issubclass(kind, cast("type", scalar)):
            return shape
    return "object" if _is_plain_class(kind) else None


def item_type(annotation: object) -> object | None:
    """Return the type of a list's items, `UNKNOWN` where it is not told, or None for what is no list."""
    annotation = bare(annotation)
    found: list[object] = []
    for member in members(annotation):
        if member is type(None):
            continue
        shape = shape_of(member)
        if is_unknown(member) or shape is None:
            return UNKNOWN
        if shape == "list":
            found.append(item_of(member))
    if not found:
        return None
    return found[0] if len(found) == 1 else UNKNOWN


def item_of(annotation: object) -> object:
    """Return the type that all items of a list type have, or `UNKNOWN`."""
    inner = get_args(annotation)
    if get_origin(annotation) is tuple and not (len(inner) == 2 and inner[1] is ...):
        return UNKNOWN
    return inner[0] if inner else UNKNOWN


def value_type(annotation: object) -> object | None:
    """Return the type of a mapping's values, or None for what is no mapping."""
    annotation = bare(annotation)
    if shape_of(annotation) != "dict":
        return None
    inner = get_args(annotation)
    return inner[1] if len(inner) == 2 else UNKNOWN


def without_none(annotation: object) -> object:
    """Return a type without None among what it may be; `UNKNOWN` if several remain."""
    annotation = bare(annotation)
    rest = [member for member in members(annotation) if member is not type(None)]
    if not rest:
        return annotation
    return rest[0] if len(rest) == 1 else UNKNOWN


def shown_type(annotation: object) -> str:
    """Write a type as a person would."""
    annotation = bare(annotation)
    if annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    several = members(annotation)
    if len(several) > 1:
        return " | ".join(shown_type(member) for member in several)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(repr(choice) for choice in inner)}]"
    if origin is not None and inner:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join('...' if arg is ... else shown_type(arg) for arg in inner)}]"
    return str(getattr(annotation, "__name__", str(annotation).replace("typing.", "")))


def _is_plain_class(kind: type) -> bool:
    """Tell whether a class is checked by isinstance alone: neither pydantic nor the class converts to it."""
    if kind.__module__ in _CONVERTED_FROM_TEXT or kind.__module__.startswith("pydantic"):
        return False
    hooks = ("__get_pydantic_core_schema__", "__get_validators__", "_is_protocol")
    return not any(getattr(kind, hook, False) for hook in hooks)
