"""What the headers of an answer tell of a file."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import IO, TYPE_CHECKING

from synapse_kernel.storage.errors import StorageIntegrityError
from synapse_kernel.storage.providers import Entry
from synapse_plugins.storage.http.listings import time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_DIGESTS = {"md5": "md5", "sha-256": "sha256", "sha-512": "sha512"}
PIECE = 1 << 18
"""How many bytes are read at once."""


def entry_of(key: str, answer: BaseHTTPResponse) -> Entry:
    """Return the entry of a file that was asked for, as a whole or a part of it."""
    size = answer.headers.get("Content-Length", "")
    if answer.status in {206, 416}:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        size = found[2] if found else ""
    return Entry(
        key=key,
        size=int(size) if size.isdecimal() else None,
        modified=time_of(answer.headers.get("Last-Modified")),
        etag=answer.headers.get("ETag"),
        checksums=checksums_of(answer),
    )


def checksums_of(answer: BaseHTTPResponse) -> dict[str, str]:
    """Return the checksums of the whole file, of ``Repr-Digest``, ``Digest`` or ``Content-MD5``."""
    found: dict[str, str] = {}
    if answer.status == 200 and "Content-MD5" in answer.headers:
        found |= _digits("md5", answer.headers["Content-MD5"])
    for header in ("Digest", "Repr-Digest"):
        for part in answer.headers.get(header, "").split(","):
            name, _, value = part.strip().partition("=")
            found |= _digits(_DIGESTS.get(name.lower(), ""), value.strip(":"))
    return found


def check_same(entry: Entry, answer: BaseHTTPResponse) -> None:
    """Raise `StorageIntegrityError` if an answer is about another content than the entry."""
    now = entry_of(entry.key, answer)
    if entry.etag is not None and now.etag is not None:
        # What compresses on the way calls the same content weakly the same.
        same = entry.etag.removeprefix("W/") == now.etag.removeprefix("W/")
    else:
        same = entry.modified is None or now.modified is None or entry.modified == now.modified
    if not same or (entry.size is not None and now.size is not None and entry.size != now.size):
        raise StorageIntegrityError("it changed since it was looked at: begin again")


def check_range(answer: BaseHTTPResponse, start: int) -> None:
    """Raise `StorageIntegrityError` if an answer is not the part that was asked for."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None or found[1] is None or int(found[1]) != start:
        raise StorageIntegrityError("the server sent another part of it than was asked for")


def stamp_of(entry: Entry) -> str | None:
    """Return what an entry's content is known by in ``If-Range``; None if nothing says which it is."""
    if entry.etag is not None and not entry.etag.startswith("W/"):
        return entry.etag
    if entry.modified is None:
        return None
    from email.utils import formatdate

    return formatdate(entry.modified, usegmt=True)


def take(answer: BaseHTTPResponse, length: int) -> bytes:
    """Return the next bytes of an answer, fewer only at its end."""
    taken = io.BytesIO()
    while taken.tell() < length and (piece := answer.read(min(4 * PIECE, length - taken.tell()))):
        taken.write(piece)
    return taken.getvalue()


def pieces(content: BaseHTTPResponse | IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of an answer, or of a file."""
    while piece := content.read(PIECE):
        yield piece


def is_folder(answer: BaseHTTPResponse) -> bool:
    """Tell whether a server says that this is a folder."""
    return _kind(answer) == "httpd/unix-directory"


def is_json(answer: BaseHTTPResponse) -> bool:
    """Tell whether an answer is JSON."""
    return _kind(answer) == "application/json"


def is_html(answer: BaseHTTPResponse) -> bool:
    """Tell whether an answer is a page."""
    return _kind(answer) in {"text/html", "application/xhtml+xml"}


def _kind(answer: BaseHTTPResponse) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _digits(name: str, encoded: str) -> dict[str, str]:
    try:
        return {name: base64.b64decode(encoded, validate=True).hex()} if name and encoded else {}
    except binascii.Error:
        return {}
