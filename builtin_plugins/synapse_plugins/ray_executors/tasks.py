"""The executor `ray-task`: a Ray task for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import ray

from synapse_plugins.ray_executors import entry
from synapse_plugins.ray_executors.resources import ray_options
from synapse_plugins.ray_executors.streaming_executor import StreamingExecutor

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.connection import Connection
    from synapse_plugins.ray_executors.shipping import Cargo
    from synapse_plugins.ray_executors.streams import Stream, StreamJob


class RayTaskExecutor(StreamingExecutor):
    """
    Runs each task as a Ray task.

    Ray is not told to retry: an attempt is the kernel's, and never mixed with the next.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._function = ray.remote(entry.run)

    def start(self, job: StreamJob, cargo: Cargo, demand: dict[str, float], connection: Connection) -> None:
        """Submit a Ray task."""
        options = ray_options(demand, self._settings.placement)
        if cargo.runtime_env:
            options["runtime_env"] = cargo.runtime_env
        function = self._function.options(
            num_returns="streaming", max_retries=0, name=f"synapse:{job.action}", **options
        )
        stream = function.remote(cargo.shipment, job.payload(), connection.board())
        job.begin(_TaskPlace(stream), cast("Stream", stream), cargo.shipment)


class _TaskPlace:
    """A task: it goes with its worker."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def kill(self) -> None:
        """Take it out of the queue, or kill its worker."""
        ray.cancel(cast("ray.ObjectRefGenerator", self._stream), force=True)

    def ended(self, *, broken: bool) -> None:
        """Do nothing: Ray keeps its workers itself."""

    def why_waiting(self) -> str | None:
        """Know of no other reason than resources."""
        return None
