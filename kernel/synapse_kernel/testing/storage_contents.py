"""The storage contract: what is written is what is read, under any name."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageError, StorageNotFoundError
from synapse_kernel.testing.storage_parts import (
    ODD_NAMES,
    StorageFixtures,
    assert_tells,
    keys_of,
    long_key,
)

if TYPE_CHECKING:
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.testing.storage_parts import Fill

BYTES = bytes(range(256)) * 41


class ContentContract(StorageFixtures):
    """Bytes and text, written and read."""

    def test_bytes_come_back_as_they_were_written(self, target: Storage) -> None:
        """Write every byte there is, and read it."""
        target.write_bytes("a/b/data.bin", BYTES)

        assert BYTES == target.read_bytes("a/b/data.bin")

    def test_an_empty_file_is_a_file(self, storage: Storage, fill: Fill) -> None:
        """Its size is 0, and it reads as nothing."""
        fill({"empty": b""})

        assert b"" == storage.read_bytes("empty")
        assert (0, False) == (storage.info("empty").size, storage.info("empty").is_folder)
        assert b"" == storage.read_bytes("empty", start=0, length=5)

    def test_a_file_written_again_has_the_new_content_only(self, target: Storage) -> None:
        """A shorter content leaves nothing of the longer one."""
        target.write_bytes("file", BYTES)
        target.write_bytes("file", b"short")

        assert (b"short", 5) == (target.read_bytes("file"), target.info("file").size)

    def test_text_comes_back_as_it_was_written(self, target: Storage) -> None:
        """Neither its line ends nor its characters change."""
        text = "one\r\ntwo\nthrée 🚀\n"
        target.write_text("text.txt", text)
        target.write_text("latin.txt", "é", encoding="latin-1")

        assert (text, b"\xe9") == (target.read_text("text.txt"), target.read_bytes("latin.txt"))
        assert "é" == target.read_text("latin.txt", encoding="latin-1")

    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_a_name_is_taken_literally(self, storage: Storage, fill: Fill, name: str) -> None:
        """Whatever is in it, the file and a folder of that name are read and looked at."""
        fill({name: b"file", f"in {name}/{name}": b"inner"})

        assert b"file" == storage.read_bytes(name)
        assert b"inner" == storage.read_bytes(f"in {name}/{name}")
        assert (name, 4) == (storage.info(name).key, storage.info(name).size)

    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_a_name_is_listed_as_it_was_written(self, listed: Storage, fill: Fill, name: str) -> None:
        """The key of its entry is the key it was written under."""
        fill({f"in {name}/{name}": b"inner"})

        assert [f"in {name}/"] == keys_of(listed.list())
        assert [f"in {name}/{name}"] == keys_of(listed.list(f"in {name}"))
        assert [f"in {name}/{name}"] == keys_of(listed.list(recursive=True))

    def test_two_unicode_forms_of_a_name_are_two_files(self, storage: Storage, fill: Fill) -> None:
        """No form is turned into the other."""
        if not self.forms_apart:
            pytest.skip("this provider holds both forms for one name")
        one, other = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
        fill({one: b"NFC", other: b"NFD"})

        assert (b"NFC", b"NFD") == (storage.read_bytes(one), storage.read_bytes(other))

    def test_a_key_may_have_1000_characters(self, storage: Storage, fill: Fill) -> None:
        """It is written, read and looked at like any other."""
        key = long_key(self.longest_name)
        fill({key: b"far down"})

        assert 1000 == len(key)
        assert (b"far down", key) == (storage.read_bytes(key), storage.info(key).key)

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, 4, b"0123"),
            (3, 4, b"3456"),
            (7, None, b"789"),
            (8, 100, b"89"),
            (10, 5, b""),
            (3, 0, b""),
            (0, None, b"0123456789"),
        ],
    )
    def test_a_range_of_a_file_is_read(
        self, storage: Storage, fill: Fill, start: int, length: int | None, expected: bytes
    ) -> None:
        """It ends where the file does."""
        fill({"digits": b"0123456789"})

        assert expected == storage.read_bytes("digits", start=start, length=length)

    def test_reading_what_is_not_there_says_where(self, storage: Storage, fill: Fill) -> None:
        """Be it in a folder that is there, or in none."""
        fill({"folder/file": b""})

        for key in ("folder/missing", "no/such/file"):
            with pytest.raises(StorageNotFoundError) as caught:
                storage.read_bytes(key)
            assert_tells(caught.value, storage, "read", key)

    def test_a_folder_is_no_file(self, tree: Storage) -> None:
        """It cannot be read as one."""
        with pytest.raises(StorageError) as caught:
            tree.read_bytes("images")
        assert_tells(caught.value, tree, "read", "images")
