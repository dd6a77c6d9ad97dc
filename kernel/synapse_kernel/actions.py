"""
What action authors write: a class derived from `BaseAction`, or a function under `@action`.

Both are equals in every executor. Their params and results are described by the types they name; how those
are read, checked and shown is in `synapse_kernel.params`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import SimpleNamespace
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar as PlainTypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import msgspec
from typing_extensions import TypeVar

from synapse_kernel.errors import EntrypointError

if TYPE_CHECKING:
    from synapse_kernel.context import RuntimeContext
    from synapse_kernel.contracts import ActionSpec
    from synapse_kernel.events import Level
    from synapse_kernel.types import DataType

P = TypeVar("P", default=dict[str, object])
R = TypeVar("R", default=object)
FunctionT = PlainTypeVar("FunctionT", bound=Callable[..., object])

ResultCheck = Literal["fail", "warn"]

_EMITTING = ("log", "set_progress", "set_metrics")


class ActionCode(msgspec.Struct, frozen=True, kw_only=True):
    """What an action's code says of itself; read once from a class or a function."""

    obj: object
    name: str
    is_class: bool
    arity: int
    """How many of (params, ctx) a function takes."""
    params_type: object = None
    """The params' type, or None where any mapping will do."""
    result_type: object = None
    result_check: ResultCheck = "fail"
    category: str | None = None
    input_type: str | None = None
    output_type: str | None = None
    description: str = ""


class BaseAction(Generic[P, R]):
    """
    One unit of work with typed params and a result.

    ``BaseAction[Params]`` and ``BaseAction[Params, Result]`` name pydantic models (or dataclasses, or typed
    dicts); the class attributes `params_model` and `result_model` do the same. `execute` may be ``async``.
    What the config of the plugin says of name, category and types stands on the instance.
    """

    params_model: ClassVar[object] = None
    result_model: ClassVar[object] = None
    result_check: ClassVar[ResultCheck] = "fail"
    action_name: str | None = None
    category: str | None = None
    input_type: type[DataType] | str | None = None
    output_type: type[DataType] | str | None = None

    _type_args: ClassVar[tuple[object, object]] = (P, R)  # type: ignore[misc]
    _bound: ClassVar[tuple[str, ...]] = _EMITTING

    params: P
    ctx: RuntimeContext

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        given = _given_type_args(cls)
        if given is not None:
            cls._type_args = given
            for attribute, found in zip(("params_model", "result_model"), given, strict=True):
                if attribute not in cls.__dict__ and _is_model(found):
                    setattr(cls, attribute, found)
        cls._bound = tuple(name for name in _EMITTING if getattr(cls, name) is getattr(BaseAction, name))

    def __init__(self, params: P, ctx: RuntimeContext) -> None:
        self.params = params
        self.ctx = ctx
        # The methods below, without their frame: a million calls a second go this way.
        for name in self._bound:
            self.__dict__[name] = getattr(ctx, name)

    def execute(self) -> R | Awaitable[R]:
        """Do the work and return the result."""
        raise NotImplementedError(f"{type(self).__qualname__} does not implement execute()")

    @property
    def logger(self):  # type: ignore[no-untyped-def]
        """A standard `logging.Logger` whose records become events of the run."""
        return self.ctx.logger

    def log(self, event: str, data: Mapping[str, object] | None = None, *, level: Level = "info") -> None:
        """Log a named event with data; see `RuntimeContext.log`."""
        self.ctx.log(event, data, level=level)

    def set_progress(self, current: float, total: float | None = None, category: str | None = None) -> None:
        """Set how far the work, or a category of it, has come; see `RuntimeContext.set_progress`."""
        self.ctx.set_progress(current, total, category)

    def set_metrics(self, values: Mapping[str, object], category: str | None = None) -> None:
        """Record numbers that were measured together; see `RuntimeContext.set_metrics`."""
        self.ctx.set_metrics(values, category)

    def autolog(self, framework: str) -> None:
        """Log what an ML framework does, for this run alone; see `RuntimeContext.autolog`."""
        self.ctx.autolog(framework)


class _Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What was given to `@action`."""

    name: str | None
    description: str | None
    params: object
    result: object
    category: str | None
    input_type: object
    output_type: object
    result_check: ResultCheck


@overload
def action(function: FunctionT, /) -> FunctionT: ...
@overload
def action(
    *,
    name: str | None = None,
    description: str | None = None,
    params: object = None,
    result: object = None,
    category: str | None = None,
    input_type: type[DataType] | str | None = None,
    output_type: type[DataType] | str | None = None,
    result_check: ResultCheck = "fail",
) -> Callable[[FunctionT], FunctionT]: ...
def action(
    function: FunctionT | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    params: object = None,
    result: object = None,
    category: str | None = None,
    input_type: type[DataType] | str | None = None,
    output_type: type[DataType] | str | None = None,
    result_check: ResultCheck = "fail",
) -> FunctionT | Callable[[FunctionT], FunctionT]:
    """
    Make an action of a function ``f(params, ctx)``, plain or ``async``; it stays callable as it is.

    The models of params and result come from the arguments, else from the function's annotations; its name
    and description from the arguments, else from the function and its docstring's first line.
    """

    def decorate(function: FunctionT) -> FunctionT:
        function.__synapse_action__ = _Declared(  # type: ignore[attr-defined]
            name=name,
            description=description,
            params=params,
            result=result,
            category=category,
            input_type=input_type,
            output_type=output_type,
            result_check=result_check,
        )
        return function

    return decorate if function is None else decorate(function)


def is_action(obj: object) -> bool:
    """Tell whether an object is an action: a `BaseAction` class with `execute`, or an `@action` function."""
    if isinstance(obj, type):
        return issubclass(obj, BaseAction) and obj.execute is not BaseAction.execute
    return "__synapse_action__" in getattr(obj, "__dict__", {})


def action_code(obj: object, *, entrypoint: str = "") -> ActionCode:
    """
    Read what an action's code says of itself; the answer is kept on the object.

    Raises `EntrypointError` if it is no action, or its annotations cannot be read.
    """
    own: Mapping[str, object] = getattr(obj, "__dict__", {})
    known = own.get("__synapse_code__")
    if isinstance(known, ActionCode):
        return known
    label = entrypoint or getattr(obj, "__qualname__", repr(obj))
    if isinstance(obj, type) and issubclass(obj, BaseAction):
        code = _code_of_class(obj, label)
    elif isinstance(own.get("__synapse_action__"), _Declared):
        code = _code_of_function(obj, own["__synapse_action__"], label)  # type: ignore[arg-type]
    else:
        what = "a function without @action" if inspect.isfunction(obj) else f"a {type(obj).__name__}"
        if isinstance(obj, type):
            what = "a class that does not derive from BaseAction"
        raise EntrypointError(
            f"{label} is {what}, not an action\n"
            "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action",
            entrypoint=label,
        )
    obj.__synapse_code__ = code  # type: ignore[attr-defined]
    return code


def default_name(class_name: str) -> str:
    """Return the name that a class's implies: ``TrainAction`` → ``train``, ``CountUp`` → ``count_up``."""
    stem = class_name.removesuffix("Action") or class_name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", stem).lower()


def first_line(text: str | None) -> str:
    """Return the first line of a docstring."""
    return inspect.cleandoc(text).partition("\n")[0].strip() if text else ""


def type_name(data_type: object) -> str | None:
    """Return how a semantic type is written: its name, whether given as a class or as text."""
    if data_type is None or isinstance(data_type, str):
        return data_type
    return str(getattr(data_type, "name", data_type))


def configure_instance(instance: BaseAction[object, object], spec: ActionSpec) -> None:
    """Put what the plugin's config says on an action's instance; its class stays as it is."""
    from synapse_kernel.types import data_type

    instance.action_name = spec.name
    if spec.category is not None:
        instance.category = spec.category
    if spec.input_type is not None:
        instance.input_type = data_type(spec.input_type)
    if spec.output_type is not None:
        instance.output_type = data_type(spec.output_type)


def _code_of_class(cls: type[BaseAction[object, object]], label: str) -> ActionCode:
    if cls.execute is BaseAction.execute:
        raise EntrypointError(f"{label} does not implement execute(), so it cannot run", entrypoint=label)
    return ActionCode(
        obj=cls,
        name=cls.action_name or default_name(cls.__name__),
        is_class=True,
        arity=2,
        params_type=cls.params_model,
        result_type=cls.result_model,
        result_check=cls.result_check,
        category=cls.category,
        input_type=type_name(cls.input_type),
        output_type=type_name(cls.output_type),
        description=first_line(cls.__dict__.get("__doc__")),
    )


def _code_of_function(function: Callable[..., object], declared: _Declared, label: str) -> ActionCode:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    required = [p for p in positional if p.default is p.empty]
    if len(required) > 2:
        raise EntrypointError(
            f"{label} takes {len(required)} arguments; an action function takes (params, ctx)",
            entrypoint=label,
        )
    others = [p for p in parameters if p not in positional]
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in others):
        raise EntrypointError(
            f"{label} takes arguments by name; an action function takes (params, ctx)", entrypoint=label
        )
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in others)
    try:
        hints = _hints(function, {"return", *(p.name for p in positional[:1])})
    except Exception as error:
        raise EntrypointError(
            f"The annotations of {label} cannot be read: {type(error).__name__}: {error}", entrypoint=label
        ) from error
    hinted = hints.get(positional[0].name) if positional else None
    return ActionCode(
        obj=function,
        name=declared.name or function.__name__,
        is_class=False,
        arity=2 if takes_any else min(2, len(positional)),
        params_type=declared.params or (hinted if _is_model(hinted) else None),
        result_type=declared.result or (hints.get("return") if _is_model(hints.get("return")) else None),
        result_check=declared.result_check,
        category=declared.category,
        input_type=type_name(declared.input_type),
        output_type=type_name(declared.output_type),
        description=declared.description or first_line(function.__doc__),
    )


def _hints(function: Callable[..., object], names: set[str]) -> dict[str, object]:
    """Resolve some annotations; the context's may be known to type checkers alone."""
    own = {name: hint for name, hint in inspect.get_annotations(function).items() if name in names}
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    return get_type_hints(SimpleNamespace(__annotations__=own), globalns=namespace)


def _given_type_args(cls: type) -> tuple[object, object] | None:
    """
    Follow the type arguments that a class gives to `BaseAction`'s two, also through generic classes between.

    None where it gives none: it inherits what its parents resolved.
    """
    for base in cls.__dict__.get("__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, BaseAction):
            given = dict(zip(origin.__parameters__, get_args(base), strict=False))  # type: ignore[attr-defined]
            first, second = (P, R) if origin is BaseAction else origin._type_args
            return _substituted(first, given), _substituted(second, given)
    return None


def _substituted(found: object, given: Mapping[object, object]) -> object:
    """Put type arguments in the place of a type variable, or of those inside a type such as ``Page[T]``."""
    inside = getattr(found, "__parameters__", ())
    if not inside:
        return given.get(found, found)
    return found[tuple(given.get(variable, variable) for variable in inside)]  # type: ignore[index]


def _is_model(found: object) -> bool:
    """Tell whether a type says something that can be checked: no type variable, no 'anything'."""
    if found is None or found in {object, type(None)} or isinstance(found, (PlainTypeVar, TypeVar, str)):
        return False
    if found is Any:
        return False
    origin, args = get_origin(found) or found, get_args(found)
    if origin in {dict, Mapping, MutableMapping}:
        return len(args) == 2 and args[1] not in {object, Any}
    return True
