"""
FormKit: the dialect `formkit`, a schema for ``<FormKitSchema>`` made of FormKit's free inputs.

The page puts the nodes into a form (``<FormKit type="form">``); what the form submits are the params. What a
reader of the schema has to know:

- Rules are in FormKit's array form, ``[["required"], ["length", 1, 5]]``: a pattern may hold the ``|`` and
  ``,`` that divide the text form, and numbers stay numbers. ``required`` is only set where an input can be
  empty: a checkbox, a group and a list always have a value.
- A text that starts with ``$`` would be read as an expression; its key then starts with ``__raw__``.
- Groups and lists draw nothing themselves, so each holds a fieldset with its label, help and inputs.
- Lists are FormKit's free dynamic ``list`` (the ready-made ``repeater`` is not in the free core). Its buttons
  call two functions that the page hands to ``<FormKitSchema :data="…">``::

      addItem: (list, blank) => () => list.input([...list._value, JSON.parse(blank)])
      removeItem: (near, item) => () => near.root.walk((list) => {
        const items = list.context.items ?? []
        if (items.includes(item)) list.input(list._value.filter((_, at) => items[at] !== item))
      })

- Values that can all be listed are one select, texts of several formats one text input. Objects that differ
  by a constant are one group: a select of that constant, and the fields that belong to what is chosen. Any
  other union is a select of its variants, which is not submitted, and the inputs of the chosen one.
- ``X | None`` is X's input, not required, where leaving it empty gives None: a simple input whose default is
  None. Where it would not (an object, a list, another default, no default), None is a variant to choose.
- What has no input is a textarea for JSON, marked ``data-format="json"``; the page parses what it holds. That
  is any value, a mapping, a model inside itself, and, in a list, whose items come and go, a union that needs
  a select of its variants.
- A field's ``json_schema_extra={"formkit": {…}}`` wins key by key over what is derived. Where a field needs
  several inputs, a hint with ``$formkit`` replaces them by one; else label and help go to the select of
  variants and the other keys to the inputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import msgspec
from msgspec import UNSET

from synapse_plugins.ui_schema import inputs
from synapse_plugins.ui_schema.inputs import Field, Node, new_field
from synapse_plugins.ui_schema.json_schema import Schema

MANY_OPTIONS = 10
"""A choice of several among more than this is a select; among fewer, a box each."""


def to_formkit(schema: Mapping[str, object]) -> list[Node]:
    """
    Return the nodes of a form for the JSON Schema of a params or result model.

    A model gives the nodes of its fields; any other type one field named ``value``; an empty schema none.
    """
    root = Schema.of(schema)
    place = _identifier(str(root.keywords.get("title") or root.definition or "form"))
    if root.properties:
        return list(_properties(root, UNSET, place=place))
    if root.type is None and root.values is None and len(root.variants()) == 1:
        return []
    return field_nodes(new_field(root, "value", required=True, place=f"{place}-value"))


def field_nodes(field: Field) -> list[Node]:
    """Return the nodes of one field, the author's hint applied."""
    nodes = _derived(field)
    hint = cast("Mapping[str, object]", field.schema.keywords.get("formkit", {}))
    if not hint:
        return nodes
    if len(nodes) == 1:
        return [inputs.with_hint(nodes[0], hint)]
    if "$formkit" in hint:
        return [inputs.with_hint(inputs.with_value(inputs.new_input(field, "text"), field), hint)]
    chooser, *variants = nodes
    about = {key: value for key, value in hint.items() if key in ("label", "help")}
    others = {key: value for key, value in hint.items() if key not in about}
    for variant in variants:
        children = cast("list[Node]", variant["children"])
        variant["children"] = [inputs.with_hint(node, others) for node in children]
    return [inputs.with_hint(chooser, about), *variants]


def _derived(field: Field) -> list[Node]:
    variants = field.schema.variants()
    if len(variants) == 1:
        return [_single(field)]
    listed = _listed(variants)
    if listed is not None:
        return [inputs.select(field, listed)]
    present = _collapsed([variant for variant in variants if variant.type != "null"])
    nullable = any(variant.type == "null" for variant in variants)
    if len(present) == 1 and (not nullable or _empty_is_none(field, present[0])):
        return [_single(_narrowed(field, present[0]))]
    tag = None if nullable else _tag(present)
    if tag is not None:
        return [_tagged_group(field, present, tag)]
    if field.depth:
        return [inputs.json_area(field)]
    return _variants(field, [*present, *([field.schema.read({"type": "null"})] if nullable else [])])


def _single(field: Field) -> Node:
    schema = field.schema
    if schema.repeats:
        return inputs.json_area(field)
    if schema.values is not None:
        plain = schema.type == "boolean" and len(schema.values) == 2
        return inputs.checkbox(field) if plain else inputs.select(field, schema.values)
    if schema.type in ("integer", "number"):
        return inputs.number(field)
    if schema.type == "string":
        return inputs.text(field)
    if schema.properties:
        return _group(field, _properties(schema, field.default, place=field.place, depth=field.depth))
    return _array(field) if _is_list(schema) else inputs.json_area(field)


def _group(field: Field, children: Iterable[Node]) -> Node:
    return inputs.new_input(field, "group", children=[inputs.fieldset(field, children)])


def _properties(schema: Schema, default: object, *, place: str, depth: int = 0) -> Iterator[Node]:
    """Yield the nodes of an object's fields; a default of the object's own goes down to them."""
    given = default if isinstance(default, Mapping) else {}
    for name, part in schema.properties.items():
        yield from field_nodes(
            new_field(
                schema.read(part),
                name,
                required=name in schema.required,
                default=given.get(name, UNSET),
                place=f"{place}-{_identifier(name)}",
                depth=depth,
            )
        )


def _array(field: Field) -> Node:
    fixed = field.schema.keywords.get("prefixItems")
    if isinstance(fixed, list):
        return inputs.new_input(field, "list", children=[inputs.fieldset(field, _fixed_items(field, fixed))])
    default = field.default if isinstance(field.default, list) else []
    items = field.schema.read(field.schema.keywords["items"])
    listed = _listed(items.variants())
    if listed is not None and not any(value in default[:at] for at, value in enumerate(default)):
        return inputs.several(field, listed, many=MANY_OPTIONS)
    depth = field.depth + 1
    nodes = field_nodes(
        new_field(
            items,
            field.name,
            label=inputs.numbered(field.label, f"$index{depth} + 1"),
            required=True,
            place=f"{field.place}-items",
            depth=depth,
            index=f"$index{depth}",
        )
    )
    # An item that is JSON text would show a default's values as they are, not as JSON.
    if inputs.JSON_MARK in nodes[0] or (default and _holds_json(nodes)):
        return inputs.json_area(field)
    node = inputs.new_input(field, "list", dynamic=True, value=default)
    node["children"] = [inputs.fieldset(field, _dynamic_items(nodes, depth))]
    return inputs.with_rules(node, inputs.item_rules(field.schema))


def _fixed_items(field: Field, fixed: list[object]) -> Iterator[Node]:
    """Yield the inputs of a tuple: a list whose children have their places."""
    defaults = field.default if isinstance(field.default, list) else []
    for at, part in enumerate(fixed):
        yield from field_nodes(
            new_field(
                field.schema.read(part),
                field.name,
                label=inputs.numbered(field.label, str(at + 1)),
                required=True,
                default=defaults[at] if at < len(defaults) else UNSET,
                place=f"{field.place}-{at}",
                depth=field.depth + 1,
                index=f"$: {at}",
            )
        )


def _dynamic_items(nodes: list[Node], depth: int) -> list[Node]:
    """Return what a dynamic list draws: each item with a button to remove it, one to add, and messages."""
    item, index = f"item{depth}", f"index{depth}"
    blank = {"group": "{}", "list": "[]"}.get(str(nodes[0]["$formkit"]), "null")
    repeated: Node = {
        "$el": "div",
        "for": [item, index, "$items"],
        "attrs": {"key": f"${item}"},
        # Inside a loop, $node may be that of a list or group further out; the item is the loop's own.
        "children": [*nodes, _button("Remove", f"$removeItem($node, ${item})")],
    }
    messages: Node = {
        "$el": "ul",
        "if": "$fns.length($messages)",
        "children": [{"$el": "li", "for": ["message", "$messages"], "children": "$message.value"}],
    }
    return [repeated, _button("Add", f'$addItem($node, "{blank}")'), messages]


def _button(label: str, call: str) -> Node:
    return {"$el": "button", "attrs": {"type": "button", "onClick": call}, "children": label}


def _tagged_group(field: Field, variants: list[Schema], tag: str) -> Node:
    """Return one group for objects that differ by a constant: its select, and the fields of the chosen."""
    given = field.default if isinstance(field.default, Mapping) else {}
    parts = [variant.read(variant.properties[tag]) for variant in variants]
    choices = [value for part in parts for value in part.values or ()]
    chosen = new_field(
        parts[0].read({"title": parts[0].keywords.get("title", "")}),
        tag,
        required=True,
        default=given.get(tag, UNSET),
        place=f"{field.place}-{tag}",
    )
    children = [inputs.select(chosen, choices)]
    for variant, part in zip(variants, parts, strict=True):
        values = part.values or []
        place = f"{field.place}-{_identifier(str(values[0]))}"
        rest = {name: each for name, each in variant.properties.items() if name != tag}
        without_tag = msgspec.structs.replace(variant, keywords={**variant.keywords, "properties": rest})
        children.append(
            {
                "$el": "div",
                "if": " || ".join(f"$value.{tag} === {json.dumps(value)}" for value in values),
                "attrs": {"key": place},
                "children": list(
                    _properties(
                        without_tag,
                        given if given.get(tag) in values else UNSET,
                        place=place,
                        depth=field.depth,
                    )
                ),
            }
        )
    return _group(field, children)


def _tag(variants: list[Schema]) -> str | None:
    """Return the property whose constants tell the objects of a union apart, if there is one."""
    for name in variants[0].properties:
        if not (name.isascii() and name.isidentifier()):
            continue
        constants = [
            variant.read(variant.properties[name]).values if name in variant.properties else None
            for variant in variants
        ]
        if any(values is None for values in constants):
            continue
        values = [value for part in constants for value in part or ()]
        texts = all(isinstance(value, str) and inputs.quotable(value) == value for value in values)
        if texts and len(set(values)) == len(values):
            return name
    return None


def _variants(field: Field, variants: list[Schema]) -> list[Node]:
    """Return a select of the variants, not submitted, and the inputs of each, shown while it is chosen."""
    accepting = (at for at, variant in enumerate(variants) if variant.accepts(field.default))
    chosen = next(accepting, 0) if field.default is not UNSET else 0
    labels = [inputs.described(variant) for variant in variants]
    identity = f"{field.place}-variant"
    chooser = inputs.new_input(
        msgspec.structs.replace(field, name=f"{field.name}_variant"),
        "select",
        id=identity,
        ignore=True,
        options=[{"label": label, "value": str(at)} for at, label in enumerate(labels)],
        value=str(chosen),
    )
    nodes = [chooser]
    for at, (variant, label) in enumerate(zip(variants, labels, strict=True)):
        place = f"{field.place}-{at}"
        default = field.default if at == chosen else UNSET
        inner = new_field(variant, field.name, label=label, required=True, default=default, place=place)
        only = variant.values is not None and len(variant.values) == 1
        nodes.append(
            {
                "$el": "div",
                "if": f'$get("{identity}").value === "{at}"',
                "attrs": {"key": place},
                "children": [inputs.hidden(inner, (variant.values or [])[0])] if only else field_nodes(inner),
            }
        )
    return nodes


def _empty_is_none(field: Field, present: Schema) -> bool:
    """Tell whether leaving a nullable field empty gives None; an empty item of a list does."""
    simple = present.repeats or not (present.properties or _is_list(present))
    return simple and (field.index is not None or not field.required) and field.default in (UNSET, None)


def _narrowed(field: Field, variant: Schema) -> Field:
    """Return the field with its union narrowed to one variant."""
    nullable = any(each.type == "null" for each in field.schema.variants())
    schema = variant.under(field.schema)
    return msgspec.structs.replace(
        field,
        schema=schema,
        required=field.required and not nullable,
        default=UNSET if field.default is None else field.default,
        help=str(schema.keywords.get("description", "")),
    )


def _collapsed(variants: list[Schema]) -> list[Schema]:
    """Return the variants without those that another one's input serves as well."""
    if any(variant.type == "number" for variant in variants):
        variants = [variant for variant in variants if variant.type != "integer" or variant.values]
    if len(variants) > 1 and all(variant.type == "string" and not variant.values for variant in variants):
        return [variants[0].read({"type": "string"})]
    return variants


def _listed(variants: Iterable[Schema]) -> list[object] | None:
    """Return all values of a union, None first, where the values of each variant can be listed."""
    found: dict[str, object] = {}  # by their JSON, for True equals 1
    for variant in variants:
        if variant.values is None:
            return None
        found.update((json.dumps(value), value) for value in variant.values)
    return sorted(found.values(), key=lambda value: value is not None)


def _is_list(schema: Schema) -> bool:
    """Tell whether it is an array whose items are known."""
    return schema.type == "array" and bool(schema.keywords.get("items") or schema.keywords.get("prefixItems"))


def _holds_json(nodes: Iterable[object]) -> bool:
    return any(
        inputs.JSON_MARK in node or _holds_json(cast("Iterable[object]", node.get("children", ())))
        for node in nodes
        if isinstance(node, Mapping)
    )


def _identifier(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", words)
