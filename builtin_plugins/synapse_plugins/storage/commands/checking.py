"""The command `storage check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.errors import SynapseError, UsageError
from synapse_plugins.storage.commands.places import complete_places, json_option

if TYPE_CHECKING:
    from rich.text import Text

    from synapse_kernel.storage.checking import CheckReport, CheckStep

EPILOG = """\b
Examples:
  synapse-kernel storage check s3://bucket/coco
  synapse-kernel storage check --read-only https://host/datasets
  synapse-kernel storage check          # every storage that the settings name

A small file is written, read and deleted again. The exit code is 1 if something does not work.
"""


@click.command("check", epilog=EPILOG)
@click.argument("urls", nargs=-1, metavar="[URL]...", shell_complete=complete_places)
@click.option("--read-only", is_flag=True, help="It is enough that it can be listed and read.")
@json_option
@click.pass_context
def check_storages(ctx: click.Context, urls: tuple[str, ...], read_only: bool, as_json: bool) -> int:
    """Find out what works in a folder of a storage: listing, writing, reading, deleting."""
    state = state_of(ctx)
    if as_json:
        promise_json(state)
    wanted = urls or tuple(f"storage://{name}" for name in sorted(state.settings.kernel.storage))
    if not wanted:
        raise UsageError(
            "The settings name no storage: say which to check, such as synapse-kernel storage check s3://bucket"
        )
    found = {url: _checked(ctx, url) for url in wanted}
    oks = [_is_ok(report, read_only=read_only) for report in found.values()]
    if as_json:
        documents = [_document(url, report, ok) for (url, report), ok in zip(found.items(), oks, strict=True)]
        click.echo(dump(documents))
    else:
        for url, report in found.items():
            _print(url, report)
    return 0 if all(oks) else 1


def _checked(ctx: click.Context, url: str) -> CheckReport | SynapseError:
    from synapse_kernel.storage.checking import check

    try:
        found = state_of(ctx).kernel.storages.location(url)
        return check(found.storage.at(found.key))
    except SynapseError as error:
        # The others are checked all the same.
        return error


def _is_ok(report: CheckReport | SynapseError, *, read_only: bool) -> bool:
    if isinstance(report, SynapseError):
        return False
    return report.readable if read_only else report.ok


def _document(url: str, report: CheckReport | SynapseError, ok: bool) -> dict[str, object]:
    if isinstance(report, SynapseError):
        return {"place": url, "ok": ok, "error": {"type": type(report).__name__, "message": str(report)}}
    return {"place": url, "ok": ok, **msgspec.to_builtins(report)}


def _print(url: str, report: CheckReport | SynapseError) -> None:
    click.echo(url)
    if isinstance(report, SynapseError):
        click.echo(f"  {click.style('✗', fg='red')} {str(report).replace(chr(10), chr(10) + '    ')}")
        return
    rows: list[list[str | Text]] = [[_mark(step), step.operation, step.reason or ""] for step in report.steps]
    print_table(
        ["", "operation", "why not"] if any(row[2] for row in rows) else ["", "operation"],
        [row if any(row[2] for row in rows) else row[:2] for row in rows],
    )
    for hint in dict.fromkeys(step.hint for step in report.steps if step.hint):
        click.echo(f"  {hint}")
    if report.left_behind is not None:
        click.echo(f"  {report.left_behind} could not be deleted: do it by hand")


def _mark(step: CheckStep) -> Text:
    from rich.text import Text

    if step.ok is None:
        return Text("-", style="dim")
    return Text("✓", style="green") if step.ok else Text("✗", style="red")
