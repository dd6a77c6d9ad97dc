"""
The sink `console`: what a person watches, on stderr.

On a terminal a live display: a bar for each progress category, the latest metrics, messages above them.
Elsewhere plain lines, progress at most once every few seconds, and rich is not even imported.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from synapse_kernel.errors import UsageError
from synapse_kernel.event_text import Places, duration_text, level_mark, line_of
from synapse_kernel.events import LEVELS, Log, Metrics, Progress, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from synapse_kernel.contracts import Outcome, RunInfo, Sink
    from synapse_kernel.events import Event

VERBOSITIES = ("quiet", "normal", "verbose")
# Plain lines of progress of one category come no closer than this, but for its last.
PLAIN_PROGRESS_SECONDS = 5.0

_LEAST_LEVEL = {"quiet": "warning", "normal": "info", "verbose": "debug"}
_MARKS = {"succeeded": "✓", "failed": "✗", "crashed": "✗", "timed_out": "✗", "cancelled": "■"}


def open_console(run: RunInfo, argument: str | None) -> Sink:
    """Open the console for a run; `argument` is the verbosity. Raises `UsageError` for another word."""
    verbosity = argument or "normal"
    if verbosity not in VERBOSITIES:
        raise UsageError(f"The console knows quiet, normal and verbose, not {verbosity!r}")
    if sys.stderr.isatty() and verbosity != "quiet":
        from synapse_plugins.console.live import LiveConsole

        return LiveConsole(run, verbosity)
    return PlainConsole(run, verbosity, sys.stderr)


def is_shown(event: Event, verbosity: str) -> bool:
    """Tell whether an event is for the eyes at this verbosity; states and nodes have their own rule."""
    if isinstance(event, State):
        return verbosity == "verbose" or event.state == "retrying"
    if isinstance(event, Log) and event.event in {"pipeline_start", "node_items"}:
        return verbosity == "verbose"
    return LEVELS.index(event.level) >= LEVELS.index(_LEAST_LEVEL[verbosity])


def closing_line(run: RunInfo, outcome: Outcome) -> str:
    """Return the line that says how a run ended."""
    mark = _MARKS.get(outcome.status, "…")
    attempts = f" after {outcome.attempts} attempts" if outcome.attempts > 1 else ""
    state = outcome.status.replace("_", " ")
    return f"{mark} {run.action} {state} in {duration_text(outcome.seconds)}{attempts} (run {run.run_id})"


class _Key(NamedTuple):
    """What is written only now and then: one thing of one run, in one place."""

    kind: str
    run_id: str
    place: str
    category: str | None


class PlainConsole:
    """Plain lines for logs of CI, pipes and files."""

    def __init__(self, run: RunInfo, verbosity: str, stream: TextIO) -> None:
        self._run = run
        self._verbosity = verbosity
        self._stream = stream
        self._places = Places()
        self._shown_at: dict[_Key, float] = {}
        self._waiting: dict[_Key, Progress | Metrics] = {}

    def accept(self, events: Sequence[Event]) -> None:
        """Write the lines of a batch."""
        lines: list[str] = []
        for event in events:
            self._places.observe(event)
            if not is_shown(event, self._verbosity):
                continue
            place = self._places.of(event)
            if isinstance(event, Log) and event.event == "node_end":
                lines += self._take_waiting(event)
            if isinstance(event, (Progress, Metrics)) and not self._is_due(event, place):
                continue
            lines.append(level_mark(event) + line_of(event, place))
        self._write(lines)

    def close(self, outcome: Outcome) -> None:
        """Write the last progress of each category and how the run ended."""
        lines = [line_of(event, key.place) for key, event in self._waiting.items()]
        if self._verbosity != "quiet":
            lines.append(closing_line(self._run, outcome))
        self._write(lines)

    def _is_due(self, event: Progress | Metrics, place: str) -> bool:
        """Tell whether to write it now; of the nodes of a pipeline, metrics come as rarely as progress."""
        if isinstance(event, Metrics) and event.run_id == self._run.run_id:
            return True
        now, key = monotonic(), _Key(type(event).__name__, event.run_id, place, event.category)
        last = self._shown_at.get(key)
        complete = isinstance(event, Progress) and event.total is not None and event.current >= event.total
        if last is None or complete or now - last >= PLAIN_PROGRESS_SECONDS:
            self._shown_at[key] = now
            self._waiting.pop(key, None)
            return True
        self._waiting[key] = event
        return False

    def _take_waiting(self, ended: Log) -> list[str]:
        """Return the last that a node told and that was held back, as it ends."""
        run_id = ended.data.get("run")
        keys = [key for key in self._waiting if key.run_id == run_id]
        return [line_of(self._waiting.pop(key), key.place) for key in keys]

    def _write(self, lines: list[str]) -> None:
        if lines:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
