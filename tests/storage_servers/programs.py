"""How a server of the tests' own is started, waited for and ended, and what a test does without it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from tests.storage_servers.asking import ask

HOST = "127.0.0.1"
WAIT = 60
TRIES = 3

# Not SYNAPSE_…: the tests' own fixtures take those away.
REQUIRED = "REQUIRE_STORAGE_SERVERS"


@dataclasses.dataclass(frozen=True)
class Program:
    """A process that serves a port."""

    port: int
    pid: int
    log: Path


def absent(what: str) -> NoReturn:
    """Skip the test that asked for a server which is not installed; where all must be there, fail it."""
    reason = f"{what}, which this test needs, is not installed"
    if os.environ.get(REQUIRED, "") not in {"", "0"}:
        pytest.fail(f"{reason}, and {REQUIRED} is set", pytrace=False)
    pytest.skip(reason)


def need_program(name: str, package: str) -> str:
    """Return the path of a program; without it the test is skipped."""
    # A server lies where only root's path leads.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path) or absent(f"{name} (package {package})")


def need_module(name: str, package: str) -> None:
    """Skip the test where a module is missing."""
    if importlib.util.find_spec(name) is None:
        absent(f"{name} (Python package {package})")


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.02)


def speaks_http(port: int) -> bool:
    """Tell whether a port answers a request, with whatever status."""
    try:
        ask("GET", f"http://{HOST}:{port}/")
    except (OSError, HTTPException):
        return False
    return True


def speaks_first(port: int) -> bool:
    """Tell whether a port greets who connects."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False


@contextlib.contextmanager
def serving(
    command: Callable[[int], Sequence[str | Path]],
    folder: Path,
    ready: Callable[[int], bool],
    variables: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """
    Run a command on a free port while the block lasts, its output in `folder`/log.

    Another takes the port before the command does, now and then: then it is tried again on another one.
    """
    log = folder / "log"
    for _ in range(TRIES):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_tied(), *(str(part) for part in command(port))],
                env={**os.environ, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            if _starts(process, functools.partial(ready, port)):
                yield Program(port, process.pid, log)
                return
        finally:
            end(process)
    raise AssertionError(f"{process.args!r} ended at once:\n{log.read_text(errors='replace')}")


def _tied() -> list[str]:
    """Return what goes before a command so that it ends where the tests are killed, if there is a way."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _starts(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    wait_for(lambda: process.poll() is not None or ready(), f"{process.args!r}")
    return process.poll() is None


def end(process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """End a process that was started here, and what it started."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(seconds)
    for each in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    _, left = psutil.wait_procs(below, timeout=seconds)
    for each in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
