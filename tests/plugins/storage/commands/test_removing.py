"""The command `storage rm`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from tests.plugins.storage.commands.conftest import FILES, Said, files_in, fill

Command = Callable[..., Said]


@pytest.fixture(autouse=True)
def pool(work: Path) -> Path:
    """Return a storage's folder with files."""
    return fill(work / "pool", FILES)


def test_files_and_what_matches_are_deleted(storage: Command, pool: Path):
    assert Said(0, "Deleted 3 files\n", "") == storage("rm", "storage://pool/a/*", "storage://pool/top.txt")
    assert {"b/x.json": "{}\n"} == files_in(pool)


def test_a_folder_is_deleted_with_recursive_and_yes(storage: Command, pool: Path):
    assert Said(0, "Deleted 2 files\n", "") == storage("rm", "-r", "--yes", "storage://pool/a")
    assert not (pool / "a").exists()


def test_a_folder_without_recursive_is_refused_and_nothing_is_deleted(
    storage: Command, work: Path, pool: Path
):
    said = storage("rm", "storage://pool/top.txt", "storage://pool/a")

    assert (
        Said(2, "", f"Error: file://{work}/pool/a is a folder: delete it and all in it with --recursive\n")
        == said
    )
    assert FILES == files_in(pool)


def test_without_a_terminal_a_folder_wants_yes(storage: Command, work: Path, pool: Path):
    assert Said(
        2,
        "",
        f"Error: This would delete all in file://{work}/pool/a; say --yes to do it, or look with --dry-run\n",
    ) == storage("rm", "-r", "storage://pool/a")
    assert FILES == files_in(pool)


def test_a_dry_run_says_what_would_go(storage: Command, work: Path, pool: Path):
    said = storage("rm", "-r", "--dry-run", "storage://pool/b")

    assert [f"file://{work}/pool/b/x.json", "Would delete 1 file of 3 B"] == said.lines
    assert FILES == files_in(pool)


def test_as_json_it_is_one_document(storage: Command, work: Path):
    url = f"file://{work}/pool/top.txt"

    dry = storage("rm", "storage://pool/top.txt", "--dry-run", "--json").document
    done = storage("rm", "storage://pool/top.txt", "--json").document

    assert {"dry_run": True, "files": 1, "bytes": 4, "changes": [{"url": url, "size": 4}]} == dry
    assert {"dry_run": False, "files": 1} == done


def test_what_is_not_there_is_an_error(storage: Command):
    said = storage("rm", "storage://pool/nothing")

    assert 2 == said.code
    assert (
        "Error: Storage 'local': info 'nothing': there is nothing under this key" == said.err.splitlines()[0]
    )


def test_the_root_of_this_machine_is_never_deleted(storage: Command):
    assert Said(2, "", "Error: / is the root of this machine: it is not deleted\n") == storage(
        "rm", "-r", "--yes", "--dry-run", "/"
    )


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, len(FILES)), ("y", 0, len(FILES) - 2)])
def test_on_a_terminal_it_asks_first(pool: Path, spawn: Callable, answer: str, code: int, left: int):
    child = spawn("rm", "-r", "storage://pool/a")
    child.expect("Delete 2 files of 8 B in ")
    child.expect(r"\[y/N\]: ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()

    assert (code, left) == (child.exitstatus, len(files_in(pool)))
