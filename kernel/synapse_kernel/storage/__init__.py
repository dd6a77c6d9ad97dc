"""
Storage: files under keys, wherever they are.

`get_storage` and ``ctx.storage`` give a `Storage`; a plugin contributes a `Provider`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse_kernel.storage.errors import (
        StorageConfigError as StorageConfigError,
        StorageConnectionError as StorageConnectionError,
        StorageError as StorageError,
        StorageIntegrityError as StorageIntegrityError,
        StorageNotFoundError as StorageNotFoundError,
        StoragePermissionError as StoragePermissionError,
        StorageUploadError as StorageUploadError,
    )
    from synapse_kernel.storage.finding import Location as Location, get_storage as get_storage
    from synapse_kernel.storage.paths import StoragePath as StoragePath
    from synapse_kernel.storage.providers import (
        Configuration as Configuration,
        Entry as Entry,
        Provider as Provider,
    )
    from synapse_kernel.storage.retrying import RetryPolicy as RetryPolicy
    from synapse_kernel.storage.sources import Source as Source
    from synapse_kernel.storage.storage import Storage as Storage
    from synapse_kernel.storage.transfers import (
        TransferProgress as TransferProgress,
        TransferReport as TransferReport,
    )

_HOMES = {
    "errors": "StorageConfigError StorageConnectionError StorageError StorageIntegrityError "
    "StorageNotFoundError StoragePermissionError StorageUploadError",
    "finding": "Location get_storage",
    "paths": "StoragePath",
    "providers": "Configuration Entry Provider",
    "retrying": "RetryPolicy",
    "sources": "Source",
    "storage": "Storage",
    "transfers": "TransferProgress TransferReport",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_HOME_OF]  # noqa: PLE0604 - names, computed from the one table above


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
