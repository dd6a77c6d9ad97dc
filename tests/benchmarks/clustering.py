"""
Ray: what a run costs beside a bare Ray program that does the same, on one cluster, in the same run.

The clusters are this process's own: one for tasks and actors, a head with a Jobs API for jobs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from emitting import Discard
from figures import Figure, at_least, at_most, at_most_of, paired, seconds_of

from synapse_kernel import Kernel
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Event, Log
from synapse_plugins.pipelines import Pipeline

PAIRS = 15
CALLS = 20
AT_ONCE = 1_000
ROUNDS = 5
NODES = 200
EVENTS = 300_000

CODE = """\
import time

from synapse_kernel import action


@action
def nothing(params, ctx):
    return None


@action
def emit(params, ctx):
    start, cpu = time.perf_counter(), time.thread_time()
    for _ in range(params["count"]):
        ctx.log("step")
    return {"cpu": time.thread_time() - cpu, "wall": time.perf_counter() - start}


@action
def tick(params, ctx):
    for _ in range(200):
        ctx.log("tick", {"at": time.time()})
        time.sleep(0.01)
"""

BARE_JOB = """\
import ray

ray.init()


@ray.remote
def nothing():
    return None


ray.get(nothing.remote())
"""


class Delays:
    """A sink that notes how long each event took to come, in seconds."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def accept(self, events: Sequence[Event]) -> None:
        """Take a batch."""
        now = time.time()
        self.found += [now - float(e.data["at"]) for e in events if isinstance(e, Log) and e.event == "tick"]

    def close(self, outcome: Outcome) -> None:
        """End."""


def figures() -> list[Figure]:
    """Measure each."""
    with tempfile.TemporaryDirectory(prefix="b") as folder, _own_ray(Path(folder)):
        plugin = Path(folder, "plugin")
        plugin.mkdir()
        (plugin / "actions.py").write_text(CODE)
        return [*_on_a_cluster(str(plugin / "actions.py")), _jobs(Path(folder), str(plugin / "actions.py"))]


@contextlib.contextmanager
def _own_ray(folder: Path) -> Iterator[None]:
    """Keep Ray's files in a folder, with a token of its own."""
    (folder / "token").write_text(secrets.token_hex(32))
    own = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in (*own, "RAY_ADDRESS")}
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _on_a_cluster(target: str) -> Iterator[Figure]:
    with Kernel({"ray": {"address": "local", "local_cpus": 2}}) as kernel:
        kernel.run(target, "nothing", executor="ray-task").unwrap()
        import ray

        @ray.remote
        def task() -> None:
            return None

        @ray.remote(num_cpus=0)
        class Actor:
            def call(self) -> None:
                return None

        actor = Actor.remote()

        def many(call: object) -> object:
            assert callable(call)
            return lambda: [call() for _ in range(CALLS)]

        for name, aim, bare in (
            ("ray-actor", " (aim 1.5)", lambda: ray.get(actor.call.remote())),
            ("ray-task", "", lambda: ray.get(task.remote())),
        ):
            ours = many(lambda name=name: kernel.run(target, "nothing", executor=name).unwrap())
            ratio, base = paired(ours, many(bare), PAIRS)
            kind = name.removeprefix("ray-")
            yield at_most(f"{name}, warm{aim}", ratio, 3, f"a bare {kind}: {base / CALLS * 1e3:.2f} ms")

        yield _at_once(kernel, target)
        yield from _events(kernel, target)
        yield _pipeline(kernel, target)


def _at_once(kernel: Kernel, target: str) -> Figure:
    """Measure many runs at once, in turn with as many bare tasks, plain ones and such as stream one item."""
    import ray

    @ray.remote
    def task() -> None:
        return None

    @ray.remote(num_returns="streaming")
    def stream() -> Iterator[None]:
        yield None

    def ours() -> None:
        runs = [kernel.submit(target, "nothing", executor="ray-task") for _ in range(AT_ONCE)]
        for run in runs:
            run.result(300).unwrap()

    calls = (
        ours,
        lambda: ray.get([task.remote() for _ in range(AT_ONCE)]),
        lambda: ray.get([next(items) for items in [stream.remote() for _ in range(AT_ONCE)]]),
    )
    rates = [[AT_ONCE / seconds_of(call) for call in calls] for _ in range(ROUNDS)]
    rate, bare, streamed = (statistics.median(column) for column in zip(*rates, strict=True))
    share = statistics.median(a / b for a, b, _ in rates)
    return Figure(
        f"ray-task, {AT_ONCE:,} at once", rate, "/s", "at least half of bare tasks", share >= 1 / 2,
        f"bare tasks: {bare:,.0f}/s, it does {share:.2f} of that; bare streaming tasks: {streamed:,.0f}/s",
    )  # fmt: skip


def _events(kernel: Kernel, target: str) -> Iterator[Figure]:
    rates, costs = [], []
    for _ in range(3):
        start = perf_counter()
        outcome = kernel.run(target, "emit", {"count": EVENTS}, executor="ray-actor", sinks=[Discard()])
        rates.append(EVENTS / (perf_counter() - start))
        cost = outcome.unwrap()
        assert isinstance(cost, dict)
        costs.append(cost["cpu"] / EVENTS * 1e6)
    yield at_least("events from a worker to a sink here", max(rates), 100_000)
    yield at_most_of(
        "what an event costs the action's thread", min(costs), "µs", 2, "its time on a CPU, while all is sent"
    )
    delays = Delays()
    kernel.run(target, "tick", executor="ray-actor", sinks=[delays]).unwrap()
    middle = statistics.median(delays.found) * 1e3
    label = f"a bare generator's items: {_bare_delay() * 1e3:.2f} ms"
    yield at_most_of("latency at 100 events a second, median", middle, "ms", 1, label)


def _bare_delay() -> float:
    """Return how long an item of a streaming generator takes to come, in seconds, at 100 a second."""
    import ray

    @ray.remote(num_returns="streaming")
    def tick() -> Iterator[float]:
        for _ in range(200):
            yield time.time()
            time.sleep(0.01)

    return statistics.median(time.time() - ray.get(item) for item in tick.remote())


def _pipeline(kernel: Kernel, target: str) -> Figure:
    import ray

    @ray.remote
    def task() -> None:
        return None

    pipeline = Pipeline("many")
    for number in range(NODES):
        pipeline.add(f"n{number}", f"{target}:nothing")
    with Kernel({"ray": {"address": "local"}, "store": "sqlite"}) as recording:
        ours, bare = [], []
        for _ in range(3):
            ours.append(seconds_of(lambda: pipeline.execute(kernel=recording, executor="ray-task").unwrap()))
            bare.append(seconds_of(lambda: ray.get([task.remote() for _ in range(NODES)])))
    overhead = (min(ours) - min(bare)) / NODES * 1e3
    return at_most_of(
        f"pipeline of {NODES}, recorded: per node, over the tasks", overhead, "ms", 10,
        f"bare tasks: {min(bare) / NODES * 1e3:.2f} ms each",
    )  # fmt: skip


def _jobs(folder: Path, target: str) -> Figure:
    (folder / "job").mkdir()
    (folder / "job" / "main.py").write_text(BARE_JOB)
    (folder / "h").mkdir()
    with _head(folder / "h") as dashboard:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(dashboard)

        def bare() -> None:
            job = client.submit_job(
                entrypoint=f"{sys.executable} main.py", runtime_env={"working_dir": str(folder / "job")}
            )
            while not client.get_job_status(job).is_terminal():
                time.sleep(0.05)
            assert client.get_job_status(job) == "SUCCEEDED"

        with Kernel({"ray": {"address": dashboard}}) as kernel:
            ratio, base = paired(lambda: kernel.run(target, "nothing", executor="ray-job").unwrap(), bare, 5)
    return at_most("ray-job, submit to result", ratio, 1.5, f"a bare job of one task: {base:.2f} s")


@contextlib.contextmanager
def _head(folder: Path) -> Iterator[str]:
    """Start a head with a Jobs API, and end it by its process."""
    names = ["port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    names += ["node-manager-port", "object-manager-port", "runtime-env-agent-port", "ray-client-server-port"]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    arguments = [f"--{name}={port}" for name, port in ports.items()]
    arguments += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *arguments],
        env={**os.environ, "RAY_TMPDIR": str(folder), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        _until_it_answers(url)
        yield url
    finally:
        head.terminate()
        head.wait(60)


def _until_it_answers(url: str) -> None:
    from ray.job_submission import JobSubmissionClient

    for _ in range(240):
        with contextlib.suppress(Exception):
            JobSubmissionClient(url).list_jobs()
            return
        time.sleep(0.25)
    raise TimeoutError(f"no Jobs API at {url}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]
