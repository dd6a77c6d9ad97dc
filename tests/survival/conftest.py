"""What the tests of survival share: processes that live, die and go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
SIDE_BY_SIDE = 2
PATIENCE = 60.0


class Ordeals:
    """Programs that let pipelines live and die; see `program.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        env = {**os.environ, "SYNAPSE_HOME": str(folder / "home")}
        self._programs = [
            subprocess.Popen(
                [sys.executable, str(HERE / "program.py"), str(folder / f"warm-{number}")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=env,
            )
            for number in range(SIDE_BY_SIDE)
        ]
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for program in self._programs:
            self._free.put(program)

    def all(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have all orders obeyed, and return what became of each."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
            return list(threads.map(self._one, orders))

    def _one(self, order: dict[str, Any]) -> dict[str, Any]:
        program = self._free.get()
        try:
            self._count += 1
            folder = self._folder / f"{self._count}-{id(order)}"
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps({"pipeline": "survivor", "folder": str(folder), **order}) + "\n")
            program.stdin.flush()
            line = program.stdout.readline()
            assert line, "the program ended: see its words on stderr"
            told: dict[str, Any] = {"order": order, **json.loads(line)}
            return told
        finally:
            self._free.put(program)

    def close(self) -> None:
        """End the programs."""
        for program in self._programs:
            program.communicate(timeout=PATIENCE)


@pytest.fixture(scope="session")
def ordeals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeals]:
    """Return what lets pipelines be killed and go on, hundreds of times."""
    made = Ordeals(tmp_path_factory.mktemp("ordeals"))
    yield made
    made.close()


class Process:
    """A process that runs one pipeline."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self._out = out

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self) -> dict[str, Any]:
        """Wait for its end and return what it said, nothing if it was killed."""
        until(lambda: self.ended, "the end of a process")
        return json.loads(self._out.read_text(encoding="utf-8")) if self._out.exists() else {}

    @property
    def ended(self) -> bool:
        """Tell whether it ended."""
        return not Path(f"/proc/{self.pid}").exists()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Return the program that forks processes for pipelines; see `one_run.py`."""
    folder = tmp_path_factory.mktemp("forks")
    program = subprocess.Popen(
        [sys.executable, str(HERE / "one_run.py"), str(folder / "warm")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SYNAPSE_HOME": str(folder / "home")},
    )
    yield program
    program.communicate(timeout=PATIENCE)


@pytest.fixture
def begin(forks: subprocess.Popen[str], tmp_path: Path, own_home: Path) -> Iterator[Callable[..., Process]]:
    """Return a function that starts a process for one pipeline; all are gone afterwards."""
    started: list[Process] = []

    def make(pipeline: str, params: dict[str, Any], **order: Any) -> Process:
        out = tmp_path / f"said-{len(started)}.json"
        told = {"pipeline": pipeline, "params": params, "home": str(own_home), "out": str(out), **order}
        assert forks.stdin is not None
        assert forks.stdout is not None
        forks.stdin.write(json.dumps(told) + "\n")
        forks.stdin.flush()
        started.append(Process(int(forks.stdout.readline()), out))
        return started[-1]

    yield make
    for process in started:
        if not process.ended:
            process.signal(9)
        process.end()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """Return a function that waits for a condition, and fails if it never comes true."""
    return until


@pytest.fixture
def victims(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of the pipelines that are killed."""
    import importlib

    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("victims")
