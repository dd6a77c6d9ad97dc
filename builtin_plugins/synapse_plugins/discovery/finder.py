"""What a target means: the answer to `synapse_discover`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.config import FILE_NAME
from synapse_kernel.errors import EntrypointError, SynapseError, TargetNotFoundError
from synapse_kernel.specs import ActionsSpec
from synapse_plugins.discovery.plugin_discovery import PluginDiscovery, no_such_path
from synapse_plugins.discovery.static import stamp

if TYPE_CHECKING:
    from synapse_kernel.contracts import ActionPlugin
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.discovery.static import Stamp


class Finder:
    """Answers `synapse_discover` for one kernel; what it found is kept until the files it read change."""

    def __init__(self, kernel: Kernel | None) -> None:
        self._kernel = kernel
        self._kept: dict[str, tuple[ActionPlugin, dict[str, Stamp]]] = {}

    def find(self, target: str) -> ActionPlugin | None:
        """Return the plugin that a target means, or None if it means nothing here."""
        path = os.path.abspath(os.path.expanduser(target))  # noqa: PTH100, PTH111 - pathlib costs ten times this
        kept = self._kept.get(path)
        if kept is not None and kept[0].target == target and _unchanged(kept[1]):
            return kept[0]
        # os.path: False, not an error, where a folder may not be read.
        is_there = os.path.exists(path)  # noqa: PTH110
        if _is_plugin_path(path) or (_looks_like_path(target) and is_there):
            return self._at_path(path, target)
        if _looks_like_path(target):
            raise no_such_path(Path(path), shown=target)
        found = self._installed(target) or _module(target)
        if (found is None or not found.actions) and os.path.isdir(path):  # noqa: PTH112
            return self._at_path(path, target)
        return found

    def _at_path(self, path: str, target: str) -> ActionPlugin:
        found = PluginDiscovery.from_path(path)
        plugin = _with_target(found.plugin, target)
        self._kept[path] = (plugin, found.stamps)
        return plugin

    def _installed(self, target: str) -> ActionPlugin | None:
        if self._kernel is None or target not in self._kernel.registry.names("actions"):
            return None
        contribution = self._kernel.registry.get("actions", target)
        assert isinstance(contribution.spec, ActionsSpec)
        module, _, _ = contribution.spec.target.partition(":")
        what = f"The action plugin {target!r} of {contribution.plugin.display} does not import"
        try:
            found = PluginDiscovery.from_module(module)
        except TargetNotFoundError as error:
            raise EntrypointError(f"{what}: {error}", entrypoint=module) from error
        except SynapseError:
            raise
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise EntrypointError(f"{what}: {reason}", entrypoint=module) from error
        return _with_target(found.plugin, target)


def _with_target(plugin: ActionPlugin, target: str) -> ActionPlugin:
    return msgspec.structs.replace(plugin, target=target)


def _is_plugin_path(path: str) -> bool:
    if path.endswith((".py", ".yaml", ".yml")):
        return os.path.isfile(path)  # noqa: PTH113
    return os.path.isfile(os.path.join(path, FILE_NAME))  # noqa: PTH113, PTH118


def _looks_like_path(target: str) -> bool:
    return os.sep in target or target.startswith((".", "~")) or target.endswith((".py", ".yaml", ".yml"))


def _unchanged(stamps: dict[str, Stamp]) -> bool:
    try:
        return all(stamp(path) == known for path, known in stamps.items())
    except OSError:
        return False


def _module(target: str) -> ActionPlugin | None:
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:
        return None
    # A mere directory on the path is a package to Python, but no one means it by its name.
    if spec is None or (spec.origin is None and len(parts) == 1):
        return None
    try:
        return PluginDiscovery.from_module(target).plugin
    except SynapseError:
        raise
    except (Exception, SystemExit) as error:
        raise EntrypointError(
            f"The module {target!r} does not import: {type(error).__name__}: {error}", entrypoint=target
        ) from error
