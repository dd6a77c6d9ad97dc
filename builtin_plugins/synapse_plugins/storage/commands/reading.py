"""The commands that read: `storage cat` and `storage info`."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, cast

import click

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_kernel.event_text import size_text
from synapse_plugins.storage.commands.entry_text import document_of, files_text, time_cell
from synapse_plugins.storage.commands.places import (
    complete_places,
    given,
    hints,
    json_option,
    reader_may_leave,
)

if TYPE_CHECKING:
    from typing import BinaryIO

_PIECE = 8 << 20

CAT_EPILOG = """\b
Examples:
  synapse-kernel storage cat s3://bucket/coco/labels.json | jq .categories
  synapse-kernel storage cat 'storage://datasets/parts/*.csv' > all.csv
"""

INFO_EPILOG = """\b
Examples:
  synapse-kernel storage info s3://bucket/coco/labels.json
  synapse-kernel storage info --recursive s3://bucket/coco --json
  synapse-kernel storage info s3://bucket/model.pt --sign 1h
"""


@click.command("cat", epilog=CAT_EPILOG)
@click.argument("urls", nargs=-1, required=True, metavar="URL...", shell_complete=complete_places)
@click.pass_context
def cat(ctx: click.Context, urls: tuple[str, ...]) -> None:
    """Print files, one after the other, byte for byte."""
    out = sys.stdout.buffer
    for url in urls:
        place = given(ctx, url)
        with hints(place), reader_may_leave():
            keys = (
                sorted(entry.key for entry in place.matches() if not entry.is_folder)
                if place.is_pattern
                else [place.key]
            )
            for key in keys:
                with cast("BinaryIO", place.storage.open(key, "rb")) as file:
                    shutil.copyfileobj(file, out, _PIECE)
            out.flush()


@click.command("info", epilog=INFO_EPILOG)
@click.argument("url", shell_complete=complete_places)
@click.option("-r", "--recursive", is_flag=True, help="Count the files of a folder, and their bytes.")
@click.option("--sign", metavar="DURATION",
              help="Also a URL with which anyone can read the file for so long, such as 1h.")  # fmt: skip
@json_option
@click.pass_context
def info(ctx: click.Context, url: str, recursive: bool, sign: str | None, as_json: bool) -> None:
    """Show what is known of the file or folder URL."""
    from synapse_kernel.durations import seconds

    if as_json:
        promise_json(state_of(ctx))
    place = given(ctx, url)
    expires = seconds(sign)
    with hints(place):
        entry = place.storage.info(place.key)
        document = document_of(entry, place.storage.get_url(place.key))
        if recursive:
            files = total = 0
            for inner in place.storage.list(place.key, recursive=True) if entry.is_folder else [entry]:
                files, total = files + 1, total + (inner.size or 0)
            document |= {"files": files, "bytes": total}
        if expires is not None:
            document["signed_url"] = place.storage.signed_url(place.key, expires)
    if as_json:
        click.echo(dump(document))
        return
    lines = {"url": document["url"], "kind": document["kind"]}
    if entry.size is not None:
        lines["size"] = f"{size_text(entry.size)} ({entry.size:,} bytes)"
    if recursive:
        lines["holds"] = f"{files_text(files)}, {size_text(total)} ({total:,} bytes)"
    if entry.modified is not None:
        lines["modified"] = time_cell(entry.modified)
    lines |= {"etag": entry.etag, **entry.checksums, "signed url": document.get("signed_url")}
    width = max(map(len, lines))
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<{width}}  {value}")
