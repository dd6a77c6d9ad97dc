"""
Storage: files under keys, wherever they are.

`get_storage` and ``ctx.storage`` give a `Storage`; a plugin contributes a `Provider`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.lazy_names import names_from

if TYPE_CHECKING:
    from synapse_kernel.storage.archive_formats import ArchiveError as ArchiveError
    from synapse_kernel.storage.archive_reading import extract_archive as extract_archive
    from synapse_kernel.storage.archives import (
        ArchiveReport as ArchiveReport,
        create_archive as create_archive,
    )
    from synapse_kernel.storage.checking import CheckReport as CheckReport
    from synapse_kernel.storage.checksums import (
        calculate_checksum as calculate_checksum,
        parse_checksum as parse_checksum,
        verify_checksum as verify_checksum,
    )
    from synapse_kernel.storage.downloads import download_file as download_file
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
    from synapse_kernel.storage.syncing import SyncReport as SyncReport, sync as sync
    from synapse_kernel.storage.transfers import (
        TransferProgress as TransferProgress,
        TransferReport as TransferReport,
    )

_HOMES = {
    "archive_formats": "ArchiveError",
    "archive_reading": "extract_archive",
    "archives": "ArchiveReport create_archive",
    "checking": "CheckReport",
    "checksums": "calculate_checksum parse_checksum verify_checksum",
    "downloads": "download_file",
    "errors": "StorageConfigError StorageConnectionError StorageError StorageIntegrityError "
    "StorageNotFoundError StoragePermissionError StorageUploadError",
    "finding": "Location get_storage",
    "paths": "StoragePath",
    "providers": "Configuration Entry Provider",
    "retrying": "RetryPolicy",
    "sources": "Source",
    "storage": "Storage",
    "syncing": "SyncReport sync",
    "transfers": "TransferProgress TransferReport",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_HOME_OF]  # noqa: PLE0604 - names, computed from the one table above
__getattr__ = names_from(__name__, _HOME_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
