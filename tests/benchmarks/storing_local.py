"""Local storage: a tree of many small files written to it and read from it, against `cp -r`."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, paired, process

from synapse_kernel.storage import Storage
from synapse_plugins.storage.local.provider import LocalConfiguration, LocalProvider

FILES = 10_000
SIZE = 4096
PER_FOLDER = 100
PAIRS = 7
MEMORY = Path("/dev/shm")


def figures() -> list[Figure]:
    """Measure both ways, in memory where there is such a folder, and on disk."""
    found = []
    for name, parent in (("in memory", MEMORY), ("on disk", Path(tempfile.gettempdir()))):
        if parent.is_dir():
            with _folder(parent) as folder:
                found += _both_ways(name, folder)
    return found


def _both_ways(name: str, folder: Path) -> list[Figure]:
    source = folder / "source"
    for number in range(FILES):
        file = source / f"{number // PER_FOLDER:03}" / f"{number:05}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(SIZE))
    # Each copy goes into a folder of its own: to write where much was just deleted is slow on some disks.
    fresh = (str(folder / f"copy-{number}") for number in itertools.count())
    reading = _storage(str(source))

    def upload() -> None:
        _storage(next(fresh)).upload(source, "")

    def download() -> None:
        reading.download("", next(fresh))

    def hard_link() -> None:
        _storage(next(fresh)).upload(source, "", link="hardlink")

    def copy() -> None:
        process(["cp", "-r", str(source), next(fresh)])()

    return [
        _figure(f"local upload of {FILES:,} files, {name}", upload, copy),
        _figure(f"local download of {FILES:,} files, {name}", download, copy),
        _figure(f"local upload of them as hard links, {name}", hard_link, copy),
    ]


def _figure(name: str, call: Callable[[], object], copy: Callable[[], object]) -> Figure:
    ratio, base = paired(call, copy, PAIRS)
    return Figure(
        name, 1 / ratio, "x", "at least 0.8 x the rate of cp -r", 1 / ratio >= 0.8, f"cp: {base:.3f} s"
    )


def _storage(location: str) -> Storage:
    return Storage(LocalProvider(LocalConfiguration(location=location)))


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="synapse-storing-", dir=parent))
    try:
        yield made
    finally:
        shutil.rmtree(made)
