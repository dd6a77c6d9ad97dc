"""
Which actions does a target hold? Folders with a `config.yaml`, modules, installed action plugins.

`PluginDiscovery` is the same for those who embed it; `discover_actions` reads source without running it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import CommandSpec

if TYPE_CHECKING:
    from synapse_kernel.contracts import ActionPlugin
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.discovery.finder import Finder
    from synapse_plugins.discovery.plugin_discovery import PluginDiscovery

__all__ = ["DiscoveryPlugin", "PluginDiscovery"]


class DiscoveryPlugin:
    """The plugin object: one for each kernel, with what it found kept until the files change."""

    def __init__(self) -> None:
        self._kernel: Kernel | None = None
        self._finder: Finder | None = None

    @hookimpl
    def synapse_configure(self, kernel: Kernel) -> None:
        """Remember the kernel, to ask it for installed action plugins."""
        self._kernel = kernel

    @hookimpl
    def synapse_register_commands(self) -> list[CommandSpec]:
        """Register `sync-config`."""
        return [
            CommandSpec(
                name="sync-config",
                target="synapse_plugins.discovery.command:sync_config",
                summary="Write the actions found in a folder's code into its config.yaml.",
            )
        ]

    @hookimpl
    def synapse_discover(self, target: str) -> ActionPlugin | None:
        """Answer for paths, installed action plugins and modules, in that order."""
        if self._finder is None:
            from synapse_plugins.discovery.finder import Finder

            self._finder = Finder(self._kernel)
        return self._finder.find(target)


def __getattr__(name: str) -> object:
    if name != "PluginDiscovery":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synapse_plugins.discovery.plugin_discovery import PluginDiscovery

    return PluginDiscovery
