"""
The progress of a pipeline for a person to watch: a table that moves on a terminal, plain lines elsewhere.

::

    display_progress(track(pipeline.submit(kernel=kernel)))
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from synapse_kernel.event_text import duration_text, metrics_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from types import TracebackType
    from typing import TextIO

    from rich.table import Table

    from synapse_plugins.pipelines.progress import ActionProgress, PipelineProgress

_MARKS = {
    "pending": "·", "running": "▸", "retrying": "↻", "succeeded": "✓", "failed": "✗", "cancelled": "■",
    "timed_out": "✗", "crashed": "✗", "skipped": "○", "cached": "≡", "restored": "✓",
}  # fmt: skip
_STYLES = {
    "pending": "dim", "running": "cyan", "retrying": "yellow", "succeeded": "green", "failed": "red",
    "cancelled": "yellow", "timed_out": "red", "crashed": "red", "skipped": "dim", "cached": "green",
    "restored": "green",
}  # fmt: skip
# Which rows stay where a terminal is too low for all: the first of these first.
_WEIGHT = {"failed": 0, "timed_out": 0, "crashed": 0, "running": 1, "retrying": 1, "pending": 3}
_BAR = 20


def display_progress(
    stream: Iterable[PipelineProgress], *, file: TextIO | None = None
) -> PipelineProgress | None:
    """
    Show snapshots as they come, on stderr unless `file` is given, and return the last.

    Returns None for a stream without any.
    """
    last = None
    with _display(file) as show:
        for last in stream:
            show.update(last)
    return last


async def display_progress_async(
    stream: AsyncIterable[PipelineProgress], *, file: TextIO | None = None
) -> PipelineProgress | None:
    """Show snapshots as they come, as `display_progress` does, without blocking the loop."""
    last = None
    with _display(file) as show:
        async for last in stream:
            show.update(last)
    return last


class _Display(Protocol):
    def update(self, progress: PipelineProgress) -> None: ...

    def __enter__(self) -> _Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _display(file: TextIO | None) -> _Display:
    stream = sys.stderr if file is None else file
    return _Table(stream) if stream.isatty() else _Lines(stream)


class _Lines:
    """A line for each node that changes its state."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._states: dict[str, str] = {}
        self._begun = False

    def update(self, progress: PipelineProgress) -> None:
        lines: list[str] = []
        if progress.actions and not self._begun:
            self._begun = True
            nodes = sum("[" not in action.name for action in progress.actions)
            count = "1 node" if nodes == 1 else f"{nodes} nodes"
            lines.append(f"{progress.name}: {count} (run {progress.run_id})")
        for action in progress.actions:
            state = f"{action.status.value} {action.attempt}"
            if self._states.get(action.name, "pending 1") != state:
                self._states[action.name] = state
                lines.append(f"[{progress.percent:3.0f} %] {_sentence(action)}")
        if progress.status.is_final:
            lines.append(_closing(progress))
        if lines:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Table:
    """A table that is drawn anew ten times a second, and stays on the screen at the end."""

    def __init__(self, file: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=file, highlight=False)
        self._progress: PipelineProgress | None = None
        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=10, transient=True
        )

    def update(self, progress: PipelineProgress) -> None:
        self._progress = progress

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._progress is not None:
            self._console.print(self._render())

    def _render(self) -> Table | str:
        if self._progress is None:
            return ""
        return table_of(self._progress, rows=max(4, self._console.height - 3), now=datetime.now(UTC))


def table_of(progress: PipelineProgress, *, rows: int, now: datetime) -> Table:
    """Draw a snapshot as a table of at most so many nodes; those that say least are left out."""
    from rich.table import Table
    from rich.text import Text

    kept, left_out = _chosen(progress.actions, rows)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for _ in range(4):
        table.add_column(no_wrap=True)
    # What is said takes what the others leave.
    table.add_column(no_wrap=True, ratio=1)
    instances = _Instances(progress.actions)
    for action in kept:
        state, name = action.status.value, action.name
        indent = "  " if "[" in name else ""
        share = instances.percent(action)
        table.add_row(
            Text(f"{indent}{_MARKS[state]} {name}", style=_STYLES[state]),
            Text(state.replace("_", " "), style=_STYLES[state]),
            Text("" if share is None else _bar(share), style=_STYLES[state]),
            Text(_taken(action, now), style="dim"),
            Text(instances.text(action) or _said(action), style="dim"),
        )
    if left_out:
        table.add_row(Text(f"… and {left_out} more", style="dim"))
    is_over = progress.status.is_final
    style = _STYLES[progress.status.value] if is_over else "bold"
    table.caption = Text(_closing(progress) if is_over else _head(progress, now), style=style)
    table.caption_justify = "left"
    return table


class _Instances:
    """How many instances of each node with ``foreach`` there are, and how many are over."""

    def __init__(self, actions: list[ActionProgress]) -> None:
        self._all: dict[str, int] = {}
        self._over: dict[str, int] = {}
        for action in actions:
            node, bracket, _ = action.name.partition("[")
            if bracket:
                self._all[node] = self._all.get(node, 0) + 1
                self._over[node] = self._over.get(node, 0) + action.status.is_final

    def percent(self, action: ActionProgress) -> float | None:
        return None if action.name in self._all else action.progress

    def text(self, action: ActionProgress) -> str:
        known = self._all.get(action.name)
        return "" if known is None else f"{self._over[action.name]} of {known} done"


def _chosen(actions: list[ActionProgress], rows: int) -> tuple[list[ActionProgress], int]:
    """Return the rows to show, in their order, and how many are left out."""
    if len(actions) <= rows:
        return actions, 0

    def weight(at: int) -> tuple[int, int]:
        action = actions[at]
        # Of what is over, an instance says less than its node, and the older less than the newer.
        usual = 4 if "[" in action.name else 2
        return _WEIGHT.get(action.status.value, usual), -at if usual == 4 else at

    kept = sorted(sorted(range(len(actions)), key=weight)[: rows - 1])
    return [actions[at] for at in kept], len(actions) - len(kept)


def _bar(percent: float) -> str:
    full = round(_BAR * percent / 100)
    return f"{'━' * full}{'─' * (_BAR - full)} {percent:3.0f} %"


def _taken(action: ActionProgress, now: datetime) -> str:
    if action.started is None:
        return ""
    return duration_text(max(0.0, ((action.finished or now) - action.started).total_seconds()))


def _said(action: ActionProgress) -> str:
    """Return the most telling thing that is known of a node, in one line."""
    if action.cached_from:
        return f"result of run {action.cached_from}"
    text = action.error or action.message or metrics_text(action.metrics)
    return text.partition("\n")[0]


def _sentence(action: ActionProgress) -> str:
    attempt = f" (attempt {action.attempt})" if action.attempt > 1 else ""
    took = ""
    if action.started is not None and action.finished is not None and action.status.is_final:
        took = f" in {duration_text((action.finished - action.started).total_seconds())}"
    why = action.error or (action.message if action.status.value == "skipped" else None)
    cached = f" from run {action.cached_from}" if action.cached_from else ""
    state = action.status.value.replace("_", " ")
    rest = f"{took}{attempt}{cached}{f': {why}' if why else ''}"
    return f"{_MARKS[action.status.value]} {action.name} {state}{rest}"


def _head(progress: PipelineProgress, now: datetime) -> str:
    begun = progress.started
    taken = "" if begun is None else f", {duration_text(max(0.0, (now - begun).total_seconds()))}"
    return f"{progress.name} {progress.status.value}: {progress.percent:.0f} %{taken} (run {progress.run_id})"


def _closing(progress: PipelineProgress) -> str:
    state = progress.status.value
    why = f"\n{progress.error}" if progress.error else ""
    return (
        f"{_MARKS[state]} {progress.name} {state.replace('_', ' ')} in {duration_text(progress.elapsed)} "
        f"(run {progress.run_id}){why}"
    )
