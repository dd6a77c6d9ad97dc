"""Types of fields: definite clashes, and nothing where it may fit."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypeVar

import msgspec
import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    computed_field,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from synapse_kernel import action
from synapse_kernel.actions import ActionCode, action_code
from synapse_plugins.pipelines.field_types import (
    FieldType,
    clash,
    params_fields,
    result_fields,
    takes_other_fields,
)

Name = NewType("Name", str)
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Box(BaseModel):
    width: int
    name: str = ""


class BigBox(Box):
    height: int = 1


class Crate(BaseModel):
    width: int


class Parcel(BaseModel):
    width: str


class Shipped(BaseModel):
    width: int
    to: str


class BoxDict(TypedDict):
    width: int
    name: NotRequired[str]


@dataclasses.dataclass
class BoxRecord:
    width: int
    name: str = ""


class BoxStruct(msgspec.Struct):
    width: int
    name: str = ""


class Handle:
    pass


class Other:
    pass


@pytest.mark.parametrize(
    ("produced", "expected"),
    [
        (int, int),
        (int, float),
        (bool, int),
        (str, Path),
        (Path, str),
        (str, date),
        (date, str),
        (bytes, str),
        (str, SecretStr),
        (str, Any),
        (Any, int),
        (object, int),
        (T, int),
        (str, T),
        ("Forward", int),
        (Name, str),
        (str, Name),
        (Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0)]),
        (str, Annotated[int, BeforeValidator(len)]),
        (str | None, str),
        (str, int | str),
        (int | str, str),
        (None, int | None),
        (str, Literal["a", "b"]),
        (Literal["a", "b"], Literal["b", "c"]),
        (Literal["a"], str),
        (str, Colour),
        (Colour, str),
        (list[int], list[float]),
        (list, list[int]),
        (tuple[int, ...], list[int]),
        (tuple[int, str], list[str]),
        (set[str], Sequence[Path]),
        (dict[str, int], dict[str, float]),
        (dict, Box),
        (dict[str, Any], Box),
        (Box, dict),
        (Box, dict[str, Any]),
        (BigBox, Box),
        (Box, BigBox),
        (Box, Crate),
        (BoxDict, Crate),
        (BoxRecord, Crate),
        (BoxStruct, Crate),
        (list[BigBox], list[Box]),
        (Handle, Handle),
        (Handle, Any),
    ],
)
def test_what_may_fit_is_no_clash(produced: object, expected: object) -> None:
    assert None is clash(produced, expected)


@pytest.mark.parametrize(
    ("produced", "expected", "reason"),
    [
        (str, int, "str where int is needed"),
        (float, int, "float where int is needed"),
        (int, str, "int where str is needed"),
        (int, bool, "int where bool is needed"),
        (int, Path, "int where Path is needed"),
        (None, int, "None where int is needed"),
        (str | None, int, "str | None where int is needed"),
        (str, int | float, "str where int | float is needed"),
        (int, list[int], "int where list[int] is needed"),
        (str, list[str], "str where list[str] is needed"),
        (list[str], str, "list[str] where str is needed"),
        (list[str], list[int], "list[str] where list[int] is needed"),
        (tuple[str, ...], list[int], "tuple[str, ...] where list[int] is needed"),
        (dict[str, str], dict[str, int], "dict[str, str] where dict[str, int] is needed"),
        (dict[str, int], list[int], "dict[str, int] where list[int] is needed"),
        (int, Literal["a", "b"], "int where Literal['a', 'b'] is needed"),
        (Literal["a"], Literal["b"], "Literal['a'] where Literal['b'] is needed"),
        (Literal["a"], int, "Literal['a'] where int is needed"),
        (int, Colour, "int where Colour is needed"),
        (Colour, int, "Colour where int is needed"),
        (Box, str, "Box where str is needed"),
        (str, Box, "str where Box is needed"),
        (Box, Parcel, "Box where Parcel is needed: its field 'width' is int where str is needed"),
        (Box, Shipped, "Box where Shipped is needed: it has no field 'to'"),
        (BoxStruct, Shipped, "BoxStruct where Shipped is needed: it has no field 'to'"),
        (
            Box,
            dict[str, int],
            "Box where dict[str, int] is needed: its field 'name' is str where int is needed",
        ),
        (list[Box], Box, "list[Box] where Box is needed"),
        (Handle, Other, "Handle where Other is needed"),
        (Handle, str, "Handle where str is needed"),
        (str, Handle, "str where Handle is needed"),
    ],
)
def test_what_can_never_fit_is_told(produced: object, expected: object, reason: str) -> None:
    assert reason == clash(produced, expected)


def code_of(params: object = None, result: object = None) -> ActionCode:
    @action(name="it", params=params, result=result)
    def it(params, ctx):  # type: ignore[no-untyped-def]
        return params

    return action_code(it)


@pytest.mark.parametrize("kind", [Box, BoxDict, BoxRecord, BoxStruct])
def test_the_fields_of_params_and_results_are_those_of_any_record(kind: type) -> None:
    code = code_of(kind, kind)
    fields = params_fields(code)

    assert [("width", int, True), ("name", str, False)] == [
        (key, field.annotation, field.required) for key, field in fields.items()
    ]
    assert fields == result_fields(code)


def test_params_are_known_by_the_keys_they_are_given_under() -> None:
    class Aliased(BaseModel):
        rate: int = Field(validation_alias=AliasChoices("lr", "learning_rate"))

    fields = params_fields(code_of(Aliased))

    assert {"lr": FieldType("rate", int, True), "learning_rate": FieldType("rate", int, True)} == fields


def test_a_typed_dict_may_require_none_or_some_of_its_keys() -> None:
    class Loose(TypedDict, total=False):
        width: Required[int]
        name: str

    assert {"width": True, "name": False} == {
        key: field.required for key, field in params_fields(code_of(Loose)).items()
    }


def test_a_result_is_known_by_what_can_be_read_of_it() -> None:
    class Result(BaseModel):
        path: Path = Field(alias="where")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def size(self) -> int:
            return 1

        @property
        def half(self) -> int:
            return 1

    fields = result_fields(code_of(result=Result))

    assert fields is not None
    assert {"path", "where", "size", "half"} == set(fields)
    assert None is clash(fields["size"].annotation, str)


@pytest.mark.parametrize("kind", [None, dict[str, int], list[int], str])
def test_what_names_no_fields_has_none(kind: object) -> None:
    code = code_of(kind, kind)

    assert ({}, None, True) == (params_fields(code), result_fields(code), takes_other_fields(kind))


@pytest.mark.parametrize(
    ("extra", "open_"), [(None, False), ("forbid", False), ("allow", True), ("ignore", True)]
)
def test_other_fields_are_taken_where_the_model_says_so(extra: Any, open_: bool) -> None:
    class Model(BaseModel):
        model_config = ConfigDict(extra=extra) if extra else ConfigDict()
        width: int = 1

    assert open_ is takes_other_fields(Model)


def test_of_a_result_with_extras_it_cannot_be_told_what_is_there() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        width: int = 1

    assert None is result_fields(code_of(result=Open))


def test_a_field_that_a_validator_converts_takes_anything() -> None:
    class Converting(BaseModel):
        width: int
        name: int

        @field_validator("width", mode="before")
        @classmethod
        def read(cls, value: object) -> object:
            return value

    fields = params_fields(code_of(Converting))

    assert (Any, int) == (fields["width"].annotation, fields["name"].annotation)


def test_fields_that_a_model_makes_itself_are_not_required() -> None:
    class Making(BaseModel):
        width: int

        @model_validator(mode="before")
        @classmethod
        def read(cls, value: object) -> object:
            return value

    assert {"width": FieldType("width", Any, False)} == params_fields(code_of(Making))
