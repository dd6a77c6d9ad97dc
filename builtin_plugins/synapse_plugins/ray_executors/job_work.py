"""
What a job does, on the cluster: one attempt of a task, or a whole run that it conducts itself.

Either way the action has a process of its own, by the executor `process`: what it prints becomes events, and
whatever kills it becomes an outcome here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from time import sleep, time
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.contracts import Outcome, RunPlace, Task
from synapse_kernel.events import Event, Log, State, encode_data
from synapse_kernel.kernel import Kernel
from synapse_kernel.lasting import Order
from synapse_kernel.owners import this_process
from synapse_kernel.redaction import Redactor
from synapse_kernel.serialization import decode_struct, portable_outcome
from synapse_kernel.stores import kept_result
from synapse_plugins.ray_executors.job_wire import FrameWriter, numbered
from synapse_plugins.ray_executors.reach import is_reached

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.contracts import ActionRef

RESERVED = 2
"""The events of an attempt before its action's first: ``pending`` and ``running``."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the job is told beside the task or the order: how to tell of it, and where its code comes from."""

    word: str
    """What the frames in its log begin with."""
    conducts: bool
    """True for an `Order`."""
    grace: float
    """Seconds between telling the action to stop and stopping it by force."""
    waits_for: str
    """What is said of the job while it waits for its place."""
    submitted: float
    """When it was handed over, as seconds since the epoch."""
    boot: str = ""
    """Which boot of which machine it was submitted from."""
    cwd: str = ""
    """The current folder there."""
    paths: list[str] = []
    """Digests of the packages that are imported from what was shipped."""
    requirements: list[str] = []
    """What these need to be installed."""
    folder: tuple[str, str] | None = None
    """Digest and name of the action's folder."""
    wheels: list[str] = []
    """Files in the folder to install, relative to it."""
    manager: str = "pip"
    options: list[str] = []


def work(start: object, body: bytes, folder: str | None, warnings: list[str], told: int) -> int:
    """
    Do the job, and write how it went to the process's standard output; returns the exit code.

    `told` is where the request to stop is read; when it ends, the process ends and takes the action along.
    """
    begin = msgspec.convert(start, Start)
    wire = FrameWriter(os.dup(1), begin.word)
    # Frames alone go where they are read from: what is printed here stands beside them.
    os.dup2(2, 1)
    if begin.boot == this_process().boot:
        with contextlib.suppress(OSError):
            os.chdir(begin.cwd)
    run = _conduct if begin.conducts else _attempt
    outcome = run(begin, body, folder, warnings, wire, told)
    return 0 if outcome.ok else 1


def opening_events(task: Task, waits_for: str, submitted: float) -> list[Event]:
    """Return what is said of an attempt before its action begins, numbered on from the task's last event."""
    text = Redactor(task.secrets).text(waits_for)
    return [
        State(task.run_id, task.seq + 1, submitted, task.action, None, "pending", task.attempt, text),
        State(task.run_id, task.seq + 2, time(), task.action, None, "running", task.attempt),
    ]


def _attempt(
    start: Start, body: bytes, folder: str | None, warnings: list[str], wire: FrameWriter, told: int
) -> Outcome:
    task = decode_struct(body, Task)
    seq = task.seq + RESERVED
    task = msgspec.structs.replace(
        task,
        seq=seq,
        ref=_there(task.ref, folder),
        # A store that is a file of the client's machine is not here.
        recorded=task.recorded and (start.boot == this_process().boot or is_reached(task.settings)),
    )
    first = opening_events(
        msgspec.structs.replace(task, seq=seq - RESERVED), start.waits_for, start.submitted
    )

    def send(events: list[Event]) -> None:
        nonlocal seq
        wire.send(numbered(events, seq))
        seq += len(events)

    kernel = Kernel(task.settings)
    executor = kernel.executor("process")
    wire.send(first)
    if warnings:
        send([_warning(task.run_id, task.action, text) for text in warnings])
        task = msgspec.structs.replace(task, seq=seq)
    job = executor.submit(task, send)
    _listen(told, lambda: job.cancel(start.grace), kernel)
    outcome = job.wait()
    assert outcome is not None
    outcome = portable_outcome(outcome)
    wire.finish(outcome, _without_secrets(outcome, task.secrets))
    return outcome


def _conduct(
    start: Start, body: bytes, folder: str | None, warnings: list[str], wire: FrameWriter, told: int
) -> Outcome:
    order = decode_struct(body, Order)
    action = msgspec.structs.replace(order.action, ref=_there(order.action.ref, folder))
    kernel = Kernel(order.settings)
    ended = threading.Event()

    def cancel() -> None:
        # It may be told before it has begun.
        while not kernel.cancel(order.run_id, grace=start.grace) and not ended.is_set():
            sleep(0.05)

    _listen(told, cancel, kernel)
    for text in warnings:
        sys.stderr.write(f"{text}\n")
    try:
        outcome = kernel.run(
            action,
            None,
            order.params,
            executor="process",
            resources=order.resources,
            env=order.env,
            timeout=order.timeout,
            retries=order.retries,
            sinks=[WireSink(wire)],
            checkpoint=order.checkpoint,
            job_id=order.job_id,
            record=False,
            place=RunPlace(run_id=order.run_id, target=order.target),
        )
    finally:
        ended.set()
    # Nobody gets more of it than the history keeps.
    wire.finish(_without_secrets(portable_outcome(outcome), order.secrets))
    return outcome


class WireSink:
    """Writes what a run says into the log of its job."""

    def __init__(self, wire: FrameWriter) -> None:
        self._wire = wire

    def accept(self, events: Sequence[Event]) -> None:
        """Write a batch."""
        self._wire.send(list(events))

    def close(self, outcome: Outcome) -> None:
        """Do nothing: the outcome is written by who asked for the run."""


def _there(ref: ActionRef, folder: str | None) -> ActionRef:
    """Return a reference to the action where it is on this machine."""
    return ref if folder is None else msgspec.structs.replace(ref, folder=folder)


def _without_secrets(outcome: Outcome, secrets: list[str]) -> Outcome:
    """Return an outcome as a history may keep it that does not know the run's secrets."""
    error, text = outcome.error, Redactor(secrets).text
    return msgspec.structs.replace(
        outcome,
        result=kept_result(outcome.result, secrets)[0],
        error=error
        and msgspec.structs.replace(
            error, message=text(error.message), traceback=text(error.traceback), output=text(error.output)
        ),
        warnings=[text(warning) for warning in outcome.warnings],
    )


def _warning(run_id: str, action: str, text: str) -> Event:
    raw = msgspec.Raw(encode_data({"message": text}))
    return Log(run_id, 0, time(), action, None, "log", "warning", raw)


def _listen(told: int, cancel: Callable[[], None], kernel: Kernel) -> None:
    def listen() -> None:
        asked = False
        while os.read(told, 1):
            if not asked:
                asked = True
                threading.Thread(target=cancel, name="synapse-job-cancel", daemon=True).start()
        # The front is gone, and was killed: nobody may go on in its name.
        kernel.executor("process").shutdown()
        os._exit(1)

    threading.Thread(target=listen, name="synapse-job-listen", daemon=True).start()
