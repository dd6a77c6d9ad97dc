"""The reference of Ray has each executor, each way an attempt can end, each class and each method."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import synapse_plugins.ray_executors
from synapse_kernel import SynapseError
from synapse_plugins.ray_executors import synapse_register_executors

Sections = Callable[[Path], dict[str, str]]
SOURCES = sorted(Path(synapse_plugins.ray_executors.__file__).parent.glob("*.py"))


@pytest.fixture
def reference(docs: Path, sections: Sections) -> dict[str, str]:
    return sections(docs / "reference/ray.md")


def test_each_executor_is_there_with_its_method_and_whether_it_outlives_the_client(reference: dict[str, str]):
    rows = re.findall(
        r"^\| `([\w-]+)` \| (?:`(\w+)`|none) \| [^|]* \| (yes|no) \|",
        reference["The executors"],
        re.MULTILINE,
    )

    assert rows == [
        (spec.name, "".join(spec.methods), "yes" if spec.lasting else "no")
        for spec in synapse_register_executors()
    ]


def test_each_way_an_attempt_can_end_is_there(reference: dict[str, str]):
    text = "".join(file.read_text(encoding="utf-8") for file in SOURCES)
    told = set(re.findall(r"(?:ErrorInfo\(\s*type=|_crash\(\s*)\"(\w+)\"", text)) - {"RunCancelled"}

    assert sorted({*told, "ClusterError"}) == sorted(
        re.findall(r"^\| `(\w+)` \|", reference["How an attempt can end"], re.MULTILINE)
    )


def test_each_class_is_there(reference: dict[str, str]):
    table = reference["From Python"].partition("### ")[0]

    assert sorted(synapse_plugins.ray_executors.__all__) == sorted(
        re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    )


@pytest.mark.parametrize("name", ["RayJobExecutor", "RayPipelineExecutor"])
def test_each_public_method_is_there_with_its_arguments(reference: dict[str, str], name: str):
    actual = []
    for member, found in vars(getattr(synapse_plugins.ray_executors, name)).items():
        if isinstance(found, property):
            actual.append(member)
        elif inspect.isfunction(found) and not member.startswith("_"):
            _self, *parameters = inspect.signature(found).parameters.values()
            given = ", ".join(str(p).partition(":")[0].partition("=")[0] for p in parameters)
            actual.append(f"{member}({given})")

    assert sorted(actual) == sorted(re.findall(r"^\| `([^`]+)` \|", reference[name], re.MULTILINE))


def test_each_error_is_there_with_its_exit_code(reference: dict[str, str]):
    actual = set()
    for file in SOURCES:
        for name in re.findall(r"^class ([A-Z]\w*Error)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            found = getattr(import_module(f"synapse_plugins.ray_executors.{file.stem}"), name)
            if issubclass(found, SynapseError):
                actual.add((name, file.stem, str(found.exit_code)))

    assert actual == set(re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d) \|", reference["Errors"], re.MULTILINE))
