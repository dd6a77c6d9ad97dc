"""
Breaking off work in a thread from outside.

A thread cannot be killed; `RunCancelled` can be raised in it between two of its byte codes.
"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections import deque
from contextvars import copy_context
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

from synapse_kernel.emitter import CancelToken
from synapse_kernel.errors import RunCancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.contracts import Outcome, Send, Task
    from synapse_kernel.events import Event

# How long a sink that takes a batch is spared.
DELIVERY_SECONDS = 2.0
# Between raising RunCancelled in a thread and giving it up: a call into C can hold it for ever.
ABANDON_SECONDS = 2.0


class InlineJob:
    """
    Work under way in the thread that made this, until `over` is set and `end` has returned.

    `over` is set as an attribute: a call could be broken off before it has done anything. After it, two stops
    may still be raised: one that was waiting, and one that was being decided on.
    """

    def __init__(self, token: CancelToken) -> None:
        self._token = token
        self._thread = threading.get_ident()
        self.over = False
        self._delivering = threading.Lock()
        # Held while the thread is made to stop, so that this never strikes once its work is done.
        self._working = threading.Lock()
        self._ended: threading.Event | None = None
        self._told = False

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Return None: who runs work in its own thread has nobody to wait for."""

    def cancel(self, grace: float) -> None:
        """Tell the action to stop, make it after `grace` seconds."""
        with self._working:
            first, self._told = not self._told, True
            ended = self._ended = self._ended or threading.Event()
            if self.over:
                return
        self._token.set()
        if first or grace <= 0:
            # `Thread.start` would wait for it, and struck meanwhile, in the thread to stop, wait for ever.
            start_new_thread(self._force, (ended, grace))

    def sender(self, send: Send | None) -> Send | None:
        """Return what hands events to `send` without being broken off in the middle."""
        if send is None:
            return None

        def deliver(events: list[Event]) -> None:
            with self._delivering:
                send(events)

        return deliver

    def end(self) -> None:
        """Wait for a stop that is being decided on, once `over` is set, and let it be raised here."""
        with self._working:
            pass
        _safe_point()
        # Only now: broken off inside an event, it would keep the event's lock.
        if self._ended is not None:
            self._ended.set()

    def _force(self, ended: threading.Event, grace: float) -> None:
        if ended.wait(max(grace, 0)):
            return
        # A sink that takes a batch is not struck, unless it takes for ever: it may hold a transaction.
        waited = self._delivering.acquire(timeout=DELIVERY_SECONDS)
        with self._working:
            if not self.over:
                self._token.strike()
                raise_in_thread(self._thread, RunCancelled)
        if waited:
            self._delivering.release()


class FreshThreads:
    """
    Threads that have done nothing yet, started ahead: to start one takes longer than many an action.

    Each serves once, so that what an action leaves in its thread is not there for the next.
    """

    def __init__(self) -> None:
        self._ready: deque[_FreshThread] = deque()

    def start(self, work: Callable[[], None], name: str) -> threading.Thread:
        """Let a thread of this name do some work."""
        try:
            thread = self._ready.popleft()
        except IndexError:
            thread = self._made()
        thread.name = name
        thread.work.put(work)
        return thread

    def have_one(self) -> None:
        """Have a thread for the next."""
        if not self._ready:
            self._ready.append(self._made())

    def _made(self) -> _FreshThread:
        thread = _FreshThread(self)
        thread.start()
        return thread


class _FreshThread(threading.Thread):
    """A thread that waits for its work, and starts the one after it."""

    def __init__(self, threads: FreshThreads) -> None:
        super().__init__(daemon=True)
        self.work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = threads

    def run(self) -> None:
        self.work.get()()
        # Nobody waits for this one any more.
        self._threads.have_one()


def start_thread(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread of this name."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


class ThreadJob:
    """
    A task in a thread of its own; `on_end` is called once `wait` would return, perhaps twice.

    A thread cannot be killed. Cancel first tells the action, through the calls it makes on its context;
    after the grace period `RunCancelled` is raised between two of its byte codes; if a call into C holds it
    even then, it is left behind, its events unheard, so that the run can end.

    `start` gives a thread for a piece of work and a name. `sending` is a lock that `run` holds whenever it
    sends: `send` is then called as it is, and hears by itself no more of an attempt that was left behind.
    """

    def __init__(
        self,
        run: Callable[[Task, Send, CancelToken], Outcome],
        task: Task,
        send: Send,
        *,
        on_end: Callable[[], None] | None = None,
        start: Callable[[Callable[[], None], str], threading.Thread] = start_thread,
        sending: threading.Lock | None = None,
    ) -> None:
        self._run = run
        self._on_end = on_end
        self._token = CancelToken()
        self._outcome: Outcome | None = None
        self._ended = threading.Event()
        self._abandoned = False
        self._over = False
        # Held while the thread is made to stop, so that this never strikes once its work is done.
        self._working = threading.Lock()
        self._delivering = sending or threading.Lock()
        self._send = send
        self._deliver = self._deliver_alone if sending is None else send
        context = copy_context()
        self._thread = start(lambda: context.run(self._work, task), f"synapse-action-{task.run_id}")

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

    def _work(self, task: Task) -> None:
        started = datetime.now(UTC)
        try:
            self._outcome = self._run(task, self._deliver, self._token)
            with self._working:
                self._over = True
        except RunCancelled:
            # The forced stop came when the action was over or not yet begun: the kernel concludes the run.
            pass
        except KeyboardInterrupt:
            # Raised by the action itself: a signal reaches the main thread alone.
            from synapse_kernel.worker import interrupted

            self._outcome = interrupted(task, started)
        finally:
            self._end()

    def _deliver_alone(self, events: list[Event]) -> None:
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
            self._end()

    def _end(self) -> None:
        self._ended.set()
        if self._on_end is not None:
            self._on_end()


def raise_in_thread(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread, by its identifier, before its next byte code."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _safe_point() -> None:
    """Let an exception that waits for this thread be raised now: it comes at the latest as a call begins."""
