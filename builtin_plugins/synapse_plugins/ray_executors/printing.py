"""What Ray prints by itself in the process of a driver."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def keep_ray_quiet() -> None:
    """
    Let what Ray tells of dead workers go to the log, at level debug: the outcome of their run tells it.

    Ray prints it to stdout, which is for results, whatever it is told of logs; there is no public way.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_instead


def _log_instead(data: dict[str, object], ignore_prefix: bool = False) -> None:  # noqa: ARG001 - Ray's signature
    _log.debug("Ray: %s", data.get("lines"))
