"""What of the client's machine reaches others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_reached(settings: Mapping[str, object]) -> bool:
    """Tell whether the run store of settings is one that other machines reach: a server's."""
    store = str(settings.get("store"))
    return "://" in store and not store.startswith("sqlite")
