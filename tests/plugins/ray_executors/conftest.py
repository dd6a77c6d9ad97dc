"""A Ray cluster of the tests' own, and kernels that use it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.plugins.ray_executors.heads import Head, end_head, start_head

from synapse_kernel import Kernel


@pytest.fixture(scope="session", autouse=True)
def ray_surroundings() -> Iterator[Path]:
    """Give Ray a folder, a token and variables of its own: nothing of the machine's is found or touched."""
    # Short: Ray puts sockets there, whose names have little room.
    folder = Path(tempfile.mkdtemp(prefix="r"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    wanted = {
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # An environment that cannot be built is not tried three times.
        "RUNTIME_ENV_RETRY_TIMES": "1",
        # A warning of Ray's own about a default that it will change.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            # Set first, so that it is put back also where Ray itself sets it meanwhile.
            patch.setenv(name, "")
            patch.delenv(name)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_settings(ray_surroundings: Path) -> Iterator[dict[str, object]]:
    """Return the section `ray` of settings for one cluster of two CPUs, which lasts for the session."""
    settings: dict[str, object] = {
        "address": "local",
        "local_cpus": 2,
        "local_memory": 150_000_000,
        "token_path": str(ray_surroundings / "token"),
    }
    from synapse_plugins.ray_executors.connection import connect, release

    with Kernel({"ray": settings}) as kernel:
        connect(kernel, kernel)
        try:
            yield settings
        finally:
            release(kernel)


@pytest.fixture
def ray_kernel(ray_settings: Mapping[str, object]) -> Iterator[Callable[..., Kernel]]:
    """Return a function that makes a kernel on the session's cluster; keywords go into its section `ray`."""
    made: list[Kernel] = []

    def make(settings: Mapping[str, object] | None = None, **section: object) -> Kernel:
        made.append(Kernel({**(settings or {}), "ray": {**ray_settings, **section}}, strict=True))
        return made[-1]

    yield make
    for kernel in made:
        kernel.shutdown()


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """Return a head with a dashboard, which lasts for the session."""
    # Short: Ray puts sockets there, whose names have little room.
    folder = Path(tempfile.mkdtemp(prefix="rj"))
    process, found = start_head(folder)
    yield found
    end_head(process)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pid_is_gone() -> Callable[[int], bool]:
    """Return a function that tells whether a process is no more."""

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return gone
