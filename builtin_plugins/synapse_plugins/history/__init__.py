"""The history of runs: the sink that records them, the stores `sqlite` and `postgres`, the command `runs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import CommandSpec, SinkSpec, StoreSpec

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel


@hookimpl
def synapse_register_sinks() -> list[SinkSpec]:
    """Register `history`, which the kernel opens by itself for each run that is to be recorded."""
    return [
        SinkSpec(
            name="history",
            target="synapse_plugins.history.recorder:Recorder",
            summary="the run store of the settings",
        )
    ]


@hookimpl
def synapse_shutdown(kernel: Kernel) -> None:
    """End what records for the kernel, if it recorded anything."""
    recorder = sys.modules.get("synapse_plugins.history.recorder")
    if recorder is not None:
        recorder.stop(kernel)


@hookimpl
def synapse_register_stores() -> list[StoreSpec]:
    """Register both."""
    return [
        StoreSpec(
            name="sqlite",
            target="synapse_plugins.history.sqlite_store:SqliteStore",
            summary="a file, by default history.db in the state folder (sqlite:///path/to/file.db)",
            schemes=("sqlite",),
        ),
        StoreSpec(
            name="postgres",
            target="synapse_plugins.history.postgres_store:PostgresStore",
            summary="a PostgreSQL server, for a team (postgresql://user@host/database)",
            schemes=("postgresql", "postgres"),
            requires=("psycopg",),
            extra="postgres",
        ),
    ]


@hookimpl
def synapse_register_commands() -> list[CommandSpec]:
    """Register `runs`."""
    return [
        CommandSpec(
            name="runs",
            target="synapse_plugins.history.commands.group:runs",
            summary="Look at past and present runs, and stop, retry or clean them.",
        )
    ]
