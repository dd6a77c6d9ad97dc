"""What Ray says of the nodes of the cluster that this process is connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import ray

if TYPE_CHECKING:
    from collections.abc import Mapping


class Node(TypedDict):
    """What is read of a node."""

    NodeID: str
    NodeManagerAddress: str
    NodeManagerHostname: str
    NodeManagerPort: int
    Alive: bool
    Resources: dict[str, float]


def sums(nodes: list[Mapping[str, float]]) -> dict[str, float]:
    """Return what nodes have together, of what people ask for."""
    names = [name for name in ("CPU", "GPU", "memory") if any(node.get(name) for node in nodes)]
    named = dict.fromkeys(
        name
        for node in nodes
        for name in node
        if not name.startswith(("node:", "accelerator_type")) and name != "object_store_memory"
    )
    return {name: sum(node.get(name, 0) for node in nodes) for name in dict.fromkeys([*names, *named])}


def own_raylet() -> str | None:
    """Return where the node of this process listens, as ``host:port``."""
    own = ray.get_runtime_context().get_node_id()
    for node in all_nodes():
        if node["NodeID"] == own:
            return f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
    return None


def all_nodes() -> list[Node]:
    """Return every node that the cluster has had."""
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def available_now() -> dict[str, float]:
    """Return what is not in use, over all nodes."""
    available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return available


def machines() -> list[str]:
    """Return the machines of the cluster, by name: several nodes may be on one."""
    return sorted({node["NodeManagerHostname"] for node in all_nodes() if node["Alive"]})
