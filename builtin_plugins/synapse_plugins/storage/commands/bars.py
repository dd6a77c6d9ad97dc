"""How far a transfer is, drawn on stderr while a person looks."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_kernel.storage.transfers import TransferProgress

_SECONDS_BETWEEN = 0.1


@contextmanager
def shown(label: str, *, wanted: bool = True) -> Iterator[Callable[[TransferProgress], None] | None]:
    """Show a bar for what is done inside, and give its listener; None where stderr is no terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[files]}"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None, files="")
    last = 0.0

    def listen(progress: TransferProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN and progress.files != progress.total_files:
            return
        last = now
        of = f"/{progress.total_files:,}" if progress.total_files is not None else ""
        files = f"{progress.files:,}{of} files"
        bar.update(task, completed=progress.bytes, total=progress.total_bytes, files=files)

    with bar:
        yield listen
