"""The command `storage cp`."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, cast

import click
import msgspec

from synapse_kernel.cli.documents import dump, promise_json, state_of, tell_warning
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
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from synapse_kernel.storage.ends import End
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.transfers import Meter
    from synapse_plugins.storage.commands.places import Given

_PIECE = 8 << 20

EPILOG = """\b
Examples:
  synapse-kernel storage cp model.pt s3://bucket/models/          # into the folder models
  synapse-kernel storage cp model.pt s3://bucket/models/best.pt   # under this name
  synapse-kernel storage cp -r data s3://bucket/sets/             # becomes sets/data
  synapse-kernel storage cp -r data/ s3://bucket/sets             # what is in data comes into sets
  synapse-kernel storage cp -r --no-clobber 's3://bucket/coco/**/*.jpg' sftp://user@host/images
  pg_dump | synapse-kernel storage cp - s3://bucket/dump.sql

\b
TARGET is a folder if it ends in / or is one already, and for several sources or a pattern: each comes into it
under its name. Else TARGET is the copy's name. A source folder that ends in / stands for what is in it.
What matches a pattern keeps the folders that the pattern stands for. - is what comes in on stdin.
"""


class _Job(NamedTuple):
    """One file to copy."""

    source: End
    entry: Entry
    target: End
    key: str


@click.command("cp", epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=complete_places)
@click.argument("target", shell_complete=complete_places)
@click.option("-r", "--recursive", is_flag=True, help="Copy folders too, with all in them.")
@click.option("-n", "--no-clobber", is_flag=True, help="Leave files of the target as they are.")
@dry_run_option
@json_option
@click.pass_context
def copy_files(
    ctx: click.Context,
    sources: tuple[str, ...],
    target: str,
    recursive: bool,
    no_clobber: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy files and, with -r, folders to TARGET, each whole or not at all."""
    from synapse_plugins.storage.commands.bars import shown

    if as_json:
        promise_json(state_of(ctx))
    if target == "-":
        raise UsageError("To print files, type: synapse-kernel storage cat SOURCE...")
    into = given(ctx, target)
    if into.is_pattern:
        raise UsageError(f"The target {target!r} is a pattern, and nothing there has this name")
    tally = _Tally(dry_run=dry_run, as_json=as_json, no_clobber=no_clobber)
    if "-" in sources:
        if len(sources) > 1:
            raise UsageError("- is copied alone: give no other source with it")
        with hints(into):
            tally.copy_stdin(into)
    else:
        places = [given(ctx, source) for source in sources]
        with hints(*places, into), shown("cp", wanted=not as_json and not dry_run) as listener:
            from synapse_kernel.storage.ends import End, most_at_once
            from synapse_kernel.storage.transfers import Meter

            ends = [End.of(place.storage) for place in (*places, into)]
            jobs = _jobs(places, into, recursive=recursive)
            tally.copy(jobs, Meter("copy", listener), limit=most_at_once(ends))
    tally.end()


class _Tally:
    """Copies, and counts what it did or would do."""

    def __init__(self, *, dry_run: bool, as_json: bool, no_clobber: bool) -> None:
        self._dry_run = dry_run
        self._as_json = as_json
        self._no_clobber = no_clobber
        self._lock = threading.Lock()
        self._changes: list[dict[str, object]] = []
        self._files = self._bytes = self._left = self._skipped = 0

    def copy(self, jobs: Iterable[_Job], meter: Meter, *, limit: int) -> None:
        """Copy all, side by side."""
        from synapse_kernel.storage.listing_ahead import DrawnAhead
        from synapse_kernel.storage.transfers import run_all

        def expected() -> Iterator[_Job]:
            for job in jobs:
                meter.expect(job.entry.size)
                yield job

        with DrawnAhead(expected()) as drawn:
            run_all(drawn, lambda job: self._copy(job, meter), limit=limit, meter=meter)

    def copy_stdin(self, into: Given) -> None:
        """Copy what comes in on stdin, whole: if it breaks off nothing is written."""
        key = into.key
        if into.ends_in_slash or not key or _is_folder(into):
            raise UsageError(
                f"What comes in on stdin has no name: give one, such as {into.text.rstrip('/')}/NAME"
            )
        if self._no_clobber and into.storage.exists(key):
            self._left += 1
            return
        if not self._dry_run:
            with cast("BinaryIO", into.storage.open(key, "wb")) as file:
                shutil.copyfileobj(sys.stdin.buffer, file, _PIECE)
                self._bytes = file.tell()
        self._count("-", into.storage.get_url(key), None)

    def _copy(self, job: _Job, meter: Meter) -> None:
        from synapse_kernel.storage.ends import Unusable, carry

        if isinstance(job.entry, Unusable):
            with self._lock:
                self._skipped += 1
                tell_warning(f"{job.entry.key} was passed over: {job.entry.reason}")
            return
        if self._no_clobber and job.target.exists(job.key):
            with self._lock:
                self._left += 1
            return
        if not self._dry_run:
            carry(job.entry, job.source, job.target, job.key, meter)
        self._count(
            job.source.storage.get_url(job.entry.key), job.target.storage.get_url(job.key), job.entry.size
        )

    def _count(self, source: str, target: str, size: int | None) -> None:
        with self._lock:
            self._files += 1
            self._bytes += size or 0
            if not self._dry_run:
                return
            if self._as_json:
                self._changes.append({"source": source, "target": target, "size": size})
            else:
                click.echo(f"{source} -> {target}")

    def end(self) -> None:
        """Tell of the whole."""
        if self._as_json:
            report = {
                "dry_run": self._dry_run,
                "files": self._files,
                "bytes": self._bytes,
                "left": self._left,
                "skipped": self._skipped,
            }
            click.echo(dump({**report, "changes": self._changes} if self._dry_run else report))
            return
        left = f"; {self._left:,} there already" if self._left else ""
        verb = "Would copy" if self._dry_run else "Copied"
        click.echo(f"{verb} {files_text(self._files)} of {size_text(self._bytes)}{left}")


def _jobs(places: list[Given], into: Given, *, recursive: bool) -> Iterator[_Job]:
    """Yield each file to copy; what is wrong with the sources is raised before the first is copied."""
    from synapse_kernel.storage.keys import join_key

    into_folder = into.ends_in_slash or not into.key or len(places) > 1 or places[0].is_pattern
    into_folder = into_folder or _is_folder(into)
    if len(places) > 1 or places[0].is_pattern:
        _refuse_file(into)
    found: list[tuple[Given, Entry | None, str]] = []
    names: dict[str, str] = {}
    for place in places:
        if place.is_pattern:
            found.append((place, None, into.key))
            continue
        entry = place.storage.info(place.key)
        if entry.is_folder and not recursive:
            raise UsageError(f"{place.text} is a folder: copy all in it with --recursive")
        as_contents = entry.is_folder and (place.ends_in_slash or not place.key)
        key = join_key(into.key, place.name) if into_folder and not as_contents else into.key
        if not as_contents and key in names:
            raise UsageError(f"{names[key]} and {place.text} would both become {into.storage.get_url(key)}")
        names[key] = place.text
        found.append((place, entry, key))
    for place, listed, key in found:
        if listed is None:
            yield from _of_pattern(place, into, recursive=recursive)
        else:
            yield from _of_entry(place, listed, into, key)


def _of_entry(place: Given, entry: Entry, into: Given, key: str) -> Iterator[_Job]:
    """Yield the file, or the files of a folder, that is to be under a key of the target."""
    from synapse_kernel.storage.ends import End

    if entry.is_folder:
        source, target = End.of(place.storage.at(entry.key)), End.of(into.storage.at(key))
        if target.is_at(source):
            raise UsageError(f"{source.text} cannot be copied into itself: {target.text}")
        for inner in source.files():
            yield _Job(source, inner, target, inner.key)
        return
    above, _, name = entry.key.rpartition("/")
    source, target = End.of(place.storage.at(above)), End.of(into.storage)
    if target.storage.get_url(key) == source.storage.get_url(name) and source.is_at(target):
        raise UsageError(f"{place.text} cannot be copied onto itself")
    yield _Job(source, msgspec.structs.replace(entry, key=name), target, key)


def _of_pattern(place: Given, into: Given, *, recursive: bool) -> Iterator[_Job]:
    from synapse_kernel.storage.keys import join_key, key_below

    for entry in place.matches():
        if entry.is_folder and not recursive:
            raise UsageError(
                f"{place.storage.get_url(entry.key)} matches and is a folder: copy such with --recursive, or "
                "change the pattern"
            )
        yield from _of_entry(place, entry, into, join_key(into.key, key_below(entry.key, place.top)))


def _is_folder(place: Given) -> bool:
    from synapse_kernel.storage.errors import StorageNotFoundError

    try:
        return place.storage.info(place.key).is_folder
    except StorageNotFoundError:
        return False


def _refuse_file(into: Given) -> None:
    from synapse_kernel.storage.errors import StorageNotFoundError

    try:
        is_file = not into.storage.info(into.key).is_folder
    except StorageNotFoundError:
        return
    if is_file:
        raise UsageError(f"The target {into.text} is a file, and several files need a folder")
