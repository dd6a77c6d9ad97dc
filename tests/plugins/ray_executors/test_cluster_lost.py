"""What a process does whose cluster goes, and what goes with a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

WAIT = 120
ACTIONS = """
    import os
    import time

    from synapse_kernel import action


    @action
    def nothing(params):
        return "done"


    @action
    def linger(params, ctx):
        ctx.log("here", {"pid": os.getpid()})
        while True:
            time.sleep(0.05)
"""
DRIVER = """
    import json
    import sys
    import time

    from synapse_kernel import Kernel, Log
    from synapse_kernel.contracts import Resources
    from synapse_kernel.testing import RecordedSink

    address, executor, folder, then = sys.argv[1:]


    def say(**what):
        print(json.dumps(what), flush=True)


    with Kernel({"ray": {"address": address, "local_cpus": 1, "local_memory": 100_000_000}}) as kernel:
        sink = RecordedSink()
        run = kernel.submit(folder, "linger", executor=executor, sinks=[sink])
        while not sink.of(Log):
            time.sleep(0.05)
        waiting = kernel.submit(folder, "linger", executor=executor)
        say(pid=sink.of(Log)[0].data["pid"])
        error = run.result(60).error
        say(kind=error.kind, type=error.type, message=error.message)
        say(waiting=waiting.result(60).error.type)
        say(local=kernel.run(folder, "nothing", executor="local").result)
        say(states=sink.states, numbers=[event.seq for event in sink.events])
        if then == "another":
            with Kernel({"ray": {"address": "local", "local_cpus": 1}}) as other:
                say(another=other.run(folder, "nothing", executor=executor).result)
        if then == "stay":
            # Ray ends a process a minute after the head that it was connected to.
            time.sleep(75)
    say(over=True)
"""


TWICE = """
    import sys
    import threading

    from synapse_kernel import Kernel

    with Kernel({"ray": {"address": "local", "local_cpus": 1, "local_memory": 100_000_000}}) as kernel:
        for _ in range(2):
            print(kernel.submit(sys.argv[1], "nothing", executor="ray-task").result(60).result)
            for thread in threading.enumerate():
                if thread.name.startswith("synapse-run-"):
                    thread.join(60)
"""


class Head:
    """A cluster's head of one CPU, started as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._log = (folder / "head.log").open("w")
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--port", self.address.rpartition(":")[2], "--num-cpus=1", "--include-dashboard=false"),
            *("--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"),
        ]
        self._started = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        wait_for(lambda: bool(self.named("raylet")) and bool(self.named("gcs_server")))

    def named(self, name: str) -> list[psutil.Process]:
        """Return its processes of a name."""
        found = psutil.Process(self._started.pid).children(recursive=True)
        return [process for process in found if process.name() == name]

    def kill(self, name: str) -> None:
        """Kill one of its processes."""
        os.kill(self.named(name)[0].pid, signal.SIGKILL)

    def end(self) -> None:
        """End all of it."""
        try:
            processes = psutil.Process(self._started.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        self._started.terminate()
        self._started.wait(WAIT)
        _, alive = psutil.wait_procs(processes, 10)
        for process in alive:
            process.kill()
        self._log.close()


class Driver:
    """A process that uses a cluster, and says what becomes of it in lines of JSON."""

    def __init__(self, script: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def said(self) -> dict[str, object]:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=WAIT)
        said: dict[str, object] = json.loads(line)
        return said

    def end(self) -> None:
        """End it, if it has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=WAIT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def head(ray_surroundings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """Start a head."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_surroundings / "token"))
    started = Head(tmp_path)
    yield started
    started.end()


@pytest.fixture
def drive(make_folder: Callable[..., Path]) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts a driver with an address, an executor, and what it does in the end."""
    folder = make_folder({"actions.py": ACTIONS})
    script = make_folder({"driver.py": DRIVER}, "driver") / "driver.py"
    started: list[Driver] = []

    def start(address: str, executor: str, then: str = "") -> Driver:
        started.append(Driver(script, address, executor, str(folder), then))
        return started[-1]

    yield start
    for driver in started:
        driver.end()


def assert_lost(driver: Driver, address: str) -> None:
    """Read what a driver says of a cluster that is gone."""
    said = driver.said()
    assert ("executor", "ClusterLost") == (said["kind"], said["type"])
    assert f":{address.rpartition(':')[2]} does not answer any more" in str(said["message"])
    assert {"waiting": "ClusterLost"} == driver.said()
    assert {"local": "done"} == driver.said()
    said = driver.said()
    assert ["running", "failed"] == said["states"][-2:]  # type: ignore[index]
    assert list(range(1, len(said["numbers"]) + 1)) == said["numbers"]  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
@pytest.mark.parametrize("executor", ["ray-task", "ray-actor"])
def test_a_head_that_dies_ends_its_runs_and_not_the_process(
    head: Head, drive: Callable[..., Driver], executor: str, victim: str
):
    driver = drive(head.address, executor, "another")
    driver.said()

    head.kill(victim)

    assert_lost(driver, head.address)
    assert {"another": "done"} == driver.said()
    assert {"over": True} == driver.said()
    assert 0 == driver.process.wait(WAIT)
    assert ("", "") == driver.process.communicate(timeout=WAIT)


@pytest.mark.slow
def test_a_process_outlives_its_cluster_for_long(head: Head, drive: Callable[..., Driver]):
    driver = drive(head.address, "ray-task", "stay")
    driver.said()

    head.kill("gcs_server")

    assert_lost(driver, head.address)
    assert {"over": True} == driver.said()
    assert 0 == driver.process.wait(WAIT)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["ray-task", "ray-actor"])
def test_a_driver_that_is_killed_leaves_no_worker_on_the_cluster(
    head: Head, drive: Callable[..., Driver], executor: str
):
    driver = drive(head.address, executor)
    worker = psutil.Process(int(str(driver.said()["pid"])))

    os.kill(driver.process.pid, signal.SIGKILL)

    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    assert head.named("raylet")


def test_a_cluster_outlives_the_run_that_started_it(make_folder: Callable[..., Path]):
    """And the thread of that run: Linux kills a local cluster with the thread that started it."""
    folder = make_folder({"actions.py": ACTIONS})
    script = make_folder({"driver.py": TWICE}, "driver") / "driver.py"

    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=WAIT
    )

    assert (0, "done\ndone\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_a_cluster_of_a_driver_that_is_killed_goes_with_it(drive: Callable[..., Driver]):
    driver = drive("local", "ray-task")
    worker = psutil.Process(int(str(driver.said()["pid"])))
    started = psutil.Process(driver.process.pid).children(recursive=True)

    os.kill(driver.process.pid, signal.SIGKILL)

    assert worker.pid in {process.pid for process in started}
    _, alive = psutil.wait_procs(started, WAIT)
    assert [] == alive
