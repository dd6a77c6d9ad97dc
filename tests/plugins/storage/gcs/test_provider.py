"""What is particular to the provider `gcs`: credentials, names that others made, and bad days."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.storage.gcs.buckets import QUICK, storage_of
from tests.storage_servers.gcs import GcsServer
from tests.storage_servers.proxies import cutting_proxy, failing_proxy, stalling_proxy

from synapse_kernel import Kernel
from synapse_kernel.storage import (
    RetryPolicy,
    Storage,
    StorageConfigError,
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
    TransferProgress,
)
from synapse_plugins.storage.gcs.explaining import NO_KEYS
from synapse_plugins.storage.gcs.provider import GcsProvider
from synapse_plugins.storage.object_stores import PART

ONCE = RetryPolicy(attempts=1)
LARGE = 3 * PART + 1234

OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read_bytes("a"),
    "write": lambda storage: storage.write_bytes("a", b"x"),
    "info": lambda storage: storage.info("a"),
    "list": lambda storage: list(storage.list()),
}


def put(storage: Storage, *names: str, body: bytes = b"") -> None:
    provider = storage.provider
    assert isinstance(provider, GcsProvider)
    with provider._connections.bucket() as bucket:
        for name in names:
            bucket.blob(name).upload_from_string(body)


def found(storage: Storage, folder: str = "", *, recursive: bool = False) -> list[tuple[str, bool]]:
    return sorted((entry.key, entry.is_folder) for entry in storage.list(folder, recursive=recursive))


def test_a_url_names_the_bucket_and_the_folder_in_it() -> None:
    with Kernel() as kernel:
        storage = kernel.storage("gs://a-bucket/data sets/100%")
        assert "gs://a-bucket/data sets/100%/a.txt" == storage.get_url("a.txt")


def test_a_marker_of_a_folder_is_no_file(gcs: GcsServer) -> None:
    storage = storage_of(gcs)
    put(storage, "empty/", "full/", "full/inner/", "full/file", "file")
    assert [("empty", True), ("file", False), ("full", True)] == found(storage)
    assert [("full/file", False), ("full/inner", True)] == found(storage, "full")
    assert [("file", False), ("full/file", False)] == found(storage, recursive=True)
    storage.delete("full", recursive=True)
    assert not storage.exists("full")


def test_names_that_are_no_keys_do_not_hide_others(gcs: GcsServer, tmp_path: Path) -> None:
    storage = storage_of(gcs)
    put(storage, "folder//name", "folder/file", body=b"x")
    assert [("folder/file", False)] == found(storage, "folder")
    assert {"folder/file", "folder//name"} == {entry.key for entry in storage.list(recursive=True)}
    with pytest.raises(StorageConfigError) as caught:
        storage.download("", tmp_path)
    assert "Storage 'gcs': download 'folder//name': this key has no place in a folder" == str(caught.value)


def test_a_key_that_is_a_file_and_a_folder_is_both(gcs: GcsServer) -> None:
    storage = storage_of(gcs)
    put(storage, "both", "both/inner", body=b"x")
    assert [("both", False), ("both", True)] == found(storage)


def test_the_service_tells_the_checksums(gcs: GcsServer) -> None:
    storage = storage_of(gcs)
    storage.write_bytes("a", b"content")
    assert {"md5": "9a0364b9e99bb480dd25e1f0284c8555", "crc32c": "c3dfc3d6"}.keys() == storage.info(
        "a"
    ).checksums.keys()
    assert "9a0364b9e99bb480dd25e1f0284c8555" == storage.info("a").checksums["md5"]


def test_an_object_that_changes_while_it_is_read_is_noticed(gcs: GcsServer) -> None:
    storage = storage_of(gcs)
    storage.write_bytes("a", b"1" * 3_000_000)
    with storage.open("a", "rb") as file:
        assert b"1" == file.read(1)
        storage.write_bytes("a", b"2" * 3_000_000)
        file.seek(2_000_000)
        with pytest.raises(StorageIntegrityError) as caught:
            file.read(1)
    assert "Storage 'gcs': read 'a': it changed while it was read" == str(caught.value)


def test_a_large_file_goes_up_and_down_in_parts(gcs: GcsServer, tmp_path: Path) -> None:
    storage = storage_of(gcs)
    content = b"".join(number.to_bytes(4, "big") * 256 for number in range(LARGE // 1024 + 1))
    (tmp_path / "large").write_bytes(content)
    seen: list[TransferProgress] = []
    storage.upload(tmp_path / "large", "large", progress=seen.append)
    assert len(content) == seen[-1].bytes
    storage.download("large", tmp_path / "got", progress=seen.append)
    assert len(content) == seen[-1].bytes
    assert content == (tmp_path / "got").read_bytes()


def test_a_download_that_is_cut_off_goes_on(gcs: GcsServer, tmp_path: Path) -> None:
    bucket = gcs.make_bucket()
    storage_of(gcs, bucket).write_bytes("large", bytes(LARGE))
    with cutting_proxy(gcs.port, 3 << 20, 3) as proxy:
        storage_of(gcs.through(proxy.port), bucket).download("large", tmp_path / "got")
        assert proxy.faults
    assert bytes(LARGE) == (tmp_path / "got").read_bytes()


def test_a_file_that_changes_while_it_is_uploaded_is_not_there(gcs: GcsServer, tmp_path: Path) -> None:
    path = tmp_path / "changing"
    path.write_bytes(bytes(LARGE))
    storage = storage_of(gcs, retries=ONCE)

    def change(progress: TransferProgress) -> None:
        del progress
        path.write_bytes(b"1" * LARGE)

    with pytest.raises(StorageUploadError, match="changed while it was read"):
        storage.upload(path, "key", progress=change)
    assert not storage.exists("key")


@pytest.mark.parametrize("operation", ["write", "list"])
def test_a_bucket_that_is_not_there_is_named(gcs: GcsServer, operation: str) -> None:
    storage = storage_of(gcs, "no-such-bucket")
    with pytest.raises(StorageNotFoundError) as caught:
        OPERATIONS[operation](storage)
    assert str(caught.value).endswith(
        f": there is no bucket 'no-such-bucket' at {gcs.endpoint_url}: check bucket_name"
    )


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1 refuses connections: does a server run there?"),
        (
            "http://no-such-host.invalid",
            "the host of http://no-such-host.invalid is not known: check endpoint_url",
        ),
    ],
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_is_not_there_is_told_soon(
    gcs: GcsServer, endpoint: str, reason: str, operation: str
) -> None:
    storage = storage_of(gcs, "bucket", endpoint_url=endpoint)
    start = time.monotonic()
    with pytest.raises(StorageConnectionError) as caught:
        OPERATIONS[operation](storage)
    assert time.monotonic() - start < 15
    assert str(caught.value).endswith(f": {reason}")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_never_answers_is_given_up(gcs: GcsServer, operation: str) -> None:
    with stalling_proxy() as proxy:
        storage = storage_of(gcs.through(proxy.port), "bucket", timeout=0.5, retries=ONCE)
        start = time.monotonic()
        with pytest.raises(StorageConnectionError) as caught:
            OPERATIONS[operation](storage)
        assert time.monotonic() - start < 15
    assert caught.value.transient
    assert str(caught.value).endswith("did not answer within the time-out")


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_fails_three_times_is_asked_again(gcs: GcsServer, status: int, operation: str) -> None:
    bucket = gcs.make_bucket()
    put(storage_of(gcs, bucket), "a", body=b"x")
    with failing_proxy(gcs.port, status, 3) as proxy:
        OPERATIONS[operation](storage_of(gcs.through(proxy.port), bucket, retries=QUICK))
        assert 3 == proxy.faults


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, NO_KEYS), (403, "the credentials do not allow this")],
)
def test_credentials_that_are_refused_are_told_at_once(gcs: GcsServer, status: int, reason: str) -> None:
    with failing_proxy(gcs.port, status, 1000) as proxy:
        storage = storage_of(gcs.through(proxy.port), "bucket")
        with pytest.raises(StoragePermissionError) as caught:
            storage.write_bytes("a", b"x")
        assert 1 == proxy.faults
    assert f"Storage 'gcs': write 'a': {reason}" == str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the file {path}: No such file or directory"),
        (
            '{"type": "nonsense", "private_key": "hidden"}',
            "the file {path} is of the type 'nonsense'; types: service_account, authorized_user. For "
            "others set GOOGLE_APPLICATION_CREDENTIALS to the file",
        ),
        ('{"type": "service_account"}', "the file {path} is not that of a Google account"),
        ("not JSON", "the file {path} is not that of a Google account"),
    ],
)
def test_a_file_that_holds_no_credentials_is_named(
    gcs: GcsServer, tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    storage = storage_of(gcs, "bucket", credentials=str(path))
    with pytest.raises(StorageConfigError) as caught:
        storage.write_bytes("a", b"x")
    assert f"Storage 'gcs': open: the credentials cannot be used: {reason.format(path=path)}" == str(
        caught.value
    )


def test_json_that_holds_no_credentials_is_not_shown(gcs: GcsServer) -> None:
    storage = storage_of(gcs, "bucket", credentials='{"private_key": "hidden"}')
    with pytest.raises(StorageConfigError) as caught:
        storage.write_bytes("a", b"x")
    assert (
        "Storage 'gcs': open: the credentials cannot be used: the JSON in it is not that of a Google "
        "account" == str(caught.value)
    )


def test_a_service_account_signs_urls(gcs: GcsServer) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "client_email": "a@b.iam.gserviceaccount.com", "token_uri": "http://x",
        "private_key": key.decode(), "project_id": "p",
    }  # fmt: skip
    storage = storage_of(gcs, "bucket", credentials=json.dumps(account))
    url = urllib.parse.urlsplit(storage.signed_url("a b", 60))
    assert "/bucket/a%20b" == url.path
    assert ["60"] == urllib.parse.parse_qs(url.query)["X-Goog-Expires"]


def test_without_a_service_account_there_are_no_signed_urls(gcs: GcsServer) -> None:
    with pytest.raises(StorageError) as caught:
        storage_of(gcs, "bucket").signed_url("a")
    assert (
        "Storage 'gcs': signed_url 'a': only a service account can sign a URL: give its file as credentials"
        == str(caught.value)
    )


def test_without_credentials_it_is_told_what_to_give(
    gcs: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    storage = storage_of(gcs, "bucket", endpoint_url=None)
    with pytest.raises(StoragePermissionError) as caught:
        storage.read_bytes("a")
    assert str(caught.value).startswith(
        "Storage 'gcs': read 'a': no credentials were found: give credentials"
    )
