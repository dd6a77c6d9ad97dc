"""Listings drawn in a thread of their own, ahead of what is done with them: their totals are known early."""

from __future__ import annotations

import threading
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")

MOST = 10_000
"""So many are drawn ahead."""
_LOOK = 0.1


class DrawnAhead(Generic[T]):
    """
    Items as a thread draws them, at most `most` ahead; to be used with ``with``, whose end stops the thread.

    What drawing raises is raised in the place of the next item.
    """

    def __init__(self, items: Iterable[T], most: int = MOST) -> None:
        self._items = items
        self._drawn: Queue[T | _End] = Queue(most)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="synapse-listing", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._next()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not joined: a page of a listing may be under way.
        self._stopped.set()

    def _next(self) -> Iterator[T]:
        while True:
            try:
                # With a time-out: without one Ctrl-C would not be seen before the next item.
                item = self._drawn.get(timeout=_LOOK)
            except Empty:
                continue
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            return

    def _draw(self) -> None:
        end = _End(None)
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the items are used
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self._drawn.put(item, timeout=_LOOK)
            except Full:
                continue
            return True
        return False


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
