"""Looking after a run that goes on elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from synapse_kernel import Kernel, SynapseError, UsageError
from synapse_kernel.events import Message
from synapse_kernel.owners import Owner, this_process
from synapse_kernel.stores import RunBusyError, RunNotFoundError, RunRecord, RunStore
from synapse_kernel.testing import RecordedSink

WATCHER = """
    import sys, time
    from synapse_kernel import Kernel
    kernel = Kernel({"store": "sqlite"})
    kernel.attach(sys.argv[1], sinks=())
    print("attached", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def gate(here: Path) -> Path:
    return here / "gate"


@pytest.fixture
def detached(kernel: Kernel, farm, gate: Path) -> str:
    """Return a run that goes on elsewhere, has said its first words, and waits for the gate."""
    run_id = kernel.detach("talk.py", "talk", {"gate": str(gate)}, executor="lasting")
    farm.until(lambda: len(farm.events(run_id)) > 4, "the run speaks")
    return run_id


@pytest.fixture
def events(store: RunStore):
    """Return a function that gives the recorded events of a run."""
    return lambda run_id: [stored.event for stored in store.events(run_id)]


def test_what_a_run_says_elsewhere_comes_as_it_was_said(
    kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    sink = RecordedSink()
    handle = kernel.attach(detached, sinks=[sink])
    farm.until(lambda: len(sink.events) > 4, "what was said before has come")
    gate.touch()
    outcome = handle.result(timeout=60)

    said = farm.events(detached)
    assert said == sink.events == events(detached)
    assert list(range(1, len(said) + 1)) == [event.seq for event in said]
    assert ["pending", "running", "succeeded"] == farm.states(said)
    words = [event.text for event in said if isinstance(event, Message)]
    assert [f"{word} {number}" for word in ("word", "more") for number in range(3)] == words
    assert ("succeeded", {"said": 6}, 1) == (outcome.status, outcome.result, outcome.attempts)
    assert outcome == sink.outcome
    record = store.get(detached)
    assert record is not None
    assert ("succeeded", kernel.owner, len(said)) == (record.status, record.owner, record.last_seq)
    assert {"said": 6} == (store.outcome(detached) or {}).get("result")
    assert ("succeeded", True) == (handle.status, handle.done)


def test_a_run_that_had_ended_long_before_comes_whole(
    kernel: Kernel, detached: str, gate: Path, farm, events
):
    gate.touch()
    farm.until(lambda: farm.has_ended(detached), "the run ends")

    assert kernel.attach(detached).result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_each_attempt_of_a_detached_run_is_told(kernel: Kernel, store: RunStore, here: Path, farm, events):
    run_id = kernel.detach(
        "talk.py", "talk", {"failures": str(here / "failed")}, executor="lasting", retries=1
    )

    outcome = kernel.attach(run_id).result(timeout=60)

    assert ("succeeded", 2) == (outcome.status, outcome.attempts)
    assert ["pending", "running", "retrying", "running", "succeeded"] == farm.states(events(run_id))
    record = store.get(run_id)
    assert record is not None
    assert 2 == record.attempt


def test_of_two_that_attach_at_once_one_is_told(script, kernel: Kernel, store: RunStore, detached: str):
    watcher = script(WATCHER, detached)
    assert "attached\n" == watcher.stdout.readline()
    before = store.get(detached)
    assert before is not None
    assert watcher.pid == (before.owner and before.owner.pid)

    with pytest.raises(RunBusyError) as caught:
        kernel.attach(detached)

    assert before.owner == caught.value.owner
    assert {} == kernel.attached_runs


def test_the_same_kernel_attaches_once(kernel: Kernel, detached: str):
    kernel.attach(detached)

    with pytest.raises(RunBusyError):
        kernel.attach(detached)


@pytest.mark.parametrize("turn", range(3))
def test_nothing_is_lost_or_doubled_where_one_that_attached_is_killed(
    script, kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events, turn: int
):
    watcher = script(WATCHER, detached)
    assert "attached\n" == watcher.stdout.readline()
    farm.until(lambda: len(events(detached)) > turn, "the watcher records")
    watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    record = store.get(detached)
    assert record is not None
    assert record.status in {"pending", "running"}
    if turn:
        assert [] == store.reap()
        left = store.get(detached)
        assert left is not None
        assert (True, record.status) == (left.detached, left.status)

    handle = kernel.attach(detached)
    gate.touch()

    assert handle.result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_what_an_executor_tells_again_is_not_doubled(
    kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    with kernel.attach(detached):
        farm.until(lambda: len(events(detached)) > 4, "what was said before has come")
    (farm.folder / "again").touch()
    handle = kernel.attach(detached)
    gate.touch()

    assert handle.result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_a_process_that_attached_says_that_it_lives(
    make_kernel: Callable[..., Kernel], detached: str, farm, monkeypatch: pytest.MonkeyPatch
):
    """Another machine could not tell otherwise."""
    heard: list[Owner] = []
    monkeypatch.setattr("synapse_plugins.history.recorder.HEARTBEAT_SECONDS", 0.05)
    # One whose heart did not beat before.
    kernel = make_kernel()
    monkeypatch.setattr(kernel.store, "heartbeat", heard.append)
    kernel.attach(detached)

    farm.until(lambda: heard, "it is heard of")
    assert kernel.owner == heard[0]


def test_a_run_whose_final_state_alone_was_recorded_ends_once(
    kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    """The process that had attached died between the last event and the outcome."""
    gate.touch()
    farm.until(lambda: farm.has_ended(detached), "the run ends")
    dead = msgspec.structs.replace(this_process(), started="1")
    store.adopt(detached, dead)
    store.append(detached, farm.events(detached))
    assert [] == store.reap()
    left = store.get(detached)
    assert left is not None
    assert ("running", True) == (left.status, left.detached)

    outcome = kernel.attach(detached).result(timeout=60)

    assert outcome.ok
    assert farm.events(detached) == events(detached)
    assert ["pending", "running", "succeeded"] == farm.states(events(detached))
    assert ["succeeded"] == [run.status for run in store.runs()]


def test_a_run_is_cancelled_through_its_job(kernel: Kernel, store: RunStore, detached: str, farm, events):
    handle = kernel.attach(detached)
    handle.cancel(reason="the data is wrong")

    outcome = handle.result(timeout=60)

    assert "cancelled" == outcome.status
    assert outcome.error is not None
    assert "the run was cancelled: the data is wrong" == outcome.error.message
    assert ["pending", "running", "cancelled"] == farm.states(events(detached))
    assert farm.events(detached) == events(detached)


def test_a_request_of_another_process_is_heard_by_the_one_that_attached(
    kernel: Kernel, store: RunStore, detached: str
):
    handle = kernel.attach(detached)
    assert store.request_cancel(detached, "no longer wanted")

    assert "cancelled" == handle.result(timeout=60).status


def test_a_request_that_nobody_heard_is_heard_by_the_next_that_attaches(
    kernel: Kernel, store: RunStore, detached: str
):
    assert store.request_cancel(detached)

    assert "cancelled" == kernel.attach(detached).result(timeout=60).status


def test_a_run_that_is_given_up_goes_on(
    kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    sink = RecordedSink()
    handle = kernel.attach(detached, sinks=[sink])
    farm.until(lambda: len(sink.events) > 4, "what was said before has come")
    handle.release()
    handle.release()

    record = store.get(detached)
    assert record is not None
    assert ("running", True, True) == (record.status, record.detached, handle.done)
    assert sink.events == events(detached)
    assert {} == kernel.attached_runs
    assert not farm.has_ended(detached)
    with pytest.raises(SynapseError) as caught:
        handle.result()
    assert (
        f"Run {detached} was given up by this process, and goes on elsewhere\n"
        f"  watch it with: synapse-kernel runs watch {detached}"
    ) == str(caught.value)

    gate.touch()
    assert kernel.attach(detached).result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_a_run_that_was_lost_sight_of_goes_on(
    kernel: Kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    """What the job raises is raised, and nothing is said of the run that is not known."""
    handle = kernel.attach(detached)
    farm.until(lambda: len(events(detached)) > 4, "what was said before has come")
    (farm.folder / "cut").touch()

    with pytest.raises(SynapseError, match=r"^The road to the farm is cut$"):
        handle.result(timeout=60)

    record = store.get(detached)
    assert record is not None
    assert ("running", True, {}) == (record.status, record.detached, kernel.attached_runs)

    (farm.folder / "cut").unlink()
    gate.touch()
    assert kernel.attach(detached).result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_a_run_that_is_given_up_is_followed_no_more(kernel: Kernel, detached: str):
    handle = kernel.attach(detached)
    handle.release()

    for thread in threading.enumerate():
        if thread.name == f"synapse-run-{detached}":
            thread.join(60)
            assert not thread.is_alive()


def test_a_later_attempt_is_attached_to_as_well(
    kernel: Kernel, store: RunStore, gate: Path, here: Path, farm, events
):
    params = {"failures": str(here / "failed"), "gate": str(gate)}
    run_id = kernel.detach("talk.py", "talk", params, executor="lasting", retries=1)
    farm.until(lambda: farm.states(farm.events(run_id))[-2:] == ["retrying", "running"], "it tries again")
    first = kernel.attach(run_id)
    farm.until(lambda: "retrying" in farm.states(events(run_id)), "that is recorded")
    farm.until(lambda: len(events(run_id)) > 6, "more of it is recorded")
    first.release()
    record = store.get(run_id)
    assert record is not None
    assert 2 == record.attempt
    gate.touch()

    outcome = kernel.attach(run_id).result(timeout=60)

    assert ("succeeded", 2) == (outcome.status, outcome.attempts)
    assert farm.events(run_id) == events(run_id)


def test_leaving_a_with_block_gives_the_run_up(kernel: Kernel, store: RunStore, detached: str):
    with kernel.attach(detached):
        pass

    record = store.get(detached)
    assert record is not None
    assert record.detached
    assert {} == kernel.attached_runs


def test_a_kernel_that_shuts_down_gives_up_what_it_attached_to(
    make_kernel, store: RunStore, detached: str, gate: Path, farm, events
):
    other = make_kernel()
    handle = other.attach(detached)
    other.shutdown()

    record = store.get(detached)
    assert record is not None
    assert (True, True) == (record.detached, handle.done)
    with pytest.raises(UsageError, match=r"^The kernel was shut down: it attaches to no run any more$"):
        other.attach(detached)

    gate.touch()
    assert make_kernel().attach(detached).result(timeout=60).ok
    assert farm.events(detached) == events(detached)


def test_a_run_that_is_not_found_elsewhere_stays_as_it_was(
    kernel: Kernel, store: RunStore, detached: str, farm
):
    (farm.folder / detached).rename(farm.folder / "moved")
    before = store.get(detached)

    with pytest.raises(SynapseError, match=rf"^The farm has no run {detached}$"):
        kernel.attach(detached)

    assert before == store.get(detached)
    (farm.folder / "moved").rename(farm.folder / detached)
    kernel.attach(detached)


def test_a_sink_that_cannot_be_opened_leaves_the_run_as_it_was(
    kernel: Kernel, store: RunStore, detached: str
):
    before = store.get(detached)

    with pytest.raises(SynapseError, match=r"^Sink 'nowhere' is not registered"):
        kernel.attach(detached, sinks=["nowhere"])

    assert before == store.get(detached)


def test_a_run_that_has_ended_is_not_attached_to(kernel: Kernel, detached: str, gate: Path):
    gate.touch()
    kernel.attach(detached).result(timeout=60)

    with pytest.raises(UsageError) as caught:
        kernel.attach(detached)

    assert (
        f"Run {detached} has ended: succeeded\n  see it with: synapse-kernel runs show {detached}"
    ) == str(caught.value)


def test_a_run_that_is_not_there_is_told(kernel: Kernel):
    with pytest.raises(RunNotFoundError):
        kernel.attach("gone")


def test_a_run_of_an_executor_that_does_not_last_is_not_attached_to(kernel: Kernel, store: RunStore):
    store.start(RunRecord(run_id="r1", action="talk", target="t", created=datetime.now(UTC)), this_process())

    with pytest.raises(UsageError) as caught:
        kernel.attach("r1")

    assert (
        "Run r1 is on the executor 'local', whose runs end with their process: "
        "there is nothing to attach to\n"
        "  see what it says with: synapse-kernel runs watch r1"
    ) == str(caught.value)


def test_the_job_of_a_client_that_was_killed_is_seen_through(
    script, kernel: Kernel, store: RunStore, gate: Path, farm, events
):
    """It was not detached: one attempt alone goes on elsewhere, and who attaches says how the run ended."""
    client = script(
        """
        from synapse_kernel import Kernel
        with Kernel({"store": "sqlite"}) as kernel:
            kernel.run("talk.py", "talk", {"gate": "gate"}, executor="lasting")
        """
    )
    farm.until(lambda: [run for run in store.runs() if run.last_seq > 4], "the run speaks")
    [record] = store.runs()
    client.send_signal(signal.SIGKILL)
    client.wait()
    gate.touch()

    outcome = kernel.attach(record.run_id).result(timeout=60)

    assert ("succeeded", {"said": 6}) == (outcome.status, outcome.result)
    recorded = events(record.run_id)
    assert list(range(1, len(recorded) + 1)) == [event.seq for event in recorded]
    assert ["pending", "running", "succeeded"] == farm.states(recorded)
    assert farm.events(f"{record.run_id}-1") == recorded[2:-1]
    ended = store.get(record.run_id)
    assert ended is not None
    assert "succeeded" == ended.status
