"""Detached runs on the command line."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.cli.app import run_app
from synapse_kernel.stores import RunStore

NEXT = """The run goes on without this command
  watch it with:         synapse-kernel runs watch {id}
  see what it says with: synapse-kernel runs logs {id} --follow
  stop it with:          synapse-kernel runs cancel {id}
"""


@pytest.fixture
def call(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that calls ``synapse-kernel …`` in this process."""
    # What the command line changes for its own process.
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("sys.path", list(sys.path))

    def call(*args: object) -> tuple[int, str, str]:
        code = run_app([*map(str, args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def detached(kernel: Kernel, farm) -> str:
    """Return a run that goes on elsewhere, has said its first words, and waits for the gate."""
    run_id = kernel.detach("talk.py", "talk", {"gate": "gate"}, executor="lasting")
    farm.until(lambda: len(farm.events(run_id)) > 4, "the run speaks")
    return run_id


@pytest.fixture
def events(store: RunStore):
    """Return a function that gives the recorded events of a run."""
    return lambda run_id: [stored.event for stored in store.events(run_id)]


def test_run_prints_the_id_of_a_detached_run_and_what_to_type_next(script, store: RunStore, farm, here: Path):
    done = script("", "run", "talk.py", "talk", "--executor", "lasting", "--detach", "-p", "gate=gate")
    out, err = done.communicate(timeout=60)

    [record] = store.runs()
    assert (0, f"{record.run_id}\n", NEXT.format(id=record.run_id)) == (done.returncode, out, err)
    assert record.detached
    (here / "gate").touch()
    farm.until(lambda: farm.has_ended(record.run_id), "the run ends without the command")


def test_run_prints_a_detached_run_as_a_document(script, store: RunStore):
    done = script("", "run", "talk.py", "talk", "--executor", "lasting", "--detach", "--json")
    out, _ = done.communicate(timeout=60)

    [record] = store.runs()
    assert {"run_id": record.run_id, "status": "pending", "executor": "lasting"} == json.loads(out)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (["--events", "-"], "--events"),
        (["--sink", "console"], "--sink"),
        (["--no-history"], "--no-history"),
    ],
)
def test_a_detached_run_has_nobody_here_to_tell(call, store: RunStore, option: list[str], name: str):
    code, out, err = call("run", "talk.py", "talk", "--executor", "lasting", "--detach", *option)

    assert (2, "", 0) == (code, out, store.count())
    assert (
        f"Error: --detach and {name} cannot be used together: the run is recorded, and goes on without this "
        "command.\nSee what it says with: synapse-kernel runs watch RUN\n"
    ) in err


def test_list_and_show_mark_a_run_that_goes_on_elsewhere(call, detached: str):
    code, out, _ = call("runs", "list")
    assert (0, True) == (code, "pending, detached" in out)

    code, out, err = call("runs", "show", detached)
    assert (0, True) == (code, "  process     none here: it goes on elsewhere\n" in out)
    assert (f"\nIt goes on elsewhere; watch it with: synapse-kernel runs watch {detached}\n") == err

    for [document] in (
        json.loads(call("runs", "list", "--json")[1]),
        [json.loads(call("runs", "show", detached, "--json")[1])],
    ):
        assert (None, True, True) == (document["owner"], document["detached"], document["lasting"])


def test_watch_shows_a_run_that_goes_on_elsewhere_and_its_result(
    script, store: RunStore, farm, events, detached: str, here: Path
):
    watcher = script("", "runs", "watch", detached)
    farm.until(lambda: len(events(detached)) > 4, "the watcher has attached")
    (here / "gate").touch()
    out, err = watcher.communicate(timeout=60)

    assert (0, {"said": 6}) == (watcher.returncode, json.loads(out))
    said = [f"{word} {number}" for word in ("word", "more") for number in range(3)]
    assert said == [line for line in err.splitlines() if line[:4] in {"word", "more"}]
    assert farm.events(detached) == events(detached)


def test_the_exit_code_of_watch_tells_that_the_run_failed(call, kernel: Kernel):
    run_id = kernel.detach("talk.py", "talk", {"failures": "failed"}, executor="lasting")

    code, _, err = call("runs", "watch", run_id)

    assert (1, True) == (code, "Error: OSError: not yet\n" in err)


def test_logs_follows_a_run_that_goes_on_elsewhere(script, farm, events, detached: str, here: Path):
    logs = script("", "runs", "logs", detached, "--follow", "--kind", "message")
    farm.until(lambda: len(events(detached)) > 4, "the command has attached")
    (here / "gate").touch()
    out, err = logs.communicate(timeout=60)

    said = [f"{word} {number}" for word in ("word", "more") for number in range(3)]
    assert (0, said, "") == (logs.returncode, out.splitlines(), err)


def test_logs_says_that_there_may_be_more_elsewhere(call, detached: str):
    assert (
        0,
        "",
        f"Run {detached} goes on elsewhere: this is what is known of it here\n"
        f"  see the rest with: synapse-kernel runs logs {detached} --follow\n",
    ) == call("runs", "logs", detached)


def test_ctrl_c_ends_the_watching_and_not_the_run(
    script, store: RunStore, farm, events, detached: str, here: Path
):
    watcher = script("", "runs", "watch", detached)
    farm.until(lambda: len(events(detached)) > 4, "the watcher has attached")
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=60)

    assert 130 == watcher.returncode
    assert err.endswith(f"Run {detached} goes on\n  stop it with: synapse-kernel runs cancel {detached}\n")
    record = store.get(detached)
    assert record is not None
    assert (True, "running") == (record.detached, record.status)
    assert not farm.has_ended(detached)


def test_of_two_that_watch_the_second_goes_on_when_the_first_is_killed(
    script, store: RunStore, farm, events, detached: str, here: Path
):
    def holder() -> int | None:
        record = store.get(detached)
        return record.owner.pid if record is not None and record.owner is not None else None

    watchers = {process.pid: process for process in (script("", "runs", "watch", detached) for _ in range(2))}
    farm.until(lambda: holder() in watchers, "one of them attaches")
    first = watchers.pop(holder() or 0)
    first.send_signal(signal.SIGKILL)
    [second] = watchers.values()
    farm.until(lambda: holder() == second.pid, "the other one attaches")
    (here / "gate").touch()
    out, _ = second.communicate(timeout=60)

    assert (0, {"said": 6}) == (second.returncode, json.loads(out))
    assert farm.events(detached) == events(detached)


def test_cancel_stops_a_run_that_nobody_looks_after(call, store: RunStore, farm, events, detached: str):
    assert (0, f"talk (run {detached}): cancelled\n", "") == call(
        "runs", "cancel", detached, "--reason", "the data is wrong"
    )

    assert farm.events(detached) == events(detached)
    error = (store.outcome(detached) or {}).get("error")
    assert isinstance(error, dict)
    assert "the run was cancelled: the data is wrong" == error["message"]


def test_cancel_without_waiting_stops_a_run_that_nobody_looks_after(
    call, store: RunStore, farm, detached: str
):
    assert (0, f"talk (run {detached}): asked to stop\n", "") == call("runs", "cancel", detached, "--no-wait")

    farm.until(lambda: farm.has_ended(detached), "the run ends")


def test_cancel_stops_a_run_that_another_command_watches(script, call, farm, events, detached: str):
    watcher = script("", "runs", "watch", detached)
    farm.until(lambda: len(events(detached)) > 4, "the watcher has attached")

    assert (0, f"talk (run {detached}): cancelled\n", "") == call("runs", "cancel", detached)

    _, err = watcher.communicate(timeout=60)
    assert (1, True) == (watcher.returncode, "Error: RunCancelled: the run was cancelled\n" in err)


def test_cancel_of_a_run_that_is_not_found_there_says_what_to_do(call, store: RunStore, farm, detached: str):
    (farm.folder / detached).rename(farm.folder / "moved")

    assert (
        1,
        f"talk (run {detached}): goes on elsewhere and was not reached; the request stays\n"
        f"The farm has no run {detached}\n"
        f"  if it is gone, say so with: synapse-kernel runs cancel {detached} --force\n",
        "",
    ) == call("runs", "cancel", detached)
    record = store.get(detached)
    assert record is not None
    assert record.detached


def test_cancel_by_force_ends_the_record_of_a_run_that_is_not_found(
    call, store: RunStore, farm, events, detached: str
):
    (farm.folder / detached).rename(farm.folder / "moved")

    assert (
        1, f"talk (run {detached}): its job is not to be found; recorded as crashed\n", ""
    ) == call("runs", "cancel", detached, "--force")  # fmt: skip

    record = store.get(detached)
    assert record is not None
    assert ("crashed", False) == (record.status, record.detached)
    assert f"RunLost: its job was not found: The farm has no run {detached}" == record.error
    assert ["crashed"] == farm.states(events(detached))


def test_cancel_by_force_stops_a_run_that_is_found_as_ever(call, farm, detached: str):
    assert (0, f"talk (run {detached}): cancelled\n", "") == call("runs", "cancel", detached, "--force")


def test_a_run_that_goes_on_elsewhere_is_not_retried(call, detached: str):
    code, _, err = call("runs", "retry", detached)

    assert (2, True) == (code, err.startswith(f"Error: Run {detached} goes on elsewhere\n"))
