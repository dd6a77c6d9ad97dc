"""The sink `jsonl`: events as JSON lines."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel.errors import UsageError
from synapse_kernel.events import encode_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import Outcome, RunInfo
    from synapse_kernel.events import Event


class JsonLinesSink:
    """
    Appends each event as a JSON object on a line of its own, a batch in one write.

    The argument is a file, whose folders are made; ``-`` for stdout, which is also the default; or ``fd:N``
    for an open descriptor, which stays open. Raises `UsageError` if the file cannot be opened.
    """

    def __init__(self, run: RunInfo, argument: str | None) -> None:  # noqa: ARG002 - a sink's signature
        self._owned = not (argument is None or argument == "-" or argument.startswith("fd:"))
        if not self._owned:
            sys.stdout.flush()
            given = (argument or "-").removeprefix("fd:")
            if given != "-" and not given.isdigit():
                raise UsageError(f"The events cannot be written to {argument}: write it like fd:3")
            self._descriptor = sys.stdout.fileno() if given == "-" else int(given)
            return
        file = Path(str(argument)).expanduser()
        try:
            # A file in the way is told by the open below, as what it is.
            with contextlib.suppress(FileExistsError):
                file.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"The events cannot be written to {file}: {error.strerror}") from error

    def accept(self, events: Sequence[Event]) -> None:
        """Write a batch."""
        lines = [encode_event(event) for event in events]
        lines.append(b"")
        data = memoryview(b"\n".join(lines))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002 - a sink's signature
        """Close the file."""
        if self._owned:
            os.close(self._descriptor)
