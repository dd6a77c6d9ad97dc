"""Events, sizes and durations as people read them, in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.errors import listing
from synapse_kernel.events import (
    Artifact,
    Event,
    Log,
    Message,
    Metrics,
    Progress,
    State,
    encode_data as _encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def level_mark(event: Event) -> str:
    """Return what stands before a line that is more than a notice: ``warning: `` or ``error: ``."""
    if isinstance(event, Log) and event.event == "output":
        return ""
    return f"{event.level}: " if event.level in {"warning", "error"} else ""


class Places:
    """
    Where the events of a run and of those that are part of it were said, as people name it.

    Every event is to be shown to `observe`, in order: a pipeline says as a node starts which run it is.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}

    def observe(self, event: Event) -> None:
        """Learn the node of a run from what its pipeline says."""
        if isinstance(event, Log) and event.event in NODE_EVENTS:
            data = event.data
            if isinstance(run_id := data.get("run"), str):
                self._nodes[run_id] = str(data.get("node"))

    def of(self, event: Event) -> str:
        """Return the node and the step, as ``train/epoch 3``; '' for an event of the run itself."""
        return "/".join(part for part in (self._nodes.get(event.run_id), event.step) if part)


NODE_EVENTS = frozenset({"node_start", "node_end"})
"""What a pipeline logs of a node that runs; each names the node and, if there is one, its run."""


def line_of(event: Event, place: str | None = None) -> str:
    """Return what a person reads of an event, its place (by default the step) before it in brackets."""
    place = event.step if place is None else place
    return f"[{place}] {_body(event)}" if place else _body(event)


def _body(event: Event) -> str:
    if isinstance(event, State):
        attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        return f"{event.state.replace('_', ' ')}{attempt}{f': {event.detail}' if event.detail else ''}"
    if isinstance(event, Progress):
        return progress_text(event)
    if isinstance(event, Metrics):
        category = f"{event.category}: " if event.category else ""
        return category + metrics_text(event.values)
    if isinstance(event, Message):
        return event.text
    if isinstance(event, Artifact):
        size = f" ({size_text(event.size)})" if event.size is not None else ""
        return f"artifact {event.name}: {event.path}{size}"
    return log_text(event)


def log_text(event: Log) -> str:
    """Return a log event as text: printed lines and log messages as they are, else its name and data."""
    data = event.data
    phrase = _PHRASES.get(event.event)
    if phrase is not None and not data.keys().isdisjoint({"node", "nodes", "step"}):
        return phrase(data)
    if event.event == "output" and set(data) == {"stream", "text"}:
        return str(data["text"])
    if event.event in {"log", "dev_event"} and "message" in data:
        trace = data.get("traceback")
        return f"{data['message']}{f'{chr(10)}{trace}' if trace else ''}"
    pairs = " ".join(f"{k}={_value(v)}" for k, v in data.items())
    return f"{event.event} {pairs}".rstrip()


def _ended(data: dict[str, object]) -> str:
    taken = data.get("seconds")
    cached = f", with the result of run {data['cached_from']}" if data.get("cached_from") else ""
    why = f": {data['error']}" if data.get("error") else ""
    after = f" in {duration_text(taken)}" if isinstance(taken, (int, float)) and not cached else ""
    state = str(data.get("state")).replace("_", " ")
    return f"{data['node']} {state}{after}{cached}{why}" if "node" in data else f"{state}{after}"


def _restored(data: dict[str, object]) -> str:
    nodes = data.get("nodes")
    names = listing(nodes if isinstance(nodes, dict) else (), most=8)
    return f"done before: {names}"


_PHRASES: dict[str, Callable[[dict[str, object]], str]] = {
    "node_start": lambda data: f"{data.get('node')} started",
    "node_end": _ended,
    "node_skipped": lambda data: f"{data.get('node')} skipped: {data.get('reason')}",
    "nodes_restored": _restored,
    # Of a step, whose name stands before the line already.
    "step_start": lambda _: "started",
    "step_end": _ended,
}


def progress_text(event: Progress) -> str:
    """Return progress as ``train 40/100 (40 %), 12 s left``."""
    label = event.category or "progress"
    if not event.total:
        return f"{label} {event.current:g}"
    eta = f", {duration_text(event.eta)} left" if event.eta else ""
    return f"{label} {event.current:g}/{event.total:g} ({event.percent or 0:.0f} %){eta}"


def metrics_text(values: dict[str, float]) -> str:
    """Return metrics as ``loss=0.1234 map50=0.9``."""
    return " ".join(f"{name}={value:.6g}" for name, value in values.items())


def size_text(size: float) -> str:
    """Return bytes in the largest unit that gives a number of 1 or more: 1,024 bytes are 1.0 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration_text(seconds: float) -> str:
    """Return seconds as ``8 ms``, ``0.3 s``, ``12 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if 0 < seconds < 0.1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _value(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else _encode({"": value})[4:-1].decode()
