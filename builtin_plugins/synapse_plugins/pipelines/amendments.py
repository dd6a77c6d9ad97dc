"""
What is kept of a pipeline that was made to go on although it had changed.

A run's record says what the pipeline was when it started. Once it goes on as another one, it is that one that
the next attempt must be compared with; and results of before that no longer count must not count later, when
nothing has changed any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import JsonObject
from synapse_kernel.redaction import MASK, masked_places, redact
from synapse_kernel.serialization import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from synapse_kernel.stores import ChildResult, RunRecord, RunStore

KEY = "pipeline/amendment"
"""Where it is among the checkpoints of the pipeline's run."""


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """What a pipeline is since it was made to go on."""

    definition: JsonObject
    params: JsonObject
    masked: list[str]
    outdated: dict[str, int]
    """Node instances whose results are of the pipeline before, with the last attempt that was."""


def read_amendment(store: RunStore, run_id: str) -> Amendment | None:
    """Return what was kept of a run's pipeline, if it was ever made to go on."""
    raw = store.value(run_id, KEY)
    return None if raw is None else msgspec.json.decode(raw, type=Amendment)


def keep_amendment(store: RunStore, run_id: str, amendment: Amendment) -> None:
    """Keep what a run's pipeline is from now on."""
    store.put(run_id, {KEY: msgspec.json.encode(amendment)})


def amended(record: RunRecord, amendment: Amendment | None) -> RunRecord:
    """Return a run's record as it would be, had the pipeline been from the start what it is since."""
    if amendment is None:
        return record
    return msgspec.structs.replace(
        record, definition=amendment.definition, params=amendment.params, masked=amendment.masked
    )


def amend(
    before: Amendment | None,
    definition: JsonObject,
    params: Mapping[str, object],
    children: Iterable[ChildResult],
    stale: Collection[str],
    secret: Collection[str],
) -> Amendment:
    """
    Return what is to be kept of a pipeline that goes on changed, so that the nodes `stale` run again.

    The params in `secret` are masked, whatever they are called.
    """
    shown = cast("JsonObject", redact(cast("JsonObject", to_jsonable(params))))
    shown.update((name, MASK) for name in secret if name in shown)
    outdated = {} if before is None else dict(before.outdated)
    outdated |= {child.node: child.attempt for child in children if child.node.partition("[")[0] in stale}
    return Amendment(
        definition=definition, params=shown, masked=list(masked_places(shown)), outdated=outdated
    )


def counting(
    children: Iterable[ChildResult], amendment: Amendment | None, marks: Mapping[str, int]
) -> dict[str, ChildResult]:
    """
    Return what became of a run's children by node, without the results that count no more.

    `marks` are those of `synapse_plugins.pipelines.followers`.
    """
    outdated = {} if amendment is None else amendment.outdated
    return {
        child.node: child
        if child.attempt > max(outdated.get(child.node, 0), marks.get(child.node, 0))
        else msgspec.structs.replace(child, result=None, reusable=False)
        for child in children
    }
