"""
Named contributions: one conflict rule, one lazy import, one listing, one error when a package is missing.

The registry asks the plugins of a kernel for their descriptors, a kind at a time and once, and resolves a
descriptor's target on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.errors import (
    ConflictError,
    MissingPackageError,
    PluginError,
    UnknownNameError,
    listing,
    suggest,
)
from synapse_kernel.plugins import PluginRecord
from synapse_kernel.specs import Spec, StorageSpec, StoreSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SINGULAR = {
    "actions": "Action plugin",
    "executors": "Executor",
    "sinks": "Sink",
    "stores": "Run store",
    "storage": "Storage provider",
    "formats": "Dataset format",
    "services": "Service",
    "integrations": "Integration",
    "schemas": "Schema dialect",
    "templates": "Template",
    "commands": "Command",
}


class Contribution(msgspec.Struct, frozen=True):
    """A descriptor and the plugin that returned it."""

    spec: Spec
    plugin: PluginRecord

    @property
    def missing(self) -> str | None:
        """The first required package that is not installed, found out without importing any."""
        for name in self.spec.requires:
            try:
                found = importlib.util.find_spec(name)
            except (ImportError, ValueError):
                found = None
            if found is None:
                return name
        return None

    @property
    def state(self) -> str:
        """``available``, or ``missing PACKAGE``."""
        missing = self.missing
        return f"missing {missing}" if missing else "available"

    @property
    def install(self) -> str:
        """The command that installs what is missing."""
        if self.spec.extra and self.plugin.distribution:
            return f"pip install '{self.plugin.distribution}[{self.spec.extra}]'"
        return f"pip install {' '.join(self.spec.requires)}"


class Registry:
    """
    The contributions of a kernel's plugins, by kind and name.

    `collect` asks all plugins for one kind and returns what each gave; it is called at most once a kind
    until `invalidate`, which a late plugin calls for.
    """

    def __init__(
        self,
        collect: Callable[[str], list[Contribution]],
        prefer: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._collect = collect
        self._prefer = prefer
        self._kinds: dict[str, dict[str, list[Contribution]]] = {}
        self._resolved: dict[tuple[str, str], object] = {}
        self._states: dict[str, _States] = {}
        self._lock = threading.RLock()

    def invalidate(self) -> None:
        """Forget what was collected: a plugin came or went."""
        with self._lock:
            self._kinds.clear()
            self._states.clear()
            self._resolved.clear()

    def all(self, kind: str) -> list[Contribution]:
        """Return every contribution of a kind, in the order of the plugins, conflicts included."""
        seen: dict[int, Contribution] = {}
        for contributions in self._names(kind).values():
            seen.update((id(c.spec), c) for c in contributions)
        return list(seen.values())

    def names(self, kind: str) -> list[str]:
        """Return the names (aliases and schemes not among them) of a kind."""
        return [c.spec.name for c in self.all(kind)]

    def states(self, kind: str) -> Mapping[str, str]:
        """Return each name of a kind with its state, which is found out where someone looks."""
        found = self._states.get(kind)
        if found is None:
            found = self._states[kind] = _States({c.spec.name: c for c in self.all(kind)})
        return found

    def get(self, kind: str, name: str) -> Contribution:
        """
        Return the one contribution of this name.

        Raises `UnknownNameError` with what exists, or `ConflictError` naming the plugins that both have it.
        """
        found = self._names(kind).get(name)
        label = _SINGULAR[kind]
        if not found:
            known = self.names(kind)
            raise UnknownNameError(
                f"{label} {name!r} is not registered{suggest(name, known)}\n  registered: {listing(known)}",
                kind=kind,
                name=name,
            )
        if len(found) == 1:
            return found[0]
        preferred = self._prefer.get(kind, {}).get(name)
        for contribution in found:
            if preferred is not None and contribution.plugin.answers_to(preferred):
                return contribution
        raise ConflictError(kind, name, [c.plugin.display for c in found])

    def resolve(self, kind: str, name: str, *, hint: str = "") -> object:
        """
        Import and return the target of the contribution of this name; kept afterwards.

        Raises, besides what `get` does, `MissingPackageError` where a required package is not installed, and
        `PluginError` where the target does not import; `hint` is added to the first.
        """
        key = (kind, name)
        found = self._resolved.get(key)
        if found is not None:
            return found
        contribution = self.get(kind, name)
        missing = contribution.missing
        if missing is not None:
            raise MissingPackageError(_SINGULAR[kind], name, missing, contribution.install, hint=hint)
        found = import_target(
            contribution.spec.target, contribution.plugin.display, f"{_SINGULAR[kind]} {name!r}"
        )
        with self._lock:
            return self._resolved.setdefault(key, found)

    def _names(self, kind: str) -> dict[str, list[Contribution]]:
        found = self._kinds.get(kind)
        if found is None:
            with self._lock:
                found = {}
                for contribution in self._collect(kind):
                    for name in _names_of(contribution.spec):
                        found.setdefault(name, []).append(contribution)
                self._kinds[kind] = found
        return found


class _States(Mapping[str, str]):
    """Names and states; to know one is to search the path for the packages it requires."""

    def __init__(self, contributions: dict[str, Contribution]) -> None:
        self._contributions = contributions

    def __getitem__(self, name: str) -> str:
        return self._contributions[name].state

    def __iter__(self) -> Iterator[str]:
        return iter(self._contributions)

    def __len__(self) -> int:
        return len(self._contributions)


def _names_of(spec: Spec) -> list[str]:
    names = [spec.name]
    if isinstance(spec, StorageSpec):
        names += [*spec.aliases, *spec.schemes]
    elif isinstance(spec, StoreSpec):
        names += spec.schemes
    return list(dict.fromkeys(names))


def import_target(target: str, plugin: str, label: str) -> object:
    """Import ``module:attribute`` of a plugin; raises `PluginError` naming the plugin and the target."""
    module_name, _, attribute = target.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"{label} of plugin {plugin} does not load: its target {target!r} raised "
            f"{type(error).__name__}: {error}",
            plugin=plugin,
        ) from error
    return found
