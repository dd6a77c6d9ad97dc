"""A pipeline's graph as text: a tree for the terminal, Mermaid, Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse_plugins.pipelines.definition import (
    REQUIRED,
    NodeSpec,
    PipelineSpec,
    action_label,
    dependencies,
    order,
)
from synapse_plugins.pipelines.references import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MARKS: Final[Mapping[str, str]] = {
    "succeeded": "✓",
    "failed": "✗",
    "timed_out": "✗",
    "crashed": "✗",
    "cancelled": "✗",
    "running": "▸",
    "skipped": "○",
}
_COLOURS: Final[Mapping[str, str]] = {
    "succeeded": "#c8e6c9",
    "failed": "#ffcdd2",
    "timed_out": "#ffcdd2",
    "crashed": "#ffcdd2",
    "cancelled": "#ffe0b2",
    "running": "#bbdefb",
    "skipped": "#eeeeee",
}


def tree(spec: PipelineSpec, states: Mapping[str, str] | None = None) -> str:
    """
    Return the graph as lines of text.

    Each node stands once, under the last of those it needs; ``↓`` leads to what alone follows, and the
    others that it needs are named behind it. `states` maps nodes to how far they are. Raises `PipelineError`
    for a cycle.
    """
    needs = dependencies(spec)
    nodes = {node.name: node for node in spec.nodes}
    place = {name: at for at, name in enumerate(order(spec))}
    below: dict[str | None, list[str]] = {}
    for node in spec.nodes:
        above = max(needs[node.name], key=lambda name: place[name], default=None)
        below.setdefault(above, []).append(node.name)
    lines = [_title(spec)]
    # What is still to be drawn, the next last: a graph may be deeper than Python's stack.
    pending = [(name, "", last) for name, last in _marked(below.get(None, ()))]
    while pending:
        name, indent, last = pending.pop()
        branch, deeper = ("└─ ", "   ") if last else ("├─ ", "│  ")
        lines.append(indent + branch + _line(nodes[name], needs[name], place, states))
        indent += deeper
        following = below.get(name, [])
        while len(following) == 1:
            name = following[0]
            lines.append(f"{indent}↓ {_line(nodes[name], needs[name], place, states)}")
            following = below.get(name, [])
        pending += [(name, indent, last) for name, last in _marked(following)]
    return "\n".join(lines)


def mermaid(spec: PipelineSpec, states: Mapping[str, str] | None = None) -> str:
    """Return the graph as a Mermaid flowchart."""
    ids = {node.name: f"n{at}" for at, node in enumerate(spec.nodes)}
    lines = ["flowchart TD"]
    for node in spec.nodes:
        label = "<br/>".join(_for_mermaid(line) for line in _label(node, states))
        opening, closing = ('[["', '"]]') if node.foreach is not None else ('["', '"]')
        lines.append(f"    {ids[node.name]}{opening}{label}{closing}")
    lines += [
        f"    {ids[need]} --> {ids[name]}"
        for name, needed in dependencies(spec).items()
        for need in needed
        if need in ids
    ]
    for state, colour in _COLOURS.items():
        marked = [ids[name] for name, own in (states or {}).items() if own == state and name in ids]
        if marked:
            lines += [f"    classDef {state} fill:{colour}", f"    class {','.join(marked)} {state}"]
    return "\n".join(lines)


def graphviz(spec: PipelineSpec, states: Mapping[str, str] | None = None) -> str:
    """Return the graph in Graphviz's DOT language."""
    lines = [
        f"digraph {_quoted(spec.name)} {{",
        '    node [shape=box, style="rounded,filled", fillcolor=white]',
    ]
    for node in spec.nodes:
        label = "\\n".join(_quoted(line)[1:-1] for line in _label(node, states))
        colour = _COLOURS.get((states or {}).get(node.name, ""))
        fill = f', fillcolor="{colour}"' if colour else ""
        sides = ", peripheries=2" if node.foreach is not None else ""
        lines.append(f'    {_quoted(node.name)} [label="{label}"{fill}{sides}]')
    lines += [
        f"    {_quoted(need)} -> {_quoted(name)}"
        for name, needed in dependencies(spec).items()
        for need in needed
    ]
    return "\n".join([*lines, "}"])


def details(node: NodeSpec) -> list[str]:
    """Return how a node is run, where that is not the usual, a phrase each."""
    resources = node.resources
    amounts = [(name, getattr(resources, name, None)) for name in ("cpus", "gpus")]
    memory = getattr(resources, "memory", None)
    custom = resources.custom if resources is not None else {}
    return [
        *([f"foreach {as_text(node.foreach)}"] if node.foreach is not None else []),
        *([f"{node.max_parallel} at once"] if node.max_parallel is not None else []),
        *([f"when {as_text(node.when)}"] if node.when is not None else []),
        *([f"executor {node.executor}"] if node.executor is not None else []),
        *(f"{name} {amount:g}" for name, amount in [*amounts, *custom.items()] if amount is not None),
        *([f"memory {memory} bytes"] if memory is not None else []),
        *([f"retries {node.retries}"] if node.retries else []),
        *([f"timeout {_duration(node.timeout)}"] if node.timeout is not None else []),
        *(["cache"] if node.cache else []),
        *(["goes on if it fails"] if node.on_failure == "continue" else []),
    ]


def _title(spec: PipelineSpec) -> str:
    params = [
        name if default is REQUIRED else f"{name}={as_text(default)}" for name, default in spec.params.items()
    ]
    return f"{spec.name} ({', '.join(params)})" if params else spec.name


def _line(
    node: NodeSpec, needed: tuple[str, ...], place: Mapping[str, int], states: Mapping[str, str] | None
) -> str:
    state = (states or {}).get(node.name)
    name = node.name if state is None else f"{node.name} {_MARKS.get(state, '·')} {state}"
    told = details(node)
    others = sorted(needed, key=lambda need: place[need])[:-1]
    return "  ".join(
        [
            name,
            action_label(node.action),
            *([f"[{', '.join(told)}]"] if told else []),
            *([f"← also {', '.join(others)}"] if others else []),
        ]
    )


def _label(node: NodeSpec, states: Mapping[str, str] | None) -> list[str]:
    state = (states or {}).get(node.name)
    return [
        node.name if state is None else f"{node.name} {_MARKS.get(state, '·')}",
        action_label(node.action),
        *details(node),
    ]


def _marked(names: list[str] | tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield names from the last to the first, and whether each is the last."""
    for at in range(len(names) - 1, -1, -1):
        yield names[at], at == len(names) - 1


def _duration(timeout: float | str) -> str:
    return timeout if isinstance(timeout, str) else f"{timeout:g} s"


def _for_mermaid(text: str) -> str:
    """Write text for inside Mermaid's quotes, where ``#`` begins the name of a character."""
    escaped = text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return escaped.replace("&", "#amp;").replace("`", "#96;").replace("\n", " ")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
