"""What an error of obstore means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
)
from synapse_kernel.storage.explaining import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ODD_KEY = re.compile(r'Path "(.*?)"(?: contained|: Encountered)', re.DOTALL)
_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestLimitExceeded"}

_PLACES_OF_KEYS = (
    "/latest/api/token", "/latest/meta-data", "AssumeRoleWithWebIdentity", "169.254.170.",
)  # fmt: skip

NO_KEYS = (
    "no credentials were found: give access_key and secret_key, or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or run: aws configure (anonymous: true asks for public data without any)"
)
_REFUSED = "the credentials are refused ({code}): check access_key and secret_key"
_OLD = "the credentials are not valid any more ({code}): get new ones"
_ELSEWHERE = "the bucket {bucket!r} is in another region: give region_name"

_BY_CODE: Mapping[str, tuple[type[StorageError], str]] = {
    "NoSuchBucket": (StorageNotFoundError, "there is no bucket {bucket!r} at {service}: check bucket_name"),
    "InvalidAccessKeyId": (StoragePermissionError, _REFUSED),
    "SignatureDoesNotMatch": (StoragePermissionError, _REFUSED),
    "InvalidSecurity": (StoragePermissionError, _REFUSED),
    "ExpiredToken": (StoragePermissionError, _OLD),
    "InvalidToken": (StoragePermissionError, _OLD),
    "TokenRefreshRequired": (StoragePermissionError, _OLD),
    "RequestTimeTooSkewed": (
        StoragePermissionError,
        "{service} finds the clock of this machine wrong: set its time",
    ),
    "PermanentRedirect": (StorageConfigError, _ELSEWHERE),
    "AuthorizationHeaderMalformed": (StorageConfigError, _ELSEWHERE),
    "IllegalLocationConstraintException": (StorageConfigError, _ELSEWHERE),
    "KeyTooLongError": (StorageConfigError, "the key has more bytes than the service takes"),
}
_BY_STATUS: Mapping[int, tuple[type[StorageError], str]] = {
    301: (StorageConfigError, _ELSEWHERE),
    307: (StorageConfigError, _ELSEWHERE),
    401: (StoragePermissionError, _REFUSED),
    403: (StoragePermissionError, "the credentials are refused, or do not allow this ({code})"),
    404: (StorageNotFoundError, "there is nothing under this key"),
    412: (StorageIntegrityError, "it changed while it was read"),
}


def explain(error: Exception, operation: str, key: str | None, *, bucket: str, service: str) -> StorageError:
    """Return the storage's error for one of obstore's, which tells all that it knows in its text."""
    text = str(error)
    if isinstance(error, ValueError) and "parse path" in text:
        said = "a key cannot hold control characters, such as line breaks"
        return StorageConfigError(said, provider="s3", operation=operation, key=key)
    if not type(error).__module__.startswith("obstore") and "Debug source" not in text:
        return explain_os_error(error, "s3", operation, key)
    kind, said, transient = _meaning(text, bucket, service)
    return kind(said, provider="s3", operation=operation, key=key, transient=transient)


def _meaning(text: str, bucket: str, service: str) -> tuple[type[StorageError], str, bool]:
    code, status = _first(_CODE, text), int(_first(_STATUS, text) or 0)
    if any(place in text for place in _PLACES_OF_KEYS):
        return StoragePermissionError, NO_KEYS, False
    if "InvalidPath" in text:
        return (
            StorageError,
            f"the bucket holds an object named {_first(_ODD_KEY, text)!r}, which is no key (a part of it is "
            "empty, '.' or '..'), and what lies beside it cannot be listed: rename it with another tool",
            False,
        )
    if code in _BUSY or status >= 500 or status == 429:
        return StorageConnectionError, f"{service} is overloaded ({code or status})", True
    if "redirect without LOCATION" in text:
        code = "PermanentRedirect"
    found = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if found is not None:
        return found[0], found[1].format(bucket=bucket, service=service, code=code or status), False
    return _connection(text, service) or (StorageError, _first_line(text, code), False)


def _connection(text: str, service: str) -> tuple[type[StorageError], str, bool] | None:
    if "dns error" in text or "failed to lookup" in text:
        said, transient = f"the host of {service} is not known: check endpoint_url", False
    elif "ConnectionRefused" in text or "Connection refused" in text:
        said, transient = f"{service} refuses connections: does a server run there?", False
    elif "certificate" in text.lower():
        said, transient = f"the certificate of {service} is not trusted", False
    elif "TimedOut" in text or "timed out" in text:
        said, transient = f"{service} did not answer within the time-out", True
    elif "HTTP error" in text or "reqwest" in text or "hyper" in text:
        said, transient = f"the connection to {service} broke off", True
    else:
        return None
    return StorageConnectionError, said, transient


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _first_line(text: str, code: str) -> str:
    line = text.strip().partition("\n")[0].partition(": <?xml")[0].removeprefix("Generic S3 error: ")
    # What follows a question mark in a URL may be a signature.
    return re.sub(r"\?\S+", "", line) + (f" ({code})" if code else "")
