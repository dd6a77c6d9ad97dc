"""The store `sqlite` under many processes at once, and under processes that are killed while they write."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from synapse_kernel.stores import RunQuery
from synapse_plugins.history.sqlite_store import SqliteStore

WRITER = textwrap.dedent(
    """
    import os, sys
    from synapse_kernel.owners import this_process
    from synapse_kernel.testing.run_store_parts import end, log, record, state
    from synapse_plugins.history.sqlite_store import SqliteStore

    place, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    me = this_process()

    def said(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    store = SqliteStore(f"sqlite:{place}")
    for turn in range(rounds):
        run_id = f"{name}-{turn}"
        store.start(record(run_id, after=turn), me)
        said("start", run_id)
        for batch in range(3):
            first = batch * 10 + 1
            rest = [log(run_id, first + n) for n in range(1, 10)]
            store.append(run_id, [state(run_id, "running", first), *rest])
            said("append", run_id, first + 9)
            store.put("all", {f"{run_id}/{batch}": run_id.encode()})
            said("put", f"{run_id}/{batch}", run_id)
        store.finish(end(run_id, "failed", result=turn), [log(run_id, 31)])
        said("finish", run_id)
    store.close()
    """
)


def writer(place: Path, name: str, rounds: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place), name, str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def integrity(place: Path) -> str:
    with contextlib.closing(sqlite3.connect(place)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.mark.parametrize("processes", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_many_processes_write_one_store_and_none_is_told_that_it_is_locked(
    tmp_path: Path, processes: int
) -> None:
    file = tmp_path / "history.db"
    rounds = 5
    writers = [writer(file, f"p{number}", rounds) for number in range(processes)]
    ends = [process.communicate(timeout=120) for process in writers]

    assert [b""] * processes == [errors for _, errors in ends]
    assert [0] * processes == [process.returncode for process in writers]
    names = [f"p{number}-{turn}" for number in range(processes) for turn in range(rounds)]
    with contextlib.closing(SqliteStore(f"sqlite:{file}")) as store:
        assert sorted(names) == sorted(
            run.run_id for run in store.runs(RunQuery(statuses=("failed",), limit=None))
        )
        for name in names:
            assert list(range(1, 32)) == [stored.event.seq for stored in store.events(name)]
            assert name.rpartition("-")[2] == str((store.outcome(name) or {}).get("result"))
        kept = dict(store.entries("all"))
        assert {f"{name}/{n}": name.encode() for name in names for n in range(3)} == kept
    assert "ok" == integrity(file)


def test_nothing_that_a_killed_process_was_promised_is_lost(tmp_path: Path) -> None:
    """Twenty times, at moments that differ; each time the file is opened as the kill left it."""
    file = tmp_path / "history.db"
    chance = random.Random(7)
    promised: list[list[str]] = []
    for number in range(20):
        process = writer(file, f"p{number}", 1000)
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(chance.randrange(40))]
        time.sleep(chance.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        assert -signal.SIGKILL == process.wait(), process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        promised += [line.decode().split() for line in lines if line.endswith(b"\n")]

        if not file.exists():
            continue
        with contextlib.closing(SqliteStore(f"sqlite:{file}")) as store:
            reaped = store.reap()
            assert [] == [run_id for run_id in reaped if not run_id.startswith(f"p{number}-")]
            assert len(reaped) <= 1
        assert "ok" == integrity(file)

    with contextlib.closing(SqliteStore(f"sqlite:{file}")) as store:
        records = {run.run_id: run for run in store.runs(RunQuery(limit=None))}
        values = dict(store.entries("all"))
        for what, name, *rest in promised:
            if what == "put":
                assert rest[0].encode() == values[name]
            elif what == "append":
                assert int(rest[0]) <= records[name].last_seq
                seqs = [stored.event.seq for stored in store.events(name)]
                assert list(range(1, records[name].last_seq + 1)) == seqs
            else:
                assert name in records
                assert what == "start" or "failed" == records[name].status
        assert {"failed", "crashed"} == {run.status for run in records.values()}
        assert 300 < len(promised)
