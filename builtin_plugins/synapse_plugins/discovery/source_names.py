"""What the names in one module's source stand for, as far as that module alone shows it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Name(msgspec.Struct, frozen=True):
    """What a name in a module stands for: an attribute of another module, or a module (`attribute` None)."""

    module: str
    attribute: str | None


class SourceModule(msgspec.Struct, kw_only=True):
    """A module as its source shows it: what it imports, defines and binds."""

    name: str
    file: str
    package: list[str]
    names: dict[str, Name] = {}
    stars: list[str] = []
    classes: dict[str, ast.ClassDef] = {}
    functions: dict[str, Function] = {}
    values: set[str] = set()
    """Names that are bound to something else."""
    type_variables: set[str] = set()


def read_statements(body: Sequence[ast.stmt], module: SourceModule) -> None:
    """Note what the statements of a module bind, also within ``if``, ``try`` and ``with``."""
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                bound = alias.asname or alias.name.partition(".")[0]
                module.names[bound] = Name(alias.name if alias.asname else bound, None)
        elif isinstance(statement, ast.ImportFrom):
            source = _source_of(statement, module.package)
            for alias in statement.names:
                if alias.name == "*":
                    module.stars.append(source)
                else:
                    module.names[alias.asname or alias.name] = Name(source, alias.name)
        elif isinstance(statement, ast.ClassDef):
            module.classes[statement.name] = statement
        elif isinstance(statement, Function):
            module.functions[statement.name] = statement
        elif isinstance(statement, ast.Assign):
            _read_assignment(statement.targets, statement.value, module)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            _read_assignment([statement.target], statement.value, module)
        else:
            read_statements(_inside(statement), module)


def _inside(statement: ast.stmt) -> list[ast.stmt]:
    """Return the statements of a block that runs when the module does."""
    if isinstance(statement, ast.If):
        return [*statement.body, *statement.orelse]
    if isinstance(statement, ast.With):
        return statement.body
    if isinstance(statement, ast.Try):
        handlers = [s for handler in statement.handlers for s in handler.body]
        return [*statement.body, *statement.orelse, *handlers, *statement.finalbody]
    return []


def _read_assignment(targets: list[ast.expr], value: ast.expr, module: SourceModule) -> None:
    """Follow ``Base = BaseAction`` and ``Base = BaseAction[Params]``; note every other name."""
    meant = meaning_of(value, module)
    is_variable = isinstance(value, ast.Call) and last_part(value.func) == "TypeVar"
    for target in targets:
        if isinstance(target, ast.Name) and meant is not None:
            module.names[target.id] = meant
        elif isinstance(target, ast.Name) and is_variable:
            module.type_variables.add(target.id)
        module.values |= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _source_of(statement: ast.ImportFrom, package: list[str]) -> str:
    if not statement.level:
        return statement.module or ""
    base = package[: len(package) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def meaning_of(node: ast.expr, module: SourceModule) -> Name | None:
    """Return what an expression refers to, as this module alone shows it."""
    if isinstance(node, ast.Subscript):
        return meaning_of(node.value, module)
    if isinstance(node, ast.Name):
        if node.id in module.classes:
            return Name(module.name, node.id)
        known = module.names.get(node.id)
        return known if known is not None or not module.stars else Name(module.name, node.id)
    if isinstance(node, ast.Attribute):
        outer = meaning_of(node.value, module)
        if outer is None:
            return None
        if outer.attribute is None:
            return Name(outer.module, node.attr)
        return Name(f"{outer.module}.{outer.attribute}".lstrip("."), node.attr)
    return None


def last_part(node: ast.expr) -> str:
    """Return the last part of a dotted name: ``TypeVar`` of ``typing.TypeVar``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_abstract(function: Function) -> bool:
    """Tell whether a method is under ``abstractmethod``."""
    return any(last_part(decorator) == "abstractmethod" for decorator in function.decorator_list)


def method_of(node: ast.ClassDef, name: str) -> Function | None:
    """Return the method of this name that a class itself defines."""
    return next((s for s in node.body if isinstance(s, Function) and s.name == name), None)


def text_attribute(node: ast.ClassDef, attribute: str) -> str | None:
    """Return a class attribute that is written as text."""
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        named = any(isinstance(t, ast.Name) and t.id == attribute for t in targets)
        if named and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
            return statement.value.value
    return None
