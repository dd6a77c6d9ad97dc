"""FormKit's single inputs: what each takes from a field's schema, and what they all have in common."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

import msgspec
from msgspec import UNSET

from synapse_plugins.ui_schema.json_schema import Schema
from synapse_plugins.ui_schema.number_bounds import number_bounds

Node: TypeAlias = dict[str, object]
Rule: TypeAlias = list[object]

LONG_TEXT = 200
"""Texts that may be longer than this, or need a longer description, get a textarea."""
JSON_MARK = "data-format"
"""The attribute of a textarea whose text is JSON."""

_INPUTS = {
    "date": "date",
    "date-time": "datetime-local",
    "time": "time",
    "email": "email",
    "uri": "url",
    "password": "password",
}
_PLACEHOLDERS = {
    "path": "path/to/file or folder",
    "file-path": "path/to/file",
    "directory-path": "path/to/folder",
    "duration": "P1DT2H30M",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_TYPE_NAMES = {
    "null": "none",
    "boolean": "yes or no",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "list",
    "object": "object",
}
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)
_INLINE_FLAGS = re.compile(r"\(\?[a-zA-Z]*(-[a-zA-Z]+)?[:)]")


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a form: what its schema and its place say before any input is chosen."""

    name: str
    schema: Schema
    label: str
    """The label; an expression where it starts with ``$:``."""
    help: str = ""
    required: bool = False
    default: object = UNSET
    place: str = ""
    """Its way from the form's root, which no other field has."""
    depth: int = 0
    """In how many dynamic lists it is."""
    index: str | None = None
    """The expression for its index, directly inside a list."""


def new_field(
    schema: Schema,
    name: str,
    *,
    place: str,
    label: str | None = None,
    required: bool = False,
    default: object = UNSET,
    depth: int = 0,
    index: str | None = None,
) -> Field:
    """Return a field; what is not given comes from its schema, and the label at last from its name."""
    keywords = schema.keywords
    return Field(
        name=name,
        schema=schema,
        label=label or str(keywords.get("title") or name.replace("_", " ").title()),
        help=str(keywords.get("description", "")),
        required=required,
        default=keywords.get("default", UNSET) if default is UNSET else default,
        place=place,
        depth=depth,
        index=index,
    )


def new_input(field: Field, kind: str, **props: object) -> Node:
    """Return an input with what all have in common; `props` go in as they are."""
    node: Node = {"$formkit": kind}
    put(node, "name", field.name)
    if field.index is not None:
        node["index"] = field.index
    if field.label.startswith("$: "):
        node["label"] = field.label
    else:
        put(node, "label", field.label)
    if field.help:
        put(node, "help", field.help)
    examples = field.schema.keywords.get("examples")
    if kind in ("text", "textarea", "number") and isinstance(examples, list) and examples:
        put(node, "placeholder", str(examples[0]))
    return node | props


def checkbox(field: Field) -> Node:
    """Return a box for yes or no; it always has a value, so it is never required."""
    return new_input(field, "checkbox", value=field.default is True)


def select(field: Field, values: list[object]) -> Node:
    """Return a choice of one among values."""
    node = new_input(field, "select", options=options(values))
    if field.default is not UNSET:
        put(node, "value", field.default)
    elif None in values:
        node["value"] = None
    elif len(values) == 1 and field.required:
        put(node, "value", values[0])
    else:
        node["placeholder"] = "Choose one" if field.required else "Not set"
    return with_rules(node, [["required"]] if field.required and None not in values else [])


def number(field: Field) -> Node:
    """Return a number input, which submits a number."""
    bounds = number_bounds(field.schema.keywords)
    node = new_input(field, "number", number="integer" if field.schema.type == "integer" else "float")
    rules: list[Rule] = [["required"]] if field.required else []
    for key, bound in (("min", bounds.low), ("max", bounds.high)):
        if bound is not None:
            node[key] = bound
            rules.append([key, bound])
    node["step"] = bounds.step or "any"
    if bounds.excluded:
        rules.append(["not", *bounds.excluded])
    return with_rules(with_value(node, field), rules)


def text(field: Field) -> Node:
    """Return the input for a text: of its format, or of one line or many."""
    keywords = field.schema.keywords
    kind = "password" if keywords.get("writeOnly") else str(keywords.get("format", ""))
    if kind in ("date-time", "time") and _ZONE.search(str(field.default)):
        kind = "zoned"  # the inputs for times know no time zone and would lose it
    node = new_input(field, _INPUTS.get(kind, "text"))
    rules: list[Rule] = [["required"]] if field.required else []
    if kind in ("date-time", "time"):
        node["step"] = "any"  # else a browser takes whole minutes only
    elif kind == "email":
        rules.append(["email"])
    elif kind in _PLACEHOLDERS:
        node.setdefault("placeholder", _PLACEHOLDERS[kind])
    elif not kind and _is_long(field):
        node["$formkit"] = "textarea"
    rules += _length_rules(keywords, "minLength", "maxLength")
    pattern = keywords.get("pattern")
    if isinstance(pattern, str):
        translated = _javascript_pattern(pattern)
        if translated is None:
            put(node, "help", _sentences(field.help, f"Must match the pattern {pattern}"))
        else:
            rules.append(["matches", f"/{translated}/"])
    # The default of a secret is written as asterisks; sending them would replace it.
    return with_rules(node if kind == "password" else with_value(node, field), rules)


def several(field: Field, values: list[object], *, many: int) -> Node:
    """Return a choice of several among values: a box each, or a select for more than `many`."""
    default = field.default if isinstance(field.default, list) else []
    node = new_input(field, "checkbox", options=options(values), value=default)
    if len(values) > many:
        node |= {"$formkit": "select", "multiple": True}
    return with_rules(node, item_rules(field.schema))


def json_area(field: Field) -> Node:
    """Return a textarea for JSON, for what has no input of its own."""
    node = new_input(field, "textarea", **{JSON_MARK: "json"})
    put(node, "help", _sentences(field.help, f"As JSON: {described(field.schema, titled=False)}"))
    if field.default is not UNSET and field.default is not None:
        put(node, "value", json.dumps(field.default, ensure_ascii=False))
    return with_rules(node, [["required"]] if field.required else [])


def hidden(field: Field, value: object) -> Node:
    """Return an input that nobody sees, for a value that is the only one."""
    node: Node = {"$formkit": "hidden"}
    put(node, "name", field.name)
    put(node, "value", value)
    return node


def fieldset(field: Field, children: Iterable[Node]) -> Node:
    """Return a frame with the field's label and help, for inputs that draw nothing themselves."""
    about: list[Node] = [{"$el": "legend", "children": content(field.label)}]
    if field.help:
        about.append({"$el": "p", "children": content(field.help)})
    return {"$el": "fieldset", "children": [*about, *children]}


def options(values: list[object]) -> list[Node]:
    """Return a select's options; a plain list of them would turn every value into a text."""
    return [{"label": value_label(value), "value": value} for value in values]


def value_label(value: object) -> str:
    """Return how a value reads as an option."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def described(schema: Schema, *, titled: bool = True) -> str:
    """Return in a few words what a schema takes; by its own title, or else by its type."""
    keywords = schema.keywords
    variants = schema.variants()
    if titled and keywords.get("title"):
        return str(keywords["title"])
    if len(variants) > 1:
        return " or ".join(described(variant) for variant in variants)
    if schema.values is not None and schema.type != "boolean":
        return ", ".join(value_label(value) for value in schema.values)
    if schema.definition and (schema.repeats or schema.properties):
        return schema.definition
    for kind, key, words in (("array", "items", "list of"), ("object", "additionalProperties", "object of")):
        if schema.type == kind and isinstance(keywords.get(key), Mapping):
            return f"{words} {described(schema.read(keywords[key]))}"
    return str(keywords.get("format") or _TYPE_NAMES.get(str(schema.type), "any value"))


def item_rules(schema: Schema) -> list[Rule]:
    """Return the rules for how many items an array has."""
    rules = _length_rules(schema.keywords, "minItems", "maxItems")
    # The plus runs the rule on an empty list too.
    return [["+length", *bounds] if bounds[0] else ["length", *bounds] for _, *bounds in rules]


def put(node: Node, key: str, value: object) -> None:
    """Set a property to a value that FormKit must not read as an expression."""
    node[f"__raw__{key}" if _looks_computed(value) else key] = value


def with_value(node: Node, field: Field) -> Node:
    """Return the node with the field's default, where it has one that JSON can hold."""
    default = field.default
    if default is not UNSET and not (isinstance(default, float) and not math.isfinite(default)):
        put(node, "value", default)
    return node


def with_rules(node: Node, rules: list[Rule]) -> Node:
    """Return the node with its validation rules, if there are any."""
    return node | {"validation": rules} if rules else node


def with_hint(node: Node, hint: Mapping[str, object]) -> Node:
    """Return the node with an author's hint, which wins key by key."""
    names = {key.removeprefix("__raw__") for key in hint}
    return {key: value for key, value in node.items() if key.removeprefix("__raw__") not in names} | dict(
        hint
    )


def numbered(label: str, number: str) -> str:
    """Return the expression for the label of an item: the list's label and a number."""
    if label.startswith("$: "):
        return f'{label} + "." + ({number})'
    return f'$: "{quotable(label)} " + ({number})'


def content(label: str) -> str:
    """Return a label as an element's content."""
    if label.startswith("$: ") or not label.startswith("$"):
        return label
    return f'$: "{quotable(label)}"'


def quotable(words: str) -> str:
    """Return a text without what FormKit's expressions cannot quote."""
    return words.replace("\\", "/").replace('"', "'")


def _looks_computed(value: object) -> bool:
    if isinstance(value, str):
        return value.startswith("$")
    if isinstance(value, Mapping):
        return "if" in value or any(_looks_computed(part) for part in value.values())
    return False


def _length_rules(keywords: Mapping[str, object], least: str, most: str) -> list[Rule]:
    shortest, longest = keywords.get(least, 0), keywords.get(most)
    if longest is not None:
        return [["length", shortest, longest]]
    return [["length", shortest]] if shortest else []


def _is_long(field: Field) -> bool:
    longest = cast("int", field.schema.keywords.get("maxLength", 0))
    lines = isinstance(field.default, str) and "\n" in field.default
    return longest > LONG_TEXT or len(field.help) > LONG_TEXT or lines


def _javascript_pattern(pattern: str) -> str | None:
    """Return a pattern as JavaScript writes it, or None where it has flags that a rule cannot carry."""
    if any(found.group() != "(?:" for found in _INLINE_FLAGS.finditer(pattern)):
        return None
    return pattern.replace("(?P<", "(?<").replace(r"\A", "^").replace(r"\Z", "$").replace(r"\z", "$")


def _sentences(*texts: str) -> str:
    return " ".join(each if each.endswith((".", "!", "?")) else f"{each}." for each in texts if each)
