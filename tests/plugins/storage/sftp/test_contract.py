"""The contract of a storage provider, against OpenSSH."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.storage_servers.sftp import SftpServer

from synapse_kernel.storage import Storage
from synapse_kernel.testing.storage import StorageContract

from .conftest import Opened


class TestSftpProvider(StorageContract):
    keeps_modified = True

    @pytest.fixture
    def storage(self, opened: Opened, sftp: SftpServer, place: Path) -> Storage:
        return opened(sftp, place)
