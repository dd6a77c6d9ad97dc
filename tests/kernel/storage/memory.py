"""A bucket in memory: a provider without folders, whose order, checksums and failures a test decides."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from synapse_kernel.storage import Configuration, Entry, Provider, RetryPolicy, Source, Storage


class MemoryProvider(Provider):
    """Keeps contents in a dict; `requests` are the operations that were asked for."""

    name: ClassVar[str] = "memory"
    configuration_type: ClassVar[type[Configuration]] = Configuration
    concurrency: ClassVar[int] = 4
    has_folders: ClassVar[bool] = False

    def __init__(self, *, in_order: bool = True, checksums: str = "", listed_checksums: bool = True) -> None:
        super().__init__(Configuration())
        self.files: dict[str, tuple[bytes, float]] = {}
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda operation, key: None
        """Called before each operation, with its name and key; what it raises, the operation raises."""
        self._in_order = in_order
        self._checksums = checksums
        self._listed_checksums = listed_checksums
        self._lock = threading.Lock()

    def asked(self, operation: str) -> list[str]:
        """Return the keys that an operation was asked for, sorted."""
        return sorted(key for name, key in self.requests if name == operation)

    def _ask(self, operation: str, key: str) -> None:
        self.before(operation, key)
        with self._lock:
            self.requests.append((operation, key))

    def _entry(self, key: str, *, listed: bool = False) -> Entry:
        data, modified = self.files[key]
        known = bool(self._checksums) and (self._listed_checksums or not listed)
        sums = {self._checksums: hashlib.new(self._checksums, data).hexdigest()} if known else {}
        return Entry(key=key, size=len(data), modified=modified, checksums=sums)

    def url_of(self, key: str) -> str:
        return f"memory://{id(self)}/{key}"

    def stat(self, key: str) -> Entry:
        self._ask("stat", key)
        if key in self.files:
            return self._entry(key)
        if not key or any(name.startswith(f"{key}/") for name in self.files):
            return Entry(key=key, is_folder=True)
        raise FileNotFoundError(key)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        self._ask("entries", folder)
        prefix = f"{folder}/" if folder else ""
        keys = sorted(self.files, reverse=not self._in_order)
        told = set()
        for key in keys:
            if not key.startswith(prefix):
                continue
            below, slash, _ = key[len(prefix) :].partition("/")
            if recursive or not slash:
                yield self._entry(key, listed=True)
            elif below not in told:
                told.add(below)
                yield Entry(key=f"{prefix}{below}", is_folder=True)

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        self._ask("read", entry.key)
        return self._content(entry.key)[start : start + length]

    def get_file(self, entry: Entry, target: Path, told: Callable[[int], None]) -> None:
        self._ask("get", entry.key)
        target.write_bytes(self._content(entry.key))
        told(entry.size or 0)

    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        self._ask("put", key)
        with source.open() as file:
            data = file.read()
        told(len(data))
        source.check()
        with self._lock:
            self.files[key] = (data, time.time())

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._ask("delete", key)
            self.files.pop(key, None)

    def copy_file(self, source: str, target: str) -> bool:
        self._ask("copy", target)
        self.files[target] = (self._content(source), time.time())
        return True

    def _content(self, key: str) -> bytes:
        if key not in self.files:
            raise FileNotFoundError(key)
        return self.files[key][0]


def in_memory(
    files: dict[str, str] | None = None, *, modified: float | None = None, **more: object
) -> Storage:
    """Return a storage in memory that holds some files."""
    provider = MemoryProvider(**more)  # type: ignore[arg-type]
    now = time.time() if modified is None else modified
    provider.files = {key: (text.encode(), now) for key, text in (files or {}).items()}
    return Storage(provider, retries=RetryPolicy(attempts=1))


def texts_of(storage: Storage) -> dict[str, str]:
    """Return the contents of a storage in memory."""
    provider = storage.provider
    assert isinstance(provider, MemoryProvider)
    return {key: data.decode() for key, (data, _) in sorted(provider.files.items())}
