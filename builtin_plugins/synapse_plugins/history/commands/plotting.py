"""Plots of metrics: in the terminal by plotext, as a picture by matplotlib."""

from __future__ import annotations

import os
import shutil
import sys
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import click

from synapse_kernel.errors import MissingPackageError
from synapse_plugins.history.commands.series import by_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synapse_plugins.history.commands.series import Axis, Series

WIDTH, HEIGHT = 80, 16
MOST_PLOTS = 6
"""So many metrics are drawn in the terminal at once; the others are named."""
TICKS = 6
POINTS = 8
"""So many points are drawn for a column; a terminal has two dots there."""
_COLOURS = ("blue", "red", "green", "magenta", "cyan", "yellow")
# Where there are no colours, series are told apart by what they are drawn with.
_SYMBOLS = ("•", "x", "o", "+", "*", "#")
_FINE = "braille"


def draw(found: Sequence[Series], over: Axis) -> None:
    """Draw each metric in the terminal, what measures the same in one plot; without colours in a pipe."""
    grouped = by_name(found)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((WIDTH, HEIGHT)).columns
    for name in list(grouped)[:MOST_PLOTS]:
        curves = [
            Curve(series, *_finite(series, over, POINTS * width), _COLOURS[index % 6], _SYMBOLS[index % 6])
            for index, series in enumerate(grouped[name])
        ]
        curves = [curve for curve in curves if curve.y]
        if not curves:
            click.echo(f"{name}: none of its values is a finite number", err=True)
            continue
        click.echo(_heading(name, curves, coloured=coloured))
        click.echo(_drawn(curves, over, width, coloured=coloured) + "\n")
    left_out = list(grouped)[MOST_PLOTS:]
    if left_out:
        click.echo(f"Not drawn; name them to see them: {', '.join(left_out)}", err=True)


class Curve(NamedTuple):
    """What is drawn of one series: its finite values."""

    series: Series
    x: list[float]
    y: list[float]
    colour: str
    symbol: str


def _heading(name: str, curves: Sequence[Curve], *, coloured: bool) -> str:
    """Return the name of a plot and what its curves are."""
    if len(curves) == 1:
        return curves[0].series.label
    told = (
        click.style(f"● {curve.series.origin or name}", fg=curve.colour)
        if coloured
        else f"{curve.symbol} {curve.series.origin or name}"
        for curve in curves
    )
    return f"{name}:  {'   '.join(told)}"


def _drawn(curves: Sequence[Curve], over: Axis, width: int, *, coloured: bool) -> str:
    import plotext  # type: ignore[import-untyped]

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, HEIGHT)
    figure.legend(False)
    figure.label("step" if over == "step" else "seconds", axis="x")
    for curve in curves:
        # A lone value is seen as a character, not as the dot of a line.
        symbol = _FINE if len(curve.y) > 1 and (coloured or len(curves) == 1) else curve.symbol
        signal = figure.signal(curve.x, curve.y, marker=plotext.marker(symbol, pixel=curve.colour))
        if len(curve.y) > 1:
            signal.lines()
        figure.draw(signal)
    for axis, places in (("x", [x for c in curves for x in c.x]), ("y", [y for c in curves for y in c.y])):
        ticks = _ticks(min(places), max(places), whole=axis == "x" and over == "step")
        figure.ruler(axis).ticks(ticks, [f"{tick:.4g}" for tick in ticks])
    text = str(figure.build())
    text = text if coloured else click.unstyle(text)
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def _ticks(least: float, greatest: float, *, whole: bool) -> list[float]:
    if least == greatest:
        return [least]
    places = [least + (greatest - least) * index / (TICKS - 1) for index in range(TICKS)]
    return sorted({float(round(place)) for place in places}) if whole else places


def _finite(series: Series, over: Axis, most: int | None = None) -> tuple[list[float], list[float]]:
    """Return the places and the finite values of a series; of more than `most`, those that stand out."""
    points = [(x, y) for x, y in zip(series.over(over), series.values, strict=True) if isfinite(y)]
    if most is not None and len(points) > most:
        size = -(-len(points) // (most // 2))
        parts = [points[start : start + size] for start in range(0, len(points), size)]
        points = [
            point
            for part in parts
            for point in sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
        ]
    return [x for x, _ in points], [y for _, y in points]


def save(file: Path, title: str, found: Sequence[Series], over: Axis) -> None:
    """
    Write a picture with a plot for each metric.

    Raises `MissingPackageError` without matplotlib, and `OSError`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError(
            "Plot", file.name, "matplotlib", "pip install 'synapse-kernel[plot]'",
            hint="\n  or draw it in the terminal with: --plot",
        ) from None  # fmt: skip
    grouped = by_name(found)
    columns = 1 if len(grouped) == 1 else 2
    rows = max(1, -(-len(grouped) // columns))
    figure = Figure(figsize=(6 * columns, 3.5 * rows), layout="constrained")
    figure.suptitle(title)
    for place, (name, group) in enumerate(grouped.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for series in group:
            # A gap where a value is not finite, and a dot where it is alone.
            values = [value if isfinite(value) else float("nan") for value in series.values]
            marker = "." if len(values) < 50 else None
            axes.plot(series.over(over), values, marker=marker, label=series.origin)
        axes.set_title(name)
        axes.set_xlabel("step" if over == "step" else "seconds")
        axes.grid(visible=True, alpha=0.3)
        if len(group) > 1:
            axes.legend(fontsize="small")
    # Whole or not at all: beside its place, then renamed.
    temporary = file.with_name(f".{file.name}.part")
    try:
        figure.savefig(temporary, format=file.suffix[1:].lower(), dpi=120)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
