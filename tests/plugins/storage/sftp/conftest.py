"""Storages over an sshd, for a user whose home folder is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.storage_servers.sftp import SftpServer

from synapse_kernel.storage import RetryPolicy, Storage
from synapse_plugins.storage.sftp.configuration import SftpConfiguration
from synapse_plugins.storage.sftp.provider import SftpProvider

Opened = Callable[..., Storage]

QUICK = RetryPolicy(initial=0.05, maximum=0.5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder without keys, known hosts or an agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Return what opens a folder of a server; what is given replaces its configuration."""
    providers = []

    def open_one(
        server: SftpServer, folder: Path | None = None, *, retries: RetryPolicy = QUICK, **changed: object
    ) -> Storage:
        values: dict[str, object] = {
            "host": server.host,
            "port": server.port,
            "username": server.username,
            "private_key": str(server.private_key),
            "known_hosts": str(server.known_hosts),
            "root_path": str(folder or server.root),
        }
        values |= changed
        given = {name: value for name, value in values.items() if value is not None}
        providers.append(SftpProvider(SftpConfiguration.model_validate(given)))
        return Storage(providers[-1], retries=retries)

    yield open_one
    for provider in providers:
        provider.close()


@pytest.fixture
def place(sftp: SftpServer) -> Path:
    """Return a folder of the server, empty."""
    return sftp.make_folder()


@pytest.fixture
def storage(opened: Opened, sftp: SftpServer, place: Path) -> Storage:
    """Return the storage whose root is `place`."""
    return opened(sftp, place)
