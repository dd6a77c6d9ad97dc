"""
All that is wrong with a pipeline, found before anything of it runs.

Here is what the pipeline's own text tells: names, needs, cycles, references, conditions, limits. What the
actions' types tell is in `data_checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, get_args

import msgspec

from synapse_kernel.durations import seconds
from synapse_kernel.errors import SynapseError, listing, suggest
from synapse_plugins.pipelines.conditions import ConditionError, parse_condition
from synapse_plugins.pipelines.definition import (
    NodeSpec,
    OnFailure,
    PipelineProblem,
    PipelineSpec,
    is_name,
    shown_cycle,
    why_no_name,
)
from synapse_plugins.pipelines.references import (
    RUN_FIELDS,
    SPECIAL,
    Key,
    Reference,
    ReferenceSyntaxError,
    references_in,
)

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel


class PlacedReference(msgspec.Struct, frozen=True):
    """A reference and its place, as a dotted path such as ``nodes.train.with.data``."""

    where: str
    reference: Reference


class References(msgspec.Struct, frozen=True):
    """The references of a pipeline that can be followed, by node; those of its output under ``""``."""

    by_node: dict[str, list[PlacedReference]]


def check(spec: PipelineSpec, kernel: Kernel | None = None) -> list[PipelineProblem]:
    """
    Return all that is wrong with a pipeline, in its own order.

    Without a kernel the actions, their params and results, and the executors are not looked at.
    """
    found = References({})
    names = {node.name: None for node in spec.nodes}
    problems = [
        *_head_problems(spec),
        *(problem for node in spec.nodes for problem in _node_problems(node, spec, names, found)),
        *_output_problems(spec, names, found),
        *_cycles(spec, found),
        *_unused(spec, found),
    ]
    if kernel is not None:
        from synapse_plugins.pipelines.data_checks import DataChecks

        problems += _unknown_executors(spec, kernel)
        problems += DataChecks(spec, kernel, found).problems()
    place = {f"nodes.{node.name}": at for at, node in enumerate(spec.nodes)}
    return sorted(
        {(problem.where, problem.message): problem for problem in problems}.values(),
        key=lambda problem: place.get(".".join(problem.where.split(".")[:2]), -1),
    )


def _head_problems(spec: PipelineSpec) -> Iterator[PipelineProblem]:
    if not spec.name.strip():
        yield PipelineProblem("name", "a pipeline needs a name")
    if not spec.nodes:
        yield PipelineProblem("nodes", "a pipeline needs at least one node")
    if spec.concurrency is not None and spec.concurrency < 1:
        yield PipelineProblem("concurrency", f"must be at least 1, got {spec.concurrency}")
    for name in spec.params:
        if not name.isidentifier():
            yield PipelineProblem(
                f"params.{name}", f"{name!r} is no param's name; write it like a variable's"
            )


def _node_problems(
    node: NodeSpec, spec: PipelineSpec, names: Mapping[str, None], found: References
) -> Iterator[PipelineProblem]:
    where = f"nodes.{node.name}"
    if not is_name(node.name):
        yield PipelineProblem(where, why_no_name(node.name))
    for at, need in enumerate(node.needs):
        if need not in names:
            yield PipelineProblem(f"{where}.needs[{at}]", _no_node(need, names))
    yield from _limit_problems(node, where)
    kept = found.by_node.setdefault(node.name, [])
    for place, value in _values(node):
        yield from _reference_problems(place, value, spec, names, kept, in_loop=_in_loop(node, place))
    if isinstance(node.when, str):
        try:
            parse_condition(node.when)
        except ConditionError as error:
            yield PipelineProblem(f"{where}.when", f"the condition {error.condition!r} {error.reason}")
        except ReferenceSyntaxError:
            pass  # told with the references


def _unknown_executors(spec: PipelineSpec, kernel: Kernel) -> Iterator[PipelineProblem]:
    known = kernel.registry.names("executors")
    for node in spec.nodes:
        if node.executor is not None and node.executor not in known:
            text = f"there is no executor {node.executor!r}{_nearest(node.executor, known, 'registered')}"
            yield PipelineProblem(f"nodes.{node.name}.executor", text)


def _limit_problems(node: NodeSpec, where: str) -> Iterator[PipelineProblem]:
    try:
        seconds(node.timeout)
    except SynapseError as error:
        yield PipelineProblem(f"{where}.timeout", str(error))
    if node.retries < 0:
        yield PipelineProblem(f"{where}.retries", f"must not be negative, got {node.retries}")
    if node.on_failure not in get_args(OnFailure):
        choices = get_args(OnFailure)
        hint = suggest(node.on_failure, choices)
        text = f"expected one of {', '.join(choices)}, got {node.on_failure!r}{hint}"
        yield PipelineProblem(f"{where}.on_failure", text)
    if node.max_parallel is not None and node.max_parallel < 1:
        yield PipelineProblem(f"{where}.max_parallel", f"must be at least 1, got {node.max_parallel}")
    if node.max_parallel is not None and node.foreach is None:
        yield PipelineProblem(f"{where}.max_parallel", "bounds the instances of a foreach, and there is none")
    for name in ("cpus", "gpus", "memory"):
        amount = getattr(node.resources, name, None)
        if amount is not None and amount < 0:
            yield PipelineProblem(f"{where}.resources.{name}", f"must not be negative, got {amount}")


def _values(node: NodeSpec) -> Iterator[tuple[str, object]]:
    """Yield each text of a node that may hold references, with its place."""
    where = f"nodes.{node.name}"
    yield from texts_in(node.with_, f"{where}.with")
    yield from texts_in(node.foreach, f"{where}.foreach")
    yield from texts_in(node.when, f"{where}.when")
    yield from texts_in(node.inputs, f"{where}.inputs")
    yield from texts_in(node.env, f"{where}.env")


def texts_in(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in a value with their places."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_in(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for at, item in enumerate(value):
            yield from texts_in(item, f"{where}[{at}]")


def _in_loop(node: NodeSpec, place: str) -> bool:
    own = place.removeprefix(f"nodes.{node.name}.")
    # The condition is of the node, not of its instances.
    return node.foreach is not None and not own.startswith(("foreach", "when"))


def _reference_problems(
    where: str,
    value: object,
    spec: PipelineSpec,
    names: Mapping[str, None],
    kept: list[PlacedReference],
    *,
    in_loop: bool,
) -> Iterator[PipelineProblem]:
    try:
        references = references_in(value)
    except ReferenceSyntaxError as error:
        yield PipelineProblem(where, str(error))
        return
    for reference in references:
        wrong = _why_not(reference, spec, names, in_loop=in_loop)
        if wrong is None:
            kept.append(PlacedReference(where, reference))
        else:
            yield PipelineProblem(where, f"{reference.text}: {wrong}")


def _why_not(
    reference: Reference, spec: PipelineSpec, names: Mapping[str, None], *, in_loop: bool
) -> str | None:
    """Say what is wrong with a reference's root and, of those that the pipeline itself knows, its field."""
    root = reference.root
    if root in {"item", "index"}:
        return None if in_loop else f"{root} is there only in with, inputs and env of a node with foreach"
    if root not in SPECIAL:
        return None if root in names else _no_node(root, names)
    first = reference.path[0] if reference.path else None
    known = RUN_FIELDS if root == "run" else tuple(spec.params)
    if first is None:
        return f"write which, as in ${{run.{known[0]}}}" if root == "run" else None
    if isinstance(first, Key) and first.name in known:
        return None
    shown = first.name if isinstance(first, Key) else str(first)
    what = "run has no" if root == "run" else "the pipeline declares no param"
    return f"{what} {shown!r}{_nearest(shown, known, 'there is' if root == 'run' else 'declared')}"


def _output_problems(
    spec: PipelineSpec, names: Mapping[str, None], found: References
) -> Iterator[PipelineProblem]:
    kept = found.by_node.setdefault("", [])
    for place, value in texts_in(spec.output, "output"):
        yield from _reference_problems(place, value, spec, names, kept, in_loop=False)


def _cycles(spec: PipelineSpec, found: References) -> Iterator[PipelineProblem]:
    """Tell each cycle once; one that shares a node with another may be told only when that is mended."""
    names = {node.name for node in spec.nodes}
    needs = {
        node.name: {
            *(need for need in node.needs if need in names),
            *(placed.reference.root for placed in found.by_node[node.name] if placed.reference.node),
        }
        for node in spec.nodes
    }
    while True:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            ring = error.args[1]
        else:
            return
        text = shown_cycle(ring, spec)
        first = text.partition(" → ")[0]
        yield PipelineProblem(f"nodes.{first}", f"the nodes need each other: {text}")
        needs = {name: wanted - set(ring) for name, wanted in needs.items() if name not in ring}


def _unused(spec: PipelineSpec, found: References) -> Iterator[PipelineProblem]:
    used: set[str] = set()
    for placed in (placed for several in found.by_node.values() for placed in several):
        if placed.reference.root == "params":
            first = placed.reference.path[0] if placed.reference.path else None
            used.update((first.name,) if isinstance(first, Key) else spec.params)
    for name in spec.params:
        if name not in used:
            text = f"nothing refers to it; use it as ${{params.{name}}}, or take it out"
            yield PipelineProblem(f"params.{name}", text)


def _no_node(name: str, names: Mapping[str, None]) -> str:
    return f"there is no node {name!r}{_nearest(name, names, 'nodes here')}"


def _nearest(name: str, known: Iterable[str], label: str) -> str:
    return suggest(name, known) or f"; {label}: {listing(known)}"
