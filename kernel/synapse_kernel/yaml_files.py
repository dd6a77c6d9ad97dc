"""Reading of YAML that people write: mappings only, duplicate keys refused, mistakes with line and column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    import yaml


class YamlError(ValueError):
    """A YAML text that cannot be used; the message names file, line and column (both from 1)."""

    def __init__(
        self, file: str | Path, reason: str, line: int | None = None, column: int | None = None
    ) -> None:
        self.file = str(file)
        self.line = line
        self.column = column
        place = f" line {line}, column {column}" if line is not None else ""
        super().__init__(f"{file}{place}: {reason}")


def parse_mapping(text: str, file: str | Path) -> dict[str, object]:
    """Parse a document that must be a mapping; an empty one is an empty mapping. Raises `YamlError`."""
    import yaml

    base: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """The safe loader, but a key written twice is a mistake, not a silent loss."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
            seen: set[object] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                try:
                    duplicate = key in seen
                    seen.add(key)
                except TypeError:
                    continue
                if duplicate:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is there twice", key_node.start_mark
                    )
            built: dict[Hashable, object] = super().construct_mapping(node, deep=deep)
            return built

    try:
        data = yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = _reason(error)
        if mark is None:
            raise YamlError(file, reason) from error
        raise YamlError(file, reason, mark.line + 1, mark.column + 1) from error
    except yaml.YAMLError as error:
        raise YamlError(file, str(error).splitlines()[0]) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise YamlError(file, f"expected a mapping (key: value), got {_kind(data)}", 1, 1)
    for key in data:
        if not isinstance(key, str):
            raise YamlError(file, f"the key {key!r} is not text; put it in quotes")
    return data


def read_mapping(file: str | Path) -> dict[str, object]:
    """Read and parse a file; raises `YamlError` for its content and `OSError` for the file."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(file, f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    return parse_mapping(text, file)


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Say what was being read besides what was found; of a text that never ends, also where it began."""
    context, problem = error.context or "", error.problem or str(error)
    if not context.startswith("while"):
        return f"{context} {problem}".strip()
    began = error.context_mark
    where = "" if began is None else f" from line {began.line + 1}, column {began.column + 1}"
    return f"{context}{where}: {problem}"


def _kind(data: object) -> str:
    if isinstance(data, list):
        return "a list"
    if isinstance(data, str):
        return "text"
    return f"{type(data).__name__} {data!r}"
