"""A clock that jumps back while one looks at it."""

from __future__ import annotations

import sys
import time
from datetime import datetime, tzinfo
from itertools import count
from types import ModuleType

HOUR = 3600


def jump_back(hours: int, after: int = 50) -> None:
    """Have this process's clocks go wrong by some hours, and by one more each so many times they are read."""
    reads = count()
    real, real_ns = time.time, time.time_ns

    def back() -> int:
        return HOUR * (hours + next(reads) // after)

    def now() -> float:
        return real() - back()

    def now_ns() -> int:
        return real_ns() - back() * 1_000_000_000

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(now(), tz)

    time.time, time.time_ns = now, now_ns
    # Modules that took a clock by name have it still.
    for name, module in list(sys.modules.items()):
        if name.startswith(("synapse_", "program")) and isinstance(module, ModuleType):
            for clock, wrong in ((real, now), (real_ns, now_ns), (datetime, Wrong)):
                for attribute, value in list(vars(module).items()):
                    if value is clock:
                        setattr(module, attribute, wrong)
