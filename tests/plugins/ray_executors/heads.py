"""A Ray head of a test's own: a process with a dashboard, on ports that are free."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

WAIT = 120


class Head(msgspec.Struct):
    """A cluster of one node, with a dashboard."""

    url: str
    token: Path
    folder: Path
    pid: int


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def start_head(folder: Path) -> tuple[subprocess.Popen[bytes], Head]:
    token = folder / "token"
    token.write_text(secrets.token_hex(16))
    names = ["port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    names += ["node-manager-port", "object-manager-port", "runtime-env-agent-port", "metrics-export-port"]
    names += ["ray-client-server-port"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    # Workers take any port that is free: a range would have to be clear of all others on the machine.
    arguments = [f"--{name}={port}" for name, port in ports.items()]
    arguments += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2"]
    arguments += ["--object-store-memory=80000000", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A head that is told to end waits for what runs there, by default half a minute.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *arguments],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", token, folder, process.pid)
    wait_for(lambda: process.poll() is not None or answers(head), "a head")
    assert process.poll() is None, (folder / "head.log").read_text()
    return process, head


def answers(head: Head) -> bool:
    asked = urllib.request.Request(
        f"{head.url}/api/jobs/", headers={"Authorization": f"Bearer {head.token.read_text()}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end_head(process: subprocess.Popen[bytes]) -> None:
    """End a head by its own process, and see that nothing of it is left."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)
    _, left = psutil.wait_procs(below, timeout=20)
    for each in left:
        each.kill()


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)
