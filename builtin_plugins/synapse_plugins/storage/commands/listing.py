"""The command `storage ls`."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import state_of
from synapse_plugins.storage.commands.entry_text import document_of, size_cell, time_cell
from synapse_plugins.storage.commands.places import complete_places, given, hints, reader_may_leave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_kernel.storage.providers import Entry
    from synapse_plugins.storage.commands.places import Given

# More than these are printed as they come, in the order of the service.
SORTED = 10_000

EPILOG = """\b
Examples:
  synapse-kernel storage ls s3://bucket/coco
  synapse-kernel storage ls -l --human storage://datasets/coco
  synapse-kernel storage ls -r 's3://bucket/**/*.json'
  synapse-kernel storage ls --recursive --json s3://bucket > files.jsonl

A folder's name ends in /. Names are told below the folder that was asked for, by name; more than 10,000 as
they come.
"""


@click.command("ls", epilog=EPILOG)
@click.argument("url", shell_complete=complete_places)
@click.option("-r", "--recursive", is_flag=True, help="The files at every depth.")
@click.option("-l", "--long", "is_long", is_flag=True, help="Also sizes in bytes and times.")
@click.option("--human", is_flag=True, help="Sizes as people read them: 1.5 MiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one for each entry.")
@click.pass_context
def list_files(
    ctx: click.Context, url: str, recursive: bool, is_long: bool, human: bool, as_json: bool
) -> None:
    """List what lies in the folder URL, or what matches a pattern; a file is told itself."""
    if as_json:
        state_of(ctx).json_to = _print_line
    place = given(ctx, url)
    with hints(place), reader_may_leave():
        for entry, name in _named(place, recursive=recursive):
            if as_json:
                _print_line(document_of(entry, place.storage.get_url(entry.key)))
                continue
            shown = f"{name}/" if entry.is_folder else name
            if is_long or human:
                width = 10 if human else 14
                size = size_cell(entry.size, human=human)
                shown = f"{size:>{width}}  {time_cell(entry.modified):<19}  {shown}"
            click.echo(shown)


def _named(place: Given, *, recursive: bool) -> Iterator[tuple[Entry, str]]:
    """Yield entries with their names below the folder that was asked for."""
    from synapse_kernel.storage.keys import key_below

    if place.is_pattern:
        found, top = place.matches(), place.top
        if recursive:
            found = chain.from_iterable(_inside(place, entry) for entry in found)
    else:
        entry = place.storage.info(place.key)
        if not entry.is_folder:
            yield entry, place.name
            return
        found, top = place.storage.list(place.key, recursive=recursive), place.key
    first = list(islice(found, SORTED + 1))
    if len(first) <= SORTED:
        first.sort(key=lambda entry: entry.key)
    for entry in chain(first, found):
        yield entry, key_below(entry.key, top)


def _inside(place: Given, entry: Entry) -> Iterator[Entry]:
    if entry.is_folder:
        yield from place.storage.list(entry.key, recursive=True)
    else:
        yield entry


def _print_line(document: object) -> None:
    import msgspec

    click.echo(msgspec.json.encode(document).decode())
