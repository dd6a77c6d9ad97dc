"""The command `runs compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.errors import UsageError
from synapse_plugins.history.commands.record_text import (
    resources_text,
    seconds_of,
    short_ids,
    status_text,
    took_text,
)
from synapse_plugins.history.commands.selecting import complete_runs, json_option, open_store, several_runs
from synapse_plugins.history.commands.series import json_number, number_text, series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_kernel.stores import Environment, RunRecord, RunStore

EPILOG = """\b
Examples:
  synapse-kernel runs compare 3f2a 91bc
  synapse-kernel runs compare 3f2a 91bc 70de --all
  synapse-kernel runs compare 3f2a @last --json
"""

MARK = "≠"


@click.command(epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=complete_runs)
@click.option("--all", "show_all", is_flag=True, help="Also show what is equal.")
@json_option
@click.pass_context
def compare(ctx: click.Context, runs: tuple[str, ...], show_all: bool, as_json: bool) -> None:
    """Show how runs differ: state and surroundings, params, last metrics and package versions."""
    if as_json:
        promise_json(state_of(ctx))
    store = open_store(ctx)
    records = several_runs(store, runs)
    if len(records) < 2:
        raise UsageError("To compare, name two runs or more; see them with: synapse-kernel runs list")
    parts = {
        "run": [_facts(store, record) for record in records],
        "params": [flattened(record.params) for record in records],
        "metrics": [_metrics(store, record) for record in records],
        "packages": [_packages(store, record) for record in records],
    }
    if as_json:
        click.echo(dump(_document(records, parts, show_all=show_all)))
    else:
        _print(records, parts, show_all=show_all)


def flattened(value: object, place: str = "") -> dict[str, object]:
    """Return nested params as dotted paths and their values; a list is one value."""
    if not isinstance(value, dict) or (place and not value):
        return {place: value}
    flat: dict[str, object] = {}
    for key, item in value.items():
        flat.update(flattened(item, f"{place}.{key}" if place else str(key)))
    return flat


def _facts(store: RunStore, record: RunRecord) -> dict[str, object]:
    environment = _environment(store, record)
    return {
        "action": record.action,
        "target": record.target,
        "state": status_text(record.status),
        "seconds": seconds_of(record),
        "attempts": record.attempt,
        "executor": record.executor,
        "resources": resources_text(record.resources) or None,
        "commit": record.commit,
        "host": record.owner.host if record.owner is not None else None,
        "python": environment.python if environment is not None else None,
        "platform": environment.platform if environment is not None else None,
        "tags": ", ".join(record.tags) or None,
    }


def _metrics(store: RunStore, record: RunRecord) -> dict[str, object]:
    return {series.label: series.last for series in series_of(store, record.run_id)}


def _packages(store: RunStore, record: RunRecord) -> dict[str, object]:
    environment = _environment(store, record)
    return dict(environment.packages) if environment is not None else {}


def _environment(store: RunStore, record: RunRecord) -> Environment | None:
    return store.environment(record.environment) if record.environment is not None else None


def _keys(columns: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for column in columns for key in column))


def _differ(values: Sequence[object]) -> bool:
    # By their text: NaN is equal to itself here, and 1 is not True.
    return len({repr(value) for value in values}) > 1


def _document(
    records: Sequence[RunRecord], parts: Mapping[str, Sequence[Mapping[str, object]]], *, show_all: bool
) -> dict[str, object]:
    document: dict[str, object] = {"runs": [record.run_id for record in records]}
    for part, columns in parts.items():
        rows = {key: [_plain(column.get(key)) for column in columns] for key in _keys(columns)}
        document[part] = {
            key: {"values": values, "differ": _differ(values)}
            for key, values in rows.items()
            if show_all or _differ(values)
        }
    return document


def _plain(value: object) -> object:
    return json_number(value) if isinstance(value, float) else value


def _print(
    records: Sequence[RunRecord], parts: Mapping[str, Sequence[Mapping[str, object]]], *, show_all: bool
) -> None:
    ids = short_ids(record.run_id for record in records)
    rows: list[tuple[str, ...]] = []
    for part, columns in parts.items():
        text_of = _TEXTS.get(part, _text)
        shown = []
        for key in _keys(columns):
            values = [column.get(key, _ABSENT) for column in columns]
            differ = _differ(values)
            if differ or (show_all and part != "packages"):
                cells = [text_of(value) for value in values]
                if part == "run" and key == "seconds":
                    cells = [took_text(record) for record in records]
                shown.append((MARK if differ else "", "duration" if key == "seconds" else key, *cells))
        if shown:
            rows += [("", part.upper(), *("" for _ in records)), *shown]
    if rows:
        print_table(("", "", *(ids[record.run_id] for record in records)), rows)
    else:
        click.echo("They do not differ; see all that is recorded with --all", err=True)


_ABSENT = object()


def _text(value: object) -> str:
    if value is _ABSENT or value is None:
        return "-"
    if isinstance(value, str):
        return value
    import msgspec

    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object) -> str:
    return number_text(value) if isinstance(value, (int, float)) else "-"


_TEXTS: dict[str, Callable[[object], str]] = {"metrics": _number}
