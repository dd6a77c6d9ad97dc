"""
JSON Schema: the dialect `json`, and the reading of a schema that other dialects build on.

What is read is what pydantic writes: ``$defs`` and ``$ref``, ``anyOf`` and ``oneOf`` for unions, ``allOf``
around one reference, ``const`` and ``enum``, and a list of types as other tools write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import unquote

import msgspec

_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list, tuple),
    "object": (dict,),
}


def to_json_schema(schema: Mapping[str, object]) -> dict[str, object]:
    """Return the JSON Schema as it is."""
    return dict(schema)


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """One schema inside a document, its references followed."""

    keywords: Mapping[str, object]
    document: Mapping[str, object]
    definition: str | None = None
    """The name under ``$defs`` that a reference led to."""
    refs: frozenset[str] = frozenset()
    """The references that were followed to get here, from the document's root."""
    repeats: bool = False
    """True where following the reference would lead in a circle; it was not followed then."""

    @staticmethod
    def of(document: Mapping[str, object]) -> Schema:
        """Read a whole document."""
        return Schema(keywords={}, document=document).read(document)

    @property
    def type(self) -> object:
        """The JSON type, or None where the schema does not say one."""
        return self.keywords.get("type")

    @property
    def properties(self) -> Mapping[str, object]:
        """The schemas of an object's properties, by name."""
        return cast("Mapping[str, object]", self.keywords.get("properties", {}))

    @property
    def required(self) -> frozenset[str]:
        """The names of the properties that must be there."""
        return frozenset(cast("list[str]", self.keywords.get("required", ())))

    @property
    def values(self) -> list[object] | None:
        """All values that are allowed, where they are few enough to list; None otherwise."""
        if "const" in self.keywords:
            return [self.keywords["const"]]
        enum = self.keywords.get("enum")
        if isinstance(enum, list):
            return list(enum)
        if self.type == "null":
            return [None]
        return [True, False] if self.type == "boolean" else None

    def read(self, keywords: object) -> Schema:
        """
        Read a schema that is written inside this one.

        Keywords beside a ``$ref`` win over those it leads to. The title of a definition is its class's
        name, not what its field is called, so it is left out.
        """
        merged: dict[str, object] = {}
        refs, definition = self.refs, None
        pending = [keywords]
        while pending:
            part = pending.pop(0)
            if not isinstance(part, Mapping):
                continue
            for key, value in part.items():
                if key == "formkit" and isinstance(value, Mapping):
                    merged[key] = {**value, **cast("dict[str, object]", merged.get(key, {}))}
                elif key not in ("$ref", "allOf") and not (key == "title" and definition):
                    merged.setdefault(key, value)
            pending.extend(part.get("allOf", ()))
            ref = part.get("$ref")
            if isinstance(ref, str):
                definition = unquote(ref.rpartition("/")[2])
                if ref in refs:
                    return self._made(merged, definition, refs, repeats=True)
                refs |= {ref}
                pending.append(self._target(ref))
        return self._made(merged, definition, refs)

    def variants(self) -> list[Schema]:
        """Return what a union allows, nested unions flattened; the schema itself where it is no union."""
        parts = self.keywords.get("anyOf") or self.keywords.get("oneOf")
        if isinstance(parts, list):
            return [variant for part in parts for variant in self.read(part).variants()]
        if isinstance(self.type, list):
            return [msgspec.structs.replace(self, keywords={**self.keywords, "type": t}) for t in self.type]
        return [self]

    def under(self, outer: Schema) -> Schema:
        """Return this variant with the keywords of the union around it, which win."""
        around = {k: v for k, v in outer.keywords.items() if k not in ("anyOf", "oneOf", "type")}
        hints = {**_mapping(self.keywords.get("formkit")), **_mapping(around.get("formkit"))}
        keywords = {**self.keywords, **around} | ({"formkit": hints} if hints else {})
        return msgspec.structs.replace(self, keywords=keywords)

    def accepts(self, value: object) -> bool:
        """Tell whether a value is of this schema's kind: enough to choose among the variants of a union."""
        if self.values is not None:
            return any(type(known) is type(value) and known == value for known in self.values)
        if isinstance(value, bool) and self.type in ("integer", "number"):
            return False
        if isinstance(self.type, str) and not isinstance(value, _TYPES.get(self.type, ())):
            return False
        if not isinstance(value, Mapping):
            return True
        constants = ((name, self.read(part).keywords) for name, part in self.properties.items())
        return self.required <= value.keys() and all(
            value[name] == keywords["const"]
            for name, keywords in constants
            if "const" in keywords and name in value
        )

    def _made(
        self,
        keywords: dict[str, object],
        definition: str | None,
        refs: frozenset[str],
        *,
        repeats: bool = False,
    ) -> Schema:
        return Schema(
            keywords=keywords, document=self.document, definition=definition, refs=refs, repeats=repeats
        )

    def _target(self, ref: str) -> object:
        """Return what a reference within the document leads to; an empty schema where it leads nowhere."""
        found: object = self.document
        for part in _pointer(ref):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _pointer(ref: str) -> Iterator[str]:
    for part in ref.removeprefix("#").split("/")[1:]:
        yield unquote(part).replace("~1", "/").replace("~0", "~")
