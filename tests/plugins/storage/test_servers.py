"""The servers that the tests of storage providers rely on do what they say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.storage_servers import programs
from tests.storage_servers.asking import ask
from tests.storage_servers.gcs import GcsServer
from tests.storage_servers.proxies import delay_proxy
from tests.storage_servers.s3 import S3Server
from tests.storage_servers.sftp import SftpServer
from tests.storage_servers.web import HttpServer

SOME = bytes(range(256)) * 4
LARGE = SOME * 1024


# S3


def test_an_object_comes_back_from_a_bucket(s3: S3Server):
    bucket = s3.make_bucket()
    s3.client.put_object(Bucket=bucket, Key="a folder/ü %#?.bin", Body=SOME)
    assert SOME == s3.client.get_object(Bucket=bucket, Key="a folder/ü %#?.bin")["Body"].read()
    listed = s3.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [("a folder/ü %#?.bin", len(SOME))] == [(each["Key"], each["Size"]) for each in listed]


def test_each_bucket_is_a_new_one(s3: S3Server):
    first, second = s3.make_bucket(), s3.make_bucket()
    assert first != second
    assert {first, second} <= {each["Name"] for each in s3.client.list_buckets()["Buckets"]}


def test_an_object_comes_back_in_parts(s3: S3Server):
    bucket = s3.make_bucket()
    upload = s3.client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    parts = []
    for number, body in enumerate([b"a" * (5 << 20), b"b" * 10], 1):
        sent = s3.client.upload_part(
            Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=body
        )
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    s3.client.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    got = s3.client.get_object(Bucket=bucket, Key="parts", Range=f"bytes={(5 << 20) - 2}-{(5 << 20) + 1}")
    assert b"aabb" == got["Body"].read()


def test_rclone_refuses_a_wrong_key(rclone: S3Server):
    from botocore.exceptions import ClientError

    bucket = rclone.make_bucket()
    wrong = S3Server("rclone", rclone.port, rclone.pid, rclone.log, None, secret_key="wrong")
    with contextlib.closing(wrong.client) as client, pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket=bucket)
    assert 403 == refused.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_rclone_keeps_objects_as_files(rclone: S3Server):
    bucket = rclone.make_bucket()
    rclone.client.put_object(Bucket=bucket, Key="folder/name", Body=SOME)
    assert rclone.files is not None
    assert SOME == (rclone.files / bucket / "folder" / "name").read_bytes()
    (rclone.files / bucket / "folder" / "other").write_bytes(b"put past the server")
    got = rclone.client.get_object(Bucket=bucket, Key="folder/other")
    assert b"put past the server" == got["Body"].read()


def test_obstore_reads_and_writes(s3: S3Server):
    from obstore.store import S3Store

    store = S3Store(
        s3.make_bucket(),
        endpoint=s3.endpoint_url,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        region=s3.region,
        client_options={"allow_http": True},
    )
    store.put("folder/name", SOME)
    assert SOME == bytes(store.get("folder/name").bytes())


# Google Cloud Storage


def test_gcsfs_reads_and_writes(gcs: GcsServer):
    import gcsfs

    bucket = gcs.make_bucket()
    files = gcsfs.GCSFileSystem(
        project=gcs.project, token="anon", endpoint_url=gcs.endpoint_url, skip_instance_cache=True
    )
    files.pipe_file(f"{bucket}/folder/ü %#.bin", SOME)
    assert SOME == files.cat_file(f"{bucket}/folder/ü %#.bin")
    assert SOME[10:20] == files.cat_file(f"{bucket}/folder/ü %#.bin", 10, 20)
    assert [f"{bucket}/folder/ü %#.bin"] == files.find(bucket)


def test_a_resumable_upload_stays_on_the_way_it_came(gcs: GcsServer):
    bucket = gcs.make_bucket()
    with delay_proxy(gcs.port, 1) as proxy:
        base = gcs.through(proxy.port).endpoint_url
        begun = ask("POST", f"{base}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name=large", b"{}")
        assert 200 == begun.status
        assert begun.headers["location"].startswith(f"{base}/")


# SFTP


def connect(server: SftpServer, **options: object) -> str:
    """Connect with asyncssh, and return the folder in which one arrives."""
    import asyncssh

    async def arrive() -> str:
        known: dict[str, object] = {"known_hosts": str(server.known_hosts), "client_keys": None}
        async with (
            asyncssh.connect(
                server.host, server.port, username=server.username, config=None, **{**known, **options}
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            return str(await client.getcwd())

    return asyncio.run(asyncio.wait_for(arrive(), 60))


def sftp_program(server: SftpServer, commands: str) -> subprocess.CompletedProcess[str]:
    """Carry out commands with the program sftp."""
    programs.need_program("sftp", "openssh-client")
    settings = [f"UserKnownHostsFile={server.known_hosts}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    settings += ["IdentitiesOnly=yes", "IdentityAgent=none"]
    options = ["-q", "-F", "none", "-i", str(server.private_key), "-P", str(server.port), "-b", "-"]
    return subprocess.run(
        ["sftp", *options, *(f"-o{setting}" for setting in settings), f"{server.username}@{server.host}"],
        input=commands,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_one_comes_in_with_a_key(sftp: SftpServer):
    assert str(sftp.root) == connect(sftp, client_keys=[str(sftp.private_key)])


def test_one_comes_in_with_a_key_under_a_passphrase(sftp: SftpServer):
    assert str(sftp.root) == connect(sftp, client_keys=[str(sftp.encrypted_key)], passphrase=sftp.passphrase)


def test_one_comes_in_with_the_password(sftp: SftpServer):
    assert str(sftp.root) == connect(sftp, password=sftp.need_password())


def test_one_does_not_come_in_with_another_password(sftp: SftpServer):
    import asyncssh

    sftp.need_password()
    with pytest.raises(asyncssh.PermissionDenied):
        connect(sftp, password="wrong")


def test_one_does_not_come_in_with_an_unknown_key(sftp: SftpServer):
    import asyncssh

    with pytest.raises(asyncssh.PermissionDenied):
        connect(sftp, client_keys=[str(sftp.unknown_key)])


def test_a_wrong_host_key_is_noticed(sftp: SftpServer):
    import asyncssh

    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        connect(sftp, client_keys=[str(sftp.private_key)], known_hosts=str(sftp.wrong_known_hosts))


def test_the_program_sftp_reads_and_writes(sftp: SftpServer, tmp_path: Path):
    folder = sftp.make_folder()
    (tmp_path / "some").write_bytes(SOME)
    done = sftp_program(
        sftp, f"put {tmp_path}/some {folder.name}/there\nget {folder.name}/there {tmp_path}/back\n"
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert SOME == (folder / "there").read_bytes()
    assert SOME == (tmp_path / "back").read_bytes()


def test_a_read_only_server_refuses_to_write(sftp_read_only: SftpServer, tmp_path: Path):
    (tmp_path / "some").write_bytes(SOME)
    done = sftp_program(sftp_read_only, f"put {tmp_path}/some there\n")
    assert 1 == done.returncode
    assert "Permission denied" in done.stderr
    assert [] == list(sftp_read_only.root.iterdir())


def test_a_host_key_is_known_through_a_proxy_too(sftp: SftpServer):
    with delay_proxy(sftp.port, 1) as proxy:
        beyond = sftp.through(proxy.port)
        assert str(sftp.root) == connect(beyond, client_keys=[str(sftp.private_key)])


# HTTP


@pytest.fixture
def folder(http: HttpServer) -> str:
    """Return a folder's name, in which lies `some`."""
    name = http.make_folder()
    (http.files / name / "some").write_bytes(SOME)
    return name


def authorization(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def test_a_range_is_answered_with_it(http: HttpServer, folder: str):
    answer = ask("GET", f"{http.url}{folder}/some", headers={"Range": "bytes=2-5"})
    assert (206, SOME[2:6]) == (answer.status, answer.body)
    assert f"bytes 2-5/{len(SOME)}" == answer.headers["content-range"]


def test_a_range_is_ignored_where_there_are_none(http: HttpServer, folder: str):
    answer = ask("GET", f"{http.no_ranges_url}{folder}/some", headers={"Range": "bytes=2-5"})
    assert (200, SOME) == (answer.status, answer.body)


def test_a_file_is_put_moved_and_deleted(http: HttpServer, folder: str):
    new, moved = f"{http.url}{folder}/a/b/new", f"{http.url}{folder}/moved"
    assert 201 == ask("PUT", new, LARGE).status
    assert LARGE == (http.files / folder / "a" / "b" / "new").read_bytes()
    assert 204 == ask("PUT", new, SOME).status
    assert 204 == ask("MOVE", new, headers={"Destination": moved}).status
    assert (404, 200) == (ask("GET", new).status, ask("GET", moved).status)
    assert 204 == ask("DELETE", moved).status
    assert 404 == ask("GET", moved).status
    assert 201 == ask("MKCOL", f"{http.url}{folder}/made/").status
    assert (http.files / folder / "made").is_dir()


def test_a_folder_is_listed_as_json_and_as_links(http: HttpServer, folder: str):
    (listed,) = json.loads(ask("GET", f"{http.url}{folder}/").body)
    assert ("some", "file", len(SOME)) == (listed["name"], listed["type"], listed["size"])
    assert b'<a href="some">some</a>' in ask("GET", f"{http.html_url}{folder}/").body


def test_a_read_only_place_refuses_to_write(http: HttpServer, folder: str):
    assert 405 == ask("PUT", f"{http.read_only_url}{folder}/new", SOME).status
    assert SOME == ask("GET", f"{http.read_only_url}{folder}/some").body


def test_a_private_place_asks_who_it_is(http: HttpServer, folder: str):
    url, right = f"{http.private_url}{folder}", authorization(http.username, http.password)
    assert 401 == ask("GET", f"{url}/some").status
    assert 401 == ask("GET", f"{url}/some", headers=authorization(http.username, "wrong")).status
    assert (200, SOME) == ask("GET", f"{url}/some", headers=right)[::2]
    assert 201 == ask("PUT", f"{url}/new", SOME, headers=right).status
    assert SOME == (http.files / folder / "new").read_bytes()


def test_a_place_demands_a_header(http: HttpServer, folder: str):
    url = f"{http.header_url}{folder}/some"
    assert 403 == ask("GET", url).status
    assert (200, SOME) == ask("GET", url, headers=dict([http.header]))[::2]


def test_a_redirect_leads_to_the_file(http: HttpServer, folder: str):
    answer = ask("GET", f"{http.moved_url}{folder}/some")
    assert (302, f"/{folder}/some") == (answer.status, answer.headers["location"])
    assert f"/loop/{folder}" == ask("GET", f"{http.loop_url}{folder}").headers["location"]


def test_a_slow_place_takes_its_time(http: HttpServer, folder: str):
    (http.files / folder / "large").write_bytes(bytes(96 * 1024))
    start = time.monotonic()
    assert 96 * 1024 == len(ask("GET", f"{http.slow_url}{folder}/large").body)
    assert time.monotonic() - start > 0.4


def test_curl_gets_a_file(http: HttpServer, folder: str, tmp_path: Path):
    programs.need_program("curl", "curl")
    url = f"{http.moved_url}{folder}/some"
    done = subprocess.run(
        ["curl", "-q", "-sSL", "--noproxy", "*", "-o", tmp_path / "got", url], capture_output=True, timeout=60
    )
    assert (0, b"") == (done.returncode, done.stderr)
    assert SOME == (tmp_path / "got").read_bytes()


# What becomes of them


def test_a_server_ends_with_its_block_though_it_fails(tmp_path: Path):
    pids: list[int] = []

    def fail_within() -> None:
        with programs.serving(
            lambda port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
            tmp_path,
            programs.speaks_http,
        ) as program:
            pids.append(program.pid)
            raise ValueError("of the test")

    with pytest.raises(ValueError, match="of the test"):
        fail_within()
    assert [False] == [psutil.pid_exists(pid) for pid in pids]


def test_a_server_ends_with_tests_that_are_killed(tmp_path: Path):
    programs.need_program("setpriv", "util-linux")
    code = """\
        import pathlib, sys, time
        from tests.storage_servers import programs

        command = lambda port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        with programs.serving(command, pathlib.Path.cwd(), programs.speaks_http) as program:
            print(program.pid, flush=True)
            time.sleep(60)
        """
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
    ) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        tests.kill()
    programs.wait_for(lambda: not psutil.pid_exists(pid), "the server's end")


def test_a_server_that_does_not_start_says_what_it_said(tmp_path: Path):
    with (
        pytest.raises(AssertionError, match="ended at once:\nno such luck\nno such luck\nno such luck\n"),
        programs.serving(
            lambda port: [sys.executable, "-c", "raise SystemExit('no such luck')"],
            tmp_path,
            programs.speaks_http,
        ),
    ):
        pass


@pytest.mark.parametrize(
    ("ask_for", "what"),
    [
        (lambda: programs.need_program("no-server", "some-deb"), "no-server (package some-deb)"),
        (lambda: programs.need_module("no_server", "some-whl"), "no_server (Python package some-whl)"),
    ],
)
def test_an_absent_server_skips_or_fails(
    ask_for: Callable[[], object], what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(programs.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception) as skipped:
        ask_for()
    assert f"{what}, which this test needs, is not installed" == skipped.value.msg
    monkeypatch.setenv(programs.REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception) as failed:
        ask_for()
    assert f"{skipped.value.msg}, and REQUIRE_STORAGE_SERVERS is set" == failed.value.msg
