"""
The worker process of the executor `process`.

Run as a script, so that no package's start-up is on its way. It reads the task from stdin, sends events and
at last the outcome through a pipe, and listens on stdin for ``cancel`` and ``force``. When stdin ends, its
parent is gone, and it kills its own process group.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from synapse_kernel.contracts import Outcome, Task
from synapse_kernel.emitter import CancelToken, Pulse
from synapse_kernel.errors import RunCancelled
from synapse_kernel.events import Event, encode_events
from synapse_kernel.serialization import NotJsonError, to_plain
from synapse_kernel.worker import describe_error, execute

if TYPE_CHECKING:
    from types import FrameType

    from synapse_kernel.kernel import Kernel


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first line on stdin."""

    task: Task
    sys_path: list[str]


def main() -> None:
    """Run the task that stdin holds."""
    wire = os.fdopen(int(sys.argv[1]), "wb", buffering=0)
    # Not sys.stdin: a thread that waits in its buffer would block the interpreter's end.
    control = os.fdopen(os.dup(0), "rb", buffering=0, closefd=True)
    # What the action reads from stdin is empty, not the kernel's words.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Python's own JSON knows NaN and infinities, which params and results may hold.
    start = msgspec.convert(json.loads(_first_line(control)), Start)
    sys.path[:] = start.sys_path
    token = CancelToken()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        token.strike()
        raise RunCancelled

    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_listen, args=(control, token), daemon=True).start()
    lock = threading.Lock()

    def send(events: list[Event]) -> None:
        with lock:
            _write(wire, b"E" + encode_events(events) + b"\n")

    try:
        outcome = execute(
            start.task, send, token, kernel=lambda: _kernel(start.task), pulse=Pulse(), eager=True
        )
    except RunCancelled:
        # The forced stop came when the action was already over; the parent concludes the run.
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _write(wire, b"O" + _encoded(outcome) + b"\n")
    sys.stdout.flush()
    sys.stderr.flush()


def _write(wire: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[wire.write(view) :]


def _first_line(control: BinaryIO) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(control.fileno(), 1 << 16)
        if not chunk:
            sys.exit("the kernel went away before it sent a task")
        line += chunk
    return bytes(line)


def _listen(control: BinaryIO, token: CancelToken) -> None:
    while words := os.read(control.fileno(), 1 << 10):
        if b"cancel" in words:
            token.set()
        if b"force" in words:
            # A signal, so that a blocking call ends too.
            os.kill(os.getpid(), signal.SIGINT)
    os.killpg(0, signal.SIGKILL)


def _encoded(outcome: Outcome) -> bytes:
    if outcome.result is not None:
        try:
            outcome = msgspec.structs.replace(outcome, result=to_plain(outcome.result))
        except NotJsonError as error:
            outcome = msgspec.structs.replace(
                outcome, status="failed", result=None, error=describe_error(error, "result")
            )
    return json.dumps(msgspec.to_builtins(outcome)).encode()


def _kernel(task: Task) -> Kernel:
    from synapse_kernel.kernel import Kernel

    return Kernel(task.settings)


if __name__ == "__main__":
    main()
