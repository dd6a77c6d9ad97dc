"""How a job tells what happens in its log: whatever way the log is cut, the same frames come out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Event, Log, Message, decode_events, encode_data
from synapse_kernel.serialization import decode_struct
from synapse_plugins.ray_executors.job_wire import (
    EVENTS,
    KEPT,
    OUTCOME,
    Frame,
    FrameReader,
    FrameWriter,
    mark_of,
    numbered,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor of a log that is open for appending, as Ray opens it."""
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def message(seq: int, text: str) -> Message:
    return Message("r1", seq, 1.5, "act", None, text)


def outcome(result: object) -> Outcome:
    return Outcome(run_id="r1", status="succeeded", action="act", started=NOW, finished=NOW, result=result)


def written(log: int) -> str:
    os.lseek(log, 0, os.SEEK_SET)
    with os.fdopen(os.dup(log)) as stream:
        return stream.read()


def events_of(frames: list[Frame]) -> list[Event]:
    return [e for frame in frames if frame.kind == EVENTS for e in decode_events(frame.data.encode())]


def test_events_come_out_in_order_and_the_outcome_last(log: int) -> None:
    events: list[Event] = [message(seq, f"text {seq}") for seq in range(1, 3001)]
    writer = FrameWriter(log, "abc")
    writer.send(events[:10])
    writer.send(events[10:])
    writer.finish(outcome({"a": [1, None]}))
    frames = FrameReader("abc").feed(written(log))
    assert events == events_of(frames)
    assert [OUTCOME] == [frame.kind for frame in frames if frame.kind != EVENTS]
    assert outcome({"a": [1, None]}) == decode_struct(frames[-1].data.encode(), Outcome)


def test_an_outcome_stands_there_as_it_is_kept_too_where_that_is_another(log: int) -> None:
    FrameWriter(log, "abc").finish(outcome("***"), outcome("***"))
    FrameWriter(log, "abc").finish(outcome("a secret"), outcome("***"))
    frames = FrameReader("abc").feed(written(log))
    assert [OUTCOME, KEPT, OUTCOME] == [frame.kind for frame in frames]
    results = [decode_struct(frame.data.encode(), Outcome).result for frame in frames]
    assert ["***", "***", "a secret"] == results


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_log_may_be_cut_anywhere(log: int, size: int) -> None:
    writer = FrameWriter(log, "abc")
    writer.send([message(1, "first")])
    writer.finish(outcome(1))
    text = written(log)
    reader = FrameReader("abc")
    frames = [frame for at in range(0, len(text), size) for frame in reader.feed(text[at : at + size])]
    assert [message(1, "first")] == events_of(frames)
    assert OUTCOME == frames[-1].kind


def test_everything_written_is_ascii_and_reads_as_it_was(log: int) -> None:
    raw = msgspec.Raw(encode_data({"text": "é 漢字 😀\r\n\u2028"}))
    event = Log("r1", 1, 1.5, "act", None, "ünicode", "info", raw)
    writer = FrameWriter(log, "abc")
    writer.send([event])
    writer.finish(outcome("😀"))
    text = written(log)
    assert text.isascii()
    frames = FrameReader("abc").feed(text)
    (found,) = events_of(frames)
    assert isinstance(found, Log)
    assert ("ünicode", event.data) == (found.event, found.data)
    assert "😀" == decode_struct(frames[-1].data.encode(), Outcome).result


def test_what_is_long_goes_in_lines_that_are_not(log: int) -> None:
    long = "x" * 3_000_000
    writer = FrameWriter(log, "abc")
    writer.send([message(1, long), message(2, "short")])
    writer.finish(outcome(long))
    text = written(log)
    assert 300_000 > max(len(line) for line in text.splitlines())
    frames = FrameReader("abc").feed(text)
    assert [message(1, long), message(2, "short")] == events_of(frames)
    assert long == decode_struct(frames[-1].data.encode(), Outcome).result


def test_other_lines_are_kept_apart_also_one_without_an_end(log: int) -> None:
    os.write(log, b"INFO job_manager.py -- Runtime env is setting up.\n\nno end")
    writer = FrameWriter(log, "abc")
    writer.send([message(1, "one")])
    writer.finish(outcome(None))
    os.write(log, b"Killed")
    reader = FrameReader("abc")
    frames = reader.feed(written(log))
    reader.finish()
    assert [message(1, "one")] == events_of(frames)
    expected = ["INFO job_manager.py -- Runtime env is setting up.", "no end", "Killed"]
    assert expected == list(reader.plain)


def test_half_a_frame_is_none() -> None:
    reader = FrameReader("abc")
    assert [] == reader.feed(f'{mark_of("abc")}O {{"run_id"')
    reader.finish()
    assert [] == list(reader.plain)


def test_the_frames_of_another_job_are_plain_lines() -> None:
    reader = FrameReader("abc")
    assert [] == reader.feed(f"{mark_of('xyz')}O null\n")
    assert ["@@synapse-xyz O null"] == list(reader.plain)


def test_events_of_several_sources_get_one_numbering() -> None:
    assert [4, 5] == [event.seq for event in numbered([message(0, "a"), message(9, "b")], 3)]
