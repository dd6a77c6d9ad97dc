"""The kernel's own tests: on the lowest versions of what it needs, and under every other CPython here."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OLDEST = 11
NEWEST_LOOKED_FOR = 20
HERE = f"3.{sys.version_info.minor}"

# Of those on Ray the contract alone: a cluster for each version is dear.
TESTS = ["tests/kernel", "tests/plugins", "tests/cli", "--ignore=tests/plugins/ray_executors"]
RAY_TESTS = ["tests/plugins/ray_executors/test_contract.py"]


def other_interpreters() -> dict[str, list[Path]]:
    """
    Find what look like other CPythons from 3.11 up, by version.

    None is started here: this runs whenever tests are collected.
    """
    found: dict[str, list[Path]] = {}
    # A version manager's own folders before the path, where its stand-ins may refuse to start.
    for folder in sorted(Path.home().glob(".pyenv/versions/3.*")):
        version = re.fullmatch(r"(3\.(\d+))\.\d+", folder.name)
        if version and int(version[2]) >= OLDEST and (folder / "bin" / "python").exists():
            found.setdefault(version[1], []).append(folder / "bin" / "python")
    for minor in range(OLDEST, NEWEST_LOOKED_FOR + 1):
        if on_path := shutil.which(f"python3.{minor}"):
            found.setdefault(f"3.{minor}", []).append(Path(on_path))
    found.pop(HERE, None)
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[2])))


OTHERS = other_interpreters()
ALONE = pytest.mark.skip(reason=f"this machine has no CPython from 3.{OLDEST} up but {HERE}")


@pytest.fixture
def run_tests(root: Path, must: Callable[..., str]) -> Callable[[Path], None]:
    """Return a function that runs the kernel's tests in an environment; they must all pass."""

    def run(programs: Path) -> None:
        python, *options = programs / "python", "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider"
        for tests in (TESTS, RAY_TESTS):
            said = must(python, *options, *tests, cwd=root)
            print(said.strip().splitlines()[-1])

    return run


def test_the_lowest_versions_that_are_promised_will_do(
    fresh_environment: Callable[..., Path], run_tests: Callable[[Path], None], root: Path
):
    run_tests(fresh_environment("--resolution", "lowest-direct", "-e", ".[test]", cwd=root))


@pytest.mark.parametrize("version", OTHERS or [pytest.param("none", marks=ALONE)])
def test_another_python_will_do(
    fresh_environment: Callable[..., Path],
    run_tests: Callable[[Path], None],
    call: Callable[..., object],
    root: Path,
    version: str,
):
    asked = "import sys; print(sys.implementation.name, f'{sys.version_info[0]}.{sys.version_info[1]}')"
    for python in OTHERS[version]:
        if call(python, "-c", asked, cwd=root).stdout.split() == ["cpython", version]:
            run_tests(fresh_environment("-e", ".[test]", cwd=root, python=python))
            return
    pytest.skip(f"none of these starts as CPython {version}: {', '.join(map(str, OTHERS[version]))}")
