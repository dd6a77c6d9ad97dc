"""The tables of the reference have a row for each thing there is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from pydantic import BaseModel

import synapse_kernel
from synapse_kernel import (
    BaseStep,
    Orchestrator,
    StepRegistry,
    StepResult,
    SynapseError,
    errors,
    events,
    step,
)
from synapse_kernel.config import ActionConfig, PluginConfig, ResourcesConfig
from synapse_kernel.contracts import ErrorKind
from synapse_kernel.settings import KernelSettings
from synapse_plugins import pipelines
from synapse_plugins.pipelines import ActionProgress, ActionStatus, PipelineProgress, PipelineSpec
from synapse_plugins.pipelines.changes import changes
from synapse_plugins.pipelines.conditions import FUNCTIONS
from synapse_plugins.pipelines.definition import NodeSpec
from synapse_plugins.pipelines.documents import NodeDocument, PipelineDocument
from synapse_plugins.pipelines.references import RUN_FIELDS, SPECIAL
from synapse_plugins.ray_executors.settings import RaySettings

Sections = Callable[[Path], dict[str, str]]


def rows_of(text: str) -> list[str]:
    """Return what stands in backticks in the first column of the tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def keys_of(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a settings struct, those of the structs in it as ``outer.inner``."""
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys_of(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_settings_has_every_key_of_the_kernel(docs: Path, sections: Sections):
    assert sorted(keys_of(KernelSettings)) == sorted(
        rows_of(sections(docs / "reference/settings.md")["Keys"])
    )


def test_settings_has_a_variable_for_every_key_that_is_not_a_mapping(docs: Path, sections: Sections):
    mappings = {"plugins.prefer", "storage"}
    keys = {key for key in keys_of(KernelSettings) if key not in mappings}
    variables = {f"SYNAPSE_{key.upper().replace('.', '__')}" for key in keys}

    assert (variables - {"SYNAPSE_PLUGINS__ONLY"}) | {"SYNAPSE_PLUGINS", "SYNAPSE_HOME"} == set(
        rows_of(sections(docs / "reference/settings.md")["Variables"])
    )


def test_settings_has_every_key_of_ray_with_its_default(docs: Path, sections: Sections):
    rows = re.findall(
        r"^\| `(\w+)` \| .*? \| (.*?) \| ", sections(docs / "reference/settings.md")["ray"], re.MULTILINE
    )
    fields = {field.name: field.default for field in msgspec.structs.fields(RaySettings)}

    assert list(fields) == [name for name, _ in rows]
    for name, told in rows:
        value = fields[name]
        if value is None or value is msgspec.NODEFAULT:
            assert "`" not in told.replace("the setting `store`", ""), name
        else:
            written = str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
            assert f"`{written}`" == told


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("The plugin", PluginConfig), ("An action", ActionConfig), ("Resources", ResourcesConfig)],
)
def test_config_has_every_key(docs: Path, sections: Sections, heading: str, kind: type[msgspec.Struct]):
    assert list(kind.__struct_fields__) == rows_of(sections(docs / "reference/config.md")[heading])


@pytest.mark.parametrize(
    ("heading", "document", "spec", "not_written"),
    [
        ("The pipeline", PipelineDocument, PipelineSpec, {"base"}),
        ("A node", NodeDocument, NodeSpec, {"name", "code"}),
    ],
)
def test_a_pipeline_has_every_key(
    docs: Path,
    sections: Sections,
    heading: str,
    document: type[msgspec.Struct],
    spec: type[msgspec.Struct],
    not_written: set[str],
):
    written = [field.encode_name for field in msgspec.structs.fields(document)]
    kept = {field.encode_name for field in msgspec.structs.fields(spec)}
    rows = rows_of(sections(docs / "reference/pipeline.md")[heading])

    assert sorted(written) == sorted(rows)
    assert kept - not_written == set(rows)


def test_a_pipeline_has_every_root_and_field_of_the_run(docs: Path, sections: Sections):
    under = sections(docs / "reference/pipeline.md")["References"]
    roots, _, fields = re.split(r"^\| (?:path|`run` has) \|", under, flags=re.MULTILINE)

    assert sorted(SPECIAL) == sorted(
        name
        for row in re.findall(r"^\| (`.*?) \|", roots, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    )
    assert list(RUN_FIELDS) == rows_of(fields)


def test_a_pipeline_has_every_function_of_a_condition(docs: Path, sections: Sections):
    (line,) = re.findall(
        r"^- (`len`.*)\.$", sections(docs / "reference/pipeline.md")["Conditions"], re.MULTILINE
    )

    assert list(FUNCTIONS) == re.findall(r"`(\w+)`", line)


def test_a_pipeline_has_every_state_of_a_node(docs: Path, sections: Sections):
    assert sorted(ActionStatus) == sorted(
        rows_of(sections(docs / "reference/pipeline.md")["States of a node"])
    )


def test_a_pipeline_says_of_every_key_whether_its_change_refuses_a_resume(docs: Path, sections: Sections):
    """Each row's answer is that of `changes`."""
    rows = re.findall(
        r"^\| a node's (.*?) \| (yes|no)",
        sections(docs / "reference/pipeline.md")["Going on with a run"],
        re.M,
    )
    told = {key: answer for keys, answer in rows for key in re.findall(r"`(\w+)`", keys)}

    def answer_of(key: str) -> str:
        old, new = {"name": "a", "action": "x"}, {"name": "a", "action": "x", key: "other"}
        return "yes" if changes({"nodes": [old]}, {"nodes": [new]}) else "no"

    keys = [field.encode_name for field in msgspec.structs.fields(NodeDocument)]
    assert {key: answer_of(key) for key in keys} == told


def test_python_has_exactly_the_public_names(docs: Path):
    rows = rows_of((docs / "reference/python.md").read_text(encoding="utf-8"))

    assert sorted(set(synapse_kernel.__all__) - {"__version__"}) == sorted(rows)


def test_a_pipeline_from_python_has_every_public_name(docs: Path, sections: Sections):
    under = sections(docs / "reference/pipeline.md")["From Python"].partition("```python")[0]
    first_column = re.findall(r"^\| (`.*?) \|", under, re.MULTILINE)

    assert sorted(pipelines.__all__) == sorted(
        name for row in first_column for name in re.findall(r"`(\w+)", row)
    )


@pytest.mark.parametrize("model", [PipelineProgress, ActionProgress])
def test_a_pipeline_has_every_field_of_a_snapshot(docs: Path, sections: Sections, model: type[BaseModel]):
    under = sections(docs / "reference/pipeline.md")["How far a run has come"]
    rows = under.partition(f"| of `{model.__name__}` | is |")[2].partition("\n\n")[0]

    assert sorted(model.model_fields) == sorted(
        name
        for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    )


def test_steps_has_every_field_of_a_result(docs: Path, sections: Sections):
    assert list(StepResult.__struct_fields__) == rows_of(
        sections(docs / "reference/steps.md")["What a step returns"]
    )


def test_steps_has_every_argument_of_an_orchestrator(docs: Path, sections: Sections):
    assert list(inspect.signature(Orchestrator).parameters) == rows_of(
        sections(docs / "reference/steps.md")["Running it"].partition("| it raises |")[0]
    )


def test_steps_has_every_member_of_a_registry(docs: Path, sections: Sections):
    rows = rows_of(sections(docs / "reference/steps.md")["The steps of a workflow"])

    assert [name for name in vars(StepRegistry) if not name.startswith("_")] == [
        row.partition("(")[0] for row in rows
    ]


def test_steps_has_every_member_of_a_step(docs: Path, sections: Sections):
    rows = rows_of(sections(docs / "reference/steps.md")["A step"])
    arguments = [name for name, p in inspect.signature(step).parameters.items() if p.kind is p.KEYWORD_ONLY]

    assert sorted([name for name in vars(BaseStep) if not name.startswith("_")] + arguments) == sorted(
        row.partition("(")[0] for row in rows
    )


def test_events_has_every_type_with_its_fields(docs: Path, sections: Sections):
    under = sections(docs / "reference/events.md")
    common = rows_of(under["Fields of every event"])
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \|", under["Types"], re.MULTILINE)
    documented = {(kind, name, *re.findall(r"`(\w+)`", fields)) for kind, name, fields in rows}

    actual = set()
    for event in get_args(events.Event):
        names = [field.encode_name for field in msgspec.structs.fields(event)]
        assert common == names[: len(common)]
        actual.add((event.__struct_config__.tag, event.__name__, *names[len(common) :]))
    assert actual == documented


def test_errors_has_every_public_class_with_its_exit_code(docs: Path, sections: Sections):
    rows = re.findall(
        r"^\| `(\w+)` \| (\d) \|", sections(docs / "reference/errors.md")["Classes"], re.MULTILINE
    )
    named = [getattr(synapse_kernel, name) for name in synapse_kernel.__all__]
    public = [found for found in (*vars(errors).values(), *named) if isinstance(found, type)]
    actual = {
        (found.__name__, str(found.exit_code))
        for found in public
        if issubclass(found, SynapseError) and found.__name__ != "ProblemsError"
    }

    assert actual == set(rows)


def test_errors_has_every_kind_of_an_outcome_s_error(docs: Path, sections: Sections):
    under = sections(docs / "reference/errors.md")

    assert sorted(get_args(ErrorKind)) == sorted(rows_of(under["The error of an outcome"]))
