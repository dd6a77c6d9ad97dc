"""The executor `ray-actor`: warm actors, a pool of them for each environment."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

import ray
from ray.exceptions import RayError

from synapse_plugins.ray_executors import entry
from synapse_plugins.ray_executors.items import Answered
from synapse_plugins.ray_executors.resources import ray_options
from synapse_plugins.ray_executors.streaming_executor import StreamingExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.connection import Connection
    from synapse_plugins.ray_executors.entry import Packed
    from synapse_plugins.ray_executors.shipping import Cargo
    from synapse_plugins.ray_executors.streams import StreamJob

_SWEEP_SECONDS = 1.0


class RayActorExecutor(StreamingExecutor):
    """
    Runs tasks on actors that stay: the next run of the same environment pays no start and no imports.

    At most `ray.max_workers` of an environment; they go after `ray.idle_timeout` seconds without work, and
    at once where another run waits for what they hold.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._pools: dict[tuple[object, ...], _Pool] = {}
        self._actor = ray.remote(entry.WarmWorker)
        self._closed = threading.Event()
        self._sweeper: threading.Thread | None = None

    def shutdown(self) -> None:
        """End the actors, and let go of the cluster."""
        self._closed.set()
        for pool in self._all_pools():
            with contextlib.suppress(ValueError):
                pool.connection.relievers.remove(self._relieve)
            pool.close()
        super().shutdown()

    def start(self, job: StreamJob, cargo: Cargo, demand: dict[str, float]) -> None:
        """Give the attempt to an idle actor, a new one, or the next to be free."""
        connection = job.connection
        key = (connection, cargo.key, *sorted(demand.items()))
        with self._lock:
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="synapse-ray-idle", daemon=True)
                self._sweeper.start()
            if self._relieve not in connection.relievers:
                connection.relievers.append(self._relieve)
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._new_pool(cargo, demand, connection)
        pool.take(job, cargo.shipment)

    def _new_pool(self, cargo: Cargo, demand: dict[str, float], connection: Connection) -> _Pool:
        options = ray_options(demand, self._settings.placement)
        if cargo.runtime_env:
            options["runtime_env"] = cargo.runtime_env

        def make() -> _Handle:
            made = self._actor.options(max_restarts=0, max_task_retries=0, **options).remote()
            return cast("_Handle", made)

        limit = self._settings.max_workers or max(1, int(sum(n.get("CPU", 0) for n in connection.nodes())))
        return _Pool(make, limit, connection)

    def _all_pools(self) -> list[_Pool]:
        with self._lock:
            return list(self._pools.values())

    def _relieve(self) -> None:
        """End the idle actors: another run waits for what they hold."""
        for pool in self._all_pools():
            pool.end_idle(0.0)

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_SECONDS):
            for pool in self._all_pools():
                # A cluster that is going: the next look is soon.
                with contextlib.suppress(RayError, ConnectionError):
                    pool.end_idle(self._settings.idle_timeout)
                    pool.forget_dead()


class _Method(Protocol):
    def options(self, **options: object) -> _Method: ...

    def remote(self, *call: bytes) -> object: ...


class _Handle(Protocol):
    """An actor, as Ray gives it."""

    begin: _Method
    go_on: _Method


class _Worker:
    """An actor of a pool, and since when it has nothing to do."""

    def __init__(self, handle: _Handle) -> None:
        self.handle = handle
        self.begin = handle.begin.remote
        self.go_on = handle.go_on.options(num_returns="streaming").remote
        self.idle_since = monotonic()
        self.node: str | None = None
        """Where it is, once an attempt of it has ended."""


class _Pool:
    """The actors of one environment, and the attempts that wait for one."""

    def __init__(self, make: Callable[[], _Handle], limit: int, connection: Connection) -> None:
        self.connection = connection
        self._make = make
        self._limit = limit
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._waiting: deque[tuple[StreamJob, Packed]] = deque()
        self._lock = threading.Lock()

    def take(self, job: StreamJob, shipment: Packed) -> None:
        """Begin an attempt, now or when an actor is free."""
        with self._lock:
            self._waiting.append((job, shipment))
        self._begin()

    def free(self, worker: _Worker, *, broken: bool) -> None:
        """Take an actor back, or forget one that is no more, and begin what waits."""
        with self._lock:
            self._busy.discard(worker)
            if not broken:
                worker.idle_since = monotonic()
                # The one used last is used next: those that are too many grow old.
                self._idle.append(worker)
        self._begin()

    def end_idle(self, seconds: float) -> None:
        """End the actors that have had nothing to do for some time."""
        now = monotonic()
        with self._lock:
            old = [worker for worker in self._idle if now - worker.idle_since >= seconds]
            self._idle = [worker for worker in self._idle if worker not in old]
        for worker in old:
            self.kill(worker)

    def forget_dead(self) -> None:
        """Forget the idle actors whose node is gone."""
        if not self._idle or self.connection.lost.is_set():
            return
        alive = self.connection.node_ids()
        with self._lock:
            self._idle = [worker for worker in self._idle if worker.node in alive]

    def close(self) -> None:
        """End all actors."""
        with self._lock:
            workers = [*self._idle, *self._busy]
            self._idle, self._busy = [], set()
            self._waiting.clear()
        for worker in workers:
            self.kill(worker)

    def kill(self, worker: _Worker) -> None:
        """Kill an actor, unless that went with its cluster: Ray would start another to ask it."""
        if ray.is_initialized() and not self.connection.lost.is_set():
            ray.kill(cast("ray.actor.ActorHandle[object]", worker.handle))

    def _begin(self) -> None:
        """Begin as many of the waiting attempts as there are actors for."""
        while True:
            with self._lock:
                while self._waiting and self._waiting[0][0].ended:
                    self._waiting.popleft()
                if not self._waiting or (not self._idle and len(self._busy) >= self._limit):
                    return
                job, shipment = self._waiting.popleft()
                worker = self._idle.pop() if self._idle else None
                try:
                    worker = worker or _Worker(self._make())
                except Exception as error:  # noqa: BLE001 - of this attempt, in whichever thread it comes
                    job.fail(error)
                    continue
                self._busy.add(worker)
            try:
                items = Answered(worker.begin(job.call(shipment)), worker.go_on)
            except Exception as error:  # noqa: BLE001
                job.fail(error)
                with self._lock:
                    self._busy.discard(worker)
                continue
            job.begin(_ActorPlace(self, worker), items)


class _ActorPlace:
    """An actor that has an attempt."""

    def __init__(self, pool: _Pool, worker: _Worker) -> None:
        self._pool = pool
        self._worker = worker

    def kill(self) -> None:
        """Kill the actor: what a method of it does cannot be broken off."""
        self._pool.kill(self._worker)

    def ended(self, node: str | None, *, broken: bool) -> None:
        """Give the actor back."""
        self._worker.node = node
        self._pool.free(self._worker, broken=broken)

    def again(self, job: StreamJob, shipment: Packed) -> bool:
        """Give the attempt to another actor if this one died while it was idle."""
        if self._worker.node is None:
            return False
        self._pool.free(self._worker, broken=True)
        self._pool.take(job, shipment)
        return True
