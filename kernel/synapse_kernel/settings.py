"""
Settings: what a person or a platform decides once, apart from any run.

Sources, the later wins, key by key: the user's file, the project's ``synapse.yaml`` (in this folder or the
nearest above), ``SYNAPSE_*`` variables, what is passed in code or on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar, cast

import msgspec

from synapse_kernel.errors import Problem, SettingsError, suggest
from synapse_kernel.structs import convert

S = TypeVar("S", bound=msgspec.Struct)
Seconds = Annotated[float, msgspec.Meta(ge=0)]

FILE_NAME = "synapse.yaml"


class PluginSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which plugins are loaded, and who wins where two register the same name."""

    block: list[str] = []
    """Plugins that are not imported, by entry name or ``distribution[entry]``."""
    only: list[str] | None = None
    """If set, no other plugin is imported; an empty list means none at all."""
    prefer: dict[str, dict[str, str]] = {}
    """For a kind of contribution and a name: the plugin whose contribution counts."""


class EnvSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of the caller's environment reaches every run."""

    names: list[str] = []
    """Variables to pass, where they are set."""
    prefix: str | None = None
    """Pass the variables that start with this."""


class RetrySettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How long a run waits before it is tried again: exponential, with jitter of up to the initial delay."""

    initial: Seconds = 1.0
    """Seconds before the first retry."""
    maximum: Seconds = 60.0
    """Seconds that no delay exceeds."""


class KernelSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The kernel's own keys; any other top-level key is a plugin's section."""

    plugins: PluginSettings = PluginSettings()
    env: EnvSettings = EnvSettings()
    retry: RetrySettings = RetrySettings()
    executor: str | None = None
    """The executor of runs that ask for none and whose action names no method."""
    sinks: list[str] | None = None
    """Sinks of every run, as ``name`` or ``name:argument``."""
    work_dir: str | None = None
    """The folder under which each run makes its own."""
    grace: Seconds = 5.0
    """Seconds between telling a run to stop and stopping it by force."""
    storage: dict[str, str | dict[str, object]] = {}
    """Named storages: for each name a URL, or its `provider` and `configuration`."""
    artifacts: str | None = None
    """A storage (its URL, or ``storage://name/folder``) where artifacts go; unset, they stay in place."""
    store: str | None = None
    """
    Where runs are recorded: a run store's URL, ``none``, or ``auto`` for the history in the state folder.

    Unset is ``auto`` for the command line and ``none`` for a kernel that is embedded.
    """


KERNEL_KEYS = tuple(KernelSettings.__struct_fields__)


class Settings:
    """
    Checked settings: the kernel's keys as attributes, plugins' sections by `section`.

    Raises `SettingsError` with every mistake in the kernel's own keys. Nothing is read from files or the
    environment here: that is `load_settings`.
    """

    def __init__(self, values: Mapping[str, object] | None = None, *, origin: str = "the settings") -> None:
        self.values: dict[str, object] = dict(values or {})
        self.origin = origin
        own = {key: value for key, value in self.values.items() if key in KERNEL_KEYS and value is not None}
        if not own:
            self.kernel = _DEFAULTS
            return
        kernel, problems = convert(own, KernelSettings)
        if kernel is None:
            raise SettingsError(f"{origin} cannot be used:", problems)
        self.kernel = kernel

    def section(self, name: str, kind: type[S]) -> S:
        """Return a plugin's section, checked; raises `SettingsError` with every mistake in it."""
        value = self.values.get(name, {})
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"{self.origin} cannot be used:", [Problem(name, f"expected a mapping, got {value!r}")]
            )
        section, problems = convert(value, kind, where=name)
        if section is None:
            raise SettingsError(f"{self.origin} cannot be used:", problems)
        return section

    def unknown_sections(self, known: set[str]) -> list[Problem]:
        """Return a problem for each top-level key that is neither the kernel's nor in `known`."""
        all_known = known | set(KERNEL_KEYS)
        return [
            Problem(key, f"no plugin knows this key{suggest(key, all_known)}")
            for key in self.values
            if key not in all_known
        ]


_DEFAULTS = KernelSettings()


def state_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of what the kernel keeps for a user: ``SYNAPSE_HOME``, else the platform's place."""
    named = (os.environ if environ is None else environ).get("SYNAPSE_HOME")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_state_path("synapse-kernel")


def find_project_file(start: Path) -> Path | None:
    """Return the nearest ``synapse.yaml`` in a folder or above it."""
    for folder in (start, *start.parents):
        candidate = folder / FILE_NAME
        if candidate.is_file():
            return candidate
    return None


def user_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the user's own settings stand, whether or not they are there."""
    source = os.environ if environ is None else environ
    if source.get("SYNAPSE_HOME"):
        return state_home(source) / FILE_NAME
    base = source.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "synapse-kernel" / FILE_NAME


def load_settings(
    file: str | Path | None = None,
    *,
    start: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Settings:
    """
    Read the settings a command would use.

    `file` takes the place of the project's ``synapse.yaml``; `defaults` give way to all else.

    Raises `SettingsError` for a file that is not there, does not parse, or holds what does not fit.
    """
    source = os.environ if environ is None else environ
    project = Path(file) if file is not None else _project_file(start)
    if file is not None and not Path(file).is_file():
        raise SettingsError("The settings cannot be read:", [Problem(str(file), "there is no such file")])
    values: dict[str, object] = dict(defaults or {})
    origins: list[str] = []
    for candidate in (user_file(source), project):
        if candidate is not None and os.path.isfile(candidate):  # noqa: PTH113 - False where it may not be read
            _merge(values, _read(candidate))
            origins.append(str(candidate))
    variables = _from_environ(source)
    if variables:
        _merge(values, variables)
        origins.append("SYNAPSE_* variables")
    if overrides:
        _merge(values, overrides)
    return Settings(values, origin=" + ".join(origins) or "the settings")


def _project_file(start: Path | None) -> Path | None:
    try:
        return find_project_file(start or Path.cwd())
    except OSError:  # a folder that was deleted meanwhile, or that may not be read
        return None


def _read(file: Path) -> dict[str, object]:
    from synapse_kernel.yaml_files import YamlError, read_mapping

    try:
        return read_mapping(file)
    except YamlError as error:
        raise SettingsError("The settings cannot be read:", [Problem("", str(error))]) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError("The settings cannot be read:", [Problem(str(file), reason)]) from error


def _from_environ(source: Mapping[str, str]) -> dict[str, object]:
    """
    Read ``SYNAPSE_KEY`` and ``SYNAPSE_KEY__INNER`` for the kernel's keys, values as YAML.

    ``SYNAPSE_PLUGINS=a,b`` names the only plugins to load; empty, none.
    """
    values: dict[str, object] = {}
    for name, text in source.items():
        if not name.startswith("SYNAPSE_"):
            continue
        parts = name.removeprefix("SYNAPSE_").lower().split("__")
        if parts == ["plugins"]:
            _merge(values, {"plugins": {"only": [p.strip() for p in text.split(",") if p.strip()]}})
        elif parts[0] in KERNEL_KEYS:
            _merge(values, _value_of(parts, text, name))
    return values


def assigned(assignments: Iterable[str]) -> dict[str, object]:
    """
    Return settings from texts like ``ray.address=local``: dotted keys reach inside, values are YAML.

    Raises `SettingsError` for one that has no key or no value, or whose value is no YAML.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            problem = Problem(f"--set {assignment}", "expected KEY=VALUE, such as ray.address=local")
            raise SettingsError("The settings cannot be read:", [problem])
        _merge(values, _value_of(parts, text, f"--set {key}"))
    return values


def _value_of(parts: list[str], text: str, where: str) -> dict[str, object]:
    """Return the settings that a text stands for; `where` names it in an error."""
    if parts == ["store"]:
        # A URL such as ``sqlite:`` would be a mapping to YAML.
        return {"store": text}
    if parts == ["sinks"]:
        return {"sinks": [p.strip() for p in text.split(",") if p.strip()]}
    import yaml

    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = Problem(where, f"not a YAML value: {text!r}")
        raise SettingsError("The settings cannot be read:", [problem]) from error
    for part in reversed(parts):
        value = {part: value}
    return cast("dict[str, object]", value)


def _merge(into: dict[str, object], values: Mapping[str, object]) -> None:
    for key, value in values.items():
        present = into.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            merged = dict(present)
            _merge(merged, value)
            into[key] = merged
        else:
            into[key] = value
