"""Groups, lists, unions and what has no input of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

Node = dict[str, Any]
FormOf = Callable[[object], list[Node]]
NodeOf = Callable[..., Node]
NodesOf = Callable[..., list[Node]]
Inside = Callable[[Node], list[Node]]


class Sgd(BaseModel):
    """Plain descent."""

    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1


class Adam(BaseModel):
    kind: Literal["adam"] = "adam"
    lr: float = 0.01
    beta: float = 0.9


class Box(BaseModel):
    width: int = 1
    name: str


class Tree(BaseModel):
    name: str
    branches: list[Tree] = []
    root: Tree | None = None


def texts(node: Node) -> list[str]:
    return [option["label"] for option in node["options"]]


# Groups


def test_an_object_is_a_group_of_its_fields(node: NodeOf, inside: Inside) -> None:
    made = node(Box)

    assert ("group", "it") == (made["$formkit"], made["name"])
    assert ["width", "name"] == [child["name"] for child in inside(made)]
    assert "validation" not in made


def test_a_default_of_the_object_goes_down_to_its_fields(node: NodeOf, inside: Inside) -> None:
    made = node(Box, Box(width=7, name="crate"))

    assert [7, "crate"] == [child["value"] for child in inside(made)]


def test_a_legend_that_looks_like_an_expression_is_quoted(node: NodeOf) -> None:
    made = node(Annotated[Box, Field(title="$ box")])

    assert {"$el": "legend", "children": '$: "$ box"'} == made["children"][0]["children"][0]


# Lists


def test_a_list_of_values_is_a_dynamic_list_of_inputs(node: NodeOf) -> None:
    made = node(list[int], [1, 2])

    assert {
        "$formkit": "list",
        "name": "it",
        "label": "It",
        "dynamic": True,
        "value": [1, 2],
        "children": [
            {
                "$el": "fieldset",
                "children": [
                    {"$el": "legend", "children": "It"},
                    {
                        "$el": "div",
                        "for": ["item1", "index1", "$items"],
                        "attrs": {"key": "$item1"},
                        "children": [
                            {
                                "$formkit": "number",
                                "name": "it",
                                "index": "$index1",
                                "label": '$: "It " + ($index1 + 1)',
                                "number": "integer",
                                "step": 1,
                                "validation": [["required"]],
                            },
                            {
                                "$el": "button",
                                "attrs": {"type": "button", "onClick": "$removeItem($node, $item1)"},
                                "children": "Remove",
                            },
                        ],
                    },
                    {
                        "$el": "button",
                        "attrs": {"type": "button", "onClick": '$addItem($node, "null")'},
                        "children": "Add",
                    },
                    {
                        "$el": "ul",
                        "if": "$fns.length($messages)",
                        "children": [
                            {"$el": "li", "for": ["message", "$messages"], "children": "$message.value"}
                        ],
                    },
                ],
            }
        ],
    } == made


@pytest.mark.parametrize(("item", "blank"), [(str, "null"), (Box, "{}"), (list[int], "[]")])
def test_a_new_item_starts_as_what_its_input_holds(
    node: NodeOf, inside: Inside, item: Any, blank: str
) -> None:
    _, add, _ = inside(node(list[item]))

    assert f'$addItem($node, "{blank}")' == add["attrs"]["onClick"]


def test_a_list_of_objects_has_a_group_for_each(node: NodeOf, inside: Inside) -> None:
    repeated, *_ = inside(node(list[Box]))
    group, _ = repeated["children"]

    assert ("group", "$index1") == (group["$formkit"], group["index"])
    assert ["width", "name"] == [child["name"] for child in inside(group)]
    assert all("index" not in child for child in inside(group))


def test_a_list_in_a_list_has_loop_variables_of_its_own(node: NodeOf, inside: Inside) -> None:
    repeated, *_ = inside(node(list[list[int]]))
    inner, _ = repeated["children"]
    repeated_inside, *_ = inside(inner)

    assert ["item2", "index2", "$items"] == repeated_inside["for"]
    assert '$: "It " + ($index1 + 1) + "." + ($index2 + 1)' == repeated_inside["children"][0]["label"]


def test_the_number_of_items_is_a_rule_that_an_empty_list_meets_too(node: NodeOf) -> None:
    assert [["+length", 1, 5]] == node(Annotated[list[int], Field(min_length=1, max_length=5)])["validation"]
    assert [["length", 0, 5]] == node(Annotated[list[int], Field(max_length=5)])["validation"]


def test_an_empty_item_of_optionals_is_none(node: NodeOf, inside: Inside) -> None:
    repeated, *_ = inside(node(list[int | None]))

    assert "validation" not in repeated["children"][0]


def test_a_list_of_choices_is_a_box_each(node: NodeOf) -> None:
    made = node(list[Literal["a", "b"]], ["a"])

    assert ("checkbox", ["a"], ["a", "b"]) == (made["$formkit"], made["value"], texts(made))


def test_a_list_of_many_choices_is_a_select_of_several(node: NodeOf) -> None:
    many = Literal["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]

    made = node(list[many], [])

    assert ("select", True) == (made["$formkit"], made["multiple"])


def test_a_default_that_repeats_a_choice_keeps_the_list(node: NodeOf) -> None:
    made = node(list[Literal["conv", "pool"]], ["conv", "conv"])

    assert ("list", ["conv", "conv"]) == (made["$formkit"], made["value"])


def test_a_tuple_is_a_list_of_fixed_inputs(node: NodeOf, inside: Inside) -> None:
    made = node(tuple[int, str], (3, "x"))

    assert "dynamic" not in made
    assert [("number", 3, "$: 0"), ("text", "x", "$: 1")] == [
        (child["$formkit"], child["value"], child["index"]) for child in inside(made)
    ]


# Unions


def test_a_union_is_a_select_of_variants_and_the_inputs_of_the_chosen(nodes: NodesOf) -> None:
    chooser, number, items = nodes(int | list[int], 640)

    assert {
        "$formkit": "select",
        "name": "it_variant",
        "label": "It",
        "id": "Params-it-variant",
        "ignore": True,
        "options": [
            {"label": "whole number", "value": "0"},
            {"label": "list of whole number", "value": "1"},
        ],
        "value": "0",
    } == chooser
    assert '$get("Params-it-variant").value === "0"' == number["if"]
    assert '$get("Params-it-variant").value === "1"' == items["if"]
    assert [("number", "it", 640)] == [(n["$formkit"], n["name"], n["value"]) for n in number["children"]]
    assert [("list", "it", [])] == [(n["$formkit"], n["name"], n["value"]) for n in items["children"]]


@pytest.mark.parametrize(
    ("default", "chosen"),
    [(5, "0"), ("auto", "1"), ([1], "2"), (True, "3"), ({"width": 1, "name": "a"}, "4")],
)
def test_the_variant_that_takes_the_default_is_chosen(nodes: NodesOf, default: Any, chosen: str) -> None:
    chooser, *_ = nodes(int | Literal["auto"] | list[int] | bool | Box, default)

    assert chosen == chooser["value"]


def test_a_constant_variant_needs_no_input(nodes: NodesOf) -> None:
    _, constant, _ = nodes(Literal["auto"] | int, "auto")

    assert [{"$formkit": "hidden", "name": "it", "value": "auto"}] == constant["children"]


def test_an_integer_or_a_float_is_a_number(node: NodeOf) -> None:
    made = node(int | float, 1)

    assert ("number", "float") == (made["$formkit"], made["number"])


def test_objects_that_differ_by_a_constant_are_one_group(node: NodeOf, inside: Inside) -> None:
    kind, sgd, adam = inside(node(Annotated[Sgd | Adam, Field(discriminator="kind")], Adam(beta=0.5)))

    assert ("select", "kind", "adam", ["sgd", "adam"]) == (
        kind["$formkit"],
        kind["name"],
        kind["value"],
        texts(kind),
    )
    assert ['$value.kind === "sgd"', '$value.kind === "adam"'] == [sgd["if"], adam["if"]]
    assert [("lr", 0.1)] == [(child["name"], child["value"]) for child in sgd["children"]]
    assert [("lr", 0.01), ("beta", 0.5)] == [(child["name"], child["value"]) for child in adam["children"]]


def test_the_constant_of_a_required_object_is_asked_for(node: NodeOf, inside: Inside) -> None:
    kind, *_ = inside(node(Sgd | Adam))

    assert ("Choose one", [["required"]]) == (kind["placeholder"], kind["validation"])


def test_such_objects_can_be_listed(node: NodeOf, inside: Inside) -> None:
    made = node(list[Sgd | Adam], [Adam()])
    repeated, *_ = inside(made)

    assert ("list", "group") == (made["$formkit"], repeated["children"][0]["$formkit"])
    assert [{"kind": "adam", "lr": 0.01, "beta": 0.9}] == made["value"]


@pytest.mark.parametrize("annotation", [Box | None, list[int] | None])
def test_none_is_a_variant_where_an_input_cannot_be_left_empty(nodes: NodesOf, annotation: Any) -> None:
    chooser, _, none = nodes(annotation, None)

    assert ("1", "none") == (chooser["value"], texts(chooser)[1])
    assert [{"$formkit": "hidden", "name": "it", "value": None}] == none["children"]


@pytest.mark.parametrize(("default", "chosen"), [(0.1, "0"), (..., "0")])
def test_none_is_a_variant_where_leaving_it_empty_would_give_something_else(
    nodes: NodesOf, default: Any, chosen: str
) -> None:
    chooser, *_ = nodes(float | None, default)

    assert (["number", "none"], chosen) == (texts(chooser), chooser["value"])


def test_a_hint_on_a_union_is_divided(nodes: NodesOf) -> None:
    hint = {"formkit": {"label": "Size", "outerClass": "wide"}}

    chooser, number, _ = nodes(Annotated[int | str, Field(json_schema_extra=hint)], 1)

    assert "Size" == chooser["label"]
    assert "outerClass" not in chooser
    assert ("whole number", "wide") == (number["children"][0]["label"], number["children"][0]["outerClass"])


def test_a_hint_with_an_input_replaces_the_inputs_of_a_union(node: NodeOf) -> None:
    hint = {"formkit": {"$formkit": "radio", "options": ["1", "auto"]}}

    made = node(Annotated[int | str, Field(json_schema_extra=hint)], "auto")

    assert {
        "$formkit": "radio",
        "name": "it",
        "label": "It",
        "value": "auto",
        "options": ["1", "auto"],
    } == made


# JSON


@pytest.mark.parametrize(
    ("annotation", "default", "words"),
    [
        (Any, {"a": 1}, "As JSON: any value."),
        (dict[str, float], {"a": 0.5}, "As JSON: object of number."),
        (list, [1], "As JSON: list of any value."),
        (list[int | str], [1, "a"], "As JSON: list of whole number or text."),
        (list[dict[str, int]], [{"a": 1}], "As JSON: list of object of whole number."),
    ],
)
def test_what_has_no_input_is_a_textarea_for_json(
    node: NodeOf, annotation: Any, default: Any, words: str
) -> None:
    made = node(annotation, default)

    assert ("textarea", "json", words) == (made["$formkit"], made["data-format"], made["help"])
    assert default == json.loads(made["value"])


def test_a_list_whose_default_needs_json_inside_is_json_as_a_whole(node: NodeOf) -> None:
    class Item(BaseModel):
        data: dict[str, int] = {}

    assert "list" == node(list[Item], [])["$formkit"]
    assert '[{"data": {"a": 1}}]' == node(list[Item], [Item(data={"a": 1})])["value"]


def test_a_model_inside_itself_is_json(form: FormOf) -> None:
    name, branches, root = form(Tree)

    assert "text" == name["$formkit"]
    assert ("textarea", "As JSON: list of Tree.") == (branches["$formkit"], branches["help"])
    assert ("textarea", "As JSON: Tree.") == (root["$formkit"], root["help"])
    assert "validation" not in root


def test_a_model_used_twice_side_by_side_is_a_group_each_time(form: FormOf) -> None:
    class Params(BaseModel):
        first: Box
        second: Box

    assert ["group", "group"] == [made["$formkit"] for made in form(Params)]


def test_a_model_that_holds_one_inside_itself_ends_there(form: FormOf, inside: Inside) -> None:
    class Params(BaseModel):
        tree: Tree

    (tree,) = form(Params)

    assert ["text", "textarea", "textarea"] == [child["$formkit"] for child in inside(tree)]
