"""
The command `storage`, and the providers: each folder below is a plugin of its own.

What several providers share, and none of them owns, lies in the modules beside.
"""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import CommandSpec


@hookimpl
def synapse_register_commands() -> list[CommandSpec]:
    """Register `storage`."""
    return [
        CommandSpec(
            name="storage",
            target="synapse_plugins.storage.commands.group:storage",
            summary="List, copy, synchronise and check files in any storage.",
        )
    ]
