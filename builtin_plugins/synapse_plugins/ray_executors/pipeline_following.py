"""Pipelines that a coordinator conducts, as other processes see them: by what is in its store."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.detaching import crashed, record_crash
from synapse_kernel.emitter import Channel
from synapse_kernel.errors import SynapseError
from synapse_kernel.event_text import NODE_EVENTS
from synapse_kernel.events import Log
from synapse_kernel.handles import Run
from synapse_kernel.opening import RECORDER, info_of
from synapse_kernel.owners import this_process
from synapse_kernel.stores import RunBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.contracts import Send
    from synapse_kernel.events import Event
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import RunRecord, RunStore, StoredEvent

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_PAGE = 10_000


class Reach(Protocol):
    """The way to a coordinator."""

    def is_there(self, run_id: str) -> bool:
        """Tell whether a run has a coordinator, be it one that is being started anew."""

    def cancel(self, run_id: str, reason: str, grace: float | None) -> bool:
        """Tell a run to stop; False if there is no coordinator."""


class CoordinatedJob:
    """
    Follows one run in its coordinator's store; what it says is read by whoever waits.

    Where the coordinator is gone for good, the run is recorded as crashed there, unless `records` is false:
    then that is for who follows it.
    """

    def __init__(
        self, store: RunStore, run_id: str, after: int, send: Send, reach: Reach, *, records: bool = True
    ) -> None:
        self.reason = "cancelled"
        self._store = store
        self._run_id = run_id
        self._after = after
        self._send = send
        self._reach = reach
        self._records = records
        self._position = 0
        self._known = {run_id}
        self._early: list[Event] = []
        self._outcome: Outcome | None = None
        self._closed = threading.Event()
        self._look_at = monotonic() + _LOOK_SECONDS
        self._reading = threading.Lock()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Return the outcome; None after `timeout` seconds, or once it is closed."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.over:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            if self._reading.acquire(timeout=-1 if left is None else left):
                try:
                    if self._outcome is None:
                        self._step()
                finally:
                    self._reading.release()
                if self._outcome is None:
                    self._closed.wait(_POLL_SECONDS)
        return self._outcome

    def cancel(self, grace: float) -> None:
        """Tell the run to stop; returns at once."""
        threading.Thread(target=self._cancel, args=(grace,), name="synapse-cancel", daemon=True).start()

    @property
    def over(self) -> bool:
        """True once there is an outcome, or it is followed no more."""
        return self._outcome is not None or self._closed.is_set()

    def close(self) -> None:
        """Follow it no more."""
        self._closed.set()

    def _cancel(self, grace: float) -> None:
        if not self._reach.cancel(self._run_id, self.reason, grace):
            # Its process is being started anew, and looks there.
            self._store.request_cancel(self._run_id, self.reason)

    def _step(self) -> None:
        # Asked before the events are read: those of a run that has ended are all there.
        outcome = self._ended()
        self._hand_on()
        if outcome is not None:
            if self._early:
                self._send(self._early)
            self._outcome = outcome
        elif monotonic() > self._look_at:
            if not self._reach.is_there(self._run_id):
                self._lost()
            self._look_at = monotonic() + _LOOK_SECONDS

    def _ended(self) -> Outcome | None:
        found = self._store.outcome(self._run_id)
        return None if found is None else msgspec.convert(found, Outcome)

    def _lost(self) -> None:
        """Conclude a run that nobody conducts any more."""
        if self._ended() is not None:
            # The next step reads it.
            return
        error = ErrorInfo(
            type="CoordinatorLost",
            message=(
                "its coordinator is not in the cluster any more\n"
                f"  go on with it: synapse-kernel pipeline run TARGET --on ray --resume {self._run_id}"
            ),
            kind="crash",
        )
        record = self._store.get(self._run_id)
        if record is None:
            raise SynapseError(f"Run {self._run_id} was deleted from {self._store.url}")
        if self._records:
            self._store.reap()
            try:
                self._store.adopt(self._run_id, this_process())
            except RunBusyError:
                # Another process went on with it, or does this at the same time.
                return
            self._outcome = record_crash(self._store, self._run_id, error)
            self._hand_on()
            return
        self._outcome = crashed(record, error)

    def _hand_on(self) -> None:
        while True:
            page = self._store.events(self._run_id, after=self._position, descendants=True, limit=_PAGE)
            if page:
                self._position = page[-1].position
                events = self._fresh(page)
                # By time: each run writes in its own rhythm.
                events = self._introduced(sorted([*self._early, *events], key=lambda event: event.time))
                if events:
                    self._send(events)
            if len(page) < _PAGE:
                return

    def _fresh(self, page: Sequence[StoredEvent]) -> list[Event]:
        """Leave out what was told up to the number where this began."""
        events = [stored.event for stored in page]
        if not self._after:
            return events
        for at, event in enumerate(events):
            if event.run_id == self._run_id and event.seq > self._after:
                self._after = 0
                return events[at:]
        return []

    def _introduced(self, events: list[Event]) -> list[Event]:
        """Keep back what a node's run says of which the pipeline has not said yet that it starts."""
        now: list[Event] = []
        early: list[Event] = []
        for event in events:
            if isinstance(event, Log) and event.event in NODE_EVENTS:
                self._known.add(str(event.data.get("run")))
        for event in events:
            (now if event.run_id in self._known else early).append(event)
        self._early = early
        return now


class FollowedRun(Run):
    """A handle to a run that a coordinator conducts and records itself; nothing is recorded here."""

    def __init__(
        self,
        kernel: Kernel,
        record: RunRecord,
        follow: Callable[[Send], CoordinatedJob],
        sinks: Sequence[object] | None,
    ) -> None:
        super().__init__(record.run_id, kernel.settings.kernel.grace)
        asked = sinks if sinks is not None else kernel.settings.kernel.sinks or ()
        wanted = [sink for sink in asked if sink not in ("none", RECORDER)]
        opened = [("events", self._feed), *kernel.open_sinks(wanted, info_of(kernel, record))]
        self._channel = Channel(record.run_id, record.action, opened)
        self._job = follow(self._channel.forward)
        self._begin(self._see_through)

    def cancel(self, grace: float | None = None, *, reason: str = "cancelled") -> None:
        """Tell the run to stop, by force after `grace` seconds (default: the settings'); returns at once."""
        self._job.reason = reason
        super().cancel(grace, reason=reason)

    def close(self) -> None:
        """Follow the run no more; it goes on."""
        self._job.close()

    def _see_through(self) -> Outcome:
        try:
            self._control.attach(self._job)
            outcome = self._job.wait()
        except BaseException:
            self._feed.close(None)
            raise
        finally:
            self._control.attach(None)
        if outcome is None:
            self._feed.close(None)
            raise SynapseError(
                f"Run {self.id} is followed no more, and goes on elsewhere\n"
                f"  watch it with: synapse-kernel runs watch {self.id}"
            )
        self._channel.close(outcome)
        return outcome
