"""
The contract of an executor as tests: subclass `ExecutorContract` beside your executor's own tests.

::

    class TestMyExecutor(ExecutorContract):
        executor_name = "mine"

That is all for one whose plugin is installed. Another overrides what makes the kernels::

        @pytest.fixture
        def make_kernel(self):
            return lambda settings: Kernel(settings, plugins=[my_plugin])

What does not hold for it says the class: see `isolated`, `forces`, `patience` and `many`.
"""

from __future__ import annotations

import pytest

# Before they are imported: a failed assertion is to show what it compared.
pytest.register_assert_rewrite(
    *(
        f"synapse_kernel.testing.executor_{part}"
        for part in ("parts", "results", "events", "failures", "stops")
    )
)

from synapse_kernel.testing.executor_events import EventContract  # noqa: E402
from synapse_kernel.testing.executor_failures import FailureContract  # noqa: E402
from synapse_kernel.testing.executor_results import ResultContract  # noqa: E402
from synapse_kernel.testing.executor_stops import StopContract  # noqa: E402


class ExecutorContract(ResultContract, EventContract, FailureContract, StopContract):
    """What any `synapse_kernel.Executor` must do."""
