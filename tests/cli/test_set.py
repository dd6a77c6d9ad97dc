"""`--set` gives a command a setting, before the command or after it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    "order", [("--set", "executor=process", "run"), ("run", "--set", "executor=process")]
)
def test_a_setting_counts_before_the_command_and_after_it(cli: Cli, greeter: Path, order: tuple[str, ...]):
    done = cli(*order, str(greeter), "greet", "--dry-run", "--json")

    assert "process" == json.loads(done.stdout)["executor"]


def test_one_after_the_command_wins(cli: Cli, greeter: Path):
    done = cli(
        "--set", "executor=local", "run", "--set", "executor=process", str(greeter), "greet", "--dry-run"
    )

    assert "on the executor process" in done.stdout.splitlines()[0]


def test_it_holds_for_the_command_of_a_plugin_too(cli: Cli):
    done = cli("runs", "watch", "x", "--set", "store=none")

    assert 2 == done.returncode
    assert "Error: Runs are not recorded: the history is off" == done.stderr.splitlines()[0]


def test_a_mistake_in_it_is_told(cli: Cli, greeter: Path):
    done = cli("run", str(greeter), "greet", "--set", "grce=1")

    assert (
        2,
        "Error: the settings cannot be used:\n  grce: no plugin knows this key; did you mean 'grace'?\n",
    ) == (
        done.returncode,
        done.stderr,
    )
