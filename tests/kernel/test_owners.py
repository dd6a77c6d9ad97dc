"""Processes told apart: alive, suspended, dead, a zombie, another of the same number, on another machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from synapse_kernel import Kernel
from synapse_kernel.owners import Owner, is_alive, this_process

WAIT = 60


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for a minute at most."""
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that waits until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def owner(sleeper: subprocess.Popen[bytes]) -> Owner:
    """Describe that process, as it would describe itself."""
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, msgspec; from synapse_kernel import owners\n"
            "owners.os.getpid = lambda: int(sys.argv[1])\n"
            "print(msgspec.json.encode(owners.this_process()).decode())",
            str(sleeper.pid),
        ],
        capture_output=True,
        check=True,
    ).stdout
    return msgspec.json.decode(said, type=Owner)


def test_this_process_is_alive_and_says_where_it_is() -> None:
    owner = this_process()

    assert is_alive(owner) is True
    assert os.getpid() == owner.pid
    assert os.uname().nodename == owner.host
    assert "" not in (owner.started, owner.boot, owner.namespace, owner.token)


def test_two_kernels_of_a_process_differ_by_their_token_alone() -> None:
    first, second = this_process(), this_process()

    assert first.token != second.token
    assert first == msgspec.structs.replace(second, token=first.token)
    assert "mine" == this_process("mine").token


def test_another_process_is_alive_until_it_has_ended(sleeper: subprocess.Popen[bytes], owner: Owner) -> None:
    assert is_alive(owner) is True

    sleeper.kill()
    sleeper.wait()

    assert is_alive(owner) is False


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes], owner: Owner) -> None:
    sleeper.kill()
    wait_until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE)

    assert is_alive(owner) is False


def test_a_suspended_process_is_alive(sleeper: subprocess.Popen[bytes], owner: Owner) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)

    assert is_alive(owner) is True


def test_another_process_under_the_same_number_is_not_the_owner(owner: Owner) -> None:
    assert is_alive(msgspec.structs.replace(owner, started=f"{int(owner.started) - 1}")) is False


@pytest.mark.parametrize("place", ["boot", "namespace"])
def test_of_a_process_elsewhere_nothing_is_known(owner: Owner, place: str) -> None:
    assert is_alive(msgspec.structs.replace(owner, **{place: "another"})) is None


def test_where_the_system_does_not_say_which_boot_it_is_nothing_is_known(owner: Owner) -> None:
    assert is_alive(msgspec.structs.replace(owner, boot="")) is None


def test_a_process_whose_name_looks_like_its_state_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / ") Z 0 (x"
    program.symlink_to(sys.executable)
    code = "from synapse_kernel.owners import *; print(is_alive(this_process()))"

    said = subprocess.run(
        [str(program), "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "True\n" == said.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="takes a system of one's own to mount")
def test_of_a_process_that_the_system_hides_nothing_is_known(owner: Owner) -> None:
    script = (
        "import os, sys, msgspec; from synapse_kernel.owners import Owner, is_alive\n"
        "owner = msgspec.json.decode(sys.argv[1], type=Owner)\n"
        "gone = msgspec.structs.replace(owner, pid=2**22 - 1)\n"
        "assert is_alive(owner)\n"  # now, while all modules may be read
        "os.setgid(65534); os.setuid(65534)\n"
        "print(is_alive(owner), is_alive(gone))"
    )
    mounted = 'mount -t proc -o hidepid=2 proc /proc || exit 9; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", script]

    done = subprocess.run([*command, msgspec.json.encode(owner)], capture_output=True, text=True, check=False)

    if done.returncode in {1, 9} and "python" not in done.stderr.lower():
        pytest.skip(f"a system of one's own cannot be mounted here: {done.stderr}")
    assert ("None False\n", "") == (done.stdout, done.stderr)


def test_threads_that_ask_a_kernel_at_once_are_told_the_same_owner() -> None:
    barrier, told = threading.Barrier(8), set()

    def ask(kernel: Kernel) -> None:
        barrier.wait(30)
        told.add(kernel.owner.token)

    for _ in range(20):
        told.clear()
        with Kernel(entry_points=[]) as kernel:
            threads = [threading.Thread(target=ask, args=(kernel,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert 1 == len(told)
