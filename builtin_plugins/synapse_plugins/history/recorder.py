"""
The sink `history`: records each run in the kernel's store while it goes on.

A run is in the store before it starts, and its outcome before anything that waits for it goes on. In between
its events are written about ten times a second, or sooner when there are many.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from synapse_kernel.errors import UsageError
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.opening import has_record, working_folder
from synapse_kernel.stores import RunNotFoundError, RunRecord, RunStore, end_of
from synapse_plugins.history.surroundings import commit_of, environment_id, environment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.contracts import JsonObject, Outcome, RunInfo
    from synapse_kernel.events import Event
    from synapse_kernel.kernel import Kernel

T = TypeVar("T")

FLUSH_SECONDS = 0.1
POLL_SECONDS = 0.5
"""How often it is looked whether another process asked a run of this one to stop."""
HEARTBEAT_SECONDS = 10.0
# So many are written by the thread that brings them: memory stays bounded, and one transaction is amortised.
BATCH = 1024
SLICE = 10_000
"""At most so many are written by one call of the store."""
KEPT = 100_000
"""So many are kept while the store cannot be written, before the run goes on unrecorded."""
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0


class Recorder:
    """
    Records one run. Its children's events, which come too, are left to their own recorders.

    Raises `StoreError` if the run cannot be recorded when it starts. While it goes on, what cannot be written
    is kept, and tried again by the heart, at last when the run ends: the run itself does not wait for it.
    """

    def __init__(self, run: RunInfo, argument: str | None) -> None:
        kernel = run.kernel
        if kernel is None or (store := kernel.store) is None:
            raise UsageError(
                "The sink 'history' records in the kernel's run store; the setting store names none"
            )
        if argument is not None:
            raise UsageError(f"The sink 'history' takes no argument, got {argument!r}")
        self._run_id = run.run_id
        self._store = store
        self._secrets = run.secrets
        self._waiting: list[Event] = []
        self._armed = False
        self._lock = threading.Lock()
        """Guards what waits, and is never held while the store is called."""
        self._writing = threading.Lock()
        """Held by whoever writes; taken before `_lock`."""
        self._failure: Exception | None = None
        """Why the last write failed, if it did."""
        self._told = False
        self.retry_seconds = 0.0
        """How long to wait before the next try."""
        self._owner = kernel.owner
        if not has_record(run):
            store.start(_record(run, store, lasting=kernel.is_lasting(run.executor)), kernel.owner)
        self._heart = _heart_of(kernel, store)
        self._heart.begin(self._run_id)

    def accept(self, events: Sequence[Event]) -> None:
        """Take a batch; raises what the store raised once too many wait for it."""
        own = [event for event in events if event.run_id == self._run_id]
        if not own:
            return
        with self._lock:
            self._waiting += own
            count, to_arm = len(self._waiting), not self._armed
            self._armed = True
        if to_arm:
            self._heart.arm(self)
        failure = self._failure
        if failure is not None:
            # The heart tries again: whoever speaks must not wait for a store that is away.
            if count > KEPT:
                raise failure
        elif count >= BATCH and self._writing.acquire(blocking=count > KEPT):
            try:
                self._write(count)
            finally:
                self._writing.release()

    def flush(self) -> bool:
        """Write what is waiting; False if it cannot be written, and waits on."""
        with self._writing:
            written = self._write(len(self._waiting))
            with self._lock:
                self._armed = bool(self._waiting)
                to_arm = self._armed and written
        if to_arm:
            # Said while the rest was written.
            self._heart.arm(self)
        return written

    def close(self, outcome: Outcome) -> None:
        """
        Write what is waiting and the outcome, together.

        With one that is not final the run goes on elsewhere: this process gives it up.
        """
        if outcome.status not in FINAL_STATUSES:
            self._give_up()
            return
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            written = False
            try:
                while len(waiting) > SLICE:
                    self._store.append(self._run_id, waiting[:SLICE])
                    del waiting[:SLICE]
                self._store.finish(end_of(outcome, self._secrets), waiting)
                written = True
            finally:
                self._heart.end(self._run_id, recorded=written)

    def _give_up(self) -> None:
        with self._writing:
            self._write(len(self._waiting))
            with self._lock:
                # Not later: who attaches next is told again of what could not be written.
                self._waiting = []
            self._store.release(self._run_id, self._owner)

    def _write(self, count: int) -> bool:
        """Write the first events that wait, `count` or more; False if they cannot be written."""
        while count > 0:
            with self._lock:
                events = self._waiting[:SLICE]
            if not events:
                break
            try:
                self._store.append(self._run_id, events)
            except Exception as error:  # noqa: BLE001 - of whichever store: the run goes on
                self._fail(error)
                return False
            with self._lock:
                del self._waiting[: len(events)]
            count -= len(events)
        self._failure, self.retry_seconds = None, 0.0
        return True

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self.retry_seconds = min(max(self.retry_seconds * 2, FIRST_RETRY_SECONDS), LAST_RETRY_SECONDS)
        if not self._told:
            self._told = True
            _warn(
                f"The history of run {self._run_id} waits, it cannot be written now: "
                f"{type(error).__name__}: {error}"
            )


class Heart:
    """
    One thread for a kernel that records: writes what waits, says that it lives, hears who is to stop.

    While no run is under way it leaves the store alone.
    """

    def __init__(self, kernel: Kernel, store: RunStore) -> None:
        self._kernel = ref(kernel)
        self._owner = kernel.owner
        self._store = store
        self._armed: deque[Recorder] = deque()
        self._late: list[tuple[float, Recorder]] = []
        """Those whose store could not be written, and when to try again."""
        self._asked: list[tuple[str, str]] = []
        """Runs that are to stop, with the reason, and were not told yet."""
        self._unrecorded: set[str] = set()
        """Runs that are over, although the store could not be told."""
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="synapse-history", daemon=True)
        self._thread.start()

    def arm(self, recorder: Recorder) -> None:
        """Write what waits in this recorder at the next beat."""
        self._armed.append(recorder)
        if not self._wake.is_set():
            self._wake.set()

    def begin(self, run_id: str) -> None:
        """Know that a run begins, or goes on."""
        self._unrecorded.discard(run_id)

    def end(self, run_id: str, *, recorded: bool) -> None:
        """Know that a run is over; its record says so only if it could be written."""
        if not recorded:
            self._unrecorded.add(run_id)

    def close(self) -> None:
        """End the thread, and say that the process has no runs any more."""
        self._closed.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
        self._store.forget(self._owner)

    def _beat(self) -> None:
        poll_at, beat_at = monotonic() + POLL_SECONDS, monotonic() + HEARTBEAT_SECONDS
        while not self._closed.is_set():
            woken = self._wake.wait(max(0.0, min(poll_at, beat_at) - monotonic()))
            if woken:
                self._wake.clear()
                if self._closed.wait(FLUSH_SECONDS):
                    return
                self._guarded(self._flush)
            now = monotonic()
            if now >= poll_at:
                self._guarded(self._hear)
                poll_at = now + POLL_SECONDS
                self._retry()
            if now >= beat_at:
                self._guarded(self._live)
                beat_at = now + HEARTBEAT_SECONDS

    def _flush(self) -> None:
        for _ in range(len(self._armed)):
            recorder = self._armed.popleft()
            # Of several that fail, each: what one raises must not keep another from being tried again.
            if not self._guarded(recorder.flush):
                self._late.append((monotonic() + recorder.retry_seconds, recorder))

    def _retry(self) -> None:
        now, late = monotonic(), self._late
        self._late = [(due, recorder) for due, recorder in late if due > now]
        for due, recorder in late:
            if due <= now:
                self.arm(recorder)

    def _live(self) -> None:
        kernel = self._kernel()
        if kernel is not None and (kernel.live_runs or kernel.attached_runs):
            self._store.heartbeat(self._owner)

    def _hear(self) -> None:
        kernel = self._kernel()
        if kernel is None:
            self._closed.set()
            return
        if not kernel.live_runs and not kernel.attached_runs:
            return
        # Kept until each was told: the store says it once.
        self._asked += self._store.cancel_requests(self._owner)
        self._asked = [
            (run_id, reason) for run_id, reason in self._asked if not kernel.cancel(run_id, reason)
        ]
        while self._asked:
            run_id, reason = self._asked[0]
            if run_id not in self._unrecorded:
                # It is recorded and about to begin: the store says it again at the next beat, or drops it if
                # the run has ended.
                with contextlib.suppress(RunNotFoundError):
                    self._store.request_cancel(run_id, reason)
            del self._asked[0]

    def _guarded(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the next beat may succeed, and runs must be heard
            _warn(f"The history: {type(error).__name__}: {error}")
            return None


def _warn(text: str) -> None:
    import logging

    logging.getLogger("synapse_kernel").warning(text)


_hearts: WeakKeyDictionary[Kernel, Heart] = WeakKeyDictionary()
_hearts_lock = threading.Lock()


def _heart_of(kernel: Kernel, store: RunStore) -> Heart:
    with _hearts_lock:
        found = _hearts.get(kernel)
        if found is None:
            found = _hearts[kernel] = Heart(kernel, store)
        return found


def stop(kernel: Kernel) -> None:
    """End what records for a kernel that shuts down."""
    with _hearts_lock:
        heart = _hearts.pop(kernel, None)
    if heart is not None:
        heart.close()


def _after_fork() -> None:
    """
    Begin anew in a forked process: the threads of the hearts did not come along.

    The hearts are its parent's, and so are the owners that they speak for. The lock may have been held.
    """
    global _hearts, _hearts_lock
    _hearts, _hearts_lock = WeakKeyDictionary(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _record(run: RunInfo, store: RunStore, *, lasting: bool) -> RunRecord:
    environment = environment_id()
    if (store.url, environment) not in _known_environments:
        if not store.has_environment(environment):
            store.put_environment(environment_of(environment))
        _known_environments.add((store.url, environment))
    here = working_folder()
    return RunRecord(
        run_id=run.run_id,
        action=run.action,
        target=run.target,
        created=run.started,
        kind=run.kind,
        executor=run.executor,
        lasting=lasting,
        params=_plain(run.params),
        masked=list(run.masked),
        resources=run.resources,
        timeout=run.timeout,
        retries=run.retries,
        env_names=list(run.env_names),
        parent=run.parent,
        root=run.root or run.run_id,
        node=run.node,
        tags=list(run.tags),
        job_id=run.job_id,
        cwd=here,
        work_dir=run.work_dir,
        commit=commit_of(run.folder or here),
        environment=environment,
        definition=run.definition,
        cached_from=run.cached_from,
    )


def _plain(params: JsonObject) -> JsonObject:
    """Return params as JSON-like data: in process they may hold any object, which is told by its repr."""
    if not params:
        return params
    from synapse_kernel.serialization import to_jsonable

    return cast("JsonObject", to_jsonable(params))


_known_environments: set[tuple[str, str]] = set()
