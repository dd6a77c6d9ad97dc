"""The storage contract: local files and trees that are written to it, whole or not at all."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageError, StorageNotFoundError, StorageUploadError
from synapse_kernel.storage.sources import Source
from synapse_kernel.testing.storage_parts import (
    ODD_NAMES,
    TREE,
    Heard,
    StorageFixtures,
    assert_tells,
    contents,
    keys_of,
    write_tree,
)

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress

LARGE = bytes(range(256)) * 4096 * 9
"""9 MiB: more than most clients send at once."""


class UploadContract(StorageFixtures):
    """`Storage.upload`."""

    def test_a_file_is_uploaded(self, target: Storage, here: Path) -> None:
        """Under a key, or without one under its own name."""
        local = here / "local file.bin"
        local.write_bytes(b"content")

        report = target.upload(local, "folder/remote.bin")
        target.upload(str(local))

        assert (1, 7) == (report.files, report.bytes)
        assert b"content" == target.read_bytes("folder/remote.bin")
        assert b"content" == target.read_bytes("local file.bin")

    def test_a_large_file_is_uploaded(self, target: Storage, here: Path) -> None:
        """Byte for byte, its progress adding up."""
        local = here / "large"
        local.write_bytes(LARGE)
        heard = Heard()

        report = target.upload(local, "large", progress=heard)

        assert (1, len(LARGE)) == (report.files, report.bytes)
        assert LARGE == target.read_bytes("large")
        assert ("upload", 1, len(LARGE)) == heard.last

    def test_a_tree_is_uploaded(self, target: Storage, listed: Storage, here: Path) -> None:
        """All its files, with its progress adding up."""
        heard = Heard()

        report = target.upload(write_tree(here / "tree", TREE), "data/set", progress=heard)

        total = sum(map(len, TREE.values()))
        assert {f"data/set/{key}": content for key, content in TREE.items()} == contents(listed)
        assert (len(TREE), total) == (report.files, report.bytes)
        assert ("upload", len(TREE), total) == heard.last
        assert (len(TREE), total) == (heard.told[-1].total_files, heard.told[-1].total_bytes)

    def test_a_tree_goes_into_the_root(self, target: Storage, listed: Storage, here: Path) -> None:
        """Its key is '' then; without a key it goes into a folder of its own name."""
        local = write_tree(here / "tree", {"a/b": b"1"})
        target.upload(local, "")
        target.upload(local)

        assert {"a/b": b"1", "tree/a/b": b"1"} == contents(listed)

    def test_a_tree_of_odd_names_is_uploaded(self, target: Storage, listed: Storage, here: Path) -> None:
        """Each under its own."""
        files = {
            f"{name}/{name}": name.encode() for name in (ODD_NAMES if self.forms_apart else ODD_NAMES[:-1])
        }
        target.upload(write_tree(here / "tree", files), "odd")

        assert {f"odd/{key}": content for key, content in files.items()} == contents(listed)

    def test_a_modification_time_is_kept(self, target: Storage, here: Path) -> None:
        """Where the service keeps one."""
        if not self.keeps_modified:
            pytest.skip("this provider keeps no modification times")
        local = here / "old"
        local.write_bytes(b"old")
        os.utime(local, (1_500_000_000, 1_500_000_000))
        target.upload(local, "old")

        assert 1_500_000_000 == target.info("old").modified

    def test_what_is_not_there_cannot_be_uploaded(self, target: Storage, here: Path) -> None:
        """The error names the local path."""
        with pytest.raises(StorageNotFoundError) as caught:
            target.upload(here / "none", "key")

        assert f"there is no local file or folder {here / 'none'}" == caught.value.reason
        assert not target.exists("key")

    def test_a_file_that_changed_since_it_was_looked_at_is_not_written(
        self, target: Storage, here: Path
    ) -> None:
        """The provider calls `Source.check` before anybody can see what it wrote."""
        target.write_bytes("key", b"before")
        local = here / "changing"
        for content in (b"first", LARGE):
            local.write_bytes(content)
            source = Source.of_file(local)
            local.write_bytes(content[::-1])
            os.utime(local, (1, 1))

            with pytest.raises(StorageUploadError) as caught:
                target.provider.put_file(source, target._full("key", "upload"), lambda _: None)
            assert f"{local} changed while it was read: let its writer finish, and try again" == (
                caught.value.reason
            )
            assert b"before" == target.read_bytes("key")

    def test_a_file_that_changes_while_it_is_uploaded_is_one_of_both(
        self, target: Storage, here: Path
    ) -> None:
        """Never the beginning of one and the end of the other."""
        target.write_bytes("key", b"before")
        local = here / "changing"
        local.write_bytes(LARGE)
        changed: list[bool] = []

        def change(_: TransferProgress) -> None:
            if not changed:
                changed.append(True)
                local.write_bytes(LARGE[::-1])

        try:
            target.upload(local, "key", progress=change)
        except StorageUploadError as error:
            assert_tells(error, target, "upload", "key")
            assert b"before" == target.read_bytes("key")
        else:
            assert target.read_bytes("key") in {LARGE, LARGE[::-1]}

    def test_a_listener_that_raises_in_the_middle_leaves_what_was_there(
        self, target: Storage, here: Path
    ) -> None:
        """And nothing beside it."""
        target.write_bytes("folder/key", b"before")
        local = here / "large"
        local.write_bytes(LARGE)

        def refuse(progress: TransferProgress) -> None:
            if 0 < progress.bytes < len(LARGE):
                raise ArithmeticError("that is enough")

        try:
            target.upload(local, "folder/key", progress=refuse)
        except (ArithmeticError, StorageError) as error:
            assert "that is enough" in str(error)  # noqa: PT017 - where it is sent at once nobody raises
            assert b"before" == target.read_bytes("folder/key")
        else:
            assert LARGE == target.read_bytes("folder/key")
        if self.lists:
            assert ["folder/key"] == keys_of(target.list(recursive=True))

    def test_the_first_failure_of_an_uploaded_tree_ends_it(
        self, target: Storage, listed: Storage, here: Path
    ) -> None:
        """The files that are there are whole."""
        files = {f"{number:03}": bytes([number]) * 20_000 for number in range(150)}
        local = write_tree(here / "tree", files)

        def refuse(progress: TransferProgress) -> None:
            if progress.files >= 5:
                raise ArithmeticError("that is enough")

        with pytest.raises((ArithmeticError, StorageError), match="that is enough"):
            target.upload(local, "tree", progress=refuse)

        found = contents(listed)
        assert 5 <= len(found) < 150
        assert found == {key: files[key.removeprefix("tree/")] for key in found}

    def test_a_file_is_not_written_where_a_file_stands_above(self, target: Storage) -> None:
        """Where the service has folders; else both may be there."""
        target.write_bytes("file", b"file")
        if not target.provider.has_folders:
            pytest.skip("this service has no folders")
        with pytest.raises(StorageError) as caught:
            target.write_bytes("file/below", b"below")

        assert_tells(caught.value, target, "write", "file/below")
        assert b"file" == target.read_bytes("file")

    def test_a_file_is_not_written_where_a_folder_stands(self, target: Storage) -> None:
        """Where the service has folders; else both may be there."""
        target.write_bytes("folder/file", b"file")
        if not target.provider.has_folders:
            pytest.skip("this service has no folders")
        with pytest.raises(StorageError) as caught:
            target.write_bytes("folder", b"file")

        assert_tells(caught.value, target, "write", "folder")
        assert b"file" == target.read_bytes("folder/file")
