"""The sink `acme-tally`: how many events of each kind a run had."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel import UsageError
from synapse_kernel.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel import Event, Outcome, RunInfo


class TallySink:
    """
    Counts events, and writes the counts as JSON when the run is over: the whole file or none.

    The argument is the file. Raises `UsageError` without one, or if its folder is not there.
    """

    def __init__(self, run: RunInfo, argument: str | None) -> None:
        if argument is None:
            raise UsageError("The sink 'acme-tally' needs a file: --sink acme-tally:FILE")
        self._file = Path(argument).expanduser()
        if not self._file.parent.is_dir():
            raise UsageError(f"The tally cannot be written: there is no folder {self._file.parent}")
        self._run = run
        self._counts: Counter[str] = Counter()

    def accept(self, events: Sequence[Event]) -> None:
        """Count a batch."""
        self._counts.update(type(event).__name__.lower() for event in events)

    def close(self, outcome: Outcome) -> None:
        """Write the file."""
        tally = {
            "run_id": self._run.run_id,
            "action": self._run.action,
            "executor": self._run.executor,
            "status": outcome.status,
            "events": dict(sorted(self._counts.items())),
        }
        write_whole(self._file, json.dumps(tally, indent=2) + "\n")
