"""Pipelines: what a node costs over calling its function, with and without the history, and going on."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from figures import Figure, at_most_of

from synapse_kernel import Kernel, action
from synapse_plugins.pipelines import ActionPipeline, Pipeline

ROUNDS = 5
FAILS = True


@action
def nothing(params, ctx):
    """Do nothing."""
    return {"x": 1}


@action
def end(params, ctx):
    """Fail the first time."""
    if FAILS:
        raise ValueError("interrupted")
    return {"x": 2}


def figures() -> list[Figure]:
    """Measure each."""
    calls = _calls(100)
    label = f"calling the functions: {calls * 1e6:.2f} µs each"
    found = [
        at_most_of(
            "linear pipeline of 100, over calling: per action",
            (_linear(100, None) - calls) * 1e6, "µs", 100, label,
        ),
        at_most_of(
            "the same, each recorded (aim 200)", (_linear(100, "sqlite") - calls) * 1e6, "µs", 1000, label
        ),
    ]  # fmt: skip
    for shape in ("chain", "independent nodes"):
        overhead = (_graph(shape, 10_000) - calls) * 1e6
        found.append(at_most_of(f"graph of 10,000, {shape}: per node", overhead, "µs", 1000, label))
    found.append(at_most_of("going on past 10,000 finished nodes", _going_on(10_000), "s", 0.3, label))
    small, large = _memory(2_000), _memory(10_000)
    per_node = (large - small) / 8_000
    text = f"2,000 nodes: {small / 1024:.0f} MiB, 10,000: {large / 1024:.0f} MiB"
    found.append(
        Figure(
            "memory of a graph, each further node",
            per_node,
            "KiB",
            "linear: below 20 KiB",
            per_node < 20,
            text,
        )
    )
    return found


def _calls(count: int) -> float:
    start = perf_counter()
    for _ in range(1000):
        for _ in range(count):
            nothing({}, None)
    return (perf_counter() - start) / count / 1000


@contextmanager
def _kernel(store: str | None) -> Iterator[Kernel]:
    with tempfile.TemporaryDirectory() as folder:
        url = None if store is None else f"{store}:///{Path(folder) / 'history.db'}"
        settings = {"work_dir": folder, **({} if url is None else {"store": url})}
        with Kernel(settings) as kernel:
            yield kernel


def _linear(count: int, store: str | None) -> float:
    """Return the best seconds an action."""
    pipeline = ActionPipeline([nothing] * count)
    with _kernel(store) as kernel:
        return min(_seconds(pipeline, kernel) for _ in range(ROUNDS + 1)) / count


def _graph(shape: str, count: int) -> float:
    pipeline = _pipeline(shape, count)
    with _kernel("sqlite") as kernel:
        return _seconds(pipeline, kernel) / count


def _pipeline(shape: str, count: int) -> Pipeline:
    pipeline = Pipeline(shape.replace(" ", "_"))
    last = None
    for number in range(count):
        with_ = {"x": last["x"]} if last is not None and shape == "chain" else {}
        last = pipeline.add(f"n{number}", nothing, with_=with_)
    return pipeline


def _seconds(pipeline: Pipeline | ActionPipeline, kernel: Kernel, **options: object) -> float:
    start = perf_counter()
    outcome = pipeline.execute({}, kernel=kernel, **options)
    taken = perf_counter() - start
    assert outcome.ok, outcome.error
    return taken


def _going_on(count: int) -> float:
    """Return the seconds from asking an interrupted pipeline to go on until its last node is done."""
    global FAILS  # noqa: PLW0603 - the action's only way to know
    pipeline = _pipeline("chain", count)
    pipeline.add("end", end, needs=[f"n{count - 1}"])
    taken: list[float] = []
    with _kernel("sqlite") as kernel:
        for _ in range(3):
            FAILS = True
            outcome = pipeline.execute({}, kernel=kernel)
            assert outcome.status == "failed"
            FAILS = False
            taken.append(_seconds(pipeline, kernel, resume=outcome.run_id))
    return statistics.median(taken)


def _memory(count: int) -> float:
    """Return the most KiB that a process of its own took for a graph."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import pipelining\nprint(pipelining.peak({count}))"
    )
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


def peak(count: int) -> int:
    """Run a graph and return the most KiB this process ever took."""
    _graph("independent nodes", count)
    # Not getrusage: what that tells a process goes back to before it was this program.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])
