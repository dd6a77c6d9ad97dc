"""Imports run one way, and thin modules stay thin: read from the source of every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import synapse_kernel
import synapse_plugins

KERNEL = Path(synapse_kernel.__file__).parent
PLUGINS = Path(synapse_plugins.__file__).parent
HEAVY = {
    "click",
    "fsspec",
    "platformdirs",
    "pydantic",
    "ray",
    "rich",
    "ruamel",
    "tenacity",
    "torch",
    "ultralytics",
    "yaml",
}


def imports_of(file: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Yield the dotted names a file imports; `at_import_only` leaves out functions and type checking."""
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"), file)]
    while pending:
        node = pending.pop()
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_import_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield absolute(file, node)
        pending.extend(ast.iter_child_nodes(node))


def absolute(file: Path, node: ast.ImportFrom) -> str:
    """Return the module of a ``from … import``, a relative one in full."""
    if not node.level:
        return node.module or ""
    root = KERNEL.parent if file.is_relative_to(KERNEL) else PLUGINS.parent
    package = file.relative_to(root).parts[: -node.level]
    return ".".join((*package, *([node.module] if node.module else [])))


def strings_of(file: Path) -> Iterator[str]:
    """Yield the texts of a file that are not docstrings: a lazy import is a text too."""
    tree = ast.parse(file.read_text(encoding="utf-8"), file)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def label(file: Path) -> str:
    return str(file.relative_to(KERNEL.parent if file.is_relative_to(KERNEL) else PLUGINS.parent))


KERNEL_FILES = sorted(KERNEL.rglob("*.py"))
PLUGIN_FILES = sorted(PLUGINS.rglob("*.py"))
THIN_FILES = [file for file in PLUGIN_FILES if file.name == "__init__.py"]


def test_there_are_files_to_look_at():
    assert len(KERNEL_FILES) > 20
    assert len(THIN_FILES) > 3


@pytest.mark.parametrize("file", KERNEL_FILES, ids=label)
def test_the_kernel_never_imports_a_built_in_plugin(file: Path):
    assert [] == [name for name in imports_of(file) if name.split(".")[0] == "synapse_plugins"]
    assert [] == [text for text in strings_of(file) if text.startswith("synapse_plugins.")]


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=label)
def test_one_built_in_plugin_never_imports_another(file: Path):
    own = file.relative_to(PLUGINS).parts[0]

    others = [
        name
        for name in (*imports_of(file), *(t for t in strings_of(file) if t.startswith("synapse_plugins.")))
        if name.split(".")[0] == "synapse_plugins" and name.split(".")[1:2] != [own]
    ]

    assert [] == others


@pytest.mark.parametrize("file", THIN_FILES, ids=label)
def test_a_plugins_init_imports_nothing_heavy(file: Path):
    found = {name.split(".")[0] for name in imports_of(file, at_import_only=True)}

    assert set() == found & HEAVY


@pytest.mark.parametrize("file", THIN_FILES, ids=label)
def test_a_plugins_init_imports_no_other_module_of_its_folder(file: Path):
    """A fat module is named in a descriptor's target, and imported on first use."""
    found = [n for n in imports_of(file, at_import_only=True) if n.startswith("synapse_plugins")]

    assert [] == found


def test_loading_the_built_in_plugins_imports_nothing_heavy():
    """The rule as it is felt: a kernel with all built-in plugins, in a fresh interpreter."""
    import subprocess
    import sys

    code = (
        "import sys, synapse_kernel.kernel as k; kernel = k.Kernel(strict=True)\n"
        "for kind in ('executors', 'sinks', 'commands', 'schemas'): kernel.contributions(kind)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set() == set(shown.stdout.split()) & HEAVY
