"""What is particular to objects: names that others made, markers, ETags, parts and signed URLs."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.plugins.storage.s3.buckets import bucket_of, storage_of
from tests.storage_servers.proxies import failing_proxy
from tests.storage_servers.s3 import S3Server

from synapse_kernel.storage import (
    Entry,
    Storage,
    StorageConfigError,
    StorageError,
    StorageIntegrityError,
)
from synapse_plugins.storage.object_stores import PART

LARGE = 3 * PART + 1234


@pytest.fixture
def storage(moto: S3Server) -> Storage:
    return storage_of(moto)


def put(server: S3Server, storage: Storage, *keys: str, body: bytes = b"") -> None:
    for key in keys:
        server.client.put_object(Bucket=bucket_of(storage), Key=key, Body=body)


def found(storage: Storage, folder: str = "", *, recursive: bool = False) -> list[tuple[str, bool]]:
    return sorted((entry.key, entry.is_folder) for entry in storage.list(folder, recursive=recursive))


def test_a_marker_of_a_folder_is_no_file(moto: S3Server, storage: Storage) -> None:
    put(moto, storage, "empty/", "full/", "full/inner/", "full/file", "file")
    assert [("empty", True), ("file", False), ("full", True)] == found(storage)
    assert [("full/file", False), ("full/inner", True)] == found(storage, "full")
    assert [] == found(storage, "empty")
    assert [("file", False), ("full/file", False)] == found(storage, recursive=True)
    assert storage.info("empty").is_folder


def test_a_folder_is_deleted_with_its_markers(moto: S3Server, storage: Storage) -> None:
    put(moto, storage, "a/", "a/b ü/", "a/b ü/file", "c")
    storage.delete("a", recursive=True)
    assert [("c", False)] == found(storage)
    assert not storage.exists("a")


def test_a_key_that_is_a_file_and_a_folder_is_both(moto: S3Server, storage: Storage) -> None:
    put(moto, storage, "both", "both/inner", body=b"x")
    assert [("both", False), ("both", True)] == found(storage)
    assert [("both", False), ("both/inner", False)] == found(storage, recursive=True)
    assert not storage.info("both").is_folder
    assert b"x" == storage.read_bytes("both/inner")


@pytest.mark.parametrize("key", ["folder//name", "folder/../name", "folder/./name"])
def test_a_name_that_is_no_key_is_told_where_it_is_met(moto: S3Server, storage: Storage, key: str) -> None:
    put(moto, storage, key, "beside/file", body=b"x")
    assert [("beside/file", False)] == found(storage, "beside", recursive=True)
    assert b"x" == storage.read_bytes("beside/file")
    with pytest.raises(StorageError) as caught:
        list(storage.list(recursive=True))
    assert (
        f"Storage 's3': list: the bucket holds an object named {key!r}, which is no key (a part of it is "
        "empty, '.' or '..'), and what lies beside it cannot be listed: rename it with another tool"
        == str(caught.value)
    )


def test_a_key_with_a_line_break_is_refused(storage: Storage) -> None:
    with pytest.raises(StorageConfigError) as caught:
        storage.write_bytes("a\nb", b"x")
    assert "Storage 's3': write 'a\\nb': a key cannot hold control characters, such as line breaks" == str(
        caught.value
    )


def test_the_md5_is_told_of_what_was_written_at_once(s3: S3Server) -> None:
    storage = storage_of(s3)
    storage.write_bytes("a", b"content")
    assert {"md5": "9a0364b9e99bb480dd25e1f0284c8555"} == storage.info("a").checksums


def test_an_object_that_was_changed_on_its_way_is_refused(
    moto: S3Server, storage: Storage, tmp_path: Path
) -> None:
    put(moto, storage, "a", body=b"content")
    with failing_proxy(
        moto.port, 200, 1000, {"ETag": '"9a0364b9e99bb480dd25e1f0284c8555"', "Last-Modified": MODIFIED},
        matching=lambda method, path: method == "GET", body="cantent",
    ) as proxy:  # fmt: skip
        changed = storage_of(moto.through(proxy.port), bucket_of(storage))
        with pytest.raises(StorageIntegrityError) as caught:
            changed.read_bytes("a")
        with pytest.raises(StorageIntegrityError):
            changed.download("a", tmp_path / "a")
    assert "Storage 's3': read 'a': what arrived does not have the MD5 of its ETag" == str(caught.value)
    assert [] == list(tmp_path.iterdir())


MODIFIED = "Mon, 23 Nov 2026 12:00:00 GMT"


def test_an_etag_of_an_object_that_the_service_encrypts_is_not_taken_for_its_md5(
    moto: S3Server, storage: Storage
) -> None:
    moto.client.put_object(
        Bucket=bucket_of(storage), Key="a", Body=b"other", ServerSideEncryption="aws:kms", SSEKMSKeyId="k"
    )
    with failing_proxy(
        moto.port, 200, 1000, {"ETag": '"9a0364b9e99bb480dd25e1f0284c8555"', "Last-Modified": MODIFIED},
        matching=lambda method, path: method == "GET", body="other",
    ) as proxy:  # fmt: skip
        assert b"other" == storage_of(moto.through(proxy.port), bucket_of(storage)).read_bytes("a")


def test_an_object_that_changes_while_it_is_read_is_noticed(s3: S3Server) -> None:
    storage = storage_of(s3)
    storage.write_bytes("a", b"1" * 3_000_000)
    with storage.open("a", "rb") as file:
        assert b"1" == file.read(1)
        storage.write_bytes("a", b"2" * 3_000_000)
        file.seek(2_000_000)
        with pytest.raises(StorageIntegrityError) as caught:
            file.read(1)
    assert "Storage 's3': read 'a': it changed while it was read" == str(caught.value)


def test_a_large_file_goes_up_and_down_in_parts(s3: S3Server, tmp_path: Path) -> None:
    storage = storage_of(s3)
    content = b"".join(number.to_bytes(4, "big") * 256 for number in range(LARGE // 1024 + 1))
    (tmp_path / "large").write_bytes(content)
    storage.upload(tmp_path / "large", "large")
    storage.download("large", tmp_path / "got")
    assert content == (tmp_path / "got").read_bytes()
    assert content[PART - 5 : PART + 5] == storage.read_bytes("large", start=PART - 5, length=10)
    assert content[-5:] == storage.read_bytes("large", start=len(content) - 5, length=100)


def test_a_download_goes_on_after_what_an_earlier_one_got(storage: Storage, tmp_path: Path) -> None:
    content = bytes(LARGE)
    storage.write_bytes("large", content)
    (tmp_path / "part").write_bytes(content[:PART])
    moved: list[int] = []
    storage.provider.get_file(storage.info("large"), tmp_path / "part", moved.append)
    assert LARGE - PART == sum(moved)
    assert content == (tmp_path / "part").read_bytes()


def test_a_file_is_put_with_a_signed_url(s3: S3Server) -> None:
    storage = storage_of(s3)
    url = storage.signed_url("a folder/ü 100%.txt", 60, method="PUT")
    fields = {"Content-Type": "application/octet-stream"}
    with urllib.request.urlopen(urllib.request.Request(url, b"content", fields, method="PUT")):
        pass
    assert b"content" == storage.read_bytes("a folder/ü 100%.txt")


@pytest.mark.parametrize("expires", [0, 8 * 24 * 3600])
def test_a_signed_url_is_not_valid_for_good(storage: Storage, expires: int) -> None:
    with pytest.raises(StorageConfigError) as caught:
        storage.signed_url("a", expires)
    assert (
        "Storage 's3': signed_url 'a': a signed URL is valid for 1 to 604,800 seconds (7 days), not "
        f"{expires}" == str(caught.value)
    )


@pytest.mark.slow
def test_a_thousand_and_more_keys_are_listed_and_deleted(storage: Storage, tmp_path: Path) -> None:
    for number in range(1203):
        (tmp_path / f"{number:04}").write_bytes(b"x" if number % 100 else b"")
    storage.upload(tmp_path, "many")
    assert 1203 == len(found(storage, "many", recursive=True)) == len(found(storage, "many"))
    assert 1203 == storage.delete("many", recursive=True).files
    assert [] == found(storage)


def test_an_entry_without_an_etag_is_read(storage: Storage) -> None:
    storage.write_bytes("a", b"content")
    assert b"onte" == storage.provider.read(Entry(key="a", size=7), 1, 4)


SPARSE = """
import resource, sys
from pathlib import Path
from synapse_kernel.storage import Storage
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.s3.provider import S3Provider
endpoint, key, secret, bucket, source, target = sys.argv[1:]
values = {"endpoint_url": endpoint, "access_key": key, "secret_key": secret, "bucket_name": bucket}
storage = Storage(S3Provider(configured(S3Provider, values)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage.upload(source, "sparse")
storage.download("sparse", target)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_sparse_file_of_5_gib_goes_through_a_bounded_memory(rclone: S3Server, tmp_path: Path) -> None:
    source, target = tmp_path / "sparse", tmp_path / "got"
    size = 5 << 30
    with source.open("wb") as file:
        file.truncate(size)
    ended = subprocess.run(
        [
            sys.executable, "-c", SPARSE, rclone.endpoint_url, rclone.access_key, rclone.secret_key,
            rclone.make_bucket(), str(source), str(target),
        ],
        check=True, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert int(ended.stdout) < 150
    assert size == target.stat().st_size
    target.unlink()
