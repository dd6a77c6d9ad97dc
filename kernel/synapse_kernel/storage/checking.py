"""What one may do in a storage: each operation tried once, with nothing left behind."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageConnectionError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.storage import Storage

_CONTENT = b"written by a check of this storage; it may be deleted"
_MOST_READ = 1 << 16

_HINTS: tuple[tuple[type[StorageError], str], ...] = (
    (StorageConfigError, "see its URL, or its configuration in the settings"),
    (StorageNotFoundError, "see that the bucket, host and folder of its URL are there"),
    (StorageConnectionError, "see that the host, the port and the network are right"),
)
_RIGHTS = {
    "list": "give these credentials the right to list it",
    "write": "give these credentials the right to write, or use it for reading only",
    "read": "give these credentials the right to read files",
    "delete": "give these credentials the right to delete files",
}


class CheckStep(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that was tried."""

    operation: Literal["list", "write", "read", "delete"]
    ok: bool | None
    """None if it could not be tried, because another one failed."""
    reason: str | None = None
    """Why it failed, or could not be tried."""
    hint: str | None = None
    """What to do about it."""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one may do in a storage."""

    url: str
    steps: tuple[CheckStep, ...]
    left_behind: str | None = None
    """The key of the file that was written and could not be deleted."""

    @property
    def ok(self) -> bool:
        """Whether everything works."""
        return all(step.ok for step in self.steps)

    @property
    def readable(self) -> bool:
        """Whether it can be listed and, as far as there was something to read, read."""
        return all(step.ok is not False for step in self.steps if step.operation in {"list", "read"})


def check(storage: Storage) -> CheckReport:
    """
    Try to list, write, read and delete below the root of a storage.

    What is written is a small file with a name of its own, deleted again. Where writing is not allowed, one
    of the files that are there is read instead. Raises nothing that a step can tell.
    """
    return _Check(storage).run()


class _Check:
    """One check of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._key = f".synapse-check-{os.urandom(6).hex()}"
        self._listed: Entry | None = None
        self._is_missing = False
        self._is_written = False

    def run(self) -> CheckReport:
        """Try each operation."""
        try:
            steps = self._steps()
        except BaseException:
            # Ctrl-C too leaves nothing behind.
            if self._is_written:
                with contextlib.suppress(StorageError):
                    self._storage.delete(self._key)
            raise
        left = self._key if self._is_written and not steps[3].ok else None
        return CheckReport(url=self._storage.url, steps=steps, left_behind=left)

    def _steps(self) -> tuple[CheckStep, ...]:
        listing = self._tried("list", self._list)
        if self._is_missing:
            # To write would make the folder.
            why = "there is no such folder"
            rest = (CheckStep(operation=name, ok=None, reason=why) for name in ("write", "read", "delete"))
            return (listing, *rest)
        writing = self._tried("write", self._write)
        return (listing, writing, self._reading(), self._deleting())

    def _list(self) -> None:
        try:
            for entry in self._storage.list():
                if not entry.is_folder:
                    self._listed = entry
                    return
        except StorageNotFoundError:
            self._is_missing = True
            raise

    def _write(self) -> None:
        self._is_written = True
        try:
            self._storage.write_bytes(self._key, _CONTENT)
        except StorageError:
            # It may be there all the same, if what broke off was the answer.
            self._is_written = self._is_there()
            raise

    def _reading(self) -> CheckStep:
        if self._is_written:
            return self._tried("read", self._read_own)
        if self._listed is not None:
            return self._tried("read", self._read_listed)
        return CheckStep(operation="read", ok=None, reason="nothing could be written, and no file is there")

    def _read_own(self) -> None:
        if self._storage.read_bytes(self._key) != _CONTENT:
            raise StorageError("what was read is not what was written")

    def _read_listed(self) -> None:
        entry = cast("Entry", self._listed)
        length = min(entry.size or 1, _MOST_READ)
        self._storage.read_bytes(entry.key, length=length)

    def _deleting(self) -> CheckStep:
        if not self._is_written:
            return CheckStep(operation="delete", ok=None, reason="nothing could be written")
        return self._tried("delete", self._delete)

    def _delete(self) -> None:
        self._storage.delete(self._key)
        if self._is_there():
            raise StorageError("the file is still there")

    def _is_there(self) -> bool:
        try:
            return self._storage.exists(self._key)
        except StorageError:
            return False

    def _tried(
        self, operation: Literal["list", "write", "read", "delete"], call: Callable[[], None]
    ) -> CheckStep:
        try:
            call()
        except StorageError as error:
            return CheckStep(operation=operation, ok=False, reason=error.reason, hint=_hint(operation, error))
        return CheckStep(operation=operation, ok=True)


def _hint(operation: str, error: StorageError) -> str | None:
    if isinstance(error, StoragePermissionError):
        return _RIGHTS[operation]
    return next((hint for kind, hint in _HINTS if isinstance(error, kind)), None)
