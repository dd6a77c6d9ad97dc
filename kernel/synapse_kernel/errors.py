"""
The errors of the kernel: one hierarchy, a sentence that helps, the data on attributes.

A message says what failed, why, what exists instead and what to type next. The class decides the exit
code of the command line: 1 the run failed, 2 usage, params or config, 3 a plugin problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_kernel.contracts import Outcome


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def listing(names: Iterable[str], *, most: int = 12) -> str:
    """Return names sorted and joined for a message; a long list is cut and says by how many."""
    ordered = sorted(names)
    if not ordered:
        return "none"
    text = ", ".join(ordered[:most])
    return text if len(ordered) <= most else f"{text} and {len(ordered) - most} more"


def suggest_module(name: str, known: Iterable[str] | None = None) -> str:
    """
    Return ``"; did you mean 'package.module'?"`` for the nearest module beside a dotted name, or nothing.

    `known` are the names of modules there, without their package; None looks for what can be imported.
    """
    package, dot, last = name.rpartition(".")
    near = suggest(last, _importable(package) if known is None else known)
    return near.replace("mean '", f"mean '{package}{dot}")


def _importable(package: str) -> list[str]:
    import pkgutil
    import sys
    from importlib.util import find_spec

    if not package:
        return [m.name for m in pkgutil.iter_modules() if m.name not in sys.stdlib_module_names]
    try:
        spec = find_spec(package)
    except Exception:  # noqa: BLE001 - a package that fails at import has nothing to suggest
        return []
    places = spec.submodule_search_locations if spec is not None else None
    return [module.name for module in pkgutil.iter_modules(places)] if places else []


class SynapseError(Exception):
    """Anything that synapse-kernel reports on purpose; `exit_code` is what the command line exits with."""

    exit_code: ClassVar[int] = 2


class TargetNotFoundError(SynapseError):
    """No path, module or installed action plugin answers to this target."""

    def __init__(self, message: str, *, target: str) -> None:
        super().__init__(message)
        self.target = target


class ActionNotFoundError(SynapseError):
    """The target is there, the action is not; `available` holds the names that are."""

    def __init__(self, action: str, *, target: str, available: Iterable[str]) -> None:
        self.action = action
        self.target = target
        self.available = sorted(available)
        super().__init__(
            f"{target} has no action {action!r}{suggest(action, self.available)}\n"
            f"  actions there: {listing(self.available)}"
        )


class EntrypointError(SynapseError):
    """An entrypoint whose module, attribute or type is wrong."""

    def __init__(self, message: str, *, entrypoint: str) -> None:
        super().__init__(message)
        self.entrypoint = entrypoint


class Problem:
    """One mistake in a person's input: where it is, what is wrong, and which source it came from."""

    __slots__ = ("message", "origin", "where")

    def __init__(self, where: str, message: str, origin: str | None = None) -> None:
        self.where = where
        self.message = message
        self.origin = origin

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} (from {self.origin})" if self.origin else text


class ProblemsError(SynapseError):
    """Several mistakes told at once; `problems` holds each."""

    def __init__(self, title: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = list(problems)
        lines = [title, *(f"  {problem}" for problem in self.problems)]
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


class ConfigError(ProblemsError):
    """A `config.yaml` that cannot be used."""


class SettingsError(ProblemsError):
    """Settings that cannot be used."""


class ParamsError(ProblemsError):
    """Params that the action does not take."""


class EnvError(SynapseError):
    """A key of a `PluginEnvironment` that is missing or does not convert."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class UsageError(SynapseError):
    """An argument of the command line or of a call that makes no sense."""


class UnknownNameError(SynapseError):
    """A contribution was asked for by a name that no plugin registered."""

    def __init__(self, message: str, *, kind: str, name: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class PluginError(SynapseError):
    """A plugin cannot be used; `plugin` is its display name, ``distribution[entry]``."""

    exit_code = 3

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class HookError(PluginError):
    """A plugin's implementation of a deciding hook raised; the cause is chained."""

    def __init__(self, plugin: str, hook: str, cause: BaseException) -> None:
        super().__init__(f"Plugin {plugin} failed in {hook}: {type(cause).__name__}: {cause}", plugin=plugin)
        self.hook = hook


class ConflictError(SynapseError):
    """Two plugins register the same name; `plugins` holds both."""

    exit_code = 3

    def __init__(self, kind: str, name: str, plugins: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.plugins = list(plugins)
        super().__init__(
            f"{kind} {name!r} is registered by {' and '.join(self.plugins)}\n"
            f"  decide with the setting  plugins: {{prefer: {{{kind}: {{{name}: '{self.plugins[0]}'}}}}}}\n"
            f"  or block one with  --without '{self.plugins[1]}'"
        )


class MissingPackageError(SynapseError):
    """A contribution needs a package that is not installed; `package` and `install` say which and how."""

    exit_code = 3

    def __init__(self, kind: str, name: str, package: str, install: str, *, hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.package = package
        self.install = install
        super().__init__(
            f"{kind} {name!r} needs the package {package!r}, which is not installed. "
            f"Install it with: {install}{hint}"
        )


class WorkFolderError(SynapseError):
    """The folder of a run cannot be made or written."""

    exit_code = 1

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        super().__init__(
            f"The run's work folder {path} cannot be written: {reason}\n"
            f"  choose another with the setting work_dir, or the variable SYNAPSE_WORK_DIR"
        )


class RunFailedError(SynapseError):
    """A run did not succeed and its result was asked for; `outcome` tells the rest."""

    exit_code = 1

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        error = outcome.error
        why = f": {error.type}: {error.message}" if error else ""
        super().__init__(f"Run {outcome.run_id} {outcome.status.replace('_', ' ')}{why}")


class RunCancelled(BaseException):
    """
    Raised inside an action when its run is told to stop.

    A `BaseException`, so that an action's ``except Exception`` does not swallow it; ``finally`` and
    ``with`` clean up as usual, and the run ends `cancelled` (or `timed_out`).
    """
