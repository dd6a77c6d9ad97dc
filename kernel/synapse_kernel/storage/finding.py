"""From what people write to a storage: a URL, a name from the settings, or a configuration."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from synapse_kernel.current import kernel_here
from synapse_kernel.errors import UnknownNameError, listing, suggest
from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.keys import clean_key
from synapse_kernel.storage.providers import configured
from synapse_kernel.storage.storage import Storage

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.storage.providers import Provider

NAMED = "storage"
"""The scheme of the settings' names: ``storage://datasets/coco``."""
_MOST_OPEN = 32


class Location(msgspec.Struct, frozen=True):
    """A key and the storage it is in."""

    storage: Storage
    key: str

    @property
    def url(self) -> str:
        """The URL of both."""
        return self.storage.get_url(self.key)


class Storages:
    """The storages of a kernel: each provider and configuration is opened once, and shared."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._open: list[Provider] = []
        self._process = os.getpid()
        self._lock = threading.Lock()

    def storage(self, wanted: str | Mapping[str, object]) -> Storage:
        """
        Return the storage of a URL, a name from the settings, or a ``{provider, configuration}``.

        Raises `StorageConfigError` for a configuration with mistakes, `UnknownNameError` for a name or scheme
        that nobody has, `MissingPackageError` where the provider's extra is not installed.
        """
        if isinstance(wanted, Mapping):
            return Storage(self._configured(wanted, "the configuration"))
        name, separator, rest = wanted.partition("://")
        if not separator:
            return self._named(wanted)
        if name == NAMED:
            first, _, key = rest.partition("/")
            storage = self._named(first)
            return storage.at(key) if key else storage
        return Storage(self._provider(name, self._kind(name).from_url(wanted)))

    def location(self, text: str) -> Location:
        """
        Return where a URL, a ``storage://name/key`` or a local path leads: a storage and the key in it.

        The root is what the URL names before its path: the bucket, the host, ``/`` of this machine.
        """
        name, separator, rest = text.partition("://")
        if not separator:
            return self.location(f"file://{os.path.abspath(os.path.expanduser(text))}")  # noqa: PTH100, PTH111
        authority, _, key = rest.partition("/")
        if name == NAMED:
            return Location(self._named(authority), clean_key(key))
        if name in {"http", "https"}:
            # The one URL whose path is encoded: a key is what it means. A query lets in, and is the root's.
            parts = urlsplit(text)
            root = urlunsplit((name, parts.netloc, "/", parts.query, ""))
            return Location(self.storage(root), clean_key(unquote(parts.path).lstrip("/")))
        return Location(self.storage(f"{name}://{authority}/"), clean_key(key.lstrip("/")))

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            providers, self._open = self._open, []
        for provider in providers:
            provider.close()

    def _named(self, name: str) -> Storage:
        known = self._kernel.settings.kernel.storage
        found = known.get(name)
        if found is None:
            raise UnknownNameError(
                f"Storage {name!r} is neither a URL nor a name from the settings{suggest(name, known)}\n"
                f"  named there: {listing(known)}",
                kind="storage",
                name=name,
            )
        if isinstance(found, str):
            unnamed = self.storage(found)
            return Storage(unnamed.provider, name=name)
        return Storage(self._configured(found, f"storage {name!r} of the settings"), name=name)

    def _configured(self, wanted: Mapping[str, object], origin: str) -> Provider:
        provider = wanted.get("provider")
        others = set(wanted) - {"provider", "configuration"}
        values = wanted.get("configuration", {})
        if not isinstance(provider, str) or others or not isinstance(values, Mapping):
            raise StorageConfigError(
                f"{origin} needs `provider`, a name ({listing(self._kernel.registry.names('storage'))}), and "
                f"`configuration`, a mapping" + (f"; {listing(others)} has no place in it" if others else "")
            )
        return self._provider(provider, cast("Mapping[str, object]", values))

    def _kind(self, name: str) -> type[Provider]:
        return cast("type[Provider]", self._kernel.registry.resolve("storage", name))

    def _provider(self, name: str, values: Mapping[str, object]) -> Provider:
        kind = self._kind(name)
        configuration = configured(kind, values)
        with self._lock:
            if self._process != os.getpid():
                # Connections do not survive a fork: the parent's are left to the parent.
                self._process, self._open = os.getpid(), []
            for provider in self._open:
                if type(provider) is kind and provider.configuration == configuration:
                    return provider
            # The oldest is left to whoever still uses it.
            self._open = [*self._open[1 - _MOST_OPEN :], kind(configuration)]
            return self._open[-1]


def get_storage(wanted: str | Mapping[str, object], *, kernel: Kernel | None = None) -> Storage:
    """
    Return the storage of a URL, of a name from the settings, or of a ``{provider, configuration}``.

    Without a kernel it is that of the run that asks; outside of one, a kernel with the settings that the
    command line would use here. An action asks its context, which tells of progress too. Raises what
    `Storages.storage` raises.
    """
    return (kernel or kernel_here()).storage(wanted)
