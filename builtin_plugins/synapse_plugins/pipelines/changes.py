"""What differs between a pipeline as it was started and as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

import msgspec

from synapse_plugins.pipelines.references import as_text

_NODES: Final = "nodes"
# What changes no result: how long, how often, where and on what nodes run. To give a node more memory or time
# is why many a run is gone on with.
_PASSED_OVER: Final = {"description", "base", "concurrency", "params", "required", _NODES}
_PASSED_OVER_IN_NODES: Final = {
    "cache", "executor", "max_parallel", "on_failure", "resources", "retries", "timeout",
}  # fmt: skip
_MISSING: Final = object()


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """
    Return what changed between two definitions (see `Pipeline.to_document`), a sentence each.

    What changes no result is passed over: the order of nodes, descriptions, the folder of the file, and on
    what, where, how long and how often nodes run.
    """
    if _same(old, new):
        return []
    return [
        *_differences("", _without(old), _without(new)),
        *_params(old, new),
        *_nodes(_by_name(old), _by_name(new)),
    ]


def changed_nodes(old: Mapping[str, object], new: Mapping[str, object]) -> set[str]:
    """Return the nodes of `new` that are not what they were in `old`, or were not there."""
    before, after = _by_name(old), _by_name(new)
    return {name for name in after if any(True for _ in _node(name, before.get(name), after[name]))}


def _without(document: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if key not in _PASSED_OVER}


def _by_name(document: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    nodes = cast("list[Mapping[str, object]]", document.get(_NODES) or [])
    return {str(node["name"]): node for node in nodes}


def _params(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    before, after = _declared(old), _declared(new)
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield f"params: {name!r} is gone"
        elif name not in before:
            yield f"params: {name!r} is new"
        elif before[name] != after[name]:
            yield f"params: {name!r} was {before[name]}, is {after[name]}"


def _declared(document: Mapping[str, object]) -> dict[str, str]:
    """Return the params with their defaults in words."""
    params = cast("Mapping[str, object]", document.get("params") or {})
    required = cast("list[str]", document.get("required") or [])
    return {
        name: "required" if name in required else f"{_shown(default)} by default"
        for name, default in params.items()
    }


def _nodes(
    before: Mapping[str, Mapping[str, object]], after: Mapping[str, Mapping[str, object]]
) -> Iterator[str]:
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield f"node {name!r} is gone"
            continue
        yield from _node(name, before.get(name), after[name])


def _node(name: str, old: Mapping[str, object] | None, new: Mapping[str, object]) -> Iterator[str]:
    if old is None:
        yield f"node {name!r} is new"
        return
    if _same(old, new):
        return
    before, after = (
        {key: value for key, value in node.items() if key not in _PASSED_OVER_IN_NODES and key != "code"}
        for node in (old, new)
    )
    yield from _differences(f"node {name!r}: ", before, after)
    code = old.get("code"), new.get("code")
    # Without both fingerprints it cannot be told.
    if None not in code and code[0] != code[1]:
        yield f"the code of node {name!r} changed"


def _same(old: object, new: object) -> bool:
    """Tell quickly whether nothing differs; as text, in which true is not one."""
    return msgspec.json.encode(old) == msgspec.json.encode(new)


def _differences(label: str, old: object, new: object, path: str = "") -> Iterator[str]:
    """Tell what differs, key by key as far as both are mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}.{key}" if path else str(key)
            yield from _differences(label, old.get(key, _MISSING), new.get(key, _MISSING), place)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield f"{label}{path} was {_shown(old)}, is {_shown(new)}"


def _shown(value: object) -> str:
    if value is _MISSING:
        return "not given"
    shown = repr(value) if isinstance(value, str) else as_text(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
