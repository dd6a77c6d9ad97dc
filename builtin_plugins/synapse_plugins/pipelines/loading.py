"""A pipeline by what a person types: a file, a folder, or an object of a module."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_kernel import folders
from synapse_kernel.errors import EntrypointError, UsageError, listing, suggest, suggest_module
from synapse_plugins.pipelines.documents import FILE_NAMES, load_pipeline
from synapse_plugins.pipelines.running import Runnable

if TYPE_CHECKING:
    from types import ModuleType

    from synapse_kernel.kernel import Kernel


def find_pipeline(target: str, kernel: Kernel | None = None) -> Runnable:
    """
    Return the pipeline of a `pipeline.yaml`, a folder with one, or ``MODULE:NAME`` (or ``FILE.py:NAME``).

    With a kernel its actions are looked at too. Raises `PipelineError` with all that is wrong with it, and
    `UsageError` or `EntrypointError` for what names none.
    """
    place, colon, name = target.rpartition(":")
    if colon and not Path(target).exists():
        found = _object(place, name)
        if kernel is not None:
            found.check_for(kernel)
        return found
    path = Path(target).expanduser()
    if path.suffix == ".py" or not (path.exists() or _looks_like_a_file(target)):
        raise UsageError(
            f"{target!r} names no pipeline: give a {FILE_NAMES[0]}, a folder with one, or MODULE:NAME"
        )
    if not path.exists():
        near = suggest(path.name, _beside(path))
        raise UsageError(f"There is no {target}{near}")
    if path.is_dir() and not any((path / name).is_file() for name in FILE_NAMES):
        raise UsageError(f"The folder {target} has no {FILE_NAMES[0]}")
    return load_pipeline(path, kernel)


def _looks_like_a_file(target: str) -> bool:
    return os.sep in target or target.endswith((".yaml", ".yml", ".json"))


def _beside(path: Path) -> list[str]:
    try:
        return [found.name for found in path.parent.iterdir()]
    except OSError:
        return []


def _object(place: str, name: str) -> Runnable:
    """Return what a module calls by a name; raises `EntrypointError` if that is no pipeline."""
    label = f"{place}:{name}"
    module = _module(place, label)
    found = getattr(module, name, None)
    if isinstance(found, Runnable):
        return found
    known = [key for key, value in vars(module).items() if isinstance(value, Runnable)]
    what = f"is of type {type(found).__name__}" if hasattr(module, name) else "is not there"
    raise EntrypointError(
        f"{label} is no pipeline: {name!r} {what}{suggest(name, known)}\n"
        f"  pipelines in {place}: {listing(known)}",
        entrypoint=label,
    )


def _module(place: str, label: str) -> ModuleType:
    path = Path(place).expanduser().absolute()
    if place.endswith(".py") and not path.is_file():
        raise UsageError(f"There is no {place}{suggest(path.name, _beside(path))}")
    try:
        if place.endswith(".py"):
            return folders.load(str(path.parent), path.stem)
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise _broken(label, error) from error
        raise EntrypointError(
            f"{label} names a module that is not there: {error.name!r}{suggest_module(place)}",
            entrypoint=label,
        ) from None
    except ValueError as error:
        if place:
            raise _broken(label, error) from error
        raise UsageError(f"{label!r} names no pipeline: MODULE:NAME needs both") from None
    except (Exception, SystemExit) as error:
        raise _broken(label, error) from error


def _broken(label: str, error: BaseException) -> EntrypointError:
    return EntrypointError(
        f"The module of {label} does not import: {type(error).__name__}: {error}", entrypoint=label
    )
