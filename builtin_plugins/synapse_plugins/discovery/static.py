"""
Finding actions by reading source with `ast`: nothing is executed.

An action is a class that derives from `BaseAction` — under any alias, through classes between in the same
folder — and has an `execute` of its own or of those classes; or a function under `@action`. A class is taken
as meant for deriving if its name starts with an underscore or with ``Base``, if it is abstract, or if its
type arguments are left open.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.actions import default_name, first_line
from synapse_kernel.syntax import parse_source
from synapse_plugins.discovery.source_names import (
    Function,
    Name,
    SourceModule,
    is_abstract,
    meaning_of,
    method_of,
    read_statements,
    text_attribute,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "wheels", "tests"}
)
_HOSTS = ("synapse_kernel", "synapse_plugins")
FOR_DERIVING = re.compile(r"_|Base(?![a-z])")
_ROOT = "__init__"

Stamp = tuple[int, int, int]


class FoundAction(msgspec.Struct, frozen=True, kw_only=True):
    """An action as its source shows it; `line` counts from 1, `file` is relative to the folder."""

    name: str
    entrypoint: str
    file: str
    line: int
    description: str = ""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A file that could not be parsed."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f' line {self.line}'}: {self.reason}"


class StaticResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the source gave: actions in the order of files and lines, and the unreadable files."""

    actions: list[FoundAction]
    problems: list[Unreadable]
    files: list[str]
    folder: str
    """What the entrypoints are relative to: the folder, or that above the package of a single file."""
    stamps: dict[str, Stamp]
    """How the files and folders were that this depends on."""


def discover(path: Path) -> StaticResult:
    """Look for actions in a folder, or in one file as part of its package."""
    return SourceTree(path).result()


def stamp(path: str | Path) -> Stamp:
    """Return what changes when a file or folder does; raises `OSError`."""
    status = os.stat(path)  # noqa: PTH116 - on the way of every run
    return status.st_mtime_ns, status.st_size, status.st_ino


class SourceTree:
    """
    The modules under a folder as their source shows them.

    All files of the folder are read, or the one file that was given; others when a name leads to them.
    """

    def __init__(self, path: Path) -> None:
        path = path.absolute()
        self.root = path if path.is_dir() else _package_root(path)
        self.problems: list[Unreadable] = []
        self.stamps: dict[str, Stamp] = {}
        self._modules: dict[str, SourceModule | None] = {}
        self._files = list(self._walk(path))
        self._read = [module for file in self._files if (module := self._module_in(file)) is not None]

    def result(self) -> StaticResult:
        """Return the actions of the files that were read."""
        return StaticResult(
            actions=[action for module in self._read for action in self._actions_of(module)],
            problems=self.problems,
            files=[str(file) for file in self._files],
            folder=str(self.root),
            stamps=self.stamps,
        )

    def origin(self, entrypoint: str) -> str:
        """Follow an entrypoint through re-exports to where its class or function is defined."""
        module, _, attribute = entrypoint.partition(":")
        found = self._resolve(Name(self._normal(module), attribute))
        return f"{found.module}:{found.attribute}" if found.attribute else entrypoint

    def lacks(self, entrypoint: str) -> bool:
        """Tell whether an entrypoint is surely not there: its module is not, or binds no such name."""
        module, _, attribute = entrypoint.partition(":")
        found = self._resolve(Name(self._normal(module), attribute.partition(".")[0]))
        source = self._module(found.module)
        if source is None:
            return self._is_own(found.module) and not self._is_there(found.module)
        return not self._binds(source, found.attribute or "")

    def _walk(self, path: Path) -> Iterator[Path]:
        """Yield the Python files, sorted; hidden, built and installed folders are passed over."""
        if path.is_file():
            yield path
            return
        for folder, subfolders, names in os.walk(path):
            kept = (s for s in sorted(subfolders) if not s.startswith(".") and s not in SKIPPED_FOLDERS)
            # os.path: False, not an error, where a folder may not be read.
            subfolders[:] = [s for s in kept if not os.path.exists(f"{folder}/{s}/pyvenv.cfg")]  # noqa: PTH110
            self.stamps[folder] = stamp(folder)
            yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))

    def _module_in(self, file: Path) -> SourceModule | None:
        relative = file.relative_to(self.root)
        parts = list(relative.with_suffix("").parts)
        is_package = parts[-1] == _ROOT
        if is_package:
            parts.pop()
        name = ".".join(parts) or _ROOT
        if name in self._modules:
            return self._modules[name]
        self._modules[name] = module = None
        try:
            self.stamps[str(file)] = stamp(file)
            tree = parse_source(file.read_bytes(), str(file))
        except SyntaxError as error:
            self.problems.append(Unreadable(file=str(relative), line=error.lineno, reason=str(error.msg)))
        except (ValueError, OSError, RecursionError, MemoryError) as error:
            self.problems.append(Unreadable(file=str(relative), line=None, reason=str(error)))
        else:
            package = parts if is_package else parts[:-1]
            self._modules[name] = module = SourceModule(name=name, file=str(relative), package=package)
            read_statements(tree.body, module)
        return module

    def _module(self, name: str) -> SourceModule | None:
        if name not in self._modules:
            place = self.root.joinpath(*name.split("."))
            for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
                if self._is_own(name) and file.is_file():
                    return self._module_in(file)
            self._modules[name] = None
        return self._modules[name]

    def _is_own(self, name: str) -> bool:
        return all(part.isidentifier() for part in name.split("."))

    def _is_there(self, name: str) -> bool:
        """Tell whether something lies where a module would: a file that does not parse, or a compiled one."""
        *folders, last = name.split(".")
        folder = self.root.joinpath(*folders)
        return any(folder.glob(f"{last}.*")) or (folder / last / "__init__.py").exists()

    def _normal(self, module: str) -> str:
        """Name a module relative to the folder, also where the folder is a package that names itself."""
        if not module:
            return _ROOT
        own = self.root.name
        if f"{module}.".startswith(f"{own}.") and (self.root / "__init__.py").is_file():
            inner = module.removeprefix(own).removeprefix(".")
            if not (self.root / own).is_dir():
                return inner or _ROOT
        return module

    def _resolve(self, name: Name, seen: tuple[Name, ...] = ()) -> Name:
        """Follow a name to the module that defines it, as far as the source shows."""
        if name in seen or name.attribute is None or _is_host(name):
            return name
        source = self._module(name.module)
        if source is None:
            return self._resolve_outer(name, seen)
        if name.attribute in source.classes or name.attribute in source.functions:
            return name
        forwarded = source.names.get(name.attribute)
        if forwarded is not None:
            return self._resolve(self._relative(forwarded), (*seen, name))
        for star in source.stars:
            behind = self._resolve(Name(self._normal(star), name.attribute), (*seen, name))
            module = self._module(behind.module)
            if _is_host(behind):
                found = behind.attribute == "action" or _is_action_base(behind)
            else:
                found = module is not None and self._binds(module, behind.attribute or "")
            if found:
                return behind
        return name

    def _resolve_outer(self, name: Name, seen: tuple[Name, ...]) -> Name:
        """Follow ``pkg.sub.X`` where ``pkg`` binds ``sub`` to a module of another name."""
        outer, dot, inner = name.module.rpartition(".")
        if not dot or name in seen:
            return name
        found = self._resolve(Name(outer, inner), (*seen, name))
        if found == Name(outer, inner):
            return name
        module = found.module if found.attribute is None else f"{found.module}.{found.attribute}"
        return self._resolve(Name(module, name.attribute), (*seen, name))

    def _relative(self, name: Name) -> Name:
        return Name(self._normal(name.module), name.attribute)

    def _binds(self, module: SourceModule, attribute: str) -> bool:
        if attribute in module.names or attribute in module.values or "__getattr__" in module.functions:
            return True
        if attribute in module.classes or attribute in module.functions:
            return True
        inner = attribute if module.name == _ROOT else f"{module.name}.{attribute}"
        if self._is_there(inner) or self.root.joinpath(*inner.split(".")).is_dir():
            return True
        # A star import from elsewhere may bring anything.
        return any(self._module(self._normal(star)) is None for star in module.stars)

    def _meaning(self, node: ast.expr, module: SourceModule) -> Name | None:
        """Return what a base class or decorator expression refers to in the end."""
        meant = meaning_of(node, module)
        return None if meant is None else self._resolve(self._relative(meant))

    def _actions_of(self, module: SourceModule) -> list[FoundAction]:
        found: list[FoundAction] = []
        for attribute, node in module.classes.items():
            if FOR_DERIVING.match(attribute) or self._is_open(node, module):
                continue
            lineage = self._lineage(Name(module.name, attribute))
            if any(_is_action_base(name) for name in lineage) and self._executes(lineage):
                given = next(
                    (text for c in self._nodes(lineage) if (text := text_attribute(c, "action_name"))), None
                )
                found.append(_found(given or default_name(attribute), attribute, node, module))
        for attribute, function in module.functions.items():
            declared = self._action_decorator(function, module)
            if declared is not None:
                name, description = declared.get("name", attribute), declared.get("description")
                found.append(_found(name, attribute, function, module, description))
        return sorted(found, key=lambda action: action.line)

    def _lineage(self, name: Name, seen: tuple[Name, ...] = ()) -> list[Name]:
        """Return a class and those it derives from, nearest first, each once."""
        lineage = [name]
        module = self._module(name.module)
        node = module.classes.get(name.attribute or "") if module is not None else None
        if module is None or node is None or name in seen:
            return lineage
        for base in node.bases:
            meant = self._meaning(base, module)
            if meant is not None:
                lineage += [n for n in self._lineage(meant, (*seen, name)) if n not in lineage]
        return lineage

    def _nodes(self, lineage: list[Name]) -> Iterator[ast.ClassDef]:
        for name in lineage:
            module = self._module(name.module)
            node = module.classes.get(name.attribute or "") if module is not None else None
            if node is not None:
                yield node

    def _executes(self, lineage: list[Name]) -> bool:
        for node in self._nodes(lineage):
            for method in ("execute", "setup_steps"):
                defined = method_of(node, method)
                if defined is not None:
                    return not is_abstract(defined)
        # A ready-made base other than BaseAction brings an execute of its own.
        return any(_is_action_base(name) and name.attribute != "BaseAction" for name in lineage)

    def _is_open(self, node: ast.ClassDef, module: SourceModule) -> bool:
        """Tell whether a class is abstract or generic itself."""
        if getattr(node, "type_params", None):
            return True
        if any(isinstance(s, Function) and is_abstract(s) for s in node.body):
            return True
        for base in node.bases:
            if not isinstance(base, ast.Subscript):
                continue
            meant = meaning_of(base, module)
            if meant is not None and meant.attribute == "Generic":
                return True
            inner = (n for n in ast.walk(base.slice) if isinstance(n, (ast.Name, ast.Attribute)))
            if any(self._is_type_variable(n, module) for n in inner):
                return True
        return False

    def _is_type_variable(self, node: ast.expr, module: SourceModule) -> bool:
        if isinstance(node, ast.Name) and node.id in module.type_variables:
            return True
        meant = self._meaning(node, module)
        source = self._module(meant.module) if meant is not None else None
        return source is not None and meant is not None and meant.attribute in source.type_variables

    def _action_decorator(self, function: Function, module: SourceModule) -> dict[str, str] | None:
        """Return what was given to ``@action`` as text, or None if the function has no such decorator."""
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            meant = self._meaning(call.func if call else decorator, module)
            if meant is None or not _is_host(meant) or meant.attribute != "action":
                continue
            return {
                keyword.arg: keyword.value.value
                for keyword in (call.keywords if call else ())
                if keyword.arg
                and isinstance(keyword.value, ast.Constant)
                and isinstance(keyword.value.value, str)
            }
        return None


def _package_root(file: Path) -> Path:
    """Return the folder that a file's package lies in, so that its absolute imports work."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier() and folder.parent != folder:
        folder = folder.parent
    return folder


def _is_host(name: Name) -> bool:
    return name.module.partition(".")[0] in _HOSTS


def _is_action_base(name: Name) -> bool:
    attribute = name.attribute or ""
    return _is_host(name) and attribute.startswith("Base") and attribute.endswith("Action")


def _found(
    name: str,
    attribute: str,
    node: ast.ClassDef | Function,
    module: SourceModule,
    description: str | None = None,
) -> FoundAction:
    return FoundAction(
        name=name,
        entrypoint=f"{module.name}:{attribute}",
        file=module.file,
        line=node.lineno,
        description=description or first_line(ast.get_docstring(node)),
    )
