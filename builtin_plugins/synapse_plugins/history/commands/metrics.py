"""The command `runs metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.cli.selecting import one_run
from synapse_kernel.errors import UsageError, listing, suggest
from synapse_plugins.history.commands.selecting import complete_runs, json_option, open_store
from synapse_plugins.history.commands.series import json_number, number_text, series_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import JsonObject
    from synapse_kernel.stores import RunRecord
    from synapse_plugins.history.commands.series import Axis, Series

EPILOG = """\b
Examples:
  synapse-kernel runs metrics @last
  synapse-kernel runs metrics @last loss --plot
  synapse-kernel runs metrics 3f2a 'train/*' --over time --plot
  synapse-kernel runs metrics 3f2a --category val --output val.png
  synapse-kernel runs metrics 3f2a --output metrics.csv

A metric is named as it was measured (loss), with what it is from (train/val/loss: node, step and category),
or by a pattern of either, in which * stands for any text and ? for one character.
"""

PICTURES = (".png", ".svg", ".pdf")
WRITTEN = (*PICTURES, ".csv", ".json")


@click.command(epilog=EPILOG)
@click.argument("run", shell_complete=complete_runs)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--category", metavar="NAME", help="Only metrics of this category.")
@click.option("--plot", is_flag=True, help="Draw them in the terminal.")
@click.option("--over", type=click.Choice(["step", "time"]), default="step", metavar="step|time",
              help="What a plot is drawn over: the number of the value, or seconds.")  # fmt: skip
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Write them to a file: a plot (.png, .svg, .pdf) or numbers (.csv, .json).")  # fmt: skip
@json_option
@click.pass_context
def metrics(
    ctx: click.Context,
    run: str,
    names: tuple[str, ...],
    category: str | None,
    plot: bool,
    over: Axis,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show the metrics of RUN and of all that is part of it: the last, the least and the greatest value."""
    if plot and as_json:
        raise click.UsageError("--plot and --json cannot be used together.")
    if as_json:
        promise_json(state_of(ctx))
    if output is not None and output.suffix.lower() not in WRITTEN:
        raise UsageError(
            f"--output {output}: what to write is told by the ending, which is one of {', '.join(WRITTEN)}"
        )
    store = open_store(ctx)
    record = one_run(store, run)
    found = _chosen(record, series_of(store, record.run_id), names, category)
    if output is not None:
        _write(output, record, found, over)
    if as_json:
        click.echo(dump(document_of(record, found)))
    elif plot and found:
        from synapse_plugins.history.commands.plotting import draw

        draw(found, over)
    elif found and output is None:
        print_table(("metric", "last", "min", "max", "count"), [_row(series) for series in found])
    elif not found:
        click.echo(f"Run {record.run_id} has no metrics.", err=True)


def _chosen(
    record: RunRecord, found: list[Series], names: Sequence[str], category: str | None
) -> list[Series]:
    if category is not None:
        known = {series.category or "" for series in found}
        if category not in known:
            raise UsageError(
                f"Run {record.run_id} has no metrics of the category {category!r}{suggest(category, known)}\n"
                f"  categories there: {listing(known - {''})}"
            )
        found = [series for series in found if series.category == category]
    unknown = [name for name in names if not any(series.answers_to(name) for series in found)]
    if unknown:
        known = {text for series in found for text in (series.name, series.label)}
        told = ", ".join(map(repr, unknown))
        raise UsageError(
            f"Run {record.run_id} has no metric {told}{suggest(unknown[0], known)}\n"
            f"  metrics there: {listing(series.label for series in found)}"
        )
    if not names:
        return found
    return [series for series in found if any(series.answers_to(name) for name in names)]


def _row(series: Series) -> tuple[str, ...]:
    least, greatest = series.bounds()
    return (
        series.label,
        number_text(series.last),
        number_text(least),
        number_text(greatest),
        str(len(series.values)),
    )


def document_of(record: RunRecord, found: Sequence[Series]) -> JsonObject:
    """Return metrics as a document, with every value; NaN and the infinities as text."""
    return {
        "run_id": record.run_id,
        "action": record.action,
        "metrics": [
            {
                "name": series.name,
                "label": series.label,
                "run_id": series.run_id,
                "node": series.node or None,
                "step": series.step,
                "category": series.category,
                "last": json_number(series.last),
                "min": json_number(series.bounds()[0]),
                "max": json_number(series.bounds()[1]),
                "count": len(series.values),
                "times": list(series.times),
                "values": [json_number(value) for value in series.values],
            }
            for series in found
        ],
    }


def _write(output: Path, record: RunRecord, found: Sequence[Series], over: Axis) -> None:
    kind = output.suffix.lower()
    try:
        if kind in PICTURES:
            from synapse_plugins.history.commands.plotting import save

            save(output, f"{record.action} ({record.run_id})", found, over)
        else:
            from synapse_kernel.files import write_whole

            text = dump(document_of(record, found)) + "\n" if kind == ".json" else _csv(found)
            write_whole(output, text)
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror or error}") from error
    click.echo(f"{output}: written", err=True)


def _csv(found: Sequence[Series]) -> str:
    import csv
    from io import StringIO

    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("label", "run_id", "node", "step", "category", "name", "number", "time", "value"))
    for series in found:
        place = (series.label, series.run_id, series.node, series.step, series.category, series.name)
        for number, (time, value) in enumerate(zip(series.times, series.values, strict=True), 1):
            rows.writerow((*place, number, f"{time:.6f}", value))
    return text.getvalue()
