"""The executor `ray-task`: a Ray task for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import ray

from synapse_plugins.ray_executors import entry
from synapse_plugins.ray_executors.items import Streamed
from synapse_plugins.ray_executors.resources import ray_options
from synapse_plugins.ray_executors.streaming_executor import StreamingExecutor

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.entry import Packed
    from synapse_plugins.ray_executors.shipping import Cargo
    from synapse_plugins.ray_executors.streams import StreamJob


class RayTaskExecutor(StreamingExecutor):
    """
    Runs each task as a Ray task.

    Ray is not told to retry: an attempt is the kernel's, and never mixed with the next.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._function = ray.remote(entry.run)
        # With their options, which Ray takes its time to look through.
        self._functions: dict[tuple[object, ...], _Function] = {}

    def start(self, job: StreamJob, cargo: Cargo, demand: dict[str, float]) -> None:
        """Submit a Ray task."""
        key = (job.action, cargo.key, *sorted(demand.items()))
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._configured(job.action, cargo, demand)
        _submit(function, job, cargo.shipment, again=True)

    def _configured(self, action: str, cargo: Cargo, demand: dict[str, float]) -> _Function:
        options = ray_options(demand, self._settings.placement)
        if cargo.runtime_env:
            options["runtime_env"] = cargo.runtime_env
        function = self._function.options(
            num_returns="streaming", max_retries=0, name=f"synapse:{action}", **options
        )
        return cast("_Function", function)


class _Function(Protocol):
    def remote(self, call: bytes) -> object: ...


class _TaskPlace:
    """A task: it goes with its worker."""

    def __init__(self, function: _Function, stream: object, *, again: bool) -> None:
        self._function = function
        self._stream = stream
        self._again = again

    def kill(self) -> None:
        """Take it out of the queue, or kill its worker."""
        ray.cancel(cast("ray.ObjectRefGenerator", self._stream), force=True)

    def ended(self, node: str | None, *, broken: bool) -> None:
        """Do nothing: Ray keeps its workers itself."""

    def again(self, job: StreamJob, shipment: Packed) -> bool:
        """Submit it once more: Ray may give a task to a worker that the task before it has ended."""
        if self._again:
            _submit(self._function, job, shipment, again=False)
        return self._again


def _submit(function: _Function, job: StreamJob, shipment: Packed, *, again: bool) -> None:
    stream = function.remote(job.call(shipment))
    job.begin(_TaskPlace(function, stream, again=again), Streamed(stream))
