"""
Values as JSON that come back as they were.

JSON has no paths, dates, tuples or infinities. A snapshot holds a value's plain form and, where the type that
is announced for it does not say all, notes on what stood where. It is read back when it is made: a value that
would come back as something else is refused then, not discovered when it is needed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from pathlib import Path, PurePath
from typing import Any, TypeAlias, cast, get_origin
from uuid import UUID

import msgspec

from synapse_kernel.serialization import NotJsonError, to_plain

Place: TypeAlias = tuple[str | int, ...]
"""The way to a part of plain data: keys of mappings and indices of lists."""


class NotKeptError(Exception):
    """A value that no snapshot can hold; `where` names the part that is to blame, `why` says the reason."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where}: {why}")


def encoded(value: object, where: str) -> tuple[object, bytes]:
    """Return the plain form of a value and its JSON; raises `NotKeptError` if it has none."""
    try:
        plain = to_plain(value, name=where)
        return plain, msgspec.json.encode(plain)
    except NotJsonError as error:
        raise NotKeptError(error.where, f"it is of type {error.type}, which JSON cannot hold") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise NotKeptError(where, f"JSON cannot hold it ({error})") from None


def packed(value: object, plain: object, raw: bytes, hint: object, where: str) -> dict[str, object]:
    """
    Return the snapshot of a value from what `encoded` made of it.

    `hint` is the type that it will be read as; `Any` for none. Raises `NotKeptError` for a value that would
    come back as something else.
    """
    if value is None or value is True or value is False or value.__class__ is str:
        return {"value": plain}
    # JSON makes null of what is not finite.
    floats = [[list(place), repr(number)] for place, number in _non_finite(plain)] if b"null" in raw else []
    snapshot: dict[str, object] = {"value": plain}
    if floats:
        snapshot["floats"] = floats
    if _comes_back(value, raw, snapshot, hint):
        return snapshot
    snapshot["types"] = [[list(place), tag] for place, tag in _types(value)]
    if _comes_back(value, raw, snapshot, Any):
        return snapshot
    raise NotKeptError(
        where,
        f"a value of type {type(value).__qualname__} would not come back as it is through {_said(hint)}",
    )


def unpacked(snapshot: object, hint: object) -> object:
    """Return the value of a snapshot; raises `ValueError` or `TypeError` for anything else."""
    if not isinstance(snapshot, Mapping) or "value" not in snapshot:
        raise ValueError("it is no snapshot of a value")
    try:
        value = _noted(snapshot["value"], snapshot.get("floats", ()), float)
        types = snapshot.get("types")
        if types is None:
            return _typed(value, hint)
        return _noted(value, types, _read)
    except (msgspec.ValidationError, LookupError) as error:
        raise ValueError(str(error)) from error


def _comes_back(value: object, raw: bytes, snapshot: dict[str, object], hint: object) -> bool:
    try:
        restored = unpacked({**snapshot, "value": msgspec.json.decode(raw)}, hint)
    except (ValueError, TypeError, NotImplementedError):
        return False
    # A defaultdict equals the dict that comes back, and is none.
    if isinstance(value, (dict, list)) and restored.__class__ is not value.__class__:
        return False
    return _same(restored, value)


def _typed(plain: object, hint: object) -> object:
    if hint is Any or hint is object:
        return plain
    kind = cast("type[object]", hint)
    try:
        return msgspec.convert(plain, kind, dec_hook=_hook, str_keys=True)
    except (TypeError, NotImplementedError):
        # A type that msgspec does not read: a union of models, of a path and text.
        from synapse_kernel.models import adapter_of

        return adapter_of(hint).validate_python(plain)


def _hook(kind: type, plain: object) -> object:
    validate = cast("Callable[[object], object] | None", getattr(kind, "model_validate", None))
    if validate is not None:
        return validate(plain)
    if kind is object:
        return plain
    origin = get_origin(kind) or kind
    if issubclass(origin, (PurePath, Counter, OrderedDict)):
        return cast("Callable[[object], object]", origin)(plain)
    raise NotImplementedError(f"{kind} cannot be read from JSON")


_MAKERS: dict[str, Callable[[Any], object]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "path": Path,
    "whole keys": lambda plain: {int(key): item for key, item in plain.items()},
}
_TEXTS = {each.__name__: each for each in (datetime, date, time, timedelta, bytes, Decimal, UUID)}


def _read(value: object, tag: str) -> object:
    make = _MAKERS.get(tag)
    return make(value) if make is not None else msgspec.convert(value, _TEXTS[tag])


def _types(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield where plain data says less than the value it was made of, inner parts before outer ones."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _types(item, (*place, str(key)))
        if value and all(key.__class__ is int for key in value):
            yield place, "whole keys"
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _types(item, (*place, index))
    name = "path" if isinstance(value, Path) else value.__class__.__name__
    if value.__class__ in {tuple, set, frozenset, *_TEXTS.values()} or name == "path":
        yield place, name


def _non_finite(plain: object, place: Place = ()) -> Iterator[tuple[Place, float]]:
    if isinstance(plain, float):
        if not isfinite(plain):
            yield place, plain
    elif isinstance(plain, dict):
        for key, item in plain.items():
            yield from _non_finite(item, (*place, key))
    elif isinstance(plain, (list, tuple)):
        for index, item in enumerate(plain):
            yield from _non_finite(item, (*place, index))


def _noted(plain: object, notes: object, read: Callable[..., object]) -> object:
    """Replace what notes point at by what is read of it."""
    root = [plain]
    for place, note in cast("list[tuple[list[str | int], str]]", notes):
        at: Any = root
        step: Any = 0
        for further in place:
            at, step = at[step], further
        at[step] = float(note) if read is float else read(at[step], note)
    return root[0]


def _same(a: object, b: object) -> bool:
    """Tell whether two values are alike, also where they hold NaN or classes that compare by identity."""
    if _equal(a, b):
        return True
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, float):
        return a != a and b != b  # noqa: PLR0124 - NaN
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(item, b[key]) for key, item in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if dataclasses.is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    names = getattr(a, "__struct_fields__", None) or getattr(type(a), "model_fields", None)
    return bool(names) and all(_same(getattr(a, name), getattr(b, name)) for name in names or ())


def _equal(a: object, b: object) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - whatever an author's __eq__ does: then their parts decide
        return False


def _said(hint: object) -> str:
    return "JSON" if hint is Any else f"its annotation {getattr(hint, '__name__', None) or hint}"
