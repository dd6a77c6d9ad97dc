"""
What Ray calls on a worker, before any code of ours is there.

This module travels by value, and imports nothing but the standard library: it puts the shipped code in its
place and hands over to `remote`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOOTSTRAP_NAME = "synapse_bootstrap"
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")


class Shipment(NamedTuple):
    """The code that a worker needs: zip files by digest, as references into Ray's object store."""

    paths: tuple[tuple[str, object], ...] = ()
    """Packages that are imported: digest and reference."""
    folder: tuple[str, str, object] | None = None
    """The action's folder: digest, its name and reference."""
    wheels: tuple[str, ...] = ()
    """Files in the folder to install, relative to it."""
    installer: str = "pip"
    installer_options: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    """What the packages need to be installed."""


Packed = tuple[object, ...]
"""A shipment as it travels: a bare tuple, for a class that is sent by value is sent each time."""


def run(shipment: Packed, attempt: bytes, board: object) -> Iterator[tuple[object, ...]]:
    """Execute an attempt; what is yielded is told by `remote.run`."""
    remote, folder, warnings = _ready(shipment)
    yield from remote.run(attempt, board, folder=folder, warnings=warnings)


def rest_of(shipment: Packed, key: str, position: int | None) -> bytes | None:
    """Return what a worker of this node wrote of an attempt before it was killed; see `spool.rest_of`."""
    _ready(shipment)
    spool = importlib.import_module("synapse_plugins.ray_executors.spool")
    found: bytes | None = spool.rest_of(key, position)
    return found


class WarmWorker:
    """An actor that executes one attempt after the other."""

    def __init__(self, board: object) -> None:
        self._board = board

    def run(self, shipment: Packed, attempt: bytes) -> Iterator[tuple[object, ...]]:
        """Execute an attempt; what is yielded is told by `remote.run`."""
        yield from run(shipment, attempt, self._board)


class Board:
    """An actor of the driver's: where its attempts hear that they are to stop."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[float | None]] = {}

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


def _ready(packed: Packed) -> tuple[ModuleType, str | None, list[str]]:
    """Put the code in its place; returns what runs attempts, the action's folder, and warnings."""
    warnings: list[str] = []
    folder: str | None = None
    shipment = Shipment(*packed)  # type: ignore[arg-type]
    if shipment.paths or shipment.folder is not None:
        bootstrap = _bootstrap()
        if shipment.paths:
            lacking = bootstrap.install_missing(
                shipment.requirements, shipment.installer_options, shipment.installer
            )
            paths = [_unpacked(bootstrap, digest, reference) for digest, reference in shipment.paths]
            warnings.append(bootstrap.add_paths([*paths, lacking] if lacking else paths))
        if shipment.folder is not None:
            digest, name, reference = shipment.folder
            folder = f"{_unpacked(bootstrap, digest, reference)}/{name}"
            if shipment.wheels:
                wheels = [f"{folder}/{wheel}" for wheel in shipment.wheels]
                installed = bootstrap.install_wheels(wheels, shipment.installer_options, shipment.installer)
                warnings.append(bootstrap.add_paths([installed]))
    remote = importlib.import_module("synapse_plugins.ray_executors.remote")
    return remote, folder, [warning for warning in warnings if warning]


def _unpacked(bootstrap: ModuleType, digest: str, reference: object) -> str:
    if bootstrap.has(digest):
        return str(bootstrap.path_of(digest))
    import ray

    return str(bootstrap.unpack(digest, ray.get(reference)))  # type: ignore[call-overload]


def _bootstrap() -> ModuleType:
    """Return `bootstrap`, made of its text: it holds locks, which do not travel."""
    found = sys.modules.get(_BOOTSTRAP_NAME)
    if found is None:
        found = ModuleType(_BOOTSTRAP_NAME)
        exec(compile(_BOOTSTRAP, _BOOTSTRAP_NAME, "exec"), vars(found))  # noqa: S102 - our own
        sys.modules[_BOOTSTRAP_NAME] = found
    return found
