"""The reference of storage says what there is: each method, and each key of each provider's configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel, Storage
from synapse_kernel.storage import Provider

TITLES = {
    "local": "Local files",
    "s3": "S3",
    "gcs": "Google Cloud Storage",
    "sftp": "SFTP",
    "http": "HTTP",
}


@pytest.fixture
def reference(docs: Path, sections: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    return sections(docs / "reference/storage.md")


def test_every_public_method_is_there(reference: dict[str, str]):
    rows = re.findall(r"^\| (`.*?) \|", reference["Methods"], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)[(`]", row)}

    assert {name for name in vars(Storage) if not name.startswith("_")} - {"close", "url"} == told


@pytest.mark.parametrize("name", TITLES)
def test_every_key_of_a_configuration_is_there_with_its_meaning(reference: dict[str, str], name: str):
    with Kernel() as kernel:
        kind = kernel.registry.resolve("storage", name)
    assert isinstance(kind, type)
    assert issubclass(kind, Provider)
    own = reference["Providers"].partition(f"### {TITLES[name]}\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| (.*?) \|$", own, re.MULTILINE)

    fields = kind.configuration_type.model_fields
    assert [
        (key, field.is_required(), str(field.description).rstrip(".").lower())
        for key, field in fields.items()
    ] == [(key, default == "required", meaning.rstrip(".").lower()) for key, default, meaning in rows]


def test_every_provider_is_there_with_its_names(reference: dict[str, str]):
    with Kernel() as kernel:
        specs = {contribution.spec.name: contribution.spec for contribution in kernel.registry.all("storage")}

    assert set(TITLES) == set(specs)
    for name, title in TITLES.items():
        own = reference["Providers"].partition(f"### {title}\n")[2].partition("\n### ")[0]
        spec = specs[name]
        for known in {spec.name, *getattr(spec, "aliases", ()), *getattr(spec, "schemes", ())}:
            assert known in own
