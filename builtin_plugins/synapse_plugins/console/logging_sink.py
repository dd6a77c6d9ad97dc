"""The sink `logging`: events as records of Python's logging."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_kernel.event_text import line_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.contracts import Outcome, RunInfo
    from synapse_kernel.events import Event

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LoggingSink:
    """Sends each event to a logger, ``synapse`` by default, with the event itself as ``record.event``."""

    def __init__(self, run: RunInfo, argument: str | None) -> None:  # noqa: ARG002 - a sink's signature
        self._logger = logging.getLogger(argument or "synapse")

    def accept(self, events: Sequence[Event]) -> None:
        """Log a batch."""
        for event in events:
            level = _LEVELS.get(event.level, logging.INFO)
            if self._logger.isEnabledFor(level):
                self._logger.log(level, "%s", line_of(event), extra={"event": event})

    def close(self, outcome: Outcome) -> None:
        """Do nothing: a logger stays open."""
