"""Events, sizes and durations as people read them."""

from __future__ import annotations

import msgspec
import pytest

from synapse_kernel.event_text import duration_text, level_mark, line_of, size_text
from synapse_kernel.events import (
    Artifact,
    Event,
    Log,
    Message,
    Metrics,
    Progress,
    State,
    encode_data,
    encode_metrics as _metrics,
)


def log(event: str, data: dict[str, object], level: str = "info", step: str | None = None) -> Log:
    """Make a log event."""
    return Log("r1", 1, 0.0, "train", step, event, level, msgspec.Raw(encode_data(data)))  # type: ignore[arg-type]


def metrics(values: dict[str, float], category: str | None = None) -> Metrics:
    """Make a metrics event."""
    return Metrics("r1", 1, 0.0, "train", None, category, msgspec.Raw(_metrics(values)))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (State("r1", 1, 0.0, "train", None, "running", 2), "running (attempt 2)"),
        (State("r1", 1, 0.0, "train", None, "timed_out", 1, "too long"), "timed out: too long"),
        (Progress("r1", 1, 0.0, "train", None, None, 3), "progress 3"),
        (Progress("r1", 1, 0.0, "train", "fit", "x", 40, 100, 12.0), "[fit] x 40/100 (40 %), 12 s left"),
        (metrics({"loss": 0.123456789, "map50": 0.9}), "loss=0.123457 map50=0.9"),
        (metrics({"loss": float("nan")}, "val"), "val: loss=nan"),
        (Message("r1", 1, 0.0, "train", None, "half done"), "half done"),
        (Artifact("r1", 1, 0.0, "train", None, "best", "/w/b.pt", 2048), "artifact best: /w/b.pt (2.0 KiB)"),
        (log("read", {"file": "a.json", "n": 3, "note": "a b"}), 'read file=a.json n=3 note="a b"'),
        (log("log", {"message": "said through logging", "logger": "x"}), "said through logging"),
        (log("output", {"stream": "stdout", "text": "printed"}), "printed"),
    ],
)  # fmt: skip
def test_an_event_reads_as_one_line(event: Event, expected: str) -> None:
    assert expected == line_of(event)


def test_sizes_and_durations_in_units_that_people_read() -> None:
    assert ["0 B", "1023 B", "1.0 KiB", "3.5 MiB", "2.0 TiB"] == [
        size_text(n) for n in (0, 1023, 1024, 3.5 * 2**20, 2 * 2**40)
    ]
    assert ["0.3 s", "12 s", "3 min 5 s", "2 h 10 min"] == [duration_text(n) for n in (0.3, 12, 185, 7800)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (log("begun", {}), ""),
        (log("careful", {}, "warning"), "warning: "),
        (State("r1", 1, 0.0, "train", None, "failed"), "error: "),
        (log("output", {"stream": "stderr", "text": "printed"}, "warning"), ""),
    ],
)
def test_what_is_more_than_a_notice_is_marked_but_not_what_was_printed(event: Event, expected: str) -> None:
    assert expected == level_mark(event)
