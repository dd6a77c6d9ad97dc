"""The commands `storage cat` and `storage info`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.plugins.storage.commands.conftest import FILES, Said, fill

Command = Callable[..., Said]


def test_files_are_printed_one_after_the_other(storage: Command):
    assert Said(0, "top\none\ntwo\n", "") == storage("cat", "data/top.txt", "data/a/*")


def test_bytes_are_printed_as_they_are(work: Path):
    data = os.urandom(3 << 20)
    (work / "data/bytes").write_bytes(data)

    done = subprocess.run(
        [sys.executable, "-m", "synapse_kernel", "storage", "cat", "data/bytes"],
        cwd=work,
        capture_output=True,
        timeout=120,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    assert data == done.stdout


def test_a_reader_that_goes_away_is_no_error(work: Path):
    with (work / "data/large").open("wb") as file:
        file.truncate(64 << 20)

    done = subprocess.run(
        [
            "bash",
            "-c",
            f"set -o pipefail; {sys.executable} -m synapse_kernel storage cat data/large | head -c 1",
        ],
        cwd=work,
        capture_output=True,
        timeout=120,
    )

    assert (0, b"\0", b"") == (done.returncode, done.stdout, done.stderr)


def test_a_folder_cannot_be_printed(storage: Command):
    said = storage("cat", "storage://pool")

    assert 2 == said.code
    assert "Error: Storage 'local': open: the key of a file is needed, and this is the root\n" == said.err


def test_what_is_known_of_a_file_is_shown(storage: Command, work: Path):
    os.truncate(work / "data/top.txt", 1536)

    lines = storage("info", "data/top.txt").lines

    assert [
        f"url         file://{work}/data/top.txt",
        "kind        file",
        "size        1.5 KiB (1,536 bytes)",
    ] == (lines[:3])
    assert lines[3].startswith("modified    20")


def test_the_files_of_a_folder_are_counted(storage: Command, work: Path):
    fill(work / "pool", FILES)

    assert "holds       4 files, 15 B (15 bytes)" in storage("info", "-r", "storage://pool").lines
    document = storage("info", "--recursive", "storage://pool", "--json").document
    assert ("folder", 4, 15) == (document["kind"], document["files"], document["bytes"])


def test_a_provider_without_signed_urls_says_so(storage: Command):
    said = storage("info", "data/top.txt", "--sign", "1h")

    assert 2 == said.code
    assert "has no signed URLs" in said.err
