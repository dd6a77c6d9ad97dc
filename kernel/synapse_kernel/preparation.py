"""
What is settled before a run starts: its action, params, environment, resources and executor.

All that can be wrong with a request is found here, and raised as a `SynapseError`: nothing has started yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import msgspec

from synapse_kernel import folders
from synapse_kernel.actions import ActionCode, action_code
from synapse_kernel.contracts import (
    ActionPlugin,
    ActionRef,
    ActionSpec,
    Executor,
    JsonObject,
    Resources,
    RunPlace,
    RunRequest,
)
from synapse_kernel.current import working_for
from synapse_kernel.durations import seconds
from synapse_kernel.errors import ActionNotFoundError, EntrypointError, SynapseError, UsageError
from synapse_kernel.params import Layer, Merged, check_params, merge, shown
from synapse_kernel.redaction import MASK, is_secret_name
from synapse_kernel.serialization import params_to_plain
from synapse_kernel.worker import load_action

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is to be done, apart from what: see `Kernel.run`."""

    executor: str | None = None
    resources: Resources | None = None
    env: Mapping[str, object] | Iterable[str] | None = None
    timeout: float | str | timedelta | None = None
    retries: int = 0
    sinks: Sequence[object] | None = None
    checkpoint: JsonObject | None = None
    job_id: str | None = None
    tags: Sequence[str] = ()
    record: bool | None = None
    place: RunPlace = RunPlace()


class DetachKeywords(TypedDict, total=False):
    """What `Kernel.detach` takes by name."""

    executor: str | None
    resources: Resources | None
    env: Mapping[str, object] | Iterable[str] | None
    timeout: float | str | timedelta | None
    retries: int
    checkpoint: JsonObject | None
    job_id: str | None
    tags: Sequence[str]
    place: RunPlace


class RunKeywords(DetachKeywords, total=False):
    """What `Kernel.run` takes by name."""

    sinks: Sequence[object] | None
    record: bool | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do, for people: params with their origin, secrets masked."""

    target: str
    action: str
    entrypoint: str
    folder: str | None
    executor: str
    params: JsonObject
    origins: dict[str, str]
    env: dict[str, str]
    resources: Resources
    timeout: float | None
    retries: int


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can start."""

    request: RunRequest
    code: ActionCode
    merged: Merged
    params: object
    executor_name: str
    executor: Executor
    sinks: Sequence[object] | None
    record: bool | None = None


def prepare(
    kernel: Kernel,
    target: object,
    action: str | None,
    params: object,
    options: RunOptions,
    *,
    dry: bool = False,
) -> Prepared:
    """Find the action, check its params, choose the executor. Raises `SynapseError`; nothing has started."""
    label, spec, code = resolve_action(kernel, target, action)
    merged = _merged(spec, code, params)
    if not isinstance(params, (dict, Mapping)) and _is_instance(params, code.params_type):
        built: object = params
    else:
        with working_for(kernel):
            built = check_params(code, merged.values, merged.origins, target=label)
    if options.retries < 0:
        raise UsageError(f"retries must not be negative, got {options.retries}")
    request = RunRequest(
        run_id=options.place.run_id or os.urandom(8).hex(),
        target=options.place.target or label,
        action=spec,
        params=merged.values,
        resources=_joined_resources(spec.resources, options.resources),
        env=_resolved_env(kernel, spec, options.env),
        executor=options.executor,
        timeout=seconds(options.timeout) if options.timeout is not None else None,
        retries=options.retries,
        job_id=options.job_id,
        checkpoint=options.checkpoint,
        tags=tuple(dict.fromkeys(tag for tag in options.tags if tag.strip())),
        place=options.place,
    )
    name = kernel.choose_executor(request)
    hint = "" if name == "local" else "\n  or run it here with: --executor local"
    executor = cast("Executor", None) if dry else kernel.executor(name, hint=hint)
    if not dry and not executor.in_process:
        request = _travelling(request)
    return Prepared(
        request=request,
        code=code,
        merged=merged,
        params=built,
        executor_name=name,
        executor=executor,
        sinks=options.sinks,
        record=options.record,
    )


def _travelling(request: RunRequest) -> RunRequest:
    """Make a request's action and params plain data, as another process needs them."""
    spec = msgspec.structs.replace(request.action, ref=portable(request.action.ref))
    checkpoint = (
        None if request.checkpoint is None else params_to_plain(request.checkpoint, name="checkpoint")
    )
    return msgspec.structs.replace(
        request, action=spec, params=params_to_plain(request.params), checkpoint=checkpoint
    )


def _is_instance(value: object, kind: object) -> bool:
    return isinstance(kind, type) and isinstance(value, kind)


def resolve_action(kernel: Kernel, target: object, action: str | None) -> tuple[str, ActionSpec, ActionCode]:
    """Return a target's label, and the spec and code of one of its actions."""
    if isinstance(target, (str, Path)):
        return _one_of(kernel.discover(str(target)), str(target), action)
    if isinstance(target, ActionSpec):
        return target.name, target, _loaded(target)
    if isinstance(target, type) or callable(target):
        code = action_code(target)
        if action is not None and action != code.name:
            raise ActionNotFoundError(action, target=code.name, available=[code.name])
        return code.name, spec_of(target, code), code
    plugin = kernel.discover_module(target)
    return _one_of(plugin, plugin.target, action)


def _one_of(plugin: ActionPlugin, label: str, action: str | None) -> tuple[str, ActionSpec, ActionCode]:
    """Return the action that was named, or the only one there is."""
    if action is None:
        if len(plugin.actions) != 1:
            names = ", ".join(sorted(plugin.actions))
            raise UsageError(
                f"{label} has several actions; name one of: {names}" if names else f"{label} has no actions"
            )
        spec = next(iter(plugin.actions.values()))
    else:
        found = plugin.actions.get(action)
        if found is None:
            raise ActionNotFoundError(action, target=label, available=plugin.actions)
        spec = found
    return label, spec, _loaded(spec)


def _loaded(spec: ActionSpec) -> ActionCode:
    """Load an action's code; what it raises at import is told as an `EntrypointError`, and chained."""
    try:
        return load_action(spec.ref)
    except SynapseError:
        raise
    except (Exception, SystemExit) as error:
        raise EntrypointError(
            f"The code of {spec.name!r} does not load: {type(error).__name__}: {error}",
            entrypoint=spec.ref.entrypoint,
        ) from error


def spec_of(action: object, code: ActionCode) -> ActionSpec:
    """Describe an action given as a class or function; the answer is kept on it."""
    known = action.__dict__.get("__synapse_spec__")
    if isinstance(known, ActionSpec):
        return known
    spec = ActionSpec(
        name=code.name,
        ref=ActionRef.weakly_of(action),
        description=code.description,
        category=code.category,
        input_type=code.input_type,
        output_type=code.output_type,
    )
    action.__synapse_spec__ = spec  # type: ignore[attr-defined]
    return spec


def portable(ref: ActionRef) -> ActionRef:
    """
    Return a reference that another process can follow.

    Raises `EntrypointError` for an action that lives inside a function, or in an interactive session.
    """
    if ref.loaded is None:
        return ref
    module_name, _, attribute = ref.entrypoint.partition(":")
    if "<locals>" in attribute:
        raise EntrypointError(
            f"{ref.entrypoint} is defined inside a function, where another process cannot find it\n"
            "  move it to the top level of its module, or run it with the executor 'local'",
            entrypoint=ref.entrypoint,
        )
    if module_name == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        if not file:
            raise EntrypointError(
                f"{ref.entrypoint} is defined in an interactive session, which another process cannot see\n"
                "  write it to a file, or run it with the executor 'local'",
                entrypoint=ref.entrypoint,
            )
        script = Path(file).resolve()
        return ActionRef(f"{script.stem}:{attribute}", str(script.parent))
    in_folder = folders.split(module_name)
    if in_folder is not None:
        folder, inner = in_folder
        return ActionRef(f"{inner}:{attribute}", folder)
    return ActionRef(ref.entrypoint)


def make_plan(prepared: Prepared) -> Plan:
    """Describe a prepared run for a person."""
    request, code = prepared.request, prepared.code
    values, origins = dict(request.params), dict(prepared.merged.origins)
    dump = getattr(prepared.params, "model_dump", None)
    if callable(dump):
        for key, value in dump(mode="json").items():
            if key not in values:
                values[key] = value
                origins[key] = "default"
    return Plan(
        target=request.target,
        action=request.action.name,
        entrypoint=request.action.ref.entrypoint,
        folder=request.action.ref.folder,
        executor=prepared.executor_name,
        params=shown(code, values),
        origins=origins,
        env={key: MASK if is_secret_name(key) else value for key, value in request.env.items()},
        resources=request.resources,
        timeout=request.timeout,
        retries=request.retries,
    )


def _merged(spec: ActionSpec, code: ActionCode, params: object) -> Merged:
    if params is None and not spec.params:
        return _NO_PARAMS
    layers = [Layer(spec.params, spec.origin or "config.yaml")] if spec.params else []
    if isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        layers += cast("Sequence[Layer]", params)
    elif isinstance(params, Mapping):
        layers.append(Layer(params, "the call"))
    elif params is not None:
        layers.append(Layer(params_to_plain(params), "the call"))
    return merge(layers, code)


_NO_PARAMS = Merged({}, {})


def _joined_resources(base: Resources, asked: Resources | None) -> Resources:
    if asked is None:
        return base
    return Resources(
        cpus=asked.cpus if asked.cpus is not None else base.cpus,
        gpus=asked.gpus if asked.gpus is not None else base.gpus,
        memory=asked.memory if asked.memory is not None else base.memory,
        custom={**base.custom, **asked.custom},
    )


def _resolved_env(
    kernel: Kernel, spec: ActionSpec, asked: Mapping[str, object] | Iterable[str] | None
) -> dict[str, str]:
    """Join the variables that were named for a run, from the settings, the plugin's config and the call."""
    named = kernel.settings.kernel.env
    env: dict[str, str] = {}
    if named.prefix:
        env.update({key: value for key, value in os.environ.items() if key.startswith(named.prefix)})
    for name in (*named.names, *spec.env_names):
        if name in os.environ:
            env[name] = os.environ[name]
    env.update(spec.env)
    if asked is None:
        return env
    if isinstance(asked, Mapping):
        from synapse_kernel.environment import PluginEnvironment

        env.update(PluginEnvironment(asked).to_dict())
        return env
    for name in (asked,) if isinstance(asked, str) else asked:
        if name not in os.environ:
            raise UsageError(f"env: {name} is not set in this environment; give it a value: {name}=VALUE")
        env[name] = os.environ[name]
    return env
