"""The tables of the reference have a row for each thing there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import synapse_kernel
from synapse_kernel import SynapseError, errors, events
from synapse_kernel.config import ActionConfig, PluginConfig, ResourcesConfig
from synapse_kernel.contracts import ErrorKind
from synapse_kernel.settings import KernelSettings

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


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("The plugin", PluginConfig), ("An action", ActionConfig), ("Resources", ResourcesConfig)],
)
def test_config_has_every_key(docs: Path, sections: Sections, heading: str, kind: type[msgspec.Struct]):
    assert list(kind.__struct_fields__) == rows_of(sections(docs / "reference/config.md")[heading])


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
