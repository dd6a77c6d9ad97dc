"""
Plugins: find → filter → load → record.

`find_plugins` scans the entry points once and sorts them; `decide` says what is blocked, before anything is
imported; `PluginHost` imports and registers the rest and keeps a `PluginRecord` of each, broken ones too.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import pluggy

from synapse_kernel.errors import PluginError, SettingsError, suggest
from synapse_kernel.hookspecs import API, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

    from synapse_kernel.settings import PluginSettings, Settings

GROUP = "synapse_kernel.plugins"
OWN_DISTRIBUTION = "synapse-kernel"

PluginState = Literal["active", "blocked", "incompatible", "failed"]


class EntryPointLike(Protocol):
    """What is used of an entry point: those of `importlib.metadata` fit, and so does one made by hand."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> str: ...  # noqa: D102
    @property
    def dist(self) -> DistributionLike | None: ...  # noqa: D102
    def load(self) -> object: ...  # noqa: D102


class DistributionLike(Protocol):
    """What is used of a distribution."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102


class PluginWarning(UserWarning):
    """A plugin, or one contribution of it, is left out; the message names it and why."""


def warn(text: str) -> None:
    """Tell of something that is left out."""
    warnings.warn(text, PluginWarning, stacklevel=3)


class FoundPlugin(msgspec.Struct, frozen=True):
    """An entry point of the group, not imported."""

    name: str
    value: str
    distribution: str | None
    entry_point: EntryPointLike

    @property
    def display(self) -> str:
        """``distribution[entry]``."""
        return f"{self.distribution or 'unknown'}[{self.name}]"


class PluginRecord(msgspec.Struct, kw_only=True):
    """What became of a plugin."""

    name: str
    display: str
    state: PluginState
    distribution: str | None = None
    value: str = ""
    dist: DistributionLike | None = None
    hooks: list[str] = []
    import_ms: float | None = None
    reason: str = ""
    traceback: str = ""
    plugin: object = None

    @property
    def version(self) -> str | None:
        """The distribution's version; its metadata is read only when it is asked for."""
        return self.dist.version if self.dist is not None else None

    def answers_to(self, name: str) -> bool:
        """Tell whether a person's name for a plugin means this one."""
        return name in {self.name, self.display, self.distribution}


def installed_entry_points() -> list[EntryPointLike]:
    """Return the entry points of the group that are installed: the one place that scans for them."""
    from importlib_metadata import entry_points

    return list(entry_points(group=GROUP))


def find_plugins(entry_points: Iterable[EntryPointLike]) -> list[FoundPlugin]:
    """Sort entry points: built-ins first, then by distribution and name. Nothing is imported."""
    found = [FoundPlugin(entry.name, entry.value, _name_of(entry.dist), entry) for entry in entry_points]
    return sorted(found, key=lambda p: (p.distribution != OWN_DISTRIBUTION, p.distribution or "", p.name))


def _name_of(dist: DistributionLike | None) -> str | None:
    """
    Return a distribution's name, from the line of its metadata that says it.

    Its own `name` would parse the whole of it as an e-mail: importing that parser alone takes 15 ms.
    """
    if dist is None:
        return None
    read = getattr(dist, "read_text", None)
    text = (read("METADATA") or "") if callable(read) else ""
    for line in text.splitlines():
        if line.startswith("Name:"):
            return line.removeprefix("Name:").strip()
        if not line:
            break
    return dist.name


def decide(found: FoundPlugin, settings: PluginSettings, without: Sequence[str]) -> str | None:
    """Return why a plugin is blocked, or None if it is to be loaded."""
    names = {found.name, found.display}
    if names & set(without):
        return "blocked by --without"
    if names & set(settings.block):
        return "blocked by the setting plugins.block"
    if settings.only is not None and not names & set(settings.only):
        return "not among plugins.only"
    return None


class PluginHost:
    """
    The plugins of one kernel.

    A plugin that cannot be used is recorded, told of in one `PluginWarning`, and in the way of nothing else;
    with `strict`, it raises `PluginError` instead.
    """

    def __init__(self, manager: pluggy.PluginManager, *, strict: bool) -> None:
        self.manager = manager
        self.records: list[PluginRecord] = []
        self._strict = strict

    def load_all(
        self, entry_points: Iterable[EntryPointLike], settings: PluginSettings, without: Sequence[str]
    ) -> None:
        """Import and register the plugins that are not blocked; a name that blocks none is warned of."""
        for found in find_plugins(entry_points):
            self.load(found, decide(found, settings, without))
        for name in dict.fromkeys((*without, *settings.block, *(settings.only or ()))):
            if not any(record.answers_to(name) for record in self.records):
                warn(f"No plugin is named {name!r}{suggest(name, [record.name for record in self.records])}")
        # Only now: a plugin may implement a hook that another, loaded later, specifies.
        for record in list(self.records):
            self.check_hooks(record)

    def check_sections(self, settings: Settings) -> None:
        """
        Check the settings of plugins by their own types; raises `SettingsError`.

        A section that no plugin knows is refused, unless one that is not loaded may know it.
        """
        for record in self.records:
            sections: Mapping[str, str] | Sequence[str] = getattr(record.plugin, "SYNAPSE_SETTINGS", ())
            if not isinstance(sections, dict):
                continue
            for name in settings.values.keys() & sections.keys():
                module, _, attribute = sections[name].partition(":")
                try:
                    kind = getattr(import_module(module), attribute)
                except Exception as error:  # noqa: BLE001 - told again by whoever reads the section
                    warn(f"Plugin {record.display}: {sections[name]} cannot be imported: {error}")
                    continue
                settings.section(name, kind)
        if any(record.state != "active" for record in self.records):
            return
        known = {s for r in self.records for s in getattr(r.plugin, "SYNAPSE_SETTINGS", ())}
        problems = settings.unknown_sections(known)
        if problems:
            raise SettingsError(f"{settings.origin} cannot be used:", problems)

    def load(self, found: FoundPlugin, blocked: str | None) -> PluginRecord:
        """Import and register one plugin, unless it is blocked."""
        record = PluginRecord(
            name=found.name,
            display=found.display,
            state="active",
            distribution=found.distribution,
            value=found.value,
            dist=found.entry_point.dist,
        )
        self.records.append(record)
        if blocked is not None:
            record.state, record.reason = "blocked", blocked
            return record
        start = perf_counter()
        try:
            plugin = found.entry_point.load()
            if isinstance(plugin, type):
                plugin = plugin()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit too: no plugin may end its host
            self._fail(record, f"raised {_told(error)} when it was imported", error)
            return record
        finally:
            record.import_ms = round((perf_counter() - start) * 1000, 3)
        self._register(record, plugin)
        return record

    def register(self, plugin: object, name: str | None = None) -> PluginRecord:
        """
        Register an object as a plugin.

        A class is instantiated. Unlike an installed one, it raises `PluginError` if it cannot be used: the
        caller holds it in hand.
        """
        if isinstance(plugin, type):
            plugin = plugin()
        label = name or getattr(plugin, "__name__", None) or type(plugin).__name__
        record = PluginRecord(name=label, display=label, state="active", value=repr(plugin))
        self._register(record, plugin, strict=True)
        self.records.append(record)
        return record

    def record_of(self, plugin_name: str) -> PluginRecord | None:
        """Return the active record registered with pluggy under this name."""
        return next((r for r in self.records if r.display == plugin_name and r.state == "active"), None)

    def check_hooks(self, record: PluginRecord, *, strict: bool = False) -> None:
        """Mark a plugin failed whose implementations fit no hook, or wrap one that has no single answer."""
        if record.state != "active":
            return
        problem = self._hook_problem(record.plugin)
        if problem:
            self.manager.unregister(record.plugin)
            if strict:
                self.records.remove(record)
            self._fail(record, problem, None, strict=strict)

    def _register(self, record: PluginRecord, plugin: object, *, strict: bool = False) -> None:
        api = getattr(plugin, "SYNAPSE_API", 1)
        if not isinstance(api, int) or isinstance(api, bool):
            self._fail(record, f"has SYNAPSE_API = {api!r}, which is not a whole number", None, strict=strict)
            return
        if api > API:
            self._fail(
                record,
                f"needs hook interface {api}, this kernel has {API}: upgrade it with "
                f"pip install -U {OWN_DISTRIBUTION}",
                None,
                state="incompatible",
                strict=strict,
            )
            return
        if self.manager.has_plugin(record.display):
            self._fail(record, "is registered twice under this name", None, strict=strict)
            return
        other = self.manager.get_name(plugin)
        if other is not None:
            self._fail(record, f"is the same object as the plugin {other}", None, strict=strict)
            return
        try:
            self.manager.register(plugin, name=record.display)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever configure raises, the others go on
            # A historic hook that raised leaves the plugin half registered.
            if self.manager.has_plugin(record.display):
                self.manager.unregister(plugin)
            if isinstance(error, pluggy.PluginValidationError):
                reason = f"does not fit the hooks: {str(error).strip().splitlines()[-1]}"
            else:
                reason = f"raised {_told(error)} when it was configured"
            self._fail(record, reason, error, strict=strict)
            return
        record.plugin = plugin
        record.hooks = sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or ())

    def _hook_problem(self, plugin: object) -> str:
        hooks = [name for name in vars(self.manager.hook) if name.startswith("synapse_")]
        specified = [name for name in hooks if getattr(self.manager.hook, name).has_spec()]
        for caller in self.manager.get_hookcallers(plugin) or ():
            impls = [impl for impl in caller.get_hookimpls() if impl.plugin is plugin]
            if not caller.has_spec() and not all(impl.optionalhook for impl in impls):
                return f"implements {caller.name!r}, which is no hook{suggest(caller.name, specified)}"
            wraps = any(impl.wrapper or impl.hookwrapper for impl in impls)
            if wraps and caller.spec is not None and not caller.spec.opts.get("firstresult"):
                return f"wraps {caller.name!r}, but only hooks with a single answer can be wrapped"
        return ""

    def _fail(
        self,
        record: PluginRecord,
        reason: str,
        error: BaseException | None,
        *,
        state: PluginState = "failed",
        strict: bool = False,
    ) -> None:
        record.state, record.reason = state, reason
        if error is not None:
            import traceback

            record.traceback = "".join(traceback.format_exception(error))
        text = f"Plugin {record.display} {reason}"
        if self._strict or strict:
            raise PluginError(text, plugin=record.display) from error
        warnings.warn(
            f"{text}. It is left out; see: synapse-kernel plugins show {record.name}",
            PluginWarning,
            stacklevel=2,
        )


def _told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit({error.code!r})"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def make_manager(hookspecs: ModuleType) -> pluggy.PluginManager:
    """Make a pluggy manager that knows the kernel's hooks."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager
