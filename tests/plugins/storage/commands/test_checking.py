"""The command `storage check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.plugins.storage.commands.conftest import Said, files_in

Command = Callable[..., Said]


def test_what_works_is_told(storage: Command, work: Path):
    said = storage("check", "data")

    assert Said(0, "data\n   operation\n✓  list\n✓  write\n✓  read\n✓  delete\n", "") == said
    assert 4 == len(files_in(work / "data"))


def test_without_a_url_every_storage_of_the_settings_is_checked(storage: Command):
    assert ["storage://other", "storage://pool"] == [
        line for line in storage("check").lines if line.startswith("storage://")
    ]


def test_what_does_not_work_is_told_with_what_to_do_and_the_exit_code_is_1(storage: Command):
    said = storage("check", "missing")

    assert (
        Said(
            1,
            "missing\n"
            "   operation  why not\n"
            "✗  list       there is nothing under this key\n"
            "-  write      there is no such folder\n"
            "-  read       there is no such folder\n"
            "-  delete     there is no such folder\n"
            "  see that the bucket, host and folder of its URL are there\n",
            "",
        )
        == said
    )


def test_one_that_cannot_be_opened_does_not_keep_the_others_from_being_checked(storage: Command):
    said = storage("check", "ftp://host", "data", "--json")

    assert 1 == said.code
    assert [("ftp://host", False), ("data", True)] == [(each["place"], each["ok"]) for each in said.document]
    assert "UnknownNameError" == said.document[0]["error"]["type"]


def test_read_only_is_enough_where_that_is_asked_for(storage: Command, monkeypatch):
    from synapse_kernel.storage import Storage, StoragePermissionError

    def refuse(*_: object) -> None:
        raise StoragePermissionError("denied")

    monkeypatch.setattr(Storage, "write_bytes", refuse)

    assert 1 == storage("check", "data").code
    assert 0 == storage("check", "data", "--read-only").code


def test_without_a_storage_in_the_settings_it_says_what_to_type(storage: Command, work: Path):
    (work / "synapse.yaml").write_text("{}")

    assert Said(
        2,
        "",
        "Error: The settings name no storage: say which to check, such as synapse-kernel storage check "
        "s3://bucket\n",
    ) == storage("check")
