"""
Pipelines that run in another process: made plain data here, and made a run of there.

What travels is the pipeline's document; its actions must be such that another process finds them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import ActionRef, ActionSpec
from synapse_kernel.durations import seconds
from synapse_kernel.errors import Problem, SynapseError, UsageError
from synapse_kernel.lasting import PipelineOrder
from synapse_kernel.preparation import portable
from synapse_kernel.redaction import MASK
from synapse_kernel.serialization import params_to_plain
from synapse_plugins.pipelines.definition import (
    NodeSpec,
    PipelineError,
    PipelineSpec,
    document_of,
    spec_of_document,
)
from synapse_plugins.pipelines.engine import Launch
from synapse_plugins.pipelines.hand_overs import hand_overs
from synapse_plugins.pipelines.pipeline import Pipeline
from synapse_plugins.pipelines.running import Runnable
from synapse_plugins.pipelines.targets import find_action, split_action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.running import LaunchKeywords

_CHECKED = ("concurrency", "executor")


def order_of(
    kernel: Kernel, pipeline: object, params: Mapping[str, object], options: Mapping[str, object]
) -> PipelineOrder:
    """
    Return what another process needs to run a pipeline; `options` are `LaunchKeywords`.

    Raises what is wrong with the pipeline and its params, and `UsageError` for one that cannot travel.
    """
    given = cast("LaunchKeywords", options)
    pipeline = _found(kernel, pipeline)
    if not isinstance(pipeline, Pipeline):
        kind = type(pipeline).__name__
        name = f"{kind} {pipeline.spec.name!r}" if isinstance(pipeline, Runnable) else kind
        raise UsageError(
            f"The {name} cannot run in another process: only what is a Pipeline is plain data\n"
            "  write it as a Pipeline or as a pipeline.yaml, or run it here"
        )
    resume = given.get("resume")
    if resume is None:
        # For what it checks. The run is another's.
        checks = {name: options[name] for name in _CHECKED if name in options}
        Launch(kernel, pipeline, params, record=False, **checks)  # type: ignore[arg-type]
    else:
        pipeline.check_for(kernel)
    spec = pipeline.spec
    portable_spec = _with_portable_actions(spec)
    actions = _actions(portable_spec, kernel)
    limit = given.get("timeout")
    return PipelineOrder(
        run_id=resume or os.urandom(8).hex(),
        name=spec.name,
        document=document_of(portable_spec),
        params=params_to_plain(params),
        target=given.get("target"),
        resume=resume is not None,
        force=given.get("force", False),
        use_cache=given.get("use_cache", True),
        concurrency=given.get("concurrency"),
        executor=given.get("executor"),
        timeout=None if limit is None else seconds(limit),
        tags=list(given.get("tags", ())),
        job_id=given.get("job_id"),
        actions=actions,
        env=_variables(kernel, spec, actions),
        hand_overs=hand_overs(spec, kernel),
    )


def begin(
    kernel: Kernel, order: PipelineOrder, *, executor: str, resume: bool, places: Mapping[str, str]
) -> Run:
    """
    Start the pipeline of an order; see `PipelineConductor.begin`.

    Raises what `Launch` and `Launch.submit` do.
    """
    launch = Launch(
        kernel,
        Pipeline.of(_placed(spec_of_document(order.document), places)),
        order.params,
        resume=order.run_id if resume else None,
        force=order.force,
        use_cache=order.use_cache,
        concurrency=order.concurrency,
        executor=order.executor,
        target=order.target,
        run_id=order.run_id,
        conductor=executor,
    )
    return launch.submit(sinks=(), tags=order.tags, timeout=order.timeout, job_id=order.job_id)


def _found(kernel: Kernel, pipeline: object) -> object:
    """Return the pipeline that is meant, where it is named or described."""
    if isinstance(pipeline, (str, os.PathLike)):
        from synapse_plugins.pipelines.loading import find_pipeline

        return find_pipeline(os.fspath(pipeline), kernel)
    if not isinstance(pipeline, Mapping):
        return pipeline
    spec = spec_of_document(pipeline)
    if may_hold_mask(pipeline):
        raise UsageError(
            f"The record of the pipeline {spec.name!r} holds no secrets, and some stand in the pipeline\n"
            "  give the pipeline itself"
        )
    # What the code was then is no part of the pipeline.
    nodes = tuple(msgspec.structs.replace(node, code=None) for node in spec.nodes)
    return Pipeline.of(msgspec.structs.replace(spec, nodes=nodes))


def may_hold_mask(document: Mapping[str, object]) -> bool:
    """Tell whether something was masked in a recorded pipeline."""
    return f'"{MASK}"'.encode() in msgspec.json.encode(document)


def _with_portable_actions(spec: PipelineSpec) -> PipelineSpec:
    """Return a pipeline whose actions another process finds; raises `PipelineError` with those it cannot."""
    problems: list[Problem] = []
    nodes: list[NodeSpec] = []
    for node in spec.nodes:
        action = node.action
        if isinstance(action, ActionRef):
            try:
                action = portable(action)
            except SynapseError as error:
                problems.append(Problem(f"nodes.{node.name}.action", str(error)))
        nodes.append(msgspec.structs.replace(node, action=action))
    if problems:
        raise PipelineError(f"The pipeline {spec.name!r} cannot run in another process:", problems)
    base = str(Path(spec.base or ".").absolute())
    return msgspec.structs.replace(spec, nodes=tuple(nodes), base=base)


def _actions(spec: PipelineSpec, kernel: Kernel) -> list[ActionSpec]:
    """Return the actions of a pipeline, each once, as far as another process needs to know them."""
    found: dict[str, ActionSpec] = {}
    for node in spec.nodes:
        action, _ = find_action(node.action, spec.base, kernel)
        bare = ActionSpec(
            name=action.name,
            ref=portable(action.ref),
            env_names=action.env_names,
            runtime_env=action.runtime_env,
        )
        found.setdefault(f"{bare.ref.folder} {bare.ref.entrypoint}", bare)
    return list(found.values())


def _variables(kernel: Kernel, spec: PipelineSpec, actions: Iterable[ActionSpec]) -> dict[str, str]:
    """Return the variables of this process that are passed on by name, by the settings or by any node."""
    settings = kernel.settings.kernel.env
    names = set(settings.names)
    for action in actions:
        names.update(action.env_names)
    for node in spec.nodes:
        if isinstance(node.env, tuple):
            names.update(node.env)
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or (settings.prefix and name.startswith(settings.prefix))
    }


def _placed(spec: PipelineSpec, places: Mapping[str, str]) -> PipelineSpec:
    """Return a pipeline as it is where the folders of another machine are elsewhere."""
    if not places:
        return spec
    nodes = tuple(
        msgspec.structs.replace(node, action=_placed_action(node.action, places)) for node in spec.nodes
    )
    base = None if spec.base is None else _place_of(spec.base, places) or spec.base
    return msgspec.structs.replace(spec, nodes=nodes, base=base)


def _placed_action(action: str | ActionRef, places: Mapping[str, str]) -> str | ActionRef:
    if isinstance(action, ActionRef):
        folder = None if action.folder is None else _place_of(action.folder, places)
        return action if folder is None else ActionRef(action.entrypoint, folder)
    target, name = split_action(action)
    place = _place_of(os.path.normpath(target), places) if os.path.isabs(target) else None  # noqa: PTH117
    if place is None:
        return action
    return place if name is None else f"{place}:{name}"


def _place_of(path: str, places: Mapping[str, str]) -> str | None:
    """Return where a folder, or what is in it, is here; None if that is in none of them."""
    for there, here in sorted(places.items(), key=lambda pair: -len(pair[0])):
        if path == there:
            return here
        if path.startswith(there.rstrip(os.sep) + os.sep):
            return f"{here}{path[len(there.rstrip(os.sep)) :]}"
    return None
