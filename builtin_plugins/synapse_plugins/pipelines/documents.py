"""
Reading of `pipeline.yaml` (or the same as JSON): every mistake at once, each with its line.

What is wrong in one node does not hide what is wrong in the others: a key that cannot be used is left out,
and the rest is checked all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from synapse_kernel.config import ResourcesConfig
from synapse_kernel.contracts import JsonObject, Resources
from synapse_kernel.durations import size
from synapse_kernel.errors import Problem, UsageError
from synapse_kernel.structs import convert
from synapse_kernel.yaml_files import YamlError, parse_mapping
from synapse_plugins.pipelines.definition import (
    REQUIRED,
    NodeSpec,
    OnFailure,
    PipelineError,
    PipelineProblem,
    PipelineSpec,
)
from synapse_plugins.pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    import yaml

    from synapse_kernel.kernel import Kernel

S = TypeVar("S", bound=msgspec.Struct)

FILE_NAMES = ("pipeline.yaml", "pipeline.yml", "pipeline.json")


class NodeDocument(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"with_": "with"}
):
    """One node as a `pipeline.yaml` writes it."""

    action: str
    needs: str | list[str] = []
    with_: JsonObject = {}
    executor: str | None = None
    resources: ResourcesConfig | None = None
    retries: int = 0
    timeout: float | str | None = None
    env: dict[str, str | int | float | bool] | list[str] | None = None
    when: str | bool | None = None
    foreach: str | list[object] | None = None
    max_parallel: int | None = None
    cache: bool = False
    inputs: str | list[str] = []
    on_failure: OnFailure = "stop"


class PipelineDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `pipeline.yaml`; its nodes are read one by one."""

    name: str
    nodes: JsonObject
    description: str = ""
    version: str | int | float | None = None
    params: JsonObject = {}
    output: object = None
    concurrency: int | None = None


class Positions:
    """Where in a file each value stands, by its dotted path."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self.file = file
        self._lines = lines

    def line(self, where: str) -> int | None:
        """Return the line (from 1) of a place, or of what is around it."""
        while where:
            found = self._lines.get(where)
            if found is not None:
                return found
            where = where[: max(where.rfind("."), where.rfind("["), 0)]
        return self._lines.get("")

    def told(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems with their file and line, in the order of the lines."""
        placed = [
            PipelineProblem(p.where, p.message, file=self.file, line=self.line(p.where)) for p in problems
        ]
        return [*sorted(placed, key=lambda problem: problem.line or 0)]


def load_pipeline(file: str | os.PathLike[str], kernel: Kernel | None = None) -> Pipeline:
    """
    Read a pipeline from a file, or from the `pipeline.yaml` of a folder.

    Raises `PipelineError` with all that is wrong, each with its line; with a kernel that is also what its
    actions tell (see `Pipeline.validate`).
    """
    path = _file(Path(file).expanduser())
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PipelineError(
            "The pipeline cannot be read:", [Problem(str(path), error.strerror or str(error))]
        ) from error
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text ({error.reason} at byte {error.start})"
        raise PipelineError("The pipeline cannot be read:", [Problem(str(path), reason)]) from error
    return read_pipeline(text, str(path), base=path.parent, kernel=kernel)


def read_pipeline(
    text: str, file: str, *, base: str | os.PathLike[str] | None = None, kernel: Kernel | None = None
) -> Pipeline:
    """Read a pipeline from text; `file` is what messages call it, `base` what its targets are relative to."""
    try:
        data = parse_mapping(text, file)
    except YamlError as error:
        raise PipelineError("The pipeline cannot be read:", [Problem("", str(error))]) from error
    positions = Positions(file, dict(_lines(text)))
    spec, problems = _spec(data, None if base is None else str(Path(base).absolute()))
    from synapse_plugins.pipelines.validation import check

    told = {problem.where for problem in problems}
    # What was left out above must not be told as missing once more.
    problems += [p for p in check(spec, kernel) if not any(_is_of(p.where, where) for where in told)]
    if problems:
        raise PipelineError(f"{file} cannot be used:", positions.told(problems))
    return Pipeline.of(spec, positions)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = next((path / name for name in FILE_NAMES if (path / name).is_file()), None)
    return path / FILE_NAMES[0] if found is None else found


def _is_of(where: str, told: str) -> bool:
    return where == told or where.startswith((f"{told}.", f"{told}["))


def _spec(data: JsonObject, base: str | None) -> tuple[PipelineSpec, list[Problem]]:
    """Return what can be used of a document, and what is wrong with the rest."""
    document, problems = _salvaged(data, PipelineDocument, "", {"name": "", "nodes": {}})
    nodes: list[NodeSpec] = []
    for name, written in document.nodes.items():
        where = f"nodes.{name}"
        # An action alone stands for a node with nothing else.
        given = {"action": written} if isinstance(written, str) else written
        if not isinstance(given, dict):
            problems.append(Problem(where, f"expected a mapping with its action, got {written!r}"))
            given = {"action": ""}
        node, wrong = _salvaged(given, NodeDocument, where, {"action": ""})
        problems += wrong
        nodes.append(_node(name, node, where, problems))
    version = document.version
    spec = PipelineSpec(
        name=document.name,
        description=document.description,
        version=None if version is None else str(version),
        params={key: REQUIRED if value is None else value for key, value in document.params.items()},
        nodes=tuple(nodes),
        output=document.output,
        concurrency=document.concurrency,
        base=base,
    )
    return spec, problems


def _salvaged(
    data: Mapping[str, object], kind: type[S], where: str, instead: Mapping[str, object]
) -> tuple[S, list[Problem]]:
    """Read data as a struct without its keys that cannot be used; `instead` stands for required ones."""
    found, problems = convert(data, kind, where=where)
    if found is not None:
        return found, problems
    bad = {_first_part(problem.where.removeprefix(where).removeprefix(".")) for problem in problems}
    rest = {key: value for key, value in data.items() if key not in bad}
    mended, _ = convert({**{k: v for k, v in instead.items() if k not in rest}, **rest}, kind, where=where)
    if mended is None:
        mended = msgspec.convert(dict(instead), kind)
    return mended, problems


def _first_part(where: str) -> str:
    return where.partition(".")[0].partition("[")[0]


def _node(name: str, node: NodeDocument, where: str, problems: list[Problem]) -> NodeSpec:
    env = node.env
    return NodeSpec(
        name=name,
        action=node.action,
        needs=tuple(dict.fromkeys([node.needs] if isinstance(node.needs, str) else node.needs)),
        with_=node.with_,
        executor=node.executor,
        resources=_resources(node.resources, where, problems),
        retries=node.retries,
        timeout=node.timeout,
        env={key: _env_text(value) for key, value in env.items()}
        if isinstance(env, dict)
        else None
        if env is None
        else tuple(env),
        when=node.when,
        foreach=node.foreach,
        max_parallel=node.max_parallel,
        cache=node.cache,
        inputs=(node.inputs,) if isinstance(node.inputs, str) else tuple(node.inputs),
        on_failure=node.on_failure,
    )


def _resources(asked: ResourcesConfig | None, where: str, problems: list[Problem]) -> Resources | None:
    if asked is None:
        return None
    memory = asked.memory
    if isinstance(memory, str):
        try:
            memory = size(memory)
        except UsageError as error:
            problems.append(Problem(f"{where}.resources.memory", str(error)))
            memory = None
    return Resources(cpus=asked.cpus, gpus=asked.gpus, memory=memory, custom=asked.custom)


def _env_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield the places of a document with their lines: a key's own line, an item's first."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    root = yaml.compose(text, Loader=base)
    yield "", 1
    if root is not None:
        yield from _lines_in(root, "", set())


def _lines_in(node: yaml.Node, where: str, around: set[int]) -> Iterator[tuple[str, int]]:
    import yaml

    if id(node) in around:
        return
    inside = around | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = f"{where}.{key.value}" if where else str(key.value)
            yield place, key.start_mark.line + 1
            yield from _lines_in(value, place, inside)
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield f"{where}[{at}]", item.start_mark.line + 1
            yield from _lines_in(item, f"{where}[{at}]", inside)
