"""A pipeline whose history cannot be written any more: it says why it ends, and goes on when it can."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import Kernel
from synapse_kernel.stores import RunQuery
from synapse_plugins.history.sqlite_store import SqliteStore


@pytest.fixture
def params(tmp_path: Path) -> dict[str, str]:
    return {"ledger": str(tmp_path / "ledger.jsonl")}


@pytest.fixture
def database(own_home: Path, victims, tmp_path: Path) -> Path:
    """Return a history with a run in it, so that it is not the tables that there is no space for."""
    with Kernel({"store": "sqlite", "retry": {"initial": 0.001}}, strict=True) as kernel:
        victims.survivor().execute({"ledger": str(tmp_path / "first.jsonl")}, kernel=kernel)
    return own_home / "history.db"


@pytest.fixture
def look(database: Path):
    """Return a function that returns the newest pipeline's run and those of its nodes that are done."""

    def found() -> tuple[str, dict[str | None, int]]:
        store = SqliteStore()
        store.reap()
        run = store.runs(RunQuery(roots_only=True))[0]
        children = store.children(run.run_id)
        store.close()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return run.run_id, {child.node: child.attempt for child in children if child.status == "succeeded"}

    return found


def strange(said: dict[str, Any], database: Path, why: str) -> list[str]:
    """
    Return what an outcome tells but should not.

    Which nodes are hit depends on which branch is faster: those that cannot begin, or keep what their steps
    did, or whose outcome cannot be kept.
    """
    assert "failed" == said.get("status"), said
    told = f"The run store {database} {why}"
    run = "\\(run [0-9a-f]{16}\\)"
    unrecorded = "its outcome could not be recorded, and the pipeline does not go on without: "
    unkept = "Step '(?:lay|raise|roof)' failed: its checkpoint could not be written: "
    ways = [
        f"failed: StoreError: {re.escape(told)}",
        f"failed {run}: StoreError: {re.escape(unrecorded + told)}",
        f"failed {run}: StepFailed: {unkept}{re.escape(told)}",
    ]
    sentences = re.split(r"\n(?=node ')", said["error"]["message"])
    return [s for s in sentences if not re.fullmatch(f"node '[^']+' (?:{'|'.join(ways)})", s)]


ELSEWHERE = "name another file with the setting store, or the variable SYNAPSE_STORE"
FULL = f"cannot be written: the disk is full\n  free some space there, or {ELSEWHERE}"


SLOW = pytest.mark.slow


@pytest.mark.parametrize("pages", [3, *(pytest.param(pages, marks=SLOW) for pages in (4, 5, 6))])
def test_a_pipeline_ends_when_the_disk_is_full_and_goes_on_when_there_is_space(
    begin, victims, database, params, look, pages
):
    said = begin("survivor", params, pages=pages).end()
    run_id, recorded = look()

    assert [] == strange(said, database, FULL)
    assert_goes_on(victims, params, look, run_id, recorded)


@pytest.mark.parametrize("size", [160_000, *(pytest.param(s, marks=SLOW) for s in (100_000, 200_000))])
def test_a_pipeline_ends_when_its_history_may_not_grow_and_goes_on_when_it_may(
    begin, victims, database, params, look, size
):
    said = begin("survivor", params, file_size=size).end()
    run_id, recorded = look()

    assert [] == strange(said, database, f"cannot be used: disk I/O error\n  {ELSEWHERE}")
    assert_goes_on(victims, params, look, run_id, recorded)


def assert_goes_on(victims, params, look, run_id: str, recorded: dict[str | None, int]) -> None:
    before = victims.ledger_of(params["ledger"])
    with Kernel({"store": "sqlite", "retry": {"initial": 0.001}}, strict=True) as kernel:
        outcome = victims.survivor().execute(params, kernel=kernel, resume=run_id)

    done_again = {line["node"] for line in victims.ledger_of(params["ledger"])[len(before) :]}
    assert (None, "succeeded") == (outcome.error, outcome.status)
    assert outcome.result["report"]["drawn"] == [11, 21, 31, 41, 51, 61, 71, 81]
    assert set() == done_again & recorded.keys()
    assert recorded == {node: attempt for node, attempt in look()[1].items() if node in recorded}


def test_a_run_that_cannot_be_recorded_does_not_start(begin, victims, database, params):
    said = begin("survivor", params, pages=0).end()

    assert {"refused": "StoreError", "message": f"The run store {database} {FULL}"} == said
    assert [] == victims.ledger_of(params["ledger"])
