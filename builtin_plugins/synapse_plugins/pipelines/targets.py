"""Where a node's action is: from the text in a pipeline to what `Kernel.run` takes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel.contracts import ActionRef

if TYPE_CHECKING:
    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import ActionSpec
    from synapse_kernel.kernel import Kernel


def target_of(action: str | ActionRef, base: str | None, kernel: Kernel) -> tuple[object, str | None]:
    """
    Return the target and the name of an action as `Kernel.run` takes them; None for a target's only action.

    A path is relative to `base`. A bare name is an installed action plugin or a module; what is neither is a
    folder of this name in `base`. Raises `SynapseError` for the reference of an action that does not load.
    """
    if isinstance(action, ActionRef):
        if action.loaded is not None:
            return action.loaded, None
        from synapse_kernel.worker import load_action

        return load_action(action).obj, None
    target, name = split_action(action)
    return _from(base, target, kernel), name


def find_action(action: str | ActionRef, base: str | None, kernel: Kernel) -> tuple[ActionSpec, ActionCode]:
    """Return the spec and the code of a node's action; raises `SynapseError` if it cannot be found."""
    from synapse_kernel.preparation import resolve_action

    target, name = target_of(action, base, kernel)
    _, spec, code = resolve_action(kernel, target, name)
    return spec, code


def as_action(given: object) -> str | ActionRef | None:
    """Return an action as a node names it: a text or path as text, a class or function as a reference."""
    if isinstance(given, (str, ActionRef)):
        return given
    if isinstance(given, os.PathLike):
        return str(given)
    return ActionRef.of(given) if isinstance(given, type) or callable(given) else None


def split_action(action: str) -> tuple[str, str | None]:
    """Split ``TARGET:ACTION``; the action is None where the text is a target alone."""
    target, colon, name = action.rpartition(":")
    if not colon or os.sep in name:
        return action, None
    return target, name or None


def _from(base: str | None, target: str, kernel: Kernel) -> str:
    if base is None or not target:
        return target
    expanded = os.path.expanduser(target)  # noqa: PTH111 - a text that is no path must stay as it is
    beside = str(Path(base) / expanded)
    if os.sep in target or target.startswith((".", "~")) or target.endswith((".py", ".yaml", ".yml")):
        return os.path.normpath(beside)
    if not Path(beside).is_dir() or target in kernel.registry.names("actions") or _is_module(target):
        return target
    return os.path.normpath(beside)


def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        return False
    # A mere directory on the path is a package to Python, but no one means it by its name.
    return spec is not None and (spec.origin is not None or "." in name)
