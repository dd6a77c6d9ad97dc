"""What is opened before a run starts: its sinks, those of its parent, and its record in the store."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome, RunInfo, Sink
from synapse_kernel.emitter import Channel, ChildSink
from synapse_kernel.errors import SynapseError, UsageError
from synapse_kernel.hooking import warn
from synapse_kernel.params import secret_values, shown, texts_in
from synapse_kernel.redaction import MASK, Redactor, masked_places, secrets_of_env
from synapse_kernel.serialization import to_jsonable
from synapse_kernel.settings import state_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_kernel.contracts import JsonObject
    from synapse_kernel.control import Live
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.preparation import Prepared
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
    secrets: list[str] | None = None
    """What must not reach an event, where it was looked for."""


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
    # Not in a set: a sink need not have a hash.
    wanted = [sink for sink in asked if sink not in ("none", RECORDER)]
    must = _must_record(prepared, parent) or (RECORDER in asked and prepared.record is not False)
    store = _store_for(kernel, prepared, parent, must=must)
    if not wanted and store is None and (parent is None or parent.channel is None):
        return Opened(sinks=[])
    secrets = secrets_of(prepared)
    params = shown(prepared.code, request.params)
    params.update((name, MASK) for name in place.secret if name in params)
    if parent is not None and parent.secrets:
        # What is secret to a run is so to its parts, whatever their params are called.
        secrets += parent.secrets
        params = cast("JsonObject", Redactor(parent.secrets).data(to_jsonable(params)))
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
    info.__dict__.update(kernel=kernel, secrets=secrets)
    opened = Opened(sinks=kernel.open_sinks(wanted, info), secrets=secrets)
    if parent is not None and parent.channel is not None:
        opened.sinks.append(("parent", ChildSink(parent.channel)))
    if store is not None:
        try:
            _record(kernel, store, opened, info, resume=place.resume, must=must)
        except SynapseError as error:
            _close(opened, info, error)
            raise
    return opened


def work_dir_of(kernel: Kernel, run_id: str) -> str:
    """Return where a run's own folder is, or would be."""
    root = kernel.settings.kernel.work_dir
    return os.path.join(root if root else state_home() / "runs", run_id)  # noqa: PTH118 - twice as fast


def secrets_of(prepared: Prepared) -> list[str]:
    """Return the secret texts of a run: in its variables, in its params as given, and in those by default."""
    request = prepared.request
    found = [*secrets_of_env(request.env), *secret_values(prepared.code, request.params)]
    found += (text for name in request.place.secret for text in texts_in(request.params.get(name)))
    built = getattr(prepared.params, "__dict__", {})
    return [*found, *secret_values(prepared.code, built)]


def _must_record(prepared: Prepared, parent: Live | None) -> bool:
    if prepared.request.place.resume or prepared.record:
        return True
    return parent is not None and parent.opened.recorded and prepared.record is None


def _store_for(kernel: Kernel, prepared: Prepared, parent: Live | None, *, must: bool) -> RunStore | None:
    """Return the store that a run is to be recorded in, if any."""
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


def _close(opened: Opened, info: RunInfo, error: SynapseError) -> None:
    """Close the sinks of a run that does not start."""
    told = ErrorInfo(type=type(error).__name__, message=str(error), kind="executor")
    now = datetime.now(UTC)
    outcome = Outcome(
        run_id=info.run_id,
        status="failed",
        action=info.action,
        started=info.started,
        finished=now,
        error=told,
    )
    Channel(info.run_id, info.action, opened.sinks).close(outcome)


def _record(
    kernel: Kernel, store: RunStore, opened: Opened, info: RunInfo, *, resume: bool, must: bool
) -> None:
    """Begin to record a run, or go on with the record of one."""
    try:
        if resume:
            record = store.claim(info.run_id, kernel.owner)
            opened.attempt, opened.seq = record.attempt, record.last_seq
            again = msgspec.structs.replace(info, attempt=record.attempt)
            again.__dict__.update(info.__dict__)
            info = again
        factory = cast("Callable[[RunInfo, str | None], Sink]", kernel.registry.resolve("sinks", RECORDER))
        # Last of all, so that it is closed last: a run that reads as ended was told to everyone.
        opened.sinks.append((RECORDER, factory(info, None)))
        opened.recorded = True
    except SynapseError as error:
        if must:
            raise
        warn(f"This run is not recorded: {error}")
