"""The command group `storage`: its commands are listed from here and imported when they are called."""

from __future__ import annotations

from importlib import import_module

import click

from synapse_kernel.cli.app import LazyCommand
from synapse_kernel.errors import suggest

EPILOG = """\b
Examples:
  synapse-kernel storage ls s3://bucket/coco
  synapse-kernel storage cp -r data s3://bucket/coco/
  synapse-kernel storage sync s3://bucket/coco data --delete --dry-run
  synapse-kernel storage rm 's3://bucket/coco/*.tmp'
  synapse-kernel storage cat sftp://user@host/notes.txt
  synapse-kernel storage check storage://datasets

A URL is s3://bucket/key, gs://bucket/key, sftp://user@host/path, https://host/path or storage://NAME/key for
a NAME of the settings; anything without :// is a local path. *, ?, [a-z] and ** (any folders) stand for what
matches: quote them, or the shell reads them first. A key that is there is taken as it is written.
"""

COMMANDS = {
    "ls": ("listing:list_files", "List files and folders."),
    "cp": ("copying:copy_files", "Copy files and folders."),
    "sync": ("synchronising:sync_folders", "Make a folder hold the files of another."),
    "rm": ("removing:remove", "Delete files and folders."),
    "cat": ("reading:cat", "Print files."),
    "info": ("reading:info", "Show what is known of a file or folder."),
    "check": ("checking:check_storages", "Find out what works in a storage."),
}


class StorageGroup(click.Group):
    """Knows its commands by name; a command's module is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a stand-in for the command of this name."""
        if cmd_name not in COMMANDS:
            return None
        target, summary = COMMANDS[cmd_name]
        return LazyCommand(cmd_name, summary, lambda: _import(target))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is told with the nearest there is."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = suggest(args[0], COMMANDS)
            raise click.UsageError(f"There is no command 'storage {args[0]}'{near}", ctx) from error


def _import(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command: click.Command = getattr(import_module(f"{__package__}.{module}"), attribute)
    return command


@click.group(cls=StorageGroup, epilog=EPILOG)
def storage() -> None:
    """List, copy, synchronise, delete and check files in any storage."""
