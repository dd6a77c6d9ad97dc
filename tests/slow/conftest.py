"""What the slow tests share: fresh environments, and commands run in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

# Generous: what is not in the package cache comes over the network, on a machine with other work.
LIMIT_SECONDS = 1800

# What would make a fresh environment the caller's: its virtual environment, its settings, its options.
_CALLERS = ("CONDA_", "PYTEST_", "PYTHON", "SYNAPSE_", "VIRTUAL_ENV")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the tree under test."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables of a shell in which nothing is set up yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CALLERS)}
    return kept | {
        # The interpreter under this one, so that `python3` is the Python under test.
        "PATH": os.pathsep.join([str(Path(sys._base_executable).parent), kept.get("PATH", os.defpath)]),
        "SYNAPSE_HOME": str(tmp_path_factory.mktemp("home")),
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def call(environ: Mapping[str, str]) -> Command:
    """Return a function that runs a command, whatever its exit code, and returns what it said."""

    def call(
        *command: str | Path, cwd: Path, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    return call


@pytest.fixture(scope="session")
def must(call: Command) -> Callable[..., str]:
    """Return a function that runs a command which has to succeed, and returns its stdout."""

    def must(*command: str | Path, cwd: Path, variables: Mapping[str, str] | None = None) -> str:
        done = call(*command, cwd=cwd, variables=variables)
        if done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
            pytest.fail(
                "\n".join([f"exit code {done.returncode}: {' '.join(map(str, command))}", *said[-60:]])
            )
        return done.stdout

    return must


@pytest.fixture(scope="session")
def fresh_environment(
    must: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that makes an environment, installs into it, and returns its folder of programs."""

    def make(*install: str | Path, cwd: Path, python: str | Path = sys.executable) -> Path:
        from uv import find_uv_bin

        uv = find_uv_bin()
        programs = tmp_path_factory.mktemp("environment") / "bin"
        must(uv, "venv", "--quiet", "--python", python, programs.parent, cwd=cwd)
        must(uv, "pip", "install", "--quiet", "--python", programs / "python", *install, cwd=cwd)
        return programs

    return make


@pytest.fixture(scope="session")
def build_wheel(must: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return a function that builds a project with what is installed here, and returns the wheel."""

    def build(project: Path) -> Path:
        place = tmp_path_factory.mktemp("wheel")
        must(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, cwd=project)
        (wheel,) = place.iterdir()
        return wheel

    return build
