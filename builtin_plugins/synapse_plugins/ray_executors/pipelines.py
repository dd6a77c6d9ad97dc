"""Pipelines in a Ray cluster, for those who embed the kernel: started, watched, waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import Outcome
from synapse_kernel.stores import RunBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from synapse_kernel.events import Event
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import PipelineConductor
    from synapse_plugins.ray_executors.pipeline_host import RayPipelineHost

_OVER = object()


class RayPipelineExecutor:
    """
    Runs pipelines in a Ray cluster, each conducted by a coordinator there that outlives this process.

    A run is known by its id, from any process whose settings name the same cluster and store. Raises
    `RunNotFoundError` for one that is not in the coordinators' store.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._host = cast("RayPipelineHost", kernel.executor("ray-pipeline"))
        self._conductor = cast("PipelineConductor", kernel.executor("pipeline"))

    def submit(self, pipeline: object, params: Mapping[str, object] | None = None, **options: object) -> str:
        """
        Start a pipeline and return its run's id, once it has begun.

        `pipeline` is one, or a text that names one as on the command line. `options` are those of
        `Pipeline.submit`, but `sinks` and `record`. Raises what is wrong with it before it begins.
        """
        if isinstance(pipeline, str):
            options.setdefault("target", pipeline)
        order = self._conductor.order(pipeline, params or {}, **options)
        self._host.take(order)
        return order.run_id

    def resume_from(
        self,
        run_id: str,
        pipeline: object = None,
        params: Mapping[str, object] | None = None,
        **options: object,
    ) -> str:
        """
        Go on with a run that was interrupted: nodes that were done are not run again.

        Without a pipeline it goes on as it was recorded. `params` are those that change, and secret ones,
        which no record holds. Raises what `submit` does, and `UsageError` for a run that cannot go on.
        """
        record = self._host.record(run_id)
        if pipeline is None:
            pipeline = record.definition or {}
        return self.submit(pipeline, params, **{"target": record.target, **options, "resume": run_id})

    def get_progress(self, run_id: str) -> object:
        """Return how far a run has come, as a `PipelineProgress`."""
        self._host.record(run_id)
        store = self._host.place.store
        events = [stored.event for stored in store.events(run_id, descendants=True)]
        return self._conductor.snapshot(sorted(events, key=_time), run_id)

    def stream_progress(self, run_id: str) -> Iterator[object]:
        """Yield how far a run has come, from now to its end; `PipelineProgress` each."""
        run = self._host.watch(run_id, sinks=())
        try:
            yield from self._conductor.progress(run.events(), run_id)
        finally:
            run.close()

    async def stream_progress_async(self, run_id: str) -> AsyncIterator[object]:
        """Yield the same as `stream_progress`, without blocking the loop."""
        stream = self.stream_progress(run_id)
        while (found := await asyncio.to_thread(next, stream, _OVER)) is not _OVER:
            yield found

    def wait(self, run_id: str, timeout: float | None = None) -> Outcome | None:
        """
        Wait for the outcome of a run; None after `timeout` seconds, the run going on.

        Where the kernel's own store has a mirror of its record, that is brought up to date meanwhile.
        """
        ended = self._host.place.store.outcome(run_id)
        if ended is not None and not self._host.is_mirror_behind(run_id):
            return msgspec.convert(ended, Outcome)
        try:
            run = self._host.follow(run_id, sinks=())
        except RunBusyError:
            # Another process brings it up to date.
            run = self._host.watch(run_id, sinks=())
        try:
            return run.result(timeout)
        except TimeoutError:
            return None
        finally:
            close = getattr(run, "release", None) or getattr(run, "close", None)
            if close is not None:
                close()

    def get_result(self, run_id: str, timeout: float | None = None) -> object:
        """
        Wait for a run and return its result, as the store keeps it.

        Raises `TimeoutError` after `timeout` seconds, and `RunFailedError` if the run did not succeed.
        """
        outcome = self.wait(run_id, timeout)
        if outcome is None:
            raise TimeoutError(f"run {run_id} goes on after {timeout:g} s")
        return outcome.unwrap()

    def cancel(self, run_id: str, reason: str = "cancelled", grace: float | None = None) -> bool:
        """Tell a run to stop, by force after `grace` seconds (the settings' if None); False if it is over."""
        if self._host.place.store.outcome(run_id) is not None:
            return False
        if self._host.cancel(run_id, reason, grace):
            return True
        return self._host.place.store.request_cancel(run_id, reason)


def _time(event: Event) -> float:
    return event.time
