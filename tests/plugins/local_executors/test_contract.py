"""The contract of executors, held by those of this machine."""

from __future__ import annotations

from synapse_kernel.testing.executor import ExecutorContract


class TestLocal(ExecutorContract):
    executor_name = "local"
    isolated = False


class TestProcess(ExecutorContract):
    executor_name = "process"
