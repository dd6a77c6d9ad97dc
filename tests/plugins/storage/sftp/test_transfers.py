"""Transfers on bad days: cut connections, a full disk, files that change, two writers."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.storage_servers.programs import need_program, speaks_first, wait_for
from tests.storage_servers.proxies import cutting_proxy, stalling_proxy
from tests.storage_servers.sftp import SftpServer, sftp_server

from synapse_kernel.storage import (
    RetryPolicy,
    Storage,
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StoragePermissionError,
    StorageUploadError,
    TransferProgress,
)
from synapse_kernel.storage.local_trees import is_part

from .conftest import Opened

LARGE = 24 << 20
CONTENT = random.Random(5).randbytes(LARGE)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a local file that is sent in many pieces."""
    file = tmp_path / "large"
    file.write_bytes(CONTENT)
    return file


def names_in(folder: Path) -> list[str]:
    """Return all names below a folder, hidden ones too."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*"))


def test_a_download_goes_on_where_the_connection_was_cut(
    opened: Opened, sftp: SftpServer, place: Path, tmp_path: Path
) -> None:
    (place / "file").write_bytes(CONTENT)
    heard: list[TransferProgress] = []
    with cutting_proxy(sftp.port, LARGE // 2) as proxy:
        report = opened(sftp.through(proxy.port), place).download(
            "file", tmp_path / "got", progress=heard.append
        )

        assert (1, 2) == (proxy.faults, proxy.connections)
    assert CONTENT == (tmp_path / "got").read_bytes()
    # What came before the cut came once.
    assert LARGE == report.bytes
    assert sorted(one.bytes for one in heard) == [one.bytes for one in heard]


def test_an_upload_goes_on_where_the_connection_was_cut(
    opened: Opened, sftp: SftpServer, place: Path, large: Path
) -> None:
    heard: list[TransferProgress] = []
    with cutting_proxy(sftp.port, LARGE // 2, of="request") as proxy:
        # Storage itself does not try again: it is one call that goes on.
        storage = opened(sftp.through(proxy.port), place, retries=RetryPolicy(attempts=1))
        report = storage.upload(large, "file", progress=heard.append)

        assert (1, 2) == (proxy.faults, proxy.connections)
    assert CONTENT == (place / "file").read_bytes()
    assert ["file"] == names_in(place)
    assert LARGE == report.bytes
    assert sorted(one.bytes for one in heard) == [one.bytes for one in heard]


def test_small_files_are_sent_again_after_a_cut(
    opened: Opened, sftp: SftpServer, place: Path, tmp_path: Path
) -> None:
    for number in range(60):
        (place / f"{number:02}").write_bytes(bytes([number]) * 100_000)
    with cutting_proxy(sftp.port, 3_000_000) as proxy:
        storage = opened(sftp.through(proxy.port), place)
        storage.download("", tmp_path / "got")
        assert 1 == proxy.faults
    with cutting_proxy(sftp.port, 3_000_000, of="request") as proxy:
        opened(sftp.through(proxy.port), place).upload(tmp_path / "got", "again")
        assert 1 == proxy.faults

    for folder in (tmp_path / "got", place / "again"):
        assert {f"{number:02}": bytes([number]) * 100_000 for number in range(60)} == {
            file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")
        }


def test_a_connection_that_is_cut_each_time_ends_in_an_error_and_leaves_the_file_as_it_was(
    opened: Opened, sftp: SftpServer, place: Path, large: Path
) -> None:
    (place / "file").write_bytes(b"before")
    with cutting_proxy(sftp.port, 100_000, times=10_000, of="request") as proxy:
        storage = opened(sftp.through(proxy.port), place, retries=RetryPolicy(attempts=2, initial=0.05))
        with pytest.raises(StorageConnectionError) as caught:
            storage.upload(large, "file")

    assert str(caught.value).startswith("Storage 'sftp': upload 'file': the connection broke off: ")
    assert b"before" == (place / "file").read_bytes()


def test_what_a_cut_left_over_is_removed_by_the_next_connection(
    opened: Opened, sftp: SftpServer, place: Path, large: Path
) -> None:
    with cutting_proxy(sftp.port, 100_000, times=4, of="request") as proxy:
        storage = opened(sftp.through(proxy.port), place, retries=RetryPolicy(attempts=1))
        with pytest.raises(StorageConnectionError):
            storage.upload(large, "file")
        assert 1 == len([name for name in names_in(place) if is_part(name)])
        storage.write_bytes("other", b"")

        assert 5 == proxy.connections
        wait_for(lambda: ["other"] == names_in(place), "clean folder")


def test_a_server_that_falls_silent_is_given_up(
    opened: Opened, sftp: SftpServer, place: Path, tmp_path: Path
) -> None:
    (place / "file").write_bytes(CONTENT)
    with stalling_proxy(sftp.port, LARGE // 2, times=1) as proxy:
        opened(sftp.through(proxy.port), place, timeout=1.5).download("file", tmp_path / "got")

        # On a busy machine the second connection may be given up as well.
        assert 1 == proxy.faults
        assert 2 <= proxy.connections
    assert CONTENT == (tmp_path / "got").read_bytes()


def test_a_server_that_is_killed_is_used_again_when_it_is_back(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with sftp_server(tmp_path / "server") as server:
        storage = opened(server, retries=RetryPolicy(attempts=30, initial=0.1, maximum=0.5))
        storage.write_bytes("file", b"before")
        listener = psutil.Process(server.pid)
        for process in [*listener.children(recursive=True), listener]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        listener.wait(30)
        with restarted(server):
            assert b"before" == storage.read_bytes("file")
            storage.write_bytes("file", b"after")

            assert b"after" == (server.root / "file").read_bytes()


@contextlib.contextmanager
def restarted(server: SftpServer) -> Iterator[None]:
    """Run the server again after a while, on its old port."""
    process = None

    def start() -> None:
        nonlocal process
        command = [need_program("sshd", "openssh-server"), "-D", "-e", "-p", str(server.port)]
        process = subprocess.Popen(
            [*command, "-f", server.folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    timer = threading.Timer(0.5, start)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        assert process is not None
        for inner in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                inner.kill()
        process.kill()
        process.wait(30)


@pytest.mark.parametrize("size", [1 << 20, LARGE])
def test_a_full_disk_is_told_and_nothing_is_left(
    opened: Opened, sftp: SftpServer, tmp_path: Path, small_disk: Path, size: int
) -> None:
    (small_disk / "file").write_bytes(b"before")
    source = tmp_path / "source"
    source.write_bytes(CONTENT[:size])

    with pytest.raises(StorageUploadError) as caught:
        opened(sftp, small_disk).upload(source, "file")

    assert "Storage 'sftp': upload 'file': no space is left at the target" == str(caught.value)
    wait_for(lambda: ["file"] == names_in(small_disk), "clean folder")
    assert b"before" == (small_disk / "file").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with room for half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, timeout=60
    )
    if mounted.returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, timeout=60)


def test_a_server_that_is_read_only_is_told(opened: Opened, sftp_read_only: SftpServer, large: Path) -> None:
    storage = opened(sftp_read_only)
    (sftp_read_only.root / "file").write_bytes(b"content")
    for call in (
        lambda: storage.write_bytes("new", b""),
        lambda: storage.upload(large, "file"),
        lambda: storage.make_folder("folder"),
        lambda: storage.delete("file"),
    ):
        with pytest.raises(
            StoragePermissionError, match="not allowed: the user whom the server knows may not"
        ):
            call()

    assert b"content" == storage.read_bytes("file")
    assert ["file"] == names_in(sftp_read_only.root)


@pytest.mark.parametrize("size", [100_000, LARGE])
def test_a_file_that_changes_while_it_is_uploaded_is_not_written(
    storage: Storage, place: Path, tmp_path: Path, size: int
) -> None:
    (place / "file").write_bytes(b"before")
    source = tmp_path / "source"
    source.write_bytes(CONTENT[:size])

    def change(progress: TransferProgress) -> None:
        os.utime(source, ns=(0, progress.bytes))

    with pytest.raises(StorageUploadError, match="changed while it was read"):
        storage.upload(source, "file", progress=change)

    assert b"before" == (place / "file").read_bytes()
    assert ["file"] == names_in(place)


def test_a_file_that_changes_while_it_is_downloaded_is_not_given(
    storage: Storage, place: Path, tmp_path: Path
) -> None:
    (place / "file").write_bytes(CONTENT)
    (tmp_path / "got").write_bytes(b"before")

    def change(progress: TransferProgress) -> None:
        os.utime(place / "file", (5, 5))

    with pytest.raises(StorageIntegrityError) as caught:
        storage.download("file", tmp_path / "got", progress=change)

    assert (
        "Storage 'sftp': download 'file': it changed while it was read: let its writer finish, and try again"
    ) == str(caught.value)
    assert b"before" == (tmp_path / "got").read_bytes()


def test_a_file_that_changed_since_it_was_opened_is_not_read_on(storage: Storage, place: Path) -> None:
    (place / "file").write_bytes(CONTENT)
    with storage.open("file", "rb") as file:
        assert CONTENT[:10] == file.read(10)
        (place / "file").write_bytes(CONTENT[::-1] + b"longer")

        with pytest.raises(StorageIntegrityError, match="it changed while it was read"):
            file.read()


def test_of_two_writers_one_has_its_content_there_whole(
    opened: Opened, sftp: SftpServer, place: Path
) -> None:
    contents = [bytes([number]) * (2 << 20) for number in range(4)]
    storages = [opened(sftp, place) for _ in contents]
    threads = [
        threading.Thread(target=storage.write_bytes, args=("file", content))
        for storage, content in zip(storages, contents, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (place / "file").read_bytes() in contents
    assert ["file"] == names_in(place)


def test_a_name_that_is_too_long_is_an_error_that_says_so(storage: Storage, place: Path) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write_bytes("x" * 256, b"")

    assert str(caught.value).endswith(
        "the server takes no such name: a part of it may be too long, or hold what it does not allow"
    )
    wait_for(lambda: [] == names_in(place), "clean folder")


def test_a_server_without_extensions_is_written_moved_and_copied_on(
    opened: Opened, tmp_path: Path, large: Path
) -> None:
    (tmp_path / "server").mkdir()
    with sftp_server(tmp_path / "server") as server, without_extensions(server) as plain:
        storage = opened(plain)
        storage.upload(large, "a")
        storage.write_bytes("b", b"small")
        storage.write_bytes("b", b"again")
        storage.copy("b", "c")
        storage.move("b", "a")

        assert {"a": b"again", "c": b"again"} == {
            entry.key: storage.read_bytes(entry.key) for entry in storage.list()
        }


@contextlib.contextmanager
def without_extensions(server: SftpServer) -> Iterator[SftpServer]:
    """Run another sshd over the same files, which offers nothing that SFTP 3 does not have."""
    denied = "posix-rename,copy-data,limits,statvfs,fstatvfs"
    config = server.folder / "plain_config"
    text = (server.folder / "sshd_config").read_text()
    assert "sftp-server" in text or "internal-sftp" in text
    config.write_text(
        "".join(
            f"{line} -P {denied}\n" if line.startswith("Subsystem") else f"{line}\n"
            for line in text.splitlines()
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    sshd = need_program("sshd", "openssh-server")
    with subprocess.Popen(
        [sshd, "-D", "-e", "-p", str(port), "-f", config], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: speaks_first(port), "the plain sshd")
            yield server.through(port)
        finally:
            process.terminate()
