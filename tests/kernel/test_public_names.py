"""The flat public namespace: complete, lazy, and the same for type checkers and the table behind it."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import synapse_kernel

HEAVY = ["pydantic", "msgspec", "pluggy", "fsspec", "rich", "click", "yaml", "asyncio", "importlib_metadata"]


def imported_for_type_checkers() -> dict[str, str]:
    """Return the names that the package imports under ``TYPE_CHECKING``, each with its module."""
    source = ast.parse(Path(synapse_kernel.__file__).read_text(encoding="utf-8"))
    guarded = [
        node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.name: str(node.module).removeprefix("synapse_kernel.")
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def modules_after(code: str) -> list[str]:
    """Return the modules that a fresh interpreter holds after some code."""
    script = f"import sys, json; {code}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", synapse_kernel.__all__)
def test_every_public_name_resolves(name: str):
    assert getattr(synapse_kernel, name) is not None


def test_what_type_checkers_see_is_what_there_is():
    homes = {name: module for module, names in synapse_kernel._HOMES.items() for name in names.split()}

    assert homes == imported_for_type_checkers()


def test_every_public_name_is_the_one_of_its_module():
    for name, module in imported_for_type_checkers().items():
        home = importlib.import_module(f"synapse_kernel.{module}")
        assert getattr(home, name) is getattr(synapse_kernel, name)


def test_no_name_is_listed_twice():
    assert len(set(synapse_kernel.__all__)) == len(synapse_kernel.__all__)


def test_dir_lists_the_public_names():
    assert sorted(synapse_kernel.__all__) == dir(synapse_kernel)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as raised:
        synapse_kernel.Kernle  # noqa: B018

    assert "module 'synapse_kernel' has no attribute 'Kernle'" == str(raised.value)


def test_importing_the_package_imports_nothing_heavy():
    found = modules_after("import synapse_kernel; synapse_kernel.__version__")

    own = [name for name in found if name.startswith("synapse_kernel")]
    assert [] == [name for name in HEAVY if name in found]
    assert ["synapse_kernel", "synapse_kernel._version", "synapse_kernel.lazy_names"] == own


def test_an_action_without_models_runs_without_pydantic():
    found = modules_after(
        "from synapse_kernel import Kernel, action; "
        "work = action(lambda params, ctx: params); "
        "assert Kernel().run(work, params={'a': 1}).unwrap() == {'a': 1}"
    )

    needless = ("pydantic", "fsspec", "rich", "click", "yaml", "asyncio")
    assert [] == [name for name in needless if name in found]


def test_the_package_is_typed():
    assert (Path(synapse_kernel.__file__).parent / "py.typed").is_file()
