"""What the provider `s3` takes, and where it finds what is not given."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.plugins.storage.s3.buckets import ONCE, storage_of
from tests.storage_servers.proxies import stalling_proxy
from tests.storage_servers.s3 import S3Server

from synapse_kernel import Kernel
from synapse_kernel.storage import Storage, StorageConfigError, StoragePermissionError
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.s3.provider import S3Provider

VARIABLES = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
]


@pytest.fixture(autouse=True)
def _no_aws_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def without_keys(server: S3Server, **more: object) -> Storage:
    return storage_of(server, access_key=None, secret_key=None, region_name=None, **more)


def test_a_url_names_the_bucket_and_the_folder_in_it() -> None:
    with Kernel() as kernel:
        storage = kernel.storage("s3://a-bucket/data sets/100%")
        assert "s3://a-bucket/data sets/100%/a.txt" == storage.get_url("a.txt")


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StorageConfigError) as caught:
        S3Provider.from_url("s3:///folder")
    assert "Storage 's3': open: the URL 's3:///folder' names no bucket: write s3://BUCKET/FOLDER" == str(
        caught.value
    )


def test_every_mistake_is_told_at_once_and_no_secret() -> None:
    with pytest.raises(StorageConfigError) as caught:
        configured(
            S3Provider,
            {"bucket": "b", "secret_key": "hidden", "endpoint_url": "localhost:9000", "prefix": "../x"},
        )
    assert """\
Storage 's3': the configuration cannot be used:
  bucket_name: Field required
  prefix: Value error, a key cannot leave the root of its storage: '..' is not allowed in it
  endpoint_url: Value error, it begins with http:// or https://
  bucket: there is no such key; did you mean 'bucket_name'?; keys: access_key, anonymous, bucket_name, \
endpoint_url, prefix, region_name, secret_key, session_token, timeout""" == str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"secret_key": "hidden"}, "access_key and secret_key are given together, or neither of them"),
        ({"session_token": "hidden"}, "session_token belongs to an access_key and a secret_key"),
    ],
)
def test_half_of_the_keys_is_a_mistake(values: dict[str, object], reason: str) -> None:
    with pytest.raises(StorageConfigError) as caught:
        configured(S3Provider, {"bucket_name": "b", **values})
    assert f"Storage 's3': the configuration cannot be used:\n  Value error, {reason}" == str(caught.value)


def test_keys_come_from_the_environment(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone.secret_key)
    storage = without_keys(rclone)
    storage.write_bytes("a", b"content")
    assert b"content" == storage.read_bytes("a")


def test_a_session_token_of_the_environment_does_not_go_with_other_keys(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-other-keys")
    url = storage_of(moto).signed_url("a")
    assert "Security-Token" not in url
    assert "X-Amz-Security-Token=mine" in storage_of(moto, session_token="mine").signed_url("a")


def test_keys_and_region_come_from_a_profile(
    rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"[work]\naws_access_key_id = {rclone.access_key}\naws_secret_access_key = {rclone.secret_key}\n"
    )
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    storage = without_keys(rclone)
    storage.write_bytes("a", b"content")
    assert b"content" == storage.read_bytes("a")
    assert "eu-west-1" in storage.signed_url("a")


def test_a_profile_that_is_not_there_is_named(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    with pytest.raises(StorageConfigError) as caught:
        without_keys(moto)
    assert (
        f"Storage 's3': open: the profile 'wrok' (AWS_PROFILE) has no keys in {tmp_path / 'credentials'} or "
        f"{tmp_path / 'config'}" == str(caught.value)
    )


def test_without_keys_a_machine_that_does_not_answer_is_not_waited_for(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling_proxy() as proxy:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{proxy.port}")
        storage = without_keys(moto, retries=ONCE, timeout=1)
        start = time.monotonic()
        with pytest.raises(StoragePermissionError) as caught:
            storage.write_bytes("a", b"content")
        assert time.monotonic() - start < 30
    assert (
        "Storage 's3': write 'a': no credentials were found: give access_key and secret_key, or set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure (anonymous: true asks for public "
        "data without any)" == str(caught.value)
    )


def test_public_data_is_asked_for_without_keys(moto: S3Server) -> None:
    bucket = moto.make_bucket()
    moto.client.put_object(Bucket=bucket, Key="a", Body=b"content", ACL="public-read")
    storage = storage_of(moto, bucket, access_key=None, secret_key=None, anonymous=True)
    assert b"content" == storage.read_bytes("a")


def test_the_endpoint_of_the_environment_is_taken(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint_url)
    storage = storage_of(moto, endpoint_url=None)
    storage.write_bytes("a", b"content")
    assert b"content" == storage.read_bytes("a")
