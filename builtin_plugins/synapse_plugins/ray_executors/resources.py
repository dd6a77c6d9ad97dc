"""What a task asks of a cluster, in Ray's terms; what the cluster has, and why the task has to wait."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synapse_kernel.contracts import Resources
    from synapse_plugins.ray_executors.settings import Placement

GIB = 1024**3
# What Ray counts for itself beside what people ask for.
_NODE_MARK = "node:"
_KINDS_TOLD = 5
_NAMES = {"CPU": ("CPU", "CPUs"), "GPU": ("GPU", "GPUs")}


def demand_of(resources: Resources) -> dict[str, float]:
    """Return what a task needs, by Ray's names: one CPU where nothing is said, memory in bytes."""
    demand = {"CPU": 1.0 if resources.cpus is None else resources.cpus}
    if resources.gpus:
        demand["GPU"] = resources.gpus
    if resources.memory:
        demand["memory"] = float(resources.memory)
    demand.update(resources.custom)
    return {name: amount for name, amount in demand.items() if amount > 0}


def ray_options(demand: Mapping[str, float], placement: Placement) -> dict[str, object]:
    """Return the options of a Ray task or actor for a demand."""
    options: dict[str, object] = {"num_cpus": demand.get("CPU", 0)}
    if "GPU" in demand:
        options["num_gpus"] = demand["GPU"]
    if "memory" in demand:
        options["memory"] = int(demand["memory"])
    custom = {name: amount for name, amount in demand.items() if name not in {"CPU", "GPU", "memory"}}
    if custom:
        options["resources"] = custom
    if placement == "spread":
        options["scheduling_strategy"] = "SPREAD"
    return options


def is_possible(demand: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> bool:
    """Tell whether one node of those given has all of a demand, were it idle."""
    return any(all(node.get(name, 0) >= amount for name, amount in demand.items()) for node in nodes)


def shortage(demand: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    """Describe what a cluster has, of what is asked for, where no node has all of it."""
    asked = told(demand)
    if not nodes:
        return f"it asks for {asked}, and the cluster has no node that is alive"
    kinds = Counter(told(_relevant(node, demand)) for node in nodes).most_common(_KINDS_TOLD + 1)
    lines = [f"  {'1 node has' if count == 1 else f'{count} nodes have'} {has}" for has, count in kinds]
    lines[_KINDS_TOLD:] = ["  and others"] if len(kinds) > _KINDS_TOLD else []
    return "\n".join([f"it asks for {asked}, which no node of the cluster has", *lines])


def never_starts(where: str, why: str) -> str:
    """Say of a run that no node of a cluster can ever take it; `why` is its `shortage`."""
    return (
        f"The run can never start on the Ray cluster at {where}: {why}\n"
        "  ask for less, or set ray.autoscaling where nodes come when they are asked for"
    )


def waiting_for(
    demand: Mapping[str, float], total: Mapping[str, float], available: Mapping[str, float]
) -> str:
    """Describe why a demand that can be met has to wait."""
    parts = [
        f"{_amount(name, amount)}: {_bare(name, total.get(name, 0) - available.get(name, 0))} of "
        f"{_bare(name, total.get(name, 0))} in use"
        for name, amount in demand.items()
        if available.get(name, 0) < amount
    ]
    return f"waiting for {', '.join(parts)}" if parts else "waiting for a worker to start"


def told(amounts: Mapping[str, float]) -> str:
    """Return amounts of resources as a person reads them, such as ``2 CPUs, 1.5 GiB of memory``."""
    return ", ".join(_amount(name, amount) for name, amount in amounts.items()) or "nothing"


def _relevant(node: Mapping[str, float], demand: Mapping[str, float]) -> dict[str, float]:
    names = [*demand, *(name for name in ("CPU", "GPU", "memory") if name not in demand and node.get(name))]
    return {name: node.get(name, 0) for name in names if not name.startswith(_NODE_MARK)}


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{_bare(name, amount)} of memory"
    one, many = _NAMES.get(name, (name, name))
    return f"{amount:g} {one if amount == 1 else many}"


def _bare(name: str, amount: float) -> str:
    return f"{amount / GIB:.3g} GiB" if name == "memory" else f"{amount:g}"
