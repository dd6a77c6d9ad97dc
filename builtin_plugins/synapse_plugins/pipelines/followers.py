"""
Which recorded results count no more because a node that they were built on runs again.

A pipeline that goes on takes what was recorded of a node only while all that the node needs is what it was.
As a node is about to run again, its followers with a recorded result are marked in the store: should the
process die then, a later attempt would find the new result recorded, and theirs of before beside it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synapse_kernel.stores import ChildResult, RunStore

PREFIX = "pipeline/outdated/"
"""Where the marks are among the checkpoints of the pipeline's run, with the node that they are for."""


def read_marks(store: RunStore, run_id: str) -> dict[str, int]:
    """Return the node instances that are marked, with the last attempt whose result does not count."""
    found: dict[str, int] = {}
    for _, raw in store.entries(run_id, PREFIX):
        for instance, attempt in msgspec.json.decode(raw, type=dict[str, int]).items():
            found[instance] = max(attempt, found.get(instance, 0))
    return found


class Followers:
    """
    Tells which nodes' recorded results are stale, in one attempt of a pipeline.

    `needs` are all nodes with those they need, `children` what is recorded of the attempts before, `store`
    None where nothing is. Not for several threads.
    """

    def __init__(
        self,
        run_id: str,
        needs: Mapping[str, Iterable[str]],
        children: Mapping[str, ChildResult],
        store: RunStore | None,
    ) -> None:
        self._run_id = run_id
        self._needs = needs
        self._children = children
        self._store = store
        self._changed: set[str] = set()
        """Nodes that are not what they were, and those that follow from them."""
        self._marked: set[str] = set()
        """Nodes for which marks were made in this attempt."""
        self._recorded: dict[str, dict[str, int]] | None = None
        self._following: Mapping[str, Iterable[str]] = {}
        self._awaited: set[str] = set()

    def is_stale(self, node: str) -> bool:
        """Tell whether a node that starts needs one that is not what it was, directly or not."""
        if self._store is None or self._changed.isdisjoint(self._needs[node]):
            return False
        self._changed.add(node)
        return True

    def begin(self, node: str) -> None:
        """Mark what follows from a node that is about to run again; raises `StoreError`."""
        # What follows from a stale node is marked already, for the node that made it stale.
        if self._store is None or node in self._changed:
            return
        if self._recorded is None:
            self._recorded = self._look()
        if node not in self._awaited:
            return
        marks: dict[str, int] = {}
        for name in sorted(reached([node], self._following)):
            marks |= self._recorded.get(name, {})
        self._store.put(self._run_id, {PREFIX + node: msgspec.json.encode(marks)})
        self._marked.add(node)

    def end_instance(self, node: str, instance: str, *, succeeded: bool) -> None:
        """Take note of what became of a node instance that was run."""
        if self._store is None:
            return
        before = self._children.get(instance)
        # That it has no result, as before, is the same again. A result cannot be compared: of one that counts
        # the instance would not have been run, and files behind the same path may hold something else.
        if succeeded or (before is not None and before.status == "succeeded"):
            self._changed.add(node)

    def end(self, node: str) -> None:
        """Take the marks back if a node has become what it was before."""
        if node in self._marked and node not in self._changed and self._store is not None:
            # Marks that stay cost no more than doing once again what was done.
            with suppress(StoreError):
                self._store.remove(self._run_id, [PREFIX + node])

    def _look(self) -> dict[str, dict[str, int]]:
        """Find the nodes with a recorded result and the attempts of their instances, and what those need."""
        recorded: dict[str, dict[str, int]] = {}
        for child in self._children.values():
            if child.result is not None and child.reusable:
                recorded.setdefault(child.node.partition("[")[0], {})[child.node] = child.attempt
        self._following = following(self._needs)
        self._awaited = reached(recorded, self._needs)
        return recorded


def following(needs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return for each node that is needed those that need it."""
    found: dict[str, list[str]] = {}
    for node, needed in needs.items():
        for need in needed:
            found.setdefault(need, []).append(node)
    return found


def reached(starts: Iterable[str], ways: Mapping[str, Iterable[str]]) -> set[str]:
    """Return what is reached from any of the starts in one step or more."""
    found: set[str] = set()
    pending = list(starts)
    while pending:
        new = set(ways.get(pending.pop(), ())) - found
        found |= new
        pending.extend(new)
    return found
