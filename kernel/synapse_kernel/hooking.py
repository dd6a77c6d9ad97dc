"""
Calls of hooks: the façade over pluggy, where a value of no known type may pass, and no farther.

Each way of calling has one rule for errors. Contributions and observers are isolated plugin by plugin; a
deciding hook's error is raised with the name of the plugin it came through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_kernel.errors import HookError, SynapseError
from synapse_kernel.hookspecs import CONTRIBUTIONS
from synapse_kernel.plugins import warn
from synapse_kernel.registry import Contribution
from synapse_kernel.specs import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pluggy

    from synapse_kernel.plugins import PluginRecord


class Hooks:
    """The hooks of one kernel."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.caller: Any = manager.hook
        """Pluggy's own relay: ``caller.NAME(...)``, for hooks that plugins added."""

    def implementations(self, *, except_for: str) -> dict[str, list[str]]:
        """Return every specified hook with the plugins that implement it, the first called first."""
        return {
            name: [i.plugin_name for i in reversed(caller.get_hookimpls()) if i.plugin_name != except_for]
            for name, caller in sorted(vars(self.caller).items())
            if not name.startswith("_") and caller.has_spec()
        }

    def collect(self, kind: str, records: Sequence[PluginRecord]) -> list[Contribution]:
        """Ask the active plugins for a kind of contribution; one that fails loses its own, with a warning."""
        hook = CONTRIBUTIONS[kind]
        impls = getattr(self.caller, hook).get_hookimpls()
        found: list[Contribution] = []
        for record in records:
            own = [i.function for i in impls if i.plugin_name == record.display and record.state == "active"]
            try:
                specs = [spec for function in own for spec in function() or ()]
                strange = next((spec for spec in specs if not isinstance(spec, Spec)), None)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin's fault is not another's
                warn(_left_out(record.display, hook, kind, f"{type(error).__name__}: {error}"))
                continue
            if strange is None:
                found.extend(Contribution(spec, record) for spec in specs)
            else:
                warn(_left_out(record.display, hook, kind, f"TypeError: {strange!r} is no descriptor"))
        return found

    def first(self, hook: str, **kwargs: object) -> object:
        """
        Call a deciding hook and return its first answer.

        A `SynapseError` is raised as it is, anything else as `HookError` naming the plugin.
        """
        caller = getattr(self.caller, hook)
        try:
            return caller(**kwargs)
        except SynapseError:
            raise
        except (Exception, SystemExit) as error:
            raise HookError(_culprit(caller.get_hookimpls(), error), hook, error) from error

    def observe(self, hook: str, **kwargs: object) -> list[tuple[str, Any]]:
        """
        Call a hook plugin by plugin, the last registered first; return each plugin's name with its answer.

        What one raises is a warning, and the others are still called.
        """
        results: list[tuple[str, Any]] = []
        for impl in reversed(getattr(self.caller, hook).get_hookimpls()):
            try:
                answer = impl.function(**{name: kwargs[name] for name in impl.argnames})
            except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin's fault is not another's
                warn(f"Plugin {impl.plugin_name} failed in {hook}: {type(error).__name__}: {error}")
            else:
                results.append((impl.plugin_name, answer))
        return results


def _left_out(plugin: str, hook: str, kind: str, why: str) -> str:
    return f"Plugin {plugin} failed in {hook}, its {kind} are left out: {why}"


def _culprit(impls: list[Any], error: BaseException) -> str:
    """Name the plugin whose implementation an exception passed through, the innermost."""
    codes = {getattr(impl.function, "__code__", None): impl.plugin_name for impl in impls}
    found, trace = "unknown", error.__traceback__
    while trace is not None:
        found = codes.get(trace.tb_frame.f_code, found)
        trace = trace.tb_next
    return str(found)
