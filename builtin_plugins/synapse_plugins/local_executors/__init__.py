"""Executors of this machine: `local`, in the kernel's process, and `process`, a fresh interpreter."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import ExecutorSpec


@hookimpl
def synapse_register_executors() -> list[ExecutorSpec]:
    """Register both."""
    return [
        ExecutorSpec(
            name="local",
            target="synapse_plugins.local_executors.local:LocalExecutor",
            summary="in this process",
            methods=("local",),
        ),
        ExecutorSpec(
            name="process",
            target="synapse_plugins.local_executors.process:ProcessExecutor",
            summary="in a fresh interpreter; a crash there fails the run and nothing else",
        ),
    ]
