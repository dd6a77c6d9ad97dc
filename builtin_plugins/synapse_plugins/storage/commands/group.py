"""The command group `storage`: its commands are listed from here and imported when they are called."""

from __future__ import annotations

import click

from synapse_kernel.cli.lazy import LazyGroup

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
    "ls": (f"{__package__}.listing:list_files", "List files and folders."),
    "cp": (f"{__package__}.copying:copy_files", "Copy files and folders."),
    "sync": (f"{__package__}.synchronising:sync_folders", "Make a folder hold the files of another."),
    "rm": (f"{__package__}.removing:remove", "Delete files and folders."),
    "cat": (f"{__package__}.reading:cat", "Print files."),
    "info": (f"{__package__}.reading:info", "Show what is known of a file or folder."),
    "check": (f"{__package__}.checking:check_storages", "Find out what works in a storage."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=EPILOG)
def storage() -> None:
    """List, copy, synchronise, delete and check files in any storage."""
