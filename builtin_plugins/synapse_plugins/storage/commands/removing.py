"""The command `storage rm`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_kernel.errors import UsageError
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
    from collections.abc import Iterator, Sequence

    from synapse_kernel.storage.providers import Entry
    from synapse_plugins.storage.commands.places import Given

EPILOG = """\b
Examples:
  synapse-kernel storage rm s3://bucket/coco/old.json
  synapse-kernel storage rm 's3://bucket/coco/*.tmp' --dry-run
  synapse-kernel storage rm --recursive --yes s3://bucket/coco/old

With --recursive it asks first on a terminal; elsewhere it wants --yes.
"""


class _Doomed(NamedTuple):
    """A file or folder that is to go."""

    place: Given
    entry: Entry


@click.command("rm", epilog=EPILOG)
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_places)
@click.option("-r", "--recursive", is_flag=True, help="Delete folders too, with all in them.")
@dry_run_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def remove(
    ctx: click.Context, urls: tuple[str, ...], recursive: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Delete files and, with -r, folders."""
    from synapse_plugins.storage.commands.bars import shown

    if as_json:
        promise_json(state_of(ctx))
    places = [given(ctx, url) for url in urls]
    with hints(*places):
        doomed = [each for place in places for each in _found(place, recursive=recursive)]
        if dry_run:
            return _say(doomed, as_json=as_json)
        if any(each.entry.is_folder for each in doomed) and not _is_wanted(doomed, yes=yes, as_json=as_json):
            click.echo("Nothing was deleted.", err=True)
            return 1
        files = 0
        for each in doomed:
            with shown("rm", wanted=not as_json and each.entry.is_folder) as listener:
                files += each.place.storage.delete(
                    each.entry.key, recursive=each.entry.is_folder, progress=listener
                ).files
    click.echo(dump({"dry_run": False, "files": files}) if as_json else f"Deleted {files_text(files)}")
    return 0


def _found(place: Given, *, recursive: bool) -> Iterator[_Doomed]:
    entries = place.matches() if place.is_pattern else iter([place.storage.info(place.key)])
    for entry in entries:
        url = place.storage.get_url(entry.key)
        if entry.is_folder and not recursive:
            raise UsageError(f"{url} is a folder: delete it and all in it with --recursive")
        if url.rstrip("/") == "file:":
            raise UsageError("/ is the root of this machine: it is not deleted")
        yield _Doomed(place, entry)


def _files_of(each: _Doomed) -> Iterator[Entry]:
    if each.entry.is_folder:
        yield from each.place.storage.list(each.entry.key, recursive=True)
    else:
        yield each.entry


def _say(doomed: Sequence[_Doomed], *, as_json: bool) -> int:
    """Tell what would go."""
    files = size = 0
    changes = []
    for each in doomed:
        for entry in _files_of(each):
            files, size = files + 1, size + (entry.size or 0)
            url = each.place.storage.get_url(entry.key)
            if as_json:
                changes.append({"url": url, "size": entry.size})
            else:
                click.echo(url)
    if as_json:
        click.echo(dump({"dry_run": True, "files": files, "bytes": size, "changes": changes}))
    else:
        click.echo(f"Would delete {files_text(files)} of {size_text(size)}")
    return 0


def _is_wanted(doomed: Sequence[_Doomed], *, yes: bool, as_json: bool) -> bool:
    if yes:
        return True
    folders = [each.place.storage.get_url(each.entry.key) for each in doomed if each.entry.is_folder]
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"This would delete all in {', '.join(folders)}; say --yes to do it, or look with --dry-run"
        )
    sizes = [entry.size or 0 for each in doomed for entry in _files_of(each)]
    return click.confirm(
        f"Delete {files_text(len(sizes))} of {size_text(sum(sizes))} in {', '.join(folders)}?", err=True
    )
