"""The items of an attempt, as they come from its worker: from a task's stream, or from an actor's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import ray
from ray.exceptions import GetTimeoutError

from synapse_plugins.ray_executors.remote import decode_item

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_plugins.ray_executors.remote import Item


class Items(Protocol):
    """The items of an attempt that a worker has."""

    def next(self, timeout: float) -> Item | None:
        """
        Return the next one, or None after `timeout` seconds; read by one thread at a time.

        Raises `StopIteration` after the last, and a `RayError` where the worker or its node is gone.
        """


class Streamed:
    """The items of a streaming task or method."""

    def __init__(self, stream: object) -> None:
        self.stream = cast("_Stream", stream)

    def next(self, timeout: float) -> Item | None:
        """Return the next one."""
        # Not public; `ray.wait` and then `next`, which are, look at each item twice.
        reference = self.stream._next_sync(timeout)
        return None if reference.is_nil() else decode_item(ray.get(reference))


class Answered:
    """
    The items of an actor: the first is a plain answer, and mostly the only one.

    A stream costs Ray half as much again as an answer does: `rest` makes one for an attempt that lasts.
    """

    def __init__(self, first: object, rest: Callable[[], object]) -> None:
        self._first: ray.ObjectRef[bytes] | None = cast("ray.ObjectRef[bytes]", first)
        self._make_rest = rest
        self._rest: Streamed | None = None

    def next(self, timeout: float) -> Item | None:
        """Return the next one."""
        if self._rest is not None:
            return self._rest.next(timeout)
        if self._first is None:
            raise StopIteration
        try:
            item = decode_item(ray.get(self._first, timeout=timeout))
        except GetTimeoutError:
            return None
        self._first = None
        if not item.last:
            self._rest = Streamed(self._make_rest())
        return item


class _Stream(Protocol):
    """An `ObjectRefGenerator` of items."""

    def _next_sync(self, timeout_s: float) -> ray.ObjectRef[bytes]: ...
