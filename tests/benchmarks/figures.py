"""How a figure is measured and shown."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
from collections.abc import Callable, Sequence
from time import perf_counter


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: what was measured, in which unit, against which baseline and target."""

    name: str
    value: float
    unit: str
    target: str
    met: bool
    baseline: str = ""

    def line(self) -> str:
        """Return the figure as a line of text."""
        shown = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        mark = "ok  " if self.met else "MISS"
        against = f"  [{self.baseline}]" if self.baseline else ""
        return f"{mark} {self.name:<58} {shown:>10} {self.unit:<8} target {self.target}{against}"

    def to_dict(self) -> dict[str, object]:
        """Return the figure as JSON-like data."""
        return dataclasses.asdict(self)


def at_most(name: str, ratio: float, limit: float, baseline: str) -> Figure:
    """Make a figure of a ratio that should not be above a limit."""
    return Figure(name, ratio, "x", f"at most {limit:g} x", ratio <= limit, baseline)


def at_most_of(name: str, value: float, unit: str, limit: float, baseline: str) -> Figure:
    """Make a figure of an amount that should not be above a limit."""
    return Figure(name, value, unit, f"at most {limit:g} {unit}", value <= limit, baseline)


def at_least(name: str, rate: float, least: float, unit: str = "/s", baseline: str = "") -> Figure:
    """Make a figure of a rate that should not be below a limit."""
    return Figure(name, rate, unit, f"at least {least:,.0f}{unit}", rate >= least, baseline)


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def paired(a: Callable[[], object], b: Callable[[], object], pairs: int) -> tuple[float, float]:
    """Run a and b in turn after one warm-up of each; return the median ratio a/b and b's median seconds."""
    a()
    b()
    times = [(seconds_of(a), seconds_of(b)) for _ in range(pairs)]
    return statistics.median(x / y for x, y in times), statistics.median(y for _, y in times)


def process(
    command: Sequence[str], *, env: dict[str, str] | None = None, cwd: str | None = None
) -> Callable[[], object]:
    """Return a call that runs a command to its end, unheard; it must exit with 0."""

    def call() -> object:
        return subprocess.run(
            command, check=True, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    return call


def rate(call: Callable[[], object], count: int, rounds: int = 5) -> float:
    """Return the best calls per second over some rounds: noise of other work only ever slows."""
    call()
    best = 0.0
    for _ in range(rounds):
        start = perf_counter()
        for _ in range(count):
            call()
        best = max(best, count / (perf_counter() - start))
    return best
