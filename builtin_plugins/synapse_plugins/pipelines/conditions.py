"""
Conditions: ``when: "${check.images} > 0 and ${params.mode} == 'full'"``.

Values, comparisons, arithmetic, ``and``, ``or``, ``not``, ``in`` and a few functions; no attributes and no
calls of what a reference names. What is not allowed is found when the condition is read, not when it is met.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING, Final

import msgspec

from synapse_kernel.errors import SynapseError, listing
from synapse_kernel.syntax import parse_source
from synapse_plugins.pipelines.references import Reference, look_up, template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simpleeval import EvalWithCompoundTypes  # type: ignore[import-untyped]

LONGEST: Final = 2000
"""How many characters a condition may have."""

FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    function.__name__: function for function in (len, min, max, abs, int, float, str, bool, round)
}
_WORDS: Final[Mapping[str, object]] = {"true": True, "false": False, "null": None, "none": None}

_ALLOWED = (
    ast.Expr, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add,
    ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE,
    ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.IfExp, ast.Call, ast.Name, ast.Load,
    ast.Constant, ast.Subscript, ast.List, ast.Tuple,
)  # fmt: skip
_PLACEHOLDER = "__reference_{}__"


class ConditionError(SynapseError):
    """A condition that cannot be read or evaluated; `condition` is its text."""

    def __init__(self, condition: str, reason: str) -> None:
        self.condition = condition
        self.reason = reason
        super().__init__(f"The condition {condition!r} {reason}")


class Condition(msgspec.Struct, frozen=True):
    """A condition that was read: its syntax, and its references by the names that stand for them."""

    text: str
    tree: ast.Expr
    references: dict[str, Reference]


def references_in_condition(text: str) -> list[Reference]:
    """Return the references of a condition; raises `ReferenceSyntaxError`."""
    return [part for part in template(text) if isinstance(part, Reference)]


def holds(condition: str | bool | None, scope: Mapping[str, object]) -> bool:
    """
    Tell whether a condition holds in a scope; None always does, a lone reference if its value is true.

    Raises `ConditionError`, `ReferenceSyntaxError` and `ReferenceLookupError`.
    """
    if condition is None or isinstance(condition, bool):
        return condition is not False
    parsed = parse_condition(condition)
    if isinstance(parsed.tree.value, ast.Name) and parsed.references:
        return bool(look_up(next(iter(parsed.references.values())), scope))
    names = {name: look_up(reference, scope) for name, reference in parsed.references.items()}
    evaluator = _evaluator({**_WORDS, **names})
    try:
        return bool(evaluator.eval(condition, previously_parsed=parsed.tree))
    except Exception as error:  # noqa: BLE001 - whatever the values make of the operators
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, TypeError) else str(error)
        if type(error).__name__ == "IterableTooLong":
            reason = "a text or list in it would be too long"
        values = ", ".join(f"{parsed.references[name].plain} = {_short(names[name])}" for name in names)
        raise ConditionError(
            condition, f"cannot be evaluated: {reason}" + (f"\n  with {values}" if values else "")
        ) from None


@functools.lru_cache(maxsize=100_000)
def parse_condition(text: str) -> Condition:
    """Read a condition; raises `ConditionError` and `ReferenceSyntaxError` for what is not allowed in one."""
    if len(text) > LONGEST:
        raise ConditionError(f"{text[:40]}…", f"is too long: {len(text)} characters of {LONGEST}")
    references: dict[str, Reference] = {}
    source = ""
    for part in template(text):
        if isinstance(part, str):
            source += part
            continue
        name = _PLACEHOLDER.format(len(references))
        references[name] = part
        source += name
    try:
        parsed = parse_source(source.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConditionError(text, f"cannot be read: {reason}") from None
    if len(parsed.body) != 1 or not isinstance(parsed.body[0], ast.Expr):
        raise ConditionError(text, "cannot be read: it is not one expression")
    for node in ast.walk(parsed.body[0]):
        _check(node, text, references)
    return Condition(text, parsed.body[0], references)


def _check(node: ast.AST, text: str, references: Mapping[str, Reference]) -> None:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS or node.keywords:
            raise ConditionError(
                text, f"calls {_source(node.func, references)}; it may call: {listing(FUNCTIONS)}"
            )
    elif isinstance(node, ast.Name):
        if node.id not in references and node.id not in _WORDS and node.id not in FUNCTIONS:
            raise ConditionError(
                text, f"has the bare word {node.id!r}; put text in quotes, or write ${{{node.id}…}}"
            )
    elif isinstance(node, ast.Constant):
        for placeholder, reference in references.items():
            if isinstance(node.value, str) and placeholder in node.value:
                raise ConditionError(text, f"has {reference.text} in quotes; a reference stands without them")
    elif isinstance(node, ast.Attribute):
        raise ConditionError(
            text, f"takes .{node.attr} of a value; write it inside the reference, as ${{node.{node.attr}}}"
        )
    elif not isinstance(node, _ALLOWED):
        raise ConditionError(text, f"uses what a condition has not: {type(node).__name__}")


def _source(node: ast.AST, references: Mapping[str, Reference]) -> str:
    written = ast.unparse(node)
    for placeholder, reference in references.items():
        written = written.replace(placeholder, reference.text)
    return written


def _evaluator(names: Mapping[str, object]) -> EvalWithCompoundTypes:
    from simpleeval import DEFAULT_OPERATORS, EvalWithCompoundTypes

    operators = {**DEFAULT_OPERATORS, ast.Mod: _modulo}
    return EvalWithCompoundTypes(operators=operators, functions=dict(FUNCTIONS), names=dict(names))


def _modulo(left: object, right: object) -> object:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left % right
    # Of text it would be formatting, whose result may be of any size.
    raise TypeError(f"% takes numbers, not {type(left).__name__} and {type(right).__name__}")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
