"""Durations and sizes as people write them: ``1h30m``, ``90s``, ``8GiB``."""

from __future__ import annotations

import re
from datetime import timedelta

from synapse_kernel.errors import UsageError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|d|h|m|s)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|d|h|m|s)\s*)+")


def seconds(value: float | str | timedelta | None) -> float | None:
    """
    Return a duration in seconds, from a number of seconds, a timedelta, or text such as ``1h30m``.

    Raises `UsageError` for text that is no duration, and for one that is not above zero.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        text = value.strip().lower()
        if _WHOLE.fullmatch(text):
            found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        else:
            try:
                found = float(text)
            except ValueError:
                raise UsageError(
                    f"{value!r} is not a duration; write it like 90, 45s, 10m or 1h30m"
                ) from None
    else:
        found = float(value)
    if not found > 0:
        raise UsageError(f"{value!r} is not a duration: it must be above zero")
    return found


def size(value: int | str) -> int:
    """
    Return a size in bytes, from a number of bytes or text such as ``512MB`` or ``8GiB``.

    Raises `UsageError` for text that is no size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise UsageError(f"{value!r} is not a size; write it like 512MB or 8GiB") from None
