"""The errors of storage: one for each thing that a caller can do something about."""

from __future__ import annotations

from synapse_kernel.errors import SynapseError


class StorageError(SynapseError):
    """
    A storage did not do what it was asked.

    `provider`, `operation` and `key` say where; `transient` is True where the same call may work in a moment.
    A message never holds a secret of the configuration.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        operation: str = "",
        key: str | None = None,
        transient: bool = False,
    ) -> None:
        self.provider = provider
        self.operation = operation
        self.key = key
        self.transient = transient
        self.reason = message
        what = " ".join(part for part in (operation, repr(key) if key else "") if part)
        where = f"Storage {provider!r}" if provider else "Storage"
        super().__init__(f"{where}: {what}: {message}" if what else f"{where}: {message}")


class StorageConfigError(StorageError):
    """A configuration, URL or key that cannot be used: nothing was asked of a server."""


class StorageConnectionError(StorageError):
    """The service cannot be reached, broke off, or is overloaded."""


class StorageNotFoundError(StorageError):
    """There is nothing under this key, or no such bucket."""


class StoragePermissionError(StorageError):
    """The credentials are refused, or do not allow this."""


class StorageUploadError(StorageError):
    """What was to be written could not be: the target has what it had before."""


class StorageIntegrityError(StorageError):
    """What arrived is not what was sent: its size or checksum differs."""
