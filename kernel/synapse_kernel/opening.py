"""What is opened before a run starts: its sinks, those of its parent, and its record in the store."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import msgspec

from synapse_kernel.contracts import ErrorInfo, Outcome, RunInfo, Sink
from synapse_kernel.emitter import Channel, ChildSink
from synapse_kernel.errors import SynapseError, UsageError, listing, suggest
from synapse_kernel.params import secret_values, shown, texts_in
from synapse_kernel.plugins import warn
from synapse_kernel.redaction import MASK, Redactor, masked_places, secrets_of_env
from synapse_kernel.serialization import to_jsonable
from synapse_kernel.settings import state_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.contracts import JsonObject
    from synapse_kernel.control import Live
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.preparation import Prepared
    from synapse_kernel.stores import RunRecord, RunStore

Wish: TypeAlias = Literal["required", "wanted", "off"]
"""Whether a run is recorded; one that is required does not start without."""

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

    Raises `SynapseError` for a bad one; `UsageError` for a place that cannot be taken; `StoreError` for a
    history that cannot be written where the run must be recorded, and `RunBusyError` for a run that was to go
    on and that is under way, here or elsewhere.
    """
    parent = _parent_of(kernel, prepared)
    default = kernel.settings.kernel.sinks or () if parent is None else ()
    asked = prepared.sinks if prepared.sinks is not None else default
    asked = [asked] if isinstance(asked, str) else asked
    wanted = _wanted(asked)
    # A kernel that was shut down has closed its store, and starts nothing that would be worth a record.
    wish: Wish = "off" if kernel.closed else _wish(prepared, parent, named=RECORDER in asked)
    store = _store_for(kernel, wish)
    if not wanted and store is None and (parent is None or parent.channel is None):
        return Opened(sinks=[])
    info = _info(kernel, prepared, parent, recorded=store is not None)
    opened = Opened(sinks=kernel.open_sinks(wanted, info), secrets=list(info.secrets))
    if parent is not None and parent.channel is not None:
        opened.sinks.append(("parent", ChildSink(parent.channel)))
    if store is not None:
        try:
            if prepared.request.place.resume:
                info = _claimed(kernel, store, opened, info)
            _record(kernel, store, opened, info, wish)
        except BaseException as error:
            _close(opened, info, error)
            raise
    return opened


def reopen_sinks(kernel: Kernel, record: RunRecord, sinks: Sequence[object] | None) -> Opened:
    """
    Open the sinks of a recorded run that this process looks after from now on, the history last.

    Raises `SynapseError` for a bad one, and `StoreError` for a history that cannot be written.
    """
    info = info_of(kernel, record)
    info.__dict__["attached"] = True
    asked = sinks if sinks is not None else kernel.settings.kernel.sinks or ()
    asked = [asked] if isinstance(asked, str) else asked
    opened = Opened(sinks=kernel.open_sinks(_wanted(asked), info))
    try:
        _record(kernel, store_of(kernel), opened, info, "required")
    except BaseException as error:
        _close(opened, info, error)
        raise
    return opened


def store_of(kernel: Kernel) -> RunStore:
    """Return the store in which a run must be; raises what `Kernel.store` does, and `UsageError` for none."""
    store = _store_for(kernel, "required")
    assert store is not None
    return store


def has_record(info: RunInfo) -> bool:
    """Tell whether a run is in the store before its sinks are opened: it goes on, or is attached to."""
    return info.attempt > 1 or "attached" in info.__dict__


def info_of(kernel: Kernel, record: RunRecord) -> RunInfo:
    """Describe a recorded run for sinks."""
    info = RunInfo(
        run_id=record.run_id,
        action=record.action,
        target=record.target,
        executor=record.executor,
        params=record.params,
        started=record.started or record.created,
        job_id=record.job_id,
        kind=record.kind,
        parent=record.parent,
        root=record.root,
        node=record.node,
        tags=tuple(record.tags),
        masked=tuple(record.masked),
        resources=record.resources,
        timeout=record.timeout,
        retries=record.retries,
        env_names=tuple(record.env_names),
        work_dir=record.work_dir,
        definition=record.definition,
        cached_from=record.cached_from,
        attempt=record.attempt,
    )
    info.__dict__["kernel"] = kernel
    return info


def _wanted(asked: Sequence[object]) -> list[object]:
    """Return the sinks to open of those that were asked for, the history apart."""
    # Not in a set: a sink need not have a hash.
    return [sink for sink in asked if sink not in ("none", RECORDER)]


def _parent_of(kernel: Kernel, prepared: Prepared) -> Live | None:
    """Return the run that one is part of; raises `UsageError` for a place that cannot be taken."""
    place = prepared.request.place
    if place.run_id is not None and place.run_id in kernel.live_runs:
        if place.resume:
            from synapse_kernel.stores import RunBusyError

            raise RunBusyError(place.run_id, kernel.owner)
        raise UsageError(
            f"RunPlace.run_id: a run {place.run_id!r} is under way in this kernel\n"
            "  give an id that no run has, or leave run_id out for a new one"
        )
    if place.parent is None:
        return None
    parent = kernel.live_runs.get(place.parent)
    if parent is None:
        raise UsageError(
            f"RunPlace.parent: no run {place.parent!r} is under way in this kernel"
            f"{suggest(place.parent, kernel.live_runs)}\n"
            "  a run can be part of one that the same kernel runs at this moment\n"
            f"  under way: {listing(kernel.live_runs)}"
        )
    return parent


def _info(kernel: Kernel, prepared: Prepared, parent: Live | None, *, recorded: bool) -> RunInfo:
    """Describe a run for its sinks, secrets masked."""
    request, place = prepared.request, prepared.request.place
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
        work_dir=place.work_dir or (work_dir_of(kernel, request.run_id) if recorded else None),
        definition=place.definition,
        cached_from=None if place.known is None else place.known.run_id,
    )
    info.__dict__.update(kernel=kernel, secrets=secrets)
    return info


def work_dir_of(kernel: Kernel, run_id: str) -> str:
    """Return where a run's own folder is, or would be."""
    root = kernel.settings.kernel.work_dir
    return os.path.join(root if root else state_home() / "runs", run_id)  # noqa: PTH118 - twice as fast


def working_folder() -> str:
    """Return the folder in which relative paths are meant; '' if it was deleted meanwhile."""
    try:
        return os.getcwd()  # noqa: PTH109 - text is what is kept
    except OSError:
        return ""


def secrets_of(prepared: Prepared) -> list[str]:
    """Return the secret texts of a run: in its variables, in its params as given, and in those by default."""
    request = prepared.request
    found = [*secrets_of_env(request.env), *secret_values(prepared.code, request.params)]
    found += (text for name in request.place.secret for text in texts_in(request.params.get(name)))
    built = getattr(prepared.params, "__dict__", {})
    return [*found, *secret_values(prepared.code, built)]


def _wish(prepared: Prepared, parent: Live | None, *, named: bool) -> Wish:
    """Tell whether a run is to be recorded; `named` is whether the history is among its sinks."""
    if prepared.record is False:
        return "off"
    if prepared.record or prepared.request.place.resume or named:
        return "required"
    if parent is None:
        return "wanted"
    return "required" if parent.opened.recorded else "off"


def _store_for(kernel: Kernel, wish: Wish) -> RunStore | None:
    """Return the store that a run is to be recorded in, if any."""
    if wish == "off":
        return None
    try:
        store = kernel.store
    except Exception as error:  # noqa: BLE001 - of whichever store
        # By its scheme: the URL may hold a password.
        _go_unrecorded(error, wish, (kernel.settings.kernel.store or "").partition(":")[0])
        return None
    if store is not None and RECORDER not in kernel.registry.names("sinks"):
        store = None
    if store is None and wish == "required":
        raise UsageError(
            "The run cannot be recorded: there is no run store\n"
            "  name one with the setting store, or the variable SYNAPSE_STORE; 'auto' is the state folder's"
        )
    return store


def _claimed(kernel: Kernel, store: RunStore, opened: Opened, info: RunInfo) -> RunInfo:
    """Take over the record of a run that goes on, and describe its next attempt."""
    lasting = kernel.is_lasting(info.executor)
    changes = {
        "executor": info.executor,
        "lasting": lasting,
        "cwd": working_folder(),
        "cached_from": info.cached_from,
    }
    try:
        record = store.claim(info.run_id, kernel.owner, changes=changes, elsewhere=lasting)
    except SynapseError:
        raise
    except Exception as error:
        raise _store_error(error, store.url) from error
    opened.attempt, opened.seq = record.attempt, record.last_seq
    again = msgspec.structs.replace(info, attempt=record.attempt)
    again.__dict__.update(info.__dict__)
    return again


def _record(kernel: Kernel, store: RunStore, opened: Opened, info: RunInfo, wish: Wish) -> None:
    """Open what records the run."""
    try:
        factory = cast("Callable[[RunInfo, str | None], Sink]", kernel.registry.resolve("sinks", RECORDER))
        # Last of all, so that it is closed last: a run that reads as ended was told to everyone.
        opened.sinks.append((RECORDER, factory(info, None)))
        opened.recorded = True
    except Exception as error:  # noqa: BLE001 - of whichever store
        _go_unrecorded(error, wish, store.url)


def _go_unrecorded(error: Exception, wish: Wish, url: str) -> None:
    """Say that a run goes unrecorded, or raise that it must not."""
    known = isinstance(error, SynapseError)
    if wish == "required":
        if known:
            raise error
        raise _store_error(error, url) from error
    warn(f"This run is not recorded: {error if known else f'{type(error).__name__}: {error}'}")


def _store_error(error: Exception, url: str) -> SynapseError:
    """Describe what a store raised that it should not, as those expect it who must have a record."""
    from synapse_kernel.stores import StoreError

    return StoreError(f"The run cannot be recorded: {type(error).__name__}: {error}", url=url)


def _close(opened: Opened, info: RunInfo, error: BaseException) -> None:
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
