"""Executors that break the contract, each in one way; what `test_executor_contract` runs."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from synapse_kernel import ExecutorSpec, Kernel, hookimpl
from synapse_kernel.contracts import Job, Outcome, Send, Task
from synapse_kernel.events import Event, State
from synapse_kernel.testing.executor import ExecutorContract
from synapse_plugins.local_executors.local import LocalExecutor


class Sound(LocalExecutor):
    """Nothing is wrong with it."""


class LosesTheLastEvent(LocalExecutor):
    def submit(self, task: Task, send: Send) -> Job:
        held: list[Event] = []

        def hold(events: list[Event]) -> None:
            held.extend(events)
            send(held[:-1])
            del held[:-1]

        return super().submit(task, hold)


class KeepsEventsToTheEnd(LocalExecutor):
    def submit(self, task: Task, send: Send) -> Job:
        kept: list[Event] = []
        job = super().submit(task, kept.extend)
        return Ending(job, lambda outcome: (send(kept), outcome)[1])


class EndsTwice(LocalExecutor):
    def submit(self, task: Task, send: Send) -> Job:
        def end(outcome: Outcome) -> Outcome:
            send([State(task.run_id, 0, time.time(), task.action, None, outcome.status)])
            return outcome

        return Ending(super().submit(task, send), end)


class SwallowsTheMessage(LocalExecutor):
    def submit(self, task: Task, send: Send) -> Job:
        def end(outcome: Outcome) -> Outcome:
            error = outcome.error and msgspec.structs.replace(outcome.error, message="it failed")
            return msgspec.structs.replace(outcome, error=error)

        return Ending(super().submit(task, send), end)


class NeverEnds(LocalExecutor):
    def submit(self, task: Task, send: Send) -> Job:
        return Endless(super().submit(task, send))


class Ending:
    """A job at whose end something is done."""

    def __init__(self, job: Job, end):
        self.job = job
        self.end = end

    def wait(self, timeout: float | None = None) -> Outcome | None:
        outcome = self.job.wait(timeout)
        return outcome and self.end(outcome)

    def cancel(self, grace: float) -> None:
        self.job.cancel(grace)


class Endless(Ending):
    """A job that ends when it is cancelled, not when its action does."""

    def __init__(self, job: Job):
        self.job = job
        self.told = threading.Event()

    def wait(self, timeout: float | None = None) -> Outcome | None:
        return self.job.wait(0) if self.told.wait(timeout) else None

    def cancel(self, grace: float) -> None:
        self.told.set()


class Plugin:
    @hookimpl
    def synapse_register_executors(self):
        kinds = (Sound, LosesTheLastEvent, KeepsEventsToTheEnd, EndsTwice, SwallowsTheMessage, NeverEnds)
        return [ExecutorSpec(name=kind.__name__, target=f"{__name__}:{kind.__name__}") for kind in kinds]


class Contract(ExecutorContract):
    isolated = False

    @pytest.fixture
    def make_kernel(self):
        return lambda settings: Kernel(settings, plugins=[Plugin()], strict=True)


class TestSound(Contract):
    executor_name = "Sound"


class TestLosesTheLastEvent(Contract):
    executor_name = "LosesTheLastEvent"


class TestKeepsEventsToTheEnd(Contract):
    executor_name = "KeepsEventsToTheEnd"
    patience = 3.0


class TestEndsTwice(Contract):
    executor_name = "EndsTwice"


class TestSwallowsTheMessage(Contract):
    executor_name = "SwallowsTheMessage"


class TestNeverEnds(Contract):
    executor_name = "NeverEnds"
    patience = 3.0
