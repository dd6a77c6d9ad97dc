"""The sinks `console` (plain), `jsonl` and `logging`."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from synapse_kernel import Kernel, RunInfo, UsageError, action
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import (
    Event,
    Log,
    Progress,
    State,
    encode_data,
)
from synapse_plugins.console.console import PlainConsole, open_console

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def info() -> RunInfo:
    """Describe a run."""
    return RunInfo(run_id="r1", action="train", target="./p", executor="local", params={}, started=NOW)


def outcome(status: str = "succeeded") -> Outcome:
    """Conclude it."""
    return Outcome(run_id="r1", status=status, action="train", started=NOW, finished=NOW)  # type: ignore[arg-type]


def log(event: str, data: dict[str, object], level: str = "info", step: str | None = None) -> Log:
    """Make a log event."""
    import msgspec

    return Log("r1", 1, 0.0, "train", step, event, level, msgspec.Raw(encode_data(data)))  # type: ignore[arg-type]


def test_plain_console_shows_by_verbosity_and_says_how_the_run_ended() -> None:
    events: list[Event] = [
        State("r1", 1, 0.0, "train", None, "running"),
        log("details", {}, "debug"),
        log("begun", {}),
        log("careful", {}, "warning"),
    ]
    written = {}
    for verbosity in ("quiet", "normal", "verbose"):
        stream = io.StringIO()
        console = PlainConsole(info(), verbosity, stream)
        console.accept(events)
        console.close(outcome())
        written[verbosity] = stream.getvalue().splitlines()
    end = "✓ train succeeded in 0.0 s (run r1)"
    assert ["warning: careful"] == written["quiet"]
    assert ["begun", "warning: careful", end] == written["normal"]
    assert ["running", "details", "begun", "warning: careful", end] == written["verbose"]


def test_plain_console_writes_little_progress_but_always_the_last() -> None:
    stream = io.StringIO()
    console = PlainConsole(info(), "normal", stream)
    for step in range(50):
        console.accept([Progress("r1", step + 1, 0.0, "train", None, "items", step, 100)])
    console.close(outcome("failed"))
    assert [
        "items 0/100 (0 %)",
        "items 49/100 (49 %)",
        "✗ train failed in 0.0 s (run r1)",
    ] == stream.getvalue().splitlines()


def test_an_unknown_verbosity_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        open_console(info(), "loud")
    assert "The console knows quiet, normal and verbose, not 'loud'" == str(caught.value)


@action
def talkative(params: object, ctx: object) -> None:
    """Say one of each."""
    ctx.log("a", {"n": 1})  # type: ignore[attr-defined]
    ctx.set_metrics({"loss": float("inf")})  # type: ignore[attr-defined]
    ctx.log_message("hello", "success")  # type: ignore[attr-defined]


def test_json_lines_hold_every_event_and_a_second_run_is_appended(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "new" / "events.jsonl"
    for _ in range(2):
        assert kernel.run(talkative, sinks=[f"jsonl:{file}"]).ok
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kinds = ["state", "state", "log", "metrics", "message", "state"]
    assert kinds * 2 == [line["kind"] for line in lines]
    assert {"loss": "Infinity"} == lines[3]["values"]
    assert {"n": 1} == lines[2]["data"]
    assert lines[0]["run_id"] != lines[6]["run_id"]


def test_json_lines_to_stdout(kernel: Kernel, capfd: pytest.CaptureFixture[str]) -> None:
    assert kernel.run(talkative, sinks=["jsonl"]).ok
    assert 6 == len(capfd.readouterr().out.splitlines())


def test_json_lines_to_a_descriptor_leave_it_open(kernel: Kernel) -> None:
    reading, writing = os.pipe()
    assert kernel.run(talkative, sinks=[f"jsonl:fd:{writing}"]).ok
    os.write(writing, b"still open\n")
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert "still open" == stream.read().splitlines()[-1]


def test_a_disk_that_is_full_disables_the_sink_and_not_the_run(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    assert kernel.run(talkative, sinks=["jsonl:/dev/full"]).ok
    assert ["Sink 'jsonl' failed and is off for this run: OSError: [Errno 28] No space left on device"] == [
        record.message for record in caplog.records
    ]


def test_logging_sends_each_event_with_its_level(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="acme"):
        assert kernel.run(talkative, sinks=["logging:acme"]).ok
    assert ["pending", "running", "a n=1", "loss=inf", "hello", "succeeded"] == [
        record.getMessage() for record in caplog.records
    ]
    assert {"acme"} == {record.name for record in caplog.records}
    assert isinstance(caplog.records[0].event, State)  # type: ignore[attr-defined]


def test_several_sinks_receive_the_same(
    kernel: Kernel, tmp_path: Path, make_folder: Callable[..., Path]
) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert kernel.run(talkative, sinks=[f"jsonl:{a}", f"jsonl:{b}", "none"]).ok
    assert a.read_bytes() == b.read_bytes()
