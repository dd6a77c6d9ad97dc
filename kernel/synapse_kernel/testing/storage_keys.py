"""The storage contract: no key leaves the root, and each storage has its own."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageConfigError, StorageError
from synapse_kernel.testing.storage_parts import StorageFixtures, assert_tells, contents, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.testing.storage_parts import Fill

_UP = "a key cannot leave the root of its storage: '..' is not allowed in it"
_ABSOLUTE = "a key is relative to the root of its storage: leave the first '/' out"
_NUL = "a key cannot hold a NUL character"

OPERATIONS: dict[str, Callable[[Storage, str, Path], object]] = {
    "read": lambda storage, key, _: storage.read_bytes(key),
    "write": lambda storage, key, _: storage.write_bytes(key, b"x"),
    "open": lambda storage, key, _: storage.open(key),
    "info": lambda storage, key, _: storage.info(key),
    "exists": lambda storage, key, _: storage.exists(key),
    "list": lambda storage, key, _: storage.list(key),
    "glob": lambda storage, key, _: storage.glob(f"{key}/*"),
    "upload": lambda storage, key, local: storage.upload(local, key),
    "download": lambda storage, key, local: storage.download(key, local / "new"),
    "delete": lambda storage, key, _: storage.delete(key, recursive=True),
    "copy": lambda storage, key, _: storage.copy("file", key),
    "move": lambda storage, key, _: storage.move(key, "new"),
    "at": lambda storage, key, _: storage.at(key),
    "make_folder": lambda storage, key, _: storage.make_folder(key),
    "get_url": lambda storage, key, _: storage.get_url(key),
    "signed_url": lambda storage, key, _: storage.signed_url(key),
    "get_pathlib": lambda storage, key, _: storage.get_pathlib(key),
}


class KeyContract(StorageFixtures):
    """Which keys there are, and `Storage.at`."""

    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("../x", _UP),
            ("a/../../b", _UP),
            ("a/..", _UP),
            ("..", _UP),
            ("/x", _ABSOLUTE),
            ("//x", _ABSOLUTE),
            ("a\0b", _NUL),
        ],
        ids=ascii,
    )
    def test_a_key_that_would_leave_the_root_is_refused(
        self, storage: Storage, here: Path, operation: str, key: str, text: str
    ) -> None:
        """By each operation, before anything is asked of the service."""
        with pytest.raises(StorageConfigError) as caught:
            OPERATIONS[operation](storage, key, here)

        shown = f"{key}/*" if operation == "glob" else key
        assert f"Storage {storage.provider.name!r}: {operation} {shown!r}: {text}" == str(caught.value)

    def test_an_encoded_dot_is_just_a_name(self, storage: Storage, fill: Fill) -> None:
        """Nobody decodes it on the way."""
        fill({"%2e%2e/x": b"encoded", "..%2fx": b"slash", "in/%2E%2E/y": b"inner"})

        assert b"encoded" == storage.read_bytes("%2e%2e/x")
        assert b"slash" == storage.read_bytes("..%2fx")
        assert b"inner" == storage.at("in").read_bytes("%2E%2E/y")
        assert not storage.exists("x")
        assert not storage.exists("y")

    def test_a_storage_at_a_folder_has_that_as_its_root(self, changed_tree: Storage) -> None:
        """Keys in it and of its entries are relative to it."""
        inner = changed_tree.at("images").at("deep/")
        inner.write_bytes("new", b"1")

        assert ["c.png", "new", "read me.txt"] == keys_of(inner.list())
        assert ("c.png", 256) == (inner.info("c.png").key, inner.info("c.png").size)
        assert ("", True) == (inner.info().key, inner.info().is_folder)
        assert b"1" == changed_tree.read_bytes("images/deep/new")
        assert ["c.png", "read me.txt"] == keys_of(inner.glob("*.*"))
        assert ["c.png", "new", "read me.txt"] == sorted(contents(inner))

    def test_a_storage_at_a_folder_cannot_be_left(self, tree: Storage) -> None:
        """Not even to where the storage it came of could go."""
        inner = tree.at("images")
        for key in ("../labels.json", "deep/../../labels.json", "/labels.json"):
            with pytest.raises(StorageConfigError):
                inner.read_bytes(key)
        assert not inner.exists("labels.json")
        with pytest.raises(StorageConfigError):
            inner.at("..")

    def test_a_storage_at_a_folder_works_within_it(self, changed_tree: Storage, here: Path) -> None:
        """Copies, moves, transfers and deletions."""
        inner = changed_tree.at("images/deep")
        inner.copy("c.png", "d.png")
        inner.move("d.png", "e/f.png")
        inner.download("", here / "down")
        inner.upload(here / "down", "up")
        inner.delete("read me.txt")

        assert ["c.png", "e/f.png", "up/c.png", "up/e/f.png", "up/read me.txt"] == keys_of(
            inner.list(recursive=True)
        )
        inner.delete("", recursive=True)
        assert ["images/a.png", "images/b.png"] == keys_of(changed_tree.list("images", recursive=True))

    def test_errors_below_a_folder_name_the_whole_key(self, storage: Storage) -> None:
        """As it is below the provider's root."""
        inner = storage.at("no/such")
        with pytest.raises(StorageError) as caught:
            inner.read_bytes("file")

        assert_tells(caught.value, inner, "read", "file")
        assert_tells(caught.value, storage, "read", "no/such/file")
