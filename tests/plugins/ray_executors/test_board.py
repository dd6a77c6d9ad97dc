"""The board: how attempts hear that they are to stop, and get the code that they lack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from synapse_kernel import Kernel
from synapse_kernel.contracts import ActionRef, Task
from synapse_plugins.ray_executors import shipping
from synapse_plugins.ray_executors.connection import Connection
from synapse_plugins.ray_executors.entry import Board
from synapse_plugins.ray_executors.settings import RaySettings


class Kept:
    """A connection whose board notes what it is given, and forgets when it is told to."""

    started = True

    def __init__(self) -> None:
        self.board = self
        self.has: set[str] = set()
        self.given: list[str] = []

    def keep(self, digest: str, data: bytes) -> None:
        assert data
        self.has.add(digest)
        self.given.append(digest)

    def drop(self, digest: str) -> None:
        self.has.discard(digest)

    def lacking(self, digests: list[str]) -> list[str]:
        return [digest for digest in digests if digest not in self.has]


@pytest.fixture
def load(kernel: Kernel, make_folder: Callable[..., Path]) -> Callable[[Kept, str], None]:
    """Return a function that ships a folder of this name to a connection."""
    shipper = shipping.Shipper(kernel, RaySettings())

    def load(kept: Kept, name: str) -> None:
        folder = make_folder({"actions.py": f"NAME = {name!r}"}, name)
        task = Task(run_id="r", action="a", ref=ActionRef("actions:a", str(folder)))
        shipper.load(task, cast("Connection", kept))

    return load


def test_code_is_given_once(load: Callable[[Kept, str], None]):
    kept = Kept()

    for name in ("one", "two", "one"):
        load(kept, name)

    assert 2 == len(kept.given) == len(set(kept.given))


def test_a_board_that_lost_its_code_is_given_it_again(
    load: Callable[[Kept, str], None], monkeypatch: pytest.MonkeyPatch
):
    """As when its process was killed, and Ray has started it anew."""
    monkeypatch.setattr(shipping, "_LOOK_SECONDS", -1.0)
    kept = Kept()
    load(kept, "one")
    kept.has.clear()

    load(kept, "one")

    assert kept.given[0] == kept.given[1]
    assert set(kept.given) == kept.has


def test_of_much_code_the_oldest_goes(load: Callable[[Kept, str], None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shipping, "_MOST_KEPT", 1)
    kept = Kept()

    for name in ("one", "two"):
        load(kept, name)

    assert {kept.given[1]} == kept.has


def test_code_that_is_asked_for_before_it_came_is_waited_for():
    async def ask() -> bytes:
        board = Board()
        asked = asyncio.ensure_future(board.fetch("digest"))
        await asyncio.sleep(0)
        await board.keep("digest", b"code")
        return await asked

    assert b"code" == asyncio.run(ask())


def test_a_board_tells_what_it_has_not():
    async def ask() -> list[str]:
        board = Board()
        await board.keep("here", b"code")
        await board.keep("gone", b"code")
        await board.drop("gone")
        return await board.lacking(["here", "gone", "never"])

    assert ["gone", "never"] == asyncio.run(ask())


@pytest.mark.parametrize("early", [True, False], ids=["told first", "asked first"])
def test_an_attempt_is_told_to_stop_whenever_it_asks(early: bool):
    async def ask() -> float | None:
        board = Board()
        if early:
            await board.cancel("key", 2.5)
            return await board.wait("key")
        asked = asyncio.ensure_future(board.wait("key"))
        await asyncio.sleep(0)
        await board.cancel("key", 2.5)
        return await asked

    assert 2.5 == asyncio.run(ask())


def test_who_asks_for_an_attempt_that_is_over_waits_no_longer():
    async def ask() -> float | None:
        board = Board()
        asked = asyncio.ensure_future(board.wait("key"))
        await asyncio.sleep(0)
        await board.over("key")
        return await asked

    assert asyncio.run(ask()) is None
