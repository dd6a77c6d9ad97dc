"""
The points at which a process can be killed, counted as it passes them.

There is one in front of each write to the store, one in front of its commit and one behind it, one for each
event, and one on either side of each effect that an action has.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path


class Boundaries:
    """Counts the boundaries that a process passes, and kills it at the one of a number or a name."""

    def __init__(self, folder: Path, life: int, kill_at: int | str | None = None) -> None:
        self.life = life
        self.count = 0
        self._kill_at = kill_at
        self._said = os.open(folder / f"said-{life}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def say(self, **what: object) -> None:
        """Write down what is known now: it is there whatever happens next."""
        os.write(self._said, json.dumps(what).encode() + b"\n")

    def cross(self, label: str) -> None:
        """Pass a boundary, or die there."""
        with self._lock:
            self.count += 1
            if self._kill_at in {self.count, label}:
                self.say(died=label)
                die()


def die() -> None:
    """Be killed, at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


_here: list[Boundaries] = []


def settle(boundaries: Boundaries) -> None:
    """Have this process pass these boundaries from now on."""
    _here[:] = [boundaries]


def cross(label: str) -> None:
    """Pass a boundary of this process, if it has any."""
    if _here:
        _here[0].cross(label)


def say(**what: object) -> None:
    """Write down what this process knows, if it has boundaries."""
    if _here:
        _here[0].say(**what)


def life() -> int:
    """Return how many processes there were, with this one; 0 for a worker."""
    return _here[0].life if _here else 0
