"""The page on Ray does what it says: its commands start a cluster of two nodes, and kill one of them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from tests.plugins.ray_executors.heads import free_ports

# `ray start`, with ports that are free for what the two nodes of the page, on one machine, would share.
_RAY = """#!{python}
import socket, sys
from ray.scripts.scripts import main
if sys.argv[1] == "start":
    names = ["dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"]
    names += ["dashboard-port", "ray-client-server-port"] if "--head" in sys.argv else []
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    sys.argv += [f"--{{name}}={{port}}" for name, port in zip(names, ports)]
    sys.argv += ["--min-worker-port=0", "--max-worker-port=0"]
sys.exit(main())
"""


@pytest.fixture
def run_with_ray(
    run_blocks: Callable[[Path, Mapping[str, str]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], None]]:
    """Return a function that runs the blocks of a page, for which Ray has a folder and ports of its own."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    # Short: Ray puts sockets there, whose names have little room.
    folder = Path(tempfile.mkdtemp(prefix="rd"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ray").write_text(_RAY.format(python=sys.executable), encoding="utf-8")
    (programs / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    (port,) = free_ports(1)
    try:
        yield lambda page: run_blocks(page, {"6379": str(port)})
    finally:
        for file in Path.cwd().glob("*.pid"):
            end(int(file.read_text()))
        shutil.rmtree(folder, ignore_errors=True)


def end(pid: int) -> None:
    """End a process that a block left, if it did, with all that it started."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    ours = [process, *process.children(recursive=True)]
    process.terminate()
    for each in psutil.wait_procs(ours, timeout=20)[1]:
        each.kill()


@pytest.mark.slow
def test_the_examples_of_the_page_on_ray_run_and_print_what_it_shows(
    docs: Path, run_with_ray: Callable[[Path], None]
):
    run_with_ray(docs / "how-to/ray.md")
