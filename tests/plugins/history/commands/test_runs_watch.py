"""`runs watch`: the console, attached to a run of another process."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from time import monotonic

import msgspec
import pexpect
import pytest

from synapse_kernel.contracts import ErrorInfo
from synapse_kernel.events import Log, Message, Progress

A, B, C = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000"


def test_a_run_that_succeeded_is_shown_with_its_result(runs: Callable, book, events: type) -> None:
    book.run(A, events=events(A).message("hello").progress(2, 2, "epochs").made, result={"map50": 0.9})
    said = runs("watch", A)
    assert 0 == said.code
    assert ["hello", "epochs 2/2 (100 %)", f"✓ train succeeded in 12 s (run {A})"] == said.err.splitlines()
    assert '{\n  "map50": 0.9\n}\n' == said.out


def test_the_past_is_told_once(runs: Callable, book, events: type) -> None:
    said = events(A).metrics({"loss": 2}).log("node_start", {"node": "x", "run": B}).metrics({"loss": 1})
    book.run(A, events=said.made)
    assert ["loss=2", "x started", "loss=1"] == runs("watch", A).err.splitlines()[:-1]


def test_a_run_that_failed_exits_with_1_and_tells_why(runs: Callable, book) -> None:
    book.run(A, "failed", error=ErrorInfo(type="ValueError", message="no data", traceback="Traceback\n"))
    said = runs("watch", A)
    assert (1, "") == (said.code, said.out)
    assert ["✗ train failed in 12 s (run aaaa0000aaaa0000)", "Traceback", "Error: ValueError: no data"] == (
        said.err.splitlines()
    )


def test_as_json_it_waits_for_the_outcome(runs: Callable, book) -> None:
    book.run(A, "failed", error=ErrorInfo(type="ValueError", message="no data"))
    said = runs("watch", A, "--json")
    assert (1, "failed", "no data") == (said.code, said.document["status"], said.document["error"]["message"])


def test_a_dead_process_ends_it_too(runs: Callable, book, ended_process) -> None:
    book.run(A, "running", owner=ended_process)
    said = runs("watch", A)
    assert 1 == said.code
    assert "✗ train crashed in" in said.err


def test_events_are_shown_as_they_come_to_the_end(book, start: Callable) -> None:
    book.run(A, "running")
    book.child(B, A, "part", "running")
    process = start("runs", "watch", A, "-v")
    assert "running\n" == process.stderr.readline()
    assert "running\n" == process.stderr.readline()
    for number in range(1, 4):
        said_at = monotonic()
        run_id = B if number == 3 else A
        book.store.append(run_id, [Message(run_id, number + 1, 2.0, "train", None, f"message {number}")])
        assert process.stderr.readline().endswith(f"message {number}\n")
        # The promise is 0.5 s; a machine under load gets more.
        assert monotonic() - said_at < 5
    book.finish(A)
    out, err = process.communicate(timeout=30)
    assert (0, "done\n") == (process.returncode, out)
    assert "✓ train succeeded in" in err


def test_what_a_node_says_is_shown_with_its_name_even_if_it_is_stored_first(
    runs: Callable, book, events: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.run(A, "running", kind="pipeline")
    node = events(A).state("running").log("node_start", {"node": "train", "run": B})

    def happens() -> Iterator[None]:
        """Do, while the command sleeps between two looks, what the other process does."""
        book.child(B, A, "train", events=events(B).message("hello").made, minutes_ago=0)
        yield
        book.store.append(A, node.made[1:])
        yield
        book.finish(A)
        yield

    steps = happens()
    monkeypatch.setattr(time, "sleep", lambda _seconds: next(steps))
    lines = runs("watch", A, "-v").err.splitlines()
    told = ["running", "train started", "[train] running", "[train] hello", "[train] succeeded"]
    assert told == lines[:5]


def test_of_a_long_past_the_newest_lines_are_shown(runs: Callable, book, events: type) -> None:
    said = events(A)
    for number in range(1000):
        said.message(f"line {number}").progress(number, 1000, "epochs").metrics({"loss": number})
    book.run(A, events=said.made)
    lines = runs("watch", A).err.splitlines()
    assert "line 999" in lines
    assert "line 10" not in lines
    assert ["loss=999", "epochs 999/1000 (100 %)"] == lines[-3:-1]


@pytest.fixture
def long_pipeline(book, events: type) -> None:
    """Record a pipeline that runs, of which one part said more than is shown of the past."""
    book.run(A, "running", kind="pipeline", action="both")
    said = (
        events(A).log("node_start", {"node": "old", "run": C}).log("node_start", {"node": "train", "run": B})
    )
    said.log("node_end", {"node": "old", "run": C, "state": "succeeded", "seconds": 1})
    book.store.append(A, said.made)
    old = events(C).metrics({"size": 1}).progress(1, 2, "files").made
    book.child(C, A, "old", events=old)
    part = events(B).metrics({"loss": 5})
    part.time += 10
    for number in range(300):
        part.message(f"line {number}").progress(number, 300, "epochs")
    book.child(B, A, "train", "running", events=part.made)


def test_of_a_long_past_each_line_has_its_node(
    runs: Callable, book, events: type, long_pipeline: None
) -> None:
    ended = events(A)
    ended.time += 900
    ended.log("node_end", {"node": "train", "run": B, "state": "succeeded", "seconds": 9})
    book.store.append(A, [*map(_later, ended.made)])
    book.finish(A)
    lines = runs("watch", A).err.splitlines()
    assert ["train started", "[train] loss=5"] == lines[:2]
    assert [f"[train] line {number}" for number in range(102, 300)] == lines[2:-2]
    assert "train succeeded in 9.0 s" == lines[-2]


def test_what_a_part_said_by_its_clock_before_it_started_keeps_its_order(
    runs: Callable, book, events: type
) -> None:
    said = events(A)
    said.time += 500
    part = events(B).message("first").message("second")
    part.time += 900
    book.run(A, "running", kind="pipeline", events=said.log("node_start", {"node": "train", "run": B}).made)
    book.child(B, A, "train", "running", events=part.message("third").made)
    book.finish(A)
    told = ["train started", "[train] first", "[train] second", "[train] third"]
    assert told == runs("watch", A).err.splitlines()[:-1]


def _later(event: Log) -> Log:
    return msgspec.structs.replace(event, seq=event.seq + 50)


def test_on_a_terminal_each_line_of_a_long_past_has_its_node(spawn: Callable, long_pipeline: None) -> None:
    child = spawn("runs", "watch", A)
    child.expect_exact("[train] line 299")
    before = child.before
    child.expect_exact("train · epochs")
    child.sendintr()
    child.expect_exact(f"Run {A} goes on")
    assert "[train] line 105" in before
    assert not re.search(r"(?<!\] )line \d", before)
    assert "files" not in before + child.before


def test_ctrl_c_detaches_and_says_that_the_run_goes_on(book, start: Callable, store) -> None:
    book.run(A, "running")
    process = start("runs", "watch", A, "-v")
    assert "running\n" == process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert 130 == process.returncode
    assert "… train running in 3 h " in err
    assert err.endswith(f"Run {A} goes on\n  stop it with: synapse-kernel runs cancel {A}\n")
    assert "running" == store.get(A).status


def test_on_a_terminal_it_is_the_live_display(book, spawn: Callable) -> None:
    book.run(A, "running")
    child = spawn("runs", "watch", A)
    child.expect("train running")
    book.store.append(A, [Progress(A, 2, 2.0, "train", None, "epochs", 3, 10)])
    child.expect("epochs")
    child.expect("3/10")
    child.sendintr()
    child.expect(f"Run {A} goes on")
    child.expect(pexpect.EOF)
    child.close()
    assert 130 == child.exitstatus
    # The cursor is given back.
    assert child.before.rfind("\x1b[?25l") <= child.before.rfind("\x1b[?25h")
