"""The group `runs`: its commands are listed from here and imported when they are called."""

from __future__ import annotations

from importlib import import_module

import click

from synapse_kernel.cli.app import LazyCommand
from synapse_kernel.errors import suggest

EPILOG = """\b
Examples:
  synapse-kernel runs                              # the newest runs
  synapse-kernel runs list --state failed --since 2d
  synapse-kernel runs show @last
  synapse-kernel runs logs 3f2a --follow
  synapse-kernel runs watch @last
  synapse-kernel runs metrics @last loss --plot
  synapse-kernel runs compare 3f2a 91bc
  synapse-kernel runs cancel 3f2a
  synapse-kernel runs retry @last-failed
  synapse-kernel runs clean --older-than 30d

A run is named by its id, by a beginning of it that no other has, by @last (the newest run that is not part
of another) or by @last-failed; @last~1 is the one before.
"""

COMMANDS = {
    "list": ("listing:list_runs", "List runs, the newest first."),
    "show": ("showing:show_run", "Show all that is recorded of a run."),
    "logs": ("following:logs", "Print what a run said, and go on while it runs."),
    "watch": ("following:watch", "Watch a run of another process until it ends."),
    "metrics": ("metrics:metrics", "Show the metrics of a run, as a table, a plot or a file."),
    "compare": ("comparing:compare", "Show how runs differ."),
    "cancel": ("cancelling:cancel", "Stop runs, whichever process they are in."),
    "retry": ("retrying:retry", "Go on with a run that did not succeed."),
    "clean": ("cleaning:clean", "Forget ended runs and delete their folders."),
}


class RunsGroup(click.Group):
    """Knows its commands by name; a command's module is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a stand-in for the command of this name."""
        if cmd_name not in COMMANDS:
            return None
        target, summary = COMMANDS[cmd_name]
        return LazyCommand(cmd_name, summary, lambda: _import(target))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is told with the nearest there is."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = suggest(args[0], COMMANDS)
            raise click.UsageError(f"There is no command 'runs {args[0]}'{near}", ctx) from error


def _import(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command: click.Command = getattr(import_module(f"{__package__}.{module}"), attribute)
    return command


@click.group(cls=RunsGroup, invoke_without_command=True, epilog=EPILOG)
@click.pass_context
def runs(ctx: click.Context) -> None:
    """Look at past and present runs, and stop, retry or clean them; without a command, list the newest."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(_import(COMMANDS["list"][0]))
