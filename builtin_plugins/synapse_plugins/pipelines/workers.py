"""Threads in which the nodes of a pipeline run side by side."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Workers:
    """
    As many threads as work needs at once; each waits for more until `close`.

    They are daemons: a node that no force stops, in a call into C, must not keep the program from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def start(self, call: Callable[[], None]) -> None:
        """Call in another thread; what is called must not raise. One thread at a time may ask."""
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True).start()
        self._calls.put(call)

    def close(self) -> None:
        """Let the threads end once their work is done."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._idle.release()
