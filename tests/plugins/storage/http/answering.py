"""A web server that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By name, in lower case."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is answered: without a length the connection's end is the content's."""

    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    tells_length: bool = True


@dataclasses.dataclass
class Answering:
    """A server that is running."""

    port: int
    scheme: str
    asked: list[Asked] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        """Return its URL, which ends with a slash."""
        return f"{self.scheme}://{HOST}:{self.port}/"

    @property
    def lines(self) -> list[str]:
        """The requests, each as `METHOD path`."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]


@contextlib.contextmanager
def answering(answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Answering]:
    """Run a server that answers each request with what `answer` returns."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.rfile.read(int(headers.get("content-length", "0")))
            asked = Asked(self.command, self.path, headers)
            running.asked.append(asked)
            given = answer(asked)
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            if given.tells_length and "Content-Length" not in given.headers:
                self.send_header("Content-Length", str(len(given.body)))
            if not given.tells_length:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_MKCOL = do_MOVE = do_COPY = do_OPTIONS = do_PROPFIND = do

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: clients hang up, as they may."""

    with Server((HOST, 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        running = Answering(server.server_address[1], "https" if tls is not None else "http")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
