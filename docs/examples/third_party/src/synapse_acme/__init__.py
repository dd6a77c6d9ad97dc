"""
What Acme adds to synapse-kernel: an executor, a sink, a command and an action plugin.

This module is imported whenever a kernel starts, so it holds the hooks alone: their descriptors name the
code behind them as text, and it is imported when someone uses it.
"""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import ActionsSpec, CommandSpec, ExecutorSpec, SinkSpec

SYNAPSE_API = 1
SYNAPSE_SETTINGS = ("acme",)


@hookimpl
def synapse_register_executors() -> list[ExecutorSpec]:
    """Register `acme-threads`."""
    return [
        ExecutorSpec(
            name="acme-threads",
            target="synapse_acme.threads:ThreadsExecutor",
            summary="in a pool of threads of this process",
        )
    ]


@hookimpl
def synapse_register_sinks() -> list[SinkSpec]:
    """Register `acme-tally`."""
    return [
        SinkSpec(
            name="acme-tally",
            target="synapse_acme.tally:TallySink",
            summary="how many events of each kind a run had, as JSON (argument: the file)",
        )
    ]


@hookimpl
def synapse_register_commands() -> list[CommandSpec]:
    """Register `acme-hello`."""
    return [CommandSpec(name="acme-hello", target="synapse_acme.hello:hello", summary="Greet from Acme.")]


@hookimpl
def synapse_register_actions() -> list[ActionsSpec]:
    """Register the action plugin `acme`: a package with a `config.yaml`."""
    return [ActionsSpec(name="acme", target="synapse_acme.actions", summary="Count words; pause.")]
