"""`runs logs`: what a run said, also while it runs in another process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec

from synapse_kernel.events import Message, State
from synapse_kernel.owners import Owner

A, B, C = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000"


def test_lines_read_as_on_the_console(runs: Callable, book, events: type) -> None:
    said = events(A).log("read", {"n": 3}).message("half done").log("careful", {}, "warning")
    said.log("details", {}, "debug").metrics({"loss": 0.5}, "val", step="fit").artifact(
        "best", "/w/b.pt", 2048
    )
    book.run(A, "failed", events=said.made)
    assert [
        "running",
        "read n=3",
        "half done",
        "warning: careful",
        "[fit] val: loss=0.5",
        "artifact best: /w/b.pt (2.0 KiB)",
        "error: failed",
    ] == runs("logs", A).out.splitlines()


def test_level_and_kind_choose(runs: Callable, book, events: type) -> None:
    said = events(A).message("begun").log("careful", {}, "warning").log("details", {}, "debug")
    book.run(A, events=said.made)
    assert ["warning: careful"] == runs("logs", A, "--level", "warning").out.splitlines()
    assert "details" in runs("logs", A, "--level", "debug").out.splitlines()
    chosen = runs("logs", A, "--kind", "message", "--kind", "state").out.splitlines()
    assert ["running", "begun", "succeeded"] == chosen
    assert 2 == runs("logs", A, "--kind", "messages").code


def test_progress_is_told_now_and_then_but_always_its_end(runs: Callable, book, events: type) -> None:
    said = events(A)
    for step in range(1, 8):
        said.progress(step, 7, "epochs")
    said.progress(1, 9, "images")
    book.run(A, events=said.made)
    shown = [line for line in runs("logs", A).out.splitlines() if "/" in line]
    told = ["epochs 1/7 (14 %)", "epochs 6/7 (86 %)", "epochs 7/7 (100 %)", "images 1/9 (11 %)"]
    assert told == shown
    assert 8 == len(runs("logs", A, "--kind", "progress").out.splitlines())


def test_lines_of_a_part_say_which(runs: Callable, book, events: type) -> None:
    book.run(A, "running", kind="pipeline")
    book.child(B, A, "train", events=events(B).message("hello").made, kind="pipeline")
    book.child(C, B, "fit[3]", root=A, events=events(C).message("inner").made)
    shown = runs("logs", A, "--kind", "message").out.splitlines()
    assert ["[train] hello", "[train/fit[3]] inner"] == shown
    assert [] == runs("logs", A, "--no-children", "--kind", "message").out.splitlines()
    assert ["hello", "[fit[3]] inner"] == runs("logs", B, "--kind", "message").out.splitlines()


def test_what_several_runs_said_stands_in_the_order_it_was_said(runs: Callable, book, events: type) -> None:
    whole, part = events(A), events(B)
    whole.message("first")
    part.time = whole.time
    part.message("second")
    whole.time = part.time
    whole.message("third")
    # The clock is set back: what a run said later is still told later.
    whole.time -= 100
    whole.message("fourth")
    book.run(A, "running", kind="pipeline")
    book.child(B, A, "train", events=part.made)
    book.store.append(A, [msgspec.structs.replace(event, seq=event.seq + 1) for event in whole.made])
    shown = runs("logs", A, "--kind", "message").out.splitlines()
    assert ["first", "[train] second", "third", "fourth"] == shown


def test_times_can_stand_before_the_lines(runs: Callable, book, events: type) -> None:
    book.run(A, events=events(A).message("hello").made)
    line = runs("logs", A, "--times", "--kind", "message").out
    assert r"2" == line[0]
    assert len("2026-01-31 12:00:00 hello\n") == len(line)


def test_json_lines_are_the_events_as_they_were(runs: Callable, book, events: type) -> None:
    made = events(A).message("hello").metrics({"loss": float("nan")}).made
    book.run(A, events=made)
    lines = [json.loads(line) for line in runs("logs", A, "--json").out.splitlines()]
    assert ["state", "message", "metrics", "state"] == [line["kind"] for line in lines]
    assert {"loss": "NaN"} == lines[2]["values"]
    said = runs("logs", "zz", "--json")
    assert (2, "RunNotFoundError") == (said.code, json.loads(said.out)["error"]["type"])
    assert 1 == len(said.out.splitlines())


def test_it_follows_a_run_to_its_end_line_by_line(book, start: Callable) -> None:
    book.run(A, "running")
    process = start("runs", "logs", A, "--follow")
    assert "running\n" == process.stdout.readline()
    book.store.append(A, [Message(A, 2, 2.0, "train", None, "one more")])
    assert "one more\n" == process.stdout.readline()
    book.store.append(A, [State(A, 3, 3.0, "train", None, "retrying", 1, "again")])
    assert "warning: retrying: again\n" == process.stdout.readline()
    book.finish(A)
    out, err = process.communicate(timeout=30)
    assert ("succeeded\n", "", 0) == (out, err, process.returncode)


def test_following_ends_when_the_process_of_the_run_is_killed(book, start: Callable, store) -> None:
    code = (
        "import msgspec, time; from synapse_kernel.owners import this_process\n"
        "print(msgspec.json.encode(this_process()).decode(), flush=True); time.sleep(300)"
    )
    victim = start(command=("-c", code))
    owner = msgspec.json.decode(victim.stdout.readline(), type=Owner)
    book.run(A, "running", owner=owner)
    process = start("runs", "logs", A, "--follow")
    assert "running\n" == process.stdout.readline()
    victim.kill()
    victim.communicate()
    process.communicate(timeout=30)
    assert 0 == process.returncode
    assert "crashed" == store.get(A).status


def test_ctrl_c_ends_the_following_and_not_the_run(book, start: Callable, store) -> None:
    book.run(A, "running")
    process = start("runs", "logs", A, "--follow")
    assert "running\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert 130 == process.returncode
    assert f"Run {A} goes on\n  stop it with: synapse-kernel runs cancel {A}\n" == err
    assert "running" == store.get(A).status


def test_a_reader_that_goes_away_is_no_error(book, events: type) -> None:
    said = events(A)
    for number in range(20_000):
        said.message(f"line {number}")
    book.run(A, events=said.made)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m synapse_kernel runs logs {A} | head -2"],
        capture_output=True,
        text=True,
    )
    assert ("running\nline 0\n", "") == (done.stdout, done.stderr)
