"""What the executors have in common whose workers stream: `ray-task` and `ray-actor`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from synapse_plugins.ray_executors.connection import ClusterError, connect, release
from synapse_plugins.ray_executors.resources import demand_of, never_starts
from synapse_plugins.ray_executors.settings import RaySettings
from synapse_plugins.ray_executors.shipping import Shipper
from synapse_plugins.ray_executors.streams import StreamJob

if TYPE_CHECKING:
    from synapse_kernel.contracts import Send, Task
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.shipping import Cargo


class StreamingExecutor:
    """Checks what a task asks for, ships its code, and leaves its place on a worker to who inherits this."""

    in_process = False
    queues = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._settings = kernel.settings.section("ray", RaySettings)
        self._shipper = Shipper(kernel, self._settings)
        self._lock = threading.Lock()

    def submit(self, task: Task, send: Send) -> StreamJob:
        """Start the task; raises `ClusterError` for what the cluster can never give it."""
        connection = connect(self._kernel, self)
        demand = demand_of(task.resources)
        if not self._settings.autoscaling:
            why = connection.why_impossible(demand) and connection.why_impossible(demand, fresh=True)
            if why:
                raise ClusterError(never_starts(connection.address, why), address=connection.address)
        cargo = self._shipper.load(task, connection)
        job = StreamJob(connection, task, send, demand, autoscaling=self._settings.autoscaling)
        if not connection.announced:
            connection.announced = True
            job.announce(connection.announcement)
        try:
            self.start(job, cargo, demand)
        except BaseException:
            connection.waiting.discard(job)
            raise
        return job

    def shutdown(self) -> None:
        """Let go of the cluster; one that was started here ends with its last user."""
        release(self)

    def start(self, job: StreamJob, cargo: Cargo, demand: dict[str, float]) -> None:
        """Find a place for the attempt, and let it begin there."""
        raise NotImplementedError
