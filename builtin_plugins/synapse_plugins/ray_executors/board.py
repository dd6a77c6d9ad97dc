"""The driver's board: an actor by which its attempts are told to stop, and get the code that they lack."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Protocol, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synapse_plugins.ray_executors import entry

if TYPE_CHECKING:
    from synapse_plugins.ray_executors.entry import BoardName

_WAITING_AT_ONCE = 100_000
_ANSWER_SECONDS = 5.0


class _Method(Protocol):
    def remote(self, *args: object) -> object: ...


class _Handle(Protocol):
    keep: _Method
    lacking: _Method
    drop: _Method
    cancel: _Method
    over: _Method


class DriverBoard:
    """The board of a connection, put up on first use; it takes no CPU from the runs."""

    def __init__(self, namespace: str) -> None:
        self._name: BoardName = (f"synapse-board-{os.urandom(8).hex()}", namespace)
        self._handle: _Handle | None = None
        self._lock = threading.Lock()

    def put_up(self) -> BoardName:
        """Return by which name workers find it."""
        self._made()
        return self._name

    def tell(self, key: str, grace: float) -> None:
        """Tell an attempt to stop."""
        with contextlib.suppress(RayError):
            self._made().cancel.remote(key, grace)

    def forget(self, key: str) -> None:
        """Forget an attempt that was told and has ended."""
        with contextlib.suppress(RayError):
            self._made().over.remote(key)

    def keep(self, digest: str, data: bytes) -> None:
        """Have a zip file for workers that lack it."""
        self._made().keep.remote(digest, data)

    def lacking(self, digests: list[str]) -> list[str]:
        """Return which of these it has not, after its process has died; none where it does not answer."""
        try:
            asked = cast("ray.ObjectRef[list[str]]", self._made().lacking.remote(digests))
            return ray.get(asked, timeout=_ANSWER_SECONDS)
        except RayError:
            return []

    def drop(self, digest: str) -> None:
        """Have it no more."""
        self._made().drop.remote(digest)

    def _made(self) -> _Handle:
        with self._lock:
            if self._handle is None:
                name, namespace = self._name
                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
                actor = ray.remote(entry.Board).options(
                    name=name,
                    namespace=namespace,
                    num_cpus=0,
                    max_restarts=-1,
                    max_concurrency=_WAITING_AT_ONCE,
                    scheduling_strategy=here,
                )
                self._handle = cast("_Handle", actor.remote())
            return self._handle
