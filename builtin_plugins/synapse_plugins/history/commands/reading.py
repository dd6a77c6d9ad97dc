"""The stored events of a run and of what is under it, page by page."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from synapse_kernel.event_text import NODE_EVENTS
from synapse_kernel.events import FINAL_STATUSES, Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from synapse_kernel.events import Event
    from synapse_kernel.stores import RunRecord, RunStore

POLL_SECONDS = 0.15
"""How long a command that follows a run waits before it looks again."""
REAP_SECONDS = 1.0
"""How often it looks whether the process of the run still lives."""
PAGE = 10_000


class Follower:
    """Reads the events of a run, each once, and tells whether more may come."""

    def __init__(
        self, store: RunStore, run_id: str, *, kinds: Sequence[str] = (), descendants: bool = True
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._kinds = kinds
        self._descendants = descendants
        self._position = 0
        self._known = {run_id}
        self._early: list[Event] = []

    def past(self) -> Iterator[list[Event]]:
        """
        Yield what is stored, in pages, for a display that `until_end` goes on with.

        What a part said of which its pipeline has not said yet that it starts is kept for `until_end`.
        """
        for page in self._pages():
            events, self._early = self._introduced(_in_order([*self._early, *page]))
            if events:
                yield events

    def new(self) -> Iterator[list[Event]]:
        """Yield what is stored and was not yielded yet, in pages."""
        for page in self._pages():
            if page:
                yield _in_order(page)

    def until_end(self, look: Callable[[RunRecord], None]) -> Iterator[list[Event]]:
        """
        Yield what is stored, then what comes, until the run has ended or its process is dead.

        `look` is called now and then with the record of the run, which may go on elsewhere.
        """
        from time import monotonic, sleep

        looked = monotonic()
        while True:
            if monotonic() - looked > REAP_SECONDS:
                self._store.reap()
                looked = monotonic()
            # Asked before the events are read: those of a run that has ended are all there.
            record = self._store.get(self._run_id)
            if record is not None:
                look(record)
            is_over = record is None or record.status in FINAL_STATUSES
            # What was early waits for one look: what introduces it was being written.
            self._known.update(event.run_id for event in self._early)
            yield from self.past()
            if is_over:
                if self._early:
                    yield self._early
                return
            sleep(POLL_SECONDS)

    def _pages(self) -> Iterator[list[Event]]:
        """Yield what is stored beyond the position, at last a page that is not full."""
        while True:
            page = self._store.events(
                self._run_id,
                after=self._position,
                kinds=self._kinds,
                descendants=self._descendants,
                limit=PAGE,
            )
            if page:
                self._position = page[-1].position
            yield [stored.event for stored in page]
            if len(page) < PAGE:
                return

    def _introduced(self, events: list[Event]) -> tuple[list[Event], list[Event]]:
        """
        Split off what runs say of which their pipeline has not said yet that they start.

        What was said before that, by the clock, follows it at once.
        """
        now: list[Event] = []
        early: dict[str, list[Event]] = {}
        waiting = deque(events)
        while waiting:
            event = waiting.popleft()
            if event.run_id not in self._known:
                early.setdefault(event.run_id, []).append(event)
                continue
            now.append(event)
            if isinstance(event, Log) and event.event in NODE_EVENTS:
                run_id = str(event.data.get("run"))
                self._known.add(run_id)
                waiting.extendleft(reversed(early.pop(run_id, [])))
        return now, [event for said in early.values() for event in said]


def _in_order(events: list[Event]) -> list[Event]:
    """
    Sort the events of several runs by time; those of one run stay as they are, should its clock jump back.

    Each run writes about ten times a second, and when it ends: a part that was over soon is stored before
    what its pipeline said meanwhile.
    """
    newest: dict[str, float] = {}
    times = []
    for event in events:
        newest[event.run_id] = time = max(event.time, newest.get(event.run_id, 0.0))
        times.append(time)
    return [events[index] for index in sorted(range(len(events)), key=times.__getitem__)]


class Nodes:
    """Names the parts of a run: ``train`` or ``outer/train`` for the run of a node, '' for the run itself."""

    def __init__(self, store: RunStore, top: str) -> None:
        self._store = store
        self._names = {top: ""}

    def name(self, run_id: str) -> str:
        """Return the name of a run under the top one."""
        found = self._names.get(run_id)
        if found is None:
            record = self._store.get(run_id)
            above = self.name(record.parent) if record is not None and record.parent else ""
            own = (record.node if record is not None else None) or run_id[:8]
            found = self._names[run_id] = f"{above}/{own}" if above else own
        return found


def children_of(store: RunStore, run_id: str) -> list[RunRecord]:
    """
    Return the runs right under a run, in the order they were made.

    Those of one node, ``draw[0]``, ``draw[1]``, stand together and by their index: threads make them side by
    side, and which came first says nothing.
    """
    from synapse_kernel.stores import RunQuery

    made = store.runs(RunQuery(parent=run_id, limit=None))[::-1]
    places: dict[str, int] = {}

    def place(child: RunRecord) -> tuple[int, int]:
        name, _, index = (child.node or child.run_id).removesuffix("]").partition("[")
        return places.setdefault(name, len(places)), int(index) if index.isdecimal() else 0

    return sorted(made, key=place)
