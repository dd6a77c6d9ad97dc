"""The proxies that stand for a bad network, or a bad day, do what they say."""

from __future__ import annotations

import contextlib
import socket
import time
from http.client import HTTPConnection, HTTPException, IncompleteRead

import pytest
from tests.storage_servers.asking import ask
from tests.storage_servers.proxies import cutting_proxy, delay_proxy, failing_proxy, stalling_proxy
from tests.storage_servers.s3 import S3Server
from tests.storage_servers.web import HttpServer

SOME = bytes(range(256)) * 4
LARGE = SOME * 1024


@pytest.fixture
def folder(http: HttpServer) -> str:
    """Return a folder's name, in which lies `some`."""
    name = http.make_folder()
    (http.files / name / "some").write_bytes(SOME)
    return name


def test_a_delay_is_that_of_a_round_trip(http: HttpServer, folder: str):
    with delay_proxy(http.port, 100) as proxy:
        url = f"{http.through(proxy.port).url}{folder}/some"
        start = time.monotonic()
        assert SOME == ask("GET", url).body
        assert time.monotonic() - start >= 0.1


def test_a_delay_does_not_lower_the_rate(http: HttpServer, folder: str):
    (http.files / folder / "large").write_bytes(LARGE * 16)
    with delay_proxy(http.port, 100) as proxy:
        url = f"{http.through(proxy.port).url}{folder}/large"
        start = time.monotonic()
        assert LARGE * 16 == ask("GET", url).body
        # Were each of its 256 pieces waited for, it would be 12.8 s.
        assert time.monotonic() - start < 6


def test_an_answer_is_cut_as_often_as_said(http: HttpServer, folder: str):
    (http.files / folder / "large").write_bytes(LARGE)
    with cutting_proxy(http.port, 100_000, times=2) as proxy:
        url = f"{http.through(proxy.port).url}{folder}/large"
        for _ in range(2):
            with pytest.raises(IncompleteRead) as cut:
                ask("GET", url)
            # The answer's headers are among the bytes.
            assert 99_000 < len(cut.value.partial) < 100_000
        assert LARGE == ask("GET", url).body
        assert (3, 2) == (proxy.connections, proxy.faults)


def test_a_request_is_cut_as_often_as_said(http: HttpServer, folder: str):
    with cutting_proxy(http.port, 100_000, of="request") as proxy:
        url = f"{http.through(proxy.port).url}{folder}/new"
        with pytest.raises((OSError, HTTPException)):
            ask("PUT", url, LARGE * 8)
        assert not (http.files / folder / "new").exists()
        assert 201 == ask("PUT", url, LARGE * 8).status
        assert LARGE * 8 == (http.files / folder / "new").read_bytes()
        assert 1 == proxy.faults


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")]
)
def test_a_server_fails_three_times_and_then_works(http: HttpServer, folder: str, status: int, code: str):
    with failing_proxy(http.port, status, 3, {"Retry-After": "1"}) as proxy:
        url = f"{http.through(proxy.port).url}{folder}/new"
        for _ in range(3):
            failed = ask("PUT", url, LARGE)
            assert (status, "1") == (failed.status, failed.headers["retry-after"])
            assert f"<Code>{code}</Code>".encode() in failed.body
        assert 201 == ask("PUT", url, LARGE).status
        assert LARGE == (http.files / folder / "new").read_bytes()
        assert [f"PUT /{folder}/new"] * 4 == proxy.requests


def test_only_requests_that_match_fail(http: HttpServer, folder: str):
    with failing_proxy(http.port, 503, 1, matching=lambda method, path: path.endswith("/there")) as proxy:
        base = f"{http.through(proxy.port).url}{folder}"
        said = [ask("GET", f"{base}/some").status, ask("HEAD", f"{base}/there").status]
        assert [200, 503, 404] == [*said, ask("HEAD", f"{base}/there").status]


def test_requests_of_one_connection_are_told_apart(http: HttpServer, folder: str):
    with failing_proxy(http.port, 500, 1, matching=lambda method, path: method == "DELETE") as proxy:
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=30)
        try:
            said = []
            whole, in_chunks = ("PUT", LARGE), ("PUT", iter([SOME, SOME]))
            for method, body in [whole, in_chunks, ("GET", None), ("DELETE", None)]:
                connection.request(method, f"/{folder}/new", body)
                answer = connection.getresponse()
                said.append((answer.status, len(answer.read())))
        finally:
            connection.close()
        assert [(201, 0), (204, 0), (200, 2 * len(SOME))] == said[:3]
        assert 500 == said[3][0]
        assert 1 == proxy.connections


def test_boto3_reads_a_slow_down(moto: S3Server):
    from botocore.exceptions import ClientError

    bucket = moto.make_bucket()
    with (
        failing_proxy(moto.port, 503, 1) as proxy,
        contextlib.closing(moto.through(proxy.port).client) as client,
    ):
        with pytest.raises(ClientError, match="SlowDown"):
            client.put_object(Bucket=bucket, Key="key", Body=LARGE)
        client.put_object(Bucket=bucket, Key="key", Body=LARGE)
    assert LARGE == moto.client.get_object(Bucket=bucket, Key="key")["Body"].read()


def test_signed_requests_pass_the_proxies(rclone: S3Server):
    bucket = rclone.make_bucket()
    with (
        failing_proxy(rclone.port, 503, 0) as proxy,
        delay_proxy(proxy.port, 1) as delay,
        contextlib.closing(rclone.through(delay.port).client) as client,
    ):
        client.put_object(Bucket=bucket, Key="key", Body=LARGE)
        assert LARGE == client.get_object(Bucket=bucket, Key="key")["Body"].read()


def test_a_stalling_proxy_never_answers():
    with stalling_proxy() as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            one.recv(1)
        assert (1, 1) == (proxy.connections, proxy.faults)


def test_a_stalling_proxy_stops_in_the_middle(http: HttpServer, folder: str):
    with stalling_proxy(http.port, after_bytes=500, times=1) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as one:
            one.sendall(f"GET /{folder}/some HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = b""
            while len(got) < 500:
                got += one.recv(1000)
            one.settimeout(0.3)
            with pytest.raises(TimeoutError):
                one.recv(1)
        assert 500 == len(got)
        assert SOME == ask("GET", f"{http.through(proxy.port).url}{folder}/some").body
