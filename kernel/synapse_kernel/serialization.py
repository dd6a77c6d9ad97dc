"""JSON at the boundaries: what an action returned or was given, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from synapse_kernel.errors import SynapseError, UsageError

if TYPE_CHECKING:
    from synapse_kernel.contracts import Outcome

S = TypeVar("S", bound=msgspec.Struct)


class NotJsonError(SynapseError):
    """A value that JSON cannot hold stands where data leaves the process; `where` and `type` say which."""

    exit_code = 1

    def __init__(self, where: str, kind: str) -> None:
        self.where = where
        self.type = kind
        super().__init__(
            f"The result is not JSON: {where} is of type {kind}\n"
            "  return numbers, text, lists, mappings or a pydantic model; write the rest to a file in\n"
            "  ctx.work_dir and return its path, or run with the executor 'local', where any object may pass"
        )


def encode_struct(value: msgspec.Struct) -> bytes:
    """
    Encode a task, an outcome or the like for another process, in one line.

    By Python's own JSON, which knows the NaN and the infinities that params and results may hold.
    """
    return json.dumps(msgspec.to_builtins(value)).encode()


def decode_struct(data: bytes, kind: type[S]) -> S:
    """Read what `encode_struct` wrote; raises `ValueError` for anything else."""
    return msgspec.convert(json.loads(data), kind)


def portable_outcome(outcome: Outcome) -> Outcome:
    """Return an outcome as plain data: it fails where its result is not JSON."""
    if outcome.result is None:
        return outcome
    try:
        return msgspec.structs.replace(outcome, result=to_plain(outcome.result))
    except NotJsonError as error:
        from synapse_kernel.worker import describe_error

        return msgspec.structs.replace(
            outcome, status="failed", result=None, error=describe_error(error, "result")
        )


# How deep a value is looked into for display.
_DEEPEST = 100


def _hook(value: object, *, round_trip: bool = True) -> object:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        # By alias, as the JSON Schema describes the model; what is computed is left out to be read back.
        return dump(mode="json", by_alias=True, round_trip=round_trip)
    if hasattr(value, "__fspath__"):
        return str(value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise NotImplementedError


_display_hook = functools.partial(_hook, round_trip=False)


def to_plain(value: object, *, name: str = "it") -> object:
    """
    Return a value as plain data: None, bool, int, float, str, list or tuple, and dict with text keys.

    Models, dataclasses, paths, dates and numpy scalars convert. Anything else raises `NotJsonError`, which
    names the place in the value, whose root is called `name`.
    """
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_hook)
    except RecursionError:
        raise NotJsonError(name, f"{type(value).__name__}, nested too deeply or in itself") from None
    except (TypeError, NotImplementedError, ValueError):
        where, kind = _culprit(value, name)
        raise NotJsonError(where, kind) from None


def to_jsonable(value: object) -> object:
    """Return a value as JSON-like data for display; what JSON cannot hold becomes text, item by item."""

    def hook(item: object) -> object:
        try:
            return _display_hook(item)
        except NotImplementedError:
            return repr(item)

    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=hook)
        msgspec.json.encode(plain)
    except (TypeError, ValueError, RecursionError):
        return _piecemeal(value, ())
    return plain


def _piecemeal(value: object, around: tuple[int, ...]) -> object:
    if id(value) in around or len(around) > _DEEPEST:
        return "…"
    inside = (*around, id(value))
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(_piecemeal(key, inside)): _piecemeal(item, inside) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_piecemeal(item, inside) for item in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_display_hook)
        msgspec.json.encode(plain)
    except (TypeError, NotImplementedError, ValueError, RecursionError):
        return repr(value).encode(errors="backslashreplace").decode()
    return plain


def _culprit(value: object, where: str) -> tuple[str, str]:
    """Find the first part of a value that does not convert."""
    if isinstance(value, Mapping):
        items = [(f"{where}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = [(f"{where}[{index}]", item) for index, item in enumerate(value)]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(f"{where}.{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
    else:
        return where, type(value).__qualname__
    for place, item in items:
        try:
            msgspec.to_builtins(item, str_keys=True, enc_hook=_hook)
        except (TypeError, NotImplementedError, ValueError):
            return _culprit(item, place)
    return where, type(value).__qualname__


def params_to_plain(value: object, *, name: str = "params") -> dict[str, object]:
    """
    Return params as plain data to send to a worker, secrets included.

    Takes a mapping or a pydantic model. `SecretStr` fields are revealed: params travel, they are not shown.
    """
    fields = value if isinstance(value, Mapping) else _fields_of(value)
    try:
        return cast("dict[str, object]", to_plain(_reveal(fields), name=name))
    except NotJsonError as error:
        verb = "are" if name.endswith("s") else "is"
        raise UsageError(
            f"The {name} {verb} not JSON: {error.where} is of type {error.type}\n"
            "  another process takes numbers, text, lists, mappings and models; "
            "or run it with the executor 'local'"
        ) from None


def _fields_of(value: object) -> Mapping[str, object]:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return cast("Mapping[str, object]", dump(by_alias=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"params must be a mapping or a model, not {type(value).__name__}")


def _reveal(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _reveal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_reveal(item) for item in value]
    reveal = getattr(value, "get_secret_value", None)
    if callable(reveal):
        return reveal()
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return _reveal(_fields_of(value))
    return value
