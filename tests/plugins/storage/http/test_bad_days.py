"""What goes wrong between a storage and a web server, and what is said then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugins.storage.http.answering import Answer, Asked, answering
from tests.plugins.storage.http.conftest import Opened
from tests.storage_servers.proxies import cutting_proxy, failing_proxy, stalling_proxy
from tests.storage_servers.web import HttpServer

from synapse_kernel.storage import (
    RetryPolicy,
    Storage,
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
    TransferProgress,
)

LARGE = bytes(range(256)) * 4096 * 12
ONCE = RetryPolicy(attempts=1)


def failure_of(call: object, *arguments: object) -> StorageError:
    with pytest.raises(StorageError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value


@pytest.fixture
def folder(http: HttpServer) -> str:
    return http.make_folder()


def put(http: HttpServer, folder: str, name: str, content: bytes) -> str:
    (http.files / folder / name).write_bytes(content)
    return f"{folder}/{name}"


def test_a_cut_download_goes_on_where_it_broke_off(
    http: HttpServer, folder: str, opened: Opened, tmp_path: Path
) -> None:
    key = put(http, folder, "large", LARGE)
    told: list[TransferProgress] = []
    with cutting_proxy(http.port, 3_000_000, times=3) as proxy:
        report = opened(http.through(proxy.port).url).download(key, tmp_path / "got", progress=told.append)

    assert 3 == proxy.faults
    assert LARGE == (tmp_path / "got").read_bytes()
    assert len(LARGE) == report.bytes
    # Nothing was got twice but what was under way.
    assert max(progress.bytes for progress in told) == len(LARGE)


def test_a_cut_download_begins_again_where_the_server_knows_no_ranges(
    http: HttpServer, folder: str, opened: Opened, tmp_path: Path
) -> None:
    key = put(http, folder, "large", LARGE)
    with cutting_proxy(http.port, 3_000_000) as proxy:
        report = opened(http.through(proxy.port).no_ranges_url).download(key, tmp_path / "got")

    assert LARGE == (tmp_path / "got").read_bytes()
    assert len(LARGE) == report.bytes


def test_a_cut_upload_is_sent_again_and_nobody_sees_half(
    http: HttpServer, folder: str, opened: Opened, tmp_path: Path
) -> None:
    key = put(http, folder, "large", b"before")
    (tmp_path / "large").write_bytes(LARGE)
    with cutting_proxy(http.port, 3_000_000, of="request") as proxy:
        report = opened(http.through(proxy.port).url).upload(tmp_path / "large", key)

    assert (1, LARGE) == (proxy.faults, (http.files / key).read_bytes())
    assert len(LARGE) == report.bytes


def test_an_upload_that_is_always_cut_leaves_what_was_there(
    http: HttpServer, folder: str, opened: Opened, tmp_path: Path
) -> None:
    key = put(http, folder, "large", b"before")
    (tmp_path / "large").write_bytes(LARGE)
    with cutting_proxy(http.port, 3_000_000, times=99, of="request") as proxy:
        error = failure_of(
            Storage(opened(http.through(proxy.port).url).provider, retries=ONCE).upload,
            tmp_path / "large",
            key,
        )

    assert isinstance(error, StorageConnectionError)
    assert (
        f"Storage 'http': upload {key!r}: the connection broke off: "
        == str(error)[: len(f"Storage 'http': upload {key!r}: the connection broke off: ")]
    )
    assert b"before" == (http.files / key).read_bytes()


def test_a_file_that_changes_between_two_parts_is_noticed(
    http: HttpServer, folder: str, opened: Opened
) -> None:
    storage = opened(http.url)
    key = put(http, folder, "file", b"first content")
    with storage.open(key, "rb") as file:
        put(http, folder, "file", b"other content")
        # nginx tells contents apart by their size and second.
        os.utime(http.files / key, (1, 1))
        error = failure_of(file.read)

    assert isinstance(error, StorageIntegrityError)
    assert str(error) == f"Storage 'http': read {key!r}: it changed since it was looked at: begin again"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(http: HttpServer, folder: str, opened: Opened, status: int) -> None:
    key = put(http, folder, "file", b"content")
    with failing_proxy(http.port, status, times=3) as proxy:
        assert b"content" == opened(http.through(proxy.port).url).read_bytes(key)

    assert 3 == proxy.faults


def test_writing_and_listing_are_tried_again_too(http: HttpServer, folder: str, opened: Opened) -> None:
    with failing_proxy(http.port, 503, times=2, matching=lambda method, _: method == "PUT") as proxy:
        opened(http.through(proxy.port).url).write_bytes(f"{folder}/file", b"content")
    with failing_proxy(http.port, 503, times=2) as proxy:
        found = [entry.key for entry in opened(http.through(proxy.port).url).list(folder)]

    assert [f"{folder}/file"] == found


def test_a_server_that_stays_broken_says_so_in_the_end(http: HttpServer, folder: str, opened: Opened) -> None:
    with failing_proxy(http.port, 500, times=99) as proxy:
        storage = Storage(
            opened(http.through(proxy.port).url).provider, retries=RetryPolicy(attempts=3, initial=0.01)
        )
        error = failure_of(storage.read_bytes, f"{folder}/file")

    assert 3 == proxy.faults
    assert isinstance(error, StorageConnectionError)
    assert str(error) == (f"Storage 'http': read '{folder}/file': the server answered 500 InternalError")


def test_a_wait_that_the_server_asks_for_is_kept(http: HttpServer, folder: str, opened: Opened) -> None:
    key = put(http, folder, "file", b"content")
    with failing_proxy(http.port, 503, 2, {"Retry-After": "1"}) as proxy:
        storage = Storage(opened(http.through(proxy.port).url).provider, retries=ONCE)
        assert b"content" == storage.read_bytes(key)

    assert 2 == proxy.faults


def test_a_long_wait_is_left_to_the_caller(http: HttpServer, folder: str, opened: Opened) -> None:
    with failing_proxy(http.port, 429, 99, {"Retry-After": "3600"}) as proxy:
        error = failure_of(opened(http.through(proxy.port).url).read_bytes, f"{folder}/file")

    assert 1 == proxy.faults
    assert str(error) == (
        f"Storage 'http': read '{folder}/file': the server is busy (429), and asks to wait 3600 s: "
        "try again then"
    )


def test_a_server_that_never_answers_is_given_up(opened: Opened) -> None:
    with stalling_proxy() as proxy:
        storage = Storage(
            opened(f"http://127.0.0.1:{proxy.port}/", timeout=0.2).provider,
            retries=RetryPolicy(attempts=2, initial=0.01),
        )
        error = failure_of(storage.read_bytes, "file")

    assert 2 == proxy.faults
    assert isinstance(error, StorageConnectionError)
    assert str(error) == "Storage 'http': read 'file': no answer within the time-out"


def test_a_download_that_stalls_goes_on(
    http: HttpServer, folder: str, opened: Opened, tmp_path: Path
) -> None:
    key = put(http, folder, "large", LARGE)
    with stalling_proxy(http.port, after_bytes=4_000_000, times=1) as proxy:
        opened(http.through(proxy.port).url, timeout=1).download(key, tmp_path / "got")

    assert 1 == proxy.faults
    assert LARGE == (tmp_path / "got").read_bytes()


def test_a_slow_server_is_waited_for(http: HttpServer, folder: str, opened: Opened, tmp_path: Path) -> None:
    key = put(http, folder, "file", LARGE[:100_000])
    opened(http.slow_url, timeout=5).download(key, tmp_path / "got")

    assert LARGE[:100_000] == (tmp_path / "got").read_bytes()


def test_a_port_that_nobody_listens_on_refuses(opened: Opened) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        storage = Storage(opened(f"http://127.0.0.1:{held.getsockname()[1]}").provider, retries=ONCE)
        error = failure_of(storage.read_bytes, "file")

    assert isinstance(error, StorageConnectionError)
    assert str(error) == "Storage 'http': read 'file': no connection: Connection refused"


def test_an_unknown_host_is_said_at_once(opened: Opened) -> None:
    error = failure_of(opened("http://no-such-host.invalid/").read_bytes, "file")

    assert isinstance(error, StorageConnectionError)
    assert str(error) == "Storage 'http': read 'file': the host is not known: look at the URL"
    assert not error.transient


def test_what_does_not_speak_http_is_named(opened: Opened) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        talker = subprocess.Popen(
            [sys.executable, "-c", "import sys;from socket import *;s=socket(fileno=0);c=s.accept()[0];"
             "c.recv(99);c.sendall(b'SSH-2.0-OpenSSH\\r\\n');c.close()"],
            stdin=listening.fileno(),
        )  # fmt: skip
        error = failure_of(
            Storage(opened(f"http://127.0.0.1:{port}").provider, retries=ONCE).read_bytes, "file"
        )
        talker.wait(30)

    assert str(error) == (
        "Storage 'http': read 'file': what answers does not speak HTTP: look at the port, and at https"
    )


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        ({}, "wants credentials"),
        ({"username": "reader", "password": "wrong"}, "refuses these credentials"),
        ({"token": "wrong"}, "refuses these credentials"),
    ],
)
def test_wrong_credentials_are_a_matter_of_permission(
    http: HttpServer, opened: Opened, credentials: dict[str, object], reason: str
) -> None:
    storage = opened(http.private_url, **credentials)
    for call, operation in ((storage.read_bytes, "read"), (storage.info, "info")):
        error = failure_of(call, "file")
        assert isinstance(error, StoragePermissionError)
        assert str(error) == (
            f"Storage 'http': {operation} 'file': the server {reason} (401 Unauthorized): look at "
            "`username` and `password`, `token` or `headers`"
        )
    with pytest.raises(StoragePermissionError):
        storage.write_bytes("file", b"")
    with pytest.raises(StoragePermissionError):
        list(storage.list())


def test_a_missing_header_is_a_matter_of_permission(http: HttpServer, folder: str, opened: Opened) -> None:
    key = put(http, folder, "file", b"content")
    name, value = http.header

    error = failure_of(opened(http.header_url).read_bytes, key)

    assert isinstance(error, StoragePermissionError)
    assert str(error) == f"Storage 'http': read {key!r}: the server does not allow it (403 Forbidden)"
    assert b"content" == opened(http.header_url, headers={name: value}).read_bytes(key)


def test_a_server_that_takes_no_writes_says_so(http: HttpServer, folder: str, opened: Opened) -> None:
    storage = opened(http.read_only_url)
    key = put(http, folder, "file", b"content")

    written, deleted = failure_of(storage.write_bytes, key, b""), failure_of(storage.delete, key)

    assert isinstance(written, StorageUploadError)
    assert str(written) == (
        f"Storage 'http': write {key!r}: the server takes no writes: it answered PUT with 405 Not Allowed"
    )
    assert str(deleted) == (
        f"Storage 'http': delete {key!r}: the server takes no writes: it answered DELETE with 405 Not Allowed"
    )
    assert b"content" == (http.files / key).read_bytes()


def test_a_server_that_lists_nothing_says_so(http: HttpServer, folder: str, opened: Opened) -> None:
    with answering(lambda asked: Answer(404 if asked.method == "HEAD" else 200, {}, b"hello")) as server:
        error = failure_of(lambda: list(opened(server.url).list("folder")))

    assert str(error) == (
        "Storage 'http': list 'folder': this server does not list its folders, neither as JSON or a page of "
        "links (nginx: autoindex on) nor by WebDAV: name each file"
    )


def test_moving_a_file_onto_a_folder_deletes_nothing(
    http: HttpServer, folder: str, opened: Opened, in_webdav: Storage
) -> None:
    for storage in (opened(http.url + folder), in_webdav):
        storage.write_bytes("file", b"file")
        storage.write_bytes("folder/inner", b"inner")
        for call in (storage.move, storage.copy):
            failure_of(call, "file", "folder")
            assert (b"file", b"inner") == (
                storage.read_bytes("file"),
                storage.read_bytes("folder/inner"),
            )


def test_what_the_server_says_of_its_content_is_verified(opened: Opened, tmp_path: Path) -> None:
    digest = "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:"  # of b"test"
    with answering(lambda _: Answer(200, {"Repr-Digest": digest}, b"tesd")) as server:
        storage = Storage(opened(server.url).provider, retries=ONCE)
        error = failure_of(storage.download, "file", tmp_path / "got")

    assert isinstance(error, StorageIntegrityError)
    assert "and the server says 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" in str(
        error
    )
    assert [] == list(tmp_path.iterdir())


def test_what_is_gone_is_not_found(opened: Opened) -> None:
    with answering(lambda _: Answer(410)) as server:
        assert isinstance(failure_of(opened(server.url).read_bytes, "file"), StorageNotFoundError)


def test_a_head_that_is_refused_is_asked_otherwise(opened: Opened) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method != "GET":
            return Answer(403)
        return Answer(206, {"Content-Range": "bytes 0-0/7", "ETag": '"1"'}, b"c")

    with answering(answer) as server:
        entry = opened(server.url).info("file")

    assert (7, '"1"') == (entry.size, entry.etag)
    assert {"range": "bytes=0-0"}.items() <= server.asked[-1].headers.items()


def test_a_content_of_unknown_length_is_got(opened: Opened, tmp_path: Path) -> None:
    with answering(lambda _: Answer(200, {}, b"content", tells_length=False)) as server:
        storage = opened(server.url)
        storage.download("file", tmp_path / "got")

        assert (b"content", b"content") == (storage.read_bytes("file"), (tmp_path / "got").read_bytes())
