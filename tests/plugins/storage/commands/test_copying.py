"""The command `storage cp`: where things go, what is left, what is refused."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from tests.plugins.storage.commands.conftest import FILES, Said, files_in, fill

Command = Callable[..., Said]


def under(prefix: str) -> dict[str, str]:
    return {f"{prefix}{key}": text for key, text in FILES.items()}


@pytest.mark.parametrize(
    ("source", "target", "becomes"),
    [
        ("data/top.txt", "storage://pool/new", {"new": "top\n"}),
        ("data/top.txt", "storage://pool/new/", {"new/top.txt": "top\n"}),
        ("data/top.txt", "storage://pool", {"top.txt": "top\n"}),
        ("data/top.txt", "storage://pool/there", {"there/top.txt": "top\n"}),
        ("data", "storage://pool/new", under("new/")),
        ("data", "storage://pool/new/", under("new/data/")),
        ("data", "storage://pool/there", under("there/data/")),
        ("data", "storage://pool", under("data/")),
        ("data/", "storage://pool", under("")),
        ("data/", "storage://pool/there", under("there/")),
        ("data/a/*", "storage://pool/new", {"new/1.txt": "one\n", "new/2.txt": "two\n"}),
        ("data/**/*.json", "storage://pool/new", {"new/b/x.json": "{}\n"}),
        ("data/*", "storage://pool/new", under("new/")),
    ],
)
def test_where_a_source_comes(
    storage: Command, work: Path, source: str, target: str, becomes: dict[str, str]
):
    (work / "pool/there").mkdir(parents=True)

    said = storage("cp", "-r", source, target)

    assert (0, "") == (said.code, said.err)
    assert becomes == files_in(work / "pool")


def test_it_is_told_how_much_was_copied(storage: Command):
    assert "Copied 4 files of 15 B\n" == storage("cp", "-r", "data", "storage://pool").out


def test_several_sources_come_into_a_folder(storage: Command, work: Path):
    assert 0 == storage("cp", "data/top.txt", "data/a/1.txt", "storage://pool/new").code
    assert {"new/top.txt": "top\n", "new/1.txt": "one\n"} == files_in(work / "pool")


def test_a_storage_is_copied_to_another_and_to_this_machine(storage: Command, work: Path):
    fill(work / "pool", FILES)

    storage("cp", "-r", "storage://pool/a", "storage://other/")
    storage("cp", "-r", "storage://other/a", "here")

    assert {"1.txt": "one\n", "2.txt": "two\n"} == files_in(work / "other/a") == files_in(work / "here")


def test_with_no_clobber_what_is_there_stays(storage: Command, work: Path):
    fill(work / "pool/data", {"top.txt": "before"})

    said = storage("cp", "-r", "--no-clobber", "data", "storage://pool")

    assert "Copied 3 files of 11 B; 1 there already\n" == said.out
    assert "before" == (work / "pool/data/top.txt").read_text()


def test_a_dry_run_says_what_would_be_copied_where(storage: Command, work: Path):
    said = storage("cp", "data/a/*", "storage://pool/new", "--dry-run")

    assert [
        f"file://{work}/data/a/1.txt -> file://{work}/pool/new/1.txt",
        f"file://{work}/data/a/2.txt -> file://{work}/pool/new/2.txt",
        "Would copy 2 files of 8 B",
    ] == said.lines
    assert not (work / "pool").exists()


def test_as_json_it_is_one_document(storage: Command, work: Path):
    counts = {"files": 1, "bytes": 4, "left": 0, "skipped": 0}
    change = {"source": f"file://{work}/data/top.txt", "target": f"file://{work}/pool/top.txt", "size": 4}

    assert {"dry_run": True, **counts, "changes": [change]} == storage(
        "cp", "data/top.txt", "storage://pool", "--json", "--dry-run"
    ).document
    assert {"dry_run": False, **counts} == storage("cp", "data/top.txt", "storage://pool", "--json").document


def test_stdin_is_copied_byte_for_byte(storage: Command, work: Path, monkeypatch: pytest.MonkeyPatch):
    data = bytes(range(256)) * 1000
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    said = storage("cp", "-", "storage://pool/in.bin")

    assert Said(0, "Copied 1 file of 250.0 KiB\n", "") == said
    assert data == (work / "pool/in.bin").read_bytes()


def test_a_link_that_leads_nowhere_is_passed_over_and_told(storage: Command, work: Path):
    (work / "data/dead").symlink_to("nowhere")

    said = storage("cp", "-r", "data/", "storage://pool")

    assert (0, "Warning: dead was passed over: it is a link that leads nowhere\n") == (said.code, said.err)
    assert FILES == files_in(work / "pool")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["data", "new"], "data is a folder: copy all in it with --recursive"),
        (["data/top.txt", "-"], "To print files, type: synapse-kernel storage cat SOURCE..."),
        (["-", "data/top.txt", "new"], "- is copied alone: give no other source with it"),
        (["-", "data"], "What comes in on stdin has no name: give one, such as data/NAME"),
        (["data/top.txt", "data/top.txt"], "data/top.txt cannot be copied onto itself"),
        (["data/a/*", "data/top.txt"], "The target data/top.txt is a file, and several files need a folder"),
        (["data/top.txt", "new/*"], "The target 'new/*' is a pattern, and nothing there has this name"),
        (["", "new"], "'' is neither a URL nor a path; the folder you are in is ."),
    ],
)
def test_what_makes_no_sense_is_refused(storage: Command, work: Path, args: list[str], error: str):
    said = storage("cp", *args)

    assert Said(2, "", f"Error: {error}\n") == said
    assert FILES == files_in(work / "data")


def test_two_files_of_one_name_are_refused_before_anything_is_copied(storage: Command, work: Path):
    fill(work / "more", {"1.txt": "another"})

    said = storage("cp", "data/a/1.txt", "more/1.txt", "storage://pool/new")

    assert f"Error: data/a/1.txt and more/1.txt would both become file://{work}/pool/new/1.txt\n" == said.err
    assert not (work / "pool").exists()


def test_a_folder_is_not_copied_into_itself(storage: Command, work: Path):
    said = storage("cp", "-r", "data", "data/a")

    assert 2 == said.code
    assert f"Error: file://{work}/data cannot be copied into itself: file://{work}/data/a/data\n" == said.err


def test_a_folder_among_the_matches_needs_recursive(storage: Command, work: Path):
    assert (
        f"Error: file://{work}/data/a matches and is a folder: copy such with --recursive, or change the "
        "pattern\n"
    ) == storage("cp", "data/a*", "storage://pool").err


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_leaves(work: Path, spawn: Callable):
    (work / "data/large").write_bytes(os.urandom(200 << 20))

    child = spawn("cp", "data/large", "storage://pool/large")
    child.expect(r"200\.0/200\.0 MiB\S* 1/1 files")
    child.expect("Copied 1 file of 200.0 MiB")
    child.expect(pexpect.EOF)
    child.close()

    assert 0 == child.exitstatus


def test_an_interrupt_leaves_nothing_half_and_exits_with_130(work: Path):
    (work / "temporary").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "synapse_kernel", "storage", "cp", "-", "storage://pool/endless"],
        cwd=work,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(work / "temporary")},
    )
    assert child.stdin is not None
    # More than a pipe holds: when it is written, the copy is under way.
    child.stdin.write(bytes(1 << 20))
    child.stdin.flush()
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)

    assert (130, b"Interrupted.") == (child.returncode, told.strip())
    assert [] == list((work / "temporary").iterdir())
    assert not (work / "pool").exists()


def test_a_pipe_into_it_and_out_of_it(work: Path):
    script = (
        f"{sys.executable} -m synapse_kernel storage cat data/a/1.txt data/top.txt"
        f" | {sys.executable} -m synapse_kernel storage cp - storage://pool/both"
    )

    subprocess.run(["bash", "-c", script], cwd=work, check=True, timeout=120, capture_output=True)

    assert "one\ntop\n" == (work / "pool/both").read_text()
