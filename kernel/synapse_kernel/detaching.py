"""
Runs that outlive the process that starts them: `Kernel.detach` begins one, `Kernel.attach` sees it through.

Such a run conducts itself elsewhere. While no process looks after it, its record here has no owner. Who
attaches adopts the record, and what the run said meanwhile reaches the sinks under the numbers it has there.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.control import FORCE_SECONDS
from synapse_kernel.emitter import Channel
from synapse_kernel.errors import SynapseError, UsageError, listing
from synapse_kernel.events import FINAL_STATUSES, Event, State, Status
from synapse_kernel.handles import Run
from synapse_kernel.lasting import LastingExecutor, Order
from synapse_kernel.opening import RECORDER, Opened, open_sinks, reopen_sinks, store_of
from synapse_kernel.preparation import prepare
from synapse_kernel.redaction import Redactor
from synapse_kernel.specs import ExecutorSpec
from synapse_kernel.stores import RunBusyError, RunNotFoundError, end_of
from synapse_kernel.worker import cancelled, describe_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import LastingJob
    from synapse_kernel.preparation import Prepared, RunOptions
    from synapse_kernel.stores import RunRecord, RunStore, StoredEvent


def detach(kernel: Kernel, target: object, action: str | None, params: object, options: RunOptions) -> str:
    """Start a run that goes on without this process, and return its id; see `Kernel.detach`."""
    if kernel.closed:
        raise UsageError("The kernel was shut down: it starts no run any more")
    place = options.place
    if place.parent is not None or place.resume or place.known is not None:
        raise UsageError(
            "A detached run stands alone: its RunPlace takes no parent, no resume and no known result"
        )
    prepared = prepare(kernel, target, action, params, options)
    executor = _lasting_executor(kernel, prepared)
    opened = open_sinks(kernel, prepared)
    run_id, name = prepared.request.run_id, prepared.request.action.name
    channel = Channel(run_id, name, opened.sinks)
    started = datetime.now(UTC)
    try:
        executor.launch(_order(kernel, prepared, opened))
    except Exception as error:
        _refused(channel, prepared, opened, started, error)
        raise
    except BaseException:
        # Broken off: it may have been accepted all the same. Who attaches finds out.
        channel.close(_under_way(run_id, name, started))
        raise
    channel.close(_under_way(run_id, name, started))
    return run_id


def attach(kernel: Kernel, run_id: str, sinks: Sequence[object] | None) -> AttachedRun:
    """Look after a run that goes on elsewhere, and return its handle; see `Kernel.attach`."""
    if kernel.closed:
        raise UsageError("The kernel was shut down: it attaches to no run any more")
    store = store_of(kernel)
    record = store.get(run_id)
    if record is None:
        raise RunNotFoundError(run_id, url=store.url)
    if store.outcome(run_id) is not None:
        raise UsageError(
            f"Run {run_id} has ended: {record.status.replace('_', ' ')}\n"
            f"  see it with: synapse-kernel runs show {run_id}"
        )
    if run_id in kernel.live_runs or run_id in kernel.attached_runs:
        raise RunBusyError(run_id, kernel.owner)
    if not record.lasting:
        raise UsageError(
            f"Run {run_id} is on the executor {record.executor!r}, whose runs end with their process: "
            "there is nothing to attach to\n"
            f"  see what it says with: synapse-kernel runs watch {run_id}"
        )
    executor = kernel.executor(record.executor)
    if not isinstance(executor, LastingExecutor):
        raise _not_lasting(kernel, record.executor)
    record = store.adopt(run_id, kernel.owner)
    mirror = Mirror(record, _last_state(store.events(run_id, kinds=("state",)), record))
    job: LastingJob | None = None
    try:
        job = executor.attach(run_id, record.attempt, record.last_seq, mirror.take)
        return AttachedRun(kernel, record, mirror, job, sinks)
    except BaseException:
        mirror.end()
        if job is not None:
            job.close()
        store.release(run_id, kernel.owner)
        raise


def crashed(record: RunRecord, error: ErrorInfo) -> Outcome:
    """Make the outcome of a recorded run that goes on nowhere."""
    return Outcome(
        run_id=record.run_id,
        status="crashed",
        action=record.action,
        started=record.started or record.created,
        finished=datetime.now(UTC),
        error=error,
        attempts=record.attempt,
    )


def record_crash(store: RunStore, run_id: str, error: ErrorInfo) -> Outcome:
    """Record as crashed a run that this process adopted and that goes on nowhere; returns its outcome."""
    record = store.get(run_id)
    if record is None:
        raise RunNotFoundError(run_id, url=store.url)
    outcome = crashed(record, error)
    last = _last_state(store.events(run_id, kinds=("state",)), record)
    told: list[Event] = []
    if last is None or last.state not in FINAL_STATUSES:
        detail = f"{error.type}: {error.message}"
        told = [
            State(
                run_id,
                record.last_seq + 1,
                outcome.finished.timestamp(),
                record.action,
                None,
                "crashed",
                record.attempt,
                detail,
            )
        ]
    store.finish(end_of(outcome), told)
    return outcome


class Mirror:
    """
    Hands on what a run says elsewhere, as it is numbered there, each event once.

    What comes before the sinks are open waits for them.
    """

    def __init__(self, record: RunRecord, last: State | None) -> None:
        self._run_id = record.run_id
        self._lock = threading.Lock()
        self._early: list[Event] = []
        self._channel: Channel | None = None
        self._ended = False
        self._last = last
        self.attempt = record.attempt

    @property
    def status(self) -> Status | None:
        """The last state that was heard, None if there was none."""
        return None if self._last is None else self._last.state

    def take(self, events: list[Event]) -> None:
        """Take a batch."""
        with self._lock:
            if self._ended:
                return
            if self._channel is None:
                self._early += events
            else:
                self._hand_out(self._channel, events)

    def open(self, channel: Channel) -> None:
        """Hand on what has come, and from now on what comes."""
        with self._lock:
            self._channel = channel
            self._hand_out(channel, self._early)
            self._early = []

    def end(self) -> bool:
        """Hand on nothing more; False if it had ended already."""
        with self._lock:
            ended, self._ended = self._ended, True
        return not ended

    def _hand_out(self, channel: Channel, events: list[Event]) -> None:
        fresh: list[Event] = []
        for event in events:
            if event.run_id == self._run_id:
                if event.seq <= channel.seq:
                    continue
                channel.seq = event.seq
                if isinstance(event, State):
                    self._last = event
                    self.attempt = max(self.attempt, event.attempt)
            fresh.append(event)
        if fresh:
            channel.forward(fresh)


class AttachedRun(Run):
    """
    A handle to a run that goes on elsewhere and that this process looks after, until it ends.

    `release` gives it up: it goes on, and any process may attach to it. Leaving a ``with`` block does so too.
    """

    def __init__(
        self,
        kernel: Kernel,
        record: RunRecord,
        mirror: Mirror,
        job: LastingJob,
        sinks: Sequence[object] | None,
    ) -> None:
        super().__init__(record.run_id, kernel.settings.kernel.grace)
        self._kernel = kernel
        self._record = record
        self._mirror = mirror
        self._job = job
        self._feed.status = record.status
        opened = reopen_sinks(kernel, record, sinks)
        opened.sinks.insert(0, ("events", self._feed))
        self._channel = Channel(record.run_id, record.action, opened.sinks, record.last_seq)
        mirror.open(self._channel)
        kernel.attached_runs[record.run_id] = self
        self._begin(self._see_through)

    def release(self) -> None:
        """Give the run up: it goes on without this process. Nothing where it has ended, or was given up."""
        self._give_up(None)

    def _give_up(self, why: BaseException | None) -> None:
        if not self._mirror.end():
            # It is being concluded: its end must be in the history before the store is closed.
            self._done.wait(FORCE_SECONDS)
            return
        record = self._record
        self._channel.close(
            _under_way(record.run_id, record.action, record.started or record.created, self._mirror)
        )
        self._kernel.attached_runs.pop(record.run_id, None)
        self._settle(raised=why or _given_up(record.run_id))
        self._job.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _see_through(self) -> Outcome:
        try:
            self._control.attach(self._job)
            outcome = self._job.wait()
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self._control.attach(None)
        if outcome is None:
            lost = _given_up(self.id, "was lost sight of, and may go on elsewhere")
            self._give_up(lost)
            raise lost
        if not self._mirror.end():
            raise _given_up(self.id)
        return self._conclude_with(outcome)

    def _conclude_with(self, outcome: Outcome) -> Outcome:
        """Tell the sinks how the run ended, once, and return its outcome."""
        error, token = outcome.error, self._control.token
        if outcome.status == "cancelled" and token.is_set:
            error = cancelled(token.told)
        # The history takes no end of an earlier attempt than it has heard of.
        outcome = msgspec.structs.replace(
            outcome, error=error, attempts=max(outcome.attempts, self._mirror.attempt)
        )
        if self._mirror.status not in FINAL_STATUSES:
            detail = None if error is None else f"{error.type}: {error.message}"
            self._channel.state(outcome.status, outcome.attempts, detail)
        self._channel.close(outcome)
        if (unrecorded := self._channel.failed(RECORDER)) is not None:
            outcome.__dict__["unrecorded"] = unrecorded
        self._kernel.attached_runs.pop(self.id, None)
        return outcome


def _lasting_executor(kernel: Kernel, prepared: Prepared) -> LastingExecutor:
    """Return the executor of a run that is to be detached; raises `UsageError` for one that cannot last."""
    name, executor = prepared.executor_name, prepared.executor
    if kernel.is_lasting(name) and isinstance(executor, LastingExecutor):
        return executor
    raise _not_lasting(kernel, name, asked=prepared.request.executor is not None)


def _not_lasting(kernel: Kernel, name: str, *, asked: bool = True) -> UsageError:
    able = listing(
        c.spec.name
        for c in kernel.contributions("executors")
        if isinstance(c.spec, ExecutorSpec) and c.spec.lasting and not c.spec.pipelines
    )
    if asked:
        return UsageError(
            f"Executor {name!r} cannot outlive this process, as a detached run must\n"
            f"  those that can: {able}; or leave out --detach"
        )
    return UsageError(
        f"Executor {name!r}, which was chosen, cannot outlive this process, as a detached run must\n"
        f"  name one that can with --executor: {able}"
    )


def _order(kernel: Kernel, prepared: Prepared, opened: Opened) -> Order:
    request = prepared.request
    return Order(
        run_id=request.run_id,
        target=request.target,
        action=request.action,
        params=request.params,
        env=request.env,
        resources=request.resources,
        timeout=request.timeout,
        retries=request.retries,
        job_id=request.job_id,
        checkpoint=request.checkpoint,
        settings=kernel.worker_settings,
        secrets=opened.secrets or [],
    )


def _refused(
    channel: Channel, prepared: Prepared, opened: Opened, started: datetime, error: Exception
) -> None:
    """Record that a run could not be started."""
    text = Redactor(opened.secrets or []).text
    told = describe_error(error, "executor")
    told = msgspec.structs.replace(told, message=text(told.message), traceback=text(told.traceback))
    channel.state("failed", detail=f"{told.type}: {told.message}")
    channel.close(
        Outcome(
            run_id=prepared.request.run_id,
            status="failed",
            action=prepared.request.action.name,
            started=started,
            finished=datetime.now(UTC),
            error=told,
        )
    )


def _under_way(run_id: str, action: str, started: datetime, mirror: Mirror | None = None) -> Outcome:
    """Return what the sinks of a run are closed with that goes on elsewhere: no final status."""
    heard = mirror.status if mirror is not None else None
    return Outcome(
        run_id=run_id,
        status="running" if heard in FINAL_STATUSES else heard or "pending",
        action=action,
        started=started,
        finished=datetime.now(UTC),
        attempts=1 if mirror is None else mirror.attempt,
    )


def _last_state(stored: Sequence[StoredEvent], record: RunRecord) -> State | None:
    """Return the last state of a run's present attempt."""
    found = [each.event for each in stored if isinstance(each.event, State)]
    return found[-1] if found and found[-1].attempt >= record.attempt else None


def _given_up(run_id: str, what: str = "was given up by this process, and goes on elsewhere") -> SynapseError:
    return SynapseError(f"Run {run_id} {what}\n  watch it with: synapse-kernel runs watch {run_id}")
