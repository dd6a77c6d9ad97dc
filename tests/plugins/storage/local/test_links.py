"""Symbolic links below the root of a local storage, and those that lead out of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel.storage import Storage, StorageError, StoragePermissionError
from synapse_kernel.testing.storage_parts import keys_of, tree_of
from synapse_plugins.storage.local.provider import LocalConfiguration, LocalProvider

SECRET = "a secret of somebody else"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "file").write_text("inner")
    (folder / "out").symlink_to(outside)
    (folder / "up").symlink_to("../outside")
    (folder / "secret").symlink_to(outside / "secret")
    (folder / "new").symlink_to(outside / "not there yet")
    (folder / "in").symlink_to("real")
    (folder / "absolute").symlink_to(folder / "real")
    (folder / "inner").symlink_to("real/file")
    (folder / "nowhere").symlink_to("none")
    (folder / "real" / "around").symlink_to("..")
    (folder / "itself").symlink_to("itself")
    return folder


@pytest.fixture
def storage(root: Path) -> Storage:
    return Storage(LocalProvider(LocalConfiguration(location=str(root))))


OUTWARD: dict[str, Callable[[Storage, str, Path], object]] = {
    "read": lambda storage, key, _: storage.read_bytes(key),
    "open": lambda storage, key, _: storage.open(key),
    "info": lambda storage, key, _: storage.info(key),
    "exists": lambda storage, key, _: storage.exists(key),
    "download": lambda storage, key, local: storage.download(key, local / "got"),
    "delete": lambda storage, key, _: storage.delete(key),
    "copy": lambda storage, key, _: storage.copy(key, "copied"),
    "move": lambda storage, key, _: storage.move(key, "moved"),
    "write": lambda storage, key, _: storage.write_bytes(key, b"overwritten"),
    "upload": lambda storage, key, local: storage.upload(__file__, key),
}


@pytest.mark.parametrize("key", ["secret", "out/secret", "up/secret"])
@pytest.mark.parametrize("operation", OUTWARD)
def test_a_file_outside_cannot_be_reached_through_a_link(
    storage: Storage, root: Path, outside: Path, operation: str, key: str
):
    before = sorted(root.iterdir())
    with pytest.raises(StoragePermissionError) as caught:
        OUTWARD[operation](storage, key, outside.parent)

    led_to = outside if operation in {"write", "upload"} and "/" in key else outside / "secret"
    assert (
        f"Storage 'local': {operation} {key!r}: a symbolic link leads out of the root {root}, to {led_to}: "
        f"a storage gives only what is below its root"
    ) == str(caught.value)
    assert {"secret": SECRET.encode()} == tree_of(outside)
    assert before == sorted(root.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.write_bytes("out/made/file", b""),
        lambda storage: storage.write_bytes("new", b""),
        lambda storage: storage.make_folder("out/made"),
        lambda storage: storage.make_folder("up"),
        lambda storage: list(storage.list("out")),
        lambda storage: list(storage.list("out", recursive=True)),
        lambda storage: storage.delete("out", recursive=True),
        lambda storage: storage.delete_folder("out"),
        lambda storage: storage.copy("real/file", "out/copy"),
        lambda storage: storage.move("real/file", "out/moved"),
        lambda storage: storage.provider.delete(["out/secret"]),
    ],
)
def test_nothing_is_made_listed_or_deleted_outside(storage: Storage, outside: Path, call):
    with pytest.raises((StoragePermissionError, StorageError), match="a symbolic link leads out of the root"):
        call(storage)

    assert {"secret": SECRET.encode()} == tree_of(outside)
    assert b"inner" == storage.read_bytes("real/file")


def test_links_that_stay_inside_are_followed(storage: Storage):
    assert b"inner" == storage.read_bytes("in/file")
    assert b"inner" == storage.read_bytes("absolute/file")
    assert b"inner" == storage.read_bytes("inner")
    assert (True, 5) == (storage.info("in").is_folder, storage.info("inner").size)


def test_writing_through_a_link_writes_what_it_leads_to(storage: Storage, root: Path):
    storage.write_bytes("inner", b"through a file")
    storage.write_bytes("in/second", b"through a folder")
    storage.write_bytes("nowhere", b"through a link to nothing")

    assert b"through a file" == (root / "real" / "file").read_bytes()
    assert b"through a folder" == (root / "real" / "second").read_bytes()
    assert b"through a link to nothing" == (root / "none").read_bytes()
    assert all((root / name).is_symlink() for name in ("inner", "in", "nowhere"))


def test_a_list_has_the_links_that_lead_to_something_inside(storage: Storage):
    assert ["absolute/", "in/", "inner", "real/"] == keys_of(storage.list())
    assert ["absolute/file", "in/file", "inner", "real/file"] == keys_of(storage.list(recursive=True))
    assert ["real/file"] == keys_of(storage.list("real"))


def test_a_link_in_a_circle_is_an_error_not_a_hang(storage: Storage):
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("itself")

    assert "Storage 'local': read 'itself': its symbolic links lead in a circle" == str(caught.value)


def test_deleting_a_folder_deletes_the_links_in_it_and_not_what_they_lead_to(
    storage: Storage, root: Path, outside: Path
):
    folder = root / "doomed"
    (folder / "deep").mkdir(parents=True)
    (folder / "own").write_text("")
    for number, target in enumerate(
        (root / "real", outside, outside / "secret", root / "real" / "file", "x")
    ):
        (folder / "deep" / f"link-{number}").symlink_to(target)

    storage.delete("doomed", recursive=True)

    assert not folder.exists()
    assert {"secret": SECRET.encode()} == tree_of(outside)
    assert b"inner" == storage.read_bytes("real/file")


def test_moving_a_folder_leaves_what_its_links_lead_to(storage: Storage, root: Path):
    (root / "moving").mkdir()
    (root / "moving" / "link").symlink_to("../real")
    (root / "moving" / "one").symlink_to("../real/file")

    storage.move("moving", "moved")

    assert ["moved/link/file", "moved/one"] == keys_of(storage.list("moved", recursive=True))
    assert b"inner" == storage.read_bytes("real/file")
    assert not (root / "moving").exists()


def test_a_folder_that_is_swapped_for_a_link_meanwhile_does_not_lead_out(
    storage: Storage, root: Path, outside: Path
):
    """A thread swaps a folder and a link to the outside as fast as it can."""
    (root / "swapped").mkdir()
    (root / "swapped" / "secret").write_text("mine")
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def put(name: str, at: str) -> None:
        while True:
            try:
                (root / name).rename(root / at)
                return
            except OSError:
                # A write came between two renames, and made the folder that it needs.
                shutil.rmtree(root / at, ignore_errors=True)

    def swap() -> None:
        while not done.is_set():
            put("swapped", "aside")
            put("link", "swapped")
            put("swapped", "link")
            put("aside", "swapped")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for number in range(1500):
            try:
                seen.add(storage.read_bytes("swapped/secret"))
                storage.write_bytes(f"swapped/{number}", b"x")
                seen.update(entry.key.encode() for entry in storage.list("swapped") if entry.size == 25)
                storage.provider.delete([f"swapped/{number}"])
            except StorageError:
                continue
    finally:
        done.set()
        thread.join()

    assert seen <= {b"mine"}
    assert {"secret": SECRET.encode()} == tree_of(outside)


def test_a_root_that_is_another_folder_now_is_used_as_it_is(tmp_path: Path):
    """As with a link ``current`` that is set to the next release."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    current = tmp_path / "current"
    current.symlink_to("one")
    storage = Storage(LocalProvider(LocalConfiguration(location=str(current))))
    assert b"one" == storage.read_bytes("file")

    current.unlink()
    current.symlink_to("two")

    assert b"two" == storage.read_bytes("file")
    storage.write_bytes("new", b"1")
    assert (tmp_path / "two" / "new").exists()
