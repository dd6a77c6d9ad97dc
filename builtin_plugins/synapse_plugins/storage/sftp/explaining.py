"""What an error of SSH or SFTP means for a storage."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import asyncssh

from synapse_kernel.storage.errors import (
    StorageConnectionError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
)
from synapse_kernel.storage.explaining import explain_os_error, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LOST = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    ConnectionError,
)
"""What says that a connection is of no more use; another one may be."""

NOT_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_NO_SPACE = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)

_MEANT: Mapping[type[Exception], tuple[type[StorageError], str]] = {
    asyncssh.SFTPNoSuchFile: (StorageNotFoundError, "there is nothing under this key"),
    asyncssh.SFTPNoSuchPath: (StorageNotFoundError, "there is nothing under this key"),
    asyncssh.SFTPPermissionDenied: (
        StoragePermissionError,
        "not allowed: the user whom the server knows may not do this there",
    ),
    asyncssh.SFTPWriteProtect: (StoragePermissionError, "not allowed: it can only be read"),
    asyncssh.SFTPBadMessage: (
        StorageError,
        "the server takes no such name: a part of it may be too long, or hold what it does not allow",
    ),
    asyncssh.SFTPOpUnsupported: (StorageError, "this server cannot do this"),
}


def explain_sftp_error(error: Exception, operation: str, key: str | None) -> StorageError:
    """Return the storage's error for one of asyncssh's or of the operating system."""
    if isinstance(error, _NO_SPACE):
        error = OSError(errno.ENOSPC, "no space")
    if isinstance(error, LOST):
        return StorageConnectionError(
            f"the connection broke off: {reason_of(error)}",
            provider="sftp",
            operation=operation,
            key=key,
            transient=True,
        )
    for kind, (meant, text) in _MEANT.items():
        if isinstance(error, kind):
            return meant(text, provider="sftp", operation=operation, key=key)
    if isinstance(error, asyncssh.SFTPError):
        text = f"the server refuses it, and says no more than {error.reason!r}"
        return StorageError(text, provider="sftp", operation=operation, key=key)
    return explain_os_error(error, "sftp", operation, key)
