"""References: what they name, which type they keep, what is said of those that name nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from pydantic import BaseModel, Field

from synapse_plugins.pipelines.references import (
    EVERY,
    Key,
    Reference,
    ReferenceLookupError,
    ReferenceSyntaxError,
    references_in,
    resolve,
)


class Converted(BaseModel):
    path: Path
    images: int = 3
    names: list[str] = []
    kind: str = Field(default="yolo", alias="type")


class Struct(msgspec.Struct):
    path: str


@dataclasses.dataclass
class Record:
    path: str


SCOPE = {
    "convert": Converted(path=Path("/data"), names=["a", "b"]),
    "plain": {"path": "/plain", "count": 2, "any key": 1, "none": None},
    "struct": Struct("/struct"),
    "record": Record("/record"),
    "thing": SimpleNamespace(path="/thing"),
    "draw": [{"path": "/0", "tags": ["x"]}, {"path": "/1", "tags": ["y", "z"]}],
    "params": {"epochs": 3, "opt": {"lr": 0.1}},
    "run": {"id": "r1", "folder": "/runs/r1"},
}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no reference", "no reference"),
        ("${convert.path}", Path("/data")),
        ("${convert}", SCOPE["convert"]),
        ("${convert.type}", "yolo"),
        ("${plain.count}", 2),
        ("${plain.none}", None),
        ("${plain['any key']}", 1),
        ('${plain["any key"]}', 1),
        ("${struct.path}", "/struct"),
        ("${record.path}", "/record"),
        ("${thing.path}", "/thing"),
        ("${params.opt.lr}", 0.1),
        ("${params}", {"epochs": 3, "opt": {"lr": 0.1}}),
        ("${run.folder}", "/runs/r1"),
        ("${draw[0].path}", "/0"),
        ("${draw[-1].path}", "/1"),
        ("${draw[*].path}", ["/0", "/1"]),
        ("${draw[*].tags[0]}", ["x", "y"]),
        ("${ plain.count }", 2),
    ],
)
def test_a_lone_reference_keeps_the_type_of_what_it_names(written: str, value: object) -> None:
    found = resolve(written, SCOPE)

    assert (type(value), value) == (type(found), found)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("${convert.path}/images", "/data/images"),
        ("n=${plain.count}", "n=2"),
        ("${plain.path}:${plain.count}", "/plain:2"),
        ("is ${plain.none}", "is null"),
        ("${convert.names} ", '["a","b"] '),
        ("$${convert.path}", "${convert.path}"),
        ("$$${plain.count}", "$${plain.count}"),
        ("costs $5 {x}", "costs $5 {x}"),
    ],
)
def test_inside_text_it_is_written_as_text(written: str, text: str) -> None:
    assert text == resolve(written, SCOPE)


def test_lists_and_mappings_are_looked_through() -> None:
    value = {"a": ["${plain.count}", {"b": "${plain.path}"}], "c": 1, "d": ("${params.epochs}",)}

    assert {"a": [2, {"b": "/plain"}], "c": 1, "d": [3]} == resolve(value, SCOPE)


def test_what_is_no_text_is_passed_as_it_is() -> None:
    thing = object()

    assert thing is resolve({"a": thing}, {})["a"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${gone.path:-none}", "none"),
        ("${gone:-3}", 3),
        ("${gone:-true}", True),
        ("${gone:-null}", None),
        ("${gone:-}", ""),
        ("${gone:-'3'}", "3"),
        ("${gone[*].path:-[]}", []),
        ("${gone:-{a: 1}}", {"a": 1}),
        ("${gone:-it's}", "it's"),
        ("${plain.missing:-0}", 0),
        ("${draw[9].path:-0}", 0),
        ("${plain.count:-0}", 2),
        ("from ${gone:-nowhere}", "from nowhere"),
    ],
)
def test_a_default_stands_for_what_is_not_there(written: str, value: object) -> None:
    assert value == resolve(written, SCOPE)


def test_references_are_found_in_order_and_in_depth() -> None:
    found = references_in({"a": "${x.y[0]['z']}", "b": ["and ${draw[*]:-1} $${no}"]})

    assert [
        Reference("${x.y[0]['z']}", "x", (Key("y"), 0, Key("z"))),
        Reference("${draw[*]:-1}", "draw", (EVERY,), has_default=True, default=1),
    ] == found


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${convert.path", "${convert.path: the closing } is missing; write $${ for a literal ${"),
        (
            "${}",
            "${}: a reference is a node, params, run, item or index, and a path such as ${convert.path}",
        ),
        (
            "${convert.}",
            "${convert.}: '.' is no path; write .name, [0], [*] or ['any key'], and :- before a default",
        ),
        (
            "${convert path}",
            "${convert path}: ' path' is no path; write .name, [0], [*] or ['any key'], "
            "and :- before a default",
        ),
        ("${a:-[1}", "${a:-[1}: the default '[1' is not YAML; put it in quotes"),
    ],
)
def test_a_reference_that_cannot_be_read_is_told(written: str, message: str) -> None:
    with pytest.raises(ReferenceSyntaxError) as raised:
        references_in(written)

    assert message == str(raised.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "${plain.pth}",
            "${plain.pth}: plain has no 'pth'; did you mean 'path'?\n  there is: any key, count, none, path",
        ),
        (
            "${convert.pth}",
            "${convert.pth}: convert has no 'pth'; did you mean 'path'?\n"
            "  there is: images, kind, names, path",
        ),
        ("${struct.x}", "${struct.x}: struct has no 'x'\n  there is: path"),
        ("${record.x}", "${record.x}: record has no 'x'\n  there is: path"),
        ("${thing.x}", "${thing.x}: thing has no 'x'\n  there is: path"),
        (
            "${params.opt.lrr}",
            "${params.opt.lrr}: params.opt has no 'lrr'; did you mean 'lr'?\n  there is: lr",
        ),
        ("${plain.count.x}", "${plain.count.x}: plain.count is the number 2, which has no field 'x'"),
        ("${plain.none.x}", "${plain.none.x}: plain.none is null, which has no field 'x'"),
        ("${draw[2].path}", "${draw[2].path}: draw has 2 items, not one at 2"),
        ("${plain[0]}", "${plain[0]}: plain is a mapping, not a list"),
        ("${plain.path[*]}", "${plain.path[*]}: plain.path is text, not a list"),
        (
            "${draw.path}",
            "${draw.path}: draw is a list; for the 'path' of each write ${draw[*].path}",
        ),
        ("${convrt.path}", "${convrt.path}: there is no result of 'convrt'; did you mean 'convert'?"),
        (
            "${skipped.path}",
            "${skipped.path}: there is no result of 'skipped': it was skipped, or it failed\n"
            "  give a default for that case: ${skipped.path:-VALUE}",
        ),
        ("${item.x}", "${item.x}: item is there only in a node with foreach"),
        ("${thing.__class__}", "${thing.__class__}: thing has no '__class__'\n  there is: path"),
    ],
)
def test_a_reference_to_what_is_not_there_is_told(written: str, message: str) -> None:
    with pytest.raises(ReferenceLookupError) as raised:
        resolve(written, SCOPE)

    assert message == str(raised.value)
