"""`runs cancel`: stop a run of another process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel.stores import RunStore

A, B = "aaaa0000aaaa0000", "bbbb0000bbbb0000"


@pytest.fixture
def waiting(work: Path, store: RunStore, start: Callable) -> tuple[subprocess.Popen[str], str]:
    """Start a run that waits, in a process of its own; return the process and the run's id."""
    process = start("run", str(work / "work.py"), "wait")
    assert any("begun" in line for line in process.stderr)
    return process, store.runs()[0].run_id


def test_a_run_of_another_process_is_stopped_and_waited_for(runs: Callable, waiting, store: RunStore) -> None:
    process, run_id = waiting
    said = runs("cancel", run_id[:6], "--reason", "stopped by a colleague")
    assert (0, f"wait (run {run_id}): cancelled\n", "") == said
    _, err = process.communicate(timeout=30)
    assert "cleaned up" in err
    assert "RunCancelled: the run was cancelled: stopped by a colleague" in err
    assert 1 == process.returncode
    assert "cancelled" == store.get(run_id).status


def test_it_need_not_be_waited_for(runs: Callable, waiting) -> None:
    process, run_id = waiting
    said = runs("cancel", "@last", "--no-wait", "--json")
    assert 0 == said.code
    assert [(run_id, True, "asked to stop")] == [
        (answer["run_id"], answer["requested"], answer["text"]) for answer in said.document
    ]
    process.communicate(timeout=30)
    assert 1 == process.returncode


def test_what_has_ended_is_told_for_each(runs: Callable, book, ended_process) -> None:
    book.run(A)
    book.run(B, "running", owner=ended_process)
    said = runs("cancel", A, B)
    assert 1 == said.code
    assert [
        f"train (run {A}): has ended already: succeeded",
        f"train (run {B}): has ended already: crashed, "
        f"its process {ended_process.pid} on {ended_process.host} is dead",
    ] == said.out.splitlines()


def test_a_process_that_is_killed_meanwhile_ends_the_waiting(runs: Callable, waiting) -> None:
    process, run_id = waiting
    process.kill()
    process.wait()
    # Its death is seen at once by the command's first look, or while it waits.
    said = runs("cancel", run_id)
    assert 1 == said.code
    assert "crashed" in said.out


def test_a_run_that_ends_otherwise_while_it_waits_is_told(book, start: Callable) -> None:
    book.run(A, "running")
    process = start("runs", "cancel", A)
    while ("cancelled", A) not in [(reason, run) for run, reason in book.store.cancel_requests(book.owner)]:
        assert process.poll() is None
    book.finish(A)
    out, err = process.communicate(timeout=30)
    assert (1, f"train (run {A}): ended before it could be cancelled: succeeded\n", "") == (
        process.returncode,
        out,
        err,
    )


def test_a_process_that_does_not_answer_is_told(
    runs: Callable, book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from synapse_plugins.history.commands import cancelling

    book.run(A, "running")
    monkeypatch.setattr(cancelling, "PATIENCE_SECONDS", 0.0)
    naps = iter(range(3))

    def nap(_seconds: float) -> None:
        if next(naps) == 2:
            book.finish(A)

    monkeypatch.setattr(cancelling, "sleep", nap)
    said = runs("cancel", A)
    assert (
        f"Still waiting for run {A}: process {book.owner.pid} on {book.owner.host} is alive\n"
        "  Ctrl-C ends the waiting; the request stays\n"
    ) == said.err


def test_ctrl_c_ends_the_waiting_and_the_request_stays(book, start: Callable) -> None:
    import signal

    book.run(A, "running")
    process = start("runs", "cancel", A)
    while not (asked := book.store.cancel_requests(book.owner)):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert (130, [(A, "cancelled")]) == (process.returncode, asked)
