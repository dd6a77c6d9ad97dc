"""
Executors on a Ray cluster: a task a run, a pool of warm actors, jobs, and pipelines that live there.

Importing this package imports no Ray: that is done by the executor that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import ExecutorSpec

if TYPE_CHECKING:
    from synapse_plugins.ray_executors.actors import RayActorExecutor
    from synapse_plugins.ray_executors.jobs import RayJobExecutor
    from synapse_plugins.ray_executors.pipelines import RayPipelineExecutor
    from synapse_plugins.ray_executors.tasks import RayTaskExecutor

__all__ = ["RayActorExecutor", "RayJobExecutor", "RayPipelineExecutor", "RayTaskExecutor"]

SYNAPSE_SETTINGS = {"ray": f"{__name__}.settings:RaySettings"}

_PLACES = {
    "RayTaskExecutor": "tasks",
    "RayActorExecutor": "actors",
    "RayJobExecutor": "jobs",
    "RayPipelineExecutor": "pipelines",
}


@hookimpl
def synapse_register_executors() -> list[ExecutorSpec]:
    """Register those that run actions, and the one that runs pipelines."""
    return [
        _spec("ray-task", "tasks:RayTaskExecutor", "a task on a Ray cluster", methods=("task",)),
        _spec("ray-actor", "actors:RayActorExecutor", "a warm actor on a Ray cluster"),
        _spec("ray-job", "jobs:RayJobExecutor", "a job of its own on a Ray cluster; outlives this process",
              methods=("job",), lasting=True),
        _spec("ray-pipeline", "pipeline_host:RayPipelineHost", "pipelines in a Ray cluster",
              lasting=True, pipelines=True),
    ]  # fmt: skip


def _spec(
    name: str,
    target: str,
    summary: str,
    *,
    methods: tuple[str, ...] = (),
    lasting: bool = False,
    pipelines: bool = False,
) -> ExecutorSpec:
    return ExecutorSpec(
        name=name,
        target=f"{__name__}.{target}",
        summary=summary,
        methods=methods,
        lasting=lasting,
        pipelines=pipelines,
        requires=("ray",),
        extra="ray",
    )


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{place}"), name)
