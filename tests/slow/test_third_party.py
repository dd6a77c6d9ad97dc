"""
A third party extends the kernel from a package of its own.

The package in `docs/examples/third_party` and the kernel are built as wheels and installed, with what they
need and nothing else, in a fresh environment; all is seen through the installed `synapse-kernel`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

# The base stays small; what it needs may grow a little with its releases, hence some room in both.
MOST_PACKAGES = 29
MOST_MEGABYTES = 40


class Installed(NamedTuple):
    """The environment with both wheels."""

    programs: Path
    site: Path
    packages: dict[str, str]
    """Versions by name, as they were right after the installation."""
    megabytes: float


@pytest.fixture(scope="module")
def third_party(root: Path) -> Path:
    """Return the sources of the third party's package."""
    return root / "docs" / "examples" / "third_party"


@pytest.fixture(scope="module")
def kernel_wheel(build_wheel: Callable[[Path], Path], root: Path) -> Path:
    """Return the kernel's wheel, built from the tree."""
    return build_wheel(root)


@pytest.fixture(scope="module")
def third_party_wheel(build_wheel: Callable[[Path], Path], third_party: Path) -> Path:
    """Return the third party's wheel."""
    return build_wheel(third_party)


@pytest.fixture(scope="module")
def installed(
    fresh_environment: Callable[..., Path],
    kernel_wheel: Path,
    third_party_wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Installed:
    """Return a fresh environment in which both wheels are installed."""
    programs = fresh_environment(kernel_wheel, third_party_wheel, cwd=tmp_path_factory.mktemp("elsewhere"))
    (site,) = programs.parent.glob("lib/python*/site-packages")
    found = importlib.metadata.distributions(path=[str(site)])
    return Installed(
        programs=programs,
        site=site,
        packages={distribution.name: distribution.version for distribution in found},
        megabytes=sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 1e6,
    )


@pytest.fixture
def synapse(
    call: Callable[..., subprocess.CompletedProcess[str]], installed: Installed, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the installed `synapse-kernel` in an empty folder."""
    return lambda *arguments: call(installed.programs / "synapse-kernel", *arguments, cwd=tmp_path)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return a file with five words on two lines."""
    file = tmp_path / "text.txt"
    file.write_text("The cat saw\nthe dog\n", encoding="utf-8")
    return file


def test_the_kernels_wheel_installs_its_two_packages_and_nothing_else(kernel_wheel: Path):
    with zipfile.ZipFile(kernel_wheel) as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {"synapse_kernel", "synapse_plugins"} == {top for top in tops if not top.endswith(".dist-info")}
    assert 1 == len([top for top in tops if top.endswith(".dist-info")])


def test_the_kernels_wheel_is_typed_and_carries_its_licence(kernel_wheel: Path, root: Path):
    with zipfile.ZipFile(kernel_wheel) as wheel:
        names = wheel.namelist()
        (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        text = wheel.read(licence).decode()

    assert {"synapse_kernel/py.typed", "synapse_plugins/py.typed"} <= set(names)
    assert (root / "LICENSE").read_text(encoding="utf-8") == text
    assert "Apache License" in text


def test_only_what_the_base_needs_is_installed(installed: Installed):
    names = sorted(installed.packages)
    print(f"{len(names)} packages, {installed.megabytes:.1f} MB: {', '.join(names)}")

    assert {"synapse-kernel", "synapse-acme"} <= set(names)
    assert MOST_PACKAGES >= len(names)
    assert MOST_MEGABYTES >= installed.megabytes
    assert {"ray", "torch", "numpy", "pytest", "pip"}.isdisjoint(names)


def test_the_plugin_is_active_with_its_contributions(synapse, third_party_wheel: Path):
    plugins = json.loads(synapse("plugins", "list", "--all", "--json").stdout)

    (acme,) = [plugin for plugin in plugins if plugin["name"] == "acme"]
    assert {
        "display": "synapse-acme[acme]",
        "distribution": "synapse-acme",
        "version": third_party_wheel.name.split("-")[1],
        "state": "active",
        "value": "synapse_acme",
        "hooks": [
            "synapse_register_actions",
            "synapse_register_commands",
            "synapse_register_executors",
            "synapse_register_sinks",
        ],
    } == {key: acme[key] for key in ("display", "distribution", "version", "state", "value", "hooks")}
    assert {
        ("actions", "acme", "available"),
        ("commands", "acme-hello", "available"),
        ("executors", "acme-threads", "available"),
        ("sinks", "acme-tally", "available"),
    } == {(given["kind"], given["name"], given["state"]) for given in acme["contributions"]}


def test_every_plugin_of_the_fresh_environment_is_active(synapse):
    done = synapse("--strict-plugins", "plugins", "--json")

    assert (0, "") == (done.returncode, done.stderr)
    assert {"active"} == {plugin["state"] for plugin in json.loads(done.stdout)}


def test_its_action_runs_in_its_executor_and_its_sink_tells_of_it(synapse, text: Path, tmp_path: Path):
    done = synapse(
        "run", "acme", "count", "-p", f"path={text}", "--executor", "acme-threads",
        "--sink", "acme-tally:tally.json", "--json",
    )  # fmt: skip

    outcome = json.loads(done.stdout)
    assert ("succeeded", {"lines": 2, "words": 5, "top": {"the": 2, "cat": 1, "saw": 1}}) == (
        outcome["status"],
        outcome["result"],
    )
    assert {
        "run_id": outcome["run_id"],
        "action": "count",
        "executor": "acme-threads",
        "status": "succeeded",
        "events": {"log": 1, "metrics": 1, "progress": 1, "state": 3},
    } == json.loads((tmp_path / "tally.json").read_text(encoding="utf-8"))
    assert 0 == done.returncode


def test_its_action_runs_in_a_process_of_its_own(synapse, text: Path):
    done = synapse("run", "acme", "count", "-p", f"path={text}", "--executor", "process", "--json")

    assert {"lines": 2, "words": 5, "top": {"the": 2, "cat": 1, "saw": 1}} == json.loads(done.stdout)[
        "result"
    ]


def test_its_sink_refuses_a_run_without_a_file(synapse, text: Path):
    done = synapse("run", "acme", "count", "-p", f"path={text}", "--sink", "acme-tally")

    assert (2, "Error: The sink 'acme-tally' needs a file: --sink acme-tally:FILE\n") == (
        done.returncode,
        done.stderr,
    )


def test_ctrl_c_cancels_an_action_in_its_executor(
    installed: Installed, environ: Mapping[str, str], tmp_path: Path
):
    command = [
        installed.programs / "synapse-kernel", "run", "acme", "pause", "-p", "seconds=3000",
        "--executor", "acme-threads", "--sink", "jsonl:-", "--sink", "acme-tally:tally.json",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for line in process.stdout:
            if json.loads(line)["kind"] == "log":
                break
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)

    assert 130 == process.returncode, errors
    assert "cancelled" == json.loads((tmp_path / "tally.json").read_text(encoding="utf-8"))["status"]


def test_its_command_stands_in_the_help_and_works(synapse):
    assert ["acme-hello", "Greet from Acme."] == next(
        line.split(maxsplit=1) for line in synapse("--help").stdout.splitlines() if "acme-hello" in line
    )
    assert "Hello Ada, from Acme.\n" == synapse("acme-hello", "Ada").stdout


@pytest.fixture
def imported(installed: Installed, call, tmp_path: Path) -> Callable[..., set[str]]:
    """Return a function that runs `synapse-kernel` and returns the third party's modules it imported."""

    def imported(*arguments: str) -> set[str]:
        script = installed.programs / "synapse-kernel"
        said = call(installed.programs / "python", "-v", script, *arguments, cwd=tmp_path).stderr
        names = set(re.findall(r"^import '([\w.]+)'", said, re.MULTILINE))
        assert "synapse_kernel.plugins" in names
        return {name for name in names if name.partition(".")[0] == "synapse_acme"}

    return imported


def test_its_code_is_imported_only_when_it_is_used(imported: Callable[..., set[str]]):
    assert {"synapse_acme"} == imported("--help")
    assert {"synapse_acme", "synapse_acme.hello"} == imported("acme-hello")


@pytest.mark.parametrize("name", ["acme", "synapse-acme[acme]"])
def test_it_is_blocked_before_it_is_imported(synapse, imported: Callable[..., set[str]], name: str):
    plugins = json.loads(synapse("--without", name, "plugins", "--json").stdout)

    (acme,) = [plugin for plugin in plugins if plugin["name"] == "acme"]
    assert ("blocked", "blocked by --without", None) == (acme["state"], acme["reason"], acme["import_ms"])
    assert set() == imported("--without", name, "plugins")


def test_what_it_gives_is_gone_while_it_is_blocked(synapse):
    blocked = synapse("--without", "acme", "acme-hello")

    assert (2, True) == (blocked.returncode, "There is no command 'acme-hello'" in blocked.stderr)
    assert "acme-hello" not in synapse("--without", "acme", "--help").stdout


def test_its_own_tests_pass(third_party: Path, third_party_wheel: Path, must, tmp_path: Path):
    """The wheel lies beside this environment's packages, unpacked: an installation as the kernel sees it."""
    with zipfile.ZipFile(third_party_wheel) as wheel:
        wheel.extractall(tmp_path / "site")
    must(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        cwd=third_party, variables={"PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_its_types_fit_the_kernels(third_party: Path, must, tmp_path: Path):
    must(sys.executable, "-m", "mypy", "--cache-dir", tmp_path, cwd=third_party)
