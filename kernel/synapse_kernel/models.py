"""
What the types of params and results say: their fields, schemas, and whether a value fits.

They are pydantic models, dataclasses, typed dicts, or any type that pydantic can check. Pydantic is imported
only when one is read.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def check_type(wanted: object, value: object) -> object:
    """Check a value against a type and coerce it; raises pydantic's `ValidationError`."""
    validate = getattr(wanted, "model_validate", None)
    if validate is None:
        return adapter(wanted).validate_python(value)
    if isinstance(wanted, type) and not isinstance(value, (wanted, Mapping)):
        # A model of another class with the same fields (the folder was read again) counts by its fields.
        dump = getattr(value, "model_dump", None)
        value = dump() if callable(dump) else value
    return validate(value)


def schema_of(wanted: object) -> dict[str, object]:
    """Return the JSON Schema (2020-12) of a params or result type; an empty schema where there is none."""
    if wanted is None:
        return {}
    make = getattr(wanted, "model_json_schema", None)
    schema = make() if make is not None else adapter(wanted).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@functools.lru_cache(maxsize=256)
def adapter(wanted: object) -> TypeAdapter[object]:
    """Return pydantic's adapter of a type; kept, for making one builds a validator."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    kind = cast("type[object]", wanted)
    try:
        return TypeAdapter(kind)
    except PydanticSchemaGenerationError:
        # A class that pydantic knows nothing of is checked by isinstance.
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))


class Field:
    """What this module reads of pydantic's `FieldInfo`."""

    alias: str | None
    annotation: object
    metadata: list[object]
    validation_alias: object


def fields_of(wanted: object) -> Mapping[str, Field]:
    """Return the fields of a model, dataclass or typed dict by name; none for any other type."""
    fields = getattr(wanted, "model_fields", None)
    if isinstance(fields, dict):
        return fields
    if isinstance(wanted, type) and (dataclasses.is_dataclass(wanted) or is_typeddict(wanted)):
        return _plain_fields(wanted)
    return {}


@functools.lru_cache(maxsize=256)
def _plain_fields(wanted: type) -> dict[str, Field]:
    """Return the fields of a dataclass or a typed dict as pydantic describes those of its models."""
    from pydantic.fields import FieldInfo

    hints = get_type_hints(wanted)
    if dataclasses.is_dataclass(wanted):
        hints = {field.name: hints[field.name] for field in dataclasses.fields(wanted) if field.init}
    return {name: cast("Field", FieldInfo.from_annotation(hint)) for name, hint in hints.items()}


@functools.lru_cache(maxsize=256)
def fields_by_key(wanted: object) -> dict[str, Field]:
    """Return the fields by the keys under which values for them are taken: an alias hides the name."""
    config = getattr(wanted, "model_config", {})
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return {
        key: field
        for name, field in fields_of(wanted).items()
        for key in (*_aliases(field), *((name,) if by_name or not field.validation_alias else ()))
    }


def fields_by_any_key(wanted: object) -> dict[str, Field]:
    """Return the fields by their names and all aliases."""
    return {key: field for name, field in fields_of(wanted).items() for key in (name, *_aliases(field))}


def _aliases(field: Field) -> Iterator[str]:
    alias = field.validation_alias
    for choice in getattr(alias, "choices", None) or (alias,):
        first = choice if isinstance(choice, str) else next(iter(getattr(choice, "path", ())), None)
        if isinstance(first, str):
            yield first


def adapter_of(annotation: object) -> TypeAdapter[object]:
    """Return the adapter of a field's annotation, which may carry metadata that does not hash."""
    try:
        return adapter(annotation)
    except TypeError:  # metadata that does not hash
        from pydantic import TypeAdapter

        return TypeAdapter(cast("type[object]", annotation))


def model_in(annotation: object) -> type | None:
    """Return the model in ``Model``, ``Model | None`` or ``list[Model]``."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and fields_of(candidate):
            return candidate
    return None


def default_of(field: Field) -> object:
    """Return what a field is when it is not given; None where that cannot be told without the others."""
    make = getattr(field, "get_default", None)
    try:
        return make(call_default_factory=True) if make is not None else None
    except Exception:  # noqa: BLE001 - a factory that fails is told when the model is built
        return None


@functools.lru_cache(maxsize=256)
def inner_models(wanted: object) -> dict[str, type]:
    """Return the models that stand in a model's fields, by key; not those that are a mapping's values."""
    return {
        key: model
        for key, field in fields_by_key(wanted).items()
        if get_origin(field.annotation) is not dict and (model := model_in(field.annotation)) is not None
    }


def types_in(annotation: object) -> Iterator[object]:
    """Yield a type and the types it is made of: those of a union, the items of a container."""
    yield annotation
    for inside in get_args(annotation):
        yield from types_in(inside)


def is_secret_type(kind: object) -> bool:
    """Tell whether a type is one of pydantic's secrets."""
    name = getattr(kind, "__name__", "")
    return name.startswith("Secret") and getattr(kind, "__module__", "").startswith("pydantic")
