"""Every hook is documented, with its exact signature and an example that runs, and tested."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import hookspecs

TESTS = Path(__file__).parents[1]
HOOKS = [name for name, found in vars(hookspecs).items() if hasattr(found, "synapse_kernel_spec")]
PARTS = ("When", "Process", "Result", "Errors")


def signature_of(hook: str) -> str:
    """Return a hook's signature as its source writes it."""
    found = inspect.signature(getattr(hookspecs, hook))
    parameters = ", ".join(f"{p.name}: {p.annotation}" for p in found.parameters.values())
    return f"{hook}({parameters}) -> {found.return_annotation}"


@pytest.fixture
def section(docs: Path, sections: Callable[[Path], dict[str, str]], hook: str) -> str:
    """Return what stands in the reference under the hook's exact signature."""
    under = sections(docs / "reference/hooks.md")
    heading = f"`{signature_of(hook)}`"
    assert heading in under, f"docs/reference/hooks.md lacks the heading: ### {heading}"
    return under[heading]


def test_the_hooks_are_those_with_our_prefix():
    assert [name for name in vars(hookspecs) if name.startswith("synapse_")] == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_of_a_hook_has_its_four_parts(hook: str):
    lines = inspect.cleandoc(getattr(hookspecs, hook).__doc__).splitlines()

    assert list(PARTS) == [part for line in lines for part in PARTS if line.startswith(f"{part}: ")]


@pytest.mark.parametrize("hook", HOOKS)
def test_the_reference_has_the_same_four_parts(section: str):
    found = re.findall(r"^- \*\*(\w+)\*\*: \S", section, re.MULTILINE)

    assert list(PARTS) == found


@pytest.mark.parametrize("hook", HOOKS)
def test_the_reference_has_an_example_that_implements_the_hook_and_asserts_something(section: str, hook: str):
    examples = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)

    assert [True] == [f"def {hook}(" in e and "@hookimpl" in e and "assert " in e for e in examples]


@pytest.mark.parametrize("hook", HOOKS)
def test_the_examples_take_no_argument_that_the_hook_does_not_have(section: str, hook: str):
    implemented = re.search(rf"def {hook}\((?:self,? ?)?(.*?)\)", section)

    assert implemented is not None
    known = set(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert set(re.findall(r"\w+", implemented[1])) <= known


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_tested(hook: str):
    """Some test besides this file speaks of it."""
    files = [file for file in TESTS.rglob("*.py") if file != Path(__file__)]

    assert any(re.search(rf"\b{hook}\b", file.read_text(encoding="utf-8")) for file in files)
