"""Which cluster a process gets, and what it is told where there is none."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.errors import UsageError
from synapse_plugins.ray_executors.connection import connect, release
from synapse_plugins.ray_executors.heads import why_no_head

WAIT = 120
DRIVER = """
    import sys
    from functools import cache

    from ray._private import services

    from synapse_kernel import Kernel
    from synapse_kernel.errors import SynapseError
    from synapse_plugins.ray_executors.connection import connect, release

    address, token_path = sys.argv[1:]
    # Ray finds the clusters of a machine by its processes: those of others are none of ours.
    services.find_gcs_addresses = cache(set)
    settings = {"address": address or None, "connect_timeout": 2.0, "local_cpus": 1}
    if token_path:
        settings["token_path"] = token_path
    with Kernel({"ray": settings}) as kernel:
        try:
            print(connect(kernel, kernel).announcement)
        except SynapseError as error:
            print(type(error).__name__, error)
        release(kernel)
"""
NONE_ANSWERS = (
    "ClusterError No Ray cluster answers at {address}: {reason}\n"
    "  start one with: ray start --head\n"
    "  name another with: --set ray.address=HOST:PORT, or 'local' for one of this process\n"
)


@pytest.fixture
def ask(make_folder: Callable[..., Path]) -> Callable[..., str]:
    """Return a function that connects in another process, and returns what that says."""
    script = make_folder({"driver.py": DRIVER}, "driver") / "driver.py"

    def connected(address: str, token_path: str = "", noise: str = "") -> str:
        done = subprocess.run(
            [sys.executable, str(script), address, token_path],
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        assert 0 == done.returncode
        assert [] == [line for line in done.stderr.splitlines() if not noise or noise not in line]
        return done.stdout

    return connected


@pytest.fixture
def free_address() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Return an address where somebody listens who says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture
def http_address() -> Iterator[str]:
    """Return the address of a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name


def test_an_address_where_nobody_listens_is_told(ask: Callable[..., str], free_address: str):
    expected = NONE_ANSWERS.format(address=free_address, reason="[Errno 111] Connection refused")
    assert expected == ask(free_address)


def test_an_address_that_accepts_and_says_nothing_is_told_in_time(
    ask: Callable[..., str], silent_address: str
):
    expected = NONE_ANSWERS.format(address=silent_address, reason="nothing was said in 2 seconds")
    assert expected == ask(silent_address)


def test_an_address_of_another_service_is_told(ask: Callable[..., str], http_address: str):
    reason = "what listens there is no cluster's head"
    assert NONE_ANSWERS.format(address=http_address, reason=reason) == ask(http_address)


def test_a_name_that_no_host_has_is_told(ask: Callable[..., str]):
    assert ask("no-such-host.invalid:6379").startswith(
        "ClusterError No Ray cluster answers at no-such-host.invalid:6379: "
    )


def test_automatic_without_a_cluster_is_told(ask: Callable[..., str]):
    told = ask("auto")

    assert told.startswith("ClusterError No Ray cluster answers of this machine: Could not find any running")
    assert told.endswith(NONE_ANSWERS.partition("\n")[2])


def test_an_address_that_is_none_is_told(ask: Callable[..., str]):
    assert (
        "UsageError ray.address 'nonsense' is no address\n"
        "  allowed: auto, local, host:port of the cluster's head, or the http:// URL of its dashboard\n"
    ) == ask("nonsense")


def test_a_dashboards_address_is_for_jobs(ask: Callable[..., str]):
    assert (
        "UsageError ray.address 'http://10.0.0.1:8265' is a dashboard's, which takes jobs alone\n"
        "  give the head's host:port, or use --executor ray-job\n"
    ) == ask("http://10.0.0.1:8265")


def test_ray_client_is_told_what_to_use_instead(ask: Callable[..., str]):
    assert (
        "UsageError ray.address 'ray://10.0.0.1:10001' is of Ray Client, which streams no events\n"
        "  give the head's host:port, or its dashboard's http:// address with --executor ray-job\n"
    ) == ask("ray://10.0.0.1:10001")


def test_a_file_of_the_token_that_is_not_there_is_told(ask: Callable[..., str], tmp_path: Path):
    missing = str(tmp_path / "missing")

    assert f"UsageError ray.token_path: there is no file {missing}\n" == ask("local", missing)


@pytest.mark.slow
def test_a_wrong_token_is_told(
    ask: Callable[..., str],
    ray_kernel: Callable[..., Kernel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    wrong = tmp_path / "token"
    wrong.write_text("0123456789abcdef" * 4)
    kernel = ray_kernel()
    address = connect(kernel, kernel).address
    release(kernel)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)

    # Ray says so too, on stderr, each time that it tries.
    told = ask(address, str(wrong), "InvalidAuthToken")

    assert "token" in told.partition("\n")[0]
    assert told.startswith("ClusterError ")
    assert told.endswith("\n  name the file that holds it with: --set ray.token_path=FILE\n")


def test_the_same_token_is_taken(ask: Callable[..., str], ray_kernel: Callable[..., Kernel]):
    kernel = ray_kernel()
    address = connect(kernel, kernel).address
    release(kernel)

    assert ask(address).startswith(f"connected to the Ray cluster at {address}: 2 CPUs, ")


@pytest.mark.slow
def test_without_an_address_and_a_cluster_one_is_started(ask: Callable[..., str]):
    assert ask("").startswith("started a Ray cluster for this process: 1 CPU, ")


def test_a_process_has_one_cluster(ray_kernel: Callable[..., Kernel], free_address: str):
    kernel, other = ray_kernel(), ray_kernel(address=free_address)
    address = connect(kernel, kernel).address
    try:
        with pytest.raises(UsageError) as caught:
            connect(other, other)
    finally:
        release(kernel)

    assert (
        f"ray.address {free_address!r}: this process is connected to the Ray cluster at {address}\n"
        "  one process has one Ray cluster; use another process for another cluster"
    ) == str(caught.value)


def test_a_head_is_known_without_ray(
    ray_kernel: Callable[..., Kernel], silent_address: str, http_address: str, free_address: str
):
    kernel = ray_kernel()
    address = connect(kernel, kernel).address
    release(kernel)

    assert why_no_head(address, 30) is None
    assert "[Errno 111] Connection refused" == why_no_head(free_address, 30)
    assert "what listens there is no cluster's head" == why_no_head(http_address, 30)
    began = time.monotonic()
    assert "nothing was said in 0.1 seconds" == why_no_head(silent_address, 0.1)
    assert time.monotonic() - began < 30
