"""Symbolic links on the server, and those that lead out of the root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage_servers.sftp import SftpServer

from synapse_kernel.storage import Storage, StorageConfigError, StorageError, StoragePermissionError
from synapse_kernel.testing.storage_parts import keys_of, tree_of

from .conftest import Opened

SECRET = b"nobody's business"


@pytest.fixture
def outside(place: Path) -> Path:
    folder = place.with_name(f"{place.name}-outside")
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def linked(storage: Storage, place: Path, outside: Path) -> Storage:
    """Return a storage with links of each kind."""
    (place / "real").mkdir()
    (place / "real" / "file").write_bytes(b"inner")
    (place / "real" / "above").symlink_to("..")
    (place / "in").symlink_to("real")
    (place / "inner").symlink_to(place / "real" / "file")
    (place / "nowhere").symlink_to("none")
    (place / "itself").symlink_to("itself")
    (place / "out").symlink_to(outside)
    (place / "secret").symlink_to(outside / "secret")
    (place / "new").symlink_to(outside / "new")
    return storage


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.read_bytes("secret"),
        lambda storage: storage.read_bytes("out/secret"),
        lambda storage: storage.open("out/secret"),
        lambda storage: storage.exists("secret"),
        lambda storage: storage.info("out"),
        lambda storage: storage.provider.get_file(storage.info("out/secret"), Path("x"), len),
        lambda storage: list(storage.list("out")),
        lambda storage: list(storage.list("out", recursive=True)),
        lambda storage: storage.write_bytes("out/made/file", b""),
        lambda storage: storage.write_bytes("secret", b""),
        lambda storage: storage.write_bytes("new", b""),
        lambda storage: storage.make_folder("out/made"),
        lambda storage: storage.delete("out", recursive=True),
        lambda storage: storage.delete_folder("out"),
        lambda storage: storage.provider.delete(["out/secret"]),
        lambda storage: storage.copy("real/file", "out/copy"),
        lambda storage: storage.move("real/file", "out/moved"),
    ],
)
def test_nothing_outside_is_reached(
    linked: Storage, outside: Path, call: Callable[[Storage], object]
) -> None:
    with pytest.raises(StoragePermissionError, match="a symbolic link leads out of the root"):
        call(linked)

    assert {"secret": SECRET} == tree_of(outside)
    assert b"inner" == linked.read_bytes("real/file")


def test_the_error_says_where_the_link_leads(linked: Storage, place: Path, outside: Path) -> None:
    with pytest.raises(StoragePermissionError) as caught:
        linked.read_bytes("out/secret")

    assert (
        f"Storage 'sftp': read 'out/secret': a symbolic link leads out of the root {place}, to {outside}: a "
        "storage gives only what is below its root"
    ) == str(caught.value)


def test_links_that_stay_inside_are_followed(linked: Storage) -> None:
    assert b"inner" == linked.read_bytes("in/file")
    assert b"inner" == linked.read_bytes("inner")
    assert (True, 5) == (linked.info("in").is_folder, linked.info("inner").size)


def test_a_list_has_the_links_that_lead_to_something_inside(linked: Storage) -> None:
    assert ["in/", "inner", "real/"] == keys_of(linked.list())
    assert ["in/file", "inner", "real/file"] == keys_of(linked.list(recursive=True))


def test_links_to_each_other_end(storage: Storage, place: Path) -> None:
    (place / "a").mkdir()
    (place / "b").mkdir()
    (place / "a" / "to b").symlink_to("../b")
    (place / "b" / "to a").symlink_to("../a")
    (place / "b" / "file").write_bytes(b"")

    assert ["a/to b/file", "b/file"] == keys_of(storage.list(recursive=True))


def test_writing_through_a_link_writes_what_it_leads_to(linked: Storage, place: Path) -> None:
    linked.write_bytes("inner", b"through a file")
    linked.write_bytes("in/second", b"through a folder")
    linked.write_bytes("nowhere", b"through a link to nothing")

    assert b"through a file" == (place / "real" / "file").read_bytes()
    assert b"through a folder" == (place / "real" / "second").read_bytes()
    assert b"through a link to nothing" == (place / "none").read_bytes()
    assert all((place / name).is_symlink() for name in ("inner", "in", "nowhere"))


def test_a_link_in_a_circle_is_an_error(linked: Storage) -> None:
    with pytest.raises(StorageError, match="read 'itself'"):
        linked.read_bytes("itself")


def test_deleting_a_folder_deletes_the_links_in_it_and_not_what_they_lead_to(
    storage: Storage, place: Path, outside: Path
) -> None:
    (place / "real").mkdir()
    (place / "real" / "file").write_bytes(b"inner")
    (place / "doomed" / "deep").mkdir(parents=True)
    (place / "doomed" / ".synapse-0123456789abcdef.part").write_bytes(b"")
    for number, target in enumerate(
        (place / "real", outside, outside / "secret", place / "real" / "file", "x")
    ):
        (place / "doomed" / "deep" / f"link-{number}").symlink_to(target)

    storage.delete("doomed", recursive=True)

    assert not (place / "doomed").exists()
    assert {"secret": SECRET} == tree_of(outside)
    assert b"inner" == storage.read_bytes("real/file")


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(
    opened: Opened, sftp: SftpServer, place: Path, outside: Path
) -> None:
    (place / "root").symlink_to(outside)

    assert SECRET == opened(sftp, place / "root").read_bytes("secret")


def test_a_name_that_is_no_text_is_told(storage: Storage, place: Path) -> None:
    (place / "b\udcff").write_bytes(b"")

    with pytest.raises(StorageConfigError) as caught:
        list(storage.list())

    assert (
        f"Storage 'sftp': list: the name 'b\\udcff' in {place} is not valid UTF-8, and cannot be a key: "
        "rename it"
    ) == str(caught.value)


def test_a_folder_of_many_pages_is_listed_once_each(storage: Storage, place: Path) -> None:
    for number in range(2345):
        (place / f"{number:04}").touch()

    assert [f"{number:04}" for number in range(2345)] == keys_of(storage.list())


def test_a_listing_that_is_left_early_leaves_the_connection_in_order(storage: Storage, place: Path) -> None:
    for number in range(2345):
        (place / f"{number:04}").touch()

    for _ in range(3):
        assert "key" != next(iter(storage.list())).key
    assert storage.exists("0001")


def test_hidden_files_that_are_being_written_are_not_listed(storage: Storage, place: Path) -> None:
    (place / ".synapse-0123456789abcdef.part").touch()
    (place / ".hidden").touch()

    assert [".hidden"] == keys_of(storage.list())
