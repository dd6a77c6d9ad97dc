"""The metrics of a run as series of numbers, kept apart by node, step and category."""

from __future__ import annotations

import re
from array import array
from functools import cache
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Literal

import msgspec

from synapse_kernel.events import Metrics
from synapse_plugins.history.commands.reading import Follower, Nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.stores import RunStore

Axis = Literal["step", "time"]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over time; `times` are seconds since the epoch, the step of a value is its number."""

    run_id: str
    node: str
    """Which part of the run it is from, '' for the run itself."""
    step: str | None
    category: str | None
    name: str
    times: array[float]
    values: array[float]

    @property
    def origin(self) -> str:
        """Where it comes from, without its name: ``train/fit/val``."""
        return "/".join(part for part in (self.node, self.step, self.category) if part)

    @property
    def label(self) -> str:
        """Its name and where it comes from: ``train/fit/val/loss``."""
        return f"{self.origin}/{self.name}" if self.origin else self.name

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1]

    def over(self, axis: Axis) -> list[float]:
        """Return the place of each value: its number, or seconds since the first."""
        if axis == "step":
            return [float(number) for number in range(1, len(self.values) + 1)]
        return [time - self.times[0] for time in self.times]

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest number; NaN where there is none."""
        numbers = [value for value in self.values if not isnan(value)]
        return (min(numbers), max(numbers)) if numbers else (nan, nan)

    def answers_to(self, wanted: str) -> bool:
        """Tell whether a name, a label or a pattern of either means this series."""
        pattern = _pattern(wanted)
        return any(pattern.fullmatch(text) for text in (self.name, self.label))


def series_of(store: RunStore, run_id: str, *, descendants: bool = True) -> list[Series]:
    """Return the metrics of a run, in the order they were first measured."""
    nodes = Nodes(store, run_id)
    found: dict[tuple[str, str | None, str | None, str], Series] = {}
    for page in Follower(store, run_id, kinds=("metrics",), descendants=descendants).new():
        for event in page:
            if not isinstance(event, Metrics):
                continue
            for name, value in event.values.items():
                key = (event.run_id, event.step, event.category, name)
                series = found.get(key)
                if series is None:
                    series = found[key] = Series(
                        run_id=event.run_id,
                        node=nodes.name(event.run_id),
                        step=event.step,
                        category=event.category,
                        name=name,
                        times=array("d"),
                        values=array("d"),
                    )
                series.times.append(event.time)
                series.values.append(value)
    return list(found.values())


def by_name(found: Sequence[Series]) -> dict[str, list[Series]]:
    """Group series that measure the same: one plot each."""
    grouped: dict[str, list[Series]] = {}
    for series in found:
        grouped.setdefault(series.name, []).append(series)
    return grouped


def number_text(value: float) -> str:
    """Return a number with six significant digits."""
    return f"{value:.6g}"


def json_number(value: float) -> float | str:
    """Return a number as events have it in JSON, which knows no NaN and no infinity: as text."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


@cache
def _pattern(wanted: str) -> re.Pattern[str]:
    """Return what a person means: ``*`` and ``?`` are wildcards; brackets are not: nodes have them."""
    parts = ({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in re.split("([*?])", wanted))
    return re.compile("".join(parts), re.DOTALL)
