"""The storage contract: one storage used by several threads, and two writers of one key."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from synapse_kernel.storage.errors import StorageIntegrityError
from synapse_kernel.testing.storage_parts import StorageFixtures, contents, keys_of, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synapse_kernel.storage.storage import Storage

R = TypeVar("R")

ONE = b"1" * 300_000
OTHER = b"2" * 200_000


class ThreadContract(StorageFixtures):
    """What happens at once."""

    def test_threads_use_one_storage_at_once(self, target: Storage) -> None:
        """Each finds what it wrote."""

        def work(number: int) -> bytes:
            for turn in range(5):
                target.write_bytes(f"thread {number}/{turn}", bytes([number, turn]) * 1000)
                target.exists(f"thread {number}/none")
            return b"".join(target.read_bytes(f"thread {number}/{turn}")[:2] for turn in range(5))

        found = self.together([lambda number=number: work(number) for number in range(8)])  # type: ignore[misc]

        assert [bytes(b for turn in range(5) for b in (number, turn)) for number in range(8)] == found

    def test_two_writers_of_one_key_leave_one_whole_content(self, target: Storage) -> None:
        """And whoever reads meanwhile reads one of both, whole."""
        target.write_bytes("folder/key", ONE)
        done = threading.Event()
        seen: set[bytes] = set()

        def write(content: bytes) -> None:
            for _ in range(8):
                target.write_bytes("folder/key", content)

        def read() -> None:
            while not done.is_set():
                # That it changed under the reader may be said, but half a content is not to be given.
                try:
                    seen.add(target.read_bytes("folder/key"))
                except StorageIntegrityError:
                    continue

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                ended = [pool.submit(write, content) for content in (ONE, OTHER)]
                wait(ended, self.patience)
            finally:
                done.set()
            for future in [*ended, *readers]:
                future.result(self.patience)

        assert target.read_bytes("folder/key") in {ONE, OTHER}
        assert seen <= {ONE, OTHER}, [(len(content), set(content)) for content in seen - {ONE, OTHER}]
        if self.lists:
            assert ["folder/key"] == keys_of(target.list(recursive=True))

    def test_two_trees_go_to_one_folder_at_once(self, target: Storage, listed: Storage, here: Path) -> None:
        """Folders that both make are no trouble, nor are those that one deletes beside."""
        trees = [
            {f"deep/er/{number}-{side}": bytes([number]) * 500 for number in range(20)} for side in range(2)
        ]
        folders = [write_tree(here / str(side), files) for side, files in enumerate(trees)]

        self.together([lambda folder=folder: target.upload(folder, "both") for folder in folders])  # type: ignore[misc]

        expected = {f"both/{key}": content for files in trees for key, content in files.items()}
        assert expected == contents(listed)

    def together(self, calls: list[Callable[[], R]]) -> list[R]:
        """Call all at once and return what they give, in their order."""
        with ThreadPoolExecutor(len(calls)) as pool:
            futures: list[Future[R]] = [pool.submit(call) for call in calls]
            return [future.result(self.patience) for future in futures]
