"""The group `runs`: its commands are listed from here and imported when they are called."""

from __future__ import annotations

import click

from synapse_kernel.cli.lazy import LazyGroup, import_command

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
    "list": (f"{__package__}.listing:list_runs", "List runs, the newest first."),
    "show": (f"{__package__}.showing:show_run", "Show all that is recorded of a run."),
    "logs": (f"{__package__}.following:logs", "Print what a run said, and go on while it runs."),
    "watch": (f"{__package__}.following:watch", "Watch a run of another process until it ends."),
    "metrics": (f"{__package__}.metrics:metrics", "Show the metrics of a run, as a table, a plot or a file."),
    "compare": (f"{__package__}.comparing:compare", "Show how runs differ."),
    "cancel": (f"{__package__}.cancelling:cancel", "Stop runs, whichever process they are in."),
    "retry": (f"{__package__}.retrying:retry", "Go on with a run that did not succeed."),
    "clean": (f"{__package__}.cleaning:clean", "Forget ended runs and delete their folders."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, invoke_without_command=True, epilog=EPILOG)
@click.pass_context
def runs(ctx: click.Context) -> None:
    """Look at past and present runs, and stop, retry or clean them; without a command, list the newest."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(import_command(COMMANDS["list"][0]))
