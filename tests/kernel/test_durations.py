"""Durations and sizes as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from synapse_kernel import UsageError
from synapse_kernel.durations import seconds, size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        (" 1.5 ", 1.5),
        ("45s", 45.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1H 30M", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_durations_are_read(value: Any, expected: float | None):
    assert expected == seconds(value)


@pytest.mark.parametrize("text", ["", "soon", "1x", "m", "1h30", "-5s", "1:30", "h1"])
def test_text_that_is_no_duration_is_told(text: str):
    with pytest.raises(UsageError) as raised:
        seconds(text)

    assert f"{text!r} is not a duration; write it like 90, 45s, 10m or 1h30m" == str(raised.value)


@pytest.mark.parametrize("value", [0, -1, "0", "0s", "-5", "nan", math.nan, timedelta(0)], ids=repr)
def test_a_duration_must_be_above_zero(value: Any):
    with pytest.raises(UsageError) as raised:
        seconds(value)

    assert f"{value!r} is not a duration: it must be above zero" == str(raised.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("512MB", 512_000_000),
        ("8GiB", 8 * 2**30),
        ("1.5 kB", 1500),
        ("2tb", 2 * 10**12),
    ],
)
def test_sizes_are_read(value: Any, expected: int):
    assert expected == size(value)


@pytest.mark.parametrize("text", ["", "much", "5 parsecs", "GiB"])
def test_text_that_is_no_size_is_told(text: str):
    with pytest.raises(UsageError) as raised:
        size(text)

    assert f"{text!r} is not a size; write it like 512MB or 8GiB" == str(raised.value)
