"""The console while a pipeline runs: each line says of which node it is, and each node has its bar."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from synapse_kernel import Kernel, RunInfo, RuntimeContext, action
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Event, Log, Message, Metrics, Progress, State, encode_data, encode_metrics
from synapse_plugins.console.console import PlainConsole
from synapse_plugins.console.live import LiveConsole

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def info() -> RunInfo:
    """Describe a pipeline's run."""
    return RunInfo(run_id="top", action="p", target="p", executor="pipeline", params={}, started=NOW)


def outcome(status: str = "succeeded") -> Outcome:
    """Conclude it."""
    return Outcome(run_id="top", status=status, action="p", started=NOW, finished=NOW)  # type: ignore[arg-type]


def said(event: str, **data: object) -> Log:
    """Make what a pipeline says of its nodes."""
    return Log("top", 1, 0.0, "p", None, event, "info", msgspec.Raw(encode_data(data)))


def progress(run_id: str, current: float, category: str | None = None, step: str | None = None) -> Progress:
    """Make progress of ten."""
    return Progress(run_id, 1, 0.0, "train", step, category, current, 10)


def message(run_id: str, text: str, step: str | None = None) -> Message:
    """Make a message."""
    return Message(run_id, 1, 0.0, "train", step, text, "info")


def metrics(run_id: str, **values: float) -> Metrics:
    """Make metrics."""
    return Metrics(run_id, 1, 0.0, "train", None, None, msgspec.Raw(encode_metrics(values)))


def plain(*events: Event, verbosity: str = "normal") -> list[str]:
    """Return the lines of the plain console, but for its last."""
    stream = io.StringIO()
    console = PlainConsole(info(), verbosity, stream)
    for event in events:
        console.accept([event])
    console.close(outcome())
    return stream.getvalue().splitlines()[:-1]


STARTED = said("node_start", node="train", run="r1", action="x:train")
STARTED_3 = said("node_start", node="draw[3]", run="r2", action="x:draw")


def test_nodes_start_end_and_are_skipped_in_sentences() -> None:
    assert [
        "train started",
        "draw[3] started",
        "train succeeded in 1.2 s",
        "draw[3] timed out in 12 s: RunTimedOut: the run took longer than its 12 s",
        "report skipped: draw failed",
        "done before: check, split",
        "load succeeded, with the result of run r9",
    ] == plain(
        STARTED,
        STARTED_3,
        said("node_end", node="train", run="r1", state="succeeded", seconds=1.23),
        said(
            "node_end", node="draw[3]", run="r2", state="timed_out", seconds=12.0,
            error="RunTimedOut: the run took longer than its 12 s",
        ),
        said("node_skipped", node="report", reason="draw failed"),
        said("nodes_restored", nodes={"check": "r7", "split": "r8"}),
        said("node_end", node="load", run="r8", state="succeeded", seconds=0.0, cached_from="r9"),
    )  # fmt: skip


def test_what_a_node_says_has_its_name_and_step_in_front_and_the_pipelines_own_has_not() -> None:
    assert [
        "train started",
        "[train] hello",
        "[train/epoch 3] hello",
        "the pipeline itself",
        "someone unknown",
    ] == plain(
        STARTED,
        message("r1", "hello"),
        message("r1", "hello", step="epoch 3"),
        message("top", "the pipeline itself"),
        message("r9", "someone unknown"),
    )


def test_progress_of_two_nodes_in_one_category_is_told_apart() -> None:
    assert [
        "train started",
        "draw[3] started",
        "[train] images 1/10 (10 %)",
        "[draw[3]] images 2/10 (20 %)",
        "[train] images 5/10 (50 %)",
        "[draw[3]] images 6/10 (60 %)",
    ] == plain(
        STARTED,
        STARTED_3,
        progress("r1", 1, "images"),
        progress("r2", 2, "images"),
        progress("r1", 5, "images"),
        progress("r2", 6, "images"),
    )


def test_states_of_nodes_are_shown_to_those_who_want_all_and_retries_to_all() -> None:
    events = [
        STARTED,
        State("r1", 1, 0.0, "train", None, "running"),
        State("r1", 2, 0.0, "train", None, "retrying", 1, "ValueError: x; again in 1.0 s"),
    ]
    assert ["train started", "warning: [train] retrying: ValueError: x; again in 1.0 s"] == plain(*events)
    assert [
        "train started",
        "[train] running",
        "warning: [train] retrying: ValueError: x; again in 1.0 s",
    ] == plain(*events, verbosity="verbose")


def test_an_action_that_logs_what_pipelines_log_harms_nothing() -> None:
    assert ["node_start", "node_end run=[1]", "None started"] == plain(
        said("node_start"), said("node_end", run=[1]), said("node_start", node=None, run=3)
    )


@pytest.mark.parametrize("key", ["node", "nodes", "step"])
@pytest.mark.parametrize(
    "event", ["node_start", "node_end", "node_skipped", "nodes_restored", "step_start", "step_end"]
)
def test_nor_does_one_that_logs_half_of_it(event: str, key: str) -> None:
    for value in (1, "x", None, [1], {"a": 1}):
        assert 1 == len(plain(said(event, **{key: value})))


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Callable[[], LiveConsole]:
    """Return what makes a live console of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    return lambda: LiveConsole(info(), "normal")


def drawn(console: LiveConsole) -> list[str]:
    """Return what stands at the bottom at this moment."""
    stream = io.StringIO()
    from rich.console import Console

    Console(file=stream, width=100).print(console._render())
    return [re.sub(r" {2,}|[━╸╺]+", " ", line).strip() for line in stream.getvalue().splitlines()]


def name_of(line: str) -> str:
    """Return what stands before a bar."""
    return re.split(r" (?=\d+/)", line)[0].strip()


def test_each_node_under_way_has_a_bar_that_goes_when_it_ends(
    live: Callable[[], LiveConsole], capsys: pytest.CaptureFixture[str]
) -> None:
    console = live()
    console.accept([progress("top", 1, "nodes"), STARTED, STARTED_3, progress("r1", 4, "epochs")])
    during = drawn(console)
    console.accept([said("node_end", node="train", run="r1", state="succeeded", seconds=1.0)])
    after = drawn(console)
    console.close(outcome())

    assert ["⠋ nodes", "⠋ draw[3]", "⠋ train · epochs"] == [name_of(line) for line in during]
    assert ["⠋ nodes", "⠋ draw[3]"] == [name_of(line) for line in after]
    said_above = capsys.readouterr().err
    assert "train started" not in said_above
    assert "train succeeded in 1.0 s" in said_above


def test_metrics_of_nodes_stand_in_rows_of_their_own_while_they_run(
    live: Callable[[], LiveConsole], capsys: pytest.CaptureFixture[str]
) -> None:
    console = live()
    console.accept([STARTED, STARTED_3, metrics("r1", loss=0.5), metrics("r2", loss=0.25)])
    rows = [line for line in drawn(console) if "loss" in line]
    console.accept([said("node_end", node="train", run="r1", state="failed", seconds=1.0, error="E: x")])
    later = [line for line in drawn(console) if "loss" in line]
    console.close(outcome("failed"))

    assert ["train loss 0.5", "draw[3] loss 0.25"] == rows
    assert ["draw[3] loss 0.25"] == later
    assert "train failed in 1.0 s: E: x" in capsys.readouterr().err


def test_a_nodes_end_is_not_taken_for_the_pipelines(live: Callable[[], LiveConsole]) -> None:
    console = live()
    console.accept([State("top", 1, 0.0, "p", None, "running"), State("r1", 1, 0.0, "train", None, "failed")])
    shown = drawn(console)
    console.close(outcome())

    assert ["… p running"] == shown


@action
def speak(params: dict[str, Any], ctx: RuntimeContext) -> None:
    """Say something at once, and end."""
    ctx.log_message(f"hello from {params['it']}")


def test_the_lines_of_a_real_pipeline_name_the_node_however_short_it_was(kernel: Kernel) -> None:
    from synapse_plugins.pipelines import Pipeline

    pipeline = Pipeline("p")
    pipeline.add("one", speak, with_={"it": 1})
    pipeline.add("many", speak, foreach=[2, 3], with_={"it": "${item}"}, max_parallel=1, needs=["one"])
    stream = io.StringIO()

    assert pipeline.execute(kernel=kernel, sinks=[PlainConsole(info(), "normal", stream)]).ok

    lines = stream.getvalue().splitlines()
    assert [
        "[one] hello from 1",
        "[many[0]] hello from 2",
        "[many[1]] hello from 3",
    ] == [line for line in lines if "hello" in line]
    assert [] == [line for line in lines if line.startswith("node_")]
    for name in ("one", "many[0]", "many[1]"):
        said_at = next(at for at, line in enumerate(lines) if f"[{name}] hello" in line)
        assert lines.index(f"{name} started") < said_at


def test_the_command_line_shows_the_nodes_of_a_pipeline(
    make_folder: Callable[..., Path],
) -> None:
    import subprocess
    import sys

    folder = make_folder(
        {
            "work.py": """
                from synapse_kernel import action

                @action
                def speak(params, ctx):
                    ctx.log_message("hello")
                    return 3
            """,
            "pipeline.yaml": """
                name: p
                nodes:
                  one: {action: "./work.py:speak"}
            """,
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "synapse_kernel", "pipeline", "run", str(folder / "pipeline.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "[one] hello" in done.stderr.splitlines()
