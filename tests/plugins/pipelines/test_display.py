"""What a person watches of a pipeline: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pexpect
import pytest
from rich.console import Console

from synapse_plugins.pipelines.display import display_progress, display_progress_async, table_of
from synapse_plugins.pipelines.progress import ActionProgress, ActionStatus, PipelineProgress, RunStatus

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Return a time so long after the start."""
    return BEGUN + timedelta(seconds=seconds)


def node(name: str, status: str = "pending", **more: object) -> ActionProgress:
    """Return the progress of a node."""
    return ActionProgress(name=name, status=ActionStatus(status), **more)


def progress(*actions: ActionProgress, status: str = "running", **more: object) -> PipelineProgress:
    """Return a snapshot."""
    return PipelineProgress(
        run_id="r1", name="shapes", status=RunStatus(status), started=BEGUN, actions=list(actions), **more
    )


STORY = [
    progress(),
    progress(node("draw"), node("check"), node("report")),
    progress(node("draw", "running", started=BEGUN), node("check"), node("report")),
    progress(
        node("draw", "running", started=BEGUN, progress=50.0), node("check"), node("report"), percent=16.7
    ),
    progress(
        node("draw", "retrying", started=BEGUN, error="OSError: full"),
        node("check"),
        node("report"),
        percent=16.7,
    ),
    progress(node("draw", "running", started=BEGUN, attempt=2), node("check"), node("report")),
    progress(
        node("draw", "succeeded", started=BEGUN, finished=after(3), attempt=2),
        node("check", "skipped", message="its condition does not hold: false"),
        node("report", "cached", cached_from="older"),
        status="succeeded",
        percent=100.0,
        elapsed=3.5,
    ),
]


def test_elsewhere_each_changed_state_is_a_line() -> None:
    file = StringIO()

    last = display_progress(STORY, file=file)

    assert STORY[-1] == last
    assert [
        "shapes: 3 nodes (run r1)",
        "[  0 %] ▸ draw running",
        "[ 17 %] ↻ draw retrying: OSError: full",
        "[  0 %] ▸ draw running (attempt 2)",
        "[100 %] ✓ draw succeeded in 3.0 s (attempt 2)",
        "[100 %] ○ check skipped: its condition does not hold: false",
        "[100 %] ≡ report cached from run older",
        "✓ shapes succeeded in 3.5 s (run r1)",
    ] == file.getvalue().splitlines()


def test_a_pipeline_that_failed_says_why_at_the_end() -> None:
    file = StringIO()

    display_progress(
        [progress(node("a", "failed", error="E: no"), status="failed", error="node 'a' failed")], file=file
    )

    assert [
        "shapes: 1 node (run r1)",
        "[  0 %] ✗ a failed: E: no",
        "✗ shapes failed in 0.0 s (run r1)",
        "node 'a' failed",
    ] == file.getvalue().splitlines()


def test_a_stream_without_snapshots_shows_nothing() -> None:
    file = StringIO()

    assert display_progress([], file=file) is None
    assert "" == file.getvalue()


def test_the_async_twin_shows_the_same() -> None:
    async def stream() -> AsyncIterator[PipelineProgress]:
        for snapshot in STORY:
            yield snapshot

    plain, twin = StringIO(), StringIO()
    display_progress(STORY, file=plain)

    assert STORY[-1] == asyncio.run(display_progress_async(stream(), file=twin))
    assert plain.getvalue() == twin.getvalue()


def test_without_a_file_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    display_progress(STORY)

    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith("shapes: 3 nodes (run r1)\n")


def drawn(snapshot: PipelineProgress, *, rows: int = 20, seconds: float = 10) -> list[str]:
    """Return the table of a snapshot as lines of text."""
    console = Console(file=StringIO(), width=100, highlight=False)
    console.print(table_of(snapshot, rows=rows, now=after(seconds)))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


class TestTable:
    def test_each_node_has_a_row_with_its_bar_time_and_what_it_says(self) -> None:
        lines = drawn(
            progress(
                node("draw", "succeeded", started=BEGUN, finished=after(2), metrics={"images": 40}),
                node("train", "running", started=after(2), progress=50.0, message="epoch 3"),
                node("test", "cached", cached_from="older"),
                node("report"),
                percent=50.0,
            )
        )

        assert [
            "✓ draw    succeeded                              2.0 s  images=40",
            "▸ train   running    ━━━━━━━━━━──────────  50 %  8.0 s  epoch 3",
            "≡ test    cached                                        result of run older",
            "· report  pending",
            "shapes running: 50 %, 10 s (run r1)",
        ] == lines

    def test_instances_stand_under_their_node_which_counts_them(self) -> None:
        lines = drawn(
            progress(
                node("draw", "running", started=BEGUN),
                node("draw[0]", "succeeded", started=BEGUN, finished=after(1)),
                node("draw[1]", "running", started=BEGUN),
            )
        )

        assert [
            "▸ draw       running      10 s   1 of 2 done",
            "  ✓ draw[0]  succeeded    1.0 s",
            "  ▸ draw[1]  running      10 s",
        ] == lines[:-1]

    def test_text_that_looks_like_markup_is_shown_as_it_is(self) -> None:
        lines = drawn(progress(node("a", "failed", error="ValueError: [red] is no colour\nmore")))

        assert "✗ a  failed      ValueError: [red] is no colour" == lines[0]

    def test_what_says_least_is_left_out_where_there_is_no_room(self) -> None:
        actions = [
            node("draw", "running"),
            *(node(f"draw[{n}]", "succeeded") for n in range(10)),
            node("draw[10]", "failed"),
            node("draw[11]", "running"),
            *(node(f"later{n}") for n in range(5)),
        ]

        lines = drawn(progress(*actions), rows=6)

        assert ["draw", "draw[10]", "draw[11]", "later0", "later1"] == [line.split()[1] for line in lines[:5]]
        assert "… and 13 more" == lines[5]

    def test_one_that_is_over_says_so(self) -> None:
        lines = drawn(progress(status="failed", elapsed=61, error="node 'a' failed"))

        assert ["✗ shapes failed in 1 min 1 s (run r1)", "node 'a' failed"] == lines


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_the_table_moves_and_stays_at_the_end(tmp_path: Path) -> None:
    script, seen, said = tmp_path / "watch.py", tmp_path / "seen", io.StringIO()
    script.write_text(
        f"""
import pathlib
import time
from synapse_kernel import Kernel, action
from synapse_plugins.pipelines.display import display_progress
from synapse_plugins.pipelines.linear import ActionPipeline
from synapse_plugins.pipelines.progress import track

@action
def first(params, ctx):
    for step in range(1, 11):
        ctx.set_progress(step, 10)
    while not pathlib.Path({str(seen)!r}).exists():
        time.sleep(0.02)
    return {{"a": 1}}

@action
def second(params, ctx):
    return {{"b": 2}}

with Kernel() as kernel:
    last = display_progress(track(ActionPipeline([first, second]).submit(kernel=kernel, sinks=[])))
    print("it", last.status.value)
"""
    )
    child = pexpect.spawn(
        sys.executable,
        [str(script)],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        encoding="utf-8",
        timeout=60,
        dimensions=(30, 100),
    )
    child.logfile_read = said
    child.expect("running")
    seen.touch()
    child.expect(pexpect.EOF)
    child.close()
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.getvalue())
    last = screen[screen.rindex("✓ first ") :]

    assert 0 == child.exitstatus, screen
    assert re.search(r"▸ first +running", screen)
    assert re.match(r"✓ first +succeeded +━{20} 100 % .*\s+✓ second +succeeded", last)
    assert "✓ first-second succeeded in" in last
    assert last.rstrip().endswith("it succeeded")
    assert said.getvalue().rindex("\x1b[?25h") > said.getvalue().rfind("\x1b[?25l")
