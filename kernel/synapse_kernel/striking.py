"""
Breaking off work in a thread from outside.

A thread cannot be killed; `RunCancelled` can be raised in it between two of its byte codes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from synapse_kernel.errors import RunCancelled

if TYPE_CHECKING:
    from synapse_kernel.contracts import Outcome
    from synapse_kernel.emitter import CancelToken


class InlineJob:
    """Work under way in the thread that made this, until `end`."""

    def __init__(self, token: CancelToken) -> None:
        self._token = token
        self._thread = threading.get_ident()
        self._over = False
        # Held while the thread is made to stop, so that this never strikes once its work is done.
        self._working = threading.Lock()
        self._ended: threading.Event | None = None
        self._told = False

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Return None: who runs work in its own thread has nobody to wait for."""

    def cancel(self, grace: float) -> None:
        """Tell the action to stop, make it after `grace` seconds."""
        with self._working:
            first, self._told = not self._told, True
            ended = self._ended = self._ended or threading.Event()
            if self._over:
                return
        self._token.set()
        if first or grace <= 0:
            threading.Thread(
                target=self._force, args=(ended, grace), name="synapse-cancel", daemon=True
            ).start()

    def end(self) -> None:
        """Say that the work is done: nothing strikes this thread any more once this has returned."""
        with self._working:
            self._over = True
            if self._ended is not None:
                self._ended.set()
        _safe_point()

    def _force(self, ended: threading.Event, grace: float) -> None:
        if ended.wait(max(grace, 0)):
            return
        with self._working:
            if not self._over:
                self._token.strike()
                raise_in_thread(self._thread, RunCancelled)


def raise_in_thread(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread, by its identifier, before its next byte code."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _safe_point() -> None:
    """Let an exception that waits for this thread be raised now: it comes at the latest as a call begins."""
