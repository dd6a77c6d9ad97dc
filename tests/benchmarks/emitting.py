"""What an action pays to say something, and what arrives."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from figures import Figure, at_least

from synapse_kernel import BaseAction, Kernel
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Event

ROUNDS = 3


class Discard:
    """A sink that takes every event and does nothing with it: the whole way is paid, but for the writing."""

    def accept(self, events: Sequence[Event]) -> None:
        """Take a batch."""

    def close(self, outcome: Outcome) -> None:
        """End."""


class Emitting(BaseAction):
    """Says one thing many times; its result is how often a second, all of it delivered."""

    def execute(self) -> float:
        count, what = self.params["count"], self.params["what"]
        assert isinstance(count, int)
        start = perf_counter()
        if what == "progress":
            for step in range(count):
                self.set_progress(step, count)
        elif what == "log":
            for step in range(count):
                self.log("step", {"index": step})
        else:
            for _ in range(count):
                self.set_metrics({"loss": 0.25, "accuracy": 0.75})
        self.ctx.end_log()
        return count / (perf_counter() - start)


def figures() -> list[Figure]:
    """Measure each call to the null sink, to a sink that discards, and to JSON lines on disk."""
    found: list[Figure] = []
    with Kernel() as kernel:
        for what, least, count in (
            ("progress", 1_500_000, 1_000_000),
            ("log", 500_000, 200_000),
            ("metrics", 500_000, 200_000),
        ):
            bare = max(_bare() for _ in range(ROUNDS))
            label = f"list.append of a dict: {bare:,.0f}/s"
            for name, sink in (("the null sink", "none"), ("a sink that discards", Discard())):
                best = max(_rate(kernel, what, count, sink) for _ in range(ROUNDS))
                found.append(at_least(f"{what} to {name}", best, least, baseline=label))
        for what in ("log", "metrics"):
            best = max(_to_disk(kernel, what) for _ in range(ROUNDS))
            found.append(at_least(f"{what} to JSON lines on disk, all there", best, 150_000))
        found.append(_memory(kernel))
    return found


def _rate(kernel: Kernel, what: str, count: int, sink: object) -> float:
    outcome = kernel.run(Emitting, None, {"what": what, "count": count}, sinks=[sink])
    assert isinstance(outcome.result, float), outcome.error
    return outcome.result


def _to_disk(kernel: Kernel, what: str) -> float:
    count = 100_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.jsonl"
        start = perf_counter()
        outcome = kernel.run(Emitting, None, {"what": what, "count": count}, sinks=[f"jsonl:{file}"])
        taken = perf_counter() - start
        assert outcome.ok, outcome.error
        kind = "log" if what == "log" else "metrics"
        written = sum(json.loads(line)["kind"] == kind for line in file.read_text().splitlines())
        assert written == count
    return count / taken


def _bare() -> float:
    said: list[object] = []
    count = 200_000
    start = perf_counter()
    append = said.append
    for step in range(count):
        append({"index": step})
    return count / (perf_counter() - start)


def _memory(kernel: Kernel) -> Figure:
    """Measure how much ten million calls add to the largest size this process ever had."""
    _rate(kernel, "progress", 100_000, Discard())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _rate(kernel, "progress", 10_000_000, Discard())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Figure("memory added by 10 million set_progress", grown, "MiB", "flat: below 2 MiB", grown < 2)
