"""`runs show`: all that is recorded of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from synapse_kernel.contracts import ErrorInfo, Outcome, Resources
from synapse_kernel.events import State
from synapse_kernel.owners import Owner
from synapse_kernel.stores import RunRecord, RunStore, end_of
from synapse_plugins.history.commands.record_text import seconds_of

A, B, C, D = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000", "dddd0000dddd0000"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_a_run_is_shown_with_what_it_was_and_where_it_ran(runs: Callable, book, events: type) -> None:
    said = events(A).metrics({"loss": 0.5}, "val").metrics({"loss": 0.25}, "val")
    said.artifact("best", "/w/best.pt", 2048)
    book.run(
        A,
        executor="process",
        params={"epochs": 3, "optimizer": {"lr": 0.1, "api_token": "***"}, "name": "Ada"},
        masked=["optimizer.api_token"],
        resources=Resources(cpus=2, memory=2**30),
        timeout=90.0,
        retries=2,
        env_names=["DATA"],
        tags=["x"],
        cwd="/data",
        work_dir="/w/r",
        commit="c" * 40,
        environment=book.environment(),
        events=said.made,
        result={"map50": 0.9},
    )
    said = runs("show", "aaaa")
    assert (0, "") == (said.code, said.err)
    text = re.sub(TIME, "TIME", said.out)
    assert [
        "train succeeded (run aaaa0000aaaa0000)",
        "  target      ./plugin",
        "  made        TIME (3 h ago)",
        "  duration    12 s",
        "  attempts    1, retried at most 2 times",
        "  timeout     90 s",
        "  executor    process",
        "  resources   cpus 2, memory 1.0 GiB",
        "  variables   DATA",
        f"  process     {book.owner.pid} on {book.owner.host}",
        "  python      3.11.7 on Linux-6.1-x86_64",
        "  packages    1 (listed by --json)",
        f"  commit      {'c' * 40}",
        "  folder      /data",
        "  work folder /w/r",
        "  tags        x",
        "",
        "Params",
        "name                 value",
        "epochs               3",
        "optimizer.lr         0.1",
        "optimizer.api_token  ***",
        "name                 Ada",
        "",
        "Result",
        "  {",
        '    "map50": 0.9',
        "  }",
        "",
        "Artifacts",
        "name  size     path        sha256",
        "best  2.0 KiB  /w/best.pt  -",
        "",
        "Metrics",
        "metric    last",
        "val/loss  0.25",
    ] == text.splitlines()


def test_a_failed_run_shows_its_error_and_what_to_type_next(runs: Callable, book) -> None:
    error = ErrorInfo(
        type="ValueError", message="no data", traceback="Traceback:\n  boom\nValueError: no data\n"
    )
    book.run(A, "failed", error=error, masked=["api key"], params={"api key": "***"})
    said = runs("show", A)
    assert "\nError\n  Traceback:\n    boom\n  ValueError: no data\n" in said.out
    assert f"\nGo on with it: synapse-kernel runs retry {A} -p 'api key'=…\n" == said.err


def test_a_failed_pipeline_names_each_node_that_failed_and_whose_traceback_it_shows(
    runs: Callable, book
) -> None:
    def error(trace: str) -> ErrorInfo:
        return ErrorInfo(type="ValueError", message="no data", traceback=trace)

    whole = ErrorInfo(
        type="PipelineFailed",
        message=f"node 'deep' failed (run {B}): ValueError: no data\nnode 'b' failed: ValueError: no data",
        traceback="Traceback:\n  boom\n",
    )
    book.run(A, "failed", kind="pipeline", error=whole)
    book.child(C, A, "b", "failed", error=error("Traceback:\n  other\n"), minutes_ago=5)
    book.child("eeee0000eeee0000", A, "may_fail", "failed", error=error(whole.traceback), minutes_ago=5)
    book.child(B, A, "deep", "failed", kind="pipeline", error=whole, minutes_ago=4)
    book.child(D, B, "inner[3]", "failed", root=A, error=error(whole.traceback), minutes_ago=4)
    assert (
        "\nError\n"
        f"  node 'deep' failed (run {B}): ValueError: no data\n"
        "  node 'b' failed: ValueError: no data\n"
        "\n"
        "Traceback of node deep/inner[3]\n"
        "  Traceback:\n"
        "    boom\n"
        "\n"
        "Nodes\n"
    ) in runs("show", A).out


def test_a_run_that_went_on_took_as_long_as_its_last_attempt(runs: Callable, book, store: RunStore) -> None:
    book.run(A, "failed", minutes_ago=300, seconds=12)
    store.claim(A, book.owner)
    assert None is runs("list", "--json").document[0]["seconds"]
    begun = datetime.now(UTC) - timedelta(minutes=10)
    store.append(A, [State(A, 8, begun.timestamp(), "train", None, "running", 2)])
    outcome = Outcome(
        run_id=A,
        status="succeeded",
        action="train",
        started=begun,
        finished=begun + timedelta(seconds=40),
        attempts=2,
    )
    store.finish(end_of(outcome))
    lines = [line.split() for line in re.sub(TIME, "TIME", runs("show", A).out).splitlines()]
    assert ["made", "TIME", "(5", "h", "ago)"] in lines
    assert ["started", "TIME", "(10", "min", "ago)"] in lines
    assert ["duration", "40", "s"] in lines
    row = runs("list").out.splitlines()[1]
    assert "10 min ago  40 s" in row
    book.run(B, seconds=40)
    assert "duration" not in runs("compare", A, B).out


def test_a_run_that_ended_before_it_started_took_no_longer_than_it_was_there() -> None:
    made = datetime.now(UTC)
    record = RunRecord(
        run_id=A, action="x", target="x", created=made, status="crashed", finished=made + timedelta(seconds=3)
    )
    assert 3 == seconds_of(record)
    assert None is seconds_of(msgspec.structs.replace(record, finished=None))
    # It was to go on, and what it waited for is not its own.
    assert None is seconds_of(msgspec.structs.replace(record, attempt=2))


def test_a_result_whose_run_was_cleaned_says_so(runs: Callable, book) -> None:
    book.run(A, kind="pipeline")
    book.child(B, A, "train", cached_from=C)
    assert f"  result of   run {C}, which is not in the history any more\n" in runs("show", B).out
    assert f", result of run {C}, which is not in the history any more\n" in runs("show", A).out


def test_a_crash_shows_the_last_lines_that_were_printed(runs: Callable, book) -> None:
    error = ErrorInfo(type="ProcessCrashed", message="killed", kind="crash", output="one\ntwo")
    book.run(A, "crashed", error=error)
    assert (
        "\nError\n  ProcessCrashed: killed\n\nThe last lines it printed\n  one\n  two\n"
        in runs("show", A).out
    )


def test_a_dead_process_is_told_and_how_to_go_on(runs: Callable, book, ended_process: Owner) -> None:
    book.run(A, "running", owner=ended_process)
    said = runs("show", A)
    assert said.out.startswith(f"train crashed (run {A})\n")
    assert f"\nGo on with it: synapse-kernel runs retry {A}\n" == said.err


def test_what_to_type_next_depends_on_what_the_run_is(runs: Callable, book) -> None:
    book.run(A, "failed", kind="pipeline", target="my pipeline.yaml")
    book.child(B, A, "train", "failed")
    book.run(C, "running")
    book.run(D)
    go_on = f"Go on with it: synapse-kernel pipeline run 'my pipeline.yaml' --resume {A}"
    assert f"\n{go_on}\n" == runs("show", A).err
    assert f"\nGo on with the whole: synapse-kernel runs retry {A}\n" == runs("show", B).err
    assert f"\nWatch it with: synapse-kernel runs watch {C}\n" == runs("show", C).err
    assert "" == runs("show", D).err


def test_what_is_part_of_a_run_is_a_tree(runs: Callable, book) -> None:
    nodes = [{"name": name} for name in ("convert", "train", "gather", "report")]
    book.run(A, "failed", kind="pipeline", definition={"nodes": nodes})
    book.child(B, A, "convert", cached_from=D, minutes_ago=5, seconds=0.2)
    book.child(C, A, "train", "failed", minutes_ago=4, kind="pipeline")
    book.child(D, C, "fit[0]", "timed_out", root=A, minutes_ago=3, seconds=75)
    tree = runs("show", "@last").out.partition("\nNodes\n")[2].splitlines()
    assert [
        "├─ convert  succeeded      0.2 s  run bbbb0000, result of run dddd0000dddd0000",
        "└─ train    failed          12 s  run cccc0000",
        "   └─ fit[0]  timed out  1 min 15 s  run dddd0000",
        "not started: gather, report",
    ] == tree
    assert f"  part of     run {A}, as its node train\n" in runs("show", C).out
    assert "  result of   run dddd0000dddd0000, not run again\n" in runs("show", B).out


def test_a_node_that_the_last_attempt_skipped_is_told_from_one_that_has_not_begun(
    runs: Callable, book, events: type
) -> None:
    said = events(A).log("pipeline_start", {}).log("node_skipped", {"node": "report"})
    said.log("pipeline_start", {}).log("node_skipped", {"node": "train", "reason": "convert failed"})
    nodes = [{"name": name} for name in ("train", "report")]
    book.run(A, "failed", kind="pipeline", definition={"nodes": nodes}, events=said.made)
    assert ["skipped: train", "not started: report"] == runs("show", A).out.partition("\nNodes\n")[
        2
    ].splitlines()


def test_of_many_parts_those_that_did_not_succeed_are_shown(runs: Callable, book) -> None:
    book.run(A, kind="pipeline")
    for number in range(60):
        state = "failed" if number in {50, 59} else "succeeded"
        book.child(f"{number:016x}", A, f"draw[{number}]", state, minutes_ago=60 - number)
    tree = runs("show", A).out.partition("\nNodes\n")[2].splitlines()
    assert 41 == len(tree)
    assert ["draw[50]", "draw[59]"] == [line.split()[1] for line in tree if " failed " in line]
    assert f"└─ and 20 more: synapse-kernel runs list --children {A} --all" == tree[-1]


def test_the_runs_of_a_node_stand_in_the_order_of_their_index(runs: Callable, book) -> None:
    book.run(A, kind="pipeline")
    made = ["load", "draw[1]", "draw[10]", "check", "draw[0]", "draw[2]"]
    for number, node in enumerate(made):
        book.child(f"{number:016x}", A, node, minutes_ago=60 - number)
    tree = runs("show", A).out.partition("\nNodes\n")[2].splitlines()
    wanted = ["load", "draw[0]", "draw[1]", "draw[2]", "draw[10]", "check"]
    assert wanted == [line.split()[1] for line in tree]


def test_its_events_can_be_shown_too(runs: Callable, book, events: type) -> None:
    book.run(A, events=events(A).message("hello").log("details", {"n": 1}, "debug").made)
    shown = runs("show", A, "--events").out.partition("\nEvents\n")[2]
    assert ["  running", "  hello", "  details n=1", "  succeeded"] == shown.splitlines()


def test_a_document_holds_all_of_it(runs: Callable, book, events: type) -> None:
    said = events(A).metrics({"loss": float("nan")}).artifact("best", "/w/best.pt", 2048)
    error = ErrorInfo(type="ValueError", message="no data", traceback="T")
    book.run(A, "failed", environment=book.environment(), events=said.made, error=error, definition={"n": 1})
    book.child(B, A, "train")
    document = runs("show", A, "--json", "--events").document
    assert {"numpy": "2.1.0"} == document["environment"]["packages"]
    assert {"type": "ValueError", "message": "no data", "traceback": "T"} == document["error"]
    assert {"loss": "NaN"} == document["metrics"]
    assert [{"name": "best", "path": "/w/best.pt", "size": 2048, "sha256": None}] == document["artifacts"]
    assert [(B, "train", [])] == [(c["run_id"], c["node"], c["children"]) for c in document["children"]]
    assert {"n": 1} == document["definition"]
    kinds = [event["kind"] for event in document["events"] if event["run_id"] == A]
    assert ["state", "metrics", "artifact", "state"] == kinds
    assert 6 == len(document["events"])


def test_a_run_that_has_only_begun_is_shown(runs: Callable, book) -> None:
    book.run(A, "pending")
    assert runs("show", A).out.startswith(f"train pending (run {A})\n")


def test_states_have_colours_on_a_terminal(book, spawn: Callable) -> None:
    book.run(A, "failed")
    for args in (["list"], ["show", A]):
        child = spawn("runs", *args)
        child.expect("\x1b\\[31mfailed")
        child.expect("aaaa0000" if args == ["show", A] else "3 h ago")
        child.close()


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_what_is_no_longer_json_is_shown_as_it_was_kept(
    runs: Callable, book, store: RunStore, option: list[str]
) -> None:
    book.run(A, result=object())
    assert "object object at" in runs("show", A, *option).out
