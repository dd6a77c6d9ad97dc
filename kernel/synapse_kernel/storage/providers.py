"""
The provider: the few operations on keys that a storage is made of.

A provider is what a plugin registers with `synapse_register_storage`, and all that its author writes. What
people call, `Storage`, stands above it and is the same for every provider: it checks keys, retries, verifies,
tells progress, and runs transfers side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict

from synapse_kernel.storage.errors import StorageConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from synapse_kernel.storage.sources import Link, Source

    Told = Callable[[int], None]
    """Called with how many bytes more were moved; less than 0 where a part is moved again."""


class Configuration(BaseModel):
    """
    What a provider is configured with; each provider's is a subclass whose fields say what they are.

    Secrets are `SecretStr`. A key that there is no field for is a mistake.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder of a storage."""

    key: str
    """Relative to the root of the provider, or of the `Storage` that returned it."""
    size: int | None = None
    """In bytes; None for a folder, or where the service does not tell."""
    modified: float | None = None
    """When it was written, in seconds since 1970 (UTC)."""
    is_folder: bool = False
    etag: str | None = None
    """The service's name for just this content, if it has one: another content has another."""
    checksums: dict[str, str] = {}
    """What the service knows of the content: ``md5``, ``sha256``, ``crc32c``…, as lower-case hex digits."""


class Provider(ABC):
    """
    The operations of one storage service, below one root.

    Made with its checked configuration; connects on first use. Each operation is called from several threads
    at once. Keys are clean (see `clean_key`) and relative to the root.
    Each raises what its client raises: `explain` says what that means. None retries what it cannot make
    whole by itself; `Storage` calls again while the error is transient.
    """

    name: ClassVar[str]
    """The provider's name in settings and messages."""
    configuration_type: ClassVar[type[Configuration]]
    concurrency: ClassVar[int] = 16
    """How many files are transferred side by side."""
    gets_in_order: ClassVar[bool] = False
    """True if `get_file` writes a file from its beginning to its end: what a killed process left is good."""
    has_folders: ClassVar[bool] = True
    """False where a folder is there as soon as a key below it is, and only so long."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    @classmethod
    def from_url(cls, url: str) -> Mapping[str, object]:
        """
        Return the configuration that a URL stands for: what it names becomes the root.

        Raises `StorageConfigError` for a URL that names none.
        """
        raise StorageConfigError(
            f"has no URLs: give its configuration, not {url!r}", provider=cls.name, operation="open"
        )

    @abstractmethod
    def url_of(self, key: str) -> str:
        """Return the URL of a key, without a secret; `from_url` of it leads there again."""

    @abstractmethod
    def stat(self, key: str) -> Entry:
        """Return the entry of a key; a folder's where the key is one. Raises for what is not there."""

    @abstractmethod
    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """
        Yield what lies in a folder, in any order: with `recursive` the files at every depth, without folders.

        Pages are asked for as they are needed. Raises, on the first entry, for a folder that is not there;
        where `has_folders` is False it may yield nothing instead.
        """

    @abstractmethod
    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """
        Return `length` bytes of a file from `start`, fewer only at its end.

        Where the service can tell, it is the content of `entry.etag` or a `StorageIntegrityError`.
        """

    def read_whole(self, key: str) -> bytes:
        """Return the content of a small file; override it where that takes one request."""
        entry = self.stat(key)
        if entry.is_folder:
            raise IsADirectoryError(key)
        return self.read(entry, 0, entry.size or 0)

    @abstractmethod
    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """
        Write a file's content into the local file `target`, which nobody else sees.

        `target` may be there already with what an earlier call, which broke off, got of the same entry: its
        first bytes are good then, and the call may go on after them. Raises `StorageIntegrityError` where the
        service's checksum says that something else arrived.
        """

    def link_file(self, entry: Entry, target: Path, link: Link) -> bool:
        """Let a new local file share a file's content; False, with no such file left, if that cannot be."""
        del entry, target, link
        return False

    @abstractmethod
    def put_file(self, source: Source, key: str, told: Told) -> None:
        """
        Write a file whole or not at all, its folders made where they are missing.

        Until it returns, readers see what was there before. Calls `source.check` right before that changes.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; a key that is not there is no error."""

    def delete_folder(self, key: str) -> None:  # noqa: B027 - not every service has folders
        """Delete an empty folder, and the empty ones below it, if the service has folders."""

    def deletable(self, folder: str) -> Iterator[str]:
        """Yield the keys to delete with a folder; not what is listed in it by a link, but the link."""
        return (entry.key for entry in self.entries(folder, recursive=True))

    def make_folder(self, key: str) -> None:  # noqa: B027
        """Make a folder and those above it, if the service has folders; one that is there is no error."""

    def copy_file(self, source: str, target: str) -> bool:
        """Copy a file within the service; False, having done nothing, if the service cannot."""
        del source, target
        return False

    def move_file(self, source: str, target: str) -> bool:
        """Move a file within the service, whole or not at all; False, having done nothing, if it cannot."""
        del source, target
        return False

    def signed_url(self, key: str, expires: float, method: str) -> str:
        """
        Return a URL that lets anyone do `method` (GET or PUT) for `expires` seconds.

        Raises `StorageError` where the service has no such URLs.
        """
        del expires, method
        raise StorageError("has no signed URLs", provider=self.name, operation="signed_url", key=key)

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Return the storage's error for one of its client's."""
        from synapse_kernel.storage.explaining import explain_os_error

        return explain_os_error(error, self.name, operation, key)

    def close(self) -> None:  # noqa: B027 - not every client has connections
        """Let go of connections; called once, when nothing else is under way."""


def configured(kind: type[Provider], values: Mapping[str, object]) -> Configuration:
    """
    Return a provider's configuration of plain values.

    Raises `StorageConfigError` with every mistake in them; no value is shown, as it may be secret.
    """
    from pydantic import ValidationError

    from synapse_kernel.errors import listing, suggest

    try:
        return kind.configuration_type.model_validate(dict(values))
    except ValidationError as error:
        known = list(kind.configuration_type.model_fields)
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            where = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(
                    f"  {where}: there is no such key{suggest(where, known)}; keys: {listing(known)}"
                )
            else:
                lines.append(f"  {where}: {problem['msg']}" if where else f"  {problem['msg']}")
        raise StorageConfigError(
            "\n".join(["the configuration cannot be used:", *lines]), provider=kind.name
        ) from None
