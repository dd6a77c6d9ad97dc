"""A store with runs as a kernel would have recorded them, and the command line on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from synapse_kernel.cli.app import run_app
from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.events import (
    Artifact,
    Event,
    Log,
    Message,
    Metrics,
    Progress,
    State,
    encode_data,
    encode_metrics,
)
from synapse_kernel.owners import Owner, this_process
from synapse_kernel.stores import Environment, RunRecord, RunStore, end_of
from synapse_plugins.history.sqlite_store import SqliteStore


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@pytest.fixture
def store(own_home: Path) -> Iterator[RunStore]:
    """Return the store that the commands of this test read."""
    made = SqliteStore("sqlite")
    yield made
    made.close()


@pytest.fixture
def runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Return a function that calls ``synapse-kernel runs …`` in this process."""
    monkeypatch.chdir(tmp_path)
    # What the command line changes for its own process.
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("sys.path", list(sys.path))

    def call(*args: object) -> Said:
        code = run_app(["runs", *map(str, args)])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def ended_process() -> Owner:
    """Return a process that is dead: this one's number, from an earlier start."""
    return msgspec.structs.replace(this_process(), started="1")


class Events:
    """Makes the events of one run, numbered."""

    def __init__(self, run_id: str, action: str = "train") -> None:
        self.run_id = run_id
        self.action = action
        self.made: list[Event] = []
        self.time = datetime.now(UTC).timestamp() - 1000

    def _head(self, step: str | None = None) -> tuple[str, int, float, str, str | None]:
        self.time += 1
        return (self.run_id, len(self.made) + 1, self.time, self.action, step)

    def state(self, state: str, detail: str | None = None) -> Events:
        self.made.append(State(*self._head(), state, 1, detail))  # type: ignore[arg-type]
        return self

    def log(self, event: str, data: dict[str, object], level: str = "info") -> Events:
        self.made.append(Log(*self._head(), event, level, msgspec.Raw(encode_data(data))))  # type: ignore[arg-type]
        return self

    def progress(self, current: float, total: float, category: str | None = None) -> Events:
        self.made.append(Progress(*self._head(), category, current, total))
        return self

    def metrics(
        self, values: dict[str, float], category: str | None = None, step: str | None = None
    ) -> Events:
        self.made.append(Metrics(*self._head(step), category, msgspec.Raw(encode_metrics(values))))
        return self

    def message(self, text: str, context: str = "info") -> Events:
        self.made.append(Message(*self._head(), text, context))
        return self

    def artifact(self, name: str, path: str, size: int) -> Events:
        self.made.append(Artifact(*self._head(), name, path, size))
        return self


class Book:
    """Writes runs into a store, as a kernel does."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.owner = this_process()

    def run(
        self,
        run_id: str,
        status: str = "succeeded",
        *,
        action: str = "train",
        minutes_ago: float = 210,
        seconds: float = 12,
        events: Sequence[Event] = (),
        result: object = None,
        error: ErrorInfo | None = None,
        owner: Owner | None = None,
        **more: object,
    ) -> RunRecord:
        """Record a run of 12 s that was made 3.5 h ago."""
        created = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        record = RunRecord(
            run_id=run_id,
            action=action,
            created=created,
            **{"root": run_id, "target": "./plugin", **more},  # type: ignore[arg-type]
        )
        self.store.start(record, owner or self.owner)
        if status == "pending":
            return record
        beginning = State(run_id, 1, created.timestamp(), action, None, "running")
        self.store.append(run_id, [beginning])
        last = max([1, *(event.seq + 1 for event in events)])
        self.store.append(run_id, [msgspec.structs.replace(event, seq=event.seq + 1) for event in events])
        if status == "running":
            return record
        finished = created + timedelta(seconds=seconds)
        outcome = Outcome(
            run_id=run_id,
            status=status,  # type: ignore[arg-type]
            action=action,
            started=created,
            finished=finished,
            result=result,
            error=error,
        )
        ending = State(run_id, last + 1, finished.timestamp(), action, None, status)  # type: ignore[arg-type]
        self.store.finish(end_of(outcome), [ending])
        return record

    def child(self, run_id: str, parent: str, node: str, status: str = "succeeded", **more: Any) -> RunRecord:
        """Record a run that is part of another."""
        return self.run(run_id, status, **{"root": parent, "parent": parent, "node": node, **more})

    def finish(self, run_id: str) -> None:
        """End a run that is running."""
        now = datetime.now(UTC)
        outcome = Outcome(
            run_id=run_id, status="succeeded", action="train", started=now, finished=now, result="done"
        )
        self.store.finish(end_of(outcome), [State(run_id, 99, 9.0, "train", None, "succeeded")])

    def environment(self) -> str:
        """Record an environment and return its id."""
        self.store.put_environment(
            Environment(id="e1", python="3.11.7", platform="Linux-6.1-x86_64", packages={"numpy": "2.1.0"})
        )
        return "e1"


@pytest.fixture
def book(store: RunStore) -> Book:
    """Return what writes runs into the store."""
    return Book(store)


@pytest.fixture
def events() -> type[Events]:
    return Events


@pytest.fixture
def spawn() -> Callable:
    """Return a function that starts the command line on a terminal of 100 columns."""
    import pexpect

    def start(*args: object) -> pexpect.spawn:
        return pexpect.spawn(
            sys.executable,
            ["-m", "synapse_kernel", *map(str, args)],
            env={name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            | {"TERM": "xterm-256color", "COLUMNS": "100"},
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 100),
        )

    return start


@pytest.fixture
def start() -> Iterator[Callable]:
    """Return a function that starts `synapse-kernel`, or another command, and leaves it running."""
    started: list[subprocess.Popen[str]] = []

    def call(
        *args: str, command: Sequence[str] = ("-m", "synapse_kernel"), cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [sys.executable, *command, *args],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )
        started.append(made)
        return made

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def cli(tmp_path: Path) -> Callable:
    """Return a function that runs `synapse-kernel` as a process of its own."""

    def call(*args: object, cwd: Path = tmp_path, stdin: str = "", **env: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "synapse_kernel", *map(str, args)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONWARNINGS": "default", **env},
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def work(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with actions that fail at first, wait, and keep secrets."""
    return make_folder(
        {
            "work.py": """
                import time
                from pathlib import Path

                from pydantic import BaseModel, SecretStr

                from synapse_kernel import action


                @action
                def flaky(params, ctx):
                    ctx.log_message(f"attempt {ctx.attempt}")
                    if not Path("ready").exists():
                        raise ConnectionError("not yet")
                    return {"attempt": ctx.attempt, "params": dict(params), "folder": str(Path.cwd())}


                class Secret(BaseModel):
                    name: str = "x"
                    token: SecretStr
                    keys: list[SecretStr] = []


                @action
                def secret(params: Secret, ctx):
                    if not Path("ready").exists():
                        raise ConnectionError("not yet")
                    return params.token.get_secret_value()[::-1]


                @action
                def variable(params, ctx):
                    return ctx.env.get_str("PLACE") + ctx.env.get_str("OTHER")


                @action
                def wait(params, ctx):
                    ctx.log_message("begun")
                    try:
                        for step in range(1200):
                            ctx.set_progress(step, 1200)
                            time.sleep(0.05)
                    finally:
                        ctx.log_message("cleaned up")
            """
        },
        name="work",
    )
