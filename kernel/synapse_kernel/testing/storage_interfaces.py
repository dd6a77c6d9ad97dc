"""The storage contract: the same files as an fsspec file system, as paths, and as URLs."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, cast

import pytest

from synapse_kernel.storage.errors import StorageError
from synapse_kernel.storage.providers import configured
from synapse_kernel.storage.storage import Storage
from synapse_kernel.testing.storage_parts import TREE, StorageFixtures, assert_tells, contents, tree_of

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_kernel.testing.storage_parts import Fill


class InterfaceContract(StorageFixtures):
    """`filesystem`, `get_pathlib`, `get_url` and `signed_url`."""

    def test_the_file_system_reads(self, tree: Storage, here: Path) -> None:
        """Whatever speaks fsspec lists, finds and gets files."""
        fs = tree.filesystem

        assert ["images/a.png", "images/b.png", "images/deep"] == sorted(
            map(str, fs.ls("images", detail=False))
        )
        assert sorted(TREE) == sorted(fs.find(""))
        assert ["images/a.png", "images/b.png"] == sorted(fs.glob("images/*.png"))
        assert (8, "file") == (fs.info("labels.json")["size"], fs.info("labels.json")["type"])
        assert (True, False, True) == (fs.isdir("images"), fs.isfile("images"), fs.isfile("labels.json"))
        assert (True, False) == (fs.exists("notes"), fs.exists("none"))
        assert (b"rain", b"ai") == (fs.cat_file("notes/today.txt"), fs.cat_file("notes/today.txt", 1, 3))
        assert 262 == fs.du("images/deep")
        with fs.open("notes/today.txt", "rb") as file:
            assert b"rain" == file.read()
        with fs.open("notes/today.txt", "r") as file:
            assert "rain" == file.read()
        fs.get("images/", f"{here}/got/", recursive=True)
        assert {"a.png", "b.png", "deep/c.png", "deep/read me.txt"} == set(tree_of(here / "got"))

    def test_the_file_system_writes(self, changed_tree: Storage, here: Path) -> None:
        """Whatever speaks fsspec writes, copies, moves and deletes files."""
        fs = changed_tree.filesystem
        fs.pipe_file("new/piped", b"piped")
        with fs.open("new/opened", "wb") as file:
            file.write(b"opened")
        (here / "local").write_bytes(b"put")
        fs.put_file(str(here / "local"), "new/put")
        fs.cp_file("new/put", "new/copied")
        fs.mv("new/piped", "new/moved")
        fs.rm_file("new/opened")
        fs.rm("images", recursive=True)

        assert {
            "labels.json": TREE["labels.json"],
            "notes/today.txt": b"rain",
            "new/put": b"put",
            "new/copied": b"put",
            "new/moved": b"piped",
        } == contents(changed_tree)

    def test_the_file_system_raises_what_its_callers_expect(self, tree: Storage) -> None:
        """`FileNotFoundError` for what is not there."""
        fs = tree.filesystem
        for call in (
            lambda: fs.info("none"),
            lambda: fs.cat_file("none"),
            lambda: fs.open("none", "rb"),
            lambda: fs.ls("none"),
        ):
            with pytest.raises(FileNotFoundError):
                call()

    def test_a_path_reads(self, tree: Storage) -> None:
        """With the interface of pathlib."""
        path = tree.get_pathlib("notes")

        assert b"rain" == (path / "today.txt").read_bytes()
        assert "rain" == (path / "today.txt").read_text()
        assert ["today.txt"] == [inner.name for inner in path.iterdir()]
        assert (True, False) == (path.is_dir(), path.is_file())
        assert (True, False) == ((path / "today.txt").exists(), (path / "none").exists())
        images = tree.get_pathlib("images")
        assert ["a.png", "b.png"] == sorted(inner.name for inner in images.glob("*.png"))
        assert tree.get_url("notes/today.txt") == str(path / "today.txt")

    def test_a_path_writes(self, target: Storage) -> None:
        """With the interface of pathlib."""
        path = target.get_pathlib("folder")
        (path / "text.txt").write_text("text")
        (path / "bytes").write_bytes(b"bytes")
        with (path / "opened").open("wb") as file:
            cast("Path", file).write(b"opened")  # type: ignore[attr-defined]
        (path / "bytes").unlink()

        assert (b"text", b"opened") == (
            target.read_bytes("folder/text.txt"),
            target.read_bytes("folder/opened"),
        )
        assert not target.exists("folder/bytes")

    @pytest.mark.parametrize("folder", ["plain", "a b%20c", "é #1?", "%2e%2e/in"], ids=ascii)
    def test_a_url_leads_back_to_where_it_came_from(self, storage: Storage, fill: Fill, folder: str) -> None:
        """What its provider reads from it, with this one's credentials, is a storage with that root."""
        fill({f"{folder}/file": b"content"})
        kind = type(storage.provider)
        values = kind.from_url(storage.get_url(folder))
        known = dict(storage.provider.configuration)

        there = Storage(kind(configured(kind, {**known, **values})))

        assert b"content" == there.read_bytes("file")
        assert storage.get_url(f"{folder}/file") == there.get_url("file")
        there.close()

    def test_a_url_holds_no_secret(self, storage: Storage) -> None:
        """Nor does what shows a storage."""
        shown = f"{storage.get_url('file')} {storage!r} {storage.url}"

        for name, value in storage.provider.configuration:
            secret = getattr(value, "get_secret_value", None)
            assert secret is None or not secret() or secret() not in shown, f"{name} is shown"

    def test_a_signed_url_is_got_without_credentials(self, storage: Storage, fill: Fill) -> None:
        """Where there are such; elsewhere it says that there are none."""
        fill({"folder/file 100%": b"content"})
        if not self.signed_urls:
            with pytest.raises(StorageError) as caught:
                storage.signed_url("folder/file 100%")
            assert_tells(caught.value, storage, "signed_url", "folder/file 100%")
            return
        url = storage.signed_url("folder/file 100%", expires=600)

        with urllib.request.urlopen(url, timeout=self.patience) as answer:  # noqa: S310 - the provider's
            assert b"content" == answer.read()
