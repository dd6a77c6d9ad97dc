"""
What Ray calls on a worker, before any code of ours is there.

This module travels by value, and imports nothing but the standard library: it puts the shipped code in its
place and hands over to `remote`.
"""

from __future__ import annotations

import asyncio
import importlib
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    import ray

    class _Fetch(Protocol):
        def remote(self, digest: str) -> ray.ObjectRef[bytes]: ...

    class _BoardHandle(Protocol):
        fetch: _Fetch


BoardName = tuple[str, str]
"""By which workers find the driver's board: its name and its namespace."""

_FETCH_SECONDS = 60.0
_BOOTSTRAP_NAME = "synapse_bootstrap"
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")


class Shipment(NamedTuple):
    """The code that a worker needs: zip files by digest, which the board has for those who lack them."""

    paths: tuple[str, ...] = ()
    """Packages that are imported."""
    folder: tuple[str, str] | None = None
    """The action's folder: digest and name."""
    wheels: tuple[str, ...] = ()
    """Files in the folder to install, relative to it."""
    installer: str = "pip"
    installer_options: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    """What the packages need to be installed."""


Packed = tuple[object, ...]
"""A shipment as it travels: a bare tuple, for a class that is sent by value is sent each time."""


def packed_call(shipment: Packed, attempt: bytes, board: BoardName) -> bytes:
    """
    Return what a worker is given: the code, the attempt, and where to ask.

    As bytes, which Ray hands on as they are; anything else it looks through for references and classes.
    """
    return pickle.dumps((shipment, attempt, board))


def run(call: bytes) -> Iterator[bytes]:
    """Execute an attempt; what is yielded is told by `remote.run`."""
    packed, attempt, board = pickle.loads(call)  # noqa: S301 - as Ray itself does
    remote, folder, warnings = put_in_place(packed, board)
    yield from remote.run(attempt, board, folder=folder, warnings=warnings)


def rest_of(packed: Packed, board: BoardName, key: str, position: int | None) -> bytes | None:
    """Return what a worker of this node wrote of an attempt before it was killed; see `spool.rest_of`."""
    put_in_place(packed, board)
    spool = importlib.import_module("synapse_plugins.ray_executors.spool")
    found: bytes | None = spool.rest_of(key, position)
    return found


class WarmWorker:
    """An actor that executes one attempt after the other."""

    def __init__(self) -> None:
        self._items: Iterator[bytes] = iter(())

    def begin(self, call: bytes) -> bytes:
        """Execute an attempt, and return its first item: all of it, if that has an outcome."""
        self._items = run(call)
        return next(self._items)

    def go_on(self) -> Iterator[bytes]:
        """Yield the other items of an attempt that lasts."""
        yield from self._items


class Board:
    """An actor of the driver's: where its attempts hear that they are to stop, and find code they lack."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}
        self._kept = asyncio.Condition()
        self._told: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[float | None]] = {}

    async def keep(self, digest: str, data: bytes) -> None:
        """Have a zip file for those who ask."""
        async with self._kept:
            self._code[digest] = data
            self._kept.notify_all()

    async def drop(self, digest: str) -> None:
        """Have it no more."""
        self._code.pop(digest, None)

    async def lacking(self, digests: list[str]) -> list[str]:
        """Return those that it has not: its process may have been killed and started anew."""
        return [digest for digest in digests if digest not in self._code]

    async def fetch(self, digest: str) -> bytes:
        """Return a zip file, which may be on its way yet."""
        async with self._kept:
            await asyncio.wait_for(self._kept.wait_for(lambda: digest in self._code), _FETCH_SECONDS)
            return self._code[digest]

    async def wait(self, key: str) -> float | None:
        """Return the grace period in seconds once an attempt is to stop, or None once it is over."""
        if key in self._told:
            return self._told.pop(key)
        return await self._waiting.setdefault(key, asyncio.get_running_loop().create_future())

    async def cancel(self, key: str, grace: float) -> None:
        """Tell an attempt to stop, also one that has not asked yet."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            self._told[key] = grace
        elif not waiting.done():
            waiting.set_result(grace)

    async def over(self, key: str) -> None:
        """Forget an attempt."""
        self._told.pop(key, None)
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def put_in_place(packed: Packed, board: BoardName | None = None) -> tuple[ModuleType, str | None, list[str]]:
    """Put the code in its place; returns what runs attempts, the action's folder, and warnings."""
    warnings: list[str] = []
    folder: str | None = None
    shipment = Shipment(*packed)  # type: ignore[arg-type]
    if shipment.paths or shipment.folder is not None:
        bootstrap = bootstrap_module()
        if shipment.paths:
            lacking = bootstrap.install_missing(
                shipment.requirements, shipment.installer_options, shipment.installer
            )
            paths = [_unpacked(bootstrap, digest, board) for digest in shipment.paths]
            warnings.append(bootstrap.add_paths([*paths, lacking] if lacking else paths))
        if shipment.folder is not None:
            digest, name = shipment.folder
            folder = f"{_unpacked(bootstrap, digest, board)}/{name}"
            if shipment.wheels:
                wheels = [f"{folder}/{wheel}" for wheel in shipment.wheels]
                installed = bootstrap.install_wheels(wheels, shipment.installer_options, shipment.installer)
                warnings.append(bootstrap.add_paths([installed]))
    remote = importlib.import_module("synapse_plugins.ray_executors.remote")
    return remote, folder, [warning for warning in warnings if warning]


def _unpacked(bootstrap: ModuleType, digest: str, board: BoardName | None) -> str:
    if bootstrap.has(digest):
        return str(bootstrap.path_of(digest))
    if board is None:
        raise LookupError(f"there is no code {digest} here")
    import ray

    name, namespace = board
    handle = cast("_BoardHandle", ray.get_actor(name, namespace))
    data = ray.get(handle.fetch.remote(digest), timeout=2 * _FETCH_SECONDS)
    return str(bootstrap.unpack(digest, data))


def bootstrap_module() -> ModuleType:
    """Return `bootstrap`, made of its text: it holds locks, which do not travel."""
    found = sys.modules.get(_BOOTSTRAP_NAME)
    if found is None:
        found = ModuleType(_BOOTSTRAP_NAME)
        exec(compile(_BOOTSTRAP, _BOOTSTRAP_NAME, "exec"), vars(found))  # noqa: S102 - our own
        sys.modules[_BOOTSTRAP_NAME] = found
    return found
