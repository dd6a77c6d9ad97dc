"""A job of a Ray cluster as its client sees it: its log read, its events delivered, its end told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.events import Event, State, decode_events
from synapse_kernel.serialization import decode_struct
from synapse_kernel.worker import cancelled
from synapse_plugins.ray_executors.connection import ClusterError
from synapse_plugins.ray_executors.environments import installer_lines
from synapse_plugins.ray_executors.job_wire import EVENTS, KEPT, FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.contracts import Send
    from synapse_kernel.events import Status
    from synapse_plugins.ray_executors.job_api import JobsApi, JobState

# Characters of a log that are read again and again, which shows what is new at once. A longer one is tailed,
# which Ray does two seconds late.
SMALL = 1 << 16
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_STATE_SECONDS = 1.0
# How long the log of a job that has ended is asked for, where its node does not answer.
_LOG_SECONDS = 10.0
# Beyond the grace period, in which the far side must have stopped the action by force and said so.
_FORCE_SECONDS = 6.0
# A job that has not begun has nobody to tell how it ended.
_PENDING_SECONDS = 1.0
# How long the end of a process waits for a request to stop to be taken.
_TELL_SECONDS = 5.0
_AGAIN_SECONDS = 0.2


class ClusterLostError(ClusterError):
    """A cluster that has not answered for too long: what is known of its jobs is that they may go on."""


class JobKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which job is followed: of which attempt it is, and what its frames begin with."""

    job_id: str
    run_id: str
    action: str
    attempt: int
    word: str


class RayJob:
    """
    A job that a thread follows until it has ended, its client gives up, or the cluster is gone for good.

    Events of the run with a number of `after` or less are not delivered. One that is `mirrored` is another
    process's, or its own: its outcome comes without the run's secrets, and losing sight of it is no outcome.
    """

    def __init__(
        self,
        api: JobsApi,
        key: JobKey,
        send: Send,
        after: int,
        on_end: Callable[[RayJob], None],
        *,
        mirrored: bool = False,
    ) -> None:
        self._api = api
        self._key = key
        self._send = send
        self._after = after
        self._on_end = on_end
        self._mirrored = mirrored
        self._since = datetime.now(UTC)
        self._outcome: Outcome | None = None
        self._kept: Outcome | None = None
        self._lost: Exception | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._telling = threading.Thread(target=self._stop, name="synapse-cancel", daemon=True)
        self._patience = 0.0
        self._state: JobState | None = None
        self._looked_at = -_STATE_SECONDS
        self._heard_at = monotonic()
        self._ended_at: float | None = None
        self._reader = FrameReader(key.word)
        self._read = 0
        # Frames of the log, whichever time it is read.
        self._seen = 0
        self._known = 0
        self._thread = threading.Thread(target=self._follow, name=f"synapse-{key.job_id}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """
        Wait for the outcome; None after `timeout` seconds, or once the executor was shut down.

        Raises `ClusterLostError` for a mirrored job that was lost sight of.
        """
        self._ended.wait(timeout)
        if self._lost is not None:
            raise self._lost
        return self._outcome

    def wait_started(self) -> None:
        """Return once the action has begun, or the job has ended without."""
        self._begun.wait()

    def cancel(self, grace: float) -> None:
        """
        Tell the job to stop, which gives the action the grace period of the settings it was submitted with.

        After `grace` seconds and some more this end waits no longer, unless the job is mirrored.
        """
        with self._lock:
            first = self._told_at is None
            self._told_at, self._patience = monotonic(), max(grace, 0) + _FORCE_SECONDS
            if first:
                self._telling.start()

    def close(self) -> None:
        """Stop following; the job goes on, but what was to be told it is told when this returns."""
        self._closed = True
        self._wake.set()
        with self._lock:
            was_told = self._told_at is not None
        if was_told:
            self._telling.join(_TELL_SECONDS)

    def _stop(self) -> None:
        end = monotonic() + self._patience
        while monotonic() < end:
            # A cluster that does not answer is told by the thread that follows.
            with contextlib.suppress(ClusterError):
                if self._api.stop(self._key.job_id):
                    break
                # Ray stops no job whose process it is about to make.
                state = self._api.state(self._key.job_id)
                if state is None or state.ended:
                    break
            sleep(_AGAIN_SECONDS)
        self._wake.set()

    def _follow(self) -> None:
        try:
            self._outcome = self._outcome_or_none()
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must not wait for ever
            if self._mirrored:
                self._lost = error
            else:
                kind = "ClusterLost" if isinstance(error, ClusterLostError) else type(error).__name__
                self._outcome = self._failed(ErrorInfo(type=kind, message=str(error), kind="executor"))
        finally:
            self._on_end(self)
            self._begun.set()
            self._ended.set()

    def _outcome_or_none(self) -> Outcome | None:
        pause = _SHORTEST_PAUSE
        while not self._closed:
            seen = self._seen
            try:
                outcome = self._read_on()
            except (ClusterError, aiohttp.ClientError, RuntimeError, OSError) as error:
                outcome = self._out_of_reach(error)
            if outcome is None and self._is_overdue():
                outcome = self._cancelled("its job did not say how it ended")
            if outcome is not None:
                return outcome
            pause = _SHORTEST_PAUSE if self._seen > seen else min(pause * 1.25, _LONGEST_PAUSE)
            if self._wake.wait(pause):
                self._wake.clear()
                pause = _SHORTEST_PAUSE
        return None

    def _read_on(self) -> Outcome | None:
        """Read what is new of the job; returns its outcome once that is known."""
        if self._ended_at is not None or monotonic() - self._looked_at >= self._look_seconds:
            self._look()
        state = self._state
        if state is None:
            return self._failed(_lost(self._key.job_id))
        # Read after the state: what the log of an ended job holds is all there is.
        if self._read > SMALL:
            asyncio.run(self._tail())
            # What ended the tail is known at the next look: only then was all of it read.
            if self._outcome is None and not state.ended:
                self._look()
        elif state.status != "PENDING":
            self._take_log()
        if self._outcome is None and state.ended:
            return self._without_outcome(state)
        return self._outcome

    def _out_of_reach(self, error: Exception) -> Outcome | None:
        """Return how the run ended for us where that is known; raises once nothing was heard for too long."""
        if self._outcome is not None:
            return self._outcome
        if self._state is not None and self._ended_at is not None:
            # Its log was on a node that is gone.
            late = monotonic() - self._ended_at > _LOG_SECONDS
            return self._without_outcome(self._state) if late else None
        if monotonic() - self._heard_at <= self._api.timeout:
            return None
        raise ClusterLostError(
            f"{error}\n  the job {self._key.job_id} may go on there", address=self._api.url
        ) from None

    def _is_overdue(self) -> bool:
        if self._told_at is None:
            return False
        late = monotonic() - self._told_at
        if self._state is not None and self._state.status == "PENDING" and not self._telling.is_alive():
            # Ray kills it before it begins.
            return late > _PENDING_SECONDS
        # What goes on elsewhere is not said to have ended before it has; Ray ends it by force.
        return not self._mirrored and late > self._patience

    @property
    def _look_seconds(self) -> float:
        return 0.0 if self._state is None or self._state.status == "PENDING" else _STATE_SECONDS

    def _look(self) -> None:
        """Ask where the job stands."""
        self._state = self._api.state(self._key.job_id)
        self._looked_at = self._heard_at = monotonic()
        if self._ended_at is None and self._state is not None and self._state.ended:
            self._ended_at = monotonic()

    def _take_log(self) -> None:
        text = self._api.log(self._key.job_id)
        piece, self._read = text[self._read :], max(len(text), self._read)
        self._take(piece)

    async def _tail(self) -> None:
        """Read the log as it grows, until the job has ended or nobody wants to know."""
        self._reader, self._known = FrameReader(self._key.word), 0
        reading = asyncio.create_task(self._take_tail())
        try:
            while not self._closed and not self._is_overdue():
                done, _ = await asyncio.wait({reading}, timeout=_STATE_SECONDS)
                if done:
                    return await reading
                # A machine that vanished closes no connection: this raises, in time.
                await asyncio.to_thread(self._look)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _take_tail(self) -> None:
        async for piece in self._api.tail(self._key.job_id):
            # A sink may be slow; the connection is not to be lost over it.
            await asyncio.to_thread(self._take, piece)
            if self._outcome is not None:
                return

    def _take(self, piece: str) -> None:
        for frame in self._reader.feed(piece):
            self._known += 1
            if self._known <= self._seen:
                continue
            self._seen = self._known
            if frame.kind == EVENTS:
                self._deliver(decode_events(frame.data.encode()))
            elif frame.kind == KEPT:
                self._kept = decode_struct(frame.data.encode(), Outcome)
            elif self._mirrored and self._kept is not None:
                self._outcome = self._kept
            else:
                self._outcome = decode_struct(frame.data.encode(), Outcome)

    def _deliver(self, events: list[Event]) -> None:
        run_id = self._key.run_id
        new = [event for event in events if event.run_id != run_id or event.seq > self._after]
        if new:
            self._send(new)
        if any(isinstance(event, State) and event.state == "running" for event in events):
            self._begun.set()

    def _without_outcome(self, state: JobState) -> Outcome:
        """Conclude a job that ended and did not say how."""
        self._reader.finish()
        if state.status == "STOPPED" or self._told_at is not None:
            return self._cancelled("its job was stopped")
        output = "\n".join(self._reader.plain)
        if state.error_type == "RUNTIME_ENV_SETUP_FAILURE":
            text = "the run's environment could not be set up on the cluster"
            error = ErrorInfo(
                type="RuntimeEnvFailed", message=text, kind="executor", output=installer_lines(state.message)
            )
        elif state.error_type.startswith("JOB_SUPERVISOR") and not self._begun.is_set():
            error = ErrorInfo(
                type="JobNotStarted", message=_first(state.message), kind="executor", output=state.message
            )
        elif state.status == "SUCCEEDED":
            text = "the run succeeded, but the job's log, which has its result, is lost"
            error = ErrorInfo(type="ResultLost", message=text, kind="executor")
        elif state.exit_code is not None:
            text = f"the job's process exited with code {state.exit_code} before it told an outcome"
            error = ErrorInfo(type="JobCrashed", message=text, kind="crash", output=output)
        else:
            error = ErrorInfo(type="JobCrashed", message=_first(state.message), kind="crash", output=output)
        return self._failed(error)

    def _cancelled(self, why: str) -> Outcome:
        return self._concluded("cancelled", cancelled(f"cancelled: {why}"))

    def _failed(self, error: ErrorInfo) -> Outcome:
        return self._concluded("failed", error)

    def _concluded(self, status: Status, error: ErrorInfo) -> Outcome:
        return Outcome(
            run_id=self._key.run_id,
            status=status,
            action=self._key.action,
            started=self._since,
            finished=datetime.now(UTC),
            error=error,
            attempts=self._key.attempt,
        )


def _lost(job_id: str) -> ErrorInfo:
    text = f"the Ray cluster knows no job {job_id} any more: its head was started anew"
    return ErrorInfo(type="JobLost", message=text, kind="executor")


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]
