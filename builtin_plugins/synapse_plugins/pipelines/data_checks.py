"""What the actions of a pipeline tell of it: whether the data of each node fits what it is given to."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.actions import ActionCode
from synapse_kernel.contracts import ActionSpec
from synapse_kernel.errors import ParamsError, SynapseError, listing, suggest
from synapse_kernel.params import Layer, check_params, merge
from synapse_plugins.pipelines.definition import REQUIRED, NodeSpec, PipelineProblem, PipelineSpec
from synapse_plugins.pipelines.field_types import FieldType, clash, record_fields, takes_other_fields
from synapse_plugins.pipelines.reference_types import (
    NotThere,
    follow,
    may_have_references,
    readable_reference,
    type_of_items,
)
from synapse_plugins.pipelines.references import Key, Reference, ReferenceLookupError, look_up
from synapse_plugins.pipelines.targets import find_action
from synapse_plugins.pipelines.type_shapes import (
    UNKNOWN,
    is_record,
    item_type,
    shape_of,
    shown_type,
    value_type,
    without_none,
)

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.validation import References


class _Action(msgspec.Struct, frozen=True):
    spec: ActionSpec
    code: ActionCode


class _Found(msgspec.Struct, frozen=True):
    """What a reference names: its type, or the very value where the pipeline holds it."""

    annotation: object = UNKNOWN
    value: object = REQUIRED


class DataChecks:
    """Checks the data of one pipeline; `references` are those whose roots are there."""

    def __init__(self, spec: PipelineSpec, kernel: Kernel, references: References) -> None:
        self._spec = spec
        self._kernel = kernel
        self._references = references
        self._nodes = {node.name: node for node in spec.nodes}
        self._resolved: dict[object, _Action | str] = {}
        self._actions: dict[str, _Action] = {}
        self._items: dict[str, object] = {}

    def problems(self) -> Iterator[PipelineProblem]:
        """Yield all that is wrong."""
        for node in self._spec.nodes:
            found = self._action(node)
            if isinstance(found, str):
                yield PipelineProblem(f"nodes.{node.name}.action", found)
            else:
                self._actions[node.name] = found
        for node in self._spec.nodes:
            yield from self._foreach_problems(node)
        for name, several in self._references.by_node.items():
            for placed in several:
                try:
                    self._type_of(placed.reference, name)
                except NotThere as error:
                    yield PipelineProblem(placed.where, f"{placed.reference.text}: {error}")
        for node in self._spec.nodes:
            action = self._actions.get(node.name)
            if action is not None:
                yield from self._with_problems(node, action)
                yield from self._semantic_problems(node, action)

    # Actions

    def _action(self, node: NodeSpec) -> _Action | str:
        """Return a node's action, or why there is none."""
        key = node.action if isinstance(node.action, str) else node.name
        if key not in self._resolved:
            self._resolved[key] = self._resolve(node)
        return self._resolved[key]

    def _resolve(self, node: NodeSpec) -> _Action | str:
        try:
            spec, code = find_action(node.action, self._spec.base, self._kernel)
        except SynapseError as error:
            return "; ".join(line.strip() for line in str(error).splitlines())
        except Exception as error:  # noqa: BLE001 - an action that does not load is one problem of many
            return f"it does not load: {type(error).__name__}: {error}"
        return _Action(spec, code)

    # What references name

    def _type_of(self, reference: Reference, node: str) -> _Found:
        """Return what a reference names, used in a node; raises `NotThere` for what cannot be there."""
        try:
            return self._followed(reference, node)
        except NotThere:
            if reference.has_default:
                return _Found()
            raise

    def _followed(self, reference: Reference, node: str) -> _Found:
        root = reference.root
        if root == "params":
            return self._param(reference)
        if root == "run":
            return _Found(follow(str, reference, at=1))
        if root == "index":
            return _Found(follow(int, reference))
        if root == "item":
            return _Found(follow(self._items.get(node, UNKNOWN), reference))
        return _Found(follow(self._result_type(root), reference))

    def _result_type(self, name: str) -> object:
        action = self._actions.get(name)
        one = action.code.result_type if action is not None else None
        found = UNKNOWN if one is None else one
        return list[found] if self._nodes[name].foreach is not None else found  # type: ignore[valid-type]

    def _param(self, reference: Reference) -> _Found:
        first = reference.path[0] if reference.path else None
        if not isinstance(first, Key) or self._spec.params.get(first.name, REQUIRED) is REQUIRED:
            return _Found()
        try:
            value = look_up(
                msgspec.structs.replace(reference, has_default=False), {"params": self._spec.params}
            )
        except ReferenceLookupError as error:
            reason = str(error).removeprefix(f"{reference.text}: ")
            raise NotThere("; ".join(line.strip() for line in reason.splitlines())) from None
        return _Found(type(value), value)

    # foreach

    def _foreach_problems(self, node: NodeSpec) -> Iterator[PipelineProblem]:
        """Tell a foreach over no list, and learn what its items are."""
        given = node.foreach
        if given is None:
            return
        if isinstance(given, (list, tuple)):
            self._items[node.name] = type_of_items(given)
            return
        where = f"nodes.{node.name}.foreach"
        reference = readable_reference(given)
        if reference is None:
            yield PipelineProblem(where, f"expected a list or a reference to one, got {_shown(given)}")
            return
        if all(placed.reference != reference for placed in self._references.by_node[node.name]):
            return
        try:
            found = self._type_of(reference, node.name)
        except NotThere:
            return  # told with the references
        if found.value is not REQUIRED:
            if isinstance(found.value, (list, tuple)):
                self._items[node.name] = type_of_items(found.value)
            else:
                text = f"{reference.plain} is {_shown(found.value)} by default, and foreach needs a list"
                yield PipelineProblem(where, text)
            return
        item = item_type(found.annotation)
        if item is None and shape_of(without_none(found.annotation)) is not None:
            text = f"{reference.plain} is {shown_type(found.annotation)}, and foreach needs a list"
            yield PipelineProblem(where, text)
        self._items[node.name] = UNKNOWN if item is None else item

    # with

    def _with_problems(self, node: NodeSpec, action: _Action) -> Iterator[PipelineProblem]:
        where = f"nodes.{node.name}.with"
        if action.code.params_type is None:
            return
        values = merge([Layer(action.spec.params, ""), Layer(node.with_, "")], action.code).values
        if not may_have_references(node.with_):
            yield from _checked(action.code, values, where)
            return
        yield from self._record_problems(node, values, action.code.params_type, node.with_, where)

    def _record_problems(
        self, node: NodeSpec, values: Mapping[str, object], wanted: object,
        written: Mapping[str, object], where: str,
    ) -> Iterator[PipelineProblem]:  # fmt: skip
        """Check a mapping, some of whose values are references, against a type with fields."""
        fields = record_fields(wanted, for_input=True)
        if fields is None:
            return
        for key in written:
            if key in fields:
                yield from self._value_problems(node, values[key], fields[key], f"{where}.{key}")
            elif not takes_other_fields(wanted):
                hint = suggest(key, fields) or f"; known: {listing(fields)}"
                yield PipelineProblem(f"{where}.{key}", f"unknown{hint}")
        given = {fields[key].name for key in values if key in fields}
        for key, field in fields.items():
            if field.required and field.name not in given:
                given.add(field.name)
                text = f"missing (required, {shown_type(field.annotation)})"
                yield PipelineProblem(f"{where}.{key}", text)

    def _value_problems(
        self, node: NodeSpec, value: object, field: FieldType, where: str
    ) -> Iterator[PipelineProblem]:
        annotation = field.annotation
        reference = readable_reference(value)
        if reference is not None:
            yield from self._reference_problems(node, reference, field, where)
        elif not may_have_references(value):
            yield from _literal_problems(value, annotation, where)
        elif isinstance(value, str):
            reason = clash(str, annotation)
            if reason:
                yield PipelineProblem(where, f"text with a reference in it is {reason}")
        elif isinstance(value, Mapping):
            inner = without_none(annotation)
            if is_record(inner):
                yield from self._record_problems(node, value, inner, value, where)
            else:
                yield from self._mapping_problems(node, value, annotation, where)
        elif isinstance(value, (list, tuple)):
            yield from self._list_problems(node, value, annotation, where)

    def _mapping_problems(
        self, node: NodeSpec, value: Mapping[str, object], annotation: object, where: str
    ) -> Iterator[PipelineProblem]:
        reason = clash(dict, annotation)
        if reason:
            yield PipelineProblem(where, reason)
            return
        inner = value_type(without_none(annotation))
        for key, item in value.items():
            field = FieldType(key, UNKNOWN if inner is None else inner)
            yield from self._value_problems(node, item, field, f"{where}.{key}")

    def _list_problems(
        self, node: NodeSpec, value: Sequence[object], annotation: object, where: str
    ) -> Iterator[PipelineProblem]:
        reason = clash(list, annotation)
        if reason:
            yield PipelineProblem(where, reason)
            return
        inner = item_type(annotation)
        for at, item in enumerate(value):
            field = FieldType(str(at), UNKNOWN if inner is None else inner)
            yield from self._value_problems(node, item, field, f"{where}[{at}]")

    def _reference_problems(
        self, node: NodeSpec, reference: Reference, field: FieldType, where: str
    ) -> Iterator[PipelineProblem]:
        if all(placed.reference != reference for placed in self._references.by_node[node.name]):
            return  # its root is not there, which is told
        try:
            found = self._type_of(reference, node.name)
        except NotThere:
            return  # told with the references
        if found.value is not REQUIRED:
            for problem in _literal_problems(found.value, field.annotation, where):
                text = f"{reference.plain} is {_shown(found.value)} by default: {problem.message}"
                yield PipelineProblem(where, text)
        elif reason := clash(found.annotation, field.annotation):
            yield PipelineProblem(where, f"{reference.plain} is {reason}")
        if reference.has_default:
            for problem in _literal_problems(reference.default, field.annotation, where):
                text = f"the default of {reference.text} does not fit: {problem.message}"
                yield PipelineProblem(where, text)

    # Semantic types

    def _semantic_problems(self, node: NodeSpec, action: _Action) -> Iterator[PipelineProblem]:
        """Tell a node that gets data from others, none of which gives the type it takes."""
        wanted = action.spec.input_type or action.code.input_type
        if wanted is None:
            return
        sources: dict[str, tuple[str, str]] = {}
        for placed in self._references.by_node[node.name]:
            source = self._actions.get(placed.reference.root)
            if source is None or placed.where.split(".")[2].partition("[")[0] not in {"with", "foreach"}:
                continue
            made = source.spec.output_type or source.code.output_type
            if made is None:
                return  # it may be this one that gives what is taken
            sources.setdefault(placed.reference.root, (made, placed.where))
        if any(_compatible(made, wanted) for made, _ in sources.values()):
            return
        for name, (made, where) in sources.items():
            yield PipelineProblem(where, f"{name!r} gives {made}, and {node.name!r} takes {wanted}")


def _literal_problems(value: object, annotation: object, where: str) -> Iterator[PipelineProblem]:
    """Check a value that stands in the pipeline against one field's type, in the words of the kernel."""
    if annotation is UNKNOWN:
        return
    for problem in _checked(_single(annotation), {"it": value}, ""):
        yield PipelineProblem(where + problem.where.removeprefix(".it"), problem.message)


def _checked(code: ActionCode, values: Mapping[str, object], where: str) -> Iterator[PipelineProblem]:
    try:
        check_params(code, values, {})
    except ParamsError as error:
        for problem in error.problems:
            place = f"{where}.{problem.where}" if problem.where else where
            yield PipelineProblem(place, problem.message)


def _single(annotation: object) -> ActionCode:
    try:
        return _kept_single(annotation)
    except TypeError:  # metadata that does not hash
        return _make_single(annotation)


def _make_single(annotation: object) -> ActionCode:
    """Return what takes one param `it` of a type."""
    from typing_extensions import TypedDict

    kind = TypedDict("kind", {"it": cast("type", annotation)})  # type: ignore[misc] # noqa: UP013 - a value
    return ActionCode(obj=None, name="it", is_class=False, arity=1, params_type=kind)


_kept_single = functools.lru_cache(maxsize=4096)(_make_single)


def _compatible(made: str, wanted: str) -> bool:
    from synapse_kernel.types import is_compatible

    try:
        return is_compatible(made, wanted)
    except SynapseError:
        return True  # a type that no one knows here may be any


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
