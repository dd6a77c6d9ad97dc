"""A real dataset to real servers and back, by the command line."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.storage.commands.conftest import Said
from tests.storage_servers.s3 import S3Server

Command = Callable[..., Said]

DATASETS = Path(__file__).parents[4].parent / "shared/data"


@pytest.fixture
def dataset() -> Path:
    """Return a folder of images and labels."""
    found = DATASETS / "yolo-coco128-train"
    if not found.is_dir():
        pytest.skip(f"there is no dataset {found}")
    return found


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_dataset_goes_to_s3_and_comes_back_byte_for_byte(
    storage: Command, work: Path, s3: S3Server, dataset: Path
):
    settings = f"""
storage:
  bucket:
    provider: s3
    configuration:
      bucket_name: {s3.make_bucket()}
      access_key: {s3.access_key}
      secret_key: {s3.secret_key}
      endpoint_url: {s3.endpoint_url}
      region_name: {s3.region}
"""
    (work / "synapse.yaml").write_text(settings)
    names = all_files(dataset)

    there = storage("sync", dataset, "storage://bucket/set", "--json")
    again = storage("sync", dataset, "storage://bucket/set", "--json")
    by_checksum = storage("sync", dataset, "storage://bucket/set", "--checksum", "--json")
    back = storage("sync", "storage://bucket/set", "back", "--json")
    removed = storage("sync", "storage://bucket/set", "storage://bucket/copy", "--delete", "--json")

    assert [0] * 5 == [said.code for said in (there, again, by_checksum, back, removed)]
    assert [len(names), 0, 0, len(names), len(names)] == [
        said.document["files"] for said in (there, again, by_checksum, back, removed)
    ]
    assert len(names) == again.document["same"] == by_checksum.document["same"]
    assert names == all_files(work / "back")
    assert ([], []) == filecmp.cmpfiles(dataset, work / "back", names, shallow=False)[1:]


def test_a_file_that_changed_is_the_only_one_that_goes_to_s3_again(
    storage: Command, work: Path, moto: S3Server
):
    (work / "synapse.yaml").write_text(
        f"storage: {{bucket: {{provider: s3, configuration: {{bucket_name: {moto.make_bucket()}, "
        f"access_key: {moto.access_key}, secret_key: {moto.secret_key}, endpoint_url: '{moto.endpoint_url}', "
        f"region_name: {moto.region}}}}}}}"
    )
    storage("sync", "data", "storage://bucket/set")
    (work / "data/top.txt").write_text("longer than before\n")
    (work / "data/a/1.txt").unlink()

    said = storage("sync", "data", "storage://bucket/set", "--delete")

    assert Said(0, "Copied 1 file of 19 B, deleted 1; 2 the same\n", "") == said
    assert ["a/2.txt", "b/x.json", "top.txt"] == storage("ls", "-r", "storage://bucket/set").lines
