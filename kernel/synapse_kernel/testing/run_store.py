"""
The contract of a run store as tests: subclass `RunStoreContract` beside your store's own tests.

::

    class TestMyStore(RunStoreContract):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(f"mine:{tmp_path}/store")

Each call of what `open_store` gives opens the same place anew; each test gets an empty one.
"""

from __future__ import annotations

import pytest

# Before they are imported: a failed assertion is to show what it compared.
pytest.register_assert_rewrite(
    *(
        f"synapse_kernel.testing.run_store_{part}"
        for part in ("records", "listing", "values", "texts", "processes", "detached")
    )
)

from synapse_kernel.testing.run_store_detached import DetachedContract  # noqa: E402
from synapse_kernel.testing.run_store_listing import ListingContract  # noqa: E402
from synapse_kernel.testing.run_store_processes import ProcessContract  # noqa: E402
from synapse_kernel.testing.run_store_records import RecordContract  # noqa: E402
from synapse_kernel.testing.run_store_texts import TextContract  # noqa: E402
from synapse_kernel.testing.run_store_values import ValueContract  # noqa: E402


class RunStoreContract(
    RecordContract, ListingContract, ValueContract, TextContract, ProcessContract, DetachedContract
):
    """What any `synapse_kernel.stores.RunStore` must do."""
