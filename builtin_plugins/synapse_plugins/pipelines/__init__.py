"""
Pipelines of actions, linear or as a graph: written in Python or in a `pipeline.yaml`.

The public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.lazy_names import names_from
from synapse_kernel.specs import CommandSpec, ExecutorSpec

# Each under its own name once more: to type checkers that says that the package offers it.
if TYPE_CHECKING:
    from synapse_plugins.pipelines.definition import (
        REQUIRED as REQUIRED,
        PipelineError as PipelineError,
        PipelineSpec as PipelineSpec,
    )
    from synapse_plugins.pipelines.display import (
        display_progress as display_progress,
        display_progress_async as display_progress_async,
    )
    from synapse_plugins.pipelines.documents import load_pipeline as load_pipeline
    from synapse_plugins.pipelines.engine import PipelineChangedError as PipelineChangedError
    from synapse_plugins.pipelines.linear import ActionPipeline as ActionPipeline
    from synapse_plugins.pipelines.pipeline import Pipeline as Pipeline
    from synapse_plugins.pipelines.progress import (
        ActionProgress as ActionProgress,
        ActionStatus as ActionStatus,
        PipelineProgress as PipelineProgress,
        RunStatus as RunStatus,
        track as track,
        track_async as track_async,
    )
    from synapse_plugins.pipelines.work_folders import PipelineContext as PipelineContext

_HOMES = {
    "definition": "REQUIRED PipelineError PipelineSpec",
    "display": "display_progress display_progress_async",
    "documents": "load_pipeline",
    "linear": "ActionPipeline",
    "pipeline": "Pipeline",
    "engine": "PipelineChangedError",
    "progress": "ActionProgress ActionStatus PipelineProgress RunStatus track track_async",
    "work_folders": "PipelineContext",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_HOME_OF]  # noqa: PLE0604 - names, computed from the one table above


@hookimpl
def synapse_register_commands() -> list[CommandSpec]:
    """Register `pipeline`."""
    return [
        CommandSpec(
            name="pipeline",
            target="synapse_plugins.pipelines.commands:pipeline",
            summary="Run, plan and check pipelines of actions.",
        )
    ]


@hookimpl
def synapse_register_executors() -> list[ExecutorSpec]:
    """Register `pipeline`, where a pipeline itself runs."""
    return [
        ExecutorSpec(
            name="pipeline",
            target="synapse_plugins.pipelines.executor:PipelineExecutor",
            summary="a pipeline itself: in this process, its nodes where each says",
        )
    ]


# No `__dir__`: what looks for hooks looks at each name there, and would import all of these.
__getattr__ = names_from(__name__, _HOME_OF)
