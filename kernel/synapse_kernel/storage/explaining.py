"""What an error of the operating system, of fsspec or of a socket means for a storage."""

from __future__ import annotations

import errno
import socket

from synapse_kernel.storage.errors import (
    StorageConnectionError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain_os_error(error: Exception, provider: str, operation: str, key: str | None) -> StorageError:
    """
    Return the storage's error for an exception.

    One that is a `StorageError` already is given the provider, operation and key that it lacks.
    """
    if isinstance(error, StorageError):
        return _completed(error, provider, operation, key)
    reason = reason_of(error)

    def made(kind: type[StorageError], text: str, *, transient: bool = False) -> StorageError:
        return kind(text, provider=provider, operation=operation, key=key, transient=transient)

    if isinstance(error, FileNotFoundError):
        return made(StorageNotFoundError, "there is nothing under this key")
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        kind = "folder" if isinstance(error, IsADirectoryError) else "file"
        return made(StorageError, f"a {kind} stands there or above it")
    if isinstance(error, PermissionError):
        return made(StoragePermissionError, f"not allowed: {reason}")
    if isinstance(error, socket.gaierror):
        return made(StorageConnectionError, f"the host is not known: {reason}")
    if isinstance(error, TimeoutError):
        return made(StorageConnectionError, "no answer within the time-out", transient=True)
    if isinstance(error, (ConnectionError, EOFError)):
        return made(StorageConnectionError, f"the connection broke off: {reason}", transient=True)
    if isinstance(error, OSError) and error.errno in _FULL:
        return made(StorageUploadError, "no space is left at the target")
    return made(StorageError, reason)


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, or its type."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _completed(error: StorageError, provider: str, operation: str, key: str | None) -> StorageError:
    if error.provider and error.operation:
        return error
    return type(error)(
        error.reason,
        provider=error.provider or provider,
        operation=error.operation or operation,
        key=error.key or key,
        transient=error.transient,
    )
