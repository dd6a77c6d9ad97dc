"""The executor `acme-threads`: actions run in a pool of threads, as many at a time as it has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import msgspec

from synapse_kernel import CancelToken
from synapse_kernel.worker import execute

if TYPE_CHECKING:
    from synapse_kernel import Event, Kernel, Outcome, Task
    from synapse_kernel.contracts import Send


class AcmeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `acme` of the settings."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 4


class ThreadsExecutor:
    """Runs tasks in this process, in threads of its own; a task waits while all of them are busy."""

    in_process = True

    def __init__(self, kernel: Kernel) -> None:
        settings = kernel.settings.section("acme", AcmeSettings)
        self._kernel = kernel
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="acme")

    def submit(self, task: Task, send: Send) -> ThreadJob:
        """Hand the task to the pool."""
        return ThreadJob(self, task, send)

    def shutdown(self) -> None:
        """Let the threads end; what waits in the pool never starts."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class ThreadJob:
    """
    A task in the pool.

    A thread cannot be killed. Cancel tells the action, which stops at its next call to the context; one that
    makes none within the grace period is left behind, its events unheard, so that its run can end.
    """

    def __init__(self, executor: ThreadsExecutor, task: Task, send: Send) -> None:
        self._executor = executor
        self._task = task
        self._send = send
        self._token = CancelToken()
        self._left_behind = False
        self._over = threading.Event()
        self._future = executor._pool.submit(self._work)
        self._future.add_done_callback(lambda _: self._over.set())

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the outcome; None after `timeout` seconds, or where the task has none."""
        self._over.wait(timeout)
        if self._future.done() and not self._future.cancelled():
            return self._future.result()
        return None

    def cancel(self, grace: float) -> None:
        """Tell the action to stop, leave it behind after `grace` seconds."""
        self._token.set()
        if self._future.cancel():
            return  # it was still waiting for a thread
        timer = threading.Timer(max(grace, 0), self._leave_behind)
        timer.daemon = True
        timer.start()
        self._future.add_done_callback(lambda _: timer.cancel())

    def _work(self) -> Outcome:
        kernel = self._executor._kernel
        return execute(self._task, self._deliver, self._token, kernel=lambda: kernel, pulse=kernel.pulse)

    def _deliver(self, events: list[Event]) -> None:
        if not self._left_behind:
            self._send(events)

    def _leave_behind(self) -> None:
        self._left_behind = True
        self._over.set()
