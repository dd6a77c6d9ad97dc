"""
How a job tells what happens: frames in its log, which is all that outlives both its process and its client.

A frame is one line: a mark that begins with a word of this job's alone, a letter for its kind and JSON, all
of it ASCII, so that whoever reads the log as text, and in pieces, cannot spoil it. A long one goes in parts,
of which all but the last have a small letter. Whatever else stands in the log, such as what Ray says itself,
is a plain line.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from synapse_kernel.events import Event, encode_events
from synapse_kernel.serialization import encode_struct

if TYPE_CHECKING:
    from synapse_kernel.contracts import Outcome

EVENTS = "E"
OUTCOME = "O"
KEPT = "K"
"""The outcome without the run's secrets, where that is another."""
PLAIN_LINES = 20
# Longer than any batch that an emitter sends: under load, whole batches are joined.
_MOST_EVENTS = 1024
# A log on a full or slow disk must not let the conductor's memory grow without end.
_MOST_WAITING = 64 * _MOST_EVENTS
# Ray sends whole lines, and the client's end of the connection takes no message of more than 4 MiB.
_PART = 1 << 18
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class Frame(NamedTuple):
    """One message of ours."""

    kind: str
    data: str


class FrameWriter:
    """
    Writes frames to a descriptor; events by a thread of its own, which joins what comes meanwhile.

    An action that says a lot waits for no disk, and the reader gets few long lines for many short ones.
    """

    def __init__(self, descriptor: int, word: str) -> None:
        self._descriptor = descriptor
        self._mark = mark_of(word).encode()
        self._waiting: list[Event] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="synapse-job-wire", daemon=True)
        self._thread.start()

    def send(self, events: list[Event]) -> None:
        """Write events soon, in the order they come."""
        with self._changed:
            while len(self._waiting) >= _MOST_WAITING and self._thread.is_alive():
                self._changed.wait(1.0)
            self._waiting += events
            self._changed.notify_all()

    def finish(self, outcome: Outcome, kept: Outcome | None = None) -> None:
        """Write what waits, and then the outcome, the last that is written; before it, how it is kept."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        data = encode_struct(outcome)
        if kept is not None and (without := encode_struct(kept)) != data:
            self._write(KEPT, without)
        self._write(OUTCOME, data)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
                self._changed.notify_all()
            for first in range(0, len(batch), _MOST_EVENTS):
                self._write(EVENTS, encode_events(batch[first : first + _MOST_EVENTS]))

    def _write(self, kind: str, data: bytes) -> None:
        text = _ascii(data)
        while len(text) > _PART:
            self._write_line(kind.lower(), text[:_PART])
            text = text[_PART:]
        self._write_line(kind, text)

    def _write_line(self, kind: str, text: bytes) -> None:
        # In one call: the log is open for appending, and others write to it as well.
        view = memoryview(b"%s%s %s\n" % (self._mark, kind.encode(), text))
        while view:
            view = view[os.write(self._descriptor, view) :]


class FrameReader:
    """Finds the frames in a log that comes in pieces, and keeps the last plain lines."""

    def __init__(self, word: str) -> None:
        self._mark = mark_of(word)
        self._begun: list[str] = []
        self._parts: list[str] = []
        self.plain: deque[str] = deque(maxlen=PLAIN_LINES)

    def feed(self, piece: str) -> list[Frame]:
        """Take the next piece and return the frames that it completes."""
        head, end, rest = piece.rpartition("\n")
        if not end:
            self._begun.append(piece)
            return []
        lines = ("".join(self._begun) + head).split("\n")
        self._begun = [rest] if rest else []
        return [frame for line in lines if (frame := self._frame(line)) is not None]

    def finish(self) -> None:
        """Take what stands after the last line end: half a frame is none."""
        rest = "".join(self._begun)
        self._begun = []
        if rest and self._mark not in rest:
            self.plain.append(rest)

    def _frame(self, line: str) -> Frame | None:
        # What was printed before it without a line end stands on the same line.
        before, mark, frame = line.partition(self._mark)
        if before.strip():
            self.plain.append(before.rstrip())
        if not mark:
            return None
        kind = frame[:1]
        self._parts.append(frame[2:])
        if kind.islower():
            return None
        data, self._parts = "".join(self._parts), []
        return Frame(kind, data)


def mark_of(word: str) -> str:
    """Return what a job's frames begin with."""
    return f"@@synapse-{word} "


def numbered(events: list[Event], after: int) -> list[Event]:
    """Return events numbered on from `after`."""
    if all(event.seq == seq for seq, event in enumerate(events, after + 1)):
        return events
    return [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(events, after + 1)]


def _ascii(data: bytes) -> bytes:
    if data.isascii():
        return data
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], data.decode()).encode()
