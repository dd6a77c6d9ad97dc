"""Action plugins as Python objects."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel.actions import action_code, is_action
from synapse_kernel.config import (
    FILE_NAME,
    ActionConfig,
    PluginConfig,
    action_spec,
    config_file,
    load_config,
    normal_entrypoint,
)
from synapse_kernel.contracts import ActionPlugin, ActionRef, ActionSpec
from synapse_kernel.errors import (
    ActionNotFoundError,
    ConfigError,
    Problem,
    TargetNotFoundError,
    listing,
    suggest,
    suggest_module,
)
from synapse_kernel.worker import load_action
from synapse_plugins.discovery.static import FOR_DERIVING, discover, stamp

if TYPE_CHECKING:
    import os
    from types import ModuleType

    from synapse_kernel.actions import ActionCode
    from synapse_plugins.discovery.static import FoundAction, Stamp, StaticResult
    from synapse_plugins.discovery.sync import SyncReport


class PluginDiscovery:
    """
    The actions of one action plugin, their config and their code.

    Make it with `from_path` or `from_module`. Code is imported when a class or a model is asked for.
    """

    def __init__(
        self,
        plugin: ActionPlugin,
        config: PluginConfig | None = None,
        *,
        stamps: dict[str, Stamp] | None = None,
    ) -> None:
        self.plugin = plugin
        self.config = config
        self.stamps = stamps or {}
        """How the files and folders were that this was read from."""

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> PluginDiscovery:
        """
        Read a folder, its `config.yaml`, or a Python file.

        A folder without a config counts by the actions in its source. Raises `ConfigError` for a broken
        config and `TargetNotFoundError` for a path that is not there.
        """
        given = Path(path).expanduser()
        if not given.exists():
            raise no_such_path(given)
        file = config_file(given)
        if given.suffix == ".py" or not file.exists():
            found = discover(given)
            return cls(_from_source(given, found, str(path)), stamps=found.stamps)
        stamps = {str(file): stamp(file)}
        config = load_config(file)
        static = _source_for(config, file.parent)
        plugin = _from_config(config, file, str(path), static)
        return cls(plugin, config, stamps=stamps | (static.stamps if static else {}))

    @classmethod
    def from_module(cls, module: ModuleType | str) -> PluginDiscovery:
        """
        Read the actions that a module defines or names in ``__all__``, given itself or by its dotted name.

        A package with a `config.yaml` beside its ``__init__.py`` counts by that. Raises
        `TargetNotFoundError` for a name that is no module's, and what the module raises when it is imported.
        """
        found = _import(module) if isinstance(module, str) else module
        file = getattr(found, "__file__", None)
        if file is not None and Path(file).name == "__init__.py" and (Path(file).parent / FILE_NAME).exists():
            beside = Path(file).parent / FILE_NAME
            config = load_config(beside)
            static = _source_for(config, beside.parent)
            package = found.__name__
            return cls(_from_config(config, beside, package, static, package=package), config)
        return cls(_from_module(found))

    @staticmethod
    def discover_actions(path: str | os.PathLike[str]) -> StaticResult:
        """Look for actions in source without running it; files that do not parse are in `problems`."""
        given = Path(path).expanduser()
        if not given.exists():
            raise no_such_path(given)
        return discover(given)

    @staticmethod
    def sync_config_file(path: str | os.PathLike[str], *, dry_run: bool = False) -> SyncReport:
        """Write the actions found in a folder's source into its `config.yaml`; see `SyncReport`."""
        from synapse_plugins.discovery.sync import sync_config_file

        return sync_config_file(Path(path).expanduser(), dry_run=dry_run)

    def list_actions(self) -> list[str]:
        """Return the names of the actions, in the order of the config or the source."""
        return list(self.plugin.actions)

    def has_action(self, name: str) -> bool:
        """Tell whether there is an action of this name."""
        return name in self.plugin.actions

    def get_action_spec(self, name: str) -> ActionSpec:
        """Return how the kernel sees an action; raises `ActionNotFoundError` with the nearest name."""
        try:
            return self.plugin.actions[name]
        except KeyError:
            target, available = self.plugin.target, self.plugin.actions
            raise ActionNotFoundError(name, target=target, available=available) from None

    def get_action_config(self, name: str) -> ActionConfig:
        """Return what the config says of an action: defaults, where there is no config."""
        self.get_action_spec(name)
        configs = self.config.action_configs() if self.config is not None else {}
        return configs.get(name, ActionConfig())

    def get_action_method(self, name: str) -> str:
        """Return the action's method: ``local`` where the config names none."""
        return self.get_action_spec(name).method or "local"

    def get_action_entrypoint(self, name: str) -> str:
        """Return ``module:Attribute``."""
        return self.get_action_spec(name).ref.entrypoint

    def get_action_class(self, name: str) -> object:
        """Import and return the action: a class, or a function under `@action`."""
        return self._code(name).obj

    def get_action_params_model(self, name: str) -> object:
        """Import the action and return the type of its params, or None."""
        return self._code(name).params_type

    def get_action_result_model(self, name: str) -> object:
        """Import the action and return the type of its result, or None."""
        return self._code(name).result_type

    def get_action_input_type(self, name: str) -> str | None:
        """Return the name of the semantic type that goes in: the config's, else the code's."""
        return self.get_action_spec(name).input_type or self._code(name).input_type

    def get_action_output_type(self, name: str) -> str | None:
        """Return the name of the semantic type that comes out: the config's, else the code's."""
        return self.get_action_spec(name).output_type or self._code(name).output_type

    def _code(self, name: str) -> ActionCode:
        return load_action(self.get_action_spec(name).ref)


def _source_for(config: PluginConfig, folder: Path) -> StaticResult | None:
    """Look into the source where the config leaves an entrypoint to be found."""
    if all(action.entrypoint is not None for action in config.action_configs().values()):
        return None
    return discover(folder)


def _from_config(
    config: PluginConfig, file: Path, target: str, static: StaticResult | None, package: str | None = None
) -> ActionPlugin:
    folder = str(file.parent.resolve())
    configs = config.action_configs()
    by_name = {action.name: action.entrypoint for action in static.actions} if static else {}
    ambiguous = {problem.where: problem for problem in _twice(static)} if static else {}
    actions: dict[str, ActionSpec] = {}
    problems: list[Problem] = []
    for name, action in configs.items():
        entrypoint = action.entrypoint or by_name.get(name)
        where = f"actions.{name}.entrypoint"
        if action.entrypoint is None and name in ambiguous:
            problems.append(Problem(where, f"null, and {ambiguous[name].message}"))
            continue
        if entrypoint is None:
            hint = suggest(name, by_name) or f"; actions in the code: {listing(by_name)}"
            problems.append(Problem(where, f"null, and no action of this name is in the code{hint}"))
            continue
        entrypoint = normal_entrypoint(entrypoint)
        actions[name] = action_spec(
            name,
            action,
            config,
            entrypoint=_in_package(package, entrypoint) if package else entrypoint,
            folder=None if package else folder,
            origin=file.name,
        )
    if problems:
        raise ConfigError(f"{file} cannot be used:", problems)
    return ActionPlugin(
        name=config.code or config.name,
        target=target,
        actions=actions,
        version=None if config.version is None else str(config.version),
        description=config.description,
        folder=folder,
        problems=[str(p) for p in static.problems] if static else [],
    )


def _in_package(package: str, entrypoint: str) -> str:
    """Name a module of an installed package in full; it may be written relative to its config."""
    if entrypoint.startswith((f"{package}.", f"{package}:")):
        return entrypoint
    module, _, attribute = entrypoint.partition(":")
    return f"{package}:{attribute}" if module == "__init__" else f"{package}.{entrypoint}"


def _twice(found: StaticResult) -> list[Problem]:
    """Return a problem for each name that more than one action of the source has."""
    by_name: dict[str, list[FoundAction]] = {}
    for action in found.actions:
        by_name.setdefault(action.name, []).append(action)
    return [
        Problem(name, f"several actions have this name: {', '.join(a.entrypoint for a in actions)}")
        for name, actions in by_name.items()
        if len(actions) > 1
    ]


def _from_source(path: Path, found: StaticResult, target: str) -> ActionPlugin:
    if not found.actions:
        broken = "".join(f"\n  {problem}" for problem in found.problems)
        what = f"no {FILE_NAME} and no action in its source" if path.is_dir() else "no action in it"
        raise TargetNotFoundError(
            f"{target} has {what}{broken}\n"
            "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action",
            target=target,
        )
    twice = _twice(found)
    if twice:
        hint = f"  give one another name, or say which is meant in a {FILE_NAME}"
        raise ConfigError(f"{target} cannot be used:", twice, hint=hint)
    folder = str(Path(found.folder).resolve())
    return ActionPlugin(
        name=path.resolve().name if path.is_dir() else path.stem,
        target=target,
        actions={
            action.name: ActionSpec(
                name=action.name, ref=ActionRef(action.entrypoint, folder), description=action.description
            )
            for action in found.actions
        },
        folder=folder,
        problems=[str(problem) for problem in found.problems],
    )


def _from_module(module: ModuleType) -> ActionPlugin:
    public = getattr(module, "__all__", None)
    names = list(public) if public is not None else [n for n in vars(module) if not FOR_DERIVING.match(n)]
    actions: dict[str, ActionSpec] = {}
    for name in names:
        obj = getattr(module, name, None)
        if not is_action(obj) or (public is None and getattr(obj, "__module__", None) != module.__name__):
            continue
        code = action_code(obj)
        actions[code.name] = ActionSpec(
            name=code.name,
            ref=ActionRef.of(obj),
            description=code.description,
            category=code.category,
            input_type=code.input_type,
            output_type=code.output_type,
        )
    return ActionPlugin(
        name=module.__name__,
        target=module.__name__,
        actions=actions,
        description=(module.__doc__ or "").strip().partition("\n")[0],
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise TargetNotFoundError(f"There is no module {name!r}{suggest_module(name)}", target=name) from None


def no_such_path(path: Path, *, shown: str | None = None) -> TargetNotFoundError:
    """Say that a path is not there, with the nearest name beside it."""
    near = ""
    parent = path.parent
    if parent.is_dir():
        near = suggest(path.name, (p.name for p in parent.iterdir() if not p.name.startswith(".")))
    label = shown if shown is not None else str(path)
    return TargetNotFoundError(f"There is no {label}{near}", target=label)
