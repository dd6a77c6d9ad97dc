"""Fixtures of the servers, for a conftest to import; each starts once a session, when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.storage_servers.gcs import GCSFS_VARIABLES, GcsServer, gcs_emulator
from tests.storage_servers.s3 import S3Server, moto_server, rclone_server
from tests.storage_servers.sftp import SftpServer, sftp_server
from tests.storage_servers.web import HttpServer, http_server

__all__ = ["gcs", "http", "moto", "rclone", "s3", "sftp", "sftp_read_only"]


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return an S3 server that knows the protocol's finer points, and takes any key."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return an S3 server that checks keys, and keeps objects as files."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["moto", "rclone"])
def s3(request: pytest.FixtureRequest) -> S3Server:
    """Return each of the S3 servers in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """Return an emulator of Google Cloud Storage, with which gcsfs does not hang."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in GCSFS_VARIABLES.items():
            patch.setenv(name, value)
        with gcs_emulator(tmp_path_factory.mktemp("gcs")) as server:
            yield server


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """Return an sshd that lets the user in who runs the tests, by key and by password."""
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(scope="session")
def sftp_read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """Return an sshd that refuses whatever would write."""
    with sftp_server(tmp_path_factory.mktemp("sftp"), read_only=True) as server:
        yield server


@pytest.fixture(scope="session")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """Return an nginx that reads, writes, lists, redirects, refuses and is slow."""
    with http_server(tmp_path_factory.mktemp("http")) as server:
        yield server
