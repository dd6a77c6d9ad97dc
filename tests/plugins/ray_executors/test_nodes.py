"""A node that leaves its cluster in the middle of a run: each test has a cluster, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WAIT = 180
ACTIONS = """
    import os
    import time

    from synapse_kernel import action


    @action
    def where(params, ctx):
        import ray

        return ray.get_runtime_context().get_node_id()


    @action
    def linger(params, ctx):
        import ray

        for number in range(100):
            ctx.log("said", {"n": number})
        ctx.log("here", {"node": ray.get_runtime_context().get_node_id(), "attempt": ctx.attempt})
        while not os.path.exists(params["file"]):
            time.sleep(0.05)
        return ctx.attempt
"""
# The head has no CPU: runs go to the nodes, of which each has one.
DRIVER = """
    import json
    import sys
    import time
    from pathlib import Path

    import ray
    from ray.cluster_utils import Cluster

    from synapse_kernel import Kernel, Log, State
    from synapse_kernel.contracts import Resources
    from synapse_kernel.testing import RecordedSink

    folder, executor, case = sys.argv[1:]
    free = Path(folder, "free")


    def node():
        return cluster.add_node(num_cpus=1, resources={"here": 1}, object_store_memory=80_000_000)


    def said(sink, name):
        return [event.data for event in sink.of(Log) if event.event == name]


    def started(action, **options):
        sink = RecordedSink()
        run = kernel.submit(folder, action, {"file": str(free)}, executor=executor, sinks=[sink], **options)
        return run, sink


    def wait_for(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)


    def remove(node_id):
        cluster.remove_node(nodes.pop(node_id), allow_graceful=False)


    def told(outcome, sink):
        error = outcome.error
        states = [s for s in sink.of(State) if s.state != "pending" or not s.detail]
        return {
            "status": outcome.status,
            "result": outcome.result,
            "error": error and [error.kind, error.type, error.message],
            "stages": [[s.state, s.attempt] for s in states],
            "numbers": [event.seq for event in sink.events],
            "said": [data["n"] for data in said(sink, "said")],
        }


    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000}
    )
    nodes = {}
    for _ in range(2):
        made = node()
        nodes[made.node_id] = made
    cluster.wait_for_nodes()
    settings = {
        "ray": {"address": cluster.address, "ship_code": False},
        "retry": {"initial": 0.001, "maximum": 0.001},
    }
    with Kernel(settings) as kernel:
        if case == "idle":
            run, _ = started("where")
            gone = run.result(60).result
            remove(gone)
            # What is sent to a node before it is known to be gone is lost with it.
            wait_for(lambda: gone not in [n["NodeID"] for n in ray.nodes() if n["Alive"]])
            time.sleep(3)
            ends = [started("where") for _ in range(2)]
            answer = [run.result(60).result in nodes for run, _ in ends]
        else:
            run, sink = started("linger", retries=1 if case == "retried" else 0)
            wait_for(lambda: said(sink, "here"))
            remove(said(sink, "here")[0]["node"])
            if case == "retried":
                wait_for(lambda: len(said(sink, "here")) == 2)
                free.touch()
            answer = told(run.result(60), sink)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(answer))
"""


@pytest.fixture(params=["ray-task", "ray-actor"])
def executor(request: pytest.FixtureRequest) -> str:
    """Return the name of each executor in turn."""
    return str(request.param)


@pytest.fixture
def drive(make_folder: Callable[..., Path], executor: str) -> Callable[[str], object]:
    """Return a function that runs the driver for a case, and returns what it says."""
    folder = make_folder({"actions.py": ACTIONS})
    script = make_folder({"driver.py": DRIVER}, "driver") / "driver.py"

    def run(case: str) -> object:
        done = subprocess.run(
            [sys.executable, str(script), str(folder), executor, case],
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        assert 0 == done.returncode, done
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_node_that_leaves_fails_the_run_it_had(drive: Callable[[str], dict[str, object]]):
    told = drive("failed")

    assert ["crash", "NodeDied", "the node that ran it has left the cluster"] == told["error"]
    assert [["pending", 1], ["running", 1], ["failed", 1]] == told["stages"]
    assert list(range(100)) == told["said"]
    assert list(range(1, len(told["numbers"]) + 1)) == told["numbers"]  # type: ignore[arg-type]


def test_a_run_that_is_retried_goes_to_another_node(drive: Callable[[str], dict[str, object]]):
    told = drive("retried")

    assert ("succeeded", 2) == (told["status"], told["result"])
    assert [
        ["pending", 1],
        ["running", 1],
        ["retrying", 1],
        ["running", 2],
        ["succeeded", 2],
    ] == told["stages"]
    assert [*range(100), *range(100)] == told["said"]
    assert list(range(1, len(told["numbers"]) + 1)) == told["numbers"]  # type: ignore[arg-type]


def test_a_node_that_leaves_without_a_run_of_ours_costs_none(drive: Callable[[str], object]):
    assert [True, True] == drive("idle")
