"""
The way of an event from the action that says it to the sinks that receive it.

`Emitter` is what the action writes to, in whichever process it runs: it snapshots, coalesces progress,
numbers, masks secrets and sends batches. `Pulse` flushes the emitters that have something to say about ten
times a second. `Channel` stands in the kernel's process and hands each batch to the run's sinks.

Nothing is dropped but progress that a newer one replaced; the last progress of a category is always sent.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import ContextVar
from math import isfinite, nan
from time import monotonic, time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import force_setattr

from synapse_kernel.errors import RunCancelled
from synapse_kernel.events import (
    LEVELS,
    Artifact,
    Event,
    Log,
    Message,
    Metrics,
    Progress,
    State,
    encode_data,
    encode_metrics,
)
from synapse_kernel.redaction import Redactor, may_hold_secret_names, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_kernel.contracts import Outcome, Sink
    from synapse_kernel.events import Level, Status

FLUSH_SECONDS = 0.1
# A batch this long is sent by the thread that emits: memory stays bounded when sinks are slower than the
# action, and the batch is still long enough to amortise the hand-over.
BATCH = 1024

current_step: ContextVar[str | None] = ContextVar("synapse_step", default=None)

_NUMBERS = frozenset({int, float})
_EMPTY = msgspec.Raw(b"{}")


class CancelToken:
    """A request to stop, made once, seen by the action's process."""

    __slots__ = ("_callbacks", "_lock", "_on_strike", "is_set", "reason")

    def __init__(self) -> None:
        self.is_set = False
        self.reason = ""
        self._callbacks: list[Callable[[], None]] = []
        self._on_strike: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def told(self) -> str:
        """What is said of a run that was stopped: ``cancelled``, ``interrupted`` or ``cancelled: REASON``."""
        reason = self.reason or "cancelled"
        return reason if reason.startswith(("cancelled", "interrupted")) else f"cancelled: {reason}"

    def set(self, reason: str = "cancelled") -> None:
        """Ask to stop; the first reason stays."""
        with self._lock:
            if self.is_set:
                return
            self.reason = reason
            self.is_set = True
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def strike(self) -> None:
        """Tell that the stop is raised in the action now, not at its next call: no lock, signals call it."""
        for callback in self._on_strike:
            callback()

    def on_strike(self, callback: Callable[[], None]) -> None:
        """Call back at each `strike`."""
        self._on_strike.append(callback)

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call back when the token is set, at once if it is set already."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(callback)
                return
        callback()


class Pulse:
    """One thread, started when first needed, that flushes armed emitters every 0.1 s."""

    def __init__(self) -> None:
        self._armed: deque[Emitter] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def arm(self, emitter: Emitter) -> None:
        """Flush this emitter at the next beat."""
        self._armed.append(emitter)
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed.is_set():
                    self._thread = threading.Thread(target=self._beat, name="synapse-pulse", daemon=True)
                    self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """End the thread; emitters flush themselves when their run ends."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _beat(self) -> None:
        while True:
            self._wake.wait()
            # Before the pause: cleared after it, a wake-up that means close could be lost.
            self._wake.clear()
            if self._closed.wait(FLUSH_SECONDS):
                return
            for _ in range(len(self._armed)):
                emitter = self._armed.popleft()
                try:
                    emitter.flush()
                except Exception as error:  # noqa: BLE001 - the other runs' events must still be sent
                    _warn(f"Events of a run could not be sent: {type(error).__name__}: {error}")


class Emitter:
    """
    What an action says, from any thread; each call is also a place where a cancelled run stops.

    `send` receives batches in order, or is None when nobody listens: then nothing is built at all. With
    `eager`, what is said is sent at once, progress excepted: a process that may die any moment loses none.
    `lock` is held whenever `send` is called; None for one of its own.
    """

    __slots__ = (
        "_action",
        "_armed",
        "_batch",
        "_cancel_raised",
        "_eta",
        "_lock",
        "_pending",
        "_pulse",
        "_records",
        "_redactor",
        "_run_id",
        "_send",
        "_seq",
        "cancelled",
    )

    def __init__(
        self,
        run_id: str,
        action: str,
        send: Callable[[list[Event]], None] | None,
        *,
        pulse: Pulse | None = None,
        seq: int = 0,
        secrets: Sequence[str] = (),
        eager: bool = False,
        lock: threading.Lock | None = None,
    ) -> None:
        self._batch = 1 if eager else BATCH
        self._run_id = run_id
        self._action = action
        self._send = send
        self._pulse = pulse
        self._seq = seq
        self._redactor = (Redactor(secrets) or None) if secrets else None
        self._records: deque[Event] = deque()
        self._pending: dict[object, tuple[float, float | None, str | None, str | None]] = {}
        self._eta: dict[object, tuple[float, float]] = {}
        self._armed = pulse is None
        self._lock = lock or threading.Lock()
        self._cancel_raised = False
        self.cancelled = False

    def cancel(self) -> None:
        """Let the next call of the action raise `RunCancelled`."""
        self.cancelled = True

    def checkpoint(self) -> None:
        """Raise `RunCancelled` if the run was told to stop, once: clean-up may still emit."""
        if self.cancelled and not self._cancel_raised:
            self._cancel_raised = True
            raise RunCancelled

    def release(self) -> None:
        """Let clean-up speak undisturbed, although the run was told to stop."""
        self._cancel_raised = True

    def progress(self, current: float, total: float | None = None, category: str | None = None) -> None:
        """Set how far a category of work has come."""
        if self.cancelled:
            self.checkpoint()
        # x - x is not zero for NaN and the infinities alone, which JSON cannot hold.
        if current.__class__ not in _NUMBERS or current - current != 0:
            current = _as_number("current", current)
        if total is not None and (total.__class__ not in _NUMBERS or total - total != 0):
            total = _as_number("total", total)
        if self._send is None:
            return
        step = current_step.get()
        self._pending[category if step is None else (step, category)] = (current, total, category, step)
        if not self._armed:
            self._arm()

    def log(self, event: str, data: Mapping[str, object] | None = None, *, level: Level = "info") -> None:
        """Log a named event with data, which is snapshotted now."""
        if self.cancelled:
            self.checkpoint()
        if self._send is None:
            return
        raw = _EMPTY
        if data:
            encoded = encode_data(data)
            if may_hold_secret_names(encoded):
                encoded = msgspec.json.encode(redact(msgspec.json.decode(encoded)))
            raw = msgspec.Raw(encoded if self._redactor is None else self._redactor.raw(encoded))
        if self._redactor is not None or not event.isascii():
            event = self._masked(event)
        level = level if level in LEVELS else "info"
        self._add(Log(self._run_id, 0, time(), self._action, current_step.get(), event, level, raw))

    def metrics(self, values: Mapping[str, object], category: str | None = None) -> None:
        """Record numbers that were measured together."""
        if self.cancelled:
            self.checkpoint()
        encoded = encode_metrics(values)
        if self._send is None:
            return
        if self._redactor is not None:
            encoded = self._redactor.raw(encoded)
        category = None if category is None else self._masked(category)
        raw = msgspec.Raw(encoded)
        self._add(Metrics(self._run_id, 0, time(), self._action, current_step.get(), category, raw))

    def message(self, text: str, context: str = "info") -> None:
        """Say a sentence to the person who watches."""
        if self.cancelled:
            self.checkpoint()
        if self._send is not None:
            text, context = self._masked(str(text)), self._masked(context)
            self._add(Message(self._run_id, 0, time(), self._action, current_step.get(), text, context))

    @property
    def heard(self) -> bool:
        """True if somebody listens: else what is dear to find out need not be."""
        return self._send is not None

    def artifact(self, name: str, path: str, size: int | None, sha256: str | None = None) -> None:
        """Tell of a file or folder that the run made."""
        if self.cancelled:
            self.checkpoint()
        if self._send is not None:
            name, path = self._masked(name), self._masked(path)
            step = current_step.get()
            self._add(Artifact(self._run_id, 0, time(), self._action, step, name, path, size, sha256))

    def flush(self) -> None:
        """Send all that is waiting, the newest progress of each category last."""
        if self._pulse is not None:
            self._armed = False
        with self._lock:
            batch = self._take_records()
            now = time()
            for key in list(self._pending):
                current, total, category, step = self._pending.pop(key)
                self._seq += 1
                eta = self._estimate(key, current, total)
                category = None if category is None else self._masked(category)
                batch.append(
                    Progress(self._run_id, self._seq, now, self._action, step, category, current, total, eta)
                )
            if batch and self._send is not None:
                self._send(batch)

    def close(self) -> None:
        """Send what is waiting, then take nothing more: a thread left behind says no more of this run."""
        if self._send is not None:
            self.flush()
            self._send = None

    def _add(self, event: Event) -> None:
        if self._batch == 1:
            with self._lock:
                if self._send is not None:
                    self._seq += 1
                    force_setattr(event, "seq", self._seq)
                    self._send([event])
            return
        records = self._records
        records.append(event)
        if not self._armed:
            self._arm()
        if len(records) >= self._batch:
            with self._lock:
                batch = self._take_records()
                if batch and self._send is not None:
                    self._send(batch)

    def _arm(self) -> None:
        self._armed = True
        if self._pulse is not None:
            self._pulse.arm(self)

    def _take_records(self) -> list[Event]:
        # Popping one by one from a deque is what keeps a record that another thread appends meanwhile.
        pop = self._records.popleft
        batch = [pop() for _ in range(len(self._records))]
        # An event is numbered where it leaves the queue, before anyone else has seen it: a number drawn where
        # it is made would need a lock there, to be in the queue's order.
        for seq, event in enumerate(batch, self._seq + 1):
            force_setattr(event, "seq", seq)
        self._seq += len(batch)
        return batch

    def _masked(self, text: str) -> str:
        text = text if self._redactor is None else self._redactor.text(text)
        return text if text.isascii() else _encodable(text)

    def _estimate(self, key: object, current: float, total: float | None) -> float | None:
        """Estimate the rest in seconds from the rate since this category was first seen."""
        now = monotonic()
        since, first = self._eta.setdefault(key, (now, current))
        if total is None or current <= first or current > total:
            return None
        try:
            return round((now - since) * (total - current) / (current - first), 3)
        except OverflowError:  # whole numbers beyond what a float holds
            return None


def _encodable(text: str) -> str:
    """Escape what UTF-8 cannot hold, such as a part of a file name that is no text: sinks must write it."""
    return text.encode(errors="backslashreplace").decode()


def _as_number(name: str, value: object) -> float:
    try:
        number = nan if isinstance(value, (str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = nan
    if not isfinite(number):
        raise TypeError(f"set_progress: {name} is not a number: {value!r}")
    return number


class Channel:
    """The run's sinks, opened once; a sink that raises is disabled for the run with one warning."""

    __slots__ = ("_action", "_disabled", "_errors", "_lock", "_run_id", "_sinks", "seq")

    def __init__(self, run_id: str, action: str, sinks: list[tuple[str, Sink]], seq: int = 0) -> None:
        self._run_id = run_id
        self._action = action
        self._sinks = sinks
        self._disabled: list[tuple[str, Sink]] = []
        self._errors: dict[str, Exception] = {}
        self._lock = threading.Lock()
        self.seq = seq

    def deliver(self, events: list[Event]) -> None:
        """Hand a batch to every sink, in order."""
        if not events:
            return
        with self._lock:
            if events[0].seq != self.seq + 1:
                # Several sources (a worker and its printed output, a second attempt): one numbering.
                events = [msgspec.structs.replace(e, seq=n) for n, e in enumerate(events, self.seq + 1)]
            self.seq += len(events)
            self._hand_out(events)

    def forward(self, events: Sequence[Event]) -> None:
        """Hand the events of a run that is part of this one to every sink, as they are."""
        with self._lock:
            self._hand_out(events)

    def failed(self, name: str) -> Exception | None:
        """Return what the sink of this name raised, if it did."""
        return self._errors.get(name)

    def _hand_out(self, events: Sequence[Event]) -> None:
        for name, sink in list(self._sinks):
            try:
                sink.accept(events)
            except Exception as error:  # noqa: BLE001 - whatever a sink raises, the run goes on
                self._disable(name, sink, error)

    def state(self, state: Status, attempt: int = 1, detail: str | None = None) -> None:
        """Tell the sinks that the run changed state."""
        detail = detail and _encodable(detail)
        self.deliver([State(self._run_id, self.seq + 1, time(), self._action, None, state, attempt, detail)])

    def close(self, outcome: Outcome) -> None:
        """Close every sink with the outcome; errors are logged, never raised."""
        with self._lock:
            for name, sink in (*self._sinks, *self._disabled):
                try:
                    sink.close(outcome)
                except Exception as error:  # noqa: BLE001 - the outcome stands, whatever a sink does
                    self._errors.setdefault(name, error)
                    _warn(f"Sink {name!r} failed to close: {type(error).__name__}: {error}")
            self._sinks, self._disabled = [], []

    def _disable(self, name: str, sink: Sink, error: Exception) -> None:
        self._sinks = [(n, s) for n, s in self._sinks if s is not sink]
        self._disabled.append((name, sink))
        self._errors[name] = error
        text = f"Sink {name!r} failed and is off for this run: {type(error).__name__}: {error}"
        _warn(text)


def discard(events: list[Event]) -> None:
    """
    Take the events of a run that nobody listens to.

    An executor in this process may know it by this, and let none be made.
    """


class ChildSink:
    """The sinks of a run, as the run hears them that is part of it."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def accept(self, events: Sequence[Event]) -> None:
        """Hand a batch on."""
        self._channel.forward(events)

    def close(self, outcome: Outcome) -> None:
        """Do nothing: the parent closes its sinks when it ends itself."""


def _warn(text: str) -> None:
    import logging

    logging.getLogger("synapse_kernel").warning(text)
