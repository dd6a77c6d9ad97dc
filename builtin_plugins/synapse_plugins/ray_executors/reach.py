"""What of the client's machine reaches others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_reached(settings: Mapping[str, object]) -> bool:
    """Tell whether the run store of settings is one that other machines reach: a server's."""
    return is_server(str(settings.get("store")))


def is_server(url: str) -> bool:
    """Tell whether a run store's URL names a server, rather than a file."""
    return "://" in url and not url.startswith("sqlite")
