"""The executor `process`: each task in a fresh interpreter, in a process group of its own."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import IO, TYPE_CHECKING

import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome, Task
from synapse_kernel.events import Event, Log, decode_events, encode_data
from synapse_kernel.redaction import Redactor
from synapse_kernel.serialization import decode_struct, encode_struct
from synapse_kernel.worker import cancelled, concluded
from synapse_plugins.local_executors.child import Start

if TYPE_CHECKING:
    from synapse_kernel.contracts import Send
    from synapse_kernel.events import Status
    from synapse_kernel.kernel import Kernel

# What a process needs to find its programs, libraries and places; nothing else of the caller's environment.
PASSED = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV",
        "PYTHONHOME", "PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE",
        "SSL_CERT_DIR", "CUDA_VISIBLE_DEVICES", "SYNAPSE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME", "SYSTEMROOT",
    }
)  # fmt: skip
# Between asking a process by signal and killing its group.
FORCE_SECONDS = 2.0
OUTPUT_LINES = 20
_CHUNK = 1 << 16
# More than a pipe holds: all that a worker wrote before its end is read.
_READS_AFTER_EXIT = 32
_CHILD = Path(__file__).with_name("child.py")


class ProcessExecutor:
    """Runs each task in a fresh interpreter; whatever happens to that process is an outcome here."""

    in_process = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._jobs: set[ProcessJob] = set()
        self._lock = threading.Lock()

    def submit(self, task: Task, send: Send) -> ProcessJob:
        """Start a process for the task."""
        job = ProcessJob(task, send, self._forget)
        with self._lock:
            self._jobs.add(job)
        try:
            job.start()
        except BaseException:
            self._forget(job)
            raise
        return job

    def shutdown(self) -> None:
        """Kill what still runs."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.kill()

    def _forget(self, job: ProcessJob) -> None:
        with self._lock:
            self._jobs.discard(job)


class ProcessJob:
    """A task in a process: its events and output are read by one thread until it ends."""

    def __init__(self, task: Task, send: Send, on_end: object) -> None:
        self._task = task
        self._send = send
        self._on_end = on_end
        self._started = datetime.now(UTC)
        self._ended = threading.Event()
        self._cancelled = False
        self._killed = False
        self._outcome: Outcome | None = None
        self._tail: deque[str] = deque(maxlen=OUTPUT_LINES)
        # Output comes line by line: so do the secrets of several lines.
        self._redactor = Redactor([part for s in task.secrets for part in (s, *s.splitlines())])

    def start(self) -> None:
        """Start the process and the thread that reads from it."""
        first_line = encode_struct(Start(task=self._task, sys_path=sys.path)) + b"\n"
        reading, writing = os.pipe()
        env = {k: v for k, v in os.environ.items() if _is_passed(k)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**env, **self._task.env, "PYTHONUNBUFFERED": "1"},
                pass_fds=(writing,),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._tell(first_line)
        threading.Thread(
            target=self._read, args=(reading,), name=f"synapse-process-{self._task.run_id}", daemon=True
        ).start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the outcome; None after `timeout` seconds."""
        self._ended.wait(timeout)
        return self._outcome

    def cancel(self, grace: float) -> None:
        """Tell the action to stop; after `grace` seconds interrupt it, soon after kill its process group."""
        if self._cancelled and grace > 0:
            return
        self._cancelled = True
        self._tell(b"cancel\n")
        threading.Thread(target=self._force, args=(grace,), name="synapse-cancel", daemon=True).start()

    def kill(self) -> None:
        """Kill the process and all it started."""
        self._killed = True
        self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _force(self, grace: float) -> None:
        if grace > 0 and self._ended.wait(grace):
            return
        self._tell(b"force\n")
        if not self._ended.wait(FORCE_SECONDS):
            self.kill()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _read(self, wire: int) -> None:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        streams: dict[int, tuple[str, bytearray]] = {
            wire: ("wire", bytearray()),
            process.stdout.fileno(): ("stdout", bytearray()),
            process.stderr.fileno(): ("stderr", bytearray()),
        }
        with selectors.DefaultSelector() as selector:
            for descriptor in streams:
                selector.register(descriptor, selectors.EVENT_READ)
            try:
                self._pump(selector, streams)
                for name, rest in streams.values():
                    if rest and name != "wire":
                        self._printed(name, [bytes(rest)])
            finally:
                os.close(wire)
                self._conclude(process.stdout, process.stderr)

    def _pump(self, selector: selectors.BaseSelector, streams: dict[int, tuple[str, bytearray]]) -> None:
        """Take what comes until the worker is gone and what it left in the pipes is read."""
        left: int | None = None
        while selector.get_map():
            ready = selector.select(timeout=0.2)
            if left is not None:
                # One that left the group may hold the pipes open and go on printing: not waited for.
                if not ready or not left:
                    return
                left -= 1
            elif self._process.poll() is not None:
                self._kill_group()
                left = _READS_AFTER_EXIT
            for key, _ in ready:
                self._take(selector, key.fd, *streams[key.fd])

    def _take(self, selector: selectors.BaseSelector, fd: int, name: str, buffer: bytearray) -> None:
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            selector.unregister(fd)
            return
        if b"\n" not in chunk:
            buffer += chunk
            return
        *lines, rest = (bytes(buffer) + chunk).split(b"\n")
        buffer[:] = rest
        if name != "wire":
            self._printed(name, lines)
            return
        for line in lines:
            try:
                if line[:1] == b"E":
                    self._send(decode_events(line[1:]))
                else:
                    self._outcome = decode_struct(line[1:], Outcome)
            except (msgspec.DecodeError, ValueError):
                # What is no message of ours was written over the wire: nothing more of it can be trusted.
                self.kill()

    def _printed(self, stream: str, lines: list[bytes]) -> None:
        """Make events of what the process printed, and keep the last lines for the case of a crash."""
        events: list[Event] = []
        task = self._task
        for line in lines:
            text = self._redactor.text(line.decode(errors="replace").rstrip("\r"))
            self._tail.append(text)
            raw = msgspec.Raw(encode_data({"stream": stream, "text": text}))
            events.append(Log(task.run_id, 0, time(), task.action, None, "output", "info", raw))
        if events:
            self._send(events)

    def _conclude(self, *streams: IO[bytes]) -> None:
        code = self._process.wait()
        # What the action started and left behind goes with its group.
        self._kill_group()
        if self._outcome is None:
            self._outcome = self._crashed(code)
        assert self._process.stdin is not None
        for stream in (*streams, self._process.stdin):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        assert callable(self._on_end)
        self._on_end(self)
        self._ended.set()

    def _crashed(self, code: int) -> Outcome:
        if self._cancelled or self._killed:
            status: Status = "cancelled"
            error = cancelled("cancelled and its process killed")
        else:
            status = "failed"
            error = ErrorInfo(type="ProcessCrashed", message=_why(code), kind="crash")
        error = msgspec.structs.replace(error, output="\n".join(self._tail))
        return concluded(self._task, self._started, status, error)


def _is_passed(name: str) -> bool:
    # Ray's tell of the cluster, where this process is part of a job there; the token itself is a secret.
    return name in PASSED or name.startswith("LC_") or (name.startswith("RAY_") and name != "RAY_AUTH_TOKEN")


def _why(code: int) -> str:
    if code >= 0:
        return f"the worker process exited with code {code} before the action ended"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"the worker process was killed by {name}{hint}"
