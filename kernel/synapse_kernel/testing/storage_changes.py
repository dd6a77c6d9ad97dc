"""The storage contract: what is deleted, copied and moved."""

# ruff: noqa: SIM300 - an assertion expects before it looks

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.testing.storage_parts import (
    ODD_NAMES,
    TREE,
    Heard,
    StorageFixtures,
    assert_tells,
    contents,
    keys_of,
)

if TYPE_CHECKING:
    from synapse_kernel.storage.storage import Storage

DEEP = {key: content for key, content in TREE.items() if key.startswith("images/")}
REST = {key: content for key, content in TREE.items() if not key.startswith("images/")}


class ChangeContract(StorageFixtures):
    """`delete`, `copy`, `move`, `make_folder` and `delete_folder`."""

    def test_a_file_is_deleted_and_nothing_else(self, changed_tree: Storage) -> None:
        """Nor what begins like it."""
        changed_tree.write_bytes("labels.json.bak", b"kept")
        report = changed_tree.delete("labels.json")

        assert (1, False) == (report.files, changed_tree.exists("labels.json"))
        assert {*TREE, "labels.json.bak"} - {"labels.json"} == set(contents(changed_tree))

    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_a_file_of_any_name_is_deleted_copied_and_moved(self, target: Storage, name: str) -> None:
        """Its name is taken literally."""
        target.write_bytes(f"in/{name}", b"content")

        target.copy(f"in/{name}", f"copied/{name}")
        assert b"content" == target.read_bytes(f"in/{name}")
        target.move(f"in/{name}", f"moved {name}")
        assert (False, b"content") == (target.exists(f"in/{name}"), target.read_bytes(f"moved {name}"))
        target.delete(f"copied/{name}")
        assert not target.exists(f"copied/{name}")

    def test_what_is_not_there_cannot_be_deleted(self, target: Storage) -> None:
        """It says so, with `recursive` too."""
        for recursive in (False, True):
            with pytest.raises(StorageNotFoundError) as caught:
                target.delete("no/such", recursive=recursive)
            assert_tells(caught.value, target, "delete", "no/such")

    def test_a_folder_is_deleted_only_where_that_is_asked_for(self, changed_tree: Storage) -> None:
        """The error says how."""
        with pytest.raises(StorageConfigError) as caught:
            changed_tree.delete("images")

        assert_tells(caught.value, changed_tree, "delete", "images")
        assert "it is a folder: ask for all in it to be deleted with recursive=True (--recursive)" == (
            caught.value.reason
        )
        assert TREE == contents(changed_tree)

    def test_a_folder_is_deleted_with_all_in_it(self, changed_tree: Storage) -> None:
        """And with its own progress."""
        heard = Heard()
        report = changed_tree.delete("images", recursive=True, progress=heard)

        assert (4, ("delete", 4, 0)) == (report.files, heard.last)
        assert not changed_tree.exists("images")
        assert REST == contents(changed_tree)

    def test_the_root_is_emptied_and_stays(self, changed_tree: Storage) -> None:
        """It can be written again."""
        changed_tree.delete("", recursive=True)

        changed_tree.write_bytes("new", b"1")
        assert {"new": b"1"} == contents(changed_tree)

    def test_a_folder_of_many_files_is_deleted(self, target: Storage, listed: Storage) -> None:
        """More than one call of the provider has."""
        target.write_bytes("keep", b"")
        for number in range(60):
            target.write_bytes(f"many/{number % 7}/{number}", b"x")

        assert 60 == target.delete("many", recursive=True).files
        assert ["keep"] == keys_of(listed.list())

    def test_the_provider_deletes_keys_together_and_minds_none_that_is_missing(
        self, changed_tree: Storage
    ) -> None:
        """What another deleted meanwhile is no error."""
        keys = ["labels.json", "none", "images/a.png", "no/such"]
        changed_tree.provider.delete([changed_tree._full(key, "delete") for key in keys])

        assert sorted(set(TREE) - set(keys)) == keys_of(changed_tree.list(recursive=True))

    def test_a_file_is_copied(self, changed_tree: Storage) -> None:
        """Over what was there, too."""
        report = changed_tree.copy("labels.json", "new/folder/copy.json")
        changed_tree.copy("labels.json", "notes/today.txt")

        assert (1, 8) == (report.files, report.bytes)
        copied = TREE["labels.json"]
        assert {**TREE, "new/folder/copy.json": copied, "notes/today.txt": copied} == contents(changed_tree)

    def test_a_copy_lives_on_its_own(self, target: Storage) -> None:
        """What is written to the one is not in the other."""
        target.write_bytes("one", b"first")
        target.copy("one", "two")
        target.write_bytes("one", b"later")

        assert (b"later", b"first") == (target.read_bytes("one"), target.read_bytes("two"))

    def test_a_folder_is_copied_with_all_in_it(self, changed_tree: Storage) -> None:
        """Its progress adds up."""
        heard = Heard()
        report = changed_tree.copy("images", "copies/of/images", progress=heard)

        size = sum(map(len, DEEP.values()))
        assert (4, size) == (report.files, report.bytes)
        assert ("copy", 4, size) == heard.last
        assert {**TREE, **{f"copies/of/{key}": content for key, content in DEEP.items()}} == contents(
            changed_tree
        )

    def test_a_file_is_moved(self, changed_tree: Storage) -> None:
        """It is at its new key only."""
        report = changed_tree.move("labels.json", "new/labels.json")

        assert (1, 8) == (report.files, report.bytes)
        moved = {**TREE, "new/labels.json": TREE["labels.json"]}
        del moved["labels.json"]
        assert moved == contents(changed_tree)

    def test_a_folder_is_moved_with_all_in_it(self, changed_tree: Storage) -> None:
        """Nothing of it stays."""
        report = changed_tree.move("images", "moved")

        assert 4 == report.files
        moved = {key.replace("images", "moved", 1): content for key, content in DEEP.items()}
        assert {**REST, **moved} == contents(changed_tree)
        assert not changed_tree.exists("images")

    @pytest.mark.parametrize("operation", ["copy", "move"])
    def test_nothing_goes_into_itself(self, changed_tree: Storage, operation: str) -> None:
        """Neither a file onto itself nor a folder below itself."""
        call = getattr(changed_tree, operation)
        for source, into in (("labels.json", "labels.json"), ("images", "images"), ("images", "images/in")):
            with pytest.raises(StorageConfigError) as caught:
                call(source, into)
            full = changed_tree._full(into, operation)
            assert f"the target {full!r} is the source, or inside it" == caught.value.reason
        assert TREE == contents(changed_tree)

    @pytest.mark.parametrize("operation", ["copy", "move"])
    def test_what_is_not_there_cannot_be_copied_or_moved(self, target: Storage, operation: str) -> None:
        """It says which."""
        with pytest.raises(StorageNotFoundError) as caught:
            getattr(target, operation)("none", "new")

        assert_tells(caught.value, target, operation, "none")
        assert not target.exists("new")

    def test_a_folder_is_made_and_deleted(self, target: Storage) -> None:
        """Where the service has folders; elsewhere neither does anything."""
        target.make_folder("made/inner")
        target.make_folder("made")
        assert target.provider.has_folders == target.exists("made/inner")

        target.delete_folder("made")
        assert not target.exists("made")

    def test_only_an_empty_folder_is_deleted_as_one(self, changed_tree: Storage) -> None:
        """Its files stay, be it an error or not."""
        try:
            changed_tree.delete_folder("images")
        except StorageError as error:
            assert_tells(error, changed_tree, "delete_folder", "images")
        assert TREE == contents(changed_tree)
