"""
Lets pipelines be killed and go on, each life in a process of its own.

Orders come as lines of JSON on stdin, and what became of each goes out on stdout in the same way. This
process has imported everything and opened nothing, so that a life costs a fork instead of a start.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import boundaries
import clocks
import deadly_store
import judging
import sabotage
import victims

from synapse_kernel import Kernel, Outcome
from synapse_kernel.owners import Owner, this_process
from synapse_kernel.stores import RunQuery, RunRecord
from synapse_plugins.history import recorder
from synapse_plugins.history.sqlite_store import SqliteStore
from synapse_plugins.pipelines import fingerprints

Found = dict[str, Any]
Order = dict[str, Any]


def live(folder: Path, order: Order, number: int, kill_at: int | str | None, run_id: str | None) -> None:
    """Run a pipeline, or go on with the one that is there."""
    here = boundaries.Boundaries(folder, number, kill_at)
    boundaries.settle(here)
    # Events are written as soon as there are some: more writes to be killed in.
    recorder.FLUSH_SECONDS = 0.0
    if "sabotage" in order:
        sabotage.SABOTAGES[order["sabotage"]]()
    if order.get("clock") == "jumps back":
        clocks.jump_back(hours=number)
    settings = {
        "store": f"deadly:{folder / 'history.db'}",
        "retry": {"initial": 0.001},
        "work_dir": str(folder / "runs"),
    }
    with Kernel(settings, plugins=[deadly_store], strict=True) as kernel:
        pipeline = victims.PIPELINES[order["pipeline"]](**order.get("options", {}))
        params = {"ledger": str(folder / "ledger.jsonl"), **order.get("params", {})}
        outcome: Outcome = pipeline.execute(
            params, kernel=kernel, resume=run_id, sinks=[deadly_store.Watcher()], **order.get("launch", {})
        )
    here.say(outcome=outcome.to_dict(), count=here.count)


def look(folder: Path, watcher: Owner) -> Found:
    """Return what is in the store once the dead were counted, as a process sees it that just came."""
    file = folder / "history.db"
    store = SqliteStore(f"sqlite:{file}")
    if store.get("bystander") is None:
        bystander = RunRecord(run_id="bystander", action="stand", target="by", created=datetime.now(UTC))
        store.start(bystander, watcher)
    reaped = store.reap()
    roots = [run for run in store.runs(RunQuery(roots_only=True)) if run.run_id != "bystander"]
    found: Found = {"reaped": sorted(reaped), "root": roots[0].run_id if roots else None, "roots": len(roots)}
    found["bystander"] = str(getattr(store.get("bystander"), "status", None))
    runs = store.runs(RunQuery(limit=None))
    found["runs"] = {
        run.run_id: {"node": run.node, "status": run.status, "attempt": run.attempt, "last_seq": run.last_seq}
        for run in runs
        if run.run_id != "bystander"
    }
    found["events"] = [
        [stored.event.run_id, stored.event.seq]
        for root in roots
        for stored in store.events(root.run_id, descendants=True)
    ]
    found["kept"] = {run.run_id: [key for key, _ in store.entries(run.run_id)] for run in runs}
    found["cached"] = [key for key, _ in store.entries("cache")]
    found["outcomes"] = {run.run_id: store.outcome(run.run_id) for run in runs}
    store.close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        found["integrity"] = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return found


def obey(order: Order, watcher: Owner, length: float) -> dict[str, Any]:
    """
    Let a pipeline live, be killed and live again, and tell what each life said and left.

    ``kills`` has for each life that is to end early the number or name of a boundary, or after which part of
    an undisturbed life, of `length` seconds, it is killed from outside. One more life is not disturbed.
    """
    folder = Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    lives: list[dict[str, Any]] = []
    run_id = None
    for number, kill in enumerate([*order["kills"], None], start=1):
        at, after = (None, kill * length) if isinstance(kill, float) else (kill, None)
        status = forked(functools.partial(live, folder, order, number, at, run_id), after)
        found = looked(folder, watcher)
        lives.append({"status": status, "said": said(folder, number), "found": found})
        run_id = found["root"]
        if status == 0 or (run_id is not None and found["runs"][run_id]["status"] == "succeeded"):
            break
        if status != signal.SIGKILL:
            raise RuntimeError(f"life {number} ended with {status}")
    return {"lives": lives, "ledger": victims.ledger_of(folder / "ledger.jsonl")}


def said(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return what a life said; one that was killed from outside may have begun a line."""
    file = folder / f"said-{number}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def looked(folder: Path, watcher: Owner) -> Found:
    """Have a new process look, and return what it found."""
    file = folder / "found.json"
    status = forked(lambda: file.write_text(json.dumps(look(folder, watcher)), encoding="utf-8"))
    if status:
        raise RuntimeError(f"who looked at the store ended with {status}")
    return cast("Found", json.loads(file.read_text(encoding="utf-8")))


def forked(call: Callable[[], object], kill_after: float | None = None) -> int:
    """Call in a process of its own; return the signal that ended it, 0 if it ended well, 255 if not."""
    child = os.fork()
    if child:
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    try:
        call()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(255)
    os._exit(0)


def warm_up(folder: Path, watcher: Owner) -> float:
    """Import all that a life imports, without opening anything; return how many seconds a life takes then."""
    names = folder / "modules.json"

    def lives() -> None:
        live(folder, {"pipeline": "survivor"}, 1, None, None)
        look(folder, watcher)
        names.write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")

    if forked(lives):
        sys.exit("the pipeline does not even run undisturbed")
    for name in json.loads(names.read_text(encoding="utf-8")):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # What is the same in each life, and takes long: which packages there are, and which modules import which.
    recorder.environment_of = functools.cache(recorder.environment_of)
    recorder.environment_of(recorder.environment_id())
    fingerprints._imported = functools.cache(fingerprints._imported)
    fingerprints._imported(Path(victims.__file__).parent, "victims")
    (folder / "timed").mkdir()
    begun = time.monotonic()
    if forked(lambda: live(folder / "timed", {"pipeline": "survivor"}, 1, None, None)):
        sys.exit("the pipeline does not run undisturbed a second time")
    return time.monotonic() - begun


def main() -> None:
    """Obey the orders on stdin."""
    watcher = this_process()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    length = warm_up(folder, watcher)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            told = obey(order, watcher, length)
            told["mistakes"] = judging.mistakes(order, told)
        except Exception:
            told = {"mistakes": [traceback.format_exc()]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
