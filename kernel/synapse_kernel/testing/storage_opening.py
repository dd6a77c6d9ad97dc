"""The storage contract: files that are open, in each mode."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import io
import shutil
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.testing.storage_parts import StorageFixtures, assert_tells

if TYPE_CHECKING:
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.testing.storage_parts import Fill

BLOCK = bytes(range(256)) * 1024
"""256 KiB."""


class OpeningContract(StorageFixtures):
    """`Storage.open`."""

    def test_an_open_file_is_read_in_pieces(self, storage: Storage, fill: Fill) -> None:
        """Its pieces are the whole, whatever their size."""
        content = BLOCK * 9 + b"end"
        fill({"large": content})

        with opened(storage, "large", "rb") as file:
            pieces = list(iter(lambda: file.read(100_003), b""))
        assert content == b"".join(pieces)

    def test_an_open_file_can_be_sought_in(self, storage: Storage, fill: Fill) -> None:
        """From its beginning, its end, and where it is."""
        fill({"large": BLOCK * 9})

        with opened(storage, "large", "rb") as file:
            assert (True, True, False) == (file.seekable(), file.readable(), file.writable())
            assert 2_000_001 == file.seek(2_000_001)
            assert (BLOCK * 9)[2_000_001:2_000_011] == file.read(10)
            assert 2_000_011 == file.tell()
            file.seek(-3, io.SEEK_END)
            assert b"\xfd\xfe\xff" == file.read()
            file.seek(1)
            file.seek(2, io.SEEK_CUR)
            assert b"\x03" == file.read(1)
            file.seek(len(BLOCK) * 9 + 5)
            assert b"" == file.read(5)

    def test_an_open_file_is_read_as_text_by_lines(self, storage: Storage, fill: Fill) -> None:
        """Text is the default, in UTF-8."""
        fill({"text": "erste\nzweite, größer\n".encode(), "latin": b"\xe9"})

        with storage.open("text", "r") as file:
            assert ["erste\n", "zweite, größer\n"] == list(file)
        with storage.open("latin", "rt", encoding="latin-1") as file:
            assert "é" == file.read()

    def test_what_is_written_is_there_at_the_close(self, target: Storage) -> None:
        """Until then readers see what was there before."""
        target.write_bytes("file", b"before")
        with opened(target, "file", "wb") as file:
            file.write(b"after, ")
            file.write(b"and longer")
            assert b"before" == target.read_bytes("file")

        assert b"after, and longer" == target.read_bytes("file")

    def test_a_large_file_is_written_in_pieces(self, target: Storage) -> None:
        """Whatever copies files can write one."""
        with opened(target, "folder/large", "wb") as file:
            shutil.copyfileobj(io.BytesIO(BLOCK * 9), file)

        assert BLOCK * 9 == target.read_bytes("folder/large")

    def test_text_is_written(self, target: Storage) -> None:
        """As it is: no line end becomes another."""
        with target.open("text", "w") as file:
            cast("IO[str]", file).write("größer\n")

        assert "größer\n".encode() == target.read_bytes("text")

    @pytest.mark.parametrize("mode", ["w", "wb", "a", "ab", "x", "xb"])
    def test_a_block_left_by_an_exception_writes_nothing(self, target: Storage, mode: str) -> None:
        """What was there before stays."""
        if "x" not in mode:
            target.write_bytes("file", b"before")
        half = b"half" if "b" in mode else "half"
        with pytest.raises(ZeroDivisionError), cast("IO[Any]", target.open("file", mode)) as file:
            raise ZeroDivisionError(file.write(half))

        if "x" in mode:
            assert not target.exists("file")
        else:
            assert b"before" == target.read_bytes("file")

    def test_mode_x_makes_a_new_file(self, target: Storage) -> None:
        """Where one is already it refuses, and leaves it."""
        with opened(target, "new", "xb") as file:
            file.write(b"first")
        with pytest.raises(StorageConfigError) as caught:
            target.open("new", "xb")

        assert "a file is there already, and mode 'x' makes a new one" == caught.value.reason
        assert_tells(caught.value, target, "open", "new")
        assert b"first" == target.read_bytes("new")

    def test_mode_a_writes_behind_what_is_there(self, target: Storage) -> None:
        """Or makes the file."""
        for text in (b"one ", b"two"):
            with opened(target, "log", "ab") as file:
                file.write(text)

        assert b"one two" == target.read_bytes("log")

    def test_there_are_no_other_modes(self, storage: Storage) -> None:
        """It says which there are."""
        for mode in ("r+", "rw", "", "bt", "U"):
            with pytest.raises(StorageConfigError) as caught:
                storage.open("file", mode)
            assert f"there is no mode {mode!r}: use r, w, x or a, with b for bytes" == caught.value.reason

    def test_what_is_not_there_cannot_be_opened_for_reading(self, storage: Storage) -> None:
        """It fails at the call, not at the first read."""
        with pytest.raises(StorageNotFoundError) as caught:
            storage.open("no/such", "rb")
        assert_tells(caught.value, storage, "open", "no/such")

    def test_a_folder_cannot_be_opened(self, tree: Storage) -> None:
        """It fails at the call."""
        with pytest.raises(StorageError) as caught:
            tree.open("images", "rb")
        assert_tells(caught.value, tree, "open", "images")

    def test_the_root_cannot_be_opened(self, storage: Storage) -> None:
        """It fails at the call, in any mode."""
        for mode in ("rb", "wb"):
            with pytest.raises(StorageConfigError) as caught:
                storage.open("", mode)
            assert "the key of a file is needed, and this is the root" == caught.value.reason


def opened(storage: Storage, key: str, mode: str) -> IO[bytes]:
    """Open a file in a binary mode."""
    return cast("IO[bytes]", storage.open(key, mode))
