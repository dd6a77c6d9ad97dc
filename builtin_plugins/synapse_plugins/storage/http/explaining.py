"""What a status, or a failure of the connection, means."""

from __future__ import annotations

import ssl
from http import client

from urllib3 import exceptions

from synapse_kernel.storage.errors import (
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StoragePermissionError,
    StorageUploadError,
)
from synapse_plugins.storage.http.client import WRITES, RefusedError


def explained(error: Exception) -> Exception:
    """Return the storage's error for one of the client's; another error as it is."""
    if isinstance(error, RefusedError):
        return _refused(error)
    if isinstance(error, exceptions.ProxyError):
        return StorageConnectionError(f"the proxy cannot be used: {_innermost(error)}")
    if isinstance(error, exceptions.NameResolutionError):
        return StorageConnectionError("the host is not known: look at the URL")
    if isinstance(error, exceptions.NewConnectionError):
        return StorageConnectionError(f"no connection: {_innermost(error)}", transient=True)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return StorageConnectionError("the host does not answer: look at the URL, and at what is between")
    if isinstance(error, exceptions.ReadTimeoutError):
        return StorageConnectionError("no answer within the time-out", transient=True)
    if isinstance(error, exceptions.SSLError):
        return _unprotected(error)
    if isinstance(error, exceptions.ProtocolError):
        return _broken_off(error)
    return error


def _refused(error: RefusedError) -> Exception:
    """Return what a status means: a storage's error, or the operating system's that says the same."""
    status, said = error.status, f"the server answered {error.reason}"
    if status in {404, 410}:
        return FileNotFoundError()
    if status == 401:
        ask = "refuses these credentials" if error.known else "wants credentials"
        return StoragePermissionError(
            f"the server {ask} ({error.reason}): look at `username` and `password`, `token` or `headers`"
        )
    if status == 403:
        return StoragePermissionError(f"the server does not allow it ({error.reason})")
    if status == 407:
        return StoragePermissionError(f"the proxy wants credentials ({error.reason})")
    if status == 412:
        return StorageIntegrityError("it is not what it was a moment ago: somebody else wrote it")
    if status == 413:
        return StorageUploadError(f"the server takes no file of this size ({error.reason})")
    if status == 414:
        return StorageError(f"the key is too long for this server ({error.reason})")
    if status == 507:
        return StorageUploadError(f"no space is left on the server ({error.reason})")
    if status in {405, 501} and error.method in WRITES:
        kind = StorageUploadError if error.method == "PUT" else StorageError
        return kind(f"the server takes no writes: it answered {error.method} with {error.reason}")
    if status in {408, 423, 429} or (status >= 500 and status not in {501, 505}):
        return StorageConnectionError(said, transient=True)
    return StorageError(said)


def _unprotected(error: exceptions.SSLError) -> StorageError:
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StorageConnectionError(
            f"the server's certificate is not to be trusted: {cause.verify_message or cause.reason}. "
            "A certificate authority of your own is named by the variable SSL_CERT_FILE"
        )
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return StorageConnectionError("the connection broke off: TLS ended early", transient=True)
    reason = getattr(cause, "reason", None) or _innermost(error)
    return StorageConnectionError(f"TLS failed: {reason}: does this port speak https?")


def _broken_off(error: exceptions.ProtocolError) -> StorageError:
    cause = _cause(error)
    if isinstance(cause, client.BadStatusLine) and not isinstance(cause, client.RemoteDisconnected):
        return StorageConnectionError("what answers does not speak HTTP: look at the port, and at https")
    return StorageConnectionError(f"the connection broke off: {_innermost(error)}", transient=True)


def _cause(error: BaseException) -> BaseException:
    """Return what lies under an error: clients give it as an argument or as its cause."""
    while True:
        inner = [*(part for part in error.args if isinstance(part, BaseException)), error.__cause__]
        below = next((part for part in inner if part is not None), None)
        if below is None:
            return error
        error = below


def _innermost(error: BaseException) -> str:
    cause = _cause(error)
    text = getattr(cause, "strerror", None) or str(cause)
    return (text.strip().splitlines() or [type(cause).__name__])[0]
