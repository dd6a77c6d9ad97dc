"""The artifacts of a run: what its events say, and what was found out about the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.events import Artifact
from synapse_plugins.history.commands.reading import Follower

if TYPE_CHECKING:
    from synapse_kernel.stores import RunStore


class RecordedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder that a run made; `size` is in bytes."""

    name: str
    path: str
    size: int | None = None
    sha256: str | None = None
    """The checksum of a file, where it is known."""


def artifacts_of(store: RunStore, run_id: str) -> list[RecordedArtifact]:
    """Return a run's artifacts in the order they were made; of one made twice, the last."""
    found: dict[tuple[str, str], RecordedArtifact] = {}
    for page in Follower(store, run_id, kinds=("artifact",), descendants=False).new():
        for event in page:
            if isinstance(event, Artifact):
                found[event.name, event.path] = RecordedArtifact(
                    name=event.name, path=event.path, size=event.size, sha256=getattr(event, "sha256", None)
                )
    return list(found.values())
