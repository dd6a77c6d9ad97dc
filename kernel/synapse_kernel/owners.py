"""
Who runs a run: a process, told from every other, dead or alive, also when its number is used again.

A process is known by its number, its start time as the system counts it, the boot of its machine, and the
namespace that its number belongs to. No clock is read, so none can mislead.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel in a process; `token` tells it from other kernels of the same process."""

    token: str
    host: str
    """The machine's name, for people."""
    pid: int
    started: str
    """When the process started, in the system's own words; '' where it does not say."""
    boot: str
    """Which boot of which machine; '' where the system does not say."""
    namespace: str
    """Where the process number is valid: containers on one machine have each their own."""


def this_process(token: str = "") -> Owner:
    """Describe the process that asks; `token` defaults to a random one."""
    pid = os.getpid()
    return Owner(
        token=token or os.urandom(8).hex(),
        host=os.uname().nodename,
        pid=pid,
        started=_started(pid) or "",
        boot=_boot(),
        namespace=_namespace(),
    )


def is_alive(owner: Owner) -> bool | None:
    """
    Tell whether a process still exists: suspended counts as alive, a zombie does not.

    None where it cannot be known from here: on another machine, in another namespace, or of another user
    where the system hides their processes.
    """
    if not owner.boot or owner.boot != _boot() or owner.namespace != _namespace():
        return None
    started = _started(owner.pid)
    if started is None and _is_hidden(owner.pid):
        return None
    return started is not None and started == owner.started


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return _asked("sysctl", "-n", "kern.bootsessionuuid")


@cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a process, None if there is none of this number."""
    try:
        # The command's name stands in parentheses and may hold any character: count from its end.
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        state, _, started = _asked("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
        return None if state.startswith("Z") else started.strip() or None
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in {"Z", "X", "x"} else ticks


def _is_hidden(pid: int) -> bool:
    """Tell whether there is a process of this number that may not be looked at."""
    if os.access(f"/proc/{pid}/stat", os.R_OK):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _asked(*command: str) -> str:
    # Where /proc answers, nobody asks: not imported then.
    import subprocess

    try:
        # The same words whoever asks, in whatever place and language.
        env = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10, env=env)
        return done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
