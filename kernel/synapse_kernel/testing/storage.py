"""
The contract of a storage provider as tests: subclass `StorageContract` beside your provider's own tests.

::

    class TestMyProvider(StorageContract):
        @pytest.fixture
        def storage(self, tmp_path):
            return Storage(MyProvider(MyConfiguration(place=str(tmp_path))))

`storage` is empty in each test; a folder of its own in something larger will do: ``storage.at("…")``.
What does not hold for a provider says the class: see the flags of `StorageFixtures`.
"""

from __future__ import annotations

import pytest

# Before they are imported: a failed assertion is to show what it compared.
pytest.register_assert_rewrite(
    *(
        f"synapse_kernel.testing.storage_{part}"
        for part in (
            "parts",
            "contents",
            "opening",
            "listing",
            "uploads",
            "downloads",
            "changes",
            "keys",
            "threads",
            "interfaces",
        )
    )
)

from synapse_kernel.testing.storage_changes import ChangeContract  # noqa: E402
from synapse_kernel.testing.storage_contents import ContentContract  # noqa: E402
from synapse_kernel.testing.storage_downloads import DownloadContract  # noqa: E402
from synapse_kernel.testing.storage_interfaces import InterfaceContract  # noqa: E402
from synapse_kernel.testing.storage_keys import KeyContract  # noqa: E402
from synapse_kernel.testing.storage_listing import ListingContract  # noqa: E402
from synapse_kernel.testing.storage_opening import OpeningContract  # noqa: E402
from synapse_kernel.testing.storage_threads import ThreadContract  # noqa: E402
from synapse_kernel.testing.storage_uploads import UploadContract  # noqa: E402


class StorageContract(
    ContentContract,
    OpeningContract,
    ListingContract,
    UploadContract,
    DownloadContract,
    ChangeContract,
    KeyContract,
    ThreadContract,
    InterfaceContract,
):
    """What any `synapse_kernel.storage.Provider` must do, under the `Storage` that people use."""
