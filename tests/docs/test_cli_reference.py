"""Every command and option of the command line is in its reference, with an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from synapse_kernel.cli.app import AppState, app

Sections = Callable[[Path], dict[str, str]]


@pytest.fixture
def commands() -> Iterator[dict[str, click.Command]]:
    """Return every command of the real command line by what is typed for it, built-in plugins' too."""
    state = AppState()
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, context: click.Context) -> None:
        found[str(context.command_path)] = command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                # A stand-in makes the real command's context.
                made = inner.make_context(name, [], parent=context, resilient_parsing=True)
                walk(made.command, made)

    walk(app, app.make_context("synapse-kernel", [], obj=state, resilient_parsing=True))
    yield found
    state.close()


@pytest.fixture
def reference(docs: Path, sections: Sections) -> dict[str, str]:
    """Return what the reference says of each command, by what is typed for it."""
    found = sections(docs / "reference/cli.md")
    return {heading.strip("`"): text for heading, text in found.items() if heading.startswith("`")}


def test_the_reference_has_a_section_for_each_command_and_no_other(
    commands: dict[str, click.Command], reference: dict[str, str]
):
    assert sorted(usage_of(*each) for each in commands.items()) == sorted(reference)


def test_each_option_is_described_in_its_command_s_table(
    commands: dict[str, click.Command], reference: dict[str, str]
):
    missing = []
    for command, found in commands.items():
        section = reference[usage_of(command, found)]
        for option in found.params:
            if isinstance(option, click.Option):
                names = ", ".join(f"`{name}`" for name in option.opts)
                metavar = re.escape(option.metavar.replace("|", "\\|")) if option.metavar else "[^`]+"
                value = "" if option.is_flag else f" `{metavar}`"
                if not re.search(rf"^\| {names}{value} \| ", section, re.MULTILINE):
                    missing.append(f"{command}: | {names}{value} |")

    assert [] == missing


def test_each_command_and_option_stands_in_an_example(
    docs: Path, commands: dict[str, click.Command], blocks: Callable[[Path], list]
):
    shown = "\n".join(b.text for b in blocks(docs / "reference/cli.md") if b.language in {"console", "sh"})

    def is_shown(name: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown) is not None

    missing = []
    for command, found in commands.items():
        options = [option.opts for option in found.params if isinstance(option, click.Option)]
        wanted = [[command.rpartition(" ")[2]], *options]
        missing += [f"{command}: {' or '.join(names)}" for names in wanted if not any(map(is_shown, names))]

    assert [] == missing


def usage_of(command: str, found: click.Command) -> str:
    """Return a command with its arguments, as its help writes them: ``synapse-kernel plugins show NAME``."""
    pieces = [] if isinstance(found, click.Group) else found.collect_usage_pieces(click.Context(found))
    return " ".join([command, *(piece for piece in pieces if piece != "[OPTIONS]")])
