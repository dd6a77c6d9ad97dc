"""
`ActionPipeline`: actions one after another, each given what all before it returned.

The params of an action are the initial params under the results of the actions before it, the later over the
earlier. What fits is checked when the pipeline is put together: semantic types, and fields with their types.
"""

from __future__ import annotations

import re
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel.errors import ParamsError, Problem, SynapseError, UsageError
from synapse_plugins.pipelines.definition import REQUIRED, NodeSpec, PipelineError, PipelineSpec, is_name
from synapse_plugins.pipelines.joining import (
    Link,
    chain_problems,
    fields_by_name,
    initial_of,
    initial_values,
    link,
    required_initially,
    value_problems,
)
from synapse_plugins.pipelines.running import Runnable
from synapse_plugins.pipelines.targets import as_action, find_action

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from synapse_kernel.contracts import ActionRef, JsonObject
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.field_types import FieldType

# A name made of more names than these leaves out those in the middle.
_MOST_NAMES = 3


class PipelineWarning(UserWarning):
    """Tells of what does not fit in a pipeline that is not strict."""


class ActionPipeline(Runnable):
    """
    Actions that run one after another; the result of the last is the pipeline's.

    An action is a class, a function or a text ``TARGET:ACTION``. `params` tells of the initial params: a
    model that says all there are, or defaults (`REQUIRED` for what must be given). A result without fields
    joins under its action's name. An action whose model takes no fields but its own gets only those, any
    other gets all. `executor` is where the actions run. File targets are relative to `base`, None for the
    current folder; they are looked up with `kernel`, or with one made from the settings.

    With `strict`, raises `PipelineError` with all that does not fit; else that is in `problems`, and is
    warned of.
    """

    def __init__(
        self,
        actions: Sequence[object],
        *,
        name: str | None = None,
        params: object = None,
        strict: bool = True,
        executor: str | None = None,
        description: str = "",
        version: str | None = None,
        base: str | os.PathLike[str] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        if isinstance(actions, str) or not actions:
            raise UsageError("An ActionPipeline needs a list of at least one action")
        self.strict = strict
        self._initial = initial_of(params)
        self._base = str(Path(base or ".").absolute())
        self._executor = executor
        self._given = [_reference(at, given) for at, given in enumerate(actions)]
        # A weak reference: a pipeline may live as long as its module.
        self._checked_for: weakref.ref[Kernel] | None = None
        self._joined: tuple[object, int, dict[str, object]] | None = None
        self._links = self._linked(kernel)
        self._at = {own.name: at for at, own in enumerate(self._links)}
        self._spec = self._made_spec(name, description, version)
        self.problems: list[Problem] = self._problems()
        """What does not fit; a strict pipeline has none."""
        if self.problems:
            warnings.warn(str(self._error(self.problems)), PipelineWarning, stacklevel=2)

    @property
    def name(self) -> str:
        """The pipeline's name; by default made of those of its actions."""
        return self._spec.name

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as data: each node needs the one before it."""
        return self._spec

    @property
    def initial_fields(self) -> dict[str, FieldType]:
        """The params that must be given, with their types: nothing else provides them."""
        return required_initially(self._links, self._initial)

    def check_for(self, kernel: Kernel) -> None:
        """
        Check the pipeline as a kernel knows it.

        Raises `PipelineError` where the actions that it finds do not fit, and `UnknownNameError` for an
        executor that it does not have.
        """
        if self._checked_for is not None and self._checked_for() is kernel:
            return
        if self._executor is not None:
            kernel.registry.get("executors", self._executor)
        if any(isinstance(given, str) for given in self._given):
            self._links = self._linked(kernel)
            self.problems = self._problems()
        self._checked_for = weakref.ref(kernel)

    def join_params(self, given: Mapping[str, object] | object) -> JsonObject:
        """
        Return the initial params: those given over the defaults, a model's as its fields.

        Raises `ParamsError` with all mistakes: unknown and missing params, and values that an action would
        refuse when its turn comes.
        """
        values, problems = initial_values(self._initial, given)
        told = {problem.where for problem in problems}
        found = value_problems(self._links, self._initial, values)
        problems += [problem for problem in found if problem.where not in told]
        unique = {(problem.where, problem.message): problem for problem in problems}
        if unique:
            count = "1 mistake" if len(unique) == 1 else f"{len(unique)} mistakes"
            raise ParamsError(
                f"The params of the pipeline {self.name!r} are not valid ({count}):", list(unique.values())
            )
        return values

    def param_types(self, kernel: Kernel) -> Mapping[str, object]:  # noqa: ARG002 - the actions are known
        """Return the types of the initial params that must be given, and of those that are secret."""
        from synapse_plugins.pipelines.param_types import secret_params

        types = dict(self._initial.types)
        for own in self._links:
            for key, field in own.takes.items():
                if key in self._initial.defaults:
                    types.setdefault(key, field.annotation)
        secret = {name: types[name] for name in secret_params(types)}
        return {**secret, **{name: field.annotation for name, field in self.initial_fields.items()}}

    def params_for(self, node: NodeSpec, scope: Mapping[str, object]) -> Mapping[str, object]:
        """Return what a node's action is given: the initial params and all earlier results, joined."""
        at = self._at[node.name]
        kept, done, joined = self._joined or (None, 0, {})
        if kept is not scope or done > at:
            done, joined = 0, fields_by_name(scope["params"], "")
        for earlier in self._links[done:at]:
            if earlier.name in scope:
                joined.update(fields_by_name(scope[earlier.name], earlier.name))
        # Nothing comes after the last: what it was given need not be kept.
        self._joined = None if at + 1 == len(self._links) else (scope, at, joined)
        own = self._links[at]
        if own.takes_others:
            return dict(joined)
        return {key: joined[key] for key in own.takes if key in joined}

    def release(self) -> None:
        """Let go of what was joined for a run, which ended early if there is anything."""
        self._joined = None

    def __repr__(self) -> str:
        return f"ActionPipeline({self.name!r}, {len(self._links)} actions)"

    def _error(self, problems: Sequence[Problem]) -> PipelineError:
        return PipelineError(f"The pipeline {self.name!r} cannot be used:", problems)

    def _problems(self) -> list[Problem]:
        """Return what does not fit, or raise it where the pipeline is strict."""
        found = list(chain_problems(self._links, self._initial))
        if found and self.strict:
            raise self._error(found)
        return found

    def _linked(self, kernel: Kernel | None) -> list[Link]:
        """Look the actions up; raises `PipelineError` with all that cannot be."""
        if kernel is None and any(isinstance(given, str) for given in self._given):
            from synapse_kernel.kernel import Kernel
            from synapse_kernel.settings import load_settings

            with Kernel(load_settings()) as own:
                return self._linked(own)
        links: list[Link] = []
        problems: list[Problem] = []
        taken: set[str] = set()
        for at, given in enumerate(self._given):
            try:
                spec, code = find_action(given, self._base, kernel)  # type: ignore[arg-type]
            except SynapseError as error:
                text = "; ".join(line.strip() for line in str(error).splitlines()).replace(":; ", ": ")
                problems.append(Problem(f"actions[{at}]", text))
                continue
            links.append(link(_node_name(spec.name, taken), spec, code))
        if problems:
            raise PipelineError("The pipeline cannot be used:", problems)
        return links

    def _made_spec(self, name: str | None, description: str, version: str | None) -> PipelineSpec:
        names = [own.name for own in self._links]
        return PipelineSpec(
            name=name or _default_name(names),
            description=description,
            version=version,
            params={**dict.fromkeys(self.initial_fields, REQUIRED), **self._initial.defaults},
            nodes=tuple(
                NodeSpec(
                    name=name,
                    action=given,
                    needs=tuple(names[at - 1 : at]) if at else (),
                    executor=self._executor,
                )
                for at, (name, given) in enumerate(zip(names, self._given, strict=True))
            ),
            output=f"${{{names[-1]}}}",
            base=self._base,
        )


def _reference(at: int, given: object) -> str | ActionRef:
    found = as_action(given)
    if found is None:
        raise UsageError(
            f"actions[{at}] must be an action class or function, or a text like 'TARGET:ACTION'; "
            f"got {type(given).__name__}"
        )
    return found


def _node_name(action: str, taken: set[str]) -> str:
    """Return a name for a node that no other has: the action's, with a number where it comes again."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", action) or "action"
    name, number = stem, 1
    while name in taken or not is_name(name):
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _default_name(names: Sequence[str]) -> str:
    shown = names if len(names) <= _MOST_NAMES else [names[0], "…", names[-1]]
    return "-".join(shown)
