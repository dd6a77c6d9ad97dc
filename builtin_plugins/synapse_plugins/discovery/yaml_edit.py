"""
Adding actions to the text of a `config.yaml`.

What a person wrote stays as it was, to the byte: text is put in at the places that the YAML parser names,
and the result must read as the old data plus what was added. A shape that this cannot do is written anew by
ruamel.yaml, which keeps comments, order and quotes, if not every space.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import MutableMapping
from typing import TypeAlias, cast

import msgspec
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError as RoundTripError
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from synapse_kernel.yaml_files import YamlError, parse_mapping

_Data: TypeAlias = MutableMapping[str, object]
_NO_WRAP = 1 << 20


class CannotEditError(Exception):
    """No edit of the text reads as it must."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What the code adds to a config."""

    added: dict[str, dict[str, str]]
    """The settings of new actions by name."""
    filled: dict[str, str]
    """The entrypoints of actions that have none, by the key of the action."""

    def __bool__(self) -> bool:
        return bool(self.added or self.filled)

    def entrypoints(self) -> dict[str, str]:
        """Return every entrypoint of the change by the key of its action."""
        return {**self.filled, **{name: entry["entrypoint"] for name, entry in self.added.items()}}


class _Insert(msgspec.Struct, frozen=True):
    """Text that takes the place of what is from `start` to `end`."""

    start: int
    end: int
    text: str


def edited(text: str, change: Change) -> str:
    """Return the text of a config with a change made; raises `CannotEditError`."""
    wanted = _changed(parse_mapping(text, ""), change)
    for edit in (_with_inserts, _rewritten):
        try:
            new = edit(text, change)
            if new is not None and parse_mapping(new, "") == wanted:
                return new
        except (YamlError, RoundTripError):
            continue
    raise CannotEditError


def block(data: object, step: int = 2) -> str:
    """Write data as YAML in block style."""
    # PyYAML, as what reads it: it knows which words it would not read as text.
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_NO_WRAP, indent=step)
    return text


def _changed(data: _Data, change: Change) -> _Data:
    """Make a change in data that was read."""
    actions = cast("MutableMapping[str, _Data]", data.setdefault("actions", {}))
    for key, entrypoint in change.filled.items():
        actions[key] = {**actions[key], "entrypoint": entrypoint}
    actions.update(cast("dict[str, _Data]", change.added))
    return data


def _rewritten(text: str, change: Change) -> str:
    """Let ruamel.yaml write the document anew."""
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = _NO_WRAP
    round_trip.explicit_start = text.startswith("---")
    data = round_trip.load(text)
    actions = data.setdefault("actions", CommentedMap())
    for key, entrypoint in change.filled.items():
        actions[key]["entrypoint"] = entrypoint
    for name, entry in change.added.items():
        actions[_quoted(name)] = CommentedMap({key: _quoted(value) for key, value in entry.items()})
    stream = io.StringIO()
    round_trip.dump(data, stream)
    return stream.getvalue()


def _quoted(text: str) -> str:
    """Put in quotes what would not be read as text; ruamel.yaml's own rules are those of YAML 1.2."""
    return text if block([text]) == f"- {text}\n" else SingleQuotedScalarString(text)


def _with_inserts(text: str, change: Change) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    newline = "\r\n" if "\r\n" in text else "\n"
    if not text.endswith("\n"):
        text += newline
    actions = _value(root, "actions")
    inserts: list[_Insert | None] = []
    if isinstance(actions, yaml.MappingNode):
        inserts += [_filling(actions, key, point, newline) for key, point in change.filled.items()]
    if change.added:
        inserts += _adding(text, actions, change.added, newline)
    # The last places first, so that the others stay where they are.
    for insert in sorted((i for i in inserts if i is not None), key=lambda i: i.start, reverse=True):
        text = f"{text[: insert.start]}{insert.text}{text[insert.end :]}"
    return text


def _filling(actions: yaml.MappingNode, key: str, entrypoint: str, newline: str) -> _Insert | None:
    action = _value(actions, key)
    if not isinstance(action, yaml.MappingNode):
        return None
    start = action.start_mark.index
    point = _value(action, "entrypoint")
    shown = json.dumps(entrypoint) if action.flow_style else entrypoint
    if point is not None:
        space = " " if point.start_mark.index == point.end_mark.index else ""
        return _Insert(point.start_mark.index, point.end_mark.index, f"{space}{shown}")
    if action.flow_style:
        return _Insert(start + 1, start + 1, f"entrypoint: {shown}{', ' if action.value else ''}")
    first = action.value[0][0].start_mark
    return _Insert(first.index, first.index, f"entrypoint: {shown}{newline}{' ' * first.column}")


def _adding(
    text: str, actions: yaml.Node | None, added: dict[str, dict[str, str]], newline: str
) -> list[_Insert | None]:
    if actions is None:
        return [_Insert(len(text), len(text), _lines({"actions": added}, 0, 2, newline))]
    if not isinstance(actions, yaml.MappingNode):
        return []
    if not actions.value:
        start, end = actions.start_mark.index, actions.end_mark.index
        before = len(text[:start].rstrip())
        after = _line_end(text, end)
        return [_Insert(before, end, ""), _Insert(after, after, _lines(added, 2, 2, newline))]
    last_key, last = actions.value[-1]
    if actions.flow_style:
        at = _content_end(text, last_key, last)
        return [_Insert(at, at, "".join(f", {_flow(name, entry)}" for name, entry in added.items()))]
    column = last_key.start_mark.column
    at = _after_comments(text, _line_end(text, _content_end(text, last_key, last)), column)
    steps = (
        value.value[0][0].start_mark.column - key.start_mark.column
        for key, value in actions.value
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        if not _is_alias(key, value)
    )
    step = next(steps, max(column, 1))
    gap = newline if len(actions.value) > 1 and _blank_before(text, last_key.start_mark.index) else ""
    lines = [gap + _lines({name: entry}, column, step, newline) for name, entry in added.items()]
    return [_Insert(at, at, "".join(lines))]


def _value(mapping: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for known, value in mapping.value if known.value == key), None)


def _is_alias(key: yaml.Node, value: yaml.Node) -> bool:
    """Tell whether a value is written as ``*name``: its node is that of the anchor, further up."""
    return bool(value.start_mark.index < key.end_mark.index)


def _content_end(text: str, key: yaml.Node, value: yaml.Node) -> int:
    """Return where a value ends, before the blank lines and comments that follow it."""
    if _is_alias(key, value):
        return len(text[: text.find("\n", key.end_mark.index)])
    if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
        return _content_end(text, *value.value[-1])
    if isinstance(value, yaml.SequenceNode) and not value.flow_style and value.value:
        return _content_end(text, key, value.value[-1])
    end: int = value.end_mark.index
    is_block_text = isinstance(value, yaml.ScalarNode) and value.style in {"|", ">"}
    return len(text[:end].rstrip()) if is_block_text else end


def _line_end(text: str, index: int) -> int:
    return text.find("\n", index) + 1


def _after_comments(text: str, index: int, column: int) -> int:
    """Pass over comment lines that directly follow and are indented as part of what is above them."""
    while match := re.compile(r"( *)#[^\n]*\n").match(text, index):
        if len(match.group(1)) < max(column, 1):
            break
        index = match.end()
    return index


def _blank_before(text: str, index: int) -> bool:
    """Tell whether a blank line is above a key, its comments not counted."""
    above = text[:index].splitlines()[:-1]
    while above and above[-1].lstrip().startswith("#"):
        above.pop()
    return bool(above) and not above[-1].strip()


def _lines(data: object, column: int, step: int, newline: str) -> str:
    return "".join(f"{' ' * column}{line}{newline}" for line in block(data, step).splitlines())


def _flow(name: str, entry: dict[str, str]) -> str:
    inner = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items())
    shown = block([name]).removeprefix("- ").strip()
    return f"{shown}: {{{inner}}}"
