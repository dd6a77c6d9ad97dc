"""What the provider `s3` does when keys, names, servers or connections are not what they should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.storage.s3.buckets import ONCE, QUICK, bucket_of, storage_of
from tests.storage_servers.proxies import cutting_proxy, failing_proxy, stalling_proxy
from tests.storage_servers.s3 import S3Server

from synapse_kernel.storage import (
    Storage,
    StorageConnectionError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
    TransferProgress,
)

LARGE = 30 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(b"".join(number.to_bytes(4, "big") * 256 for number in range(LARGE >> 10)))
    return path


def unfinished(server: S3Server, bucket: str) -> list[str]:
    answer = server.client.list_multipart_uploads(Bucket=bucket)
    return [upload["Key"] for upload in answer.get("Uploads", [])]


OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read_bytes("a"),
    "write": lambda storage: storage.write_bytes("a", b"x"),
    "info": lambda storage: storage.info("a"),
    "list": lambda storage: list(storage.list()),
}


@pytest.mark.parametrize("operation", ["read", "write", "list"])
def test_a_wrong_secret_is_refused(rclone: S3Server, operation: str) -> None:
    storage = storage_of(rclone, secret_key="a-wrong-key")
    with pytest.raises(StoragePermissionError) as caught:
        OPERATIONS[operation](storage)
    what = "list" if operation == "list" else f"{operation} 'a'"
    assert (
        f"Storage 's3': {what}: the credentials are refused (SignatureDoesNotMatch): check access_key and "
        "secret_key" == str(caught.value)
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_bucket_that_is_not_there_is_named(s3: S3Server, operation: str) -> None:
    storage = storage_of(s3, "no-such-bucket")
    with pytest.raises(StorageNotFoundError) as caught:
        OPERATIONS[operation](storage)
    assert str(caught.value).endswith(
        f": there is no bucket 'no-such-bucket' at {s3.endpoint_url}: check bucket_name"
    )


def test_a_port_where_nobody_listens_is_told_soon(moto: S3Server) -> None:
    storage = storage_of(moto, "bucket", endpoint_url="http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(StorageConnectionError) as caught:
        storage.read_bytes("a")
    assert time.monotonic() - start < 15
    assert "Storage 's3': read 'a': http://127.0.0.1:1 refuses connections: does a server run there?" == str(
        caught.value
    )


def test_a_host_that_is_not_known_is_told_soon(moto: S3Server) -> None:
    storage = storage_of(moto, "bucket", endpoint_url="http://no-such-host.invalid")
    start = time.monotonic()
    with pytest.raises(StorageConnectionError) as caught:
        storage.read_bytes("a")
    assert time.monotonic() - start < 15
    assert (
        "Storage 's3': read 'a': the host of http://no-such-host.invalid is not known: check endpoint_url"
        == str(caught.value)
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_never_answers_is_given_up(moto: S3Server, operation: str) -> None:
    with stalling_proxy() as proxy:
        storage = storage_of(moto.through(proxy.port), "bucket", timeout=0.5, retries=ONCE)
        start = time.monotonic()
        with pytest.raises(StorageConnectionError) as caught:
            OPERATIONS[operation](storage)
        assert time.monotonic() - start < 15
    assert caught.value.transient
    assert str(caught.value).endswith("did not answer within the time-out")


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_fails_three_times_is_asked_again(s3: S3Server, status: int, operation: str) -> None:
    bucket = s3.make_bucket()
    s3.client.put_object(Bucket=bucket, Key="a", Body=b"x")
    with failing_proxy(s3.port, status, 3) as proxy:
        OPERATIONS[operation](storage_of(s3.through(proxy.port), bucket))
        assert 3 == proxy.faults


def test_a_server_that_stays_overloaded_is_given_up(moto: S3Server) -> None:
    bucket = moto.make_bucket()
    with failing_proxy(moto.port, 503, 1000) as proxy:
        storage = storage_of(moto.through(proxy.port), bucket, retries=ONCE)
        with pytest.raises(StorageConnectionError) as caught:
            storage.write_bytes("a", b"x")
        assert f"Storage 's3': write 'a': http://127.0.0.1:{proxy.port} is overloaded (SlowDown)" == str(
            caught.value
        )
    assert caught.value.transient


def test_a_download_that_is_cut_off_goes_on(s3: S3Server, large: Path, tmp_path: Path) -> None:
    bucket = s3.make_bucket()
    storage_of(s3, bucket).upload(large, "large")
    with cutting_proxy(s3.port, 3 << 20, 3) as proxy:
        storage_of(s3.through(proxy.port), bucket).download("large", tmp_path / "got")
        assert proxy.faults
    assert large.read_bytes() == (tmp_path / "got").read_bytes()
    assert ["got"] == [path.name for path in tmp_path.iterdir()]


def test_an_upload_that_is_cut_off_is_made_again(s3: S3Server, large: Path) -> None:
    bucket = s3.make_bucket()
    with cutting_proxy(s3.port, 5 << 20, 3, of="request") as proxy:
        storage_of(s3.through(proxy.port), bucket).upload(large, "large")
        assert proxy.faults
    assert large.read_bytes() == storage_of(s3, bucket).read_bytes("large")


def test_progress_counts_each_byte_once_whatever_broke_off(
    moto: S3Server, large: Path, tmp_path: Path
) -> None:
    bucket = moto.make_bucket()
    seen: list[TransferProgress] = []
    with cutting_proxy(moto.port, 3 << 20, 3) as proxy:
        storage = storage_of(moto.through(proxy.port), bucket)
        storage.upload(large, "large")
        storage.download("large", tmp_path / "got", progress=seen.append)
        assert proxy.faults
    assert LARGE == seen[-1].bytes == max(progress.bytes for progress in seen)


def test_progress_of_an_upload_that_is_made_again_counts_each_byte_once(moto: S3Server, large: Path) -> None:
    bucket = moto.make_bucket()
    seen: list[TransferProgress] = []
    third = 4  # obstore asks for a part four times before it gives up
    with failing_proxy(
        moto.port, 500, third, matching=lambda method, path: method == "PUT" and "partNumber=3" in path
    ) as proxy:
        storage_of(moto.through(proxy.port), bucket).upload(large, "large", progress=seen.append)
        assert third == proxy.faults
    assert LARGE == seen[-1].bytes == max(progress.bytes for progress in seen)
    assert [] == unfinished(moto, bucket)


def test_a_file_that_changes_while_it_is_uploaded_leaves_nothing_or_what_it_was(
    moto: S3Server, tmp_path: Path
) -> None:
    path = tmp_path / "changing"
    path.write_bytes(bytes(LARGE))
    storage = storage_of(moto, retries=ONCE)

    def change(progress: TransferProgress) -> None:
        del progress
        path.write_bytes(b"1" * LARGE)

    with pytest.raises(StorageUploadError, match="changed while it was read"):
        storage.upload(path, "key", progress=change)
    assert not storage.exists("key")
    assert [] == unfinished(moto, bucket_of(storage))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ArithmeticError])
def test_an_upload_that_is_stopped_leaves_nothing(
    moto: S3Server, large: Path, stop: type[BaseException]
) -> None:
    storage = storage_of(moto)

    def raise_it(progress: TransferProgress) -> None:
        if progress.bytes > 10 << 20:
            raise stop

    with pytest.raises((stop, StorageError)):
        storage.upload(large, "key", progress=raise_it)
    assert not storage.exists("key")
    assert [] == unfinished(moto, bucket_of(storage))


def test_an_upload_whose_parts_fail_leaves_nothing(moto: S3Server, large: Path) -> None:
    bucket = moto.make_bucket()
    with failing_proxy(
        moto.port, 500, 1000, matching=lambda method, path: method == "PUT" and "partNumber=3" in path
    ) as proxy:
        storage = storage_of(moto.through(proxy.port), bucket, retries=ONCE)
        with pytest.raises(StorageConnectionError):
            storage.upload(large, "key")
    assert not storage_of(moto, bucket).exists("key")
    assert [] == unfinished(moto, bucket)


def test_a_failure_that_does_not_pass_is_not_tried_again(moto: S3Server) -> None:
    bucket = moto.make_bucket()
    with failing_proxy(moto.port, 403, 1000, body="<Error><Code>AccessDenied</Code></Error>") as proxy:
        storage = storage_of(moto.through(proxy.port), bucket, retries=QUICK)
        with pytest.raises(StoragePermissionError) as caught:
            storage.write_bytes("a", b"x")
        assert 1 == proxy.faults
    assert "Storage 's3': write 'a': the credentials are refused, or do not allow this (AccessDenied)" == str(
        caught.value
    )


def test_a_bucket_of_another_region_is_told(moto: S3Server) -> None:
    body = "<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    with failing_proxy(moto.port, 301, 1000, body=body) as proxy:
        storage = storage_of(moto.through(proxy.port), "a-bucket")
        with pytest.raises(StorageError) as caught:
            storage.write_bytes("a", b"x")
    assert "Storage 's3': write 'a': the bucket 'a-bucket' is in another region: give region_name" == str(
        caught.value
    )
