"""The command `storage sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from synapse_kernel.cli.documents import dump, promise_json, state_of, tell_warning
from synapse_kernel.event_text import size_text
from synapse_plugins.storage.commands.entry_text import files_text
from synapse_plugins.storage.commands.places import (
    complete_places,
    dry_run_option,
    given,
    hints,
    json_option,
)

if TYPE_CHECKING:
    from synapse_kernel.storage.syncing import Change, SyncReport

# So many warnings are told one by one.
_MOST_TOLD = 10

EPILOG = """\b
Examples:
  synapse-kernel storage sync data s3://bucket/data
  synapse-kernel storage sync s3://bucket/data data --delete --dry-run
  synapse-kernel storage sync data storage://backup/data --exclude '*.tmp' --exclude cache/ --checksum
  synapse-kernel storage sync data sftp://user@host/data --delete --max-delete 100

What is in SOURCE comes to be in TARGET, with or without a / behind either. A file is left as it is if the
sizes are equal and the target's is not older, or both checksums are known and equal. A pattern to exclude
with no / in it is matched with each name, another with the key from the top; a/ is a folder, ** any folders.
Nothing is deleted before everything is copied, nor if SOURCE is empty.
"""


@click.command("sync", epilog=EPILOG)
@click.argument("source", shell_complete=complete_places)
@click.argument("target", shell_complete=complete_places)
@click.option("--delete", is_flag=True, help="Delete files of TARGET that SOURCE does not have.")
@click.option("--max-delete", metavar="N", type=click.IntRange(min=0),
              help="Delete nothing, and fail, if it were more than N files.")  # fmt: skip
@click.option("--checksum", is_flag=True, help="Compare contents, where the sizes are equal, not times.")
@click.option("--exclude", multiple=True, metavar="PATTERN",
              help="Leave out what matches, on both sides. Repeatable.")  # fmt: skip
@dry_run_option
@json_option
@click.pass_context
def sync_folders(
    ctx: click.Context,
    source: str,
    target: str,
    delete: bool,
    max_delete: int | None,
    checksum: bool,
    exclude: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the folder TARGET hold the files of the folder SOURCE; only what differs is copied."""
    from synapse_kernel.storage.finding import Location
    from synapse_kernel.storage.syncing import sync
    from synapse_plugins.storage.commands.bars import shown

    if as_json:
        promise_json(state_of(ctx))
    if max_delete is not None and not delete:
        raise click.UsageError("--max-delete says how much --delete may delete: give that too.")
    ends = [given(ctx, text) for text in (source, target)]
    teller = _Teller(dry_run=dry_run, as_json=as_json)
    with hints(*ends), shown("sync", wanted=not as_json and not dry_run) as listener:
        report = sync(
            Location(ends[0].storage, ends[0].key),
            Location(ends[1].storage, ends[1].key),
            delete=delete,
            max_delete=max_delete,
            checksum=checksum,
            exclude=exclude,
            dry_run=dry_run,
            progress=listener,
            told=teller.tell,
        )
    teller.end(report)


class _Teller:
    """Tells what is done, or would be."""

    def __init__(self, *, dry_run: bool, as_json: bool) -> None:
        self._dry_run = dry_run
        self._as_json = as_json
        self._changes: list[Change] = []
        self._skipped: list[Change] = []

    def tell(self, change: Change) -> None:
        """Take a change."""
        if self._as_json:
            if self._dry_run or change.action == "skip":
                self._changes.append(change)
        elif change.action == "skip":
            if len(self._skipped) < _MOST_TOLD:
                self._skipped.append(change)
        elif self._dry_run:
            click.echo(f"{change.action:<6}  {change.key}  ({change.reason})")

    def end(self, report: SyncReport) -> None:
        """Tell of the whole."""
        if self._as_json:
            click.echo(dump({**msgspec.to_builtins(report), "changes": msgspec.to_builtins(self._changes)}))
            return
        for change in self._skipped:
            tell_warning(f"{change.key} was passed over: {change.reason}")
        if report.skipped > len(self._skipped):
            tell_warning(f"{files_text(report.skipped - len(self._skipped))} more were passed over")
        verb = "Would copy" if self._dry_run else "Copied"
        deleted = f", {'delete' if self._dry_run else 'deleted'} {report.deleted:,}" if report.deleted else ""
        copied = f"{files_text(report.files)} of {size_text(report.bytes)}"
        click.echo(f"{verb} {copied}{deleted}; {report.same:,} the same")
