"""The command `runs clean`: forget ended runs and delete their folders, and nothing else."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import dump, promise_json, state_of, tell_warning
from synapse_kernel.durations import seconds
from synapse_kernel.errors import Problem, ProblemsError, UsageError
from synapse_kernel.event_text import size_text
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.settings import state_home
from synapse_kernel.stores import RunQuery, StoreError
from synapse_plugins.history.commands.disk_space import is_disk_full
from synapse_plugins.history.commands.reading import children_of
from synapse_plugins.history.commands.record_text import status_text
from synapse_plugins.history.commands.selecting import (
    States,
    actions_option,
    complete_runs,
    json_option,
    open_store,
    several_runs,
    tags_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synapse_kernel.stores import RunRecord, RunStore

ENDED = tuple(sorted(FINAL_STATUSES))
# So many runs go in one transaction, before their folders.
BATCH = 200

EPILOG = """\b
Examples:
  synapse-kernel runs clean --older-than 30d
  synapse-kernel runs clean --keep 100 --dry-run
  synapse-kernel runs clean --state failed --state crashed --yes
  synapse-kernel runs clean 3f2a 91bc --no-work-dirs

What is part of a run goes with it. All conditions must hold; runs that have not ended are never touched.
"""


@click.command("clean", epilog=EPILOG)
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--older-than", metavar="DURATION", help="Only runs made longer ago, such as 12h or 30d.")
@click.option("--keep", metavar="N", type=click.IntRange(min=0), help="Keep the newest N of them.")
@click.option("--state", "states", multiple=True, type=States(ENDED), metavar="STATE",
              help="Only runs that ended like this, such as failed. Repeatable.")  # fmt: skip
@actions_option
@tags_option
@click.option("--work-dirs/--no-work-dirs", default=True, help="Delete the runs' own folders too.")
@click.option("--dry-run", is_flag=True, help="Say what would go; delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def clean(
    ctx: click.Context,
    runs: tuple[str, ...],
    older_than: str | None,
    keep: int | None,
    states: tuple[str, ...],
    actions: tuple[str, ...],
    tags: tuple[str, ...],
    work_dirs: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Forget ended runs with all that is part of them, and delete their folders."""
    if as_json:
        promise_json(state_of(ctx))
    if not runs and older_than is None and keep is None and not states and not actions and not tags:
        raise UsageError(
            "Say which runs may go: name them, or give --older-than, --keep, --state, --action or --tag\n"
            "  all that have ended: synapse-kernel runs clean --keep 0"
        )
    until = _before(older_than)
    store = open_store(ctx)
    query = RunQuery(
        statuses=states or ENDED, actions=actions, tags=tags, until=until, roots_only=True, limit=None
    )
    chosen = _named(store, runs, query) if runs else store.runs(query)
    chosen = chosen[keep or 0 :]
    roots = _roots(state_of(ctx).settings.kernel.work_dir)
    parts = {root.run_id: list(_with_parts(store, root)) for root in chosen}
    folders = {
        run_id: [f for record in records if (f := own_folder(record, roots)) is not None] if work_dirs else []
        for run_id, records in parts.items()
    }
    count = sum(map(len, parts.values()))
    size = sum(size_of(folder) for found in folders.values() for folder in found)
    if not dry_run and chosen:
        if not _is_wanted(count, size, yes=yes, as_json=as_json):
            click.echo("Nothing was deleted.", err=True)
            return 1
        _forget(store, folders)
    if as_json:
        ids = [record.run_id for records in parts.values() for record in records]
        click.echo(dump({"dry_run": dry_run, "runs": ids, "folders": _all(folders), "bytes": size}))
    else:
        verb = "Would delete" if dry_run else "Deleted"
        click.echo(
            f"{verb} {_what(count, size)}" if chosen else "No ended run is like this: nothing to delete"
        )
    return 0


def _before(older_than: str | None) -> datetime | None:
    """Return the time that a duration ago was; raises `UsageError`."""
    age = seconds(older_than)
    if age is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=age)
    except OverflowError:
        raise UsageError(
            f"--older-than {older_than!r} is longer ago than any date; write it like 12h or 30d"
        ) from None


def _forget(store: RunStore, folders: Mapping[str, Sequence[Path]]) -> None:
    """Delete runs and their folders, given by the run's id."""
    run_ids = list(folders)
    for start in range(0, len(run_ids), BATCH):
        batch = run_ids[start : start + BATCH]
        try:
            # The records first: no one can go on with a run whose folder is being deleted.
            store.delete(batch)
        except StoreError as error:
            rest = [folder for run_id in run_ids[start:] for folder in folders[run_id] if folder.exists()]
            # On a full disk no one can go on with a run: that would have to be written too.
            if not is_disk_full(error) or not rest:
                raise
            tell_warning("The disk is full: the folders are deleted first, to make room for the rest")
            for folder in rest:
                _delete(folder)
            store.delete(batch)
        for run_id in batch:
            for folder in folders[run_id]:
                _delete(folder)


def _all(folders: dict[str, list[Path]]) -> list[str]:
    return [str(folder) for found in folders.values() for folder in found]


def _what(count: int, size: int) -> str:
    return f"{count} run{'' if count == 1 else 's'} and {size_text(size)} of files"


def _named(store: RunStore, runs: Sequence[str], query: RunQuery) -> list[RunRecord]:
    """Return the runs that were named and that the conditions hold for; raises for one that may not go."""
    named = several_runs(store, runs)
    problems = [Problem(record.run_id, why) for record in named if (why := _why_not(record))]
    if problems:
        raise ProblemsError("These runs cannot be deleted:", problems)
    found = {record.run_id for record in store.runs(query)} if query != _ALL_ENDED else None
    kept = [record for record in named if found is None or record.run_id in found]
    return sorted(kept, key=lambda record: record.created, reverse=True)


_ALL_ENDED = RunQuery(statuses=ENDED, roots_only=True, limit=None)


def _why_not(record: RunRecord) -> str | None:
    if record.parent is not None:
        return f"it is part of run {record.root}; delete that one"
    if record.status not in FINAL_STATUSES:
        return f"it is {status_text(record.status)}; stop it with: synapse-kernel runs cancel {record.run_id}"
    return None


def _with_parts(store: RunStore, record: RunRecord) -> Iterator[RunRecord]:
    yield record
    for child in children_of(store, record.run_id):
        yield from _with_parts(store, child)


def _roots(setting: str | None) -> list[Path]:
    """Return the folders under which runs have theirs."""
    places = [state_home() / "runs", *([Path(setting)] if setting else [])]
    return [Path(os.path.realpath(place.expanduser())) for place in places]


def own_folder(record: RunRecord, roots: Sequence[Path]) -> Path | None:
    """
    Return the folder that a run made for itself, if it is there.

    It is the one that was recorded, it is named by the run's id, it lies right under one of `roots`, and it
    is a folder, not a link to one: what is deleted is never anything else.
    """
    if not record.work_dir:
        return None
    folder = Path(record.work_dir)
    if folder.name != record.run_id or not folder.is_absolute():
        return None
    real = Path(os.path.realpath(folder.parent)) / folder.name
    try:
        is_folder = stat.S_ISDIR(real.lstat().st_mode)
    except OSError:
        return None
    return real if is_folder and real.parent in roots else None


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder; links count as themselves."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
            except OSError:
                continue
    return total


def _is_wanted(count: int, size: int, *, yes: bool, as_json: bool) -> bool:
    if yes:
        return True
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"This would delete {_what(count, size)}; say --yes to do it, or look with --dry-run"
        )
    return click.confirm(f"Delete {_what(count, size)}?", err=True)


def _delete(folder: Path) -> None:
    try:
        # It does not follow links, and refuses a folder that became one meanwhile.
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        tell_warning(f"{folder} could not be deleted: {error.strerror or error}")
