"""Which single input a field gets, with which bounds, rules and texts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, DirectoryPath, Field, FilePath, HttpUrl, SecretStr

Node = dict[str, Any]
NodeOf = Callable[..., Node]

REQUIRED = ["required"]


class Color(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


# Numbers


def test_an_integer_is_cast_and_steps_by_one(node: NodeOf) -> None:
    made = node(int, 3)

    assert ("number", "integer", 1, 3) == (made["$formkit"], made["number"], made["step"], made["value"])


def test_a_float_takes_any_step(node: NodeOf) -> None:
    made = node(float, 0.5)

    assert ("number", "float", "any", 0.5) == (made["$formkit"], made["number"], made["step"], made["value"])


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [
        ({"ge": 1, "le": 9}, 1, 9),
        ({"gt": 1, "lt": 9}, 2, 8),
        ({"ge": 1, "gt": 4}, 5, None),
        ({"gt": -3}, -2, None),
        ({"lt": 0}, None, -1),
    ],
)
def test_exclusive_bounds_of_an_integer_become_the_next_integer(
    node: NodeOf, bounds: dict[str, int], low: int | None, high: int | None
) -> None:
    made = node(Annotated[int, Field(**bounds)], 5)

    rules = [[name, bound] for name, bound in (("min", low), ("max", high)) if bound is not None]
    assert (low, high, rules) == (made.get("min"), made.get("max"), made["validation"])


def test_exclusive_bounds_of_a_float_stay_and_are_forbidden_themselves(node: NodeOf) -> None:
    made = node(Annotated[float, Field(gt=0, lt=0.5)], 0.1)

    assert (0, 0.5) == (made["min"], made["max"])
    assert [["min", 0], ["max", 0.5], ["not", 0, 0.5]] == made["validation"]


def test_bounds_move_inwards_onto_the_steps_which_a_browser_counts_from_the_lowest(node: NodeOf) -> None:
    made = node(Annotated[int, Field(ge=1, lt=100, multiple_of=5)], 10)

    assert (5, 95, 5) == (made["min"], made["max"], made["step"])


def test_steps_of_a_float_are_exact(node: NodeOf) -> None:
    made = node(Annotated[float, Field(gt=0.1, le=0.35, multiple_of=0.1)], 0.2)

    assert (0.2, 0.3, 0.1) == (made["min"], made["max"], made["step"])


def test_a_default_that_json_cannot_hold_is_left_out(node: NodeOf) -> None:
    assert "value" not in node(float, float("inf"))


# Choices


def test_a_boolean_is_a_box_that_always_has_a_value(node: NodeOf) -> None:
    assert {"$formkit": "checkbox", "name": "it", "label": "It", "value": False} == node(bool)


def test_an_enum_is_a_select(node: NodeOf) -> None:
    made = node(Color, Color.BLUE)

    assert ("select", "blue") == (made["$formkit"], made["value"])
    assert [{"label": "red", "value": "red"}, {"label": "blue", "value": "blue"}] == made["options"]


def test_a_required_choice_starts_with_a_placeholder_so_that_none_is_chosen(node: NodeOf) -> None:
    made = node(Color)

    assert ("Choose one", [REQUIRED]) == (made["placeholder"], made["validation"])
    assert "value" not in made


def test_options_keep_the_types_of_their_values(node: NodeOf) -> None:
    made = node(Literal[1, "x", True], "x")

    assert [1, "x", True] == [option["value"] for option in made["options"]]
    assert ["1", "x", "true"] == [option["label"] for option in made["options"]]


def test_a_constant_is_chosen_already(node: NodeOf) -> None:
    made = node(Literal["only"])

    assert ("select", "only") == (made["$formkit"], made["value"])


def test_literals_of_a_union_are_one_select(node: NodeOf) -> None:
    made = node(Literal["auto"] | Color, "auto")

    assert ["auto", "red", "blue"] == [option["value"] for option in made["options"]]


def test_an_optional_choice_has_none_among_its_options(node: NodeOf) -> None:
    made = node(Color | None, None)

    assert [None, "red", "blue"] == [option["value"] for option in made["options"]]
    assert None is made["value"]
    assert "validation" not in made


def test_an_optional_boolean_is_a_choice_of_three(node: NodeOf) -> None:
    made = node(bool | None, None)

    assert ("select", [None, True, False]) == (made["$formkit"], [each["value"] for each in made["options"]])


# Texts


def test_a_text_is_a_text_input(node: NodeOf) -> None:
    assert {"$formkit": "text", "name": "it", "label": "It", "value": "a"} == node(str, "a")


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (date, "date"),
        (datetime, "datetime-local"),
        (time, "time"),
        (SecretStr, "password"),
        (HttpUrl, "url"),
        (timedelta, "text"),
        (UUID, "text"),
        (Path, "text"),
    ],
)
def test_a_format_has_its_input(node: NodeOf, annotation: Any, kind: str) -> None:
    assert kind == node(annotation)["$formkit"]


@pytest.mark.parametrize(
    ("annotation", "placeholder"),
    [
        (Path, "path/to/file or folder"),
        (FilePath, "path/to/file"),
        (DirectoryPath, "path/to/folder"),
        (timedelta, "P1DT2H30M"),
    ],
)
def test_a_placeholder_shows_what_a_text_looks_like(node: NodeOf, annotation: Any, placeholder: str) -> None:
    assert placeholder == node(annotation)["placeholder"]


def test_an_example_is_the_placeholder(node: NodeOf) -> None:
    assert "runs/7" == node(Annotated[Path, Field(examples=["runs/7"])])["placeholder"]


def test_an_email_has_its_input_and_rule(kernel: Any) -> None:
    schema = {"type": "object", "properties": {"it": {"type": "string", "format": "email"}}}

    (made,) = kernel.resolve("schemas", "formkit")(schema)

    assert ("email", [["email"]]) == (made["$formkit"], made["validation"])


def test_times_are_not_held_to_whole_minutes(node: NodeOf) -> None:
    assert "any" == node(datetime, datetime(2030, 1, 2, 3, 4, 5))["step"]


def test_a_time_with_a_zone_stays_text_for_the_input_would_lose_the_zone(node: NodeOf) -> None:
    made = node(datetime, datetime(2030, 1, 2, tzinfo=UTC))

    assert ("text", "2030-01-02T00:00:00Z") == (made["$formkit"], made["value"])


def test_the_asterisks_of_a_secret_are_not_its_value(node: NodeOf) -> None:
    made = node(SecretStr, SecretStr("sesame"))

    assert {"$formkit": "password", "name": "it", "label": "It"} == made


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (Field("", max_length=200), "text"),
        (Field("", max_length=201), "textarea"),
        (Field("", description="x" * 201), "textarea"),
        (Field("two\nlines"), "textarea"),
    ],
)
def test_a_long_text_is_a_textarea(form: Callable[[object], list[Node]], field: Any, kind: str) -> None:
    model = type(
        "Params", (BaseModel,), {"__annotations__": {"it": str}, "it": field, "__module__": __name__}
    )

    assert kind == form(model)[0]["$formkit"]


def test_lengths_and_patterns_are_rules(node: NodeOf) -> None:
    made = node(Annotated[str, Field(min_length=2, max_length=4, pattern=r"^(a|b),?c$")])

    assert [REQUIRED, ["length", 2, 4], ["matches", "/^(a|b),?c$/"]] == made["validation"]


def test_a_least_length_has_no_end(node: NodeOf) -> None:
    assert [["length", 2]] == node(Annotated[str, Field(min_length=2)], "ab")["validation"]


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [(r"(?P<name>a)\Z", r"/(?<name>a)$/"), (r"\Aa(?:b|c)", r"/^a(?:b|c)/"), (r"a(?=b)", r"/a(?=b)/")],
)
def test_a_pattern_is_written_as_javascript(kernel: Any, pattern: str, rule: str) -> None:
    schema = {"type": "object", "properties": {"it": {"type": "string", "pattern": pattern}}}

    (made,) = kernel.resolve("schemas", "formkit")(schema)

    assert [["matches", rule]] == made["validation"]


def test_a_pattern_with_flags_is_told_instead(kernel: Any) -> None:
    schema = {"type": "object", "properties": {"it": {"type": "string", "pattern": "(?i)abc"}}}

    (made,) = kernel.resolve("schemas", "formkit")(schema)

    assert "Must match the pattern (?i)abc." == made["help"]
    assert "validation" not in made


# Labels, help, required


def test_the_label_is_the_title_and_the_help_the_description(node: NodeOf) -> None:
    made = node(Annotated[int, Field(title="Epochs!", description="Passes over the data.")])

    assert ("Epochs!", "Passes over the data.") == (made["label"], made["help"])


def test_a_field_of_a_class_is_labelled_by_its_name_not_by_the_class(
    form: Callable[[object], list[Node]],
) -> None:
    class Params(BaseModel):
        border_color: Color = Color.RED

    assert "Border Color" == form(Params)[0]["label"]


def test_a_field_without_default_is_required(node: NodeOf) -> None:
    assert [REQUIRED] == node(str)["validation"]


def test_an_optional_is_its_inner_input_and_not_required(node: NodeOf) -> None:
    made = node(Annotated[int | None, Field(ge=1, description="How many.")], None)

    assert {
        "$formkit": "number",
        "name": "it",
        "label": "It",
        "help": "How many.",
        "number": "integer",
        "min": 1,
        "step": 1,
        "validation": [["min", 1]],
    } == made


def test_an_alias_is_the_name(form: Callable[[object], list[Node]]) -> None:
    class Params(BaseModel):
        lr: float = Field(0.1, alias="learning-rate")

    assert "learning-rate" == form(Params)[0]["name"]


def test_texts_that_look_like_expressions_are_raw(node: NodeOf) -> None:
    made = node(Annotated[str, Field(title="$ cost", description="$x")], "$HOME/data")

    assert {
        "$formkit": "text",
        "name": "it",
        "__raw__label": "$ cost",
        "__raw__help": "$x",
        "__raw__value": "$HOME/data",
    } == made


# Hints


def test_a_hint_wins_key_by_key(node: NodeOf) -> None:
    hint = {"formkit": {"$formkit": "range", "label": "How much", "tooltip": True}}

    made = node(Annotated[int, Field(ge=0, le=9, json_schema_extra=hint)], 3)

    assert {
        "$formkit": "range",
        "name": "it",
        "number": "integer",
        "min": 0,
        "max": 9,
        "step": 1,
        "value": 3,
        "validation": [["min", 0], ["max", 9]],
        "label": "How much",
        "tooltip": True,
    } == made


def test_a_hint_replaces_a_raw_text(node: NodeOf) -> None:
    hint = {"formkit": {"help": "In dollars."}}

    made = node(Annotated[str, Field(description="$", json_schema_extra=hint)], "")

    assert "In dollars." == made["help"]
    assert "__raw__help" not in made


def test_a_hint_of_a_field_wins_over_that_of_its_class(form: Callable[[object], list[Node]]) -> None:
    class Level(BaseModel):
        model_config = {"json_schema_extra": {"formkit": {"help": "from the class", "id": "level"}}}
        value: int = 0

    class Params(BaseModel):
        level: Level = Field(Level(), json_schema_extra={"formkit": {"help": "from the field"}})

    (made,) = form(Params)

    assert ("from the field", "level") == (made["help"], made["id"])
