"""
The commands that follow a run by its stored events: `runs logs` and `runs watch`.

Of a run that goes on elsewhere they bring the events into the store themselves, unless another does.
"""

from __future__ import annotations

import sys
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_kernel.cli.running import settings_option
from synapse_kernel.cli.selecting import one_run
from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.event_text import NODE_EVENTS, level_mark, line_of
from synapse_kernel.events import FINAL_STATUSES, LEVELS, Log, Metrics, Progress, encode_event
from synapse_kernel.opening import info_of
from synapse_plugins.history.commands.attaching import Attendant
from synapse_plugins.history.commands.reading import Follower, Nodes
from synapse_plugins.history.commands.selecting import complete_runs, open_store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from synapse_kernel.events import Event
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import RunRecord, RunStore

KINDS = ("state", "log", "progress", "metrics", "message", "artifact")
# Progress of one category is told at most so often, by the time it was made, but for its end.
PROGRESS_SECONDS = 5.0
# Of what a run said before it was watched, so many lines are shown.
LINES_BEFORE = 200

LOGS_EPILOG = """\b
Examples:
  synapse-kernel runs logs @last
  synapse-kernel runs logs 3f2a --follow --level warning
  synapse-kernel runs logs 3f2a --kind message --kind log --times
  synapse-kernel runs logs 3f2a --no-children --json > events.jsonl

Progress is told at most every 5 s of a run, unless it is asked for with --kind progress.
With --follow, Ctrl-C ends the command; the run goes on.
"""

WATCH_EPILOG = """\b
Examples:
  synapse-kernel runs watch @last
  synapse-kernel runs watch 3f2a --json > outcome.json

The exit code is 0 if the run succeeds and 1 if it does not. Ctrl-C ends the command, not the run (130).
"""


@click.command("logs", epilog=LOGS_EPILOG)
@click.argument("run", shell_complete=complete_runs)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--level", type=click.Choice(LEVELS), metavar="LEVEL",
              help="Only what weighs this much or more: debug, info, warning, error.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), metavar="KIND",
              help=f"Only events of this kind: {', '.join(KINDS)}. Repeatable.")  # fmt: skip
@click.option("--children/--no-children", default=True, help="Also the events of runs that are part of it.")
@click.option("-t", "--times", is_flag=True, help="Begin each line with the time.")
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines.")
@click.pass_context
def logs(
    ctx: click.Context,
    run: str,
    follow: bool,
    level: str | None,
    kinds: tuple[str, ...],
    children: bool,
    times: bool,
    as_json: bool,
) -> int:
    """Print what RUN said, line by line."""
    if as_json:
        state_of(ctx).json_to = lambda document: click.echo(msgspec.json.encode(document).decode())
    store = open_store(ctx)
    record = one_run(store, run)
    follower = Follower(store, record.run_id, kinds=kinds, descendants=children)
    writer: LineWriter | JsonWriter = (
        JsonWriter(level)
        if as_json
        else LineWriter(
            store, record.run_id, level=level or "info", times=times, all_progress="progress" in kinds
        )
    )
    attendant = Attendant(state_of(ctx).kernel)
    try:
        for page in follower.until_end(attendant.look) if follow else follower.new():
            writer.write(page)
    except KeyboardInterrupt:
        attendant.release()
        _tell_of_going_on(store, record.run_id)
        return 130
    if not follow and record.detached:
        click.echo(
            f"Run {record.run_id} goes on elsewhere: this is what is known of it here\n"
            f"  see the rest with: synapse-kernel runs logs {record.run_id} --follow",
            err=True,
        )
    return 0


class JsonWriter:
    """Prints events as JSON lines."""

    def __init__(self, level: str | None) -> None:
        self._least = LEVELS.index(level or LEVELS[0])

    def write(self, events: Sequence[Event]) -> None:
        """Print a page, at once."""
        lines = [encode_event(event).decode() for event in events if LEVELS.index(event.level) >= self._least]
        if lines:
            click.echo("\n".join(lines))


class LineWriter:
    """Prints events as lines; those of a node's run say so."""

    def __init__(
        self,
        store: RunStore,
        run_id: str,
        *,
        level: str,
        times: bool = False,
        all_progress: bool = False,
        indent: str = "",
    ) -> None:
        self._nodes = Nodes(store, run_id)
        self._least = LEVELS.index(level)
        self._times = times
        self._all_progress = all_progress
        self._indent = indent
        self._told: dict[tuple[str, str | None, str | None], float] = {}

    def write(self, events: Sequence[Event]) -> None:
        """Print a page, at once."""
        lines = [
            self._line(event)
            for event in events
            if LEVELS.index(event.level) >= self._least
            and (not isinstance(event, Progress) or self._is_due(event))
        ]
        if lines:
            click.echo("\n".join(lines))

    def _line(self, event: Event) -> str:
        place = "/".join(part for part in (self._nodes.name(event.run_id), event.step) if part)
        before = f"{datetime.fromtimestamp(event.time):%Y-%m-%d %H:%M:%S} " if self._times else ""
        return f"{self._indent}{before}{level_mark(event)}{line_of(event, place)}"

    def _is_due(self, event: Progress) -> bool:
        if self._all_progress:
            return True
        key = (event.run_id, event.step, event.category)
        told = self._told.get(key)
        is_complete = event.total is not None and event.current >= event.total
        if told is not None and not is_complete and 0 <= event.time - told < PROGRESS_SECONDS:
            return False
        self._told[key] = event.time
        return True


@click.command("watch", epilog=WATCH_EPILOG)
@click.argument("run", shell_complete=complete_runs)
@click.option("-v", "--verbose", is_flag=True, help="Show debug events and state changes too.")
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Show warnings only; print the outcome as a document.")
@click.pass_context
def watch(ctx: click.Context, run: str, verbose: bool, as_json: bool) -> int:
    """Watch RUN, whichever process it is in, until it ends, and print its result."""
    from synapse_kernel.cli.running import print_outcome

    state = state_of(ctx)
    if as_json:
        promise_json(state)
    store = open_store(ctx)
    record = one_run(store, run)
    verbosity = "quiet" if as_json else "verbose" if verbose else "normal"
    outcome = _watched(state.kernel, store, record, verbosity)
    if outcome.status not in FINAL_STATUSES:
        _tell_of_going_on(store, record.run_id)
        return 130
    if as_json:
        click.echo(dump(outcome.to_dict()))
    else:
        print_outcome(outcome, None, as_json=False)
    return 0 if outcome.ok else 1


def _watched(kernel: Kernel, store: RunStore, record: RunRecord, verbosity: str) -> Outcome:
    """Show a run until it ends, and return its outcome; one that is still under way after a Ctrl-C."""
    sinks = kernel.open_sinks([f"console:{verbosity}"], info_of(kernel, record))
    outcome: Outcome | None = None
    attendant = Attendant(kernel)
    try:
        follower = Follower(store, record.run_id)
        before = _condensed(follower.past())
        for _, sink in sinks:
            sink.accept(before)
        for page in follower.until_end(attendant.look):
            for _, sink in sinks:
                sink.accept(page)
        outcome = outcome_of(store, record.run_id)
    except KeyboardInterrupt:
        attendant.release()
    finally:
        outcome = outcome or _under_way(store.get(record.run_id) or record)
        for _, sink in sinks:
            sink.close(outcome)
    return outcome


def _condensed(pages: Iterable[Sequence[Event]]) -> list[Event]:
    """Return what a display needs of a run's past: the newest lines, each bar's and metric's last state."""
    lines: deque[Event] = deque()
    standing = _Standing()
    for page in pages:
        for event in page:
            if isinstance(event, Progress):
                standing.move(event)
                continue
            lines.append(event)
            if isinstance(event, Log) and event.event == "node_end":
                standing.bars.pop(str(event.data.get("run")), None)
            if len(lines) > LINES_BEFORE:
                standing.pass_by(lines.popleft())
    return [*standing.before({event.run_id for event in lines}), *lines, *standing.now()]


class _Standing:
    """What still stands of the events that are older than the lines that are shown."""

    def __init__(self) -> None:
        self.bars: dict[str, dict[object, Event]] = {}
        self._metrics: dict[str, dict[object, Event]] = {}
        self._nodes: dict[str, Log] = {}
        """What was last said of each node's run, by which a display knows its name."""

    def move(self, event: Progress) -> None:
        """Take the last state of a bar, whose node may be in the lines."""
        self.bars.setdefault(event.run_id, {})[event.step, event.category] = event

    def pass_by(self, event: Event) -> None:
        """Keep of an event what a display needs; what a node showed goes when it ends, as on a display."""
        if isinstance(event, Metrics):
            values = self._metrics.setdefault(event.run_id, {})
            values[event.step, event.category, tuple(event.values)] = event
        elif isinstance(event, Log) and event.event in NODE_EVENTS:
            run_id = str(event.data.get("run"))
            self._nodes[run_id] = event
            if event.event == "node_end":
                self._metrics.pop(run_id, None)

    def before(self, in_lines: Collection[str]) -> list[Event]:
        """Return what comes before the lines; an ended node is named where lines of its run follow."""
        nodes = [
            event
            for run_id, event in self._nodes.items()
            if event.event == "node_start" or run_id in in_lines
        ]
        return [*nodes, *(event for values in self._metrics.values() for event in values.values())]

    def now(self) -> list[Event]:
        """Return what comes after the lines: how far all is that runs."""
        return [event for bars in self.bars.values() for event in bars.values()]


def outcome_of(store: RunStore, run_id: str) -> Outcome:
    """Return the outcome of a run that has ended; one that crashed, or that is gone, left none."""
    found = store.outcome(run_id)
    record = store.get(run_id)
    if found is not None:
        return msgspec.convert(found, Outcome)
    if record is None:
        now = datetime.now(UTC)
        gone = ErrorInfo(type="RunNotFoundError", message="the run was deleted meanwhile", kind="executor")
        return Outcome(run_id=run_id, status="failed", action="", started=now, finished=now, error=gone)
    crashed = ErrorInfo(type="RunCrashed", message=record.error or "its process is dead", kind="crash")
    return msgspec.structs.replace(_under_way(record), error=crashed)


def _under_way(record: RunRecord) -> Outcome:
    return Outcome(
        run_id=record.run_id,
        status=record.status,
        action=record.action,
        started=record.started or record.created,
        finished=record.finished or datetime.now(UTC),
        attempts=record.attempt,
    )


def _tell_of_going_on(store: RunStore, run_id: str) -> None:
    record = store.get(run_id)
    # On a terminal the cursor stands behind its echo of ^C.
    start = "\n" if sys.stderr.isatty() else ""
    if record is not None and record.status not in FINAL_STATUSES:
        click.echo(f"{start}Run {run_id} goes on", err=True)
        click.echo(f"  stop it with: synapse-kernel runs cancel {run_id}", err=True)
