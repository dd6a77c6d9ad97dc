"""A sink for assertions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from synapse_kernel.events import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import Outcome
    from synapse_kernel.events import Event

EventT = TypeVar("EventT")


class RecordedSink:
    """Keeps what it receives: `batches` as they came, `outcomes` it was closed with."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.outcomes: list[Outcome] = []

    def accept(self, events: Sequence[Event]) -> None:
        """Keep a batch."""
        self.batches.append(list(events))

    def close(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        self.outcomes.append(outcome)

    @property
    def events(self) -> list[Event]:
        """All events, in order."""
        return [event for batch in self.batches for event in batch]

    @property
    def states(self) -> list[str]:
        """The states the run went through."""
        return [event.state for event in self.of(State)]

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once the sink was closed."""
        return self.outcomes[-1] if self.outcomes else None

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of one type."""
        return [event for event in self.events if isinstance(event, kind)]
