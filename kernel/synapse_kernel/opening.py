"""What is opened before a run starts: its sinks, those of its parent, and its record in the store."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import RunInfo, Sink
from synapse_kernel.emitter import ChildSink
from synapse_kernel.errors import SynapseError, UsageError
from synapse_kernel.hooking import warn
from synapse_kernel.params import shown
from synapse_kernel.redaction import masked_places
from synapse_kernel.settings import state_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.preparation import Prepared
    from synapse_kernel.runs import Live
    from synapse_kernel.stores import RunStore

RECORDER = "history"
"""The name of the sink that records runs in the kernel's store."""


class Opened(msgspec.Struct, kw_only=True):
    """What was opened for a run before it starts."""

    sinks: list[tuple[str, Sink]]
    recorded: bool = False
    attempt: int = 1
    """The number of its first attempt: more than 1 for a run that goes on."""
    seq: int = 0
    """The number of its last event so far."""


def open_sinks(kernel: Kernel, prepared: Prepared) -> Opened:
    """
    Open the sinks of a run: those that were asked for, else the settings', its parent's, and the history.

    Raises `SynapseError` for a bad one; `StoreError` for a history that cannot be written where the run must
    be recorded, and `RunBusyError` for a run that was to go on and that another process runs.
    """
    request, place = prepared.request, prepared.request.place
    parent = kernel.live_runs.get(place.parent) if place.parent is not None else None
    default = kernel.settings.kernel.sinks or () if parent is None else ()
    asked = prepared.sinks if prepared.sinks is not None else default
    asked = [asked] if isinstance(asked, str) else asked
    wanted = [sink for sink in asked if sink not in {"none", RECORDER}]
    store = _store_for(kernel, prepared, parent)
    if not wanted and store is None and (parent is None or parent.channel is None):
        return Opened(sinks=[])
    params = shown(prepared.code, request.params)
    info = RunInfo(
        run_id=request.run_id,
        action=request.action.name,
        target=request.target,
        executor=prepared.executor_name,
        params=params,
        started=datetime.now(UTC),
        job_id=request.job_id,
        kind=place.kind,
        parent=place.parent,
        root=request.run_id if parent is None else parent.root,
        node=place.node,
        tags=request.tags,
        masked=tuple(masked_places(params)),
        resources=request.resources,
        timeout=request.timeout,
        retries=request.retries,
        env_names=tuple(request.env),
        folder=request.action.ref.folder,
        work_dir=place.work_dir or (work_dir_of(kernel, request.run_id) if store is not None else None),
        definition=place.definition,
        cached_from=None if place.known is None else place.known.run_id,
    )
    info.__dict__["kernel"] = kernel
    opened = Opened(sinks=kernel.open_sinks(wanted, info))
    if parent is not None and parent.channel is not None:
        opened.sinks.append(("parent", ChildSink(parent.channel)))
    if store is not None:
        _record(kernel, store, opened, info, resume=place.resume, must=_must_record(prepared, parent))
    return opened


def work_dir_of(kernel: Kernel, run_id: str) -> str:
    """Return where a run's own folder is, or would be."""
    root = kernel.settings.kernel.work_dir
    return os.path.join(root if root else state_home() / "runs", run_id)  # noqa: PTH118 - twice as fast


def _must_record(prepared: Prepared, parent: Live | None) -> bool:
    if prepared.request.place.resume or prepared.record:
        return True
    return parent is not None and parent.opened.recorded and prepared.record is None


def _store_for(kernel: Kernel, prepared: Prepared, parent: Live | None) -> RunStore | None:
    """Return the store that a run is to be recorded in, if any."""
    must = _must_record(prepared, parent)
    if prepared.record is False or (parent is not None and not must):
        return None
    try:
        store = kernel.store
    except SynapseError as error:
        if must:
            raise
        warn(f"This run is not recorded: {error}")
        return None
    if store is not None and RECORDER not in kernel.registry.names("sinks"):
        store = None
    if store is None and must:
        raise UsageError(
            "The run cannot be recorded: there is no run store\n"
            "  name one with the setting store, or the variable SYNAPSE_STORE; 'auto' is the state folder's"
        )
    return store


def _record(
    kernel: Kernel, store: RunStore, opened: Opened, info: RunInfo, *, resume: bool, must: bool
) -> None:
    """Begin to record a run, or go on with the record of one."""
    try:
        if resume:
            record = store.claim(info.run_id, kernel.owner)
            opened.attempt, opened.seq = record.attempt, record.last_seq
            info = msgspec.structs.replace(info, attempt=record.attempt)
            info.__dict__["kernel"] = kernel
        factory = cast("Callable[[RunInfo, str | None], Sink]", kernel.registry.resolve("sinks", RECORDER))
        # Last of all, so that it is closed last: a run that reads as ended was told to everyone.
        opened.sinks.append((RECORDER, factory(info, None)))
        opened.recorded = True
    except SynapseError as error:
        if must:
            raise
        warn(f"This run is not recorded: {error}")
