"""The provider `local`: where its files lie, how they are linked, and bad days of a file system."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.storage import (
    Storage,
    StorageConfigError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
)
from synapse_kernel.storage.local_trees import part_name
from synapse_kernel.testing.storage_parts import keys_of, tree_of, write_tree
from synapse_plugins.storage.local import copying
from synapse_plugins.storage.local.provider import LocalConfiguration, LocalProvider

LARGE = os.urandom(1 << 20) * 9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> Storage:
    return opened(root)


def opened(location: Path | str) -> Storage:
    return Storage(LocalProvider(LocalConfiguration(location=str(location))))


def names(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir())


# Where the files lie


def test_the_folder_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    opened("data/set").write_bytes("file", b"1")

    assert {"data/set/file": b"1"} == tree_of(tmp_path)


def test_a_relative_folder_stays_the_one_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    storage = opened("data")
    monkeypatch.chdir("/")
    storage.write_bytes("file", b"1")

    assert {"data/file": b"1"} == tree_of(tmp_path)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    opened("~/data").write_bytes("file", b"1")

    assert {"data/file": b"1"} == tree_of(tmp_path)


def test_the_folder_is_made_on_the_first_write_and_not_before(storage: Storage, root: Path):
    assert ([], 0) == (list(storage.list()), storage.get_path_file_count())
    assert (True, False) == (storage.info().is_folder, storage.exists("file"))
    assert not root.exists()

    storage.write_bytes("a/file", b"1")
    assert {"a/file": b"1"} == tree_of(root)


@pytest.mark.parametrize("name", ["local", "file_system", "local_file_system"])
def test_it_is_opened_by_its_names(kernel: Kernel, root: Path, name: str):
    storage = kernel.storage({"provider": name, "configuration": {"location": str(root)}})

    assert (f"file://{root}", "local") == (storage.url, storage.provider.name)


@pytest.mark.parametrize("name", ["plain", "a b%20c#d?e", "ü", "with:colon"])
def test_the_path_of_a_url_is_literal(kernel: Kernel, tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("content")

    for url in (f"file://{tmp_path}/{name}", f"file://localhost{tmp_path}/{name}/"):
        storage = kernel.storage(url)
        assert b"content" == storage.read_bytes("file")
        assert f"file://{tmp_path}/{name}/file" == storage.get_url("file")


def test_the_root_of_the_machine_is_a_root(kernel: Kernel, tmp_path: Path):
    (tmp_path / "file").write_text("content")
    storage = kernel.storage("file:///")

    assert b"content" == storage.read_bytes(f"{tmp_path}/file".lstrip("/"))
    assert ["file"] == keys_of(storage.at(f"{tmp_path}".lstrip("/")).list())


def test_a_url_of_another_host_is_refused(kernel: Kernel):
    with pytest.raises(StorageConfigError) as caught:
        kernel.storage("file://data/set")

    assert (
        "Storage 'local': open: 'file://data/set' names the host 'data': a path of this machine has three "
        "slashes, as in file:///data"
    ) == str(caught.value)


def test_an_empty_location_is_refused(kernel: Kernel):
    with pytest.raises(StorageConfigError) as caught:
        kernel.storage({"provider": "local", "configuration": {"location": "", "folder": "/"}})

    assert (
        "Storage 'local': the configuration cannot be used:\n"
        "  location: String should have at least 1 character\n"
        "  folder: there is no such key; keys: location"
    ) == str(caught.value)


# How they are written


def test_a_file_being_written_is_not_listed(storage: Storage, root: Path, tmp_path: Path):
    storage.write_bytes("folder/file", b"before")
    local = tmp_path / "large"
    local.write_bytes(LARGE)
    seen: list[tuple[list[str], int]] = []

    def look(_: object) -> None:
        files = keys_of(storage.list(recursive=True)), len(names(root / "folder"))
        seen.append(files)

    storage.upload(local, "folder/new", progress=look)

    assert (["folder/file"], 2) == seen[0]
    assert ["folder/file", "folder/new"] == keys_of(storage.list("folder"))
    assert ["file", "new"] == names(root / "folder")


def test_what_a_killed_writer_left_is_not_listed_nor_in_the_way(storage: Storage, root: Path):
    storage.write_bytes("folder/deep/file", b"1")
    (root / "folder" / "deep" / part_name()).write_text("half")

    assert ["folder/deep/file"] == keys_of(storage.list(recursive=True))
    storage.delete("folder", recursive=True)
    assert not (root / "folder").exists()


def test_a_new_file_has_the_mode_that_the_user_asked_for(storage: Storage, root: Path):
    before = os.umask(0o027)
    try:
        storage.write_bytes("file", b"1")
    finally:
        os.umask(before)

    assert 0o640 == stat.S_IMODE((root / "file").stat().st_mode)


def test_modification_times_are_kept_through_a_round_trip(storage: Storage, tmp_path: Path):
    local = tmp_path / "file"
    local.write_text("old")
    os.utime(local, (1_234_567_890.5, 1_234_567_890.5))
    storage.upload(local, "up")
    storage.copy("up", "copied")
    storage.move("copied", "moved")
    storage.download("moved", tmp_path / "down")

    assert 1_234_567_890.5 == (tmp_path / "down").stat().st_mtime


def test_a_sparse_file_stays_sparse(storage: Storage, root: Path, tmp_path: Path):
    local = tmp_path / "sparse"
    with local.open("wb") as file:
        file.write(b"begin")
        file.seek(5 << 30)
        file.write(b"end")
    if local.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system keeps no holes")

    assert local.stat().st_size == storage.upload(local, "sparse").bytes

    there = root / "sparse"
    assert (local.stat().st_size, True) == (there.stat().st_size, there.stat().st_blocks * 512 < 1 << 20)
    assert b"begin\0" == storage.read_bytes("sparse", start=0, length=6)
    assert b"\0end" == storage.read_bytes("sparse", start=(5 << 30) - 1)


def test_a_file_of_nothing_but_a_hole_is_copied(storage: Storage, root: Path, tmp_path: Path):
    local = tmp_path / "hole"
    local.touch()
    os.truncate(local, 10 << 20)
    storage.upload(local, "hole")

    assert bytes(10 << 20) == (root / "hole").read_bytes()


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.ENOSYS])
def test_where_the_system_does_not_copy_the_bytes_are_read_and_written(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
):
    def refuse(*_: object) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(copying.os, "copy_file_range", refuse)
    (tmp_path / "large").write_bytes(LARGE)

    assert len(LARGE) == storage.upload(tmp_path / "large", "large").bytes
    assert LARGE == storage.read_bytes("large")


def test_a_file_changed_since_it_was_looked_at_is_not_read(storage: Storage):
    storage.write_bytes("file", b"before")
    entry = storage.info("file")
    storage.write_bytes("file", b"after!")

    with pytest.raises(StorageIntegrityError, match="it was changed since it was looked at: try again"):
        storage.provider.read(entry, 0, 6)


# Links that are asked for


def test_hard_links_are_made_where_they_are_asked_for(storage: Storage, root: Path, tmp_path: Path):
    local = write_tree(tmp_path / "tree", {"a/b": b"1", "c": b"22"})

    report = storage.upload(local, "up", link="hardlink")
    storage.download("up", tmp_path / "down", link="hardlink")

    assert (2, 3) == (report.files, report.bytes)
    assert {"a/b": b"1", "c": b"22"} == tree_of(tmp_path / "down") == tree_of(root / "up")
    for name in ("a/b", "c"):
        numbers = {(place / name).stat().st_ino for place in (local, root / "up", tmp_path / "down")}
        assert 1 == len(numbers)


def test_a_hard_link_over_another_of_the_same_file_leaves_nothing_beside(
    storage: Storage, root: Path, tmp_path: Path
):
    local = tmp_path / "file"
    local.write_text("content")
    for _ in range(2):
        storage.upload(local, "file", link="hardlink")
        storage.download("file", local, link="hardlink")

    assert ["file"] == names(root)
    assert ["file", "root"] == names(tmp_path)


def test_a_link_to_a_file_is_not_what_is_linked(storage: Storage, root: Path, tmp_path: Path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    storage.upload(tmp_path / "link", "file", link="hardlink")

    assert (False, b"content") == ((root / "file").is_symlink(), (root / "file").read_bytes())


@pytest.mark.parametrize("link", ["hardlink", "reflink"])
def test_where_no_link_can_be_made_it_is_copied(
    storage: Storage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr("fcntl.ioctl", refuse)
    local = tmp_path / "file"
    local.write_text("content")
    storage.upload(local, "file", link=link)
    storage.download("file", tmp_path / "down", link=link)

    assert b"content" == (root / "file").read_bytes() == (tmp_path / "down").read_bytes()
    assert 1 == (root / "file").stat().st_nlink
    assert ["file"] == names(root)


# Bad days


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_what_was_there(tiny: Path, tmp_path: Path):
    storage = opened(tiny / "data")
    storage.write_bytes("file", b"before")
    local = tmp_path / "large"
    local.write_bytes(LARGE)
    for call in (
        lambda: storage.upload(local, "file"),
        lambda: storage.write_bytes("file", LARGE),
        lambda: storage.write_bytes("new", LARGE),
    ):
        with pytest.raises(StorageUploadError, match="no space is left at the target"):
            call()

    assert {"file": b"before"} == tree_of(tiny / "data")


def test_a_full_disk_of_the_download_leaves_what_was_there(tiny: Path, storage: Storage):
    storage.write_bytes("large", LARGE)
    (tiny / "large").write_bytes(b"before")
    with pytest.raises(StorageUploadError) as caught:
        storage.download("large", tiny / "large")

    assert "Storage 'local': download 'large': no space is left at the target" == str(caught.value)
    assert {"large": b"before"} == tree_of(tiny)


def test_a_limit_on_the_size_of_files_leaves_what_was_there(storage: Storage, root: Path):
    storage.write_bytes("file", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError) as caught:
            storage.write_bytes("file", LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "Storage 'local': write 'file': File too large" == str(caught.value)
    assert {"file": b"before"} == tree_of(root)


FORBIDDEN = """
import os, sys
root, local = sys.argv[1:]
from synapse_kernel.storage import Storage
from synapse_plugins.storage.local.provider import LocalConfiguration, LocalProvider
storage = Storage(LocalProvider(LocalConfiguration(location=root)))
# Whatever is imported on first use is so before: Python itself may be out of the other's reach.
storage.exists("none")
storage.download("open", root + "/warm")
os.setgid(65534)
os.setuid(65534)
for call in (
    lambda: storage.read_bytes("secret"),
    lambda: storage.write_bytes("closed/file", b"x"),
    lambda: storage.delete("closed/there"),
    lambda: storage.info("sealed/file"),
    lambda: list(storage.list("sealed")),
    lambda: storage.download("open", local + "/new"),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_is_not_allowed_says_whose_it_is():
    """As another user: whoever runs the tests may be allowed everything."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(prefix="synapse-") as made:
        Path(made).chmod(0o755)
        root, local = Path(made, "root"), Path(made, "local")
        write_tree(root, {"secret": b"", "closed/there": b"", "sealed/file": b"", "open": b""})
        local.mkdir(mode=0o755)
        (root / "secret").chmod(0o600)
        (root / "closed").chmod(0o755)
        (root / "sealed").chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(root), str(local)],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def refused(operation: str, key: str) -> str:
        return (
            f"StoragePermissionError Storage 'local': {operation} {key!r}: user 65534 is not allowed to: see "
            f"the owner and mode of {root}/{key} and above it"
        )

    assert [
        refused("read", "secret"),
        refused("write", "closed/file"),
        refused("delete", "closed/there"),
        refused("info", "sealed/file"),
        refused("list", "sealed"),
        f"StoragePermissionError Storage 'local': download 'open': the local folder {local} cannot be "
        f"written to",
    ] == done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("key", ["x" * 256, "folder/" + "é" * 128, "/".join(["part" * 50] * 25)])
def test_a_name_that_is_too_long_says_what_fits(storage: Storage, key: str):
    for call in (lambda: storage.write_bytes(key, b""), lambda: storage.read_bytes(key)):
        with pytest.raises(StorageConfigError) as caught:
            call()
        assert (
            "it is too long: this file system takes 255 bytes for a part of a key, and 4,095 for a path"
            == (caught.value.reason)
        )
    assert [] == list(storage.list(recursive=True))


def test_a_name_of_255_bytes_is_written(storage: Storage):
    storage.write_bytes("n" * 255, b"1")

    assert ["n" * 255] == keys_of(storage.list())


def test_a_name_that_is_no_text_is_named_and_can_be_deleted(storage: Storage, root: Path):
    storage.write_bytes("folder/file", b"1")
    (root / "folder" / "caf\udce9").touch()
    with pytest.raises(StorageConfigError) as caught:
        list(storage.list("folder"))

    assert (
        f"Storage 'local': list 'folder': the name 'caf\\udce9' in {root}/folder is not valid UTF-8, and "
        f"cannot be a key: rename it"
    ) == str(caught.value)
    storage.delete("folder", recursive=True)
    assert not (root / "folder").exists()


def test_a_folder_of_names_that_are_no_text_cannot_be_uploaded(storage: Storage, tmp_path: Path):
    folder = write_tree(tmp_path / "tree", {"a": b""})
    (folder / "caf\udce9").touch()
    with pytest.raises(StorageConfigError, match=r"the name 'caf\\udce9' in .* is not valid UTF-8"):
        storage.upload(folder, "up")


def test_both_unicode_forms_are_their_own_names(storage: Storage, root: Path):
    one, other = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    storage.write_bytes(one, b"1")
    storage.write_bytes(other, b"2")

    assert sorted([one, other]) == names(root)


def test_a_folder_where_a_file_should_be_and_a_file_above(storage: Storage, root: Path):
    write_tree(root, {"folder/file": b"1"})
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: storage.write_bytes("folder", b""), "write 'folder': a folder"),
        (lambda: storage.write_bytes("folder/file/x", b""), "write 'folder/file/x': a file"),
        (lambda: storage.read_bytes("folder"), "read 'folder': a folder"),
        (lambda: list(storage.list("folder/file")), "list 'folder/file': a file"),
        (lambda: storage.make_folder("folder/file"), "make_folder 'folder/file': a file"),
    ]
    for call, text in cases:
        with pytest.raises(StorageError) as caught:
            call()
        assert f"Storage 'local': {text} stands there or above it" == str(caught.value)
    assert {"folder/file": b"1"} == tree_of(root)


def test_a_folder_with_files_is_not_deleted_as_an_empty_one(storage: Storage, root: Path):
    write_tree(root, {"folder/deep/file": b"1"})
    (root / "folder" / "empty").mkdir()
    with pytest.raises(StorageError) as caught:
        storage.delete_folder("folder")

    assert (
        "Storage 'local': delete_folder 'folder': the folder is not empty: delete what is in it, or ask for "
        "that (recursive)"
    ) == str(caught.value)
    assert (root / "folder" / "empty").is_dir()


def test_pipes_sockets_and_devices_are_neither_read_nor_listed(storage: Storage, root: Path, tmp_path: Path):
    write_tree(root, {"file": b"1"})
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    text = "it is neither a file nor a folder: a pipe, a socket or a device"
    for call in (lambda: storage.read_bytes("pipe"), lambda: storage.info("socket")):
        with pytest.raises(StorageError, match=text):
            call()
    with pytest.raises(StorageConfigError) as caught:
        storage.upload(root / "pipe", "up")

    assert f"{root}/pipe is not a file: a folder, a pipe, a socket or a device" == caught.value.reason
    assert ["file"] == keys_of(storage.list())


def test_a_local_file_that_goes_away_is_named(storage: Storage, tmp_path: Path):
    folder = write_tree(tmp_path / "tree", {"a": b""})
    (folder / "b").symlink_to("none")
    with pytest.raises(StorageNotFoundError) as caught:
        storage.upload(folder, "up")

    assert f"Storage 'local': upload 'up/b': there is no local file {folder}/b" == str(caught.value)


def test_a_file_system_mounted_for_reading_only_says_so(tiny: Path):
    if subprocess.run(["mount", "-o", "remount,ro", str(tiny)], capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted for reading only here")
    with pytest.raises(StoragePermissionError) as caught:
        opened(tiny).write_bytes("file", b"")

    assert f"the file system of {tiny}/file is mounted for reading only" == caught.value.reason


def test_no_file_stays_open(storage: Storage, tmp_path: Path):
    """Whatever fails."""
    storage.write_bytes("folder/file", b"1")
    before = names(Path("/proc/self/fd"))
    for _ in range(20):
        for call in (
            lambda: storage.read_bytes("folder"),
            lambda: storage.write_bytes("folder", b""),
            lambda: storage.write_bytes("folder/file/x", b""),
            lambda: storage.info("none"),
            lambda: storage.delete_folder("folder"),
            lambda: storage.download("folder/file", "/proc/none/file"),
        ):
            with pytest.raises(StorageError):
                call()
        next(storage.list())

    assert before == names(Path("/proc/self/fd"))
