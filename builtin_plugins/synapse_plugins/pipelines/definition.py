"""
What a pipeline is: its nodes, their order, and the same as plain data.

A pipeline is a `PipelineSpec` whichever way it was written down, in Python or in a `pipeline.yaml`.
"""

from __future__ import annotations

import enum
import functools
import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from synapse_kernel.contracts import ActionRef, JsonObject, Resources
from synapse_kernel.errors import (
    ParamsError,
    Problem,
    ProblemsError,
    SynapseError,
    UsageError,
    listing,
    suggest,
)
from synapse_plugins.pipelines.conditions import references_in_condition
from synapse_plugins.pipelines.references import SPECIAL, Reference, references_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OnFailure = Literal["stop", "continue"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Required(enum.Enum):
    """The type of `REQUIRED`."""

    REQUIRED = "REQUIRED"

    def __repr__(self) -> str:
        return self.value


REQUIRED: Final = Required.REQUIRED
"""Stands for the default of a pipeline's param that must be given; null in a `pipeline.yaml`."""


class PipelineError(ProblemsError):
    """A pipeline that cannot be used; `problems` holds all that is wrong with it."""


class PipelineProblem(Problem):
    """
    One mistake in a pipeline.

    `where` is its place as a dotted path such as ``nodes.train.with.epochs``; `file` and `line` (from 1) are
    known where the pipeline was read from a file.
    """

    __slots__ = ("file", "line")

    def __init__(self, where: str, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(where, message)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        text = super().__str__()
        if self.file is None:
            return text
        place = self.file if self.line is None else f"{self.file} line {self.line}"
        return f"{place}: {text}"


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"with_": "with"}):
    """One node of a pipeline: an action, what it is given, and how it is run."""

    name: str
    action: str | ActionRef
    """``TARGET:ACTION``, ``TARGET`` if it has but one action, or an action of this process."""
    needs: tuple[str, ...] = ()
    """Nodes that must be done before, besides those that are referred to."""
    with_: JsonObject = {}
    """The action's params; texts in it may hold references."""
    executor: str | None = None
    resources: Resources | None = None
    retries: int = 0
    timeout: float | str | None = None
    """Of an attempt: seconds, or text such as ``1h30m``."""
    env: dict[str, str] | tuple[str, ...] | None = None
    """Variables with their values, or the names of variables to pass on."""
    when: str | bool | None = None
    """A condition; where it does not hold the node is skipped."""
    foreach: object = None
    """A list, or a reference to one: the node is run for each of its items."""
    max_parallel: int | None = None
    """How many instances of a `foreach` may run at once."""
    cache: bool = False
    inputs: tuple[str, ...] = ()
    """Files and folders whose content counts for the cache; may hold references."""
    on_failure: OnFailure = "stop"
    code: str | None = None
    """A fingerprint of the action's code, in the definition of a run."""


class PipelineSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """A pipeline, however it was written down."""

    name: str
    description: str = ""
    version: str | None = None
    params: JsonObject = {}
    """The pipeline's own params and their defaults, `REQUIRED` for those that must be given."""
    nodes: tuple[NodeSpec, ...] = ()
    output: object = None
    """The pipeline's result, with references; None for the results of its last nodes by name."""
    concurrency: int | None = None
    """How many nodes may run at once."""
    base: str | None = None
    """The folder that file targets are relative to; None for the current one."""


def is_name(name: str) -> bool:
    """Tell whether a node may have this name: letters, digits, ``_`` and ``-``, and none of `SPECIAL`."""
    return _NAME.fullmatch(name) is not None and name not in SPECIAL


def why_no_name(name: str) -> str:
    """Say why a node may not have a name."""
    if name in SPECIAL:
        return f"{name!r} is no node's name: references use it ({', '.join(SPECIAL)})"
    return f"{name!r} is no node's name: letters, digits, _ and - are allowed"


def references_of(node: NodeSpec) -> list[Reference]:
    """Return all references of a node, those of its condition too; raises `SynapseError` for bad syntax."""
    found = references_in([node.with_, node.foreach, node.inputs, node.env])
    if isinstance(node.when, str):
        found += references_in_condition(node.when)
    return found


def needs_of(node: NodeSpec) -> tuple[str, ...]:
    """Return the nodes that must be done before a node: those it names and those it refers to, once each."""
    named = [reference.node for reference in references_of(node)]
    return tuple(dict.fromkeys([*node.needs, *(name for name in named if name is not None)]))


def dependencies(spec: PipelineSpec) -> dict[str, tuple[str, ...]]:
    """Return for each node those that must be done before it, in the order of the pipeline."""
    kept = spec.__dict__
    if "dependencies" not in kept:
        kept["dependencies"] = {node.name: needs_of(node) for node in spec.nodes}
    return cast("dict[str, tuple[str, ...]]", kept["dependencies"])


def order(spec: PipelineSpec) -> list[str]:
    """Return the names of the nodes such that each comes after all it needs; raises `PipelineError`."""
    return [name for level in levels(spec) for name in level]


def levels(spec: PipelineSpec) -> list[list[str]]:
    """Return the nodes in levels: those of one need only nodes of those before; raises `PipelineError`."""
    sorter = TopologicalSorter(dependencies(spec))
    try:
        sorter.prepare()
    except CycleError as error:
        cycle = shown_cycle(error.args[1], spec)
        where = f"nodes.{cycle.partition(' → ')[0]}"
        problem = PipelineProblem(where, f"the nodes need each other: {cycle}")
        raise PipelineError(f"The pipeline {spec.name!r} cannot be used:", [problem]) from None
    place = {node.name: at for at, node in enumerate(spec.nodes)}
    found: list[list[str]] = []
    while ready := sorter.get_ready():
        sorter.done(*ready)
        # As they were written, so that a plan does not change from one run to the next.
        found.append(sorted(ready, key=lambda name: place.get(name, -1)))
    return found


def shown_cycle(cycle: Sequence[str], spec: PipelineSpec) -> str:
    """Write a cycle as ``a → b → a``, from its first node in the pipeline."""
    ring = list(cycle[:-1])
    names = [node.name for node in spec.nodes]
    first = min(range(len(ring)), key=lambda at: names.index(ring[at]) if ring[at] in names else len(names))
    return " → ".join([*ring[first:], *ring[:first], ring[first]])


def last_nodes(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """
    Return, of `dependencies`, the nodes that no other needs.

    Their results are the pipeline's, where it names no `output`.
    """
    needed = {name for names in needs.values() for name in names}
    return [name for name in needs if name not in needed]


def join_params(spec: PipelineSpec, given: Mapping[str, object]) -> JsonObject:
    """Lay given params over a pipeline's defaults; raises `ParamsError` for unknown and missing ones."""
    problems = [
        Problem(name, f"unknown{suggest(name, spec.params) or f'; known: {listing(spec.params)}'}")
        for name in given
        if name not in spec.params
    ]
    problems += [
        Problem(name, "missing (required)")
        for name, default in spec.params.items()
        if default is REQUIRED and name not in given
    ]
    if problems:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ParamsError(f"The params of the pipeline {spec.name!r} are not valid ({count}):", problems)
    return {name: given.get(name, default) for name, default in spec.params.items()}


def document_of(spec: PipelineSpec) -> JsonObject:
    """Return a pipeline as plain data, from which `spec_of_document` makes it again."""
    from synapse_kernel.serialization import NotJsonError, to_jsonable, to_plain

    required = [name for name, default in spec.params.items() if default is REQUIRED]
    params = {name: None if name in required else default for name, default in spec.params.items()}
    portable = functools.cache(_portable)
    nodes = tuple(msgspec.structs.replace(node, action=portable(node.action)) for node in spec.nodes)
    plain = msgspec.structs.replace(spec, params=params, nodes=nodes)
    try:
        document = to_plain(plain, name="pipeline")
    except NotJsonError:
        document = to_jsonable(plain)
    assert isinstance(document, dict)
    # By way of JSON, so that it equals what a store gives back.
    return msgspec.json.decode(msgspec.json.encode({**document, "required": required}), type=JsonObject)


def spec_of_document(document: Mapping[str, object]) -> PipelineSpec:
    """
    Return the pipeline that plain data describes; raises `UsageError` where it describes none.

    Without ``required``, each param whose default is null must be given.
    """
    try:
        spec = msgspec.convert(document, PipelineSpec)
        required = msgspec.convert(document.get("required"), list[str] | None)
    except msgspec.ValidationError as error:
        raise UsageError(f"This is no definition of a pipeline: {error}") from None
    if required is None:
        required = [name for name, default in spec.params.items() if default is None]
    params = {name: REQUIRED if name in required else default for name, default in spec.params.items()}
    return msgspec.structs.replace(spec, params=params)


def action_label(action: str | ActionRef) -> str:
    """Return how an action is named to people."""
    return action if isinstance(action, str) else action.entrypoint


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return names without those that come again."""
    return tuple(dict.fromkeys(names))


def _portable(action: str | ActionRef) -> str | ActionRef:
    from synapse_kernel.preparation import portable

    if isinstance(action, str) or action.loaded is None:
        return action
    try:
        return portable(action)
    except SynapseError:
        # Of a function inside another there is but the name to tell.
        return ActionRef(action.entrypoint, action.folder)
