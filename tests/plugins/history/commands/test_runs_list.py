"""`runs list`, and how runs are named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from synapse_kernel import UsageError
from synapse_kernel.cli.selecting import ago_text
from synapse_kernel.owners import Owner
from synapse_kernel.stores import RunStore
from synapse_plugins.history.commands.listing import moment
from synapse_plugins.history.commands.record_text import short_ids

A, B, C = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000"


def ids(document: list) -> list[str]:
    return [row["run_id"] for row in document]


def test_runs_are_listed_newest_first_with_what_tells_them_apart(runs: Callable, book) -> None:
    book.run(A, "failed", minutes_ago=510, seconds=75)
    book.run(B, "succeeded", action="export", tags=["best", "v2"])
    said = runs("list")
    assert (0, "") == (said.code, said.err)
    assert [
        "id        action  state      started  duration    tags",
        "bbbb0000  export  succeeded  3 h ago  12 s        best, v2",
        "aaaa0000  train   failed     8 h ago  1 min 15 s",
    ] == said.out.splitlines()


def test_runs_alone_lists_too(runs: Callable, book) -> None:
    book.run(A)
    assert runs("list").out == runs().out
    assert "aaaa0000" in runs().out


def test_columns_stand_there_only_where_a_run_has_something_in_them(runs: Callable, book) -> None:
    book.run(A, "running", kind="pipeline", action="detector")
    book.child(B, A, "a")
    book.child(C, A, "b", "running")
    said = runs("list")
    assert ["id", "action", "state", "started", "duration", "nodes"] == said.out.splitlines()[0].split()
    assert said.out.splitlines()[1].endswith("  1/2")
    book.run("dddd0000dddd0000", kind="pipeline", action="none_began", minutes_ago=1)
    assert runs("list").out.splitlines()[1].endswith("  12 s")
    assert ["node"] == runs("list", "--children", A).out.split("\n")[0].split()[5:]


def test_what_is_part_of_a_run_is_listed_with_it_alone(runs: Callable, book) -> None:
    book.run(A, kind="pipeline")
    book.child(B, A, "draw[3]")
    assert [A] == ids(runs("list", "--json").document)
    assert [B] == ids(runs("list", "--children", "aaaa", "--json").document)
    assert "No such run is part of bbbb0000bbbb0000.\n" == runs("list", "--children", B).err


def test_every_condition_that_is_given_must_hold(runs: Callable, book) -> None:
    book.run(A, "failed", tags=["x"], minutes_ago=300)
    book.run(B, "failed", action="export", minutes_ago=10)
    book.run(C, "succeeded", tags=["x", "y"], minutes_ago=1)
    assert [B, A] == ids(runs("list", "--state", "failed", "--json").document)
    assert [C, B, A] == ids(runs("list", "--state", "failed", "--state", "succeeded", "--json").document)
    assert [B] == ids(runs("list", "--action", "export", "--json").document)
    assert [C, A] == ids(runs("list", "--tag", "x", "--json").document)
    assert [C, B] == ids(runs("list", "--since", "1h", "--json").document)
    assert [A] == ids(runs("list", "--until", "1h", "--json").document)
    assert [B] == ids(runs("list", "--since", "1h", "--until", "5m", "--json").document)
    assert [C, B, A] == ids(runs("list", "--kind", "action", "--json").document)
    assert [] == runs("list", "--kind", "pipeline", "--json").document


def test_what_is_left_out_is_told(runs: Callable, book) -> None:
    for number in range(22):
        book.run(f"{number:016x}", minutes_ago=number)
    assert 20 == len(runs("list").out.splitlines()[1:])
    assert "20 of 22 runs; see more with --limit N or --all\n" == runs("list").err
    assert "3 of 22 runs; see more with --limit N or --all\n" == runs("list", "--limit", 3).err
    assert (22, "") == (len(runs("list", "--all").out.splitlines()[1:]), runs("list", "--all").err)
    assert 2 == runs("list", "--all", "--limit", 3).code


def test_a_number_that_is_too_great_is_told(runs: Callable, book) -> None:
    book.run(A)
    said = runs("list", "--limit", 99999999999999999999)
    assert 2 == said.code
    assert "99999999999999999999 is not in the range 1<=x<=2147483647" in said.err
    assert [A] == ids(runs("list", "--limit", 2**31 - 1, "--json").document)
    for number in ("99999999999999999999", "9" * 5000):
        said = runs("show", f"@last~{number}")
        assert said.err.endswith(", it has only 1\n")


def test_a_state_may_be_written_as_it_is_shown(runs: Callable, book) -> None:
    book.run(A, "timed_out")
    book.run(B)
    for state in ("timed out", "timed_out"):
        assert [A] == ids(runs("list", "--state", state, "--json").document)
        assert [A] == runs("clean", "--state", state, "--dry-run", "--json").document["runs"]
    assert "'timed_up' is not one of" in runs("list", "--state", "timed up").err


def test_an_empty_history_says_what_to_type(runs: Callable, store: RunStore, book) -> None:
    said = runs("list")
    assert 0 == said.code
    assert (
        f"No runs are recorded in {store.url}\n  make one with: synapse-kernel run TARGET ACTION\n"
        == said.err
    )
    assert [] == runs("list", "--json").document
    book.run(A)
    assert (
        "No run is like this; see all of them with: synapse-kernel runs list --all\n"
        == runs("list", "--state", "failed").err
    )


def test_a_document_holds_all_that_is_recorded(runs: Callable, book) -> None:
    book.run(A, params={"epochs": 3}, tags=["x"])
    row = runs("list", "--json").document[0]
    assert {"run_id": A, "action": "train", "status": "succeeded", "attempt": 1, "params": {"epochs": 3}} == {
        key: row[key] for key in ("run_id", "action", "status", "attempt", "params")
    }
    assert 12 == row["seconds"]
    assert book.owner.pid == row["owner"]["pid"]


def test_a_run_whose_process_is_dead_reads_crashed(runs: Callable, book, ended_process: Owner) -> None:
    book.run(A, "running", owner=ended_process)
    book.run(B, "running")
    found = {row["run_id"]: row["status"] for row in runs("list", "--json").document}
    assert {A: "crashed", B: "running"} == found


@pytest.mark.parametrize("args", [["list"], ["show", "@last"], ["clean", "--keep", "0"]])
def test_without_a_store_every_command_says_how_to_turn_it_on(
    runs: Callable, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setenv("SYNAPSE_STORE", "none")
    said = runs(*args)
    assert (2, "") == (said.code, said.out)
    assert (
        "Error: Runs are not recorded: the history is off\n"
        "  turn it on with the setting  store: auto  or the variable SYNAPSE_STORE=auto\n"
    ) == said.err


def test_errors_are_documents_too(runs: Callable, store: RunStore) -> None:
    said = runs("list", "--since", "soon", "--json")
    assert 2 == said.code
    assert {
        "status": "error",
        "error": {
            "type": "UsageError",
            "message": "--since 'soon' is not a time; write it like 2h, 30d, 2026-01-31 or 2026-01-31T12:00",
        },
    } == said.document


def test_a_time_is_a_date_or_how_long_ago() -> None:
    now = datetime(2026, 2, 1, 12, tzinfo=UTC)
    assert None is moment(None, "--since", now)
    assert now - timedelta(hours=2) == moment("2h", "--since", now)
    assert now - timedelta(days=30) == moment("30d", "--since", now)
    assert datetime(2026, 1, 31).astimezone() == moment("2026-01-31", "--since", now)
    assert datetime(2026, 1, 31, 12, 30).astimezone() == moment("2026-01-31T12:30", "--since", now)
    assert datetime(2026, 1, 31, 12, tzinfo=UTC) == moment("2026-01-31T12:00+00:00", "--since", now)
    for wrong in ("2026-13-01", "", "-", "tomorrow", "0"):
        with pytest.raises(UsageError):
            moment(wrong, "--since", now)


def test_times_are_told_as_people_say_them() -> None:
    now = datetime(2026, 2, 1, 12, tzinfo=UTC)
    seconds = [-5, 0.5, 12, 185, 7800, 86400, 10 * 86400]
    assert ["just now", "just now", "12 s ago", "3 min ago", "2 h ago", "1 day ago", "10 days ago"] == [
        ago_text(now - timedelta(seconds=n), now) for n in seconds
    ]
    assert re.fullmatch(r"2025-12-0[23]", ago_text(now - timedelta(days=60), now))


def test_ids_are_shortened_as_far_as_they_tell_runs_apart() -> None:
    assert {A: "aaaa0000", B: "bbbb0000"} == short_ids([A, B])
    assert {"train-0001-a": "train-0001-a", "train-0001-b": "train-0001-b"} == short_ids(
        ["train-0001-a", "train-0001-b"]
    )
    assert {"r1": "r1"} == short_ids(["r1"])


def test_a_run_is_named_by_its_id_a_beginning_or_a_word(runs: Callable, book) -> None:
    book.run(A, "failed", minutes_ago=20)
    book.run(B, minutes_ago=10)
    book.child(C, B, "part", "failed", minutes_ago=1)
    for name, expected in ((A, A), ("aa", A), ("@last", B), ("@last-failed", A), ("c", C), ("@last~1", A)):
        assert expected == runs("show", name, "--json").document["run_id"]


def test_an_id_that_is_the_beginning_of_another_is_that_run(runs: Callable, book) -> None:
    book.run("r1")
    book.run("r10")
    assert "r1" == runs("show", "r1", "--json").document["run_id"]


@pytest.mark.parametrize("name", ["zz", "%", "_", "../a", ""])
def test_an_unknown_run_is_told(runs: Callable, book, store: RunStore, name: str) -> None:
    book.run(A)
    said = runs("show", name)
    assert 2 == said.code
    assert (
        f"Error: No run {name!r} is in {store.url}\n  see what is there with: synapse-kernel runs list\n"
        == said.err
    )


def test_a_beginning_of_several_is_told_with_them(runs: Callable, book) -> None:
    book.run("abc1", "failed", minutes_ago=510)
    book.run("abc2", action="export")
    said = runs("show", "abc")
    assert 2 == said.code
    assert (
        "Error: 'abc' is the beginning of 2 runs; give more of the id\n"
        "  abc2  export  succeeded  3 h ago\n"
        "  abc1  train  failed  8 h ago\n"
    ) == said.err
    for number in range(20):
        book.run(f"abd{number:02}")
    first, *lines = runs("show", "abd").err.splitlines()
    assert "Error: 'abd' is the beginning of more than 10 runs; give more of the id" == first
    assert 10 == len(lines)


def test_words_for_runs_that_are_not_there_are_told(runs: Callable, book, store: RunStore) -> None:
    assert f"Error: @last: no such run is in {store.url}, it has none\n" == runs("show", "@last").err
    book.run(A)
    told = f"Error: @last-failed: no such failed run is in {store.url}, it has none\n"
    assert told == runs("show", "@last-failed").err
    assert f"Error: @last~2: no such run is in {store.url}, it has only 1\n" == runs("show", "@last~2").err
    assert f"Error: No run '@last~x' is in {store.url}\n" in runs("show", "@last~x").err


def test_all_that_is_wrong_with_several_is_told_at_once(runs: Callable, book, store: RunStore) -> None:
    book.run(A)
    said = runs("compare", "xx", A, "yy")
    assert (
        "Error: 2 of the runs cannot be told:\n"
        f"  No run 'xx' is in {store.url}\n    see what is there with: synapse-kernel runs list\n"
        f"  No run 'yy' is in {store.url}\n    see what is there with: synapse-kernel runs list\n"
    ) == said.err


def test_an_unknown_command_suggests_the_nearest(runs: Callable) -> None:
    said = runs("shwo")
    assert 2 == said.code
    assert said.err.endswith("Error: There is no command 'runs shwo'; did you mean 'show'?\n")


def tab(*words: str) -> dict[str, str]:
    """Press Tab at the end of a command line; return what is offered with its help text."""
    code = (
        "from click.shell_completion import ShellComplete; from synapse_kernel.cli.app import app, AppState\n"
        "import sys; found = ShellComplete(app, {}, 'synapse-kernel', 'X')"
        ".get_completions(sys.argv[1:-1], sys.argv[-1])\n"
        "print(*(f'{item.value}\\t{item.help or str()}' for item in found), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return dict(line.split("\t", 1) for line in done.stdout.splitlines() if line)


def test_tab_offers_runs_with_what_they_are_and_states(book) -> None:
    book.run("abc1", "failed")
    book.run("xyz1", action="export", minutes_ago=1.5)
    assert ["@last", "@last-failed", "xyz1", "abc1"] == list(tab("runs", "show", ""))
    assert {"abc1": "train failed, 3 h ago"} == tab("runs", "show", "a")
    assert ["@last", "@last-failed"] == list(tab("runs", "retry", "@"))
    assert ["retrying", "running"] == sorted(tab("runs", "list", "--state", "r"))
    assert {"watch": "Watch a run of another process until it ends."} == tab("runs", "w")


def test_listing_imports_neither_plots_nor_pydantic(book) -> None:
    book.run(A)
    code = (
        "import sys; from synapse_kernel.cli.app import run_app\n"
        "assert run_app(['runs', 'list']) == 0\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set() == {"plotext", "pydantic", "matplotlib", "numpy", "yaml"} & set(done.stderr.split())
