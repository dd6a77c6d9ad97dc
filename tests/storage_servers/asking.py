"""One request past any client that is under test."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import NamedTuple


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request, follow nothing, and return the answer with its headers' names in lower case."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, url[url.index("/", 8) :], body, dict(headers or {}))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
    finally:
        connection.close()
