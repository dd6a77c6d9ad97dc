"""The storage contract, held by the provider `gcs` over an emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.plugins.storage.gcs.buckets import storage_of
from tests.storage_servers.gcs import GcsServer

from synapse_kernel.storage import Storage
from synapse_kernel.testing.storage import StorageContract


class TestGcs(StorageContract):
    """Over fake-gcs-server, in a folder of a bucket."""

    @pytest.fixture
    def storage(self, gcs: GcsServer) -> Iterator[Storage]:
        """Return an empty folder of a bucket."""
        storage = storage_of(gcs, prefix="a folder/inner")
        yield storage
        storage.close()
