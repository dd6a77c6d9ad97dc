"""What the driver does with an attempt, where no cluster is needed to see it."""

from __future__ import annotations

import threading
from typing import cast

from synapse_kernel.contracts import ActionRef, Task
from synapse_plugins.ray_executors.connection import Connection
from synapse_plugins.ray_executors.streams import StreamJob


class Cluster:
    """A connection to one that answers."""

    def __init__(self) -> None:
        self.waiting: set[object] = set()
        self.lost = threading.Event()
        self.board = self

    def answers(self) -> bool:
        return True

    def forget(self, key: str) -> None:
        """Take that it is over."""


class Place:
    """Notes what becomes of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def kill(self) -> None:
        self.calls.append("kill")

    def ended(self, node: str | None, *, broken: bool) -> None:
        self.calls.append(f"ended, node {node}, broken {broken}")

    def again(self, job: StreamJob, shipment: tuple[object, ...]) -> bool:
        return False


def test_an_attempt_that_ended_before_it_had_a_place_gives_it_back():
    """Else a pool would count its actor as busy for ever."""
    task = Task(run_id="r", action="a", ref=ActionRef("m:a"))
    connection = cast("Connection", Cluster())
    job = StreamJob(connection, task, lambda _events: None, {}, autoscaling=False)
    job.cancel(0.0)
    outcome = job.wait(60)
    place = Place()

    job.begin(place, iter(()))

    assert outcome is not None
    assert "cancelled" == outcome.status
    assert ["kill", "ended, node None, broken True"] == place.calls


def test_an_attempt_that_could_not_be_given_to_a_worker_fails_with_why():
    task = Task(run_id="r", action="a", ref=ActionRef("m:a"))
    job = StreamJob(cast("Connection", Cluster()), task, lambda _events: None, {}, autoscaling=False)

    job.fail(ValueError("no actor can be made"))
    outcome = job.wait(60)

    assert outcome is not None
    assert outcome.error is not None
    assert ("failed", "ValueError", "no actor can be made") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
    )
