"""Which type a reference names: its path followed through the type of what is at its root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

from synapse_kernel.errors import SynapseError, listing, suggest
from synapse_plugins.pipelines.field_types import record_fields
from synapse_plugins.pipelines.references import (
    EVERY,
    Key,
    Reference,
    has_references,
    lone_reference,
    path_text,
)
from synapse_plugins.pipelines.type_shapes import (
    UNKNOWN,
    item_type,
    shape_of,
    shown_type,
    value_type,
    without_none,
)

_SCALARS = {"null", "bool", "int", "float", "str"}
_NO_LISTS = {*_SCALARS, "text", "time", "dict", "record"}


class NotThere(Exception):  # noqa: N818 - it says what is wrong with a reference, and is caught nearby
    """A reference names what its root cannot have."""


def follow(annotation: object, reference: Reference, at: int = 0) -> object:
    """Return the type of what a reference names, from the type at its root; raises `NotThere`."""
    for place in range(at, len(reference.path)):
        annotation = without_none(annotation)
        part = reference.path[place]
        where = reference.root + path_text(reference.path[:place])
        if isinstance(part, Key):
            annotation = _field_of(annotation, part.name, where)
            continue
        item = item_type(annotation)
        if item is None:
            if shape_of(annotation) in _NO_LISTS:
                raise NotThere(f"{where} is {shown_type(annotation)}, not a list")
            return UNKNOWN
        if part == EVERY:
            return list[follow(item, reference, place + 1)]  # type: ignore[misc] # known only now
        annotation = item
    return annotation


def type_of_items(items: Sequence[object]) -> object:
    """Return the type of the items of a list that stands in a pipeline."""
    if any(isinstance(item, Mapping) or may_have_references(item) for item in items):
        return UNKNOWN
    kinds = tuple(dict.fromkeys(type(item) for item in items))
    return Union[kinds] if kinds else UNKNOWN  # noqa: UP007 - of a tuple that is known only now


def readable_reference(value: object) -> Reference | None:
    """Return the reference a text consists of; None for one that cannot be read, which is told elsewhere."""
    try:
        return lone_reference(value)
    except SynapseError:
        return None


def may_have_references(value: object) -> bool:
    """Tell whether a value holds references, or something that was meant as one."""
    try:
        return has_references(value)
    except SynapseError:
        return True


def _field_of(annotation: object, name: str, where: str) -> object:
    shape = shape_of(annotation)
    if shape == "record":
        fields = record_fields(annotation)
        if fields is None:
            return UNKNOWN
        if name not in fields:
            own = [key for key, field in fields.items() if key == field.name]
            raise NotThere(f"{where} has no {name!r}{suggest(name, own) or f'; there is: {listing(own)}'}")
        return fields[name].annotation
    if shape == "dict":
        return value_type(annotation)
    if shape == "list":
        raise NotThere(f"{where} is a list; for the {name!r} of each write ${{{where}[*]{Key(name)}}}")
    if shape in _SCALARS:
        raise NotThere(f"{where} is {shown_type(annotation)}, which has no field {name!r}")
    return UNKNOWN
