"""What becomes of a run whose node runs out of memory: on a cluster that takes little for too much."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

WAIT = 180
# What an action may allocate before its cluster takes it for too much, and what it allocates at most.
ALLOWED, WANTED = 3 << 29, 4 << 30
ACTIONS = """
    import time

    from synapse_kernel import action

    PART = 32 << 20


    @action
    def devour(params, ctx):
        for number in range(100):
            ctx.log("said", {"n": number})
        kept = []
        while len(kept) * PART < params["bytes"]:
            kept.append(bytearray(b"x" * PART))
        # It is looked at from time to time.
        time.sleep(20)
        return "not killed"


    @action
    def nothing(params):
        return "done"
"""
DRIVER = """
    import json
    import os
    import sys

    import psutil
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_used_memory

    from synapse_kernel import Kernel, Log
    from synapse_kernel.testing import RecordedSink

    folder, executor, allowed, wanted = sys.argv[1:]
    # Of the memory as Ray counts it: the machine's, or a container's own.
    machine, total = psutil.virtual_memory(), get_system_memory()
    used = machine.total - machine.available if total == machine.total else get_used_memory()
    os.environ["RAY_memory_usage_threshold"] = str((used + int(allowed)) / total)
    os.environ["RAY_memory_monitor_refresh_ms"] = "50"
    settings = {"ray": {"address": "local", "local_cpus": 1, "local_memory": 80_000_000}}
    with Kernel(settings) as kernel:
        sink = RecordedSink()
        run = kernel.submit(folder, "devour", {"bytes": int(wanted)}, executor=executor, sinks=[sink])
        outcome = run.result(60)
        error = outcome.error
        # Tried again while the memory is not free yet.
        after = kernel.submit(folder, "nothing", executor=executor, retries=5).result(60)
        answer = {
            "error": error and [error.kind, error.type, error.message],
            "output": error and error.output,
            "said": [event.data["n"] for event in sink.of(Log)],
            "states": [state for state in sink.states if state != "pending"],
            "after": after.result,
        }
    print(json.dumps(answer))
"""


@pytest.mark.parametrize("executor", ["ray-task", "ray-actor"])
def test_an_action_that_takes_too_much_memory_fails_with_all_that_it_said(
    make_folder: Callable[..., Path], executor: str
):
    if psutil.virtual_memory().available < 3 * WANTED // 2:
        pytest.skip(f"less than {3 * WANTED // 2 >> 30} GiB of memory are free")
    folder = make_folder({"actions.py": ACTIONS})
    script = make_folder({"driver.py": DRIVER}, "driver") / "driver.py"

    done = subprocess.run(
        [sys.executable, str(script), str(folder), executor, str(ALLOWED), str(WANTED)],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )

    assert (0, "") == (done.returncode, done.stderr)
    told = json.loads(done.stdout)
    assert ["crash", "OutOfMemory", "Ray ended the worker: its node ran out of memory"] == told["error"]
    assert "`RAY_memory_usage_threshold`" in told["output"]
    assert list(range(100)) == told["said"]
    assert ["running", "failed"] == told["states"]
    assert "done" == told["after"]
