"""The root command: help, version, global options, errors, what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import synapse_kernel

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

HEAVY = ("pydantic", "fsspec", "rich", "ray", "torch", "yaml", "ruamel", "tenacity", "asyncio")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(option: str) -> None:
    code = (
        "import sys; sys.argv = ['synapse-kernel', sys.argv[1]]\n"
        "from synapse_kernel.cli import main\n"
        "try: main()\n"
        "finally: print('IMPORTED', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "IMPORTED" in imported
    assert set() == imported & set(HEAVY)


def test_version_is_the_packages(cli: Cli) -> None:
    assert f"synapse-kernel {synapse_kernel.__version__}\n" == cli("--version").stdout


def test_help_lists_the_kernels_commands_and_those_of_plugins(cli: Cli) -> None:
    text = cli("--help").stdout
    for command in ("run", "actions", "describe", "plugins", "completion", "sync-config"):
        assert f"\n  {command} " in text


def test_a_blocked_plugins_commands_are_gone_wherever_the_option_stands(cli: Cli) -> None:
    assert "sync-config" not in cli("--without", "discovery", "--help").stdout
    assert "sync-config" not in cli("--help", "--without", "discovery").stdout
    assert "sync-config" not in cli("--help", env={"SYNAPSE_PLUGINS": "console"}).stdout


def test_every_command_has_an_example_in_its_help(cli: Cli) -> None:
    for command in (
        ["run"], ["actions"], ["describe"], ["plugins"], ["plugins", "list"], ["plugins", "show"],
        ["plugins", "hooks"], ["completion"], ["sync-config"],
    ):  # fmt: skip
        text = cli(*command, "--help").stdout
        assert "Example" in text, command


def test_an_unknown_command_is_told_with_the_nearest(cli: Cli) -> None:
    done = cli("runn")
    assert 2 == done.returncode
    assert done.stderr.rstrip().endswith("Error: There is no command 'runn'; did you mean 'run'?")


def test_settings_that_cannot_be_used_are_told_with_every_mistake(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "synapse.yaml").write_text("plugins: {blok: [x]}\ngrace: soon\n")
    done = cli("plugins")
    assert 2 == done.returncode
    assert (
        f"Error: {tmp_path}/synapse.yaml cannot be used:\n"
        "  plugins.blok: unknown key; did you mean 'block'?\n"
        "  grace: expected a number, got text: 'soon'\n"
    ) == done.stderr
    done = cli("--settings", "none.yaml", "plugins")
    assert (2, "Error: The settings cannot be read:\n  none.yaml: there is no such file\n") == (
        done.returncode,
        done.stderr,
    )


def test_a_key_that_no_plugin_knows_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "synapse.yaml").write_text("pluginz: {}\n")
    done = cli("plugins")
    assert (
        2,
        f"Error: {tmp_path}/synapse.yaml cannot be used:\n"
        "  pluginz: no plugin knows this key; did you mean 'plugins'?\n",
    ) == (done.returncode, done.stderr)


def test_completion_scripts_for_three_shells(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = cli("completion", shell)
        assert 0 == done.returncode
        assert "_SYNAPSE_KERNEL_COMPLETE" in done.stdout


def _complete(cli: Cli, words: str) -> list[str]:
    done = cli(
        env={
            "_SYNAPSE_KERNEL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_tab_offers_commands_actions_executors_and_dialects(cli: Cli, greeter: Path) -> None:
    assert ["plugins"] == _complete(cli, "synapse-kernel pl")
    assert ["sync-config"] == _complete(cli, "synapse-kernel sy")
    assert ["settings", "shout", "slow"] == sorted(_complete(cli, f"synapse-kernel run {greeter} s"))
    assert ["process"] == _complete(cli, f"synapse-kernel run {greeter} greet --executor pro")
    assert ["formkit"] == _complete(cli, f"synapse-kernel describe {greeter} greet --schema f")
    assert ["discovery"] == _complete(cli, "synapse-kernel --without d")


def test_a_reader_that_goes_away_is_no_error(greeter: Path) -> None:
    done = subprocess.run(
        f"'{sys.executable}' -m synapse_kernel plugins --all | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "" == done.stderr
    assert done.stdout.startswith("plugin ")


def test_actions_lists_and_reports_files_that_do_not_parse(
    cli: Cli, make_folder: Callable[..., Path]
) -> None:
    folder = make_folder(
        {
            "good.py": """
                from synapse_kernel import action

                @action
                def hello(params, ctx):
                    '''Say hello.'''
            """,
            "bad.py": "def broken(:\n",
        }
    )
    done = cli("actions", folder)
    assert 2 == done.returncode
    assert [
        ["action", "method", "entrypoint", "description"],
        ["hello", "local", "good:hello", "Say", "hello."],
    ] == [line.split() for line in done.stdout.splitlines()]
    assert "Not read: bad.py line 1: invalid syntax\n" == done.stderr
    document = json.loads(cli("actions", folder, "--json").stdout)
    assert ["hello"] == list(document["actions"])
    assert ["bad.py line 1: invalid syntax"] == document["problems"]


def test_describe_shows_types_defaults_limits_and_meanings(cli: Cli, greeter: Path) -> None:
    lines = [line.split() for line in cli("describe", greeter, "greet").stdout.splitlines()]
    assert ["greet:", "Greet", "someone."] == lines[0]
    assert ["name", "string", '"world"', "Whom", "to", "greet."] in lines
    assert ["times", "integer", "2", "(config)", "≥", "1,", "≤", "5"] in lines
    assert ["tone", '"plain"', "|", '"warm"', '"plain"'] in lines
    assert ["text", "string", "required"] in lines


def test_describe_as_json_and_as_schemas(cli: Cli, greeter: Path) -> None:
    document = json.loads(cli("describe", greeter, "greet", "--json").stdout)
    assert ("greet", "custom", {"times": 2}) == (
        document["name"],
        document["category"],
        document["defaults"],
    )
    schema = json.loads(cli("describe", greeter, "greet", "--schema", "json").stdout)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert {"name", "times", "tone"} == set(schema["properties"])
    form = json.loads(cli("describe", greeter, "greet", "--schema", "formkit").stdout)
    assert ["name", "times", "tone"] == [node["name"] for node in form]
    result = json.loads(cli("describe", greeter, "greet", "--schema", "json", "--result").stdout)
    assert {"text", "length"} == set(result["properties"])
    done = cli("describe", greeter, "greet", "--schema", "xform")
    assert 2 == done.returncode
    assert "Schema dialect 'xform' is not registered" in done.stderr


def test_a_plugin_to_block_that_is_not_there_is_told_with_the_nearest(cli: Cli) -> None:
    done = cli("--without", "discovry", "plugins")
    assert 0 == done.returncode
    assert "Warning: No plugin is named 'discovry'; did you mean 'discovery'?\n" == done.stderr
