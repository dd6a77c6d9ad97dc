"""Python logging, as events of a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse_kernel.emitter import Emitter
    from synapse_kernel.events import Level


class EventHandler(logging.Handler):
    """Turns each record into a `log` event named ``log`` with the message, and the traceback if any."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__()
        self._emitter = emitter

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            data: dict[str, object] = {"message": record.getMessage(), "logger": record.name}
            if record.exc_info:
                data["traceback"] = logging.Formatter().formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - logging's own way with a broken record
            self.handleError(record)
            return
        self._emitter.log("log", data, level=_level(record.levelno))


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


def event_logger(action: str, emitter: Emitter) -> logging.Logger:
    """Make a logger that stands alone: nothing of it is left in `logging` when the run is over."""
    logger = logging.Logger(f"synapse.action.{action}", level=logging.DEBUG)
    logger.addHandler(EventHandler(emitter))
    return logger
