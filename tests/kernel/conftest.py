"""What the kernel's tests share."""

from __future__ import annotations

import pytest

from synapse_kernel.testing import RecordedSink


@pytest.fixture
def recorder() -> RecordedSink:
    """Return a sink that keeps what it receives."""
    return RecordedSink()
