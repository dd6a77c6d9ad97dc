"""Events, sizes and durations as people read them, in plain text."""

from __future__ import annotations

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


def level_mark(event: Event) -> str:
    """Return what stands before a line that is more than a notice: ``warning: `` or ``error: ``."""
    if isinstance(event, Log) and event.event == "output":
        return ""
    return f"{event.level}: " if event.level in {"warning", "error"} else ""


def line_of(event: Event) -> str:
    """Return what a person reads of an event; the step stands before it in brackets."""
    step = f"[{event.step}] " if event.step else ""
    return step + _body(event)


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
    if event.event == "output" and set(data) == {"stream", "text"}:
        return str(data["text"])
    if event.event in {"log", "dev_event"} and "message" in data:
        trace = data.get("traceback")
        return f"{data['message']}{f'{chr(10)}{trace}' if trace else ''}"
    pairs = " ".join(f"{k}={_value(v)}" for k, v in data.items())
    return f"{event.event} {pairs}".rstrip()


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
    """Return seconds as ``0.3 s``, ``12 s``, ``3 min 5 s`` or ``2 h 10 min``."""
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
