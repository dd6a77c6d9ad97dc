"""
References: how a value in a pipeline names the result of a node, a param, or something of the run.

``${convert.path}`` alone keeps the type of what it names; inside other text it is written as text.
``${augment.path:-none}`` has a default for where there is nothing. ``$${`` is the two characters ``${``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from synapse_kernel.errors import SynapseError, listing, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY: Final = "*"
"""The part of a path that stands for each item of a list, written ``[*]``."""

SPECIAL: Final = ("params", "run", "item", "index")
"""Roots that are no nodes, and so names that a node cannot have."""

RUN_FIELDS: Final = ("id", "folder", "datasets", "models", "artifacts", "logs", "checkpoints")
"""What ``${run.…}`` offers."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_INDEX = re.compile(r"\[\s*(?:(-?\d+)|(\*)|'([^']*)'|\"([^\"]*)\")\s*\]")


class Key(msgspec.Struct, frozen=True):
    """A part of a path that names a field or a key."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}" if _NAME.fullmatch(self.name) else f"[{self.name!r}]"


class Reference(msgspec.Struct, frozen=True):
    """
    One ``${…}``: its root, the path from there, and the default.

    A part of the path is a `Key`, an index, or `EVERY`.
    """

    text: str
    """As it was written, braces included."""
    root: str
    path: tuple[Key | int | str, ...] = ()
    has_default: bool = False
    default: object = None

    @property
    def node(self) -> str | None:
        """The node whose result it names, if it names one."""
        return None if self.root in SPECIAL else self.root

    @property
    def plain(self) -> str:
        """The reference without its default, as ``convert.path``."""
        return self.root + path_text(self.path)


class ReferenceSyntaxError(SynapseError):
    """A ``${…}`` that cannot be read."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        super().__init__(f"{text}: {reason}")


class ReferenceLookupError(SynapseError):
    """A reference to something that is not there; `reference` says which."""

    exit_code = 1

    def __init__(self, reference: Reference, reason: str) -> None:
        self.reference = reference
        super().__init__(f"{reference.text}: {reason}")


def path_text(path: Sequence[Key | int | str]) -> str:
    """Return a path as it is written after its root."""
    return "".join(str(part) if isinstance(part, Key) else f"[{part}]" for part in path)


def references_in(value: object) -> list[Reference]:
    """
    Return the references in a value, in order, those nested in its lists and mappings too.

    Raises `ReferenceSyntaxError` for the first that cannot be read.
    """
    return list(_references(value))


def has_references(value: object) -> bool:
    """Tell whether there is any reference in a value."""
    return next(_references(value), None) is not None


def lone_reference(value: object) -> Reference | None:
    """Return the reference that a text consists of, or None if it is anything else."""
    if not isinstance(value, str) or "${" not in value:
        return None
    parts = template(value)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Reference) else None


def resolve(value: object, scope: Mapping[str, object]) -> object:
    """
    Return a value with its references replaced by what they name in a scope.

    The scope maps node names to results (a skipped or failed node is not in it) and the `SPECIAL` roots to
    theirs. Lists and mappings are copied, the rest is passed as it is. Raises `ReferenceLookupError`, and
    `ReferenceSyntaxError`.
    """
    if isinstance(value, str):
        return _resolved_text(value, scope) if "${" in value else value
    if isinstance(value, Mapping):
        return {key: resolve(item, scope) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(item, scope) for item in value]
    return value


def look_up(reference: Reference, scope: Mapping[str, object]) -> object:
    """Return what one reference names in a scope, or its default; raises `ReferenceLookupError`."""
    try:
        return _looked_up(reference, scope)
    except ReferenceLookupError:
        if reference.has_default:
            return reference.default
        raise


@functools.lru_cache(maxsize=100_000)
def template(text: str) -> tuple[str | Reference, ...]:
    """Return a text as its plain parts and its references; raises `ReferenceSyntaxError`."""
    parts: list[str | Reference] = []
    plain = ""
    at = 0
    while True:
        start = text.find("${", at)
        if start < 0:
            break
        if start > at and text[start - 1] == "$":
            plain += f"{text[at : start - 1]}${{"
            at = start + 2
            continue
        plain += text[at:start]
        end = _closing(text, start)
        if plain:
            parts.append(plain)
            plain = ""
        parts.append(_parsed(text[start:end]))
        at = end
    plain += text[at:]
    if plain or not parts:
        parts.append(plain)
    return tuple(parts)


def as_text(value: object) -> str:
    """Return a value as it stands inside text: text as it is, the rest as JSON."""
    if isinstance(value, str):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    from synapse_kernel.serialization import to_jsonable

    plain = to_jsonable(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _references(value: object) -> Iterator[Reference]:
    if isinstance(value, str):
        if "${" in value:
            yield from (part for part in template(value) if isinstance(part, Reference))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _references(item)


def _resolved_text(text: str, scope: Mapping[str, object]) -> object:
    parts = template(text)
    if len(parts) == 1:
        only = parts[0]
        return only if isinstance(only, str) else look_up(only, scope)
    return "".join(part if isinstance(part, str) else as_text(look_up(part, scope)) for part in parts)


def _closing(text: str, start: int) -> int:
    """Return the place behind the brace that closes a reference; its default may hold braces and quotes."""
    depth = 0
    quote = ""
    for at in range(start + 1, len(text)):
        character = text[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and text[at - 1] in "[{:-, ":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return at + 1
    raise ReferenceSyntaxError(text[start:], "the closing } is missing; write $${ for a literal ${")


def _parsed(text: str) -> Reference:
    inside, marker, default = text[2:-1].partition(":-")
    inside = inside.strip()
    found = _NAME.match(inside)
    if found is None:
        raise ReferenceSyntaxError(
            text, "a reference is a node, params, run, item or index, and a path such as ${convert.path}"
        )
    path: list[Key | int | str] = []
    at = found.end()
    while at < len(inside):
        part, at = _part(text, inside, at)
        path.append(part)
    return Reference(
        text=text,
        root=found.group(),
        path=tuple(path),
        has_default=bool(marker),
        default=_default(text, default) if marker else None,
    )


def _part(text: str, inside: str, at: int) -> tuple[Key | int | str, int]:
    """Return the next part of a path and where it ends."""
    if inside[at] == ".":
        name = _NAME.match(inside, at + 1)
        if name is not None:
            return Key(name.group()), name.end()
    index = _INDEX.match(inside, at)
    if index is None:
        raise ReferenceSyntaxError(
            text, f"{inside[at:]!r} is no path; write .name, [0], [*] or ['any key'], and :- before a default"
        )
    number, every, single, double = index.groups()
    if number is not None:
        return int(number), index.end()
    return EVERY if every else Key(single if single is not None else double), index.end()


def _default(text: str, written: str) -> object:
    """Read a default as YAML, so that ``1`` is a number; an empty one is the empty text."""
    if not written.strip():
        return ""
    import yaml

    try:
        return yaml.safe_load(written)
    except yaml.YAMLError:
        raise ReferenceSyntaxError(text, f"the default {written!r} is not YAML; put it in quotes") from None


def _looked_up(reference: Reference, scope: Mapping[str, object]) -> object:
    try:
        value = scope[reference.root]
    except KeyError:
        raise ReferenceLookupError(reference, _no_root(reference, scope)) from None
    return _walk(value, reference.path, 0, reference)


def _no_root(reference: Reference, scope: Mapping[str, object]) -> str:
    if reference.root in {"item", "index"}:
        return f"{reference.root} is there only in a node with foreach"
    near = suggest(reference.root, scope)
    if near:
        return f"there is no result of {reference.root!r}{near}"
    return (
        f"there is no result of {reference.root!r}: it was skipped, or it failed\n"
        f"  give a default for that case: ${{{reference.plain}:-VALUE}}"
    )


def _walk(value: object, path: tuple[Key | int | str, ...], at: int, reference: Reference) -> object:
    while at < len(path):
        part = path[at]
        at += 1
        if isinstance(part, Key):
            value = _field(value, part.name, path[: at - 1], reference)
        elif isinstance(part, int):
            value = _item(value, part, path[: at - 1], reference)
        else:
            items = _list(value, path[: at - 1], reference)
            return [_walk(item, path, at, reference) for item in items]
    return value


def _field(value: object, name: str, before: tuple[Key | int | str, ...], reference: Reference) -> object:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
    elif not isinstance(value, (str, bytes, list, tuple, int, float)) and not name.startswith("__"):
        try:
            return getattr(value, name)
        except AttributeError:
            alias = _field_of_alias(value, name)
            if alias is not None:
                return getattr(value, alias)
    where = reference.root + path_text(before)
    if isinstance(value, (list, tuple)):
        shown = f"${{{where}[*]{Key(name)}}}"
        raise ReferenceLookupError(reference, f"{where} is a list; for the {name!r} of each write {shown}")
    known = _names(value)
    if known is None:
        raise ReferenceLookupError(reference, f"{where} is {_kind(value)}, which has no field {name!r}")
    raise ReferenceLookupError(
        reference, f"{where} has no {name!r}{suggest(name, known)}\n  there is: {listing(known)}"
    )


def _field_of_alias(value: object, alias: str) -> str | None:
    fields = getattr(type(value), "model_fields", None)
    if not isinstance(fields, Mapping):
        return None
    return next(
        (name for name, field in fields.items() if alias in {field.alias, field.serialization_alias}), None
    )


def _item(value: object, index: int, before: tuple[Key | int | str, ...], reference: Reference) -> object:
    items = _list(value, before, reference)
    try:
        return items[index]
    except IndexError:
        where = reference.root + path_text(before)
        count = "1 item" if len(items) == 1 else f"{len(items)} items"
        raise ReferenceLookupError(
            reference, f"{where} has {count if items else 'no items'}, not one at {index}"
        ) from None


def _list(value: object, before: tuple[Key | int | str, ...], reference: Reference) -> Sequence[object]:
    if isinstance(value, (list, tuple)):
        return value
    where = reference.root + path_text(before)
    raise ReferenceLookupError(reference, f"{where} is {_kind(value)}, not a list")


def _names(value: object) -> list[str] | None:
    """Return the names of a value's fields, or None for one that has none by nature."""
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    fields = getattr(type(value), "model_fields", None)
    if isinstance(fields, Mapping):
        return [str(name) for name in fields]
    if is_dataclass(value):
        return list(value.__dataclass_fields__)
    own = getattr(value, "__dict__", None)
    return [name for name in own if not name.startswith("_")] if own else None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"
