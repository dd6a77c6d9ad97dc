"""The driver's side of an attempt on a worker: its events as they come, its outcome, whatever dies."""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import UTC, datetime
from functools import cache
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol, cast

import msgspec
import ray
from msgspec.structs import force_setattr
from ray.exceptions import RayError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synapse_kernel._version import __version__
from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.events import Event, Message, State, decode_lines
from synapse_kernel.opening import working_folder
from synapse_kernel.owners import this_process
from synapse_kernel.serialization import decode_struct, encode_struct
from synapse_kernel.worker import cancelled, concluded
from synapse_plugins.ray_executors import entry
from synapse_plugins.ray_executors.failures import error_of, node_died
from synapse_plugins.ray_executors.remote import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_kernel.contracts import Send, Task
    from synapse_kernel.events import Status
    from synapse_plugins.ray_executors.connection import Connection
    from synapse_plugins.ray_executors.entry import Packed
    from synapse_plugins.ray_executors.items import Items
    from synapse_plugins.ray_executors.remote import Hello, Item

# Between the worker's own force and killing it.
FORCE_SECONDS = 3.0
# So soon is a lost cluster seen, by those whom Ray tells nothing.
_STEP_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 0.5
_RECOVERY_SECONDS = 60.0


class Placed(Protocol):
    """Where an attempt was put, and how it is taken away."""

    def kill(self) -> None:
        """Take the attempt out of the queue, or kill its worker."""

    def ended(self, node: str | None, *, broken: bool) -> None:
        """The attempt on a node is over; `broken` is whether its worker can no more be used."""

    def again(self, job: StreamJob, shipment: Packed) -> bool:
        """Find another place for an attempt that never began here; False if there is none."""


class StreamJob:
    """
    An attempt on a worker. What comes from there is read by whoever waits.

    `begin` gives it its items, once there is a place for it.
    """

    def __init__(
        self,
        connection: Connection,
        task: Task,
        send: Send,
        demand: Mapping[str, float],
        *,
        autoscaling: bool,
    ) -> None:
        self.key = f"{task.run_id}-{task.attempt}-{os.urandom(4).hex()}"
        self.connection = connection
        self._task = task
        self._send = send
        self._demand = demand
        self._autoscaling = autoscaling
        self._started_at = datetime.now(UTC)
        self._seq = task.seq
        self._rest = b""
        self._position = 0
        self._hello: Hello | None = None
        self._shipment: Packed | None = None
        self._items: Items | None = None
        self._place: Placed | None = None
        self._outcome: Outcome | None = None
        self._reason: str | None = None
        self._told = False
        self._look_at = monotonic() + _FIRST_LOOK_SECONDS
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._reading = threading.Lock()
        self._state = threading.Lock()
        # Who looks after those that wait speaks too.
        self._speaking = threading.Lock()
        self._verdict: ErrorInfo | None = None
        connection.waiting.add(self)

    @property
    def action(self) -> str:
        """The action's name."""
        return self._task.action

    @property
    def ended(self) -> bool:
        """True once there is an outcome, or nobody waits for one."""
        return self._ended.is_set()

    def call(self, shipment: Packed) -> bytes:
        """Return what the worker is given."""
        # One more: that it runs is told here, before anything that it says.
        task = msgspec.structs.replace(self._task, seq=self._task.seq + 1)
        attempt = encode_struct(Attempt(task=task, key=self.key, boot=_boot(), cwd=working_folder()))
        self._shipment = shipment
        return entry.packed_call(shipment, attempt, self.connection.board.put_up())

    def begin(self, place: Placed, items: Items) -> None:
        """Go on with what comes from a worker."""
        with self._state:
            self._place, self._items = place, items
            told, over = self._told, self._ended.is_set()
        self._begun.set()
        if told or over:
            place.kill()
        if over:
            place.ended(None, broken=True)

    def fail(self, error: BaseException) -> None:
        """End an attempt that has no place with what kept it from one."""
        self._verdict = error_of(error)
        self._begun.set()

    def wait_started(self) -> None:
        """Return once the action has begun, or the attempt has ended without."""
        self._read(None, until_started=True)

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Return the outcome; None after `timeout` seconds."""
        self._read(None if timeout is None else monotonic() + timeout)
        return self._outcome

    def cancel(self, grace: float) -> None:
        """Tell the action to stop, make it after `grace` seconds, and kill its worker soon after."""
        with self._state:
            first, self._told = not self._told, True
            place = self._place
        if self._ended.is_set():
            return
        if place is None:
            # It has no place yet, and gets none: see `begin`.
            self._begun.set()
            return
        if self.connection.lost.is_set():
            return
        if self._hello is None:
            place.kill()
        if first or grace <= 0:
            self.connection.board.tell(self.key, grace)
            threading.Thread(
                target=self._force, args=(place, grace), name="synapse-cancel", daemon=True
            ).start()

    def _force(self, place: Placed, grace: float) -> None:
        if not self._ended.wait(max(grace, 0) + FORCE_SECONDS) and not self.connection.lost.is_set():
            place.kill()

    def _read(self, deadline: float | None, *, until_started: bool = False) -> None:
        while self._outcome is None and not (until_started and self._hello is not None):
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return
            # Whoever else waits reads meanwhile.
            if self._reading.acquire(timeout=-1 if left is None else left):
                try:
                    if self._outcome is None:
                        self._step(_STEP_SECONDS if left is None else min(left, _STEP_SECONDS))
                finally:
                    self._reading.release()

    def _step(self, timeout: float) -> None:
        """Take what comes next, if anything comes in time."""
        try:
            if self.connection.lost.is_set():
                self._end(self._lost())
                return
            if self._items is None:
                if self._begun.wait(timeout) and self._items is None:
                    self._end(self._verdict or cancelled())
                return
            item = self._items.next(timeout)
            if item is not None:
                self._take(item)
        except StopIteration:
            self._end(ErrorInfo(type="WorkerLost", message="the worker said nothing more", kind="crash"))
        except (RayError, ConnectionError, SystemError) as error:
            self._end(error_of(error), error)

    def _take(self, item: Item) -> None:
        if item.hello is not None:
            self._begin_running(item.hello)
        self._position = item.position
        if item.lines:
            self._deliver(item.lines)
        if item.outcome:
            self._conclude(decode_struct(item.outcome, Outcome), broken=False)
        elif item.last:
            self._end(cancelled())

    def _begin_running(self, hello: Hello) -> None:
        self.connection.waiting.discard(self)
        self._hello = hello
        for warning in hello.warnings:
            self._say(warning, "warning")
        if hello.version != __version__:
            self._say(
                f"the worker runs synapse-kernel {hello.version}, this process {__version__}\n"
                "  send it along with: --set ray.ship_code=true",
                "warning",
            )
        self._tell_state("running")

    def look(self) -> None:
        """Say why the attempt has not begun yet, and give up on one that never can."""
        if self._hello is not None or monotonic() < self._look_at:
            return
        try:
            why = None if self._autoscaling else self.connection.why_impossible(self._demand)
            reason = self._place is None and "waiting for a worker to be free"
            reason = reason or self.connection.why_waiting(self._demand)
        except (RayError, ConnectionError):
            return
        if why is not None:
            self._verdict = ErrorInfo(type="InfeasibleResources", message=why, kind="executor")
            self.connection.waiting.discard(self)
            self._begun.set()
            if self._place is not None:
                self._place.kill()
        elif reason != self._reason:
            self._reason = reason
            with self._speaking:
                # It may have begun meanwhile: then it is not said to wait.
                if self._hello is None and self._outcome is None:
                    self._hand_on([self._state_of("pending", reason)])

    def _deliver(self, lines: bytes) -> None:
        self._rest += lines
        end = self._rest.rfind(b"\n") + 1
        if not end:
            return
        whole, self._rest = self._rest[:end], self._rest[end:]
        self._say_all(decode_lines(whole))

    def _say_all(self, events: list[Event]) -> None:
        with self._speaking:
            self._hand_on(events)

    def _hand_on(self, events: list[Event]) -> None:
        if events[0].seq != self._seq + 1:
            # What was told from here meanwhile has numbers too.
            for seq, event in enumerate(events, self._seq + 1):
                force_setattr(event, "seq", seq)
        self._seq += len(events)
        self._send(events)

    def _end(self, error: ErrorInfo, cause: BaseException | None = None) -> None:
        """Conclude an attempt that its worker did not: first with what that had still said."""
        # A cluster that is gone kills its workers too, and is asked nothing: see `Connection.answers`.
        place = self._place if self.connection.answers() else None
        error = self._verdict or (self._lost() if self.connection.lost.is_set() else error)
        # What was stopped before it began has said nothing.
        if place is not None and error.kind == "crash" and not (self._told and self._hello is None):
            never = False
            with contextlib.suppress(RayError):
                never = self._recover()
                # The loss of a worker may be known before that of its node.
                if self._hello is not None and self._hello.node not in self.connection.node_ids():
                    error = node_died(error.output)
            if never and not self._told and self._begin_again(place):
                return
        status: Status = "failed"
        if self._verdict is None and (
            self._told or error.kind == "cancelled" or isinstance(cause, TaskCancelledError)
        ):
            status = "cancelled"
            error = cancelled()
        if place is not None:
            place.kill()
        self._conclude(concluded(self._task, self._started_at, status, error), broken=True)

    def _begin_again(self, place: Placed) -> bool:
        """Go elsewhere from a worker that was dead before it got the attempt."""
        with self._state:
            self._begun.clear()
            self._place = self._items = None
        if place.again(self, cast("Packed", self._shipment)):
            return True
        self._place = place
        return False

    def _recover(self) -> bool:
        """
        Fetch what a killed worker had said and not sent; nothing if its node is gone too.

        Returns True if it is certain that the attempt never began.
        """
        if self._hello is not None:
            nodes, position = [self._hello.node], self._position
        else:
            # It was killed before its first word arrived: wherever that was.
            nodes, position = self.connection.node_ids(), None
        fetch = ray.remote(entry.rest_of)
        references = [
            fetch.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(cast("Packed", self._shipment), self.connection.board.put_up(), self.key, position)
            for node in nodes
        ]
        ready: list[ray.ObjectRef[bytes | None]] = []
        deadline = monotonic() + _RECOVERY_SECONDS
        while len(ready) < len(references) and monotonic() < deadline and not self.connection.lost.is_set():
            ready, _ = ray.wait(references, num_returns=len(references), timeout=_STEP_SECONDS)
        silent = 0
        for reference in ready:
            with contextlib.suppress(RayError):
                lines = ray.get(reference)
                if lines is not None:
                    if self._hello is None:
                        self._tell_state("running")
                    self._deliver(lines)
                    return False
                silent += 1
        return self._hello is None and silent == len(references)

    def _conclude(self, outcome: Outcome, *, broken: bool) -> None:
        self.connection.waiting.discard(self)
        with self._state:
            self._outcome = outcome
            self._ended.set()
            place = self._place
        if self.connection.lost.is_set():
            return
        if self._told:
            self.connection.board.forget(self.key)
        if place is not None:
            place.ended(self._hello.node if self._hello is not None else None, broken=broken)

    def _lost(self) -> ErrorInfo:
        return ErrorInfo(
            type="ClusterLost",
            message=f"the Ray cluster at {self.connection.address} does not answer any more",
            kind="executor",
        )

    def _tell_state(self, state: Status) -> None:
        self._say_all([self._state_of(state)])

    def _state_of(self, state: Status, detail: str | None = None) -> State:
        task = self._task
        return State(task.run_id, 0, time(), task.action, None, state, task.attempt, detail)

    def _say(self, text: str, context: str) -> None:
        task = self._task
        self._say_all([Message(task.run_id, 0, time(), task.action, None, text, context)])

    def announce(self, text: str) -> None:
        """Say a sentence to the person who watches, before the attempt begins."""
        self._say(text, "info")


@cache
def _boot() -> str:
    return this_process().boot
