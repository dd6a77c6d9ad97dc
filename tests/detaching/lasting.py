"""
A plugin with an executor whose runs outlive the process: each is a process of its own, in its own folder.

As a script it is such a process: it writes what it says to ``events.ndjson``, and at last ``outcome.json``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from synapse_kernel import Kernel
from synapse_kernel.contracts import ErrorInfo, Outcome, RunPlace, Send, Task
from synapse_kernel.emitter import CancelToken, Pulse
from synapse_kernel.errors import SynapseError
from synapse_kernel.events import Event, decode_event, encode_event
from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.lasting import Order
from synapse_kernel.owners import Owner, is_alive, this_process
from synapse_kernel.specs import ExecutorSpec
from synapse_kernel.worker import execute

FARM = "LASTING_FARM"
"""The variable that names the folder of the farm; a file ``full`` in it lets nothing more start."""
POLL_SECONDS = 0.02
LIFETIME_SECONDS = 600


@hookimpl
def synapse_register_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec(name="lasting", target="lasting:LastingFarm", lasting=True)]


class LastingFarm:
    """Starts runs, and finds them again."""

    in_process = False

    def __init__(self, kernel: Kernel) -> None:
        self._farm = Path(os.environ[FARM])
        self._jobs: list[FarmJob] = []

    def launch(self, order: Order) -> None:
        if (self._farm / "full").exists():
            raise SynapseError(f"The farm is full; the token was {order.params.get('token')}")
        begin(self._farm / order.run_id, {"order": msgspec.to_builtins(order)})

    def submit(self, task: Task, send: Send) -> FarmJob:
        place = self._farm / f"{task.run_id}-{task.attempt}"
        begin(place, {"task": msgspec.to_builtins(task)})
        return self._job(place, task.run_id, task.seq, send)

    def attach(self, run_id: str, attempt: int, after: int, send: Send) -> FarmJob:
        places = (self._farm / run_id, self._farm / f"{run_id}-{attempt}")
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise SynapseError(f"The farm has no run {run_id}")
        return self._job(place, run_id, 0 if (self._farm / "again").exists() else after, send)

    def shutdown(self) -> None:
        for job in self._jobs:
            job.left.set()

    def _job(self, place: Path, run_id: str, after: int, send: Send) -> FarmJob:
        job = FarmJob(place, run_id, after, send)
        self._jobs.append(job)
        return job


class FarmJob:
    """Reads what a run writes."""

    def __init__(self, place: Path, run_id: str, after: int, send: Send) -> None:
        self._place = place
        self._run_id = run_id
        self._after = after
        self._send = send
        self._outcome: Outcome | None = None
        self._ended = threading.Event()
        self.left = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        self._ended.wait(timeout)
        if self._outcome is None and (self._place.parent / "cut").exists():
            raise SynapseError("The road to the farm is cut")
        return self._outcome

    def close(self) -> None:
        self.left.set()

    def cancel(self, grace: float) -> None:
        (self._place / "cancel").touch()

    def _read(self) -> None:
        position = 0
        file = self._place / "events.ndjson"
        while not self.left.is_set() and not (self._place.parent / "cut").exists():
            # Asked before the events are read: those of a run that has ended are all there.
            outcome = self._find_outcome()
            data = file.read_bytes()[position:] if file.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            position += len(whole)
            events = [decode_event(line) for line in whole.splitlines()]
            fresh = [event for event in events if event.seq > self._after]
            if fresh:
                self._send(fresh)
            if outcome is not None:
                self._outcome = outcome
                break
            time.sleep(POLL_SECONDS)
        self._ended.set()

    def _find_outcome(self) -> Outcome | None:
        alive = is_running(self._place)
        try:
            return msgspec.json.decode((self._place / "outcome.json").read_bytes(), type=Outcome)
        except FileNotFoundError:
            if alive:
                return None
        now = datetime.now(UTC)
        error = ErrorInfo(type="FarmCrashed", message="its process is gone", kind="crash")
        return Outcome(
            run_id=self._run_id, status="failed", action="talk", started=now, finished=now, error=error
        )


def is_running(place: Path) -> bool:
    """Tell whether the process of a run lives; one that has not said who it is counts as begun."""
    try:
        owner = msgspec.json.decode((place / "owner.json").read_bytes(), type=Owner)
    except FileNotFoundError:
        return True
    return is_alive(owner) is not False


def begin(place: Path, start: dict[str, object]) -> None:
    """Start the process of a run, which nobody is the parent of."""
    place.mkdir()
    start = {**start, "sys_path": sys.path, "cwd": str(Path.cwd())}
    (place / "start.json").write_text(json.dumps(start), encoding="utf-8")
    with (place / "log").open("wb") as log:
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", sys.executable, __file__, str(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=True,
        )


class Wire:
    """Writes events to the file."""

    def __init__(self, place: Path) -> None:
        self._file = (place / "events.ndjson").open("ab", buffering=0)

    def accept(self, events: list[Event]) -> None:
        self._file.write(b"".join(encode_event(event) + b"\n" for event in events))

    def close(self, outcome: Outcome) -> None:
        self._file.close()


def main(place: Path) -> None:
    # Where the tests were killed, nobody ends it.
    signal.alarm(LIFETIME_SECONDS)
    write(place / "owner.json", msgspec.json.encode(this_process()))
    start = json.loads((place / "start.json").read_text(encoding="utf-8"))
    sys.path[:] = start["sys_path"]
    os.chdir(start["cwd"])
    outcome = conducted(place, start["order"]) if "order" in start else executed(place, start["task"])
    write(place / "outcome.json", msgspec.json.encode(outcome))


def conducted(place: Path, given: object) -> Outcome:
    """Conduct a run, its attempts and all."""
    order = msgspec.convert(given, Order)
    with Kernel(order.settings) as kernel:
        run = kernel.submit(
            order.action,
            None,
            order.params,
            executor="local",
            env=order.env,
            timeout=order.timeout,
            retries=order.retries,
            sinks=[Wire(place)],
            record=False,
            place=RunPlace(run_id=order.run_id, target=order.target),
        )
        while True:
            try:
                return run.result(POLL_SECONDS)
            except TimeoutError:
                if (place / "cancel").exists():
                    run.cancel()


def executed(place: Path, given: object) -> Outcome:
    """Execute one attempt of a run that another process conducts."""
    task = msgspec.convert(given, Task)
    token = CancelToken()
    threading.Thread(target=watch, args=(place / "cancel", token), daemon=True).start()
    wire = Wire(place)
    with Kernel(task.settings) as kernel:
        return execute(task, wire.accept, token, kernel=lambda: kernel, pulse=Pulse())


def watch(file: Path, token: CancelToken) -> None:
    while not file.exists():
        time.sleep(POLL_SECONDS)
    token.set()


def write(file: Path, data: bytes) -> None:
    """Write a file that appears whole."""
    file.with_suffix(".new").write_bytes(data)
    file.with_suffix(".new").rename(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
