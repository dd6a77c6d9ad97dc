"""Starting a run that goes on without the process that started it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel, ParamsError, SynapseError, UsageError
from synapse_kernel.contracts import KnownResult, RunPlace
from synapse_kernel.stores import RunBusyError, RunStore


def test_a_detached_run_is_recorded_and_has_no_owner(kernel: Kernel, store: RunStore, farm, here: Path):
    gate = here / "gate"
    run_id = kernel.detach(
        "talk.py", "talk", {"gate": str(gate), "token": "hush"}, executor="lasting", retries=2, tags=["t"]
    )

    record = store.get(run_id)
    assert record is not None
    assert ("pending", None, True, True) == (record.status, record.owner, record.detached, record.lasting)
    assert ("lasting", "talk.py", 2, ["t"]) == (record.executor, record.target, record.retries, record.tags)
    assert {"gate": str(gate), "token": "***"} == record.params
    assert ["token"] == record.masked
    assert [] == store.reap(lease=-1.0)
    assert record == store.get(run_id)
    farm.until(lambda: farm.events(run_id), "the run begins elsewhere")


def test_an_executor_that_cannot_last_is_refused_before_anything_starts(kernel: Kernel, store: RunStore):
    with pytest.raises(UsageError) as caught:
        kernel.detach("talk.py", "talk", executor="process")

    assert (
        "Executor 'process' cannot outlive this process, as a detached run must\n"
        "  those that can: lasting, ray-job; or leave out --detach"
    ) == str(caught.value)
    assert 0 == store.count()


def test_an_executor_that_was_chosen_and_cannot_last_is_told_with_the_option(kernel: Kernel):
    with pytest.raises(UsageError) as caught:
        kernel.detach("talk.py", "talk")

    assert (
        "Executor 'local', which was chosen, cannot outlive this process, as a detached run must\n"
        "  name one that can with --executor: lasting, ray-job"
    ) == str(caught.value)


def test_wrong_params_are_told_before_anything_starts(kernel: Kernel, store: RunStore, farm):
    with pytest.raises(ParamsError):
        kernel.detach("talk.py", "talk", {"wrds": 1}, executor="lasting")

    assert (0, []) == (store.count(), list(farm.folder.iterdir()))


def test_without_a_store_nothing_is_detached(make_kernel: Callable[..., Kernel], farm):
    with pytest.raises(UsageError) as caught:
        make_kernel(store="none").detach("talk.py", "talk", executor="lasting")

    assert str(caught.value).startswith("The run cannot be recorded: there is no run store\n")
    assert [] == list(farm.folder.iterdir())


@pytest.mark.parametrize(
    "place",
    [
        RunPlace(parent="p"),
        RunPlace(run_id="r1", resume=True),
        RunPlace(known=KnownResult(1, "r0")),
    ],
)
def test_a_detached_run_is_no_part_of_another(kernel: Kernel, store: RunStore, place: RunPlace):
    with pytest.raises(UsageError) as caught:
        kernel.detach("talk.py", "talk", executor="lasting", place=place)

    assert "A detached run stands alone: its RunPlace takes no parent, no resume and no known result" == str(
        caught.value
    )
    assert 0 == store.count()


def test_a_kernel_that_was_shut_down_detaches_nothing(kernel: Kernel, farm):
    kernel.shutdown()

    with pytest.raises(UsageError) as caught:
        kernel.detach("talk.py", "talk", executor="lasting")

    assert "The kernel was shut down: it starts no run any more" == str(caught.value)
    assert [] == list(farm.folder.iterdir())


def test_a_run_that_is_not_accepted_has_failed(kernel: Kernel, store: RunStore, farm):
    (farm.folder / "full").touch()

    with pytest.raises(SynapseError, match=r"^The farm is full; the token was hush$"):
        kernel.detach("talk.py", "talk", {"token": "hush"}, executor="lasting")

    [record] = store.runs()
    assert ("failed", "SynapseError: The farm is full; the token was ***") == (record.status, record.error)
    assert ["failed"] == farm.states(stored.event for stored in store.events(record.run_id))
    outcome = store.outcome(record.run_id)
    assert outcome is not None
    assert "hush" not in str(outcome)


def test_a_run_goes_on_when_its_client_is_killed(script, kernel: Kernel, store: RunStore, farm, here: Path):
    """Right after it was detached, before the kernel could be shut down."""
    client = script(
        """
        import os, signal
        from synapse_kernel import Kernel
        kernel = Kernel({"store": "sqlite"})
        run_id = kernel.detach("talk.py", "talk", {"gate": "gate"}, executor="lasting")
        print(run_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    run_id = client.stdout.readline().strip()
    assert -signal.SIGKILL == client.wait()
    assert [] == store.reap()
    (here / "gate").touch()

    outcome = kernel.attach(run_id).result(timeout=60)

    assert ("succeeded", {"said": 6}) == (outcome.status, outcome.result)
    assert farm.events(run_id) == [stored.event for stored in store.events(run_id)]


def test_a_run_that_goes_on_elsewhere_is_not_claimed_for_another_attempt(
    kernel: Kernel, store: RunStore, here: Path
):
    run_id = kernel.detach("talk.py", "talk", {"gate": "gate"}, executor="lasting")

    with pytest.raises(RunBusyError) as caught:
        kernel.run("talk.py", "talk", place=RunPlace(run_id=run_id, resume=True))

    assert (
        f"Run {run_id} goes on elsewhere\n"
        f"  watch it with: synapse-kernel runs watch {run_id}\n"
        f"  stop it with:  synapse-kernel runs cancel {run_id}"
    ) == str(caught.value)
