"""Events of a pipeline's run and its children folded into its progress."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from synapse_kernel.events import FINAL_STATUSES, Log, Message, Metrics, Progress, State
from synapse_plugins.pipelines.progress import ActionProgress, ActionStatus, PipelineProgress, RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_kernel.events import Event

# Snapshots of mere progress come no closer than the first, those of a changed state than the second.
_PACE_SECONDS = 0.1
_STATE_SECONDS = 0.02
# Events of a child that arrive before its `node_start`: of so many children, so many each.
_EARLY_RUNS, _EARLY_EVENTS = 256, 16
_GOOD = {ActionStatus.SUCCEEDED, ActionStatus.CACHED, ActionStatus.RESTORED}
_UNDER_WAY = {ActionStatus.RUNNING, ActionStatus.RETRYING}


class _Node:
    """What is known of one node; its model is built anew only after a change."""

    __slots__ = ("_built", "count", "ended", "instances", "known", "over", "whole", "worst")

    def __init__(self, name: str) -> None:
        self.known: dict[str, object] = {"name": name, "status": ActionStatus.PENDING, "metrics": {}}
        self.ended = False
        """Its `node_end` was told: a state of its run that comes late counts no more."""
        self.whole = False
        """It told the progress of all it does, beside that of single categories."""
        self.count: int | None = None
        """How many instances a node with `foreach` has, once that is known."""
        self.instances: dict[str, _Node] = {}
        self.over = 0
        """Instances that have ended, `worst` the state of the first that did not end well."""
        self.worst: ActionStatus | None = None
        self._built: ActionProgress | None = None

    @property
    def status(self) -> ActionStatus:
        status = self.known["status"]
        assert isinstance(status, ActionStatus)
        return status

    @property
    def share(self) -> float:
        """The part that is done, 0 to 1."""
        if self.status.is_final:
            return 1.0
        if self.count:
            return min(1.0, sum(instance.share for instance in self.instances.values()) / self.count)
        progress = self.known.get("progress")
        return progress / 100 if isinstance(progress, float) else 0.0

    def set(self, **values: object) -> None:
        self.known.update(values)
        self._built = None

    def model(self) -> ActionProgress:
        if self._built is None:
            self._built = ActionProgress.model_validate(self.known)
        return self._built


class ProgressFold:
    """Folds events into the progress of one pipeline's run; what `track` and its twin are made of."""

    def __init__(self, run_id: str | None = None) -> None:
        self.ended = False
        """No more events will come."""
        self._run_id = run_id
        self._name = ""
        self._status = RunStatus.PENDING
        self._attempt = 1
        self._error: str | None = None
        self._started: float | None = None
        self._finished: float | None = None
        self._last = 0.0
        self._nodes: dict[str, _Node] = {}
        self._by_run: dict[str, _Node] = {}
        self._early: dict[str, deque[Event]] = {}
        self._sent = 0.0
        self._changed = False
        self._state_changed = False

    @property
    def due(self) -> float | None:
        """In how many seconds the next snapshot is to be sent; None while nothing has changed."""
        if not self._changed:
            return None
        pace = _STATE_SECONDS if self._state_changed else _PACE_SECONDS
        return max(0.0, self._sent + pace - monotonic())

    @property
    def is_due(self) -> bool:
        """Tell whether a snapshot is to be sent now."""
        return self._changed and (self.ended or self.due == 0.0)

    def take(self, event: Event | None) -> None:
        """Take an event, or None for the end of them."""
        if event is None:
            # Even one without any event is worth a snapshot, its last.
            self.ended = self._changed = True
        else:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take one event."""
        if self._run_id is None:
            self._run_id = event.run_id
        self._last = max(self._last, event.time)
        if event.run_id == self._run_id:
            self._apply_own(event)
            return
        node = self._by_run.get(event.run_id)
        if node is not None:
            self._apply_to(node, event)
        elif not isinstance(event, Log):
            if event.run_id not in self._early and len(self._early) >= _EARLY_RUNS:
                del self._early[next(iter(self._early))]
            self._early.setdefault(event.run_id, deque(maxlen=_EARLY_EVENTS)).append(event)

    def snapshot(self) -> PipelineProgress:
        """Return what is known at this moment."""
        self._sent = monotonic()
        self._changed = self._state_changed = False
        nodes = list(self._in_order())
        # Not validated once more: a pipeline may have ten thousand nodes.
        return PipelineProgress.model_construct(
            run_id=self._run_id or "",
            name=self._name,
            status=self._status,
            attempt=self._attempt,
            percent=self._percent(),
            current=[str(n.known["name"]) for n in nodes if n.status in _UNDER_WAY and not n.instances],
            actions=[node.model() for node in nodes],
            started=_time(self._started),
            finished=_time(self._finished),
            elapsed=max(0.0, (self._finished or self._last) - self._started) if self._started else 0.0,
            error=self._error,
        )

    def _in_order(self) -> Iterator[_Node]:
        for node in self._nodes.values():
            yield node
            yield from node.instances.values()

    def _percent(self) -> float:
        if self._status is RunStatus.SUCCEEDED:
            return 100.0
        if not self._nodes:
            return 0.0
        return 100.0 * sum(node.share for node in self._nodes.values()) / len(self._nodes)

    def _apply_own(self, event: Event) -> None:
        if isinstance(event, State):
            self._set_state(event)
        elif isinstance(event, Log):
            told = _TOLD.get(event.event)
            if told is not None:
                told(self, event, event.data)
                self._changed = self._state_changed = True

    def _set_state(self, event: State) -> None:
        self._status = RunStatus(event.state)
        self._attempt = event.attempt
        self._changed = self._state_changed = True
        if self._status is RunStatus.RUNNING and self._started is None:
            self._started = event.time
        if not self._status.is_final:
            return
        self._finished = event.time
        self._error = event.detail if self._status is not RunStatus.SUCCEEDED else None
        for node in self._in_order():
            # Whose end was not told any more ended as the whole did.
            if node.status in _UNDER_WAY:
                node.set(status=ActionStatus(event.state), finished=event.time)

    def _node(self, name: str) -> _Node:
        stem, bracket, _ = name.partition("[")
        node = self._nodes.setdefault(stem, _Node(stem))
        if not bracket:
            return node
        if node.status is ActionStatus.PENDING:
            node.set(status=ActionStatus.RUNNING)
        return node.instances.setdefault(name, _Node(name))

    def _end(self, node: _Node, status: ActionStatus, time: float) -> None:
        """Note that a node is over, and with the last of its instances the node that they are of."""
        node.ended = True
        node.set(status=status, finished=time)
        parent = self._nodes[str(node.known["name"]).partition("[")[0]]
        if parent is node:
            return
        parent.over += 1
        if status not in _GOOD:
            parent.worst = parent.worst or status
        if parent.over == parent.count and not parent.ended:
            parent.set(status=parent.worst or ActionStatus.SUCCEEDED, finished=time)

    def _pipeline_start(self, event: Log, data: dict[str, object]) -> None:  # noqa: ARG002 - as the others
        names = data.get("nodes")
        self._name = str(data.get("pipeline", ""))
        self._nodes = {str(name): _Node(str(name)) for name in names} if isinstance(names, list) else {}
        # Of an attempt before this one nothing counts but what is restored.
        self._by_run.clear()
        self._error, self._finished = None, None

    def _node_items(self, event: Log, data: dict[str, object]) -> None:
        node = self._node(str(data["node"]))
        count = data.get("count")
        node.count = count if isinstance(count, int) else None
        # Of no items there is nothing to wait for.
        node.set(status=ActionStatus.RUNNING if node.count else ActionStatus.SUCCEEDED, started=event.time)

    def _node_start(self, event: Log, data: dict[str, object]) -> None:
        node = self._node(str(data["node"]))
        run = _text(data.get("run"))
        node.ended = False
        node.set(
            status=ActionStatus.RUNNING,
            run_id=run,
            action=_text(data.get("action")),
            executor=_text(data.get("executor")),
            started=event.time,
        )
        if run is not None:
            self._by_run[run] = node
            for early in self._early.pop(run, ()):
                self._apply_to(node, early)

    def _node_end(self, event: Log, data: dict[str, object]) -> None:
        node = self._node(str(data["node"]))
        cached = _text(data.get("cached_from"))
        state = ActionStatus(str(data["state"])) if cached is None else ActionStatus.CACHED
        node.set(cached_from=cached, error=_text(data.get("error")))
        if data.get("run") is not None:
            node.set(run_id=_text(data["run"]))
        self._end(node, state, event.time)

    def _node_skipped(self, event: Log, data: dict[str, object]) -> None:
        node = self._node(str(data["node"]))
        node.set(message=_text(data.get("reason")))
        self._end(node, ActionStatus.SKIPPED, event.time)

    def _nodes_restored(self, event: Log, data: dict[str, object]) -> None:
        restored = data["nodes"]
        assert isinstance(restored, dict)
        for name, run_id in restored.items():
            node = self._node(str(name))
            node.set(run_id=_text(run_id))
            self._end(node, ActionStatus.RESTORED, event.time)

    def _apply_to(self, node: _Node, event: Event) -> None:
        """Take an event of a node's own run."""
        if isinstance(event, State):
            # It is over when its pipeline says so: then its result is recorded, and may be a cached one.
            if node.ended or event.state in FINAL_STATUSES:
                return
            node.set(status=ActionStatus(event.state), attempt=event.attempt)
            if event.detail is not None:
                node.set(error=event.detail)
            self._state_changed = True
        elif isinstance(event, Progress):
            whole = event.category is None and event.step is None
            if node.whole and not whole:
                return
            node.whole = whole
            node.set(progress=event.percent, category=event.category or event.step)
        elif isinstance(event, Metrics):
            prefix = f"{event.category}." if event.category else ""
            metrics = node.known["metrics"]
            assert isinstance(metrics, dict)
            node.set(metrics={**metrics, **{f"{prefix}{name}": v for name, v in event.values.items()}})
        elif isinstance(event, Message):
            node.set(message=event.text)
        else:
            return
        self._changed = True


_TOLD = {
    "pipeline_start": ProgressFold._pipeline_start,
    "node_items": ProgressFold._node_items,
    "node_start": ProgressFold._node_start,
    "node_end": ProgressFold._node_end,
    "node_skipped": ProgressFold._node_skipped,
    "nodes_restored": ProgressFold._nodes_restored,
}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
