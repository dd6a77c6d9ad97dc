"""The command `storage sync`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.plugins.storage.commands.conftest import FILES, Said, files_in, fill

Command = Callable[..., Said]


def test_what_differs_is_copied_and_only_once(storage: Command, work: Path):
    assert Said(0, "Copied 4 files of 15 B; 0 the same\n", "") == storage(
        "sync", "data", "storage://pool/set"
    )
    assert Said(0, "Copied 0 files of 0 B; 4 the same\n", "") == storage("sync", "data", "storage://pool/set")
    assert FILES == files_in(work / "pool/set")


def test_a_dry_run_tells_each_file_and_why(storage: Command, work: Path):
    fill(work / "pool", {"top.txt": "other size", "old.txt": "", "a/1.txt": "one\n"})

    said = storage("sync", "data/", "storage://pool", "--delete", "--dry-run")

    assert [
        "copy    a/2.txt  (new)",
        "copy    b/x.json  (new)",
        "copy    top.txt  (size)",
        "delete  old.txt  (not in the source)",
        "Would copy 3 files of 11 B, delete 1; 1 the same",
    ] == said.lines
    assert "other size" == (work / "pool/top.txt").read_text()


def test_delete_and_exclude(storage: Command, work: Path):
    fill(work / "pool", {"old.txt": "", "keep.tmp": ""})

    said = storage("sync", "data", "storage://pool", "--delete", "--exclude", "*.tmp", "--exclude", "b/")

    assert "Copied 3 files of 12 B, deleted 1; 0 the same\n" == said.out
    assert {"a/1.txt", "a/2.txt", "top.txt", "keep.tmp"} == set(files_in(work / "pool"))


def test_with_checksum_contents_are_compared(storage: Command, work: Path):
    fill(work / "pool", {**FILES, "top.txt": "TOP\n"})
    os.utime(work / "data/top.txt", (1, 1))

    assert "Copied 0 files of 0 B; 4 the same\n" == storage("sync", "data", "storage://pool").out
    assert "Copied 1 file of 4 B; 3 the same\n" == storage("sync", "data", "storage://pool", "--checksum").out


def test_as_json_it_is_one_document(storage: Command, work: Path):
    (work / "data/dead").symlink_to("nowhere")

    said = storage("sync", "data", "storage://pool", "--json")

    skipped = {"action": "skip", "key": "dead", "size": None, "reason": "it is a link that leads nowhere"}
    assert {
        "files": 4,
        "bytes": 15,
        "same": 0,
        "deleted": 0,
        "skipped": 1,
        "dry_run": False,
        "changes": [skipped],
    } == said.document


def test_what_was_passed_over_is_a_warning(storage: Command, work: Path):
    (work / "data/dead").symlink_to("nowhere")

    assert (
        "Warning: dead was passed over: it is a link that leads nowhere\n"
        == storage("sync", "data", "storage://pool").err
    )


def test_a_source_that_is_not_there_deletes_nothing_and_says_what_to_type(storage: Command, work: Path):
    fill(work / "pool", {"a": ""})

    said = storage("sync", "data/missing", "storage://pool", "--delete")

    assert 2 == said.code
    assert (
        f"Error: Storage 'local': info '{str(work)[1:]}/data/missing': there is nothing under this key\n"
        "  see what is there with: synapse-kernel storage ls data\n"
    ) == said.err
    assert {"a": ""} == files_in(work / "pool")


def test_more_deletions_than_allowed_are_none(storage: Command, work: Path):
    fill(work / "pool", {"x": "", "y": ""})

    said = storage("sync", "data", "storage://pool", "--delete", "--max-delete", "1")

    assert 2 == said.code
    assert "and 1 may be deleted: none was" in said.err
    assert {"x", "y"} <= set(files_in(work / "pool"))


def test_max_delete_is_nothing_without_delete(storage: Command):
    said = storage("sync", "data", "storage://pool", "--max-delete", "1")

    assert 2 == said.code
    assert "--max-delete says how much --delete may delete: give that too." in said.err
