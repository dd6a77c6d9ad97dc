"""
What executes an attempt on a worker, and streams what it says to the driver.

The action runs in a thread of its own. Its events go into the worker's spool, and from there into the items
that the generator yields: all that is there at once, so that a batch grows as the events come faster.
"""

from __future__ import annotations

import contextlib
import os
import threading
from io import TextIOBase
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
from msgspec.structs import force_setattr, replace

from synapse_kernel._version import __version__
from synapse_kernel.contracts import Task
from synapse_kernel.emitter import Pulse
from synapse_kernel.events import Event, Log, encode_data, encode_lines
from synapse_kernel.opening import working_folder
from synapse_kernel.owners import this_process
from synapse_kernel.redaction import Redactor
from synapse_kernel.serialization import decode_struct, encode_struct, portable_outcome
from synapse_kernel.striking import FreshThreads, ThreadJob
from synapse_kernel.worker import execute
from synapse_plugins.ray_executors.reach import is_reached
from synapse_plugins.ray_executors.spool import Spool, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from synapse_kernel.contracts import JsonObject, Outcome, Send
    from synapse_kernel.emitter import CancelToken
    from synapse_kernel.kernel import Kernel

MOST = 1 << 20
"""Bytes of one item at most."""
# An attempt that ends within this is told in one item; one that lasts says first that it has begun.
_AT_ONCE_SECONDS = 0.005
# Before this, no one can have waited long enough to want it cancelled: short attempts ask nobody.
_ASKING_SECONDS = 0.2
_IDLE_SECONDS = 60.0


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker is given."""

    task: Task
    key: str
    """Tells this attempt from all others of the driver's."""
    boot: str = ""
    """Which boot of which machine the driver runs on."""
    cwd: str = ""
    """The driver's current folder."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says first."""

    node: str
    pid: int
    version: str
    warnings: list[str] = []


class Asked(Protocol):
    """A method of the board, as Ray calls it."""

    def remote(self, key: str) -> object:
        """Call it."""


class BoardHandle(Protocol):
    """The board, as a worker knows it."""

    wait: Asked
    over: Asked


class Item(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a worker sends at once."""

    position: int
    """The position in the spool behind the lines."""
    lines: bytes = b""
    """Events as JSON lines, of which an item may hold a part."""
    hello: Hello | None = None
    """What the worker says of itself, in the first item alone."""
    last: bool = False
    outcome: bytes = b""
    """The outcome, in the last item; none where the action was left behind in a call that nothing stops."""


# Bytes go through Ray as they are.
_encode_item = msgspec.msgpack.Encoder().encode
decode_item = msgspec.msgpack.Decoder(Item).decode


def run(
    attempt: bytes, board: tuple[str, str], *, folder: str | None, warnings: list[str]
) -> Iterator[bytes]:
    """Execute an attempt, and yield each `Item`, encoded."""
    given = decode_struct(attempt, Attempt)
    worker = _this_worker()
    task = _placed(given, folder, worker.boot)
    worker.spool.begin(given.key)
    said: Hello | None = Hello(
        node=worker.node,
        pid=os.getpid(),
        version=__version__,
        warnings=warnings,
    )
    with _surroundings(given, task, worker) as outlet:
        done = threading.Event()

        def on_end() -> None:
            done.set()
            worker.spool.wake()

        def work(task: Task, send: Send, token: CancelToken) -> Outcome:
            return execute(
                task,
                send,
                token,
                kernel=lambda: worker.kernel(task.settings),
                pulse=worker.pulse,
                eager=True,
                lock=outlet.lock,
            )

        job = ThreadJob(
            work, task, outlet.take, on_end=on_end, start=worker.threads.start, sending=outlet.lock
        )
        if not done.wait(_AT_ONCE_SECONDS):
            asked, began = _Asking(given.key, board, job), monotonic()
            while not done.is_set():
                if worker.spool.written > worker.spool.read or said is not None:
                    lines = worker.spool.take(MOST)
                    yield _encode_item(Item(worker.spool.read, lines, said))
                    said = None
                if asked.asked:
                    worker.spool.wait(_IDLE_SECONDS)
                elif not worker.spool.wait(max(0.0, began + _ASKING_SECONDS - monotonic())):
                    asked.ask()
            asked.forget()
    outcome = job.wait()
    left = bytes(outlet.left)
    position = outlet.left_at
    while len(left) > MOST:
        lines, left = left[:MOST], left[MOST:]
        position = min(position + len(lines), worker.spool.read)
        yield _encode_item(Item(position, lines, said))
        said = None
    ended = b"" if outcome is None else encode_struct(portable_outcome(outcome))
    yield _encode_item(Item(worker.spool.read, left, said, last=True, outcome=ended))
    if outcome is None:
        # The thread that was left behind goes with the process: the next attempt gets another.
        os._exit(1)


class _Worker:
    """What this process keeps from one attempt to the next."""

    def __init__(self) -> None:
        import ray

        sweep()
        self.spool = Spool()
        self.pulse = Pulse()
        self.threads = FreshThreads()
        self.node = ray.get_runtime_context().get_node_id()
        self.boot = this_process().boot
        self._kernel: tuple[JsonObject, Kernel] | None = None

    def kernel(self, settings: JsonObject) -> Kernel:
        """Return a kernel of these settings, for what actions ask for."""
        if self._kernel is None or self._kernel[0] != settings:
            from synapse_kernel.kernel import Kernel

            if self._kernel is not None:
                self._kernel[1].shutdown()
            self._kernel = settings, Kernel(settings)
        return self._kernel[1]

    def close(self) -> None:
        """Leave nothing behind."""
        if self._kernel is not None:
            self._kernel[1].shutdown()
        self.spool.remove()


_workers: list[_Worker] = []


def _this_worker() -> _Worker:
    if not _workers:
        import atexit

        _workers.append(_Worker())
        atexit.register(_workers[0].close)
    return _workers[0]


def _placed(given: Attempt, folder: str | None, boot: str) -> Task:
    """Return the task as it is on this machine."""
    task = given.task
    if folder is not None:
        task = replace(task, ref=replace(task.ref, folder=folder))
    if task.recorded and given.boot != boot and not is_reached(task.settings):
        # The store is a file of the driver's machine.
        task = replace(task, recorded=False)
    return task


class _Asking:
    """Asks the driver whether the attempt is to stop, once it lasts."""

    def __init__(self, key: str, board: tuple[str, str], job: ThreadJob) -> None:
        self._key = key
        self._board = board
        self._job = job
        self.asked = False
        self._over = threading.Event()

    def ask(self) -> None:
        """Ask; the answer comes when there is one."""
        self.asked = True
        threading.Thread(target=self._hear, name="synapse-board", daemon=True).start()

    def forget(self) -> None:
        """Say that the attempt is over, if it was ever asked about."""
        self._over.set()
        if self.asked:
            with contextlib.suppress(Exception):  # it is of use to nobody any more
                self._handle().over.remote(self._key)

    def _hear(self) -> None:
        import ray
        from ray.exceptions import RayError

        while not self._over.is_set():
            try:
                board = self._handle()
                answer = board.wait.remote(self._key)
                if self._over.is_set():
                    # What `forget` told came before the question.
                    board.over.remote(self._key)
                grace = cast("float | None", ray.get(answer))  # type: ignore[call-overload]
            except (RayError, ValueError):
                # Ray starts a board anew whose process has died.
                sleep(_ASKING_SECONDS)
                continue
            if grace is not None:
                self._job.cancel(grace)
            return

    def _handle(self) -> BoardHandle:
        import ray

        name, namespace = self._board
        return cast("BoardHandle", ray.get_actor(name, namespace))


class _Outlet:
    """Where an attempt's events leave it: the action's, and what it prints; numbered as they come."""

    def __init__(self, task: Task, spool: Spool) -> None:
        self._task = task
        self._spool = spool
        self._seq = task.seq
        self.lock = threading.Lock()
        """Held by whoever lets it take something; one for all that an event passes: each costs it a tenth."""
        self._open = True
        self.left = bytearray()
        """What nobody had taken of the spool when the attempt ended,"""
        self.left_at = 0
        """and where that begins."""
        # Output comes line by line: so do the secrets of several lines.
        self._redactor = Redactor([part for s in task.secrets for part in (s, *s.splitlines())])

    def take(self, events: list[Event]) -> None:
        """Take a batch; the lock is held."""
        # An attempt that was left behind says no more: the spool is the next one's.
        if self._open:
            self._spool.write(self._encoded(events))

    def printed(self, stream: str, lines: list[str]) -> None:
        """Take lines that were printed."""
        events = self._logs(stream, lines)
        with self.lock:
            self.take(events)

    def end(self, rests: Iterable[tuple[str, str]]) -> None:
        """Take nothing more, but the last lines of the outputs that did not end; see `left`."""
        self._open = False
        left, self.left_at = self.left, self._spool.read
        # A thread that the action left behind may be writing, and wait for room.
        while not self.lock.acquire(timeout=_AT_ONCE_SECONDS):
            left += self._spool.take(MOST)
        try:
            while self._spool.written > self._spool.read:
                left += self._spool.take(MOST)
            for stream, line in rests:
                left += self._encoded(self._logs(stream, [line]))
        finally:
            self.lock.release()

    def _logs(self, stream: str, lines: list[str]) -> list[Event]:
        task = self._task
        return [
            Log(task.run_id, 0, time(), task.action, None, "output", "info", msgspec.Raw(raw))
            for raw in (encode_data({"stream": stream, "text": self._redactor.text(line)}) for line in lines)
        ]

    def _encoded(self, events: list[Event]) -> bytes:
        if events[0].seq != self._seq + 1:
            for seq, event in enumerate(events, self._seq + 1):
                force_setattr(event, "seq", seq)
        self._seq += len(events)
        return encode_lines(events)


class _Printed(TextIOBase):
    """Stands for stdout or stderr while an attempt runs: whole lines become events."""

    def __init__(self, name: str, printed: Callable[[str, list[str]], None]) -> None:
        self._name = name
        self._printed = printed
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest
        if lines:
            self._printed(self._name, [line.rstrip("\r") for line in lines])
        return len(text)

    def rest(self) -> list[tuple[str, str]]:
        """Return the last line if it did not end, with the name of the output."""
        return [(self._name, self._rest)] if self._rest else []


@contextlib.contextmanager
def _surroundings(given: Attempt, task: Task, worker: _Worker) -> Iterator[_Outlet]:
    """Give an attempt its variables, its folder and its outputs: a worker executes one at a time."""
    outlet = _Outlet(task, worker.spool)
    streams = _Printed("stdout", outlet.printed), _Printed("stderr", outlet.printed)
    before = {name: os.environ.get(name) for name in task.env}
    os.environ.update(task.env)
    here = working_folder()
    if given.cwd and given.boot == worker.boot:
        with contextlib.suppress(OSError):
            os.chdir(given.cwd)
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield outlet
    finally:
        outlet.end([rest for stream in streams for rest in stream.rest()])
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # An action may have deleted it.
        with contextlib.suppress(OSError):
            os.chdir(here)
