"""
Typed reading of what people write into config and settings files.

msgspec converts and checks; this adds what a person needs: every mistake at once, unknown keys with the
nearest known one, and where each stands. (msgspec because importing pydantic and building such models
would cost every command 0.1 s.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin

import msgspec

from synapse_kernel.errors import Problem, listing, suggest

S = TypeVar("S", bound=msgspec.Struct)

_TYPE = re.compile(r"`([^`]*)`")
_PLAIN = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
    "date": "a date",
    "datetime": "a date",
}
_PATH = re.compile(r" - at `(\$[^`]*)`$")


def convert(data: Mapping[str, object], kind: type[S], *, where: str = "") -> tuple[S | None, list[Problem]]:
    """Return data as a struct and no problems, or None and every problem in it."""
    try:
        return msgspec.convert(data, kind), []
    except msgspec.ValidationError as error:
        return None, list(_problems(data, kind, where)) or [Problem(where, _plain(str(error)))]


def _problems(data: Mapping[str, object], kind: type[msgspec.Struct], where: str) -> list[Problem]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found: list[Problem] = []
    for key, value in data.items():
        place = f"{where}.{key}" if where else str(key)
        field = fields.get(key)
        if field is None:
            if kind.__struct_config__.forbid_unknown_fields:
                found.append(Problem(place, f"unknown key{suggest(str(key), fields) or _known(fields)}"))
            continue
        found.extend(_field_problems(value, field.type, place))
    found.extend(
        Problem(f"{where}.{name}" if where else name, "missing")
        for name, field in fields.items()
        if field.required and name not in data
    )
    return found


def _known(fields: Mapping[str, object]) -> str:
    return f"; known: {listing(fields, most=30)}"


def _field_problems(value: object, wanted: object, place: str) -> list[Problem]:
    """Look into nested structs, mappings and lists, so that each mistake is told by itself."""
    for kind in _members(wanted):
        if isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _problems(value, kind, place)
        if isinstance(value, Mapping) and get_origin(kind) is dict:
            return [p for key, item in value.items() for p in _item_problems(key, item, kind, place)]
        if isinstance(value, list) and get_origin(kind) is list:
            inner = get_args(kind)[0]
            return [p for i, item in enumerate(value) for p in _field_problems(item, inner, f"{place}[{i}]")]
        if isinstance(value, str) and get_origin(kind) is Literal:
            choices = get_args(kind)
            hint = suggest(value, choices)
            text = f"expected one of {', '.join(choices)}, got {value!r}{hint}"
            return [] if value in choices else [Problem(place, text)]
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        return [Problem(place, f"{_plain(_PATH.sub('', str(error)))}{_shown(value)}")]
    return []


def _item_problems(key: object, value: object, kind: object, place: str) -> list[Problem]:
    found = _field_problems(value, get_args(kind)[1], f"{place}.{key}")
    if not isinstance(key, str):
        found.insert(0, Problem(f"{place}.{key}", "the key is not text; put it in quotes"))
    return found


def _members(wanted: object) -> tuple[object, ...]:
    """Return the types that a union is made of, or the one type."""
    return get_args(wanted) if get_origin(wanted) in {Union, UnionType} else (wanted,)


def _shown(value: object) -> str:
    text = repr(value)
    return f": {text}" if value is not None and len(text) <= 60 else ""


def _plain(text: str) -> str:
    text = _TYPE.sub(_plain_type, text)
    return text[0].lower() + text[1:]


def _plain_type(found: re.Match[str]) -> str:
    """Say msgspec's `` `str | null` `` in words; what is no type stays as it is."""
    names = found.group(1).split(" | ")
    return " or ".join(_PLAIN[name] for name in names) if set(names) <= _PLAIN.keys() else found.group()
