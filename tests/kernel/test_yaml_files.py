"""YAML that people write: mappings, no key twice, and where a mistake stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_kernel.yaml_files import YamlError, parse_mapping, read_mapping


def test_a_mapping_is_read_as_plain_data() -> None:
    assert {"a": 1, "b": [True, None, "x"], "c": {"d": 1.5}} == parse_mapping(
        "a: 1\nb: [true, null, x]\nc: {d: 1.5}\n", "f.yaml"
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_document_is_an_empty_mapping(text: str) -> None:
    assert {} == parse_mapping(text, "f.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c\n", "f.yaml line 1, column 5: mapping values are not allowed in this context"),
        (
            "a: 'b\n",
            "f.yaml line 2, column 1: while scanning a quoted scalar from line 1, column 4: "
            "found unexpected end of stream",
        ),
        (
            "a: 1\nb: [1, 2\nc: 3\n",
            "f.yaml line 3, column 2: while parsing a flow sequence from line 2, column 4: "
            "did not find expected ',' or ']'",
        ),
        ("a: *there\n", "f.yaml line 1, column 4: found undefined alias"),
        (
            "a: !!python/name:os.system x\n",
            "f.yaml line 1, column 4: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'",
        ),
        (
            "a: 1\n---\nb: 1\n",
            "f.yaml line 2, column 1: expected a single document in the stream but found another document",
        ),
        ("a: 1\nb: 2\na: 3\n", "f.yaml line 3, column 1: the key 'a' is there twice"),
        ("a:\n  b:\n    c: 1\n    c: 2\n", "f.yaml line 4, column 5: the key 'c' is there twice"),
        ("a: [{b: 1, b: 2}]\n", "f.yaml line 1, column 12: the key 'b' is there twice"),
        ("- a\n", "f.yaml line 1, column 1: expected a mapping (key: value), got a list"),
        ("just text\n", "f.yaml line 1, column 1: expected a mapping (key: value), got text"),
        ("12\n", "f.yaml line 1, column 1: expected a mapping (key: value), got int 12"),
        ("1: a\n", "f.yaml: the key 1 is not text; put it in quotes"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column(text: str, message: str) -> None:
    with pytest.raises(YamlError) as raised:
        parse_mapping(text, "f.yaml")

    assert message == str(raised.value)


def test_the_place_of_a_mistake_is_data_too() -> None:
    with pytest.raises(YamlError) as raised:
        parse_mapping("a: 1\na: 2\n", "f.yaml")

    assert ("f.yaml", 2, 1) == (raised.value.file, raised.value.line, raised.value.column)


def test_a_merge_key_may_be_overridden() -> None:
    text = "base: &base {a: 1, b: 1}\nuse:\n  <<: *base\n  b: 2\n"

    assert {"a": 1, "b": 2} == parse_mapping(text, "f.yaml")["use"]


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes("\ufeffname: ü\n".encode())

    assert {"name": "ü"} == read_mapping(file)


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes("name: ü\n".encode("latin-1"))

    with pytest.raises(YamlError) as raised:
        read_mapping(file)

    assert f"{file}: not UTF-8 text (invalid start byte at byte 6)" == str(raised.value)
