"""The live display, on a real terminal (a pseudo-terminal of the test's)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """Return a file with an action that takes a while."""
    return make_folder(
        {
            "work.py": """
                import time
                from synapse_kernel import action

                @action
                def train(params, ctx):
                    print("printed while it runs", flush=True)
                    ctx.log_message("a message [not markup]")
                    for step in range(1, 21):
                        ctx.set_progress(step, 20, "epochs")
                        ctx.set_metrics({"loss": 1 / step}, "train")
                        time.sleep(0.05)
                    return "done"

                @action
                def wait(params, ctx):
                    ctx.log_message("waiting")
                    for step in range(2000):
                        ctx.set_progress(step, 2000)
                        time.sleep(0.05)
            """
        }
    )


def spawn(*args: str) -> pexpect.spawn:
    """Start the command line on a terminal of 100 columns."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "synapse_kernel", *args],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        encoding="utf-8",
        timeout=60,
        dimensions=(30, 100),
    )


def plain(text: str) -> str:
    """Take the terminal's control sequences out."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_bars_metrics_and_messages_are_drawn_and_left_on_the_screen(folder: Path) -> None:
    child = spawn("run", str(folder / "work.py"), "train")
    child.expect(pexpect.EOF)
    child.close()
    screen = plain(child.before)
    assert 0 == child.exitstatus
    assert "printed while it runs" in screen
    assert "a message [not markup]" in screen
    last = screen[screen.rindex("epochs") :]
    assert "20/20" in last
    assert "100 %" in last
    assert re.search(r"train\s+loss 0\.05", last)
    assert "✓ train succeeded in" in last
    assert last.rstrip().endswith("done")


def test_ctrl_c_on_the_terminal_stops_the_run_and_gives_the_cursor_back(folder: Path) -> None:
    child = spawn("run", str(folder / "work.py"), "wait")
    child.expect("waiting")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert 130 == child.exitstatus
    assert "■ wait cancelled in" in plain(child.before)
    assert child.before.rindex("\x1b[?25h") > child.before.rfind("\x1b[?25l")
