"""The command `storage ls`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.storage.commands.conftest import Said, fill

Command = Callable[..., Said]


def test_a_folder_is_listed_by_name_its_folders_with_a_slash(storage: Command):
    assert Said(0, "a/\nb/\ntop.txt\n", "") == storage("ls", "data")
    assert Said(0, "a/\nb/\ntop.txt\n", "") == storage("ls", "data/")


def test_a_named_storage_and_a_url_are_listed(storage: Command, work: Path):
    fill(work / "pool", {"coco/labels.json": "{}"})

    assert ["labels.json"] == storage("ls", "storage://pool/coco").lines
    assert ["coco/"] == storage("ls", f"file://{work}/pool").lines


def test_recursively_the_files_at_every_depth_are_listed(storage: Command):
    assert ["a/1.txt", "a/2.txt", "b/x.json", "top.txt"] == storage("ls", "-r", "data").lines


def test_a_pattern_lists_what_matches_below_what_is_fixed(storage: Command):
    assert ["1.txt", "2.txt"] == storage("ls", "data/a/*.txt").lines
    assert ["a/1.txt", "a/2.txt", "top.txt"] == storage("ls", "data/**/*.txt").lines
    assert ["a/", "b/", "top.txt"] == storage("ls", "data/*").lines
    assert ["a/1.txt", "a/2.txt"] == storage("ls", "-r", "data/a*").lines


def test_a_file_whose_name_looks_like_a_pattern_is_meant_literally(storage: Command, work: Path):
    fill(work / "odd", {"a[1].txt": "", "a1.txt": ""})

    assert ["a[1].txt"] == storage("ls", "odd/a[1].txt").lines
    assert ["a1.txt"] == storage("ls", "odd/a[12].txt").lines


def test_the_long_form_tells_sizes_and_times(storage: Command, work: Path, monkeypatch: pytest.MonkeyPatch):
    os.truncate(work / "data/top.txt", 1536)
    os.utime(work / "data/top.txt", (1_700_000_000, 1_700_000_000))

    told = storage("ls", "-l", "data/top.txt").out
    human = storage("ls", "--human", "data/top.txt").out

    assert "          1536  2023-11-1" == told[:25]
    assert "   1.5 KiB  2023-11-1" == human[:21]
    assert ["top.txt", "top.txt"] == [told.split()[-1], human.split()[-1]]


def test_as_json_each_entry_is_a_line(storage: Command, work: Path):
    lines = [json.loads(line) for line in storage("ls", "--json", "data").lines]

    assert [("folder", None), ("folder", None), ("file", 4)] == [(e["kind"], e["size"]) for e in lines]
    assert f"file://{work}/data/top.txt" == lines[2]["url"]
    assert {"key", "url", "kind", "size", "modified", "etag", "checksums"} == set(lines[2])


def test_what_is_not_there_is_an_error_that_says_what_to_type(storage: Command):
    assert Said(
        2,
        "",
        "Error: Storage 'local': info 'nothing': there is nothing under this key\n"
        "  see what is there with: synapse-kernel storage ls storage://pool/\n",
    ) == storage("ls", "storage://pool/nothing")


def test_a_pattern_that_nothing_matches_is_an_error(storage: Command):
    assert Said(
        2,
        "",
        "Error: Storage 'local': glob 'x/*.png': nothing matches this pattern\n"
        "  see what is there with: synapse-kernel storage ls storage://pool/x\n",
    ) == storage("ls", "storage://pool/x/*.png")


def test_an_error_is_a_document_under_json(storage: Command):
    said = storage("ls", "--json", "storage://poool")

    assert 2 == said.code
    assert {
        "status": "error",
        "error": {
            "type": "UnknownNameError",
            "message": "Storage 'poool' is neither a URL nor a name from the settings; did you mean 'pool'?\n"
            "  named there: other, pool",
        },
    } == said.document


def test_an_unknown_scheme_names_what_there_is(storage: Command):
    said = storage("ls", "ftp://host/path")

    assert 2 == said.code
    assert "Error: Storage provider 'ftp' is not registered; did you mean 'sftp'?" == said.err.splitlines()[0]


def test_an_unknown_command_names_the_nearest(storage: Command):
    said = storage("lst", "data")

    assert 2 == said.code
    assert "Error: There is no command 'storage lst'; did you mean 'ls'?" in said.err
