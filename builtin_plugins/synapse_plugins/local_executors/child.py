"""
The worker process of the executor `process`.

Run as a script, so that no package's start-up is on its way. It reads the task from stdin, sends events and
at last the outcome through a pipe, and listens on stdin for ``cancel`` and ``force``. When stdin ends, its
parent is gone, and it kills its own process group.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from synapse_kernel.contracts import Task
from synapse_kernel.emitter import CancelToken, Pulse
from synapse_kernel.errors import RunCancelled
from synapse_kernel.events import Event, encode_events
from synapse_kernel.serialization import decode_struct, encode_struct, portable_outcome
from synapse_kernel.worker import execute, interrupted

if TYPE_CHECKING:
    from types import FrameType

    from synapse_kernel.kernel import Kernel


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first line on stdin."""

    task: Task
    sys_path: list[str]


def main() -> None:
    """Run the task that stdin holds."""
    wire = _Wire(int(sys.argv[1]))
    # Not sys.stdin: a thread that waits in its buffer would block the interpreter's end.
    control = os.fdopen(os.dup(0), "rb", buffering=0, closefd=True)
    # What the action reads from stdin is empty, not the kernel's words.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    start = decode_struct(_first_line(control), Start)
    sys.path[:] = start.sys_path
    token = CancelToken()
    began = datetime.now(UTC)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        token.strike()
        wire.interrupt()

    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_listen, args=(control, token), daemon=True).start()
    kernels: list[Kernel] = []
    try:
        outcome = execute(
            start.task,
            wire.send,
            token,
            kernel=lambda: kernels[0] if kernels else _made(kernels, start.task),
            pulse=Pulse(),
            eager=True,
        )
    except KeyboardInterrupt:
        outcome = interrupted(start.task, began)
    except RunCancelled:
        # The forced stop came when the action was already over; the parent concludes the run.
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kernel in kernels:
        kernel.shutdown()
    wire.write(b"O" + encode_struct(portable_outcome(outcome)) + b"\n")
    sys.stdout.flush()
    sys.stderr.flush()


class _Wire:
    """The pipe to the parent. A forced stop waits until a line is whole: half a one would cost the rest."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._lock = threading.Lock()
        self._writing = False
        self._interrupted = False

    def send(self, events: list[Event]) -> None:
        """Send a batch, from any thread."""
        self.write(b"E" + encode_events(events) + b"\n")

    def write(self, line: bytes) -> None:
        """Write a line."""
        is_main = threading.current_thread() is threading.main_thread()
        with self._lock:
            self._writing = is_main
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            self._writing = False
        if is_main and self._interrupted:
            self._interrupted = False
            raise RunCancelled

    def interrupt(self) -> None:
        """Raise `RunCancelled` in the main thread, now or when its line is written; a signal's handler."""
        if self._writing:
            self._interrupted = True
            return
        raise RunCancelled


def _made(kernels: list[Kernel], task: Task) -> Kernel:
    from synapse_kernel.kernel import Kernel

    kernels.append(Kernel(task.settings))
    return kernels[0]


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


if __name__ == "__main__":
    main()
