"""The command `sync-config`."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_plugins.discovery.sync import SyncReport, sync_config_file

EPILOG = """\b
Examples:
  synapse-kernel sync-config ./my_plugin --dry-run
  synapse-kernel sync-config ./my_plugin
"""


@click.command("sync-config", epilog=EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, as a diff, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
@click.pass_context
def sync_config(context: click.Context, path: Path, dry_run: bool, as_json: bool) -> None:
    """
    Write the actions found in a folder's code into its config.yaml.

    PATH is the folder or its config.yaml. The code is read, not run. Actions that the config lacks are
    added, and an entrypoint that is null is filled in where the code has an action of that name. Everything
    else stays as it was written, comments too; an action that is no longer in the code is told, not removed.
    A folder without a config.yaml gets one.

    The exit code is 2 if a file could not be parsed; what the others hold is written all the same.
    """
    if as_json:
        promise_json(state_of(context))
    report = sync_config_file(path.expanduser(), dry_run=dry_run)
    if as_json:
        click.echo(dump(report))
    else:
        _show(report, dry_run=dry_run)
    for problem in report.problems:
        click.echo(f"passed over: {problem}", err=True)
    if report.problems:
        context.exit(2)


def _show(report: SyncReport, *, dry_run: bool) -> None:
    rows = [
        *(("added", name, entrypoint) for name, entrypoint in report.added.items()),
        *(("filled", name, entrypoint) for name, entrypoint in report.filled.items()),
        *(("stale", name, _why_stale(entrypoint)) for name, entrypoint in report.stale.items()),
    ]
    width = max((len(name) for _, name, _ in rows), default=0)
    for what, name, text in rows:
        click.echo(f"{what:<7} {name:<{width}}  {text}")
    if not report.changed:
        is_there = Path(report.file).exists()
        click.echo(
            f"{report.file}: {'nothing to change' if is_there else 'not made, no action is in the code'}"
        )
    elif dry_run:
        click.echo(report.diff, nl=False)
    else:
        click.echo(f"{report.file}: {'created' if report.created else 'written'}")


def _why_stale(entrypoint: str | None) -> str:
    if entrypoint is None:
        return "has no entrypoint, and the code has no action of this name"
    return f"{entrypoint} is not in the code"
