"""The storage contract: what is there, listed, counted and looked at."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageNotFoundError
from synapse_kernel.testing.storage_parts import TREE, StorageFixtures, assert_tells, keys_of

if TYPE_CHECKING:
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.testing.storage_parts import Fill


class ListingContract(StorageFixtures):
    """`list`, `glob`, `walk`, `info`, `exists`, the count and the size."""

    def test_a_folder_lists_what_lies_in_it_and_no_deeper(self, tree: Storage) -> None:
        """Folders once, whatever is in them."""
        assert ["images/", "labels.json", "notes/"] == keys_of(tree.list())
        assert ["images/a.png", "images/b.png", "images/deep/"] == keys_of(tree.list("images"))

    def test_a_recursive_list_has_the_files_at_every_depth(self, tree: Storage) -> None:
        """Without folders."""
        assert sorted(TREE) == keys_of(tree.list(recursive=True))
        assert ["images/deep/c.png", "images/deep/read me.txt"] == keys_of(
            tree.list("images/deep", recursive=True)
        )

    def test_a_folder_whose_name_begins_like_another_is_not_in_it(self, listed: Storage, fill: Fill) -> None:
        """A folder is more than a prefix."""
        fill({"data/a": b"", "data-2/b": b"", "data.txt": b""})

        assert ["data/a"] == keys_of(listed.list("data"))
        assert ["data/a"] == keys_of(listed.list("data", recursive=True))
        assert ["data-2/", "data.txt", "data/"] == keys_of(listed.list())
        assert not listed.exists("dat")

    def test_entries_tell_size_and_kind(self, tree: Storage) -> None:
        """Of a file its size in bytes; a folder has none."""
        found = {entry.key: entry for entry in tree.list()}

        assert (8, False) == (found["labels.json"].size, found["labels.json"].is_folder)
        assert (None, True) == (found["images"].size, found["images"].is_folder)
        assert {key: len(content) for key, content in TREE.items()} == {
            entry.key: entry.size for entry in tree.list(recursive=True)
        }

    def test_a_trailing_slash_changes_nothing(self, tree: Storage) -> None:
        """Nor do empty parts and dots."""
        assert keys_of(tree.list("images")) == keys_of(tree.list("./images//"))
        assert "images/deep" == tree.info("images/./deep/").key

    def test_a_folder_that_is_not_there_cannot_be_listed(self, tree: Storage) -> None:
        """Where the service has folders it says so; else it may hold nothing."""
        for recursive in (False, True):
            try:
                found = list(tree.list("no/such", recursive=recursive))
            except StorageNotFoundError as error:
                assert_tells(error, tree, "list", "no/such")
            else:
                assert [] == found
                assert not tree.provider.has_folders, "an empty list for a folder that is not there"

    def test_listing_comes_as_it_is_asked_for(self, listed: Storage, fill: Fill) -> None:
        """It can be left after the first entries, and another can go on beside it."""
        fill({f"many/{number:03}": b"" for number in range(30)})
        first, second = listed.list("many"), listed.list(recursive=True)

        assert 3 == len(list(itertools.islice(first, 3)))
        assert 30 == len(list(second))
        assert 27 == len(list(first))

    def test_many_files_are_listed_each_once(self, listed: Storage, fill: Fill) -> None:
        """Whatever a page of the service holds."""
        names = [f"many/{number:04}" for number in range(120)]
        fill(dict.fromkeys(names, b"x"))

        assert names == keys_of(listed.list("many"))
        assert (120, 120) == (listed.get_path_file_count(), listed.get_path_total_size("many"))

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*", ["images/", "labels.json", "notes/"]),
            ("*.json", ["labels.json"]),
            ("images/*.png", ["images/a.png", "images/b.png"]),
            ("images/?.png", ["images/a.png", "images/b.png"]),
            ("images/[bc].png", ["images/b.png"]),
            ("*/deep/*.txt", ["images/deep/read me.txt"]),
            ("**/*.png", ["images/a.png", "images/b.png", "images/deep/c.png"]),
            ("images/**", ["images/a.png", "images/b.png", "images/deep/c.png", "images/deep/read me.txt"]),
            ("labels.json", ["labels.json"]),
            ("*.none", []),
            ("none/*", []),
            ("none", []),
        ],
    )
    def test_a_pattern_finds_keys(self, tree: Storage, pattern: str, expected: list[str]) -> None:
        """A ``*`` stays within one folder, ``**`` goes through all."""
        assert expected == keys_of(tree.glob(pattern))

    def test_walking_goes_through_every_folder_from_above(self, tree: Storage) -> None:
        """By name; the files and folders of each apart."""
        found = [(folder, keys_of(inner), keys_of(files)) for folder, inner, files in tree.walk()]

        assert [
            ("", ["images/", "notes/"], ["labels.json"]),
            ("images", ["images/deep/"], ["images/a.png", "images/b.png"]),
            ("images/deep", [], ["images/deep/c.png", "images/deep/read me.txt"]),
            ("notes", [], ["notes/today.txt"]),
        ] == found
        assert ["images/deep"] == [folder for folder, _, _ in tree.walk("images/deep")]

    def test_info_tells_of_a_file(self, storage: Storage, fill: Fill) -> None:
        """Its time is now, if the service tells it: in seconds since 1970, in UTC."""
        before = time.time()
        fill({"folder/file": b"12345"})
        entry = storage.info("folder/file")

        assert ("folder/file", 5, False) == (entry.key, entry.size, entry.is_folder)
        # A server's clock is its own; a time zone taken for another is at least half an hour off.
        assert entry.modified is None or abs(entry.modified - before) < 600

    def test_info_tells_of_a_folder(self, tree: Storage) -> None:
        """The root is one, too."""
        entry, root = tree.info("images"), tree.info()

        assert ("images", True, None) == (entry.key, entry.is_folder, entry.size)
        assert ("", True) == (root.key, root.is_folder)

    def test_info_of_what_is_not_there_says_where(self, storage: Storage) -> None:
        """As a kind of its own."""
        with pytest.raises(StorageNotFoundError) as caught:
            storage.info("no/such.txt")
        assert_tells(caught.value, storage, "info", "no/such.txt")

    def test_exists_tells_of_files_and_folders(self, tree: Storage) -> None:
        """And of nothing else; below a file there is nothing."""
        expected = {
            "": True,
            "images": True,
            "images/a.png": True,
            "images/b.png": True,
            "image": False,
            "images/a": False,
            "images/a.png/x": False,
            "none/none": False,
        }

        assert expected == {key: tree.exists(key) for key in expected}

    def test_counts_and_sizes_are_of_all_files_under_a_key(self, tree: Storage) -> None:
        """A file is one."""
        assert (len(TREE), sum(map(len, TREE.values()))) == (
            tree.get_path_file_count(),
            tree.get_path_total_size(),
        )
        assert (2, 262) == (
            tree.get_path_file_count("images/deep"),
            tree.get_path_total_size("images/deep"),
        )
        assert (1, 8) == (tree.get_path_file_count("labels.json"), tree.get_path_total_size("labels.json"))
        with pytest.raises(StorageNotFoundError):
            tree.get_path_file_count("none")
