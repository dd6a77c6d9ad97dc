"""What is written to a storage: a local file or bytes, seen to stay the same until they are there."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from synapse_kernel.storage.errors import StorageConfigError, StorageUploadError

Link: TypeAlias = Literal["hardlink", "reflink"]
"""How two files share a content: as one file of two names, or as two until either is changed."""


class Source:
    """
    A file or bytes to write.

    A provider reads it through `open` (or takes `path` or `data` as they are), and calls `check` when it has
    read all of it and nobody can see the new content yet.
    """

    __slots__ = ("_stamp", "data", "link", "local", "modified", "size")

    def __init__(
        self, local: str | None, data: bytes, status: os.stat_result | None, link: Link | None = None
    ) -> None:
        self.local = local
        """Where the local file lies; None for bytes."""
        self.data = data
        """The bytes; empty for a file."""
        self.link = link
        """How the target may share the file's content, for a provider that can; others copy."""
        self.size = status.st_size if status is not None else len(data)
        """In bytes."""
        self.modified = status.st_mtime if status is not None else None
        """When the file was changed last, in seconds since 1970 (UTC); None for bytes."""
        self._stamp = (status.st_size, status.st_mtime_ns, status.st_ino) if status is not None else None

    @classmethod
    def of_file(cls, path: str | os.PathLike[str], link: Link | None = None) -> Source:
        """
        Take a local file.

        Raises `OSError` if it cannot be looked at, `StorageConfigError` for a folder, a pipe or a device.
        """
        local = os.fspath(path)
        status = os.stat(local)  # noqa: PTH116 - on every file's way
        if not stat.S_ISREG(status.st_mode):
            raise StorageConfigError(f"{path} is not a file: a folder, a pipe, a socket or a device")
        return cls(local, b"", status, link)

    @classmethod
    def of_bytes(cls, data: bytes) -> Source:
        """Take bytes."""
        return cls(None, data, None)

    @property
    def path(self) -> Path | None:
        """The local file; None for bytes."""
        return None if self.local is None else Path(self.local)

    def open(self) -> BinaryIO:
        """Open it for reading from its beginning."""
        return io.BytesIO(self.data) if self.local is None else open(self.local, "rb")  # noqa: PTH123

    def check(self, opened: int | None = None) -> None:
        """
        Raise `StorageUploadError` if the file is not what it was when this was made.

        `opened` is the descriptor that all of it was read through, where there was one: what another file of
        the same name has become does not matter then.
        """
        if self.local is None:
            return
        try:
            now = os.stat(self.local if opened is None else opened)  # noqa: PTH116
        except FileNotFoundError:
            now = None
        if now is None or (now.st_size, now.st_mtime_ns, now.st_ino) != self._stamp:
            raise StorageUploadError(
                f"{self.local} changed while it was read: let its writer finish, and try again",
                transient=now is not None,
            )
