"""The live display of the console, drawn by rich."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from synapse_kernel.event_text import NODE_EVENTS, Places, duration_text, level_mark, line_of
from synapse_kernel.events import Log, Message, Metrics, Progress as ProgressEvent, State
from synapse_plugins.console.console import closing_line, is_shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from synapse_kernel.contracts import Outcome, RunInfo
    from synapse_kernel.events import Event

_STYLES = {"debug": "dim", "warning": "yellow", "error": "red"}
_CONTEXTS = {"success": "green", "warning": "yellow", "error": "red", "danger": "red"}


class LiveConsole:
    """Bars and metrics that stay at the bottom, lines that scroll above them."""

    def __init__(self, run: RunInfo, verbosity: str) -> None:
        self._run = run
        self._verbosity = verbosity
        self._console = Console(stderr=True, highlight=False)
        self._state = "pending"
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[eta]}"),
            console=self._console,
        )
        self._places = Places()
        self._tasks: dict[_Key, TaskID] = {}
        self._marks: dict[str, TaskID] = {}
        """For each node that runs and has not told how far it is: a bar that only moves."""
        self._metrics: dict[_Key, dict[str, float]] = {}
        # What the action prints goes above the display instead of through it; stdout stays the result's.
        self._live = Live(
            self._render(),
            console=self._console,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def accept(self, events: Sequence[Event]) -> None:
        """Draw a batch."""
        for event in events:
            self._places.observe(event)
            place = self._places.of(event)
            if isinstance(event, ProgressEvent):
                self._move(event, place)
                continue
            if isinstance(event, State) and event.run_id == self._run.run_id:
                self._state = event.state
            if isinstance(event, Metrics):
                self._metrics.setdefault(_key(event, place), {}).update(event.values)
                if self._verbosity != "verbose":
                    continue
            if isinstance(event, Log) and event.event in NODE_EVENTS:
                self._follow(event)
                if event.event == "node_start" and self._verbosity != "verbose":
                    continue
            if is_shown(event, self._verbosity):
                self._live.console.print(Text(level_mark(event) + line_of(event, place), style=_style(event)))
        self._live.update(self._render())

    def close(self, outcome: Outcome) -> None:
        """Leave the bars' last state and how the run ended on the screen."""
        self._live.stop()
        if self._tasks:
            self._console.print(self._bars.get_renderable())
        if self._metrics:
            self._console.print(self._metrics_table())
        style = "green" if outcome.ok else "yellow" if outcome.status == "cancelled" else "red"
        self._console.print(Text(closing_line(self._run, outcome), style=style))

    def _follow(self, event: Log) -> None:
        """Show a node that starts, and take what one showed off the display when it is over."""
        run_id = str(event.data.get("run"))
        if event.event == "node_start":
            node = str(event.data.get("node"))
            self._marks[run_id] = self._bars.add_task(node, total=None, eta="")
            return
        self._unmark(run_id)
        for key in [key for key in self._tasks if key.run_id == run_id]:
            self._bars.remove_task(self._tasks.pop(key))
        for key in [key for key in self._metrics if key.run_id == run_id]:
            del self._metrics[key]

    def _unmark(self, run_id: str) -> None:
        """Take the mark of a node off that says no more than that it runs."""
        if run_id in self._marks:
            self._bars.remove_task(self._marks.pop(run_id))

    def _move(self, event: ProgressEvent, place: str) -> None:
        key = _key(event, place)
        if key not in self._tasks:
            self._unmark(event.run_id)
            label = " · ".join(part for part in (place, event.category) if part) or self._run.action
            self._tasks[key] = self._bars.add_task(label, total=event.total, eta="")
        eta = f"{duration_text(event.eta)} left" if event.eta else ""
        self._bars.update(self._tasks[key], completed=event.current, total=event.total, eta=eta)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        if not self._tasks and not self._marks:
            parts.append(Text(f"… {self._run.action} {self._state}", style="dim"))
        else:
            parts.append(self._bars)
        if self._metrics:
            parts.append(self._metrics_table())
        return Group(*parts)

    def _metrics_table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, values in self._metrics.items():
            cells = [
                part for name, value in values.items() for part in (f"{name} ", (f"{value:.6g}  ", "bold"))
            ]
            label = " · ".join(part for part in (key.place, key.category) if part)
            table.add_row(Text(label or "metrics", style="dim"), Text.assemble(*cells))
        return table


class _Key(NamedTuple):
    """What one bar, or one row of metrics, stands for."""

    run_id: str
    place: str
    category: str | None


def _key(event: ProgressEvent | Metrics, place: str) -> _Key:
    return _Key(event.run_id, place, event.category)


_STATES = {"succeeded": "green", "failed": "red", "timed_out": "red", "cancelled": "yellow"}


def _style(event: Event) -> str:
    if isinstance(event, Log) and event.event == "node_end":
        return _STATES.get(str(event.data.get("state")), "")
    if isinstance(event, Message):
        return _CONTEXTS.get(event.context, "")
    return _STYLES.get(event.level, "")
