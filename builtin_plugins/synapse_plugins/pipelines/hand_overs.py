"""Which paths in the file system one node hands to another: they may run on different machines."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING, get_args

from synapse_kernel.errors import SynapseError
from synapse_plugins.pipelines.definition import references_of
from synapse_plugins.pipelines.field_types import record_fields
from synapse_plugins.pipelines.reference_types import NotThere, follow
from synapse_plugins.pipelines.targets import find_action
from synapse_plugins.pipelines.type_shapes import bare, members

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.definition import NodeSpec, PipelineSpec

_DEEPEST = 8


def hand_overs(spec: PipelineSpec, kernel: Kernel) -> list[str]:
    """
    Return, a line each, where a node is given a path of another's result, as far as types tell.

    Two nodes that both ask for a custom resource count as put together by whoever wrote so.
    """
    nodes = {node.name: node for node in spec.nodes}
    found: dict[str, None] = {}
    for node in spec.nodes:
        for reference in references_of(node):
            giver = nodes.get(reference.root)
            if giver is None or (_is_pinned(giver) and _is_pinned(node)):
                continue
            result = _result_type(giver, spec, kernel)
            try:
                handed = follow(list[result] if giver.foreach is not None else result, reference)  # type: ignore[valid-type]
            except NotThere:
                continue
            if _holds_paths(handed):
                found[f"node {node.name!r} is given {reference.plain}"] = None
    return list(found)


def _is_pinned(node: NodeSpec) -> bool:
    return node.resources is not None and bool(node.resources.custom)


def _result_type(node: NodeSpec, spec: PipelineSpec, kernel: Kernel) -> object:
    try:
        return find_action(node.action, spec.base, kernel)[1].result_type
    except SynapseError:
        return None


def _holds_paths(annotation: object, depth: int = 0) -> bool:
    """Tell whether values of a type are paths, or hold any."""
    if depth > _DEEPEST:
        return False
    for one in members(bare(annotation)):
        if isinstance(one, type) and issubclass(one, (PurePath, os.PathLike)):
            return True
        inner = [field.annotation for field in (record_fields(one) or {}).values()]
        if any(_holds_paths(each, depth + 1) for each in (*inner, *get_args(one))):
            return True
    return False
