"""What the parts of the storage contract share: fixtures, files to write, and how errors are looked at."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.storage.errors import StorageError
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress

Fill: TypeAlias = Callable[[Mapping[str, bytes]], None]

TREE = {
    "labels.json": b'{"a": 1}',
    "images/a.png": b"png" * 7,
    "images/b.png": b"",
    "images/deep/c.png": bytes(range(256)),
    "images/deep/read me.txt": b"words\n",
    "notes/today.txt": b"rain",
}
"""Files of a small tree, by key."""

ODD_NAMES = (
    "with space.txt",
    " leading and trailing ",
    "100%.txt",
    "a#b.txt",
    "a?b.txt",
    "a+b&c=d;e,f.txt",
    "'quoted\" `name`.txt",
    "[brackets] {braces} *.txt",
    "back\\slash.txt",
    "two:colons::.txt",
    "~tilde",
    "..hidden..",
    ".hidden",
    "%2e%2e",
    "a%2Fb.txt",
    "日本語 Ω ж 🚀.txt",
    unicodedata.normalize("NFC", "häßlich é.txt"),
    unicodedata.normalize("NFD", "häßlich é.txt"),
)
"""Names that a provider which quotes too little or too much gets wrong."""


class StorageFixtures:
    """
    What a subclass says of its provider, and what the tests are given.

    Only `storage` must be given. Where nothing can be written, `fill` is overridden too.
    """

    writable: bool = True
    """False where files are only read: what writes is skipped then."""
    lists: bool = True
    """False where folders cannot be listed."""
    signed_urls: bool = False
    """True if `signed_url` gives a URL that this machine can get."""
    keeps_modified: bool = False
    """True if a file has the modification time of the local file that was uploaded."""
    longest_name: int = 255
    """How many bytes one part of a key may have."""
    forms_apart: bool = True
    """False where a name in NFC and the same in NFD are one file."""
    patience: float = 60.0
    """Seconds that threads of a test are waited for; none of it is waited for where all is well."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return an empty storage; to be overridden."""
        raise NotImplementedError("a subclass of StorageContract overrides the fixture storage")

    @pytest.fixture
    def here(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return a local folder of the test's own, apart from what `storage` may keep in ``tmp_path``."""
        return tmp_path_factory.mktemp("here")

    @pytest.fixture
    def fill(self, storage: Storage) -> Fill:
        """Return what puts files there; to be overridden where the storage itself cannot."""

        def write(files: Mapping[str, bytes]) -> None:
            for key, content in files.items():
                storage.write_bytes(key, content)

        return write

    @pytest.fixture
    def target(self, storage: Storage) -> Storage:
        """Return the storage, where it can be written."""
        if not self.writable:
            pytest.skip("this provider only reads")
        return storage

    @pytest.fixture
    def listed(self, storage: Storage) -> Storage:
        """Return the storage, where it can be listed."""
        if not self.lists:
            pytest.skip("this provider does not list folders")
        return storage

    @pytest.fixture
    def tree(self, fill: Fill, listed: Storage) -> Storage:
        """Return the storage with `TREE` in it."""
        fill(TREE)
        return listed

    @pytest.fixture
    def changed_tree(self, target: Storage, tree: Storage) -> Storage:
        """Return the storage with `TREE` in it, to be changed."""
        del target
        return tree


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.told: list[TransferProgress] = []

    def __call__(self, progress: TransferProgress) -> None:
        """Keep one."""
        self.told.append(progress)

    @property
    def last(self) -> tuple[str, int, int]:
        """The operation, files and bytes heard last."""
        last = self.told[-1]
        return last.operation, last.files, last.bytes


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a local folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        file = folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a local folder by their relative path, hidden ones too."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if not file.is_dir()
    }


def contents(storage: Storage, folder: str = "") -> dict[str, bytes]:
    """Return all files of a storage by their key."""
    return {entry.key: storage.read_bytes(entry.key) for entry in storage.list(folder, recursive=True)}


def keys_of(entries: Iterable[Entry]) -> list[str]:
    """Return the keys of entries, folders with a ``/`` behind, in order."""
    return sorted(f"{entry.key}/" if entry.is_folder else entry.key for entry in entries)


def assert_tells(error: StorageError, storage: Storage, operation: str, key: str | None) -> None:
    """See that an error says where it happened: provider, operation and key, in its text too."""
    full = storage._full(key, operation) if key is not None else None
    assert (storage.provider.name, operation, full) == (error.provider, error.operation, error.key)
    what = " ".join(part for part in (operation, repr(full) if full else "") if part)
    assert str(error).startswith(f"Storage {storage.provider.name!r}: {what}: "), str(error)
    assert error.reason


def long_key(longest_name: int, length: int = 1000) -> str:
    """Return a key of `length` characters, its parts no longer than a provider takes."""
    part = min(longest_name, 200)
    key = "/".join(chr(ord("a") + number % 26) * part for number in range(length // (part + 1) + 1))
    return key[: length - 4].rstrip("/").ljust(length - 4, "z") + ".txt"
