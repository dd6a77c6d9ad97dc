"""The command `runs list`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.cli.selecting import MOST, ago_text, one_run
from synapse_kernel.durations import seconds
from synapse_kernel.errors import UsageError
from synapse_kernel.stores import RunQuery
from synapse_plugins.history.commands.record_text import (
    coloured,
    document_of,
    short_ids,
    took_text,
)
from synapse_plugins.history.commands.selecting import (
    actions_option,
    complete_runs,
    json_option,
    open_store,
    states_option,
    tags_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from synapse_kernel.contracts import JsonObject, RunKind
    from synapse_kernel.stores import RunRecord, RunStore

LIMIT = 20

EPILOG = """\b
Examples:
  synapse-kernel runs list
  synapse-kernel runs list --state failed --state crashed --since 2d
  synapse-kernel runs list --action train --tag baseline --limit 5
  synapse-kernel runs list --since 2026-01-31 --until 2026-02-01T12:00 --all --json
  synapse-kernel runs list --children @last

A time is a date, a date and time of this machine's zone, or how long ago: 90s, 2h, 3d.
"""


@click.command("list", epilog=EPILOG)
@states_option
@actions_option
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["action", "pipeline"]), metavar="KIND",
              help="Only runs of this kind: action or pipeline.")  # fmt: skip
@tags_option
@click.option("--since", metavar="TIME", help="Only runs made at this time or later.")
@click.option("--until", metavar="TIME", help="Only runs made before this time.")
@click.option("--limit", metavar="N", type=click.IntRange(1, MOST),
              help=f"At most so many; {LIMIT} by default.")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="All of them.")
@click.option("--children", "parent", metavar="RUN", shell_complete=complete_runs,
              help="The runs that are part of this one; without it, runs that are part of none.")  # fmt: skip
@json_option
@click.pass_context
def list_runs(
    ctx: click.Context,
    states: tuple[str, ...] = (),
    actions: tuple[str, ...] = (),
    kinds: tuple[RunKind, ...] = (),
    tags: tuple[str, ...] = (),
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    show_all: bool = False,
    parent: str | None = None,
    as_json: bool = False,
) -> None:
    """List runs, the newest first."""
    if show_all and limit is not None:
        raise click.UsageError("--all and --limit cannot be used together.")
    if as_json:
        promise_json(state_of(ctx))
    now = datetime.now(UTC)
    after, before = moment(since, "--since", now), moment(until, "--until", now)
    store = open_store(ctx)
    query = RunQuery(
        statuses=states,
        actions=actions,
        kinds=kinds,
        tags=tags,
        since=after,
        until=before,
        parent=one_run(store, parent).run_id if parent is not None else None,
        roots_only=parent is None,
        limit=None if show_all else limit or LIMIT,
    )
    found = store.runs(query)
    if as_json:
        click.echo(dump([_document(record) for record in found]))
        return
    if found:
        _print(store, found, now)
    _tell_of_the_rest(store, query, len(found))


def moment(text: str | None, option: str, now: datetime) -> datetime | None:
    """
    Return the time that a person wrote: a date, a date and time, or how long before now.

    Raises `UsageError` for anything else.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.strip()) if "-" in text else None
        if found is None:
            ago = seconds(text)
            assert ago is not None
            return now - timedelta(seconds=ago)
        return found.astimezone(UTC)
    except (ValueError, OverflowError, UsageError):
        raise UsageError(
            f"{option} {text!r} is not a time; write it like 2h, 30d, 2026-01-31 or 2026-01-31T12:00"
        ) from None


def _document(record: RunRecord) -> JsonObject:
    document = document_of(record)
    # A store leaves it out of what it lists; `runs show --json` has it.
    del document["definition"]
    return document


def _print(store: RunStore, found: Sequence[RunRecord], now: datetime) -> None:
    shown = short_ids(record.run_id for record in found)
    columns = ["id", "action", "state", "started", "duration"]
    nodes = [_nodes_text(store, record) for record in found]
    # What no run has would be an empty column.
    optional = {
        "node": [record.node or "" for record in found],
        "nodes": nodes,
        "attempts": [str(record.attempt) if record.attempt > 1 else "" for record in found],
        "tags": [", ".join(record.tags) for record in found],
    }
    optional = {column: cells for column, cells in optional.items() if any(cells)}
    rows: list[list[str | Text]] = [
        [
            shown[record.run_id],
            record.action,
            coloured(record.status, "detached" if record.detached else ""),
            ago_text(record.started or record.created, now),
            took_text(record),
            *(cells[index] for cells in optional.values()),
        ]
        for index, record in enumerate(found)
    ]
    print_table([*columns, *optional], rows)


def _nodes_text(store: RunStore, record: RunRecord) -> str:
    """Return how many of the runs that a pipeline started for its nodes succeeded: ``3/5``; '' for none."""
    if record.kind != "pipeline":
        return ""
    made = store.count(RunQuery(parent=record.run_id))
    if not made:
        return ""
    done = store.count(RunQuery(parent=record.run_id, statuses=("succeeded",)))
    return f"{done}/{made}"


def _tell_of_the_rest(store: RunStore, query: RunQuery, shown: int) -> None:
    if shown:
        if query.limit is not None and shown == query.limit and (total := store.count(query)) > shown:
            click.echo(f"{shown} of {total} runs; see more with --limit N or --all", err=True)
        return
    if query.parent is not None:
        click.echo(f"No such run is part of {query.parent}.", err=True)
    elif store.count():
        click.echo("No run is like this; see all of them with: synapse-kernel runs list --all", err=True)
    else:
        click.echo(f"No runs are recorded in {store.url}", err=True)
        click.echo("  make one with: synapse-kernel run TARGET ACTION", err=True)
