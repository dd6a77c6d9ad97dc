"""
The executor `pipeline`: where a pipeline's own run is, while its nodes run where each says.

It differs from `local` in how it ends: to stop a pipeline is to stop its nodes, by force if need be, and to
wait until each has its final state; the pipeline itself is never struck.
"""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.emitter import CancelToken, discard
from synapse_kernel.errors import UsageError
from synapse_kernel.worker import execute
from synapse_plugins.pipelines.scheduler import PipelineFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from synapse_kernel.contracts import Outcome, Send, Task
    from synapse_kernel.events import Event
    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import PipelineOrder
    from synapse_plugins.pipelines.progress import PipelineProgress


# Between what its nodes are granted to end and leaving the pipeline behind, as one of them heeds no force
# either. Longer than what the executors of nodes take for the same.
ABANDON_SECONDS = 6.0

PIPELINE_MARK = "__synapse_pipeline__"
"""The attribute that tells a pipeline's function from an action."""


class PipelineExecutor:
    """Runs each pipeline in a thread of its own; it is a `PipelineConductor` too."""

    in_process = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def submit(self, task: Task, send: Send) -> PipelineJob:
        """Start the pipeline; raises `UsageError` for a task that is none."""
        if task.code is None or not hasattr(task.code.obj, PIPELINE_MARK):
            raise UsageError(
                f"The executor 'pipeline' runs pipelines, and {task.action!r} is an action\n"
                "  run it with the executor 'local' or 'process'"
            )
        return PipelineJob(self._kernel, task, send)

    def shutdown(self) -> None:
        """Do nothing: each pipeline ends with its nodes."""

    def order(self, pipeline: object, params: Mapping[str, object], **options: object) -> PipelineOrder:
        """Check a pipeline and make it plain data; see `PipelineConductor`."""
        from synapse_plugins.pipelines.orders import order_of

        return order_of(self._kernel, pipeline, params, options)

    def begin(
        self,
        order: PipelineOrder,
        *,
        executor: str,
        resume: bool = False,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """Start a pipeline that was sent here; see `PipelineConductor`."""
        from synapse_plugins.pipelines.orders import begin

        return begin(self._kernel, order, executor=executor, resume=resume, places=places)

    def progress(self, events: Iterable[Event], run_id: str) -> Iterator[PipelineProgress]:
        """Yield how far a pipeline's run has come, until its last event."""
        from synapse_plugins.pipelines.progress import track

        return track(events, run_id=run_id)

    def snapshot(self, events: Iterable[Event], run_id: str) -> PipelineProgress:
        """Return how far it has come by these events."""
        from synapse_plugins.pipelines.folding import ProgressFold

        fold = ProgressFold(run_id)
        for event in events:
            fold.take(event)
        return fold.snapshot()


class PipelineJob:
    """A pipeline under way."""

    def __init__(self, kernel: Kernel, task: Task, send: Send) -> None:
        self._kernel = kernel
        self._token = CancelToken()
        self._ended = threading.Event()
        self._outcome: Outcome | None = None
        threading.Thread(
            target=self._work, args=(task, send), name=f"synapse-pipeline-{task.run_id}", daemon=True
        ).start()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the outcome; None after `timeout` seconds."""
        self._ended.wait(timeout)
        return self._outcome

    def cancel(self, grace: float) -> None:
        """Start no more nodes; who cancels a run cancels those that are part of it too."""
        self._token.set()
        threading.Thread(target=self._give_up, args=(grace,), name="synapse-cancel", daemon=True).start()

    def _give_up(self, grace: float) -> None:
        if not self._ended.wait(grace + ABANDON_SECONDS):
            self._ended.set()

    def _work(self, task: Task, send: Send) -> None:
        heard = None if send is discard else send
        try:
            outcome = execute(task, heard, self._token, kernel=lambda: self._kernel, pulse=self._kernel.pulse)
            if isinstance(outcome.exception, PipelineFailed):
                # What went wrong is in a node: its error is told, not where the pipeline noticed.
                replaced = msgspec.structs.replace(outcome, error=outcome.exception.info)
                replaced.__dict__.update(outcome.__dict__)
                outcome = replaced
            self._outcome = outcome
        finally:
            self._ended.set()
