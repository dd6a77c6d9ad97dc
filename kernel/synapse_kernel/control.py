"""A run under way: what its kernel knows of it, and the way to stop it."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.emitter import CancelToken, Channel
from synapse_kernel.opening import Opened
from synapse_kernel.preparation import Prepared

if TYPE_CHECKING:
    from synapse_kernel.contracts import Job

# What a job may take beyond the grace period before the kernel stops waiting for it.
FORCE_SECONDS = 10.0


class Control:
    """The way to stop a run from outside, whatever stage it is in, and with it those that are part of it."""

    def __init__(self, grace: float) -> None:
        self.token = CancelToken()
        self.grace = grace
        self._job: Job | None = None
        self._parts: set[Control] = set()
        self._told_parts: tuple[str, float | None] | None = None
        self._lock = threading.Lock()

    def cancel(self, reason: str = "cancelled", grace: float | None = None) -> None:
        """Tell the run and its parts to stop; by force after the grace period."""
        if grace is not None:
            self.grace = grace
        # Before the job is looked up: one attached meanwhile sees the token.
        self.token.set(reason)
        with self._lock:
            job = self._job
        if job is not None:
            job.cancel(self.grace)
        self.cancel_parts(reason, grace)

    def cancel_parts(self, reason: str = "cancelled", grace: float | None = None) -> None:
        """Tell the runs that are part of this one to stop, also those that this attempt has yet to begin."""
        with self._lock:
            self._told_parts = self._told_parts or (reason, grace)
            parts = list(self._parts)
        for part in parts:
            part.cancel(reason, grace)

    def join(self, part: Control) -> None:
        """Make a run part of this one, until it leaves."""
        with self._lock:
            self._parts.add(part)
            told = self._told_parts
        if told is not None:
            part.cancel(*told)

    def leave(self, part: Control) -> None:
        """Forget a part that has ended."""
        with self._lock:
            self._parts.discard(part)

    def attach(self, job: Job | None) -> None:
        """Name the attempt that is under way; one of a run that was told to stop is stopped at once."""
        with self._lock:
            self._job = job
            if job is None and not self.token.is_set:
                self._told_parts = None
        if job is not None and self.token.is_set:
            job.cancel(self.grace)


class Live(msgspec.Struct, kw_only=True):
    """A run under way."""

    prepared: Prepared
    control: Control
    channel: Channel | None
    opened: Opened
    inline: bool
    secrets: list[str]
    started: datetime
    over: threading.Event
    """Set when the sinks have all of it."""
    thread: int
    """The thread that conducts it."""
    attempt: int
    """The attempt under way, or the last."""
    top: str | None = None
    """The run at the top, if it is part of one."""

    @property
    def root(self) -> str:
        """The run at the top of those that this one is part of."""
        return self.top or self.prepared.request.run_id

    def wait(self) -> None:
        """Wait for the end of a run that was told to stop, unless this thread is the one that conducts it."""
        if self.thread != threading.get_ident():
            self.over.wait(self.control.grace + FORCE_SECONDS)
