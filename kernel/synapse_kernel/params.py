"""
Params: merged from their sources, typed by the action's model, all mistakes told in one error.

The sources are layers, the later wins: the model's defaults, the plugin's config, a params file, the
command line. Mappings merge key by key. Pydantic does the checking and is imported only for an action that
names a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.errors import ParamsError, Problem, listing, suggest
from synapse_kernel.models import (
    Field,
    adapter,
    adapter_of,
    default_of,
    fields_by_any_key,
    fields_by_key,
    inner_models,
    is_secret_type,
    model_in,
    types_in,
)
from synapse_kernel.redaction import MASK, is_secret_name, redact

if TYPE_CHECKING:
    from pydantic import ValidationError

    from synapse_kernel.actions import ActionCode


class Text(msgspec.Struct, frozen=True):
    """A value typed on the command line: the texts given for one key, not yet typed."""

    texts: tuple[str, ...]


class Layer(msgspec.Struct, frozen=True):
    """Params from one source; `origin` names it in messages."""

    values: Mapping[str, object]
    origin: str


class Merged(msgspec.Struct, frozen=True):
    """Params from all layers, and which of them each leaf came from, by dotted path."""

    values: dict[str, object]
    origins: dict[str, str]


def merge(layers: Sequence[Layer], code: ActionCode | None = None) -> Merged:
    """Merge layers, the later wins; texts of the command line get the type that the model wants."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _merge_into(values, layer.values, layer.origin, origins, "")
    wanted = code.params_type if code else None
    if any(isinstance(value, Text) for value in _leaves(values)):
        values = _typed(values, wanted)
    return Merged(_over_defaults(values, wanted), origins)


def build_params(code: ActionCode, values: Mapping[str, object]) -> object:
    """
    Build an action's params from plain values; raises pydantic's `ValidationError`.

    A mapping is returned as a dict where the action names no model.
    """
    wanted = code.params_type
    if wanted is None:
        return dict(values)
    validate = getattr(wanted, "model_validate", None)
    return validate(values) if validate is not None else adapter(wanted).validate_python(values)


def check_params(
    code: ActionCode, values: Mapping[str, object], origins: Mapping[str, str], *, target: str = ""
) -> object:
    """Build an action's params; raises `ParamsError` with every mistake and where each came from."""
    if code.params_type is None:
        return dict(values)
    unknown = list(_unknown(values, code.params_type, ""))
    try:
        built = build_params(code, values)
    except Exception as error:
        if not hasattr(error, "errors"):
            raise ParamsError(
                f"The params of {code.name!r} cannot be checked:",
                [Problem("", f"its model raised {type(error).__name__}: {error}")],
            ) from error
        problems = list(_explain(cast("ValidationError", error), code.params_type, origins))
    else:
        if not unknown:
            return built
        problems = []
    problems += [Problem(where, text, _origin(where, origins)) for where, text in unknown]
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    hint = f"see what it takes with: synapse-kernel describe {target} {code.name}" if target else None
    raise ParamsError(f"The params of {code.name!r} are not valid ({count}):", problems, hint=hint)


def explain(error: Exception) -> str:
    """Say a pydantic error in one line per mistake."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    return "; ".join(f"{_path(e['loc']) or 'it'}: {_sentence(e)}" for e in errors())


def shown(code: ActionCode, values: Mapping[str, object]) -> dict[str, object]:
    """Return params for display: secrets masked, by name and by type."""
    return cast("dict[str, object]", redact(_hidden(values, code.params_type, "", [])))


def secret_values(code: ActionCode, values: Mapping[str, object]) -> list[str]:
    """Return the texts among the params that are secret, by name or by type."""
    found: list[str] = []
    _hidden(values, code.params_type, "", found)
    return found


def _hidden(value: object, annotation: object, name: str, found: list[str]) -> object:
    """Copy a value of the params with what is secret masked; its texts go to `found`."""
    types = tuple(types_in(annotation))
    if any(is_secret_type(kind) for kind in types):
        found.extend(texts_in(value))
        return MASK
    if is_secret_name(name):
        found.extend(texts_in(value))
        return redact(value, name=name)
    if isinstance(value, Mapping):
        known = {key: field.annotation for kind in types for key, field in fields_by_any_key(kind).items()}
        # A key that is no field of a model here may be one of a mapping's: its value may hold the model.
        return {
            key: _hidden(item, known.get(key, annotation), str(key), found) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_hidden(item, annotation, "", found) for item in value]
    if is_secret_type(type(value)):
        found.extend(texts_in(value))
        return MASK
    return value


def _is_secret_place(loc: Sequence[object], wanted: object) -> bool:
    """Tell whether what stands at a place in the params is secret, by the names or the types on the way."""
    annotation = wanted
    for part in loc:
        known = {
            key: f.annotation for kind in types_in(annotation) for key, f in fields_by_any_key(kind).items()
        }
        annotation = known.get(str(part), annotation)
        if is_secret_name(str(part)) or any(is_secret_type(kind) for kind in types_in(annotation)):
            return True
    return False


def texts_in(value: object) -> Iterator[str]:
    """Yield the texts in a value, those of its secrets among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item)
    elif is_secret_type(type(value)):
        yield str(value.get_secret_value())  # type: ignore[attr-defined]


def _merge_into(
    into: dict[str, object], values: Mapping[str, object], origin: str, origins: dict[str, str], where: str
) -> None:
    for key, value in values.items():
        place = f"{where}.{key}" if where else str(key)
        present = into.get(key)
        if isinstance(value, Mapping):
            inner = dict(present) if isinstance(present, Mapping) else {}
            into[key] = inner
            _merge_into(inner, value, origin, origins, place)
            if not value:
                origins[place] = origin
            continue
        into[key] = value
        origins[place] = origin


def _over_defaults(values: dict[str, object], wanted: object) -> dict[str, object]:
    """Lay a mapping that is given for an inner model over the model that stands there by default."""
    for key in inner_models(wanted) if wanted is not None else ():
        given = values.get(key)
        if not isinstance(given, Mapping):
            continue
        default = default_of(fields_by_key(wanted)[key])
        dump = getattr(default, "model_dump", None)
        if callable(dump):
            # What the inner model's own class says by itself need not be repeated.
            merged = dict(dump(by_alias=True, exclude_defaults=True))
            _merge_into(merged, given, "", {}, "")
            values[key] = merged
    return values


def _leaves(values: Mapping[str, object]) -> Iterator[object]:
    for value in values.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _typed(values: Mapping[str, object], wanted: object) -> dict[str, object]:
    """Replace each `Text` by the reading of it that its field accepts."""
    by_key = fields_by_any_key(wanted)
    typed: dict[str, object] = {}
    for key, value in values.items():
        field = by_key.get(key)
        if isinstance(value, Text):
            typed[key] = _read(value, field)
        elif isinstance(value, Mapping):
            typed[key] = _typed(value, model_in(field.annotation) if field else None)
        else:
            typed[key] = value
    return typed


def _read(text: Text, field: Field | None) -> object:
    """
    Read typed text: as JSON where the field takes that, else as it stands.

    So ``5`` is a number for an int field and a word for a str field. Text for a list field may be one item.
    """
    readings = [_json_or_text(t) for t in text.texts]
    candidates: list[object] = [readings, list(text.texts)]
    if text.texts == ("",):
        candidates = ["", None, []]
    elif len(text.texts) == 1:
        # A null for a list is a mistake to tell, not the list of one null.
        candidates = [readings[0], text.texts[0], *(candidates if readings[0] is not None else ())]
    if field is not None:
        from typing import Annotated

        metadata = tuple(field.metadata)
        annotation = Annotated[field.annotation, *metadata] if metadata else field.annotation
        adapter = adapter_of(annotation)
        for candidate in candidates:
            try:
                adapter.validate_python(candidate)
            except ValueError:
                continue
            return candidate
    return candidates[0]


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _unknown(values: Mapping[str, object], wanted: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield the keys that a model would pass over in silence, with the nearest it knows."""
    by_key = fields_by_key(wanted)
    if not by_key and not hasattr(wanted, "model_fields"):
        return
    # extra="forbid" is told by pydantic, "allow" and an outspoken "ignore" are the author's will.
    if getattr(wanted, "model_config", {}).get("extra") is None:
        for key in values:
            if key in by_key:
                continue
            place = f"{where}.{key}" if where else key
            yield place, f"unknown{suggest(key, by_key) or f'; known: {listing(by_key)}'}"
    for key, model in inner_models(wanted).items():
        value = values.get(key)
        place = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            yield from _unknown(value, model, place)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _unknown(item, model, f"{place}[{index}]")


def _explain(error: ValidationError, wanted: object, origins: Mapping[str, str]) -> Iterator[Problem]:
    fields = fields_by_key(wanted)
    for entry in error.errors():
        where = _path(entry["loc"])
        if entry["type"] == "missing":
            field = fields.get(str(entry["loc"][-1])) if len(entry["loc"]) == 1 else None
            kind = f", {_annotation(field.annotation)}" if field else ""
            yield Problem(where, f"missing (required{kind})", None)
        elif entry["type"] == "extra_forbidden":
            known = fields if len(entry["loc"]) == 1 else {}
            yield Problem(where, f"unknown{suggest(str(entry['loc'][-1]), known)}", _origin(where, origins))
        else:
            yield Problem(where, _sentence(entry, wanted), _origin(where, origins))


def _sentence(entry: Mapping[str, object], wanted: object = None) -> str:
    text = str(entry["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = text[0].lower() + text[1:]
    given = entry.get("input")
    loc = cast("tuple[object, ...]", entry["loc"])
    if entry["type"] == "missing" or isinstance(given, Mapping) or _is_secret_place(loc, wanted):
        return text
    shown_value = repr(given)
    return f"{text}, got {shown_value}" if len(shown_value) <= 60 else text


def _annotation(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _path(loc: Sequence[object]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else str(part)
    return path


def _origin(where: str, origins: Mapping[str, str]) -> str | None:
    """Return where a value came from: its own origin, or that of the nearest value around it."""
    place = where
    while place:
        found = origins.get(place)
        if found is not None:
            return found
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    inside = [origin for path, origin in origins.items() if path.startswith(f"{where}.")]
    return inside[-1] if inside else None
