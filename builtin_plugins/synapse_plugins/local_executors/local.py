"""The executor `local`: the action runs in the kernel's process."""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from synapse_kernel.emitter import CancelToken
from synapse_kernel.errors import RunCancelled
from synapse_kernel.striking import raise_in_thread
from synapse_kernel.worker import execute, interrupted

if TYPE_CHECKING:
    from synapse_kernel.contracts import Outcome, Send, Task
    from synapse_kernel.events import Event
    from synapse_kernel.kernel import Kernel

# Between raising RunCancelled in a thread and giving it up: a call into C can hold it for ever.
ABANDON_SECONDS = 2.0


class LocalExecutor:
    """
    Runs tasks in this process: at once in the caller's thread (`run`), or in a thread of their own.

    Exceptions keep their traceback and results may be any object.
    """

    in_process = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def run(self, task: Task, send: Send | None, token: CancelToken) -> Outcome:
        """Run the task in this thread."""
        pulse = self._kernel.pulse if send is not None else None
        return execute(task, send, token, kernel=self._get_kernel, pulse=pulse)

    def submit(self, task: Task, send: Send) -> LocalJob:
        """Run the task in a thread of its own."""
        return LocalJob(self, task, send)

    def shutdown(self) -> None:
        """Do nothing: each job ends with its run."""

    def _get_kernel(self) -> Kernel:
        return self._kernel


class LocalJob:
    """
    A task in a thread.

    A thread cannot be killed. Cancel first tells the action, through the calls it makes on its context;
    after the grace period `RunCancelled` is raised between two of its byte codes; if a call into C holds it
    even then, it is left behind, its events unheard, so that the run can end.
    """

    def __init__(self, executor: LocalExecutor, task: Task, send: Send) -> None:
        self._token = CancelToken()
        self._outcome: Outcome | None = None
        self._ended = threading.Event()
        self._abandoned = False
        self._over = False
        # Held while the thread is made to stop, so that this never strikes once its work is done.
        self._working = threading.Lock()
        self._delivering = threading.Lock()
        self._send = send
        context = copy_context()
        self._thread = threading.Thread(
            target=context.run,
            args=(self._work, executor, task),
            name=f"synapse-action-{task.run_id}",
            daemon=True,
        )
        self._thread.start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the outcome; None after `timeout` seconds, or once the thread was left behind."""
        self._ended.wait(timeout)
        return self._outcome

    def cancel(self, grace: float) -> None:
        """Tell the action to stop, make it after `grace` seconds."""
        first = not self._token.is_set
        self._token.set()
        if first or grace <= 0:
            threading.Thread(target=self._force, args=(grace,), name="synapse-cancel", daemon=True).start()

    def _work(self, executor: LocalExecutor, task: Task) -> None:
        started = datetime.now(UTC)
        try:
            self._outcome = executor.run(task, self._deliver, self._token)
            with self._working:
                self._over = True
        except RunCancelled:
            # The forced stop came when the action was over or not yet begun: the kernel concludes the run.
            pass
        except KeyboardInterrupt:
            # Raised by the action itself: a signal reaches the main thread alone.
            self._outcome = interrupted(task, started)
        finally:
            self._ended.set()

    def _deliver(self, events: list[Event]) -> None:
        with self._delivering:
            if not self._abandoned:
                self._send(events)

    def _force(self, grace: float) -> None:
        if self._ended.wait(max(grace, 0)) or self._thread.ident is None:
            return
        # A sink that takes a batch is not struck, unless it takes for ever.
        waited = self._delivering.acquire(timeout=ABANDON_SECONDS)
        with self._working:
            if not self._over:
                self._token.strike()
                raise_in_thread(self._thread.ident, RunCancelled)
        if waited:
            self._delivering.release()
        if not self._ended.wait(ABANDON_SECONDS):
            self._abandoned = True
            self._ended.set()
