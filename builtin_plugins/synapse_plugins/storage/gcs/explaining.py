"""What an error of Google's client means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import (  # type: ignore[import-untyped]
    DataCorruption,
    InvalidResponse,
)

from synapse_kernel.storage.errors import (
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
)
from synapse_kernel.storage.explaining import explain_os_error, reason_of

if TYPE_CHECKING:
    Meaning = tuple[type[StorageError], str, bool]

NO_KEYS = (
    "no credentials were found: give credentials (a file's path or its JSON), or set "
    "GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login (anonymous: true asks for "
    "public data without any)"
)
_WRITING = {"write", "upload", "list"}


def explain(error: Exception, operation: str, key: str | None, *, bucket: str, service: str) -> StorageError:
    """Return the storage's error for one of Google's client."""
    found = _meaning(error, operation, bucket, service)
    if found is None:
        return explain_os_error(error, "gcs", operation, key)
    kind, said, transient = found
    return kind(said, provider="gcs", operation=operation, key=key, transient=transient)


def passes(error: Exception) -> bool:
    """Tell whether the same request may work in a moment."""
    found = _meaning(error, "", "", "")
    return found is not None and found[2]


def _meaning(error: Exception, operation: str, bucket: str, service: str) -> Meaning | None:
    if isinstance(error, (api.GoogleAPICallError, InvalidResponse)):
        return _answered(error, operation, bucket, service)
    if isinstance(error, DataCorruption):
        return StorageIntegrityError, "what arrived does not have the checksum of the object", True
    if isinstance(error, auth.DefaultCredentialsError):
        return StoragePermissionError, NO_KEYS, False
    if isinstance(error, auth.RefreshError):
        return (
            StoragePermissionError,
            "the credentials are refused, or not valid any more: get new ones",
            False,
        )
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        return _meaning(error.cause, operation, bucket, service)
    if isinstance(error, (requests.RequestException, auth.TransportError, urllib3.exceptions.HTTPError)):
        return _unanswered(error, service)
    return None


def _answered(
    error: api.GoogleAPICallError | InvalidResponse, operation: str, bucket: str, service: str
) -> Meaning:
    status = int(error.response.status_code if isinstance(error, InvalidResponse) else error.code or 0)
    if status == 404 and (operation in _WRITING or "bucket does not exist" in str(error)):
        return StorageNotFoundError, f"there is no bucket {bucket!r} at {service}: check bucket_name", False
    if status == 404:
        return StorageNotFoundError, "there is nothing under this key", False
    if status == 401:
        return StoragePermissionError, "the credentials are refused: check credentials", False
    if status == 403:
        return StoragePermissionError, "the credentials do not allow this", False
    if status in {304, 412}:
        return StorageIntegrityError, "it changed while it was read", False
    if status in {408, 429} or status >= 500:
        return StorageConnectionError, f"{service} is overloaded ({status})", True
    return StorageError, f"{service} refused it ({status})", False


def _unanswered(error: Exception, service: str) -> Meaning:
    text = f"{error!r} {error.__cause__!r}"
    if "NameResolutionError" in text or "Name or service not known" in text or "getaddrinfo" in text:
        said, transient = f"the host of {service} is not known: check endpoint_url", False
    elif "Connection refused" in text:
        said, transient = f"{service} refuses connections: does a server run there?", False
    elif isinstance(error, requests.exceptions.SSLError):
        said, transient = f"the certificate of {service} is not trusted", False
    elif isinstance(error, requests.Timeout) or "timed out" in text:
        said, transient = f"{service} did not answer within the time-out", True
    elif isinstance(error, (requests.ConnectionError, urllib3.exceptions.ProtocolError)):
        said, transient = f"the connection to {service} broke off", True
    else:
        said, transient = f"no answer came: {reason_of(error)}", False
    return StorageConnectionError, said, transient
