"""
What crosses the boundary for runs that go on elsewhere: of actions by a `LastingExecutor`, of pipelines.

Such a run conducts itself, and outlives the process that asked for it; what is sent away is plain data.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from synapse_kernel.contracts import ActionSpec, Executor, Job, JsonObject, Resources, Send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from synapse_kernel.events import Event
    from synapse_kernel.handles import Run


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A run that conducts itself elsewhere, attempts, time-out and retries too: plain data.

    `action` refers to its code as another process finds it; the executor takes care that it is there.
    """

    run_id: str
    target: str
    action: ActionSpec
    params: JsonObject = {}
    env: dict[str, str] = {}
    resources: Resources = Resources()
    timeout: float | None = None
    retries: int = 0
    job_id: str | None = None
    checkpoint: JsonObject | None = None
    settings: JsonObject = {}
    secrets: list[str] = []
    """Values that must not reach an event."""


@runtime_checkable
class LastingJob(Job, Protocol):
    """
    A job that goes on elsewhere and is followed from here.

    Its `wait` raises where the job was lost sight of and may go on, and returns None once it is closed: what
    it returns else is how the run ended, without the run's secrets. A request to stop outlives this process.
    """

    def close(self) -> None:
        """Stop following while the job goes on; returns once a `cancel` before it has reached the job."""


@runtime_checkable
class LastingExecutor(Executor, Protocol):
    """An executor whose jobs outlive the process that submitted them, and are found again from another."""

    def launch(self, order: Order) -> None:
        """Start a run that nobody here waits for; returns once it is accepted."""

    def attach(self, run_id: str, attempt: int, after: int, send: Send) -> LastingJob:
        """
        Return the job of a run again, whether it was launched or its submitter is gone.

        `attempt` is the last one that was heard of: of a run that conducts itself, all attempts are one job.
        Its events of a number above `after` go to `send`, numbered as they were. Raises `SynapseError` where
        no such job is found.
        """


class PipelineOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A pipeline that is to run in another process, and how: plain data.

    Everything that can be told before it starts has been checked.
    """

    run_id: str
    name: str
    document: JsonObject
    """The pipeline itself."""
    params: JsonObject = {}
    target: str | None = None
    """How the record names it."""
    resume: bool = False
    """Go on with the recorded run of this id."""
    force: bool = False
    use_cache: bool = True
    concurrency: int | None = None
    executor: str | None = None
    """Where nodes run that do not say."""
    timeout: float | None = None
    """Seconds that the pipeline may take."""
    tags: list[str] = []
    job_id: str | None = None
    actions: list[ActionSpec] = []
    """The actions of its nodes, each once, as another process finds them: what code it needs."""
    env: dict[str, str] = {}
    """The variables that its nodes pass on by name."""
    hand_overs: list[str] = []
    """Which paths in the file system nodes hand to others, a line each."""


@runtime_checkable
class PipelineConductor(Protocol):
    """
    What the executor named ``pipeline`` offers to those that let pipelines run elsewhere.

    Both sides ask their kernel for it: who sends a pipeline away for the order, who is sent it for the run.
    """

    def order(self, pipeline: object, params: Mapping[str, object], **options: object) -> PipelineOrder:
        """
        Check a pipeline and make it plain data; `options` are those that pipelines take when they run.

        `pipeline` is one, or what names one, or the definition in the record of a run. Raises `UsageError`
        for a pipeline that is no plain data, and what running it here would raise.
        """

    def begin(
        self,
        order: PipelineOrder,
        *,
        executor: str,
        resume: bool = False,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """
        Start a pipeline that was sent here; its own run is of `executor`, which leaves it to this one.

        `resume` goes on with its recorded run. `places` says where folders of the sender's machine are here.
        """

    def progress(self, events: Iterable[Event], run_id: str) -> Iterator[object]:
        """Yield how far a pipeline's run has come, as models that are JSON, until its last event."""

    def snapshot(self, events: Iterable[Event], run_id: str) -> object:
        """Return how far it has come by these events."""


@runtime_checkable
class PipelineHost(Protocol):
    """An executor named ``NAME-pipeline``, which runs whole pipelines elsewhere: `pipeline run --on NAME`."""

    def take(self, order: PipelineOrder, *, detached: bool = False) -> None:
        """
        Start a pipeline; returns once it has begun, and raises what is wrong with it.

        With `detached` it must be able to outlive this process; raises `UsageError` where it cannot.
        """

    def follow(self, run_id: str, *, sinks: Sequence[object] | None = None) -> Run:
        """Return a handle to a pipeline that was taken; its events, and those of its nodes, go to `sinks`."""
