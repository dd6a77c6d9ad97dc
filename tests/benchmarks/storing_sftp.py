"""The provider `sftp` against fsspec's own and the `sftp` program, over one OpenSSH, in the same run."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from figures import Figure, at_least, at_most, at_most_of, seconds_of

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.storage_servers.proxies import delay_proxy
from tests.storage_servers.sftp import SftpServer, sftp_server

from synapse_kernel.storage import Storage
from synapse_kernel.storage.providers import configured

FILES = 200
SIZE = 100_000
LARGE = 512 << 20
DELAY = 20.0
PAIRS = 5
LARGE_PAIRS = 3

# In a process of its own: what it needs at most is what it needed for this, and for the interpreter.
MEASURED = """
import re, sys
sys.path.insert(0, sys.argv[1])
import storing_sftp
def most():
    # Not getrusage: that counts what the process was before it became this program.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
storage = storing_sftp.storage_of(*sys.argv[2:7])
storage.exists("x")
before = most()
getattr(storage, sys.argv[7])(*sys.argv[8:10])
print(most() - before)
storage.close()
"""


def figures() -> list[Figure]:
    """Measure each."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        place = Path(folder)
        (place / "server").mkdir()
        with sftp_server(place / "server") as server:
            tree = server.root / "tree"
            tree.mkdir()
            for number in range(FILES):
                (tree / f"{number:03}.bin").write_bytes(os.urandom(SIZE))
            with (server.root / "large").open("wb") as file:
                for _ in range(LARGE >> 20):
                    file.write(os.urandom(1 << 20))
            found = [*_many(server, place), *_large(server, place), *_needed(server, place)]
            with delay_proxy(server.port, DELAY) as proxy:
                found += _away(server.through(proxy.port), place)
        return found


def storage_of(port: str, username: str, private_key: str, known_hosts: str, root: str) -> Storage:
    """Return a folder of a server on this machine as the project opens it."""
    from synapse_plugins.storage.sftp.provider import SftpProvider

    values = {
        "host": "127.0.0.1",
        "port": int(port),
        "username": username,
        "private_key": private_key,
        "known_hosts": known_hosts,
        "root_path": root,
    }
    return Storage(SftpProvider(configured(SftpProvider, values)))


def _asked(server: SftpServer) -> list[str]:
    known_hosts = str(server.known_hosts)
    return [str(server.port), server.username, str(server.private_key), known_hosts, str(server.root)]


def _ours(server: SftpServer, operation: str, *arguments: str) -> Callable[[], object]:
    """Return a call that connects, transfers, and hangs up, as the program does."""

    def call() -> object:
        storage = storage_of(*_asked(server))
        try:
            return getattr(storage, operation)(*arguments)
        finally:
            storage.close()

    return call


def _program(server: SftpServer, order: str) -> Callable[[], object]:
    command = ["sftp", "-q", "-P", str(server.port), "-i", str(server.private_key), "-F", "none", "-b", "-"]
    command += ["-o", f"UserKnownHostsFile={server.known_hosts}", f"{server.username}@{server.host}"]

    def call() -> object:
        return subprocess.run(command, input=order, text=True, check=True, capture_output=True)

    return call


def _fsspec(server: SftpServer, source: str, target: str) -> Callable[[], object]:
    from fsspec.implementations.sftp import SFTPFileSystem

    def call() -> object:
        filesystem = SFTPFileSystem(
            server.host,
            port=server.port,
            username=server.username,
            key_filename=str(server.private_key),
            skip_instance_cache=True,
        )
        try:
            return filesystem.get(source, target, recursive=True)
        finally:
            filesystem.client.close()

    return call


def _many(server: SftpServer, place: Path) -> list[Figure]:
    tree = f"{server.root}/tree"
    ours, program, fsspec = _in_turn(
        place,
        lambda name: _ours(server, "download", "tree", f"{name}/tree"),
        lambda name: _program(server, f"get -r {tree} {name}/tree\n"),
        lambda name: _fsspec(server, tree, f"{name}/tree"),
    )
    up, program_up = _in_turn(
        place,
        lambda name: _ours(server, "upload", tree, f"up/{Path(name).name}"),
        lambda name: _program(server, f"put -r {tree} {name}\n"),
    )
    label = f"sftp, {FILES} files of {SIZE // 1000} kB"
    return [
        at_most(f"{label}: get", _ratio(ours, program), 1.2, _label("the sftp program", program)),
        at_least(f"{label}: get", _ratio(fsspec, ours), 5, "x", _label("fsspec's own", fsspec)),
        at_most(f"{label}: put", _ratio(up, program_up), 2, _label("the sftp program", program_up)),
    ]


def _away(server: SftpServer, place: Path) -> list[Figure]:
    ours, program = _in_turn(
        place,
        lambda name: _ours(server, "download", "tree", f"{name}/tree"),
        lambda name: _program(server, f"get -r {server.root}/tree {name}/tree\n"),
        pairs=1,
    )
    label = f"sftp, {FILES} files of {SIZE // 1000} kB, {DELAY:.0f} ms away: get"
    return [at_most(label, _ratio(ours, program), 1.2, _label("the sftp program", program))]


def _large(server: SftpServer, place: Path) -> list[Figure]:
    large = f"{server.root}/large"
    ours, program = _in_turn(
        place,
        lambda name: _ours(server, "download", "large", f"{name}/large"),
        lambda name: _program(server, f"get {large} {name}/large\n"),
        pairs=LARGE_PAIRS,
    )
    up, program_up = _in_turn(
        place,
        lambda name: _ours(server, "upload", large, "large-up"),
        lambda name: _program(server, f"put {large} {name}/large\n"),
        pairs=LARGE_PAIRS,
    )
    label = f"sftp, one file of {LARGE >> 20} MiB"
    return [
        at_most(f"{label}: get", _ratio(ours, program), 1.5, _label("the sftp program", program)),
        at_most(f"{label}: put", _ratio(up, program_up), 1.5, _label("the sftp program", program_up)),
    ]


def _needed(server: SftpServer, place: Path) -> list[Figure]:
    found = []
    for operation, *arguments in (
        ["download", "large", f"{place}/needed"],
        ["upload", f"{server.root}/large", "needed"],
    ):
        command = [sys.executable, "-c", MEASURED, str(Path(__file__).parent), *_asked(server)]
        done = subprocess.run([*command, operation, *arguments], check=True, capture_output=True, text=True)
        name = f"sftp, one file of {LARGE >> 20} MiB: {operation}, memory"
        found.append(at_most_of(name, float(done.stdout), "MiB", 150, "over what it had when connected"))
    Path(place, "needed").unlink()
    return found


def _in_turn(
    place: Path, *makers: Callable[[str], Callable[[], object]], pairs: int = PAIRS
) -> list[list[float]]:
    """Return the seconds of each call, taken in turn after one round to warm up, each into a new folder."""
    times: list[list[float]] = [[] for _ in makers]
    numbers = count()
    for turn in range(pairs + 1):
        for maker, taken in zip(makers, times, strict=True):
            folder = place / f"turn-{next(numbers)}"
            folder.mkdir()
            seconds = seconds_of(maker(str(folder)))
            shutil.rmtree(folder)
            if turn:
                taken.append(seconds)
    return times


def _ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def _label(name: str, seconds: list[float]) -> str:
    return f"{name}: {statistics.median(seconds):.2f} s"
