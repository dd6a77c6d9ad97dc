"""Whole processes: `--version`, `--help`, `run`, and the executor `process`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from figures import Figure, at_most, paired, process

from synapse_kernel import Kernel

PAIRS = 15

NOOP = """\
from synapse_kernel import BaseAction


class Noop(BaseAction):
    def execute(self):
        return None
"""

THIRD_PARTY = """\
from synapse_kernel import ExecutorSpec, hookimpl


@hookimpl
def synapse_register_executors():
    return [ExecutorSpec(name="third_{n}", target="third_{n}.fat:Executor", summary="one of many")]
"""


def figures() -> list[Figure]:
    """Measure each against its baseline."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder))


def _measure(folder: Path) -> list[Figure]:
    env = {**os.environ, "SYNAPSE_HOME": str(folder / "home")}
    env.pop("PYTHONPATH", None)
    own = str(Path(sys.executable).with_name("synapse-kernel"))
    plugin = folder / "plugin"
    plugin.mkdir()
    (plugin / "config.yaml").write_text("name: noop\nactions: {noop: 'main:Noop'}\n")
    (plugin / "main.py").write_text(NOOP)

    def python(code: str) -> list[str]:
        return [sys.executable, "-c", code]

    click = process(python("import click"), env=env)
    found: list[Figure] = []
    for option, limit in (("--version", 1.5), ("--help", 2.5)):
        ratio, base = paired(process([own, option], env=env), click, PAIRS)
        found.append(at_most(f"synapse-kernel {option}", ratio, limit, f"import click: {base * 1000:.0f} ms"))

    crowded = {**env, "PYTHONPATH": str(_thirty_plugins(folder))}
    ratio, base = paired(process([own, "--help"], env=crowded), process([own, "--help"], env=env), PAIRS)
    label = f"with none: {base * 1000:.0f} ms"
    found.append(at_most("--help with 30 third-party plugins", ratio, 1.3, label))

    stack = process(python("import click, pydantic, yaml"), env=env)
    ratio, base = paired(process([own, "run", str(plugin), "noop"], env=env), stack, PAIRS)
    label = f"import click, pydantic, yaml: {base * 1000:.0f} ms"
    found.append(at_most("synapse-kernel run of an action that does nothing", ratio, 2.5, label))

    pydantic = process(python("import pydantic"), env=env)
    with Kernel() as kernel:
        ratio, base = paired(lambda: kernel.run(str(plugin), "noop", executor="process"), pydantic, PAIRS)
    label = f"import pydantic: {base * 1000:.0f} ms"
    found.append(at_most("executor process, an action that does nothing", ratio, 1.5, label))
    return found


def _thirty_plugins(folder: Path) -> Path:
    """Write 30 installed distributions, each with a plugin, and return the folder that holds them."""
    site = folder / "site"
    for number in range(30):
        package, info = site / f"third_{number}", site / f"third_{number}-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text(THIRD_PARTY.replace("{n}", str(number)))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: third-{number}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[synapse_kernel.plugins]\nthird_{number} = third_{number}\n")
        (info / "RECORD").write_text("")
    return site
