"""
How far a pipeline's run has come, as models that other tools take as JSON.

`track` folds the events of a run into snapshots: one as soon as a state changes, else about ten a second,
however many events there are. It reads the events that the engine logs on the pipeline's run
(``pipeline_start``, ``node_start``, ``node_end``, ``node_skipped``, ``nodes_restored``) and those of its
child runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from synapse_kernel.events import FINAL_STATUSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

    from synapse_kernel.events import Event
    from synapse_kernel.handles import EventStream, Run
    from synapse_plugins.pipelines.folding import ProgressFold

S = TypeVar("S")


class RunStatus(StrEnum):
    """The state of a pipeline's run."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"

    @property
    def is_final(self) -> bool:
        """True once it will not change any more."""
        return self.value in FINAL_STATUSES


class ActionStatus(StrEnum):
    """The state of a node, or of one instance of a node with ``foreach``."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    SKIPPED = "skipped"
    """Its condition did not hold, or what it needs did not succeed."""
    CACHED = "cached"
    """It took over the result of an earlier run."""
    RESTORED = "restored"
    """It had succeeded before its pipeline was resumed."""

    @property
    def is_final(self) -> bool:
        """True once it will not change any more."""
        return self.value in FINAL_STATUSES or self.value in {"skipped", "cached", "restored"}


class ActionProgress(BaseModel):
    """How far one node has come."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The node, or the node instance such as draw[3].")
    status: ActionStatus = ActionStatus.PENDING
    action: str | None = Field(None, description="The action that it runs.")
    executor: str | None = Field(None, description="Where it runs.")
    run_id: str | None = Field(None, description="Its own run, once it has one.")
    attempt: int = 1
    progress: float | None = Field(None, description="Percent, where it says how far it has come.")
    category: str | None = Field(None, description="What the progress is of.")
    message: str | None = Field(None, description="The last it had to say; why it was skipped.")
    error: str | None = None
    cached_from: str | None = Field(None, description="The run whose result it took over.")
    started: datetime | None = Field(None, description="UTC.")
    finished: datetime | None = Field(None, description="UTC.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="The latest by name, as CATEGORY.NAME where they have a category."
    )


class PipelineProgress(BaseModel):
    """How far a pipeline's run has come."""

    model_config = ConfigDict(frozen=True)

    run_id: str = ""
    name: str = Field("", description="The pipeline's.")
    status: RunStatus = RunStatus.PENDING
    attempt: int = Field(1, description="More than 1 once the run was resumed.")
    percent: float = Field(0.0, description="Of all nodes, with the share of those that run.")
    current: list[str] = Field(default_factory=list, description="The nodes that run at this moment.")
    actions: list[ActionProgress] = Field(
        default_factory=list, description="All nodes in the pipeline's order, instances after their node."
    )
    started: datetime | None = Field(None, description="UTC.")
    finished: datetime | None = Field(None, description="UTC.")
    elapsed: float = Field(0.0, description="Seconds from the start to the last event.")
    error: str | None = None


def track(events: Run | Iterable[Event], *, run_id: str | None = None) -> Iterator[PipelineProgress]:
    """
    Yield snapshots of a pipeline's run until it is over; the last tells how it ended.

    `events` is the run, or its events with those of its children. `run_id` says which of them is the
    pipeline's, where that is not the first that has an event.
    """
    stream, fold = _stream(events), _fold(events, run_id)
    waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    abandoned = threading.Event()
    failed: list[BaseException] = []

    def pump() -> None:
        try:
            for event in stream:
                waiting.put(event)
                if abandoned.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the snapshots are taken
            failed.append(error)
        waiting.put(None)

    threading.Thread(target=pump, name="synapse-track", daemon=True).start()
    try:
        while not fold.ended:
            with contextlib.suppress(queue.Empty):
                fold.take(waiting.get(timeout=fold.due))
                while not (fold.ended or fold.is_due):
                    fold.take(waiting.get_nowait())
            if fold.is_due:
                yield fold.snapshot()
        if failed:
            raise failed[0]
    finally:
        abandoned.set()


async def track_async(
    events: Run | AsyncIterable[Event], *, run_id: str | None = None
) -> AsyncIterator[PipelineProgress]:
    """Yield the same snapshots as `track`, without blocking the loop."""
    stream, fold = _stream(events), _fold(events, run_id)
    waiting: asyncio.Queue[Event | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for event in stream:
                waiting.put_nowait(event)
        finally:
            waiting.put_nowait(None)

    pumping = asyncio.create_task(pump())
    try:
        while not fold.ended:
            with contextlib.suppress(asyncio.QueueEmpty, TimeoutError):
                async with asyncio.timeout(fold.due):
                    fold.take(await waiting.get())
                while not (fold.ended or fold.is_due):
                    fold.take(waiting.get_nowait())
            if fold.is_due:
                yield fold.snapshot()
        await pumping
    finally:
        pumping.cancel()


def _fold(events: object, run_id: str | None) -> ProgressFold:
    from synapse_kernel.handles import Run
    from synapse_plugins.pipelines.folding import ProgressFold

    return ProgressFold(events.id if isinstance(events, Run) else run_id)


def _stream(events: Run | S) -> EventStream | S:
    from synapse_kernel.handles import Run

    return events.events() if isinstance(events, Run) else events
