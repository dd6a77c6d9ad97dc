"""What the parts of the executor's contract share: fixtures, and a run that is watched."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from synapse_kernel.events import FINAL_STATUSES, Event, Log, Message, State
from synapse_kernel.kernel import Kernel
from synapse_kernel.owners import Owner
from synapse_kernel.testing.executor_folders import write_actions
from synapse_kernel.testing.sinks import RecordedSink

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Unpack

    from synapse_kernel.contracts import Outcome
    from synapse_kernel.handles import Run
    from synapse_kernel.preparation import RunKeywords

MakeKernel: TypeAlias = Callable[[Mapping[str, object]], Kernel]

QUICK = {"retry": {"initial": 0.001, "maximum": 0.001}, "grace": 0.2}
"""Settings that retry at once and give no grace worth speaking of."""


class ExecutorFixtures:
    """
    What a subclass says of its executor, and what the tests are given.

    Only `executor_name` must be set; `make_kernel` is overridden where the executor's plugin is not installed
    or needs settings.
    """

    executor_name: str
    """The name it is registered under."""
    isolated: bool = True
    """True if a crash of the action's process fails its run and nothing else."""
    forces: bool = True
    """True if an action that does not listen is stopped by force, be it that only its run ends."""
    patience: float = 60.0
    """Seconds that one run may take, start-up included; none of it is waited for where all is well."""
    many: int = 20
    """How many runs are submitted together."""

    @pytest.fixture
    def make_kernel(self) -> MakeKernel:
        """Return what makes a kernel of settings, in which the executor is registered."""
        return lambda settings: Kernel(settings, strict=True)

    @pytest.fixture
    def kernel(self, make_kernel: MakeKernel) -> Iterator[Kernel]:
        """Make a kernel with the settings `QUICK`."""
        with make_kernel(QUICK) as made:
            yield made

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Write the folder of actions."""
        return write_actions(tmp_path / "contract")

    @pytest.fixture
    def in_process(self, kernel: Kernel) -> bool:
        """Tell whether tasks run in this process: no print is caught then, and results may be anything."""
        return kernel.executor(self.executor_name).in_process

    def start(
        self,
        kernel: Kernel,
        folder: Path,
        action: str,
        params: Mapping[str, object] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Watched:
        """Submit a run of the executor."""
        heard = Heard()
        options = {"executor": self.executor_name, "sinks": [heard], **options}
        return Watched(kernel.submit(str(folder), action, params, **options), heard, self.patience)

    def ended(
        self,
        kernel: Kernel,
        folder: Path,
        action: str,
        params: Mapping[str, object] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Watched:
        """Submit a run of the executor and wait for its end."""
        watched = self.start(kernel, folder, action, params, **options)
        watched.end()
        return watched


class Heard(RecordedSink):
    """Keeps what it receives, tells who waits, and keeps apart what comes after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Event] = []
        self._changed = threading.Condition()

    def accept(self, events: Sequence[Event]) -> None:
        """Keep a batch."""
        with self._changed:
            if self.outcomes:
                self.late += events
            else:
                super().accept(events)
            self._changed.notify_all()

    def close(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        with self._changed:
            super().close(outcome)
            self._changed.notify_all()

    @property
    def stages(self) -> list[tuple[str, int]]:
        """The states and attempts that the run went through, but for why it had to wait."""
        states = [state for state in self.of(State) if state.state != "pending" or state.detail is None]
        return [(state.state, state.attempt) for state in states]

    @property
    def said(self) -> list[tuple[int, Event]]:
        """What was said while an attempt ran, with its number: not what the executor tells before."""
        said: list[tuple[int, Event]] = []
        attempt: int | None = None
        for event in self.events:
            if isinstance(event, State):
                attempt = event.attempt if event.state == "running" else None
            elif attempt is not None:
                said.append((attempt, event))
        return said

    @property
    def texts(self) -> list[str]:
        """What the messages say."""
        return [event.text for _, event in self.said if isinstance(event, Message)]

    def logged(self, event: str) -> list[dict[str, object]]:
        """Return the data of the logs of one name."""
        return [log.data for log in self.of(Log) if log.event == event]

    def wait_for(self, event: str, patience: float) -> dict[str, object]:
        """Wait until a log of this name comes, while the run goes on, and return its data."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.logged(event) or self.outcomes, patience)
            assert came, f"no log {event!r} came in {patience:g} s"
            assert self.logged(event), f"the run ended without a log {event!r}: {self.outcome}"
            return self.logged(event)[0]


class Watched:
    """A run and what its sink hears; each wait is bounded by the executor's `patience`."""

    def __init__(self, run: Run, heard: Heard, patience: float) -> None:
        self.run = run
        self.heard = heard
        self._patience = patience

    def started(self) -> Owner:
        """Wait until the action says that it has begun, and return the process it says that it is in."""
        return msgspec.convert(self.heard.wait_for("started", self._patience), Owner)

    def end(self, within: float | None = None) -> Outcome:
        """Wait for the outcome, and look at what holds of every run that has ended."""
        outcome = self.run.result(self._patience if within is None else within)
        heard = self.heard
        assert list(range(1, len(heard.events) + 1)) == [event.seq for event in heard.events]
        assert {self.run.id} == {event.run_id for event in heard.events}
        finals = [state for state in heard.of(State) if state.state in FINAL_STATUSES]
        assert [outcome.status] == [state.state for state in finals]
        assert finals[0] is heard.events[-1]
        assert [outcome] == heard.outcomes
        assert [] == heard.late
        return outcome

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return self.run.result(self._patience)

    @property
    def result(self) -> object:
        """What it returned; raises `RunFailedError` where it returned nothing."""
        return self.outcome.unwrap()

    @property
    def error(self) -> tuple[str, str, str]:
        """The kind, type and message of its error."""
        error = self.outcome.error
        assert error is not None
        return error.kind, error.type, error.message
