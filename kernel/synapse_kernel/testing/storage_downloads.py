"""The storage contract: files and trees that are written to this machine, whole or not at all."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.testing.storage_parts import (
    ODD_NAMES,
    TREE,
    Heard,
    StorageFixtures,
    assert_tells,
    tree_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress
    from synapse_kernel.testing.storage_parts import Fill

LARGE = bytes(range(256)) * 4096 * 9
"""9 MiB: more than most clients ask for at once."""


class DownloadContract(StorageFixtures):
    """`Storage.download`."""

    def test_a_file_is_downloaded(self, storage: Storage, fill: Fill, here: Path) -> None:
        """Under a name, or into a folder; nothing is left beside it."""
        fill({"folder/remote file": b"content"})
        (here / "there").mkdir()

        report = storage.download("folder/remote file", here / "new" / "name")
        storage.download("folder/remote file", here / "there")
        storage.download("folder/remote file", f"{here}/made/")

        assert (1, 7) == (report.files, report.bytes)
        assert {
            "new/name": b"content",
            "there/remote file": b"content",
            "made/remote file": b"content",
        } == tree_of(here)

    def test_an_empty_file_is_downloaded(self, storage: Storage, fill: Fill, here: Path) -> None:
        """It is there, and empty."""
        fill({"empty": b""})

        assert 1 == storage.download("empty", here / "empty").files
        assert {"empty": b""} == tree_of(here)

    def test_a_large_file_is_downloaded(self, storage: Storage, fill: Fill, here: Path) -> None:
        """Byte for byte, over what was there, its progress adding up."""
        fill({"large": LARGE})
        heard = Heard()
        (here / "large").write_bytes(b"before")

        report = storage.download("large", here / "large", progress=heard)

        assert {"large": LARGE} == tree_of(here)
        assert (1, len(LARGE)) == (report.files, report.bytes)
        assert ("download", 1, len(LARGE)) == heard.last

    def test_a_tree_is_downloaded(self, tree: Storage, here: Path) -> None:
        """All its files, with its progress adding up."""
        heard = Heard()

        report = tree.download("", here / "all", progress=heard)
        tree.download("images/deep", here / "some")

        total = sum(map(len, TREE.values()))
        assert TREE == tree_of(here / "all")
        assert {"c.png": TREE["images/deep/c.png"], "read me.txt": b"words\n"} == tree_of(here / "some")
        assert (len(TREE), total) == (report.files, report.bytes)
        assert ("download", len(TREE), total) == heard.last

    def test_a_tree_of_odd_names_is_downloaded(self, listed: Storage, fill: Fill, here: Path) -> None:
        """Each under its own."""
        files = {
            f"{name}/{name}": name.encode() for name in (ODD_NAMES if self.forms_apart else ODD_NAMES[:-1])
        }
        fill(files)
        listed.download("", here)

        assert files == tree_of(here)

    def test_a_downloaded_file_has_the_time_of_its_entry(
        self, storage: Storage, fill: Fill, here: Path
    ) -> None:
        """If the service tells one."""
        fill({"file": b"content"})
        storage.download("file", here / "file")
        modified = storage.info("file").modified

        assert modified is None or abs(modified - (here / "file").stat().st_mtime) < 0.001

    def test_what_is_not_there_cannot_be_downloaded(self, storage: Storage, here: Path) -> None:
        """What the target had it keeps."""
        (here / "file").write_bytes(b"before")
        with pytest.raises(StorageNotFoundError) as caught:
            storage.download("none", here / "file")

        assert_tells(caught.value, storage, "download", "none")
        assert {"file": b"before"} == tree_of(here)

    def test_a_checksum_is_verified(self, storage: Storage, fill: Fill, here: Path) -> None:
        """One that is another keeps the file away."""
        fill({"file": b"content"})
        (here / "file").write_bytes(b"before")
        right, wrong = (hashlib.sha256(data).hexdigest() for data in (b"content", b"other"))
        with pytest.raises(StorageError) as caught:
            storage.download("file", here / "file", checksum=f"sha256:{wrong}")

        assert_tells(caught.value, storage, "download", "file")
        assert {"file": b"before"} == tree_of(here)
        storage.download("file", here / "file", checksum=f"sha256:{right}")
        assert {"file": b"content"} == tree_of(here)

    def test_a_folder_has_no_checksum(self, tree: Storage, here: Path) -> None:
        """Nothing is written."""
        with pytest.raises(StorageConfigError) as caught:
            tree.download("images", here / "images", checksum="sha256:00")

        assert "a checksum is one file's, and this is a folder" == caught.value.reason
        assert {} == tree_of(here)

    def test_a_listener_that_raises_leaves_what_the_target_had(
        self, storage: Storage, fill: Fill, here: Path
    ) -> None:
        """And nothing beside it."""
        fill({"large": LARGE})
        (here / "large").write_bytes(b"before")

        def refuse(_: TransferProgress) -> None:
            raise ArithmeticError("that is enough")

        with pytest.raises((ArithmeticError, StorageError), match="that is enough"):
            storage.download("large", here / "large", progress=refuse)

        assert {"large": b"before"} == tree_of(here)

    def test_the_first_failure_of_a_downloaded_tree_ends_it(
        self, listed: Storage, fill: Fill, here: Path
    ) -> None:
        """The files that are there are whole, with nothing beside them."""
        files = {f"{number:02}": bytes([number]) * 20_000 for number in range(40)}
        fill({f"tree/{key}": content for key, content in files.items()})

        def refuse(progress: TransferProgress) -> None:
            if progress.files >= 5:
                raise ArithmeticError("that is enough")

        with pytest.raises((ArithmeticError, StorageError), match="that is enough"):
            listed.download("tree", here / "tree", progress=refuse)

        found = tree_of(here / "tree")
        assert len(found) < 40
        assert found == {key: files[key] for key in found}

    def test_a_file_that_cannot_be_written_here_leaves_nothing(
        self, storage: Storage, fill: Fill, here: Path
    ) -> None:
        """A file stands where its folder should be."""
        fill({"file": b"content"})
        (here / "in the way").write_bytes(b"before")
        with pytest.raises(StorageError) as caught:
            storage.download("file", here / "in the way" / "file")

        assert_tells(caught.value, storage, "download", "file")
        assert {"in the way": b"before"} == tree_of(here)
