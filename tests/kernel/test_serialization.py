"""JSON at the boundaries: what converts, what is refused and how it is told."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import pathlib
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from synapse_kernel import UsageError
from synapse_kernel.serialization import NotJsonError, params_to_plain, to_jsonable, to_plain


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    kind: str = Field(default="dot", alias="class")


@dataclasses.dataclass
class Box:
    corner: Point
    size: tuple[int, int] = (1, 2)


class Scalar:
    """Stands for the number of an array library."""

    shape = ()

    def item(self) -> float:
        return 1.5


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


CONVERTING = [
    (None, None),
    (True, True),
    (5, 5),
    (2**70, 2**70),
    (0.5, 0.5),
    (math.inf, math.inf),
    ("text", "text"),
    ([1, (2, 3)], [1, [2, 3]]),
    ({"a": {1: "b"}}, {"a": {"1": "b"}}),
    ({1}, [1]),
    (Colour.RED, "red"),
    (pathlib.Path("a/b"), "a/b"),
    (datetime.date(2024, 5, 6), "2024-05-06"),
    (datetime.timedelta(seconds=90), "PT90S"),
    (b"abc", "YWJj"),
    (Scalar(), 1.5),
    (Point(x=1), {"x": 1, "class": "dot"}),
    (Box(Point(x=1)), {"corner": {"x": 1, "class": "dot"}, "size": [1, 2]}),
    ([Point(x=1)], [{"x": 1, "class": "dot"}]),
]


@pytest.mark.parametrize("convert", [to_plain, to_jsonable])
@pytest.mark.parametrize(("value", "expected"), CONVERTING, ids=lambda v: type(v).__name__)
def test_what_json_can_hold_becomes_plain_data(convert: Any, value: object, expected: object):
    found = json.loads(json.dumps(convert(value)))

    assert expected == found
    assert type(expected) is type(found)


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (Odd(), "it", "Odd"),
        ({"a": [1, {"b": Odd()}]}, "it['a'][1]['b']", "Odd"),
        ((1, Odd()), "it[1]", "Odd"),
        (Box(Odd()), "it.corner", "Odd"),  # type: ignore[arg-type]
        ({"f": len}, "it['f']", "builtin_function_or_method"),
        (Odd, "it", "type"),
        ((n for n in ()), "it", "generator"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_json_cannot_hold_is_told_with_its_place(value: object, where: str, kind: str):
    with pytest.raises(NotJsonError) as raised:
        to_plain(value)

    assert (
        f"The result is not JSON: {where} is of type {kind}\n"
        "  return numbers, text, lists, mappings or a pydantic model; write the rest to a file in\n"
        "  ctx.work_dir and return its path, or run with the executor 'local', where any object may pass"
    ) == str(raised.value)
    assert (where, kind) == (raised.value.where, raised.value.type)


def test_a_value_that_contains_itself_is_no_json():
    value: list[object] = []
    value.append(value)

    with pytest.raises(NotJsonError) as raised:
        to_plain(value)

    first, _, _ = str(raised.value).partition("\n")
    assert "The result is not JSON: it is of type list, nested too deeply or in itself" == first


def test_for_display_the_rest_becomes_its_repr():
    assert {"a": [1, "<odd>"]} == to_jsonable({"a": [1, Odd()]})
    assert "<odd>" == to_jsonable(Odd())


def test_for_display_a_value_that_contains_itself_ends_there():
    value: list[object] = []
    value.append(value)

    assert ["…"] == to_jsonable(value)


def test_for_display_only_the_part_that_json_cannot_hold_becomes_text():
    value = {"k": {(1, 2): 3}, "name": "bad \udcff", "when": datetime.date(2026, 1, 2)}

    assert {"k": {"[1, 2]": 3}, "name": "bad \\udcff", "when": "2026-01-02"} == to_jsonable(value)


# Params on their way to a worker.


class Account(BaseModel):
    login: SecretStr
    user: str = Field(default="me", alias="as")


class Upload(BaseModel):
    account: Account
    keys: list[SecretStr] = []
    path: pathlib.Path = pathlib.Path("a")


def test_params_travel_with_their_secrets():
    params = Upload(account=Account(login=SecretStr("hush")), keys=[SecretStr("one")])

    assert {"account": {"login": "hush", "as": "me"}, "keys": ["one"], "path": "a"} == params_to_plain(params)
    assert {"x": "hush", "y": [{"login": "hush", "as": "me"}]} == params_to_plain(
        {"x": SecretStr("hush"), "y": [Account(login=SecretStr("hush"))]}
    )


def test_params_come_back_as_the_model_they_were():
    params = Upload(account=Account(login=SecretStr("hush"), **{"as": "you"}))

    assert params == Upload.model_validate(params_to_plain(params))


def test_a_dataclass_of_params_becomes_a_mapping():
    assert {"corner": {"x": 1, "class": "dot"}, "size": [1, 2]} == params_to_plain(Box(Point(x=1)))


def test_params_that_json_cannot_hold_are_told_with_their_place():
    with pytest.raises(UsageError, match=r"^The params are not JSON: params\['a'\] is of type Odd"):
        params_to_plain({"a": Odd()})


@pytest.mark.parametrize("value", [5, "text", None, [1]], ids=lambda v: type(v).__name__)
def test_params_that_are_no_mapping_are_refused(value: object):
    with pytest.raises(TypeError) as raised:
        params_to_plain(value)

    assert f"params must be a mapping or a model, not {type(value).__name__}" == str(raised.value)
