"""`runs clean`: ended runs and their folders go, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
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


@pytest.mark.parametrize("age", ["99999999d", "inf"])
def test_an_age_before_all_dates_is_told(runs: Callable, book, age: str) -> None:
    book.run(A)
    assert (
        2,
        "",
        f"Error: --older-than {age!r} is longer ago than any date; write it like 12h or 30d\n",
    ) == runs("clean", "--older-than", age, "--yes")


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
        assert ("Nothing was deleted.\r\n" in child.before, int(answer == "n")) == (
            answer == "n",
            child.exitstatus,
        )
        assert "Interrupted" not in child.before


FULL_DISK = """
import subprocess, sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Message
from synapse_kernel.owners import this_process
from synapse_kernel.stores import RunRecord, end_of
from synapse_plugins.history.sqlite_store import SqliteStore

home, *ids = sys.argv[1:]
# It stays open: SQLite's list of pages has its place before the disk is full.
store = SqliteStore("sqlite")
now = datetime.now(UTC)
for run_id in ids:
    folder = Path(home, "runs", run_id)
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * 400_000)
    store.start(
        RunRecord(run_id=run_id, action="a", target="t", created=now, root=run_id, work_dir=str(folder)),
        this_process(),
    )
    store.append(run_id, [Message(run_id, n, 1.0, "a", None, "x" * 200) for n in range(1, 500)])
    store.finish(end_of(Outcome(run_id=run_id, status="failed", action="a", started=now, finished=now)))
dead = msgspec.structs.replace(this_process(), started="1")
store.start(RunRecord(run_id="dead", action="a", target="t", created=now, root="dead"), dead)
try:
    with Path(home, "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 1024) == 1024:
            pass
except OSError:
    pass
command = [sys.executable, "-m", "synapse_kernel", "runs", "clean", "--yes", "--state", "failed"]
done = subprocess.run(command, capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, "--", sep="\\n")
print(*sorted(record.run_id for record in store.runs()), *Path(home, "runs").iterdir())
"""


def test_on_a_full_disk_the_folders_make_room(own_home: Path, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=3m tmpfs {own_home}"
    within = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*within, mount], capture_output=True).returncode:
        pytest.skip("only where a user may mount a small disk")
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    script = f'{mount} && exec "{sys.executable}" "{tmp_path / "full_disk.py"}" "{own_home}" {A} {B}'
    said = subprocess.run([*within, script], capture_output=True, text=True, timeout=120)
    database = own_home / "history.db"
    assert (
        "0\n"
        "Deleted 2 runs and 781.2 KiB of files\n"
        "\n"
        f"Warning: The run store {database} cannot be written: the disk is full\n"
        "  free some space there, or name another file with the setting store, "
        "or the variable SYNAPSE_STORE\n"
        "  runs whose process is dead may read as running meanwhile\n"
        "Warning: The disk is full: the folders are deleted first, to make room for the rest\n"
        "\n"
        "--\n"
        "dead\n"
    ) == said.stdout, said.stderr


def test_as_json_it_does_not_ask(runs: Callable, book, store: RunStore) -> None:
    book.run(A)
    assert (2, "UsageError") == (
        (said := runs("clean", A, "--json")).code,
        said.document["error"]["type"],
    )
    assert [A] == runs("clean", A, "--json", "--yes").document["runs"]
    assert [] == left(store)
