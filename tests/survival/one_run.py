"""
Runs pipelines of `victims`, or goes on with them, each in a process of its own.

Orders come as lines of JSON on stdin; each is answered with the number of its process, which writes what came
of it to the file ``out``, as JSON. An order has ``home`` (the state folder), ``pipeline``, ``params``,
``options`` (of the pipeline), ``launch`` (how to run it), ``meet`` (a folder: wait until two processes are
about to claim the run), ``pages`` (by how many the database may grow) and ``file_size`` (how large any file
may get).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import program
import victims

from synapse_kernel import Kernel, Outcome
from synapse_kernel.errors import SynapseError
from synapse_kernel.owners import this_process
from synapse_plugins.history.sqlite_store import SqliteStore


def meet_at_claim(folder: Path) -> None:
    """Have two processes claim a run at the same time."""
    claim = SqliteStore.claim

    def together(self: SqliteStore, *args: Any, **options: Any) -> Any:
        (folder / f"ready-{os.getpid()}").touch()
        while len(list(folder.glob("ready-*"))) < 2:
            time.sleep(0.001)
        return claim(self, *args, **options)

    SqliteStore.claim = together  # type: ignore[method-assign]


def limit_pages(spare: int) -> None:
    """Let the database grow by so many pages only, as if the disk were full then."""
    connect = SqliteStore._connect

    def limited(self: SqliteStore, place: str, *, uri: bool = False) -> sqlite3.Connection:
        connection = connect(self, place, uri=uri)
        if not uri:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + spare}")
        return connection

    SqliteStore._connect = limited  # type: ignore[method-assign]


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Do as an order says."""
    if "meet" in order:
        meet_at_claim(Path(order["meet"]))
    pipeline = victims.PIPELINES[order["pipeline"]](**order.get("options", {}))
    with Kernel({"store": "sqlite", "retry": {"initial": 0.001}}, strict=True) as kernel:
        if "pages" in order:
            assert kernel.store is not None
            kernel.store.close()
            limit_pages(order["pages"])
        if "file_size" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], resource.RLIM_INFINITY))
        try:
            outcome: Outcome = pipeline.execute(order["params"], kernel=kernel, **order.get("launch", {}))
        except SynapseError as error:
            return {"refused": type(error).__name__, "message": str(error)}
        return outcome.to_dict()


def begin(order: dict[str, Any]) -> None:
    """Do as an order says, in a process that was just forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ["SYNAPSE_HOME"] = order["home"]
    out = Path(order["out"])
    said = json.dumps(run(order))
    # What is said is none of the files that may not grow.
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    out.write_text(said, encoding="utf-8")


def main() -> None:
    """Fork a process for each order on stdin."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    program.warm_up(folder, this_process())
    # No one waits for them: they are gone when they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        try:
            begin(json.loads(line))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)


if __name__ == "__main__":
    main()
