"""The types of a pipeline's own params: those of the fields that they fill, as far as one can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from typing_extensions import TypedDict

from synapse_kernel.actions import ActionCode
from synapse_kernel.errors import ParamsError, SynapseError
from synapse_kernel.models import fields_of, is_secret_type, types_in
from synapse_kernel.params import check_params
from synapse_plugins.pipelines.field_types import params_fields
from synapse_plugins.pipelines.references import Key, lone_reference
from synapse_plugins.pipelines.targets import find_action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.definition import NodeSpec, PipelineSpec


def param_types(spec: PipelineSpec, kernel: Kernel) -> Mapping[str, object]:
    """
    Return the type of each param that is handed on as it is to a field with a type.

    Of several fields the first in the pipeline counts: that their types agree is checked elsewhere.
    """
    kept = spec.__dict__
    if "param_types" not in kept:
        kept["param_types"] = _found(spec, kernel)
    return cast("Mapping[str, object]", kept["param_types"])


def params_code(types: Mapping[str, object]) -> ActionCode:
    """Return types by name as the code of an action: what reads and checks params knows that."""
    fields = dict(types)
    wanted = TypedDict("Params", fields, total=False)  # type: ignore[misc] # made at run time
    return ActionCode(obj=None, name="", is_class=False, arity=0, params_type=wanted)


def check_param_types(name: str, types: Mapping[str, object], params: Mapping[str, object]) -> None:
    """Raise `ParamsError` with every param of a pipeline whose value does not fit its type."""
    given = {key: value for key, value in params.items() if key in types}
    if not given:
        return
    try:
        check_params(params_code({key: types[key] for key in given}), given, {})
    except ParamsError as error:
        count = "1 mistake" if len(error.problems) == 1 else f"{len(error.problems)} mistakes"
        title = f"The params of the pipeline {name!r} are not valid ({count}):"
        raise ParamsError(title, error.problems) from None


def secret_params(types: Mapping[str, object]) -> tuple[str, ...]:
    """Return the params that are secret by their type, or hold something that is."""
    return tuple(name for name, kind in types.items() if _holds_secret(kind, set()))


def secret_fields(code: ActionCode) -> tuple[str, ...]:
    """Return the keys of an action's params whose fields are secret by their type, or hold such."""
    return secret_params({name: field.annotation for name, field in params_fields(code).items()})


def _holds_secret(annotation: object, around: set[int]) -> bool:
    """Tell whether a type is a secret's or has a field that is; `around` are the models on the way."""
    for kind in types_in(annotation):
        if is_secret_type(kind):
            return True
        if id(kind) in around:
            continue
        around.add(id(kind))
        if any(_holds_secret(field.annotation, around) for field in fields_of(kind).values()):
            return True
    return False


def _found(spec: PipelineSpec, kernel: Kernel) -> dict[str, object]:
    found: dict[str, object] = {}
    for node in spec.nodes:
        wanted = {key: name for key, value in node.with_.items() if (name := _param(value)) is not None}
        if wanted.keys() and not found.keys() >= set(wanted.values()):
            fields = _fields(spec, node, kernel)
            for key, name in wanted.items():
                if key in fields:
                    found.setdefault(name, fields[key])
    return found


def _param(value: object) -> str | None:
    """Return the param that a value consists of, if it is nothing else."""
    reference = lone_reference(value)
    if reference is None or reference.root != "params" or len(reference.path) != 1 or reference.has_default:
        return None
    part = reference.path[0]
    return part.name if isinstance(part, Key) else None


def _fields(spec: PipelineSpec, node: NodeSpec, kernel: Kernel) -> Mapping[str, object]:
    try:
        _, code = find_action(node.action, spec.base, kernel)
    except SynapseError:  # told where the pipeline is checked
        return {}
    return {name: field.annotation for name, field in params_fields(code).items()}
