"""The history: events a second, listing many runs, and how soon another process sees an event."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, time

from emitting import Emitting
from figures import Figure, at_least, at_most, at_most_of, paired, process
from startup import NOOP

from synapse_kernel import Kernel
from synapse_kernel.owners import this_process
from synapse_kernel.stores import RunEnd, RunRecord
from synapse_plugins.history.sqlite_store import SqliteStore

PAIRS = 15
RUNS = 100_000

TICKING = """\
import time

from synapse_kernel import action


@action
def tick(params, ctx):
    for _ in range(40):
        ctx.log("tick", {"at": time.time()})
        time.sleep(0.1)
"""


def figures() -> list[Figure]:
    """Measure each."""
    with tempfile.TemporaryDirectory() as folder:
        return [_events(Path(folder)), *_commands(Path(folder)), _watching(Path(folder))]


def _events(folder: Path) -> Figure:
    """Log 500,000 events in a run that is recorded, and count them in the store."""
    count = 500_000
    with Kernel({"store": f"sqlite:///{folder / 'events.db'}"}) as kernel:
        start = perf_counter()
        outcome = kernel.run(Emitting, None, {"what": "log", "count": count})
        taken = perf_counter() - start
        store = kernel.store
        assert store is not None
        assert len(store.events(outcome.run_id, kinds=("log",))) == count
    return at_least("events into SQLite, all there", count / taken, 50_000)


def _commands(folder: Path) -> list[Figure]:
    env = {**os.environ, "SYNAPSE_HOME": str(folder / "home")}
    env.pop("PYTHONPATH", None)
    own = str(Path(sys.executable).with_name("synapse-kernel"))
    plugin = folder / "plugin"
    plugin.mkdir()
    (plugin / "config.yaml").write_text("name: noop\nactions: {noop: 'main:Noop'}\n")
    (plugin / "main.py").write_text(NOOP)
    stack = process([sys.executable, "-c", "import click, pydantic, yaml"], env=env)
    run = [own, "run", str(plugin), "noop"]
    ratio, base = paired(process(run, env=env), stack, PAIRS)
    label = f"import click, pydantic, yaml: {base * 1000:.0f} ms"
    recorded = at_most("run of an action that does nothing, recorded", ratio, 0.13 / 0.07, label)
    kib = _peak_kib(run, env)
    memory = at_most_of("memory of that run", kib / 1024, "MiB", 45, "")

    many = {**env, "SYNAPSE_STORE": f"sqlite:///{folder / 'many.db'}"}
    _fill(folder / "many.db")
    ratio, base = paired(process([own, "runs", "list"], env=many), process([own, "--version"], env=env), 7)
    seconds = ratio * base
    listing = at_most_of(
        f"runs list on {RUNS:,} runs", seconds, "s", 0.3, f"synapse-kernel --version: {base * 1000:.0f} ms"
    )
    return [recorded, memory, listing]


def _fill(file: Path) -> None:
    """Record many ended runs."""
    owner, start = this_process(), datetime.now(UTC) - timedelta(days=30)
    store = SqliteStore(f"sqlite:///{file}")
    for number in range(RUNS):
        run_id = f"{number:016x}"
        created = start + timedelta(seconds=number)
        store.start(
            RunRecord(run_id=run_id, action="train", target="./plugin", created=created, root=run_id), owner
        )
        store.finish(
            RunEnd(run_id=run_id, status="succeeded", finished=created, attempt=1, outcome=b'{"result":1}')  # type: ignore[arg-type]
        )
    store.close()


def _watching(folder: Path) -> Figure:
    """Watch a run of another process and compare when an event was said with when it was shown."""
    env = {**os.environ, "SYNAPSE_HOME": str(folder / "watched"), "PYTHONUNBUFFERED": "1"}
    own = str(Path(sys.executable).with_name("synapse-kernel"))
    (folder / "ticking.py").write_text(TICKING)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    run = [own, "run", str(folder / "ticking.py"), "-q"]
    with subprocess.Popen(run, env=env, stderr=subprocess.DEVNULL, **quiet) as running:  # type: ignore[call-overload]
        for _ in range(100):
            listed = subprocess.run(
                [own, "runs", "list", "--json"], env=env, capture_output=True, check=False
            )
            if b"running" in listed.stdout:
                break
        watch = [own, "runs", "watch", "@last"]
        with subprocess.Popen(watch, env=env, text=True, stderr=subprocess.PIPE, **quiet) as watching:  # type: ignore[call-overload]
            assert watching.stderr is not None
            delays = [time() - float(line.partition("at=")[2]) for line in watching.stderr if "at=" in line]
        running.wait()
    # The first lines are of the time before anybody watched.
    worst = sorted(delays[20:])[-2]
    return at_most_of("runs watch shows an event after (worst but one of 20)", worst, "s", 0.5, "")


def _peak_kib(command: list[str], env: dict[str, str]) -> float:
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=env, check=True, capture_output=True, text=True
    )
    return float(done.stdout)
