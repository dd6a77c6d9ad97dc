"""Going on with a pipeline: who may, who is told what, and what is done again."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from synapse_kernel import Kernel, UsageError
from synapse_kernel.stores import RunBusyError, RunNotFoundError, RunQuery
from synapse_plugins.history.sqlite_store import SqliteStore
from synapse_plugins.pipelines.engine import Launch, PipelineChangedError
from synapse_plugins.pipelines.scheduler import Scheduler


@pytest.fixture
def store():
    made = SqliteStore()
    yield made
    made.close()


@pytest.fixture
def params(tmp_path: Path) -> dict[str, str]:
    return {"ledger": str(tmp_path / "ledger.jsonl"), "gate": str(tmp_path / "gate")}


@pytest.fixture
def open_gate(params):
    return Path(params["gate"]).touch


@pytest.fixture
def done(victims, params):
    """Return a function that returns what was done, in order, with the attempt."""
    return lambda: [(line["node"], line["attempt"]) for line in victims.ledger_of(params["ledger"])]


@pytest.fixture
def waiting(begin, params, wait_until, store):
    """Return a function that starts a pipeline and waits until it stands before its gate."""

    def start(pipeline: str = "gated", **order):
        Path(params["gate"] + ".reached").unlink(missing_ok=True)
        process = begin(pipeline, {**params, **order.pop("changed", {})}, **order)
        reached = Path(params["gate"] + ".reached")
        wait_until(lambda: reached.exists() or process.ended, "the gate to be reached")
        reached.unlink()
        return process, store.runs(RunQuery(roots_only=True))[0].run_id

    return start


@pytest.fixture
def killed(waiting):
    """Return a function that starts a pipeline, kills it before its gate, and returns its run's id."""

    def kill(pipeline: str = "gated", **order) -> str:
        process, run_id = waiting(pipeline, **order)
        process.signal(signal.SIGKILL)
        process.end()
        return run_id

    return kill


@pytest.fixture
def recording():
    """Return a kernel with a history."""
    with Kernel({"store": "sqlite", "retry": {"initial": 0.001}}, strict=True) as made:
        yield made


# -- who is dead, and who is not


def test_the_runs_of_a_killed_process_read_crashed_at_once(killed, store):
    run_id = killed()

    reaped = store.reap()

    assert [run_id, *(c.run_id for c in store.children(run_id) if c.node == "wait")] == reaped
    assert {None: "crashed", "before": "succeeded", "wait": "crashed"} == {
        run.node: run.status for run in store.runs()
    }


def test_a_suspended_process_is_alive_and_its_run_cannot_be_taken_over(
    waiting, store, wait_until, recording, victims, params, open_gate, done
):
    process, run_id = waiting()
    wait_until(lambda: store.get(run_id).status == "running", "its state to be written")
    process.signal(signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the process to stop")

    assert [] == store.reap(lease=0.0)
    with pytest.raises(RunBusyError) as caught:
        victims.gated().execute(params, kernel=recording, resume=run_id)

    assert busy(run_id, process.pid) == str(caught.value)
    assert "running" == store.get(run_id).status
    process.signal(signal.SIGCONT)
    open_gate()
    assert {"after": 3} == process.end()["result"]
    assert [("before", 1), ("wait", 1), ("after", 1)] == done()


def busy(run_id: str, pid: int) -> str:
    return (
        f"Run {run_id} is running in process {pid} on {socket.gethostname()}\n"
        f"  watch it with: synapse-kernel runs watch {run_id}\n"
        f"  stop it with:  synapse-kernel runs cancel {run_id}"
    )


def test_of_two_processes_that_go_on_with_a_run_one_wins_and_the_other_is_told(
    killed, begin, params, tmp_path, wait_until, open_gate, done, store
):
    run_id = killed()
    both = [begin("gated", params, launch={"resume": run_id}, meet=str(tmp_path)) for _ in range(2)]

    wait_until(lambda: any(process.ended for process in both), "one process to be refused")
    loser, winner = sorted(both, key=lambda process: not process.ended)
    refused = loser.end()
    assert not winner.ended
    open_gate()

    assert {"refused": "RunBusyError", "message": busy(run_id, winner.pid)} == refused
    assert ("succeeded", {"after": 3}) == tuple(winner.end()[key] for key in ("status", "result"))
    assert [("before", 1), ("wait", 2), ("after", 1)] == done()
    assert 2 == store.get(run_id).attempt


def test_a_pipeline_goes_on_under_the_same_ids_in_a_higher_attempt(
    killed, store, recording, victims, params, open_gate
):
    run_id = killed()
    before = {child.node: child.run_id for child in store.children(run_id)}
    open_gate()

    outcome = victims.gated().execute(params, kernel=recording, resume=run_id)

    children = store.children(run_id)
    assert (run_id, 2, {"after": 3}) == (outcome.run_id, outcome.attempts, outcome.result)
    assert before == {child.node: child.run_id for child in children if child.node != "after"}
    assert {"before": 1, "wait": 2, "after": 1} == {child.node: child.attempt for child in children}


def test_a_worker_whose_kernel_was_killed_ends_and_does_nothing_more(
    waiting, params, wait_until, recording, victims, open_gate, done, store
):
    process, run_id = waiting(options={"executor": "process"})
    workers = children_of(process.pid)
    process.signal(signal.SIGKILL)
    process.end()

    wait_until(lambda: not any(map(runs, workers)), "the worker to end")
    open_gate()
    outcome = victims.gated(executor="process").execute(params, kernel=recording, resume=run_id)

    assert 1 == len(workers)
    assert {"after": 3} == outcome.result
    assert [("before", 1), ("wait", 2), ("after", 1)] == done()


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in tasks for child in file.read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def test_a_run_that_another_process_had_as_it_was_about_to_be_claimed_is_looked_at_once_more(
    killed, waiting, recording, victims, params, open_gate, done
):
    run_id = killed()
    late = Launch(recording, victims.gated(), params, resume=run_id)
    other, _ = waiting(launch={"resume": run_id, "force": True}, changed={"value": 5})
    other.signal(signal.SIGKILL)
    other.end()
    open_gate()

    outcome = late.execute()

    assert (
        f"Another process went on with run {run_id}, and broke off, as this one was about to\n"
        f"  go on with it once more: --resume {run_id}"
    ) == outcome.error.message
    assert [("before", 1), ("before", 2)] == done()


# -- what cannot go on


def test_a_finished_pipeline_has_nothing_left_to_do(recording, victims, params, open_gate):
    open_gate()
    run_id = victims.gated().execute(params, kernel=recording).run_id

    with pytest.raises(UsageError) as caught:
        victims.gated().execute(params, kernel=recording, resume=run_id)

    assert (
        f"Run {run_id} has succeeded: there is nothing left to do\n"
        f"  see its result with: synapse-kernel runs show {run_id}"
    ) == str(caught.value)


def test_a_pipeline_that_this_very_kernel_runs_cannot_go_on_a_second_time(
    recording, victims, params, open_gate, wait_until, done
):
    run = victims.gated().submit(params, kernel=recording)
    wait_until(Path(params["gate"] + ".reached").exists, "the gate to be reached")

    with pytest.raises(RunBusyError) as caught:
        victims.gated().execute(params, kernel=recording, resume=run.id)

    assert busy(run.id, os.getpid()) == str(caught.value)
    open_gate()
    assert {"after": 3} == run.result().result
    assert [("before", 1), ("wait", 1), ("after", 1)] == done()


def test_an_unknown_run_cannot_go_on(recording, victims, params, own_home):
    with pytest.raises(RunNotFoundError) as caught:
        victims.gated().execute(params, kernel=recording, resume="0123")

    assert (
        f"No run '0123' is in sqlite://{own_home}/history.db\n"
        "  see what is there with: synapse-kernel runs list"
    ) == str(caught.value)


def test_the_run_of_an_action_cannot_go_on_as_a_pipeline(recording, victims, params):
    run_id = recording.run(victims.mark, None, {"ledger": params["ledger"], "node": "x"}).run_id

    with pytest.raises(UsageError) as caught:
        victims.gated().execute(params, kernel=recording, resume=run_id)

    assert (
        f"Run {run_id} is of the action 'mark', not of a pipeline\n"
        f"  go on with it by: synapse-kernel runs retry {run_id}"
    ) == str(caught.value)


def test_without_a_history_nothing_can_go_on(kernel, victims, params):
    with pytest.raises(UsageError) as caught:
        victims.gated().execute(params, kernel=kernel, resume="0123")

    assert "Run 0123 cannot go on: there is no history here (see the setting store)" == str(caught.value)


# -- what changed meanwhile


def test_a_changed_pipeline_is_told_with_all_that_changed(killed, recording, victims, params):
    run_id = killed()

    with pytest.raises(PipelineChangedError) as caught:
        victims.gated(extra=True).execute({**params, "value": 5}, kernel=recording, resume=run_id)

    assert (
        f"Run {run_id} was of another pipeline than this is now:\n"
        "  node 'extra' is new\n"
        "  params: 'value' was 1, is 5\n"
        "go on all the same, running again what changed, with --force; or start a new run"
    ) == str(caught.value)


def test_more_retries_and_another_executor_are_no_change(killed, recording, victims, params, open_gate, done):
    run_id = killed()
    open_gate()

    outcome = victims.gated(retries=3).execute(params, kernel=recording, resume=run_id)

    assert {"after": 3} == outcome.result
    assert [("before", 1), ("wait", 2), ("after", 1)] == done()


def test_force_runs_what_changed_again_and_what_follows(killed, recording, victims, params, open_gate, done):
    run_id = killed()
    open_gate()

    outcome = victims.gated().execute({**params, "value": 5}, kernel=recording, resume=run_id, force=True)

    assert {"after": 7} == outcome.result
    assert [("before", 1), ("before", 2), ("wait", 2), ("after", 1)] == done()


def test_force_does_not_run_again_what_did_not_change(killed, recording, victims, params, open_gate, done):
    run_id = killed()
    open_gate()

    outcome = victims.gated(extra=True, retries=1).execute(
        params, kernel=recording, resume=run_id, force=True
    )

    assert {"after": 3, "extra": 3} == outcome.result
    assert [("before", 1), ("extra", 1), ("after", 1), ("wait", 2)] == sorted(
        done(), key=lambda line: (line[1], line[0] == "after", line[0])
    )


def test_what_was_run_again_by_force_is_not_run_once_more(
    killed, waiting, recording, victims, params, open_gate, done
):
    run_id = killed()
    changed = {**params, "value": 5}
    again, _ = waiting(launch={"resume": run_id, "force": True}, changed={"value": 5})
    again.signal(signal.SIGKILL)
    again.end()
    open_gate()

    outcome = victims.gated().execute(changed, kernel=recording, resume=run_id)

    assert {"after": 7} == outcome.result
    assert [("before", 1), ("before", 2), ("wait", 3), ("after", 1)] == done()


def test_after_force_the_pipeline_of_before_is_the_changed_one(
    killed, waiting, recording, victims, params, open_gate
):
    run_id = killed()
    again, _ = waiting(launch={"resume": run_id, "force": True}, changed={"value": 5})
    again.signal(signal.SIGKILL)
    again.end()
    open_gate()

    with pytest.raises(PipelineChangedError) as caught:
        victims.gated().execute({**params, "value": 1}, kernel=recording, resume=run_id)

    assert (
        f"Run {run_id} was of another pipeline than this is now:\n"
        "  params: 'value' was 5, is 1\n"
        "go on all the same, running again what changed, with --force; or start a new run"
    ) == str(caught.value)


def test_after_force_what_was_done_before_does_not_count_even_if_nothing_was_run_again_yet(
    killed, recording, victims, params, open_gate, done, monkeypatch
):
    run_id = killed()
    changed = {**params, "value": 5}
    with monkeypatch.context() as broken:
        broken.setattr(Scheduler, "run", fails)
        victims.gated().execute(changed, kernel=recording, resume=run_id, force=True)
    open_gate()

    outcome = victims.gated().execute(changed, kernel=recording, resume=run_id)

    assert {"after": 7} == outcome.result
    assert [("before", 1), ("before", 2), ("wait", 2), ("after", 1)] == done()


def fails(scheduler: Scheduler) -> object:
    raise OSError("the memory is full")


# -- what nodes have besides


def test_conditions_cached_results_and_tolerated_failures_hold_when_a_pipeline_goes_on(
    killed, recording, victims, params, open_gate, done, store
):
    open_gate()
    first = victims.remembered().execute(params, kernel=recording)
    Path(params["gate"]).unlink()
    run_id = killed("remembered")
    before = store.get(run_id).last_seq
    open_gate()

    outcome = victims.remembered().execute(params, kernel=recording, resume=run_id)

    children = {child.node: child for child in store.children(run_id)}
    assert {"after": 1} == outcome.result == first.result
    assert ["kept"] == [node for node, _ in done() if node == "kept"]
    of_first = {child.node: child.run_id for child in store.children(first.run_id)}
    assert of_first["kept"] == store.get(children["kept"].run_id).cached_from
    assert ("failed", 2) == (children["broken"].status, children["broken"].attempt)
    assert {"kept", "broken", "wait", "after"} == set(children)
    logs = [stored.event for stored in store.events(run_id, kinds=["log"])]
    assert ["maybe"] == [log.data["node"] for log in logs if log.event == "node_skipped" and log.seq > before]
    restored = [log.data["nodes"] for log in logs if log.event == "nodes_restored"]
    assert [{"kept": children["kept"].run_id}] == restored
