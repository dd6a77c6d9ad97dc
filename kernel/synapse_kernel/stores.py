"""
The run store: the durable record of runs, behind one contract.

Pipelines, steps and commands ask the kernel for its store (`Kernel.store`) and know no plugin. A store
promises that what a call wrote is there after the process was killed, once the call has returned; that many
processes use it at once and none is told that it is locked; and that it never touches a file or database
which it did not make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from synapse_kernel.contracts import JsonObject, Outcome, Resources, RunKind
from synapse_kernel.errors import SynapseError, UsageError
from synapse_kernel.events import Event, Status
from synapse_kernel.owners import Owner

LEASE_SECONDS = 120.0
"""How long a process that cannot be looked at may be silent before its runs count as crashed."""

CHANGEABLE = ("executor", "lasting", "cached_from", "cwd", "commit", "environment")
"""The fields of a `RunRecord` that may be others for its next attempt."""


class StoreError(SynapseError):
    """A run store that cannot be opened, read or written; `url` is the store's, without a password."""

    def __init__(self, message: str, *, url: str) -> None:
        self.url = url
        super().__init__(message)


class RunNotFoundError(SynapseError):
    """No run in the store has this id."""

    def __init__(self, run_id: str, *, url: str) -> None:
        self.run_id = run_id
        super().__init__(f"No run {run_id!r} is in {url}\n  see what is there with: synapse-kernel runs list")


class RunBusyError(SynapseError):
    """
    A run was asked to go on, or to be deleted, that goes on at this moment.

    `owner` is the process that has it; None where it goes on elsewhere and no process looks after it.
    """

    def __init__(self, run_id: str, owner: Owner | None) -> None:
        self.run_id = run_id
        self.owner = owner
        where = f"is running in process {owner.pid} on {owner.host}" if owner else "goes on elsewhere"
        super().__init__(
            f"Run {run_id} {where}\n"
            f"  watch it with: synapse-kernel runs watch {run_id}\n"
            f"  stop it with:  synapse-kernel runs cancel {run_id}"
        )


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's process was made of; one entry serves all runs that shared it."""

    id: str
    python: str
    """The interpreter's version, such as ``3.11.7``."""
    platform: str
    """The system and machine, such as ``Linux-6.1-x86_64``."""
    packages: dict[str, str] = {}
    """Installed distributions and their versions."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One run as the store knows it. Times are UTC. Secret params are masked.

    The first block is written when the run starts; of it, a later attempt changes no more than `CHANGEABLE`.
    The second changes while it runs.
    """

    run_id: str
    action: str
    target: str
    created: datetime
    kind: RunKind = "action"
    executor: str = "local"
    lasting: bool = False
    """True if the executor's jobs outlive the process that submits them."""
    params: JsonObject = {}
    masked: list[str] = []
    """Params whose value was secret, as dotted paths: to run it again they must be given again."""
    resources: Resources = Resources()
    timeout: float | None = None
    """Seconds an attempt may take."""
    retries: int = 0
    env_names: list[str] = []
    """Variables that were passed to the run, by name."""
    parent: str | None = None
    """The run that started this one: a pipeline's."""
    root: str = ""
    """The run at the top, itself if it has no parent."""
    node: str | None = None
    """Which node of the parent it is, such as ``train`` or ``draw[3]``."""
    tags: list[str] = []
    job_id: str | None = None
    cwd: str = ""
    """The folder in which relative paths of target and params were meant."""
    work_dir: str | None = None
    """The run's own folder, made when it is first used."""
    commit: str | None = None
    """The git commit that was checked out around the code."""
    environment: str | None = None
    """The id of an `Environment`."""
    definition: JsonObject | None = None
    """A pipeline's nodes, as they were when it started."""
    cached_from: str | None = None
    """The run whose result this one took over."""

    status: Status = "pending"
    attempt: int = 1
    started: datetime | None = None
    finished: datetime | None = None
    last_seq: int = 0
    """The number of its last recorded event."""
    owner: Owner | None = None
    """The process that ran it last; None for a run that goes on elsewhere, without a process of ours."""
    error: str | None = None
    """One line of what went wrong, if something did."""

    @property
    def detached(self) -> bool:
        """True for a recorded run that goes on elsewhere: its events wait there until a process attaches."""
        return self.owner is None


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A run's outcome as it is kept."""

    run_id: str
    status: Status
    finished: datetime
    attempt: int
    outcome: msgspec.Raw
    """The JSON object of `Outcome.to_dict`, secrets masked."""
    error: str | None = None
    reusable: bool = True
    """False where the result is not JSON, or held secrets: another process cannot go on from it."""


class ChildResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one child of a run: as little as going on needs."""

    run_id: str
    node: str
    status: Status
    attempt: int
    result: msgspec.Raw | None = None
    """The result's JSON if the child succeeded and its result is reusable."""
    reusable: bool = False


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list; every condition that is given must hold. Newest first."""

    statuses: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    kinds: tuple[RunKind, ...] = ()
    tags: tuple[str, ...] = ()
    """Runs that have all of these."""
    since: datetime | None = None
    """Created at this time or later."""
    until: datetime | None = None
    """Created before this time."""
    parent: str | None = None
    """Children of this run."""
    roots_only: bool = False
    """Leave out the children of other runs."""
    limit: int | None = 50
    """At most so many; None for all."""


class StoredEvent(msgspec.Struct, frozen=True):
    """An event with its place in the store: a number that grows within a run and among its children."""

    position: int
    event: Event


@runtime_checkable
class RunStore(Protocol):
    """
    Holds runs, their events, outcomes and checkpoints.

    Made from its spec's target as ``target(url)``, where `url` is a connection URL whose scheme the spec
    names, or the bare scheme for the default place. All methods may be called from any thread. Each write is
    durable when it returns. Raises `StoreError` for whatever goes wrong with the store itself.
    """

    url: str
    """Where it is, without a password; for messages."""

    def start(self, record: RunRecord, owner: Owner) -> None:
        """Record a run that begins, `owner` being its process; raises `StoreError` if the id is there."""

    def claim(
        self,
        run_id: str,
        owner: Owner,
        *,
        lease: float = LEASE_SECONDS,
        changes: Mapping[str, object] = MappingProxyType({}),
        elsewhere: bool = False,
    ) -> RunRecord:
        """
        Take a run over for its next attempt, and return it as it is from now on.

        In one step: its status becomes ``pending``, its attempt one more, its owner the caller; started,
        finished, error, outcome and a request to cancel are cleared; events, checkpoints and children stay.
        `changes` are fields of the record, of those in `CHANGEABLE`, that are others for this attempt. Of
        two processes that claim the same run one wins. Raises `RunBusyError` if its owner lives, even where
        that is `owner` itself, and if it goes on elsewhere, unless the caller knows that it does no more and
        says so by `elsewhere`; `RunNotFoundError`; and `ValueError` for a change of another field.
        """

    def release(self, run_id: str, owner: Owner) -> None:
        """
        Give up a run that goes on elsewhere: it has no owner then, and is never taken for crashed.

        Nothing else of it changes, but for a final state without an outcome: it is ``running`` again. Does
        nothing where `owner` does not hold it. Raises `RunNotFoundError`.
        """

    def adopt(self, run_id: str, owner: Owner, *, lease: float = LEASE_SECONDS) -> RunRecord:
        """
        Look after a run that goes on elsewhere, and return it as it is from now on.

        In one step: its owner becomes the caller. Attempt, events, status and a request to cancel stay; what
        was taken for crashed is ``running`` again. Of two processes that adopt the same run one wins. Raises
        `RunBusyError` if its owner lives, even where that is `owner` itself, `RunNotFoundError`, and
        `StoreError` if it has its outcome.
        """

    def append(self, run_id: str, events: Sequence[Event]) -> None:
        """
        Add events of one run, in order.

        The last `State` among them sets the run's status and attempt; the first ``running`` sets `started`.
        One of an attempt before the run's, or after its end, sets nothing. Raises `RunNotFoundError`.
        """

    def finish(self, end: RunEnd, events: Sequence[Event] = ()) -> None:
        """
        Add the run's last events and its outcome, together; a run that succeeded loses its checkpoints.

        An end of an attempt before the run's present one is refused, also where that one has ended, and
        changes nothing: with `RunBusyError` if it goes on, else with `StoreError`. Raises `RunNotFoundError`.
        """

    def has_environment(self, environment_id: str) -> bool:
        """Tell whether an environment is recorded already."""

    def put_environment(self, environment: Environment) -> None:
        """Record an environment; one that is there already stays."""

    def environment(self, environment_id: str) -> Environment | None:
        """Return a recorded environment."""

    def get(self, run_id: str) -> RunRecord | None:
        """Return the run of this id."""

    def matching(self, prefix: str, limit: int = 10) -> list[str]:
        """Return the ids that start with a prefix, newest first; `prefix` may hold any characters."""

    def runs(self, query: RunQuery = RunQuery()) -> list[RunRecord]:  # noqa: B008 - frozen
        """
        Return the runs that a query asks for, newest first; those made at the same time by id.

        A pipeline's `definition`, which may be large, is left out: `get` has it.
        """

    def count(self, query: RunQuery = RunQuery()) -> int:  # noqa: B008 - frozen
        """Return how many runs a query matches, its limit apart."""

    def outcome(self, run_id: str) -> JsonObject | None:
        """Return a run's outcome as JSON-like data, or None while it has none."""

    def children(self, parent: str) -> list[ChildResult]:
        """Return what became of a run's children, in the order they started."""

    def events(
        self,
        run_id: str,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        descendants: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """
        Return the events of a run, with `descendants` also those of all runs under it, as they were stored.

        `after` leaves out what is not beyond this position; `kinds` are ``log``, ``metrics`` and so on.
        """

    def put(self, scope: str, entries: Mapping[str, bytes], *, run_id: str | None = None) -> None:
        """
        Keep values under keys, replacing what is there; all of them or none. A run's scope is its id.

        Values of another scope that are of no use without a run name it as `run_id`: they go with it.
        """

    def value(self, scope: str, key: str) -> bytes | None:
        """Return a kept value."""

    def entries(self, scope: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Return the keys that start with a prefix and their values, in the order they were first put."""

    def remove(self, scope: str, keys: Sequence[str] | None = None) -> None:
        """Forget values, all of the scope's where `keys` is None; one that is not there is no error."""

    def request_cancel(self, run_id: str, reason: str = "cancelled") -> bool:
        """
        Ask the process of a run that has not ended to stop it; False if it has ended.

        Raises `RunNotFoundError`.
        """

    def cancel_requests(self, owner: Owner) -> list[tuple[str, str]]:
        """Return the runs of a process that were asked to stop, with the reason; each is told once."""

    def heartbeat(self, owner: Owner) -> None:
        """
        Say that a process is alive.

        A run of it that was taken for crashed meanwhile, and that no one claimed, is ``running`` again. One
        that was taken to go on elsewhere, and that no one adopted, is its own again.
        """

    def forget(self, owner: Owner) -> None:
        """Say that a process has ended its last run and will say nothing more."""

    def reap(self, *, lease: float = LEASE_SECONDS) -> list[str]:
        """
        Mark as ``crashed`` the runs whose process is dead, and return their ids.

        Those that are `lasting` go on elsewhere without it: they have no owner from then on, as if it had
        released them, and are not among the ids. A run without an owner is left as it is.

        Dead is a process that `synapse_kernel.owners.is_alive` says is; where that cannot tell (another
        machine, another namespace of process ids), one whose last heartbeat is older than `lease` seconds by
        a clock that no one can set back: the server's, or the machine's since it was started. `finished`
        becomes the time of the last sign of life.
        """

    def delete(self, run_ids: Sequence[str]) -> int:
        """
        Forget ended runs with all that is under them, and return how many runs went.

        With a run go its events, its checkpoints, and the values that were put as its in any scope.
        Raises `RunBusyError` for one that has not ended, before any is deleted.
        """

    def close(self) -> None:
        """Release the connection; a later call opens it anew."""


StoreFactory: TypeAlias = Callable[[str], RunStore]
"""Opens a store from its URL."""


class CheckpointStore:
    """
    The checkpoints of one run: small values that its next attempt finds, should its process die.

    `put` is durable when it returns. Values are JSON-like; keys are text of your own.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store = store
        self.run_id = run_id

    def put(self, key: str, value: object) -> None:
        """Keep a value; raises `UsageError` for one that JSON cannot hold."""
        self.put_all({key: value})

    def put_all(self, values: Mapping[str, object]) -> None:
        """Keep several values, all or none."""
        from synapse_kernel.serialization import NotJsonError, to_plain

        encoded = {}
        for key, value in values.items():
            try:
                encoded[key] = msgspec.json.encode(to_plain(value, name=key))
            except NotJsonError as error:
                raise UsageError(
                    f"The checkpoint is not JSON: {error.where} is of type {error.type}\n"
                    "  keep numbers, text, lists and mappings; write the rest to a file and keep its path"
                ) from None
        self._store.put(self.run_id, encoded)

    def get(self, key: str, default: object = None) -> object:
        """Return a kept value."""
        found = self._store.value(self.run_id, key)
        return default if found is None else msgspec.json.decode(found)

    def items(self, prefix: str = "") -> list[tuple[str, object]]:
        """Return keys and values, in the order they were first put."""
        return [(key, msgspec.json.decode(raw)) for key, raw in self._store.entries(self.run_id, prefix)]

    def remove(self, *keys: str) -> None:
        """Forget values; one that is not there is no error."""
        self._store.remove(self.run_id, keys)


def kept_result(result: object, secrets: Sequence[str] = ()) -> tuple[object, bool]:
    """
    Return a result as the store keeps it, secrets masked, and whether another process can go on from it.

    It cannot where something in it is not JSON, or was masked: by its name, or as one of the run's `secrets`;
    and where JSON would give it back as something else, as null for NaN or an infinity. What is a list to
    JSON, such as a tuple, is kept as one.
    """
    from synapse_kernel.redaction import Redactor, redact
    from synapse_kernel.serialization import NotJsonError, to_jsonable, to_plain

    try:
        # Not `to_jsonable`, which shows a model's computed fields: it is read back by the model.
        plain = to_plain(result, name="result")
        back = msgspec.json.decode(msgspec.json.encode(plain))
    except (NotJsonError, UnicodeEncodeError):
        # The latter for a part of a file name that is no text, which Python writes as a lone surrogate.
        return Redactor(secrets).data(redact(to_jsonable(result))), False
    shown = redact(plain)
    masked = Redactor(secrets).data(shown)
    # By way of JSON the former makes null of NaN, so that it alone would not tell.
    return masked, masked == back == shown


def end_of(outcome: Outcome, secrets: Sequence[str] = ()) -> RunEnd:
    """Describe an outcome as the store keeps it, without the run's secrets."""
    error = None
    if outcome.error is not None:
        error = f"{outcome.error.type}: {outcome.error.message}".partition("\n")[0]
    told = msgspec.structs.replace(outcome, result=None).to_dict()
    told["result"], reusable = kept_result(outcome.result, secrets)
    return RunEnd(
        run_id=outcome.run_id,
        status=outcome.status,
        finished=outcome.finished,
        attempt=outcome.attempts,
        outcome=msgspec.Raw(msgspec.json.encode(told)),
        error=error,
        reusable=reusable,
    )
