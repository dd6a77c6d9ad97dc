"""Public names of a package that are imported from their modules on first use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def names_from(package: str, home_of: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package; `home_of` gives for each name the module below it."""

    def get(name: str) -> object:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{package}.{home}"), name)
        # From now on it is found without being asked for here.
        setattr(sys.modules[package], name, value)
        return value

    return get
