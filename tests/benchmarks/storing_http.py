"""Storage over HTTP: one large file against `curl`, and many small ones against one after the other."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from figures import Figure, at_most, paired, process

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.storage_servers.proxies import delay_proxy
from tests.storage_servers.web import HttpServer, http_server

from synapse_kernel.storage import Storage
from synapse_plugins.storage.http.configuration import HttpConfiguration
from synapse_plugins.storage.http.provider import HttpProvider

LARGE = 512 << 20
FILES = 200
SIZE = 100_000
DELAY = 20
PAIRS = 7
MEMORY = Path("/dev/shm")


def figures() -> list[Figure]:
    """Measure against nginx on this machine, in memory where there is such a folder."""
    parent = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="synapse-http-", dir=parent))
    try:
        (folder / "server").mkdir()
        with http_server(folder / "server") as server:
            found = [_large(server, folder)]
            _fill(server)
            with delay_proxy(server.port, DELAY) as proxy:
                found.append(_small(server.through(proxy.port), folder, f"{DELAY} ms away", 3))
            # Here nothing is waited for: what is left is work, and both sides share the processors.
            found.append(_small(server, folder, "on this machine", 1))
            return found
    finally:
        shutil.rmtree(folder)


def _large(server: HttpServer, folder: Path) -> Figure:
    with (server.files / "large").open("wb") as file:
        file.truncate(LARGE)
    storage, target = _storage(server.url), folder / "got"

    def ours() -> None:
        storage.download("large", target)

    curl = process(["curl", "-sf", "-o", str(target), f"{server.url}large"])
    ratio, base = paired(ours, curl, PAIRS)
    storage.close()
    return at_most(f"http get of one file of {LARGE >> 20} MiB", ratio, 1.2, f"curl: {base:.3f} s")


def _fill(server: HttpServer) -> None:
    (server.files / "small").mkdir()
    for number in range(FILES):
        (server.files / "small" / f"{number:03}.bin").write_bytes(bytes([number]) * SIZE)


def _small(server: HttpServer, folder: Path, where: str, least: float) -> Figure:
    storage, target = _storage(server.url), folder / "small"

    def ours() -> None:
        storage.download("small", target)

    ratio, base = paired(ours, _in_turn(server, target), PAIRS)
    storage.close()
    return Figure(
        f"http get of {FILES} files of {SIZE // 1000} kB, {where}",
        1 / ratio,
        "x",
        f"at least {least:g} x one after the other",
        1 / ratio >= least,
        f"requests, one session, in turn: {base:.3f} s; aiohttp in turn: {_by_aiohttp(server, target):.3f} s",
    )


def _in_turn(server: HttpServer, target: Path) -> Callable[[], object]:
    import requests

    def call() -> None:
        target.mkdir(exist_ok=True)
        with requests.Session() as session:
            for number in range(FILES):
                name = f"{number:03}.bin"
                answer = session.get(f"{server.url}small/{name}", timeout=60)
                answer.raise_for_status()
                (target / name).write_bytes(answer.content)

    return call


def _by_aiohttp(server: HttpServer, target: Path) -> float:
    import aiohttp
    from figures import seconds_of

    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            for number in range(FILES):
                name = f"{number:03}.bin"
                async with session.get(f"{server.url}small/{name}") as answer:
                    (target / name).write_bytes(await answer.read())

    return min(seconds_of(lambda: asyncio.run(get())) for _ in range(3))


def _storage(url: str) -> Storage:
    return Storage(HttpProvider(HttpConfiguration(base_url=url)))
