"""The provider `local` keeps the contract of storage, in a folder and in a folder of a storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_kernel.storage import Storage
from synapse_kernel.testing.storage import StorageContract
from synapse_plugins.storage.local.provider import LocalConfiguration, LocalProvider


class TestLocal(StorageContract):
    keeps_modified = True

    @pytest.fixture
    def storage(self, tmp_path_factory: pytest.TempPathFactory) -> Storage:
        folder = tmp_path_factory.mktemp("storage") / "made" / "later"
        return Storage(LocalProvider(LocalConfiguration(location=str(folder))))


class TestLocalThroughALink(TestLocal):
    """The root is a link, and the storage begins some folders below it."""

    @pytest.fixture
    def storage(self, tmp_path_factory: pytest.TempPathFactory) -> Storage:
        folder: Path = tmp_path_factory.mktemp("linked")
        (folder / "real").mkdir()
        (folder / "link").symlink_to("real")
        return Storage(LocalProvider(LocalConfiguration(location=str(folder / "link")))).at("some/folder")
