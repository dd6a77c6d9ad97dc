"""A run under way, in the hands of whoever submitted it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from synapse_kernel.control import FORCE_SECONDS, Control
from synapse_kernel.events import FINAL_STATUSES, Event, State, Status
from synapse_kernel.opening import open_sinks
from synapse_kernel.runs import conduct

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
    from types import TracebackType

    from synapse_kernel.contracts import Outcome
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.preparation import Prepared


class _Feed:
    """The sink behind `Run.events`: keeps the newest events for those who come later."""

    def __init__(self, run_id: str, kept: int) -> None:
        self._run_id = run_id
        self.events: deque[Event] = deque(maxlen=kept)
        self.count = 0
        self.closed = False
        self.status: Status = "pending"
        self.changed = threading.Condition()
        self.callbacks: list[Callable[[], None]] = []

    def accept(self, events: Sequence[Event]) -> None:
        """Keep a batch and wake those who wait."""
        with self.changed:
            self.events.extend(events)
            self.count += len(events)
            for event in events:
                if isinstance(event, State) and event.run_id == self._run_id:
                    self.status = event.state
            self._notify()

    def close(self, outcome: Outcome | None) -> None:  # noqa: ARG002 - a sink's signature
        """Let those who wait end."""
        with self.changed:
            self.closed = True
            self._notify()

    def _notify(self) -> None:
        self.changed.notify_all()
        for callback in self.callbacks:
            callback()

    def after(self, position: int) -> tuple[list[Event], int]:
        """Return the kept events from a position on, and the position after them."""
        # From the end: those who listen are mostly close behind.
        newest = list(islice(reversed(self.events), self.count - position))
        return newest[::-1], self.count


class EventStream:
    """The events of a run, from the first that is still held; iterate plainly or with ``async for``."""

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[Event]:
        position = 0
        while True:
            with self._feed.changed:
                while self._feed.count == position and not self._feed.closed:
                    self._feed.changed.wait()
                events, position = self._feed.after(position)
            if not events:
                return
            yield from events

    async def __aiter__(self) -> AsyncIterator[Event]:
        import asyncio

        loop, changed, position = asyncio.get_running_loop(), asyncio.Event(), 0

        def wake() -> None:
            _later(loop, changed.set)

        with self._feed.changed:
            self._feed.callbacks.append(wake)
        try:
            while True:
                changed.clear()
                with self._feed.changed:
                    events, position = self._feed.after(position)
                    closed = self._feed.closed
                for event in events:
                    yield event
                if not events:
                    if closed:
                        return
                    await changed.wait()
        finally:
            with self._feed.changed:
                self._feed.callbacks.remove(wake)


def _later(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call back in a loop, unless it is closed: whoever awaited is gone then."""
    with contextlib.suppress(RuntimeError):  # closed in between
        loop.call_soon_threadsafe(callback)


class Run:
    """
    A handle to a run under way: `id`, `status`, `events`, `result`, `cancel`; ``await run`` is its outcome.

    `events` holds the newest 65,536 events for those who come late; sinks receive every one.
    """

    EVENTS_KEPT = 65_536

    def __init__(self, run_id: str, grace: float) -> None:
        self.id = run_id
        self._outcome: Outcome | None = None
        self._raised: BaseException | None = None
        self._done = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._feed = _Feed(self.id, self.EVENTS_KEPT)
        self._control = Control(grace)

    @classmethod
    def start(cls, kernel: Kernel, prepared: Prepared) -> Run:
        """Start what was prepared."""
        run = cls(prepared.request.run_id, kernel.settings.kernel.grace)
        opened = open_sinks(kernel, prepared)
        # First: who waits for the end of the run has its last event when the history is written.
        opened.sinks.insert(0, ("events", run._feed))
        run._begin(lambda: conduct(kernel, prepared, run._control, opened))
        return run

    @property
    def run_id(self) -> str:
        """The same as `id`, by the name that records and events have for it."""
        return self.id

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.status})"

    @property
    def status(self) -> Status:
        """The state the run is in, or its final one."""
        return self._feed.status

    @property
    def done(self) -> bool:
        """True once the run has its final state."""
        return self._done.is_set()

    def events(self) -> EventStream:
        """Return the events so far and, as they come, the rest."""
        return EventStream(self._feed)

    def result(self, timeout: float | None = None) -> Outcome:
        """
        Wait for the outcome and return it.

        Raises `TimeoutError` after `timeout` seconds, the run going on, and `HookError` if a plugin that
        wraps runs failed.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"run {self.id} is still {self.status} after {timeout:g} s")
        return self._conclude()

    def cancel(self, grace: float | None = None, *, reason: str = "cancelled") -> None:
        """Tell the run to stop, by force after `grace` seconds (default: the settings'); returns at once."""
        self._control.cancel(reason, grace)

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        """Call back, from the run's thread, when the run is over; at once if it is."""
        with self._lock:
            if not self.done:
                self._callbacks.append(lambda: callback(self))
                return
        callback(self)

    def __await__(self) -> Generator[object, None, Outcome]:
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        self.add_done_callback(lambda _: _later(loop, settle))
        yield from future.__await__()
        return self._conclude()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done:
            self.cancel()
            self._done.wait(self._control.grace + FORCE_SECONDS)

    def _conclude(self) -> Outcome:
        if self._raised is not None:
            raise self._raised
        assert self._outcome is not None
        return self._outcome

    def _begin(self, conduct: Callable[[], Outcome]) -> None:
        """See the run through in a thread of its own."""
        threading.Thread(
            target=self._drive, args=(conduct,), name=f"synapse-run-{self.id}", daemon=True
        ).start()

    def _drive(self, conduct: Callable[[], Outcome]) -> None:
        try:
            outcome = conduct()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the outcome is asked for
            if self._feed.status not in FINAL_STATUSES:
                self._feed.status = "failed"
            # A run that never started, its sinks not to be opened, has no channel that would do it.
            self._feed.close(None)
            self._settle(raised=error)
        else:
            self._settle(outcome)

    def _settle(self, outcome: Outcome | None = None, *, raised: BaseException | None = None) -> None:
        """Be done, once, and call back those who wait for it."""
        with self._lock:
            if self.done:
                return
            self._outcome, self._raised = outcome, raised
            self._done.set()
            callbacks = self._callbacks
        for callback in callbacks:
            try:
                callback()
            except Exception:  # the others must still be called
                import logging

                logging.getLogger("synapse_kernel").exception("a done callback of run %s failed", self.id)
