"""
The actor that conducts a pipeline in the cluster, before any code of ours is there.

This module travels by value, as `entry` does. What the actor needs lies in the key-value store of the
cluster's head, under the run's id: it is there when Ray starts the actor anew, also where the process that
submitted the pipeline, and owned all it had put into the object store, is gone.
"""

from __future__ import annotations

import importlib
import threading
from time import sleep
from typing import TYPE_CHECKING, Protocol, cast

from synapse_plugins.ray_executors import entry

if TYPE_CHECKING:
    from types import ModuleType

NAMESPACE = b"synapse"
COMMISSION = "commission"
BUNDLE = "bundle"
# For the process that submitted the run to hear that it cannot begin.
_LINGER_SECONDS = 30.0


class Conductor(Protocol):
    """What `coordinator` makes of a commission."""

    def conduct(self) -> None:
        """Run the pipeline to its end."""

    def cancel(self, reason: str, grace: float | None) -> bool:
        """Tell the run to stop."""

    def begun(self, timeout: float) -> str | None:
        """Wait until the run is under way; returns the error's text where it cannot be."""


class Coordinator:
    """Conducts one pipeline, and goes when it has ended."""

    def __init__(self, run_id: str, packed: entry.Packed) -> None:
        self._run_id = run_id
        self._packed = packed
        self._made = threading.Event()
        self._conductor: Conductor | None = None
        self._error: str | None = None
        threading.Thread(target=self._work, name=f"synapse-coordinator-{run_id}", daemon=True).start()

    def begun(self, timeout: float) -> str | None:
        """Wait until the pipeline is under way; returns the error's text where it cannot be."""
        self._made.wait(timeout)
        return self._error if self._conductor is None else self._conductor.begun(timeout)

    def cancel(self, reason: str, grace: float | None) -> bool:
        """Tell the pipeline to stop; False if it is over."""
        return self._conductor is not None and self._conductor.cancel(reason, grace)

    def _work(self) -> None:
        import ray

        try:
            commission = kept(self._run_id, COMMISSION)
            # None: the run has ended, and only its process was started anew.
            if commission is not None:
                self._conductor = self._prepared(commission)
                self._made.set()
                self._conductor.conduct()
        except BaseException as error:  # noqa: BLE001 - whatever it is, who submitted it is told
            self._error = told(error)
            self._made.set()
            if self._conductor is None:
                # Somebody asks, or has gone: the run has no record yet.
                forget(self._run_id)
                sleep(_LINGER_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def _prepared(self, commission: bytes) -> Conductor:
        shipment = entry.Shipment(*self._packed)  # type: ignore[arg-type]
        digests = list(shipment.paths)
        if digests:
            bootstrap = entry.bootstrap_module()
            for digest in digests:
                unpack(bootstrap, self._run_id, digest)
        entry.put_in_place(self._packed)
        coordinator = importlib.import_module("synapse_plugins.ray_executors.coordinator")
        return cast("Conductor", coordinator.Conductor(self._run_id, commission))


def told(error: BaseException) -> str:
    """Return an error's text, after its type unless it was written for who reads it."""
    from_us = any(each.__module__.startswith("synapse_") for each in type(error).__mro__)
    return str(error) if from_us else f"{type(error).__name__}: {error}"


def unpack(bootstrap: ModuleType, run_id: str, digest: str) -> str:
    """Put a bundle of the run's in its place, unless it is there, and return its folder."""
    if bootstrap.has(digest):
        return str(bootstrap.path_of(digest))
    data = kept(run_id, f"{BUNDLE}/{digest}")
    if data is None:
        raise RuntimeError(f"the code {digest} of run {run_id} is not in the cluster any more")
    return str(bootstrap.unpack(digest, data))


# Ray has no public place for bytes that outlive the process which put them there; this one has stayed as it
# is for years, and Ray's own libraries use it.


def keep(run_id: str, name: str, data: bytes) -> None:
    """Keep bytes in the cluster's head for a run, until `forget`."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(f"{run_id}/{name}".encode(), data, overwrite=True, namespace=NAMESPACE)


def kept(run_id: str, name: str) -> bytes | None:
    """Return what was kept."""
    from ray.experimental.internal_kv import _internal_kv_get

    found: bytes | None = _internal_kv_get(f"{run_id}/{name}".encode(), namespace=NAMESPACE)
    return found


def forget(run_id: str) -> None:
    """Drop all that was kept for a run."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(f"{run_id}/".encode(), del_by_prefix=True, namespace=NAMESPACE)
