"""The executor `ray-pipeline`: starts a pipeline's coordinator in the cluster, and finds it again."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synapse_kernel.contracts import ActionSpec, Task
from synapse_kernel.errors import SynapseError, UsageError
from synapse_kernel.events import State
from synapse_kernel.serialization import encode_struct
from synapse_kernel.stores import RunBusyError, RunNotFoundError
from synapse_plugins.ray_executors import coordinator_entry, entry
from synapse_plugins.ray_executors.code_bundles import code_bundles, kernel_requirements
from synapse_plugins.ray_executors.connection import ClusterError, connect, release
from synapse_plugins.ray_executors.coordinator import Commission
from synapse_plugins.ray_executors.entry import Packed, Shipment
from synapse_plugins.ray_executors.environments import environment_of
from synapse_plugins.ray_executors.failures import error_of
from synapse_plugins.ray_executors.nodes import machines
from synapse_plugins.ray_executors.pipeline_following import CoordinatedJob, FollowedRun
from synapse_plugins.ray_executors.pipeline_places import (
    StorePlace,
    check_hand_overs,
    coordinator_settings,
    store_place,
    work_root,
)
from synapse_plugins.ray_executors.settings import RaySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import Job, Send
    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import Order, PipelineOrder
    from synapse_kernel.stores import RunRecord
    from synapse_plugins.ray_executors.bundles import Bundle

# What is there before any code of ours cannot come with it.
for _module in (entry, coordinator_entry):
    cloudpickle.register_pickle_by_value(_module)  # type: ignore[no-untyped-call]

_BEGIN_SECONDS = 600.0
_ANSWER_SECONDS = 30.0
_CALLS_AT_ONCE = 64
_taken: set[str] = set()
"""The runs that this process started."""


class _Method(Protocol):
    def remote(self, *args: object) -> object:
        """Call it."""


class _Actor(Protocol):
    begun: _Method
    cancel: _Method


def coordinator_name(run_id: str) -> str:
    """Return the name of a pipeline's coordinator in the cluster."""
    return f"synapse-pipeline-{run_id}"


class RayPipelineHost:
    """
    Runs pipelines in the cluster; a `PipelineHost`, and a `LastingExecutor` of their runs.

    In a coordinator it leaves its pipeline's run to the executor `pipeline`.
    """

    in_process = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._settings = kernel.settings.section("ray", RaySettings)
        self._place: StorePlace | None = None
        self._is_coordinator = False
        self._followed: list[CoordinatedJob] = []
        self._lock = threading.Lock()

    def conduct_here(self) -> None:
        """From now on, run pipelines in this process."""
        self._is_coordinator = True

    def submit(self, task: Task, send: Send) -> Job:
        """Start a pipeline's run in its coordinator; raises `UsageError` elsewhere."""
        if self._is_coordinator:
            return self._kernel.executor("pipeline").submit(task, send)
        raise _no_pipeline(task.action)

    def launch(self, order: Order) -> None:
        """Raise `UsageError`: actions are run by other executors."""
        raise _no_pipeline(order.action.name)

    def attach(self, run_id: str, attempt: int, after: int, send: Send) -> CoordinatedJob:  # noqa: ARG002
        """
        Return the job of a pipeline whose coordinator keeps its record in another store.

        Raises `RunBusyError` where it is the kernel's own, in which its coordinator keeps it.
        """
        self._reach(run_id)
        place = self.place
        if not place.mirrored and self.is_there(run_id):
            raise RunBusyError(run_id, None)
        return self._job(run_id, after, send, records=place.mirrored)

    def shutdown(self) -> None:
        """Let go of the cluster and of what is followed; pipelines go on."""
        with self._lock:
            followed, self._followed = self._followed, []
        for each in followed:
            each.close()
        if self._place is not None and self._place.store is not self._kernel.store:
            self._place.store.close()
        release(self)

    def take(self, order: PipelineOrder, *, detached: bool = False) -> None:
        """
        Start a pipeline's coordinator; returns once the pipeline has begun.

        Raises `UsageError` for a store or storage that cannot serve, and what the coordinator tells.
        """
        place = self.place
        work_dir = work_root(self._kernel, self._settings, here_only=place.here_only)
        connection = connect(self._kernel, self)
        if detached and connection.started:
            raise UsageError(
                "A pipeline cannot be detached in a cluster that this process started: it ends with it\n"
                "  start one with: ray start --head\n"
                "  or name one with: --set ray.address=HOST:PORT"
            )
        check_hand_overs(order, self._settings, machines())
        if self.is_there(order.run_id):
            raise RunBusyError(order.run_id, None)
        ship = not connection.started if self._settings.ship_code is None else self._settings.ship_code
        tasks = [_task_of(order, action) for action in order.actions]
        environments = [environment_of(self._settings, task) for task in tasks]
        folders = {
            cast("str", task.ref.folder): environment.folder
            for task, environment in zip(tasks, environments, strict=True)
            if environment.folder is not None
        }
        commission = Commission(
            order=order,
            settings=coordinator_settings(
                self._kernel.worker_settings, place, work_dir=work_dir, ship_code=ship
            ),
            boot=self._kernel.owner.boot,
            cwd=str(Path.cwd()),
            folders={folder: (bundle.digest, bundle.name) for folder, bundle in folders.items()},
        )
        # What an earlier coordinator of this run left, that was killed once too often.
        coordinator_entry.forget(order.run_id)
        code = self._code(tasks) if ship else []
        kept = [*code, *([] if place.here_only else folders.values())]
        for bundle in {bundle.digest: bundle for bundle in kept}.values():
            coordinator_entry.keep(order.run_id, f"{coordinator_entry.BUNDLE}/{bundle.digest}", bundle.data())
        coordinator_entry.keep(order.run_id, coordinator_entry.COMMISSION, encode_struct(commission))
        _taken.add(order.run_id)
        wanted = {environment.key: environment.runtime_env for environment in environments}
        # Its nodes' code is looked at there: where all want the same environment, in that.
        runtime_env = next(iter(wanted.values())) if len(wanted) == 1 else self._settings.runtime_env
        self._begin(order, place, _packed(code), runtime_env or None)

    def follow(self, run_id: str, *, sinks: Sequence[object] | None = None) -> Run:
        """
        Return a handle to a pipeline in the cluster; its events, and those of its nodes, go to `sinks`.

        Where its record here is a mirror, it is brought up to date by this.
        """
        if self.is_mirror_behind(run_id):
            return self._kernel.attach(run_id, sinks=sinks)
        return self.watch(run_id, sinks=sinks)

    def watch(self, run_id: str, *, sinks: Sequence[object] | None = None) -> FollowedRun:
        """Return such a handle that records nothing here."""
        record = self.record(run_id)
        if self.place.store.outcome(run_id) is None:
            self._reach(run_id)
        after = self._before(record)
        return FollowedRun(self._kernel, record, lambda send: self._job(run_id, after, send), sinks)

    def record(self, run_id: str) -> RunRecord:
        """Return the coordinator's record of a run; raises `RunNotFoundError`."""
        record = self.place.store.get(run_id)
        if record is None:
            raise RunNotFoundError(run_id, url=self.place.store.url)
        return record

    def _before(self, record: RunRecord) -> int:
        """Return the number of the last event before a run's present attempt."""
        if record.attempt == 1:
            return 0
        states = [each.event for each in self.place.store.events(record.run_id, kinds=("state",))]
        numbers = [e.seq for e in states if isinstance(e, State) and e.attempt >= record.attempt]
        return min(numbers, default=record.last_seq + 1) - 1

    def is_mirror_behind(self, run_id: str) -> bool:
        """Tell whether the kernel's own store has a mirror of a run's record without its outcome."""
        store = self._kernel.store
        if not self.place.mirrored or store is None:
            return False
        record = store.get(run_id)
        return record is not None and store.outcome(run_id) is None

    @property
    def place(self) -> StorePlace:
        """The store of the coordinators; raises `UsageError` where none is named."""
        with self._lock:
            if self._place is None:
                self._place = store_place(self._kernel, self._settings)
            return self._place

    def is_there(self, run_id: str) -> bool:
        """Tell whether a run has a coordinator, be it one that is being started anew."""
        return self._actor(run_id) is not None

    def cancel(self, run_id: str, reason: str, grace: float | None) -> bool:
        """Tell a run to stop; False if there is no coordinator that hears it."""
        self._reach(run_id)
        actor = self._actor(run_id)
        if actor is None:
            return False
        try:
            answer = actor.cancel.remote(reason, grace)
            return bool(ray.get(cast("ray.ObjectRef[bool]", answer), timeout=_ANSWER_SECONDS))
        except RayError:
            return False

    def _reach(self, run_id: str) -> None:
        """Connect to the cluster that conducts a run; raises `ClusterError` if none is found."""
        connection = connect(self._kernel, self)
        if connection.started and run_id not in _taken and not self.is_there(run_id):
            release(self)
            raise ClusterError(
                f"No Ray cluster is found here, and run {run_id} goes on in one\n"
                "  name it with: --set ray.address=HOST:PORT",
                address="auto",
            )

    def _begin(
        self, order: PipelineOrder, place: StorePlace, packed: Packed, runtime_env: dict[str, object] | None
    ) -> None:
        options: dict[str, object] = {
            "name": coordinator_name(order.run_id),
            "namespace": self._settings.namespace,
            "lifetime": "detached",
            "num_cpus": 0,
            "max_restarts": self._settings.max_restarts,
            "max_concurrency": _CALLS_AT_ONCE,
        }
        if runtime_env:
            options["runtime_env"] = runtime_env
        if place.here_only:
            here = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
        made = ray.remote(coordinator_entry.Coordinator).options(**options)
        actor = cast("_Actor", made.remote(order.run_id, packed))
        try:
            answer = actor.begun.remote(_BEGIN_SECONDS)
            problem = ray.get(
                cast("ray.ObjectRef[str | None]", answer), timeout=_BEGIN_SECONDS + _ANSWER_SECONDS
            )
        except RayError as error:
            problem = None
            if place.store.get(order.run_id) is None:
                # Else it has begun, and may have ended. Without what was kept for it, it never does.
                coordinator_entry.forget(order.run_id)
                info = error_of(error)
                raise SynapseError(
                    f"The coordinator of {order.name!r} could not be started: {info.type}: {info.message}"
                ) from error
        if problem is not None:
            raise SynapseError(problem)
        if place.mirrored:
            self._mirror(order.run_id)

    def _mirror(self, run_id: str) -> None:
        """Record a run, which goes on elsewhere, in the kernel's own store."""
        store, owner = self._kernel.store, self._kernel.owner
        assert store is not None
        if store.get(run_id) is None:
            record = self.record(run_id)
            start = msgspec.structs.replace(
                record, status="pending", attempt=1, started=None, finished=None, last_seq=0, owner=None,
                error=None, environment=None,
            )  # fmt: skip
            store.start(start, owner)
        else:
            store.claim(run_id, owner, elsewhere=True)
        store.release(run_id, owner)

    def _code(self, tasks: list[Task]) -> list[Bundle]:
        found: dict[str, Bundle] = {}
        for task in tasks:
            for bundle in code_bundles(self._kernel, task, limit=self._settings.upload_limit):
                found.setdefault(bundle.digest, bundle)
        return list(found.values())

    def _job(self, run_id: str, after: int, send: Send, *, records: bool = True) -> CoordinatedJob:
        job = CoordinatedJob(self.place.store, run_id, after, send, self, records=records)
        with self._lock:
            self._followed = [*(each for each in self._followed if not each.over), job]
        return job

    def _actor(self, run_id: str) -> _Actor | None:
        with contextlib.suppress(ValueError):
            found = ray.get_actor(coordinator_name(run_id), namespace=self._settings.namespace)
            return cast("_Actor", found)
        return None


def _packed(code: list[Bundle]) -> Packed:
    paths = tuple(bundle.digest for bundle in code)
    return tuple(Shipment(paths=paths, requirements=kernel_requirements() if code else ()))


def _task_of(order: PipelineOrder, action: ActionSpec) -> Task:
    """Return what the code and the environment of an action are found by."""
    return Task(run_id=order.run_id, action=action.name, ref=action.ref, runtime_env=action.runtime_env)


def _no_pipeline(action: str) -> UsageError:
    return UsageError(
        f"The executor 'ray-pipeline' runs whole pipelines, and {action!r} is an action\n"
        "  run it with the executor 'ray-task', a pipeline with: synapse-kernel pipeline run TARGET --on ray"
    )
