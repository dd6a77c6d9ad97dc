"""`Pipeline`: a graph of actions, put together in Python."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from synapse_kernel.errors import UsageError
from synapse_plugins.pipelines.definition import (
    NodeSpec,
    OnFailure,
    PipelineError,
    PipelineSpec,
    document_of,
    is_name,
    join_params,
    unique,
    why_no_name,
)
from synapse_plugins.pipelines.references import EVERY, Key, resolve
from synapse_plugins.pipelines.running import Runnable
from synapse_plugins.pipelines.targets import as_action

if TYPE_CHECKING:
    from synapse_kernel.contracts import ActionRef, JsonObject, Resources
    from synapse_kernel.errors import Problem
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.documents import Positions

T = TypeVar("T")


class NodeReference:
    """
    The result of a node, or a part of it: ``handle["path"]``, ``handle[0]``, ``handle["*"]["path"]``.

    It stands in `with_`, `foreach` and `output` as it is, and inside text as ``f"{handle['path']}/x"``.
    """

    __slots__ = ("_plain",)

    def __init__(self, plain: str) -> None:
        self._plain = plain

    def __getitem__(self, part: str | int) -> NodeReference:
        key = f"[{part}]" if isinstance(part, int) or part == EVERY else str(Key(part))
        return NodeReference(self._plain + key)

    def __str__(self) -> str:
        return f"${{{self._plain}}}"

    def __repr__(self) -> str:
        return f"NodeReference({str(self)!r})"


class NodeHandle:
    """A node that was added to a pipeline: it stands in `needs`, and makes references to its result."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def result(self) -> NodeReference:
        """The whole result; of a node with `foreach` the list of its results."""
        return NodeReference(self.name)

    def __getitem__(self, part: str | int) -> NodeReference:
        return self.result[part]

    def __str__(self) -> str:
        return str(self.result)

    def __repr__(self) -> str:
        return f"NodeHandle({self.name!r})"


class Pipeline(Runnable):
    """
    A graph of actions.

    `params` are the pipeline's own and their defaults; `REQUIRED` stands for those that must be given.
    `output` is its result, with references; without it, the results of the nodes that no other needs, by
    name. `concurrency` bounds how many nodes run at once. `base` is the folder that file targets are
    relative to: None takes the current one.
    """

    def __init__(
        self,
        name: str,
        *,
        params: Mapping[str, object] | None = None,
        description: str = "",
        version: str | None = None,
        output: object = None,
        concurrency: int | None = None,
        base: str | os.PathLike[str] | None = None,
    ) -> None:
        self._head = PipelineSpec(
            name=name,
            description=description,
            version=version,
            params=dict(params or {}),
            output=_plain(output),
            concurrency=concurrency,
            base=None if base is None else str(Path(base).absolute()),
        )
        self._nodes: dict[str, NodeSpec] = {}
        self._spec: PipelineSpec | None = None
        self._positions: Positions | None = None
        # The kernel by a weak reference: a pipeline may live as long as its module.
        self._checked: tuple[PipelineSpec, weakref.ref[Kernel]] | None = None

    @classmethod
    def of(cls, spec: PipelineSpec, positions: Positions | None = None) -> Pipeline:
        """Return the pipeline of a spec; `positions` tell problems by line where it was read from a file."""
        made = cls(spec.name)
        made._head = spec
        made._nodes = {node.name: node for node in spec.nodes}
        made._spec = spec
        made._positions = positions
        return made

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._head.name

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as data, with the nodes that were added so far."""
        if self._spec is None:
            import msgspec

            self._spec = msgspec.structs.replace(self._head, nodes=tuple(self._nodes.values()))
        return self._spec

    def add(
        self,
        name: str,
        action: object,
        *,
        needs: Iterable[str | NodeHandle] = (),
        with_: Mapping[str, object] | None = None,
        executor: str | None = None,
        resources: Resources | None = None,
        retries: int = 0,
        timeout: float | str | None = None,
        env: Mapping[str, object] | Iterable[str] | None = None,
        when: str | bool | NodeReference | NodeHandle | None = None,
        foreach: object = None,
        max_parallel: int | None = None,
        cache: bool = False,
        inputs: Iterable[str | os.PathLike[str] | NodeReference] = (),
        on_failure: OnFailure = "stop",
    ) -> NodeHandle:
        """
        Add a node, and return what refers to it.

        `action` is ``TARGET:ACTION``, or an action class or function. Nodes that `with_`, `foreach`, `when`
        or `inputs` refer to need not be named in `needs`. See `NodeSpec` for what each means.

        Raises `UsageError` for a name that is taken or not allowed, and for what is no action.
        """
        if not is_name(name):
            raise UsageError(why_no_name(name))
        if name in self._nodes:
            raise UsageError(f"The pipeline {self.name!r} has a node {name!r} already")
        self._nodes[name] = NodeSpec(
            name=name,
            action=_action(name, action),
            needs=unique(_node_name(need) for need in _several(needs)),
            with_={key: _plain(value) for key, value in (with_ or {}).items()},
            executor=executor,
            resources=resources,
            retries=retries,
            timeout=timeout,
            env=_env(env),
            when=str(when) if isinstance(when, (NodeReference, NodeHandle)) else when,
            foreach=_plain(foreach),
            max_parallel=max_parallel,
            cache=cache,
            inputs=tuple(str(path) for path in _several(inputs)),
            on_failure=on_failure,
        )
        self._spec = None
        return NodeHandle(name)

    def validate(self, kernel: Kernel | None = None, *, strict: bool = True) -> list[Problem]:
        """
        Return all that is wrong with the pipeline, or raise it as one `PipelineError` where `strict`.

        Without a kernel the actions, and so their params and results, are not looked at.
        """
        from synapse_plugins.pipelines.validation import check

        problems: list[Problem] = list(check(self.spec, kernel))
        if self._positions is not None:
            problems = self._positions.told(problems)
        if problems and strict:
            raise PipelineError(f"The pipeline {self.name!r} cannot be used:", problems)
        return problems

    def check_for(self, kernel: Kernel) -> None:
        """Raise `PipelineError` with all that is wrong with the pipeline, once for each kernel and state."""
        spec = self.spec
        if self._checked is None or self._checked[0] is not spec or self._checked[1]() is not kernel:
            self.validate(kernel)
            self._checked = (spec, weakref.ref(kernel))

    def join_params(self, given: Mapping[str, object]) -> JsonObject:
        """Lay params over the pipeline's defaults; raises `ParamsError` for unknown and missing ones."""
        return join_params(self.spec, given)

    def param_types(self, kernel: Kernel) -> Mapping[str, object]:
        """Return the types of the params that are handed on as they are to fields with a type."""
        from synapse_plugins.pipelines.param_types import param_types

        return param_types(self.spec, kernel)

    def params_for(self, node: NodeSpec, scope: Mapping[str, object]) -> Mapping[str, object]:
        """Return what a node's action is given: its `with`, references resolved."""
        return {key: resolve(value, scope) for key, value in node.with_.items()}

    def to_document(self) -> JsonObject:
        """Return the pipeline as plain data, from which `spec_of_document` makes it again."""
        return document_of(self.spec)

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {len(self._nodes)} nodes)"


def _action(name: str, action: object) -> str | ActionRef:
    found = as_action(action)
    if found is None:
        raise UsageError(
            f"The action of node {name!r} must be a text like 'TARGET:ACTION', or an action class or "
            f"function; got {type(action).__name__}"
        )
    return found


def _plain(value: object) -> object:
    """Write the references in a value as text."""
    if isinstance(value, (NodeReference, NodeHandle)):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _node_name(need: str | NodeHandle) -> str:
    return need.name if isinstance(need, NodeHandle) else need


def _several(given: Iterable[T]) -> Iterable[T]:
    """Return what stands for several as such: one name alone is no list of letters."""
    if isinstance(given, (str, os.PathLike, NodeHandle, NodeReference)):
        return (cast("T", given),)
    return given


def _env(env: Mapping[str, object] | Iterable[str] | None) -> dict[str, str] | tuple[str, ...] | None:
    if env is None:
        return None
    if isinstance(env, Mapping):
        from synapse_kernel.environment import PluginEnvironment

        return PluginEnvironment(env).to_dict()
    return (env,) if isinstance(env, str) else tuple(env)
