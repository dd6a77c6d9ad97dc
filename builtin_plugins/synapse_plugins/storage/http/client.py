"""Requests to one web server: who asks, where a redirect leads, and how long to wait."""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
import threading
import time
import urllib.request
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import urllib3

from synapse_kernel import __version__
from synapse_kernel.storage.errors import StorageConnectionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from urllib.parse import SplitResult

    from urllib3.response import BaseHTTPResponse

    from synapse_plugins.storage.http.configuration import HttpConfiguration

    Body = Callable[[], Iterable[bytes]]

CONNECTIONS = 32
_CONNECT_SECONDS = 10.0
_MOST_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_WAIT_SECONDS = 10.0
"""How long in all a request waits where the server asks for it."""
_SHORTEST_WAIT = 0.2
_REST = 1 << 16
"""Of an answer nobody reads on, this much is read after all, and its connection kept."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
CANNOT = {405, 501}
"""The statuses of a method that a server does not have."""
WRITES = {"PUT", "DELETE", "MKCOL", "MOVE", "COPY"}


class RefusedError(Exception):
    """The server answered with a status that the caller may know what to do about."""

    def __init__(self, method: str, response: BaseHTTPResponse, *, known: bool) -> None:
        self.method = method
        self.status = response.status
        self.reason = " ".join(str(part) for part in (response.status, response.reason) if part)
        self.known = known
        """Whether credentials were sent."""
        super().__init__(f"{method}: {self.reason}")


class Client:
    """The connections to a web server; any thread may use them."""

    def __init__(self, configuration: HttpConfiguration) -> None:
        self._base = configuration.base_url
        self._query = configuration.query.get_secret_value() if configuration.query is not None else ""
        self._secrets = _credentials(configuration)
        self._timeout = urllib3.Timeout(
            connect=min(_CONNECT_SECONDS, configuration.timeout), read=configuration.timeout
        )
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._lock = threading.Lock()

    def url_of(self, key: str, *, folder: bool = False) -> str:
        """Return the URL of a key, without the query; a folder's ends with a slash."""
        # A listing may have shown a name that is no text: it goes back as the bytes it was.
        path = quote(key, errors="surrogateescape")
        return f"{self._base}/{path}{'/' if folder and key else ''}"

    @contextlib.contextmanager
    def asking(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        *,
        folder: bool = False,
        body: Body | None = None,
        good: Iterable[int] = (200, 201, 204),
    ) -> Iterator[BaseHTTPResponse]:
        """
        Send a request and give the answer, its content still to be read.

        A redirect is followed. Raises `RefusedError` for a status that is not good, `IsADirectoryError` where
        the server leads from the key to its folder.
        """
        response = self._answer(method, self.url_of(key, folder=folder), headers, body)
        try:
            if response.status not in good:
                raise RefusedError(method, response, known=bool(self._secrets))
            yield response
        finally:
            _let_go(response)

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.clear()

    def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Body | None
    ) -> BaseHTTPResponse:
        waited = 0.0
        while True:
            response = self._followed(method, url, headers, body)
            if response.status not in {429, 503}:
                return response
            wait = _asked_wait(response)
            if wait is None:
                return response
            if waited + wait > _WAIT_SECONDS:
                _let_go(response)
                raise StorageConnectionError(
                    f"the server is busy ({response.status}), and asks to wait {wait:.0f} s: try again then"
                )
            _let_go(response)
            time.sleep(max(wait, _SHORTEST_WAIT))
            waited += max(wait, _SHORTEST_WAIT)

    def _followed(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Body | None
    ) -> BaseHTTPResponse:
        first = at = urlsplit(url)
        target = f"{url}?{self._query}" if self._query else url
        for _ in range(_MOST_REDIRECTS):
            # What lets in here is nobody else's.
            ours = self._secrets if _is_ours(first, at) else {}
            response = self._pool(at).request(
                method,
                target,
                headers={
                    "User-Agent": f"synapse-kernel/{__version__}",
                    "Accept-Encoding": "identity",
                    **(headers or {}),
                    **ours,
                },
                body=body() if body is not None else None,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            _let_go(response)
            target = urljoin(target, location)
            at = self._checked(method, at, urlsplit(target), response.status)
        raise StorageError(f"the server redirects more than {_MOST_REDIRECTS} times, the last to {shown(at)}")

    def _checked(self, method: str, before: SplitResult, to: SplitResult, status: int) -> SplitResult:
        if unquote(to.path) == f"{unquote(before.path)}/":
            raise IsADirectoryError(before.path)
        if to.scheme not in _DEFAULT_PORTS or not to.hostname:
            raise StorageError(f"the server redirects to {shown(to)}, which is no web address")
        if before.scheme == "https" and to.scheme == "http":
            raise StorageConnectionError(
                f"the server redirects from https to {shown(to)}, which nothing protects: "
                "if that is what you want, use that address itself"
            )
        if method in WRITES and status not in {307, 308}:
            raise StorageError(
                f"the server redirects {method} to {shown(to)}, where it may mean something else: "
                "give the address it redirects to as `base_url`"
            )
        return to

    def _pool(self, at: SplitResult) -> urllib3.PoolManager:
        origin = (at.scheme, at.netloc)
        with self._lock:
            if origin not in self._proxies:
                self._proxies[origin] = _proxy_for(at)
            proxy = self._proxies[origin]
            if proxy not in self._pools:
                self._pools[proxy] = (
                    urllib3.PoolManager(maxsize=CONNECTIONS)
                    if proxy is None
                    else urllib3.proxy_from_url(proxy, maxsize=CONNECTIONS)
                )
            return self._pools[proxy]


def shown(url: SplitResult) -> str:
    """Return an address without what may be secret in it."""
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


def _credentials(configuration: HttpConfiguration) -> dict[str, str]:
    given = {name: secret.get_secret_value() for name, secret in configuration.headers.items()}
    if any(name.lower() == "authorization" for name in given):
        return given
    name, password = configuration.username, ""
    if configuration.token is not None:
        return {"Authorization": f"Bearer {configuration.token.get_secret_value()}", **given}
    if configuration.password is not None:
        password = configuration.password.get_secret_value()
    if name is None:
        name, password = _known_to_netrc(urlsplit(configuration.base_url).hostname or "")
    if name is None:
        return given
    pair = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}", **given}


def _known_to_netrc(host: str) -> tuple[str | None, str]:
    # A file that is not there, or that nobody can read, knows nobody.
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
        if found is not None:
            return found[0], found[2] or ""
    return None, ""


def _proxy_for(at: SplitResult) -> str | None:
    host = at.hostname or ""
    if urllib.request.proxy_bypass(host):
        return None
    known = urllib.request.getproxies()
    return known.get(at.scheme) or known.get("all")


def _is_ours(first: SplitResult, at: SplitResult) -> bool:
    if first.hostname != at.hostname:
        return False
    ports = [url.port or _DEFAULT_PORTS[url.scheme] for url in (first, at)]
    # The same server, as it is or as it asks to be spoken to.
    return (first.scheme == at.scheme and ports[0] == ports[1]) or ports == [80, 443]


def _asked_wait(response: BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _let_go(response: BaseHTTPResponse) -> None:
    left = response.length_remaining
    if left is not None and left <= _REST:
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            response.drain_conn()
            response.release_conn()
            return
    if not response.closed:
        response.close()
    response.release_conn()
