"""`runs clean`: ended runs and their folders go, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from synapse_kernel.stores import RunStore

A, B, C, D = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000", "dddd0000dddd0000"
DAY = 24 * 60


def folder(home: Path, run_id: str, size: int = 1000) -> str:
    """Make a run's own folder, with a file in it."""
    made = home / "runs" / run_id
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "file").write_bytes(b"x" * size)
    return str(made)


def left(store: RunStore) -> list[str]:
    return [record.run_id for record in store.runs()]


def test_without_a_condition_it_asks_for_one(runs: Callable, book) -> None:
    book.run(A)
    said = runs("clean", "--yes")
    assert (
        2,
        "",
        "Error: Say which runs may go: name them, or give --older-than, --keep, --state, --action or --tag\n"
        "  all that have ended: synapse-kernel runs clean --keep 0\n",
    ) == said


def test_old_runs_go_with_their_folders_and_parts(
    runs: Callable, book, own_home: Path, store: RunStore
) -> None:
    book.run(A, minutes_ago=40 * DAY, work_dir=folder(own_home, A), kind="pipeline")
    book.child(B, A, "draw", minutes_ago=40 * DAY, work_dir=folder(own_home, B))
    book.run(C, minutes_ago=1 * DAY, work_dir=folder(own_home, C))
    said = runs("clean", "--older-than", "30d", "--yes")
    assert (0, "Deleted 2 runs and 2.0 KiB of files\n", "") == said
    assert [C] == left(store)
    assert [C] == [place.name for place in (own_home / "runs").iterdir()]


def test_the_newest_can_be_kept(runs: Callable, book, store: RunStore) -> None:
    for number, run_id in enumerate((A, B, C)):
        book.run(run_id, "failed", minutes_ago=10 - number)
    book.run(D, minutes_ago=1)
    runs("clean", "--state", "failed", "--keep", 1, "--yes")
    assert [D, C] == left(store)


def test_named_runs_go(runs: Callable, book, store: RunStore) -> None:
    book.run(A, tags=["x"])
    book.run(B)
    runs("clean", "aaaa", B, "--tag", "x", "--yes")
    assert [B] == left(store)
    runs("clean", "@last", "-y")
    assert [] == left(store)


def test_what_may_not_go_is_told_and_nothing_goes(runs: Callable, book, store: RunStore) -> None:
    book.run(A, "running")
    book.run(B, kind="pipeline")
    book.child(C, B, "draw")
    said = runs("clean", A, B, C, "--yes")
    assert (
        2,
        "Error: These runs cannot be deleted:\n"
        f"  {A}: it is running; stop it with: synapse-kernel runs cancel {A}\n"
        f"  {C}: it is part of run {B}; delete that one\n",
    ) == (said.code, said.err)
    assert 3 == store.count()


def test_a_run_that_has_not_ended_is_left_alone(runs: Callable, book, store: RunStore) -> None:
    book.run(A, "running", minutes_ago=100 * DAY)
    book.run(B, minutes_ago=100 * DAY)
    said = runs("clean", "--older-than", "1d", "--keep", 0, "--yes")
    assert "Deleted 1 run and 0 B of files\n" == said.out
    assert [A] == left(store)
    assert "No ended run is like this: nothing to delete\n" == runs("clean", "--keep", 0, "--yes").out


def test_a_dry_run_deletes_nothing(runs: Callable, book, own_home: Path, store: RunStore) -> None:
    work_dir = folder(own_home, A)
    book.run(A, work_dir=work_dir)
    assert "Would delete 1 run and 1000 B of files\n" == runs("clean", "--keep", 0, "--dry-run").out
    said = runs("clean", "--keep", 0, "--dry-run", "--json")
    assert {"dry_run": True, "runs": [A], "folders": [work_dir], "bytes": 1000} == said.document
    assert ([A], True) == (left(store), Path(work_dir).exists())


def test_folders_can_be_left(runs: Callable, book, own_home: Path, store: RunStore) -> None:
    work_dir = folder(own_home, A)
    book.run(A, work_dir=work_dir)
    assert "Deleted 1 run and 0 B of files\n" == runs("clean", A, "--no-work-dirs", "--yes").out
    assert ([], True) == (left(store), Path(work_dir).exists())


@pytest.mark.parametrize(
    "place", ["else/{id}", "home/runs/other", "home/runs/deep/{id}", "home/{id}", "home/runs/../{id}"]
)
def test_a_folder_that_is_not_the_run_s_own_is_never_touched(
    runs: Callable, book, own_home: Path, tmp_path: Path, store: RunStore, place: str
) -> None:
    first, _, rest = place.format(id=A).partition("/")
    (own_home / "runs").mkdir()
    named = Path(f"{own_home if first == 'home' else tmp_path / first}/{rest}")
    named.mkdir(parents=True, exist_ok=True)
    (named / "precious").touch()
    book.run(A, work_dir=str(named))
    assert "Deleted 1 run and 0 B of files\n" == runs("clean", A, "--yes").out
    assert (named / "precious").exists()


def test_links_are_not_followed(runs: Callable, book, own_home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x" * 5000)
    work_dir = Path(folder(own_home, A))
    (work_dir / "link").symlink_to(precious)
    (own_home / "runs" / B).symlink_to(precious)
    book.run(A, work_dir=str(work_dir))
    book.run(B, work_dir=str(own_home / "runs" / B))
    assert (0, "Deleted 2 runs and 1000 B of files\n", "") == runs("clean", A, B, "--yes")
    assert not work_dir.exists()
    assert 5000 == (precious / "file").stat().st_size


def test_the_folder_of_the_settings_counts_too(
    runs: Callable, book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNAPSE_WORK_DIR", str(tmp_path / "mine"))
    own = tmp_path / "mine" / A
    own.mkdir(parents=True)
    book.run(A, work_dir=str(own))
    runs("clean", A, "--yes")
    assert not own.exists()


def test_it_asks_on_a_terminal_and_refuses_elsewhere(
    runs: Callable, book, store: RunStore, spawn: Callable
) -> None:
    book.run(A)
    said = runs("clean", "--keep", 0)
    assert (
        2,
        "Error: This would delete 1 run and 0 B of files; say --yes to do it, or look with --dry-run\n",
    ) == (said.code, said.err)
    for answer, expected in (("n", [A]), ("y", [])):
        child = spawn("runs", "clean", "--keep", "0")
        child.expect("Delete 1 run and 0 B of files\\? \\[y/N\\]: ")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert expected == left(store)


def test_as_json_it_does_not_ask(runs: Callable, book, store: RunStore) -> None:
    book.run(A)
    assert (2, "UsageError") == (
        (said := runs("clean", A, "--json")).code,
        said.document["error"]["type"],
    )
    assert [A] == runs("clean", A, "--json", "--yes").document["runs"]
    assert [] == left(store)
