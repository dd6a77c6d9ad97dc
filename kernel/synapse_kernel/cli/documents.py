"""What commands print: one JSON document for scripts, tables for people."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.text import Text

    from synapse_kernel.cli.app import AppState


def state_of(ctx: click.Context) -> AppState:
    """Return what the global options made."""
    from synapse_kernel.cli.app import AppState

    return ctx.find_root().ensure_object(AppState)


def tell_error(text: object) -> None:
    """Say on stderr what went wrong."""
    click.echo(f"{click.style('Error', fg='red', bold=True)}: {text}", err=True)


def tell_warning(text: object) -> None:
    """Say on stderr what may surprise."""
    click.echo(f"{click.style('Warning', fg='yellow', bold=True)}: {text}", err=True)


def dump(document: object) -> str:
    """Return a document as indented JSON; what JSON cannot hold is shown as its ``repr``, NaN as null."""
    import msgspec

    from synapse_kernel.serialization import to_jsonable

    return msgspec.json.format(msgspec.json.encode(to_jsonable(document)), indent=2).decode()


def promise_json(state: AppState) -> None:
    """Let the errors of this command be JSON on stdout too."""
    state.json_to = lambda document: click.echo(dump(document))


class ReservedStdout:
    """
    Keeps stdout for one document while an action runs.

    What anything else prints there, C code included, goes to stderr; `descriptor` is the real stdout.
    """

    def __init__(self, state: AppState) -> None:
        sys.stdout.flush()
        self.descriptor = os.dup(1)
        os.dup2(2, 1)
        state.json_to = self.write

    def write(self, document: object) -> None:
        """Write a document to the real stdout."""
        self._write(dump(document) + "\n")

    def write_line(self, document: object) -> None:
        """Write a document to the real stdout as one line."""
        import msgspec

        from synapse_kernel.serialization import to_jsonable

        self._write(msgspec.json.encode(to_jsonable(document)).decode() + "\n")

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self.descriptor, data) :]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows under dimmed headings, fitted to the terminal; elsewhere each row is one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
