"""
Proxies that stand for a bad network or a bad day, before any server on this machine.

Each listens on a port of its own, `port`, and counts what came by. They run in a thread, the one that delays
in a process, so that its work is not the measured client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Literal

HOST = "127.0.0.1"
CHUNK = 1 << 16
WAIT = 30

# Of an answer or a request delayed by 10 ms at 1 GB/s, ten megabytes are on the way at any time.
MOST_ON_THE_WAY = 512

_CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}


@dataclasses.dataclass
class Proxy:
    """A proxy that is running, and what came by so far."""

    port: int = 0
    connections: int = 0
    faults: int = 0
    """How often it did what it is there for."""
    requests: list[str] = dataclasses.field(default_factory=list)
    """`METHOD path` of each request; of the failing proxy alone."""


class _CutError(Exception):
    """The connection ends here."""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handle = Callable[[Proxy, Streams], Awaitable[None]]
Pump = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def delay_proxy(port: int, ms: float) -> Iterator[Proxy]:
    """
    Put a server `ms` milliseconds further away, as a round trip goes.

    What is read is held back for half of it, in each direction: a request and its answer take `ms` longer,
    and no rate is lowered. Connecting is not delayed: it ends at the proxy. It counts nothing.
    """
    with subprocess.Popen(
        [sys.executable, __file__, str(port), str(ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Proxy(port=int(process.stdout.readline()))
        finally:
            process.kill()


@contextlib.contextmanager
def cutting_proxy(
    port: int, after_bytes: int, times: int = 1, *, of: Literal["answer", "request"] = "answer"
) -> Iterator[Proxy]:
    """Drop a connection once `after_bytes` of its answers, or requests, went by, `times` times."""

    async def handle(proxy: Proxy, client: Streams) -> None:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone = 0
            while data := await reader.read(CHUNK):
                if proxy.faults < times and gone + len(data) > after_bytes:
                    proxy.faults += 1
                    writer.write(data[: after_bytes - gone])
                    await writer.drain()
                    raise _CutError
                gone += len(data)
                await _pass_on(data, writer)
            _end(writer)

        async with _connected(port) as server:
            await _relay(client, server, **{f"{of}s": pump})

    with _running(handle) as proxy:
        yield proxy


@contextlib.contextmanager
def stalling_proxy(
    port: int | None = None, after_bytes: int = 0, times: int | None = None
) -> Iterator[Proxy]:
    """
    Accept connections and never answer.

    With a port, answer as the server there does, until `after_bytes` of a connection's answers went by;
    with `times`, as many connections stall, and those after them work.
    """

    async def handle(proxy: Proxy, client: Streams) -> None:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone = 0
            while data := await reader.read(CHUNK):
                if (times is None or proxy.faults < times) and gone + len(data) > after_bytes:
                    proxy.faults += 1
                    await _pass_on(data[: after_bytes - gone], writer)
                    await asyncio.Event().wait()
                gone += len(data)
                await _pass_on(data, writer)
            _end(writer)

        if port is None:
            proxy.faults += 1
            while await client[0].read(CHUNK):
                pass
            return
        async with _connected(port) as server:
            await _relay(client, server, answers=pump)

    with _running(handle) as proxy:
        yield proxy


@contextlib.contextmanager
def failing_proxy(
    port: int,
    status: int,
    times: int,
    headers: Mapping[str, str] | None = None,
    *,
    matching: Callable[[str, str], bool] = lambda method, path: True,
    body: str | None = None,
) -> Iterator[Proxy]:
    """
    Answer the first `times` requests whose method and path match with `status`, and forward all others.

    The body is S3's: `SlowDown` for 503, `InternalError` for 500, `TooManyRequests` for 429.
    """
    code = _CODES.get(status, "Error")
    sent = body if body is not None else _s3_error(code)

    async def handle(proxy: Proxy, client: Streams) -> None:
        async with contextlib.AsyncExitStack() as stack:
            server: Streams | None = None
            answers: asyncio.Task[None] | None = None
            try:
                while request := await _read_head(client[0]):
                    method, path, fields, head = request
                    proxy.requests.append(f"{method} {path}")
                    if proxy.faults < times and matching(method, path):
                        proxy.faults += 1
                        if fields.get("expect", "").lower() != "100-continue":
                            await _read_body(client[0], fields, None)
                        await _pass_on(_answer(status, code, sent, headers, method), client[1])
                        return
                    if server is None:
                        server = await stack.enter_async_context(_connected(port))
                        answers = asyncio.create_task(_pump_then_close(server[0], client[1]))
                    await _pass_on(head, server[1])
                    await _read_body(client[0], fields, server[1])
            finally:
                if answers is not None:
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)

    with _running(handle) as proxy:
        yield proxy


def _s3_error(code: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>Please reduce your request rate.</Message>"
        "<RequestId>TESTS</RequestId></Error>"
    )


def _answer(status: int, code: str, body: str, headers: Mapping[str, str] | None, method: str) -> bytes:
    fields = {"Content-Type": "application/xml", "Content-Length": str(len(body.encode()))}
    fields |= {**(headers or {}), "Connection": "close"}
    lines = [f"HTTP/1.1 {status} {code}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + (b"" if method == "HEAD" else body.encode())


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = [line.partition(":") for line in lines]
    return method, path, {name.strip().lower(): value.strip() for name, _, value in pairs}, head


async def _read_body(
    reader: asyncio.StreamReader, fields: Mapping[str, str], writer: asyncio.StreamWriter | None
) -> None:
    """Read a request's body to its end, and pass it on where there is a writer."""
    if "chunked" not in fields.get("transfer-encoding", ""):
        await _read_exactly(reader, int(fields.get("content-length", "0")), writer)
        return
    while True:
        line = await reader.readuntil(b"\r\n")
        await _pass_on(line, writer)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        await _read_exactly(reader, size + 2, writer)
    # Trailers, and the empty line after them.
    while True:
        line = await reader.readuntil(b"\r\n")
        await _pass_on(line, writer)
        if line == b"\r\n":
            return


async def _read_exactly(reader: asyncio.StreamReader, size: int, writer: asyncio.StreamWriter | None) -> None:
    while size:
        data = await reader.read(min(size, CHUNK))
        if not data:
            raise _CutError
        size -= len(data)
        await _pass_on(data, writer)


async def _pass_on(data: bytes, writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.write(data)
        await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        await _pass_on(data, writer)
    _end(writer)


async def _pump_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass answers on; who hangs up is the server, as it would be without a proxy."""
    with contextlib.suppress(OSError):
        await _pump(reader, writer)
    writer.close()


def _delayed(seconds: float) -> Pump:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_ON_THE_WAY)

        async def read() -> None:
            while data := await reader.read(CHUNK):
                await on_the_way.put((now() + seconds, data))
            await on_the_way.put((now() + seconds, b""))

        async def write() -> None:
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(due - now())
                if not data:
                    _end(writer)
                    return
                await _pass_on(data, writer)

        await _together(read(), write())

    return pump


def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()


async def _relay(client: Streams, server: Streams, requests: Pump = _pump, answers: Pump = _pump) -> None:
    await _together(requests(client[0], server[1]), answers(server[0], client[1]))


async def _together(*parts: Awaitable[None]) -> None:
    """Wait for all parts; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
        # What was written before still goes out: who was cut off has the bytes up to the cut.
        await asyncio.wait_for(writer.wait_closed(), 5)


async def _listen(proxy: Proxy, handle: Handle) -> tuple[asyncio.Server, set[asyncio.Task[None]]]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        try:
            with contextlib.suppress(OSError, EOFError, _CutError, asyncio.CancelledError):
                await handle(proxy, (reader, writer))
        finally:
            await _close(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, 0, backlog=1024)
    proxy.port = server.sockets[0].getsockname()[1]
    return server, tasks


@contextlib.contextmanager
def _running(handle: Handle) -> Iterator[Proxy]:
    """Run a proxy in a thread while the block lasts."""
    proxy, ready, ended = Proxy(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        server, tasks = await _listen(proxy, handle)
        loops.append(asyncio.get_running_loop())
        ready.set()
        await ended.wait()
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="proxy", daemon=True)
    thread.start()
    assert ready.wait(WAIT), "the proxy did not start"
    try:
        yield proxy
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(WAIT)
        assert not thread.is_alive(), "the proxy did not end"


async def _delay_for_good(port: int, ms: float) -> None:
    pump = _delayed(ms / 2000)

    async def handle(proxy: Proxy, client: Streams) -> None:
        async with _connected(port) as server:
            await _relay(client, server, pump, pump)

    proxy = Proxy()
    server, _ = await _listen(proxy, handle)
    print(proxy.port, flush=True)
    # It ends also where the tests are killed: then nobody holds the other end.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_delay_for_good(int(sys.argv[1]), float(sys.argv[2])))
