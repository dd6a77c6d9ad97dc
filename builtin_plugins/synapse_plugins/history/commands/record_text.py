"""The record of a run as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from synapse_kernel.event_text import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from synapse_kernel.contracts import JsonObject, Resources
    from synapse_kernel.stores import RunRecord

SHORT_ID = 8
"""How much of an id is shown, unless two that are shown together begin alike."""

STYLES = {
    "pending": "dim",
    "running": "cyan",
    "retrying": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "timed_out": "red",
    "crashed": "red",
}


def status_text(status: str) -> str:
    """Return a state as words: ``timed out``."""
    return status.replace("_", " ")


def coloured(status: str, mark: str = "") -> Text:
    """Return a state as words in its colour, and a mark behind it."""
    from rich.text import Text

    text = Text(status_text(status), style=STYLES.get(status, ""))
    return text.append(f", {mark}", style="dim") if mark else text


def styled(status: str, width: int = 0) -> str:
    """Return a state as words in its colour, for what is printed as it is."""
    style = STYLES.get(status, "")
    text = f"{status_text(status):<{width}}"
    return click.style(text, dim=True) if style == "dim" else click.style(text, fg=style or None)


def short_ids(run_ids: Iterable[str]) -> dict[str, str]:
    """Return the beginnings that tell runs apart, at least `SHORT_ID` characters of each."""
    whole = list(run_ids)
    length, longest = SHORT_ID, max(map(len, whole), default=0)
    while length < longest and len({run_id[:length] for run_id in whole}) < len(set(whole)):
        length += 1
    return {run_id: run_id[:length] for run_id in whole}


def time_text(moment: datetime) -> str:
    """Return a time in the zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def seconds_of(record: RunRecord) -> float | None:
    """Return how long the last attempt of a run took, or has taken so far; None before it starts."""
    begun = record.started
    if begun is None:
        if record.finished is None or record.attempt > 1:
            return None
        # It ended before it could start.
        begun = record.created
    return max(0.0, ((record.finished or datetime.now(UTC)) - begun).total_seconds())


def took_text(record: RunRecord) -> str:
    """Return how long the last attempt of a run took, or has taken so far."""
    seconds = seconds_of(record)
    return "-" if seconds is None else duration_text(seconds)


def resources_text(resources: Resources) -> str:
    """Return what a run asked for: ``cpus 2, memory 8.0 GiB``; '' for nothing."""
    from synapse_kernel.event_text import size_text

    asked = [f"{name} {value:g}" for name in ("cpus", "gpus") if (value := getattr(resources, name))]
    if resources.memory:
        asked.append(f"memory {size_text(resources.memory)}")
    return ", ".join([*asked, *(f"{name} {value:g}" for name, value in resources.custom.items())])


def document_of(record: RunRecord) -> JsonObject:
    """Return a record as a document that has every key, with the duration in seconds."""
    document: JsonObject = {name: getattr(record, name) for name in record.__struct_fields__}
    document["seconds"] = seconds_of(record)
    document["detached"] = record.detached
    return document
