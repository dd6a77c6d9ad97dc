"""
What conducts a pipeline in the cluster: the pipelines' own code, with a kernel of its own.

Its nodes run as Ray tasks where they name no executor. Should its process die, Ray starts it anew: it takes
over its record, and goes on as any interrupted pipeline does.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from synapse_kernel.contracts import JsonObject
from synapse_kernel.kernel import Kernel
from synapse_kernel.lasting import PipelineConductor, PipelineOrder
from synapse_kernel.opening import store_of
from synapse_kernel.owners import this_process
from synapse_kernel.serialization import decode_struct
from synapse_kernel.stores import RunBusyError
from synapse_plugins.ray_executors import coordinator_entry, entry

if TYPE_CHECKING:
    from synapse_kernel.handles import Run
    from synapse_kernel.stores import RunStore

NODES = "ray-task"
"""Where nodes run that do not say."""
_OWNER = "owner"
# For a command that looks after the run at that moment, as it takes it to be left alone.
_TAKE_OVER_SECONDS = 60.0
_LOOK_SECONDS = 0.1
# For the process that submitted the run to hear that it has begun.
_LINGER_SECONDS = 5.0


class Commission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a coordinator is given."""

    order: PipelineOrder
    settings: JsonObject
    boot: str = ""
    """Which boot of which machine submitted it."""
    cwd: str = ""
    """The folder in which relative paths are meant."""
    folders: dict[str, tuple[str, str]] = {}
    """The folders of its actions there: the digest and the name of each one's bundle."""
    here: str = "ray-pipeline"
    """The executor of the pipeline's own run."""


@runtime_checkable
class ConductsHere(Protocol):
    """The executor of the pipeline's own run, which leaves it to the pipelines' own in a coordinator."""

    def conduct_here(self) -> None:
        """From now on, run pipelines in this process."""


class Conductor:
    """Conducts one pipeline."""

    def __init__(self, run_id: str, commission: bytes) -> None:
        self._given = decode_struct(commission, Commission)
        self._run_id = run_id
        self._kernel: Kernel | None = None
        self._begun = threading.Event()
        self._answered = threading.Event()
        self._error: Exception | None = None

    def begun(self, timeout: float) -> str | None:
        """Wait until the pipeline is under way; returns the error's text where it cannot be."""
        self._begun.wait(timeout)
        self._answered.set()
        error = self._error
        return None if error is None else coordinator_entry.told(error)

    def cancel(self, reason: str, grace: float | None) -> bool:
        """Tell the run to stop; False if it is not under way."""
        return self._kernel is not None and self._kernel.cancel(self._run_id, reason, grace)

    def conduct(self) -> None:
        """Run the pipeline to its end; what is wrong with it before is told by `begun`."""
        given = self._given
        os.environ.update(given.order.env)
        if self._is_at_home() and given.cwd:
            with contextlib.suppress(OSError):
                os.chdir(given.cwd)
        try:
            with Kernel(given.settings) as kernel:
                self._kernel = kernel
                self._run(kernel)
        except Exception as error:  # noqa: BLE001 - whatever it is, who submitted the pipeline is told
            self._error = error
        self._begun.set()
        self._answered.wait(_LINGER_SECONDS)
        coordinator_entry.forget(self._run_id)

    def _run(self, kernel: Kernel) -> None:
        given, store = self._given, store_of(kernel)
        own = kernel.executor(given.here)
        conductor = kernel.executor("pipeline")
        assert isinstance(own, ConductsHere)
        assert isinstance(conductor, PipelineConductor)
        own.conduct_here()
        before = coordinator_entry.kept(self._run_id, _OWNER)
        if before is not None and store.outcome(self._run_id) is not None:
            return
        coordinator_entry.keep(self._run_id, _OWNER, kernel.owner.token.encode())
        order = self._given.order
        if order.executor is None:
            order = msgspec.structs.replace(order, executor=NODES)
        if before is None:
            run = conductor.begin(order, executor=given.here, resume=order.resume, places=self._places())
        else:
            run = self._go_on(conductor, order, store, before.decode())
        self._begun.set()
        run.result()

    def _go_on(self, conductor: PipelineConductor, order: PipelineOrder, store: RunStore, before: str) -> Run:
        """
        Go on with what an earlier process of this coordinator left behind.

        `before` is the token of that process, which Ray knows to be dead.
        """
        deadline = monotonic() + _TAKE_OVER_SECONDS
        while True:
            record = store.get(self._run_id)
            if record is not None and record.owner is not None and record.owner.token == before:
                store.forget(record.owner)
            resume = record is not None or order.resume
            try:
                return conductor.begin(order, executor=self._given.here, resume=resume, places=self._places())
            except RunBusyError:
                # A command looks whether it must look after the run.
                if monotonic() > deadline:
                    raise
                sleep(_LOOK_SECONDS)

    def _is_at_home(self) -> bool:
        """Tell whether this is the machine that submitted the pipeline, its folders where they were."""
        here = self._given.boot and self._given.boot == this_process().boot
        return bool(here) and all(Path(folder).is_dir() for folder in self._given.folders)

    def _places(self) -> dict[str, str]:
        """
        Put the actions' folders in their places, and return where paths of the submitting machine are.

        Links lead to them from a tree that is as theirs was: what the pipeline says of them stays true, and
        its record is the same wherever it runs.
        """
        if self._is_at_home() or not self._given.folders:
            return {}
        bootstrap = entry.bootstrap_module()
        root = Path(bootstrap.code_root()).parent / "pipelines" / self._run_id
        for folder, (digest, name) in self._given.folders.items():
            link = Path(f"{root}{folder}")
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(Path(coordinator_entry.unpack(bootstrap, self._run_id, digest), name))
        return {"/": str(root)}
