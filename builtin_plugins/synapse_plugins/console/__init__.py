"""Sinks that show or write events: `console`, `jsonl` and `logging`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import SinkSpec


@hookimpl
def synapse_register_sinks() -> list[SinkSpec]:
    """Register all three."""
    return [
        SinkSpec(
            name="console",
            target="synapse_plugins.console.console:open_console",
            summary="a live display on a terminal, plain lines elsewhere (argument: quiet, normal, verbose)",
        ),
        SinkSpec(
            name="jsonl",
            target="synapse_plugins.console.jsonl:JsonLinesSink",
            summary="one JSON object a line, to a file or - for stdout (argument: the file)",
        ),
        SinkSpec(
            name="logging",
            target="synapse_plugins.console.logging_sink:LoggingSink",
            summary="Python logging (argument: the logger's name, default synapse)",
        ),
    ]
