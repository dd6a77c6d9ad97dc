"""
The executor `ray-job`: each attempt, or a whole run, as a job of its own on a Ray cluster.

It speaks HTTP to the cluster's dashboard and needs no more of it. A job outlives the process that submitted
it; from its name, which follows from the run's id, another process finds it again.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from synapse_kernel.emitter import discard
from synapse_kernel.event_text import level_mark, line_of
from synapse_kernel.events import Event, Progress, State, decode_events
from synapse_plugins.ray_executors.connection import ClusterError, release
from synapse_plugins.ray_executors.job_api import JobNotFoundError, JobsApi, dashboard_url
from synapse_plugins.ray_executors.job_following import JobKey, RayJob
from synapse_plugins.ray_executors.job_packing import job_id_of, packed
from synapse_plugins.ray_executors.job_wire import EVENTS, FrameReader
from synapse_plugins.ray_executors.job_work import opening_events
from synapse_plugins.ray_executors.resources import is_possible, never_starts, shortage
from synapse_plugins.ray_executors.settings import RaySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_kernel.contracts import Outcome, Send, Task
    from synapse_kernel.events import Status
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import Order
    from synapse_plugins.ray_executors.job_api import JobState
    from synapse_plugins.ray_executors.job_packing import Parcel

_STATUSES: dict[str, Status] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "cancelled",
}


class RayJobExecutor:
    """
    Runs tasks as jobs; whatever happens to a job's process is an outcome here.

    The methods from `get_status` on are for those who embed: they know a run by its id, its latest attempt
    where there are several, and raise `JobNotFoundError` where the cluster has no job of it.
    """

    in_process = False
    queues = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._settings = kernel.settings.section("ray", RaySettings)
        self._api: JobsApi | None = None
        self._jobs: set[RayJob] = set()
        self._lock = threading.Lock()

    def submit(self, task: Task, send: Send) -> RayJob:
        """
        Submit a job for the task.

        Raises `UsageError` for code that cannot be shipped, `ClusterError` for a cluster that does not answer
        or never has a place for it, `JobExistsError` for an attempt that was submitted before.
        """
        with packed(self._kernel, self._settings, task) as parcel:
            self._submit(parcel)
        waiting = opening_events(task, parcel.start.waits_for, parcel.start.submitted)[0]
        send([waiting])
        key = JobKey(
            job_id=parcel.job_id,
            run_id=task.run_id,
            action=task.action,
            attempt=task.attempt,
            word=parcel.start.word,
        )
        return self._follow(key, send, waiting.seq)

    def launch(self, order: Order) -> None:
        """Submit a job that conducts a whole run; returns once the cluster has accepted it."""
        with packed(self._kernel, self._settings, order) as parcel:
            self._submit(parcel)

    def attach(self, run_id: str, attempt: int, after: int, send: Send) -> RayJob:
        """
        Follow the job of a run again; events with a number above `after` go to `send`.

        It is that of the attempt, or of a later one; or the one that conducts the whole run. What it returns
        has nothing of the run's secrets. Raises `JobNotFoundError`.
        """
        found = self._state_of(run_id, attempt)
        if found is None:
            found = self._state_of(run_id, None)
        else:
            # Its client may have been killed before the history had what it told of the next attempt.
            while (later := self._state_of(run_id, attempt := attempt + 1)) is not None:
                found = later
        if found is None:
            raise self._unknown(run_id)
        return self._follow(_key_of(found, run_id), send, after, mirrored=True)

    def shutdown(self) -> None:
        """Stop following; jobs go on."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.close()
        release(self)

    @property
    def api(self) -> JobsApi:
        """The cluster's Jobs API; raises `ClusterError` if it does not answer."""
        with self._lock:
            if self._api is None:
                self._api = JobsApi(dashboard_url(self._kernel, self), self._settings)
            return self._api

    def get_status(self, run_id: str) -> Status:
        """Return where a run's job stands."""
        return _STATUSES[self._latest(run_id).status]

    def get_logs(self, run_id: str) -> str:
        """Return what a run has said so far, as lines of text, without progress."""
        lines: list[str] = []
        state = self._latest(run_id)
        reader = FrameReader(_key_of(state, run_id).word)
        for frame in reader.feed(self.api.log(state.job_id)):
            if frame.kind == EVENTS:
                lines += _lines(decode_events(frame.data.encode()))
        return "\n".join(lines)

    def stream_logs(self, run_id: str) -> Iterator[str]:
        """Yield the lines of what a run says, from its beginning to its end."""
        said: SimpleQueue[list[Event] | None] = SimpleQueue()
        job = self._follow(_key_of(self._latest(run_id), run_id), said.put, 0)

        def end() -> None:
            job.wait()
            said.put(None)

        threading.Thread(target=end, name="synapse-job-logs", daemon=True).start()
        try:
            while (events := said.get()) is not None:
                yield from _lines(events)
        finally:
            job.close()

    def wait(self, run_id: str, timeout: float | None = None) -> Outcome | None:
        """Wait for the outcome of a run; None after `timeout` seconds."""
        job = self._follow(_key_of(self._latest(run_id), run_id), discard, 0)
        try:
            return job.wait(timeout)
        finally:
            job.close()

    def stop(self, run_id: str) -> bool:
        """Tell a run to stop, by force after the grace period; False if it has ended."""
        state = self._latest(run_id)
        return not state.ended and self.api.stop(state.job_id)

    def _submit(self, parcel: Parcel) -> None:
        api = self.api
        if not self._settings.autoscaling:
            nodes = api.nodes()
            # None are told of a cluster that has just begun.
            if nodes and not is_possible(parcel.demand, nodes):
                why = shortage(parcel.demand, nodes)
                raise ClusterError(never_starts(api.url, why), address=api.url)
        api.submit(parcel.job_id, parcel.entrypoint, parcel.runtime_env, parcel.metadata, parcel.demand)

    def _state_of(self, run_id: str, attempt: int | None) -> JobState | None:
        state = self.api.state(job_id_of(run_id, attempt))
        return state if state is not None and state.metadata.get("synapse_run") == run_id else None

    def _follow(self, key: JobKey, send: Send, after: int, *, mirrored: bool = False) -> RayJob:
        job = RayJob(self.api, key, send, after, self._forget, mirrored=mirrored)
        with self._lock:
            self._jobs.add(job)
        job.start()
        return job

    def _forget(self, job: RayJob) -> None:
        with self._lock:
            self._jobs.discard(job)

    def _latest(self, run_id: str) -> JobState:
        states = [state for state in self.api.states() if state.metadata.get("synapse_run") == run_id]
        if not states:
            raise self._unknown(run_id)
        return max(states, key=lambda state: int(state.metadata["synapse_attempt"]))

    def _unknown(self, run_id: str) -> JobNotFoundError:
        return JobNotFoundError(
            f"The Ray cluster at {self.api.url} has no job of run {run_id}\n"
            "  its jobs are listed by: ray job list; a cluster that was started anew knows no earlier ones"
        )


def _key_of(state: JobState, run_id: str) -> JobKey:
    return JobKey(
        job_id=state.job_id,
        run_id=run_id,
        action=state.metadata["synapse_action"],
        attempt=int(state.metadata["synapse_attempt"]),
        word=state.metadata["synapse_word"],
    )


def _lines(events: list[Event]) -> list[str]:
    return [
        f"{level_mark(event)}{line_of(event)}" for event in events if not isinstance(event, (Progress, State))
    ]
