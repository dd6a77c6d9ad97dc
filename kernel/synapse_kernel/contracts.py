"""
What crosses a boundary: between processes, between the kernel and its plugins.

The structs here are plain data that encode to JSON as they are; the protocols say what an executor, a job,
a sink or a service must do. Nothing heavy is imported: a worker process reads this file too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from synapse_kernel.events import Event, Status

if TYPE_CHECKING:
    from synapse_kernel.actions import ActionCode
    from synapse_kernel.emitter import CancelToken
    from synapse_kernel.kernel import Kernel

Method = Literal["local", "task", "job", "serve"]
ErrorKind = Literal[
    "action", "result", "params", "load", "crash", "timeout", "cancelled", "executor", "folder"
]
RunKind = Literal["action", "pipeline"]
JsonObject: TypeAlias = dict[str, object]
Send: TypeAlias = Callable[[list[Event]], None]
"""Takes a batch of events, in order; called from any thread, one call at a time."""


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a task asks for: cpus and gpus as counts, memory in bytes, custom resources by name."""

    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None
    custom: dict[str, float] = {}


class KnownResult(msgspec.Struct, frozen=True):
    """A result that is there already, from the run `run_id`: nothing need be executed for it."""

    result: object
    run_id: str


class RunPlace(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    Where a run stands among others, and what of it is settled before it starts.

    Given by what conducts runs of its own, such as a pipeline; a plain run needs none of it.
    """

    run_id: str | None = None
    """The id to run under; None for a new one."""
    resume: bool = False
    """Go on with the recorded run of this id: its next attempt, with its checkpoints."""
    kind: RunKind = "action"
    target: str | None = None
    """How the record names what was run; None for the target as it was given."""
    parent: str | None = None
    """A run of the same kernel, under way, that this one is part of: its sinks hear this one's events."""
    node: str | None = None
    """Which part of the parent it is."""
    work_dir: str | None = None
    """The run's own folder; None for one named by its id."""
    definition: JsonObject | None = None
    """What a pipeline's run consists of, for the record."""
    secret: tuple[str, ...] = ()
    """Params that are secret, whatever they are called."""
    known: KnownResult | None = None


class ActionRef(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """
    Where an action's code is: ``module:attribute``, in a folder of its own or importable.

    In the process that made it, `loaded` may hold the object itself; it does not travel.
    """

    entrypoint: str
    folder: str | None = None

    @property
    def loaded(self) -> object | None:
        """The action, where it was given as an object in this process."""
        found = self.__dict__.get("loaded")
        return found() if isinstance(found, weakref.ref) else found

    @staticmethod
    def of(action: object) -> ActionRef:
        """Refer to an action class or function that this process holds."""
        ref = ActionRef(f"{action.__module__}:{action.__qualname__}")  # type: ignore[attr-defined]
        ref.__dict__["loaded"] = action
        return ref

    @staticmethod
    def weakly_of(action: object) -> ActionRef:
        """
        Refer to an action without keeping it: for what the action itself keeps.

        The collector of garbage does not look into such a struct, and would never find the circle.
        """
        ref = ActionRef.of(action)
        ref.__dict__["loaded"] = weakref.ref(action)
        return ref


class ActionSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One action that discovery found: where its code is, and what its plugin's config says of it."""

    name: str
    ref: ActionRef
    method: Method | None = None
    description: str = ""
    category: str | None = None
    input_type: str | None = None
    output_type: str | None = None
    params: JsonObject = {}
    resources: Resources = Resources()
    env: dict[str, str] = {}
    env_names: list[str] = []
    runtime_env: JsonObject = {}
    origin: str | None = None
    """The file whose `params` and `env` these are, for messages."""


class ActionPlugin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action plugin: what a target was found to be, and its actions by name."""

    name: str
    target: str
    actions: dict[str, ActionSpec]
    version: str | None = None
    description: str = ""
    folder: str | None = None
    problems: list[str] = []
    """Files that could not be read while looking for actions."""


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """
    An action with its params, env and resources, ready to execute: plain data.

    `params` are as the person gave them, merged, JSON only; the worker validates them against the action's
    model. In the kernel's own process the validated params ride along and are used instead.
    """

    run_id: str
    action: str
    ref: ActionRef
    params: JsonObject = {}
    env: dict[str, str] = {}
    resources: Resources = Resources()
    runtime_env: JsonObject = {}
    category: str | None = None
    input_type: str | None = None
    output_type: str | None = None
    attempt: int = 1
    seq: int = 0
    """The number of the last event before this attempt; its first event is one more."""
    work_root: str | None = None
    """The folder under which the run makes its own; None for the user's state folder."""
    work_dir: str | None = None
    """The run's own folder, where it is not one under `work_root` named by the run's id."""
    recorded: bool = False
    """True if the run is in the store of the settings: it may keep checkpoints there."""
    checkpoint: JsonObject | None = None
    job_id: str | None = None
    settings: JsonObject = {}
    """The settings from which a worker in another process builds its kernel."""
    secrets: list[str] = []
    """Values that must not reach an event."""

    @property
    def code(self) -> ActionCode | None:
        """The action as it was loaded for the checks, in the kernel's own process; it does not travel."""
        return self.__dict__.get("code")


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    An error as data: it outlives the process and the exception's class.

    `kind` says whose error it is: the action's own, a result or params that break their schema, code that
    does not load, a crash of the process, a time-out, a cancellation, or the executor's.
    """

    type: str
    message: str
    kind: ErrorKind = "action"
    traceback: str = ""
    output: str = ""
    """The last lines a crashed process printed."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    How a run ended: its one final status, the result or the error, and when (UTC).

    In process, `exception` is the action's own exception with its traceback.
    """

    run_id: str
    status: Status
    action: str
    started: datetime
    finished: datetime
    result: object = None
    error: ErrorInfo | None = None
    attempts: int = 1
    warnings: list[str] = []

    @property
    def ok(self) -> bool:
        """True when the run succeeded."""
        return self.status == "succeeded"

    @property
    def seconds(self) -> float:
        """Wall time from start to finish."""
        return (self.finished - self.started).total_seconds()

    @property
    def exception(self) -> BaseException | None:
        """The action's own exception, where the run was in this process."""
        return self.__dict__.get("exception")

    @property
    def unrecorded(self) -> Exception | None:
        """Why the history does not hold this outcome, where it should."""
        return self.__dict__.get("unrecorded")

    def unwrap(self) -> object:
        """Return the result; raises `RunFailedError`, from the action's exception, if there is none."""
        if self.ok:
            return self.result
        from synapse_kernel.errors import RunFailedError

        raise RunFailedError(self) from self.exception

    def to_dict(self) -> JsonObject:
        """Return the outcome as JSON-like data, a model as its fields."""
        from synapse_kernel.serialization import to_jsonable

        data = {name: getattr(self, name) for name in self.__struct_fields__}
        converted = to_jsonable(data)
        assert isinstance(converted, dict)
        return converted


class RunInfo(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a sink is told of the run it is opened for; secret params are masked."""

    run_id: str
    action: str
    target: str
    executor: str
    params: JsonObject
    started: datetime
    job_id: str | None = None
    kind: RunKind = "action"
    parent: str | None = None
    """The run that this one is part of."""
    root: str = ""
    """The run at the top, itself if it has no parent."""
    node: str | None = None
    """Which part of its parent it is."""
    tags: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    """The params that are masked, as dotted paths."""
    resources: Resources = Resources()
    timeout: float | None = None
    retries: int = 0
    env_names: tuple[str, ...] = ()
    folder: str | None = None
    """The folder that holds the action's code."""
    work_dir: str | None = None
    """The run's own folder, made when it is first used."""
    definition: JsonObject | None = None
    cached_from: str | None = None
    """The run whose result this one takes over."""
    attempt: int = 1
    """Its first attempt; more than 1 for a run that goes on."""

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that conducts the run, in its process."""
        return self.__dict__.get("kernel")

    @property
    def secrets(self) -> Sequence[str]:
        """The run's secret values, for a sink that keeps results; they are not part of what is shown."""
        found: Sequence[str] = self.__dict__.get("secrets", ())
        return found


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    A run that was asked for and whose action and params are known: what the deciding hooks see.

    `executor` is the name that was asked for, or None. `params` are the merged values as given.
    """

    run_id: str
    target: str
    action: ActionSpec
    params: JsonObject
    resources: Resources
    env: dict[str, str]
    executor: str | None = None
    timeout: float | None = None
    retries: int = 0
    job_id: str | None = None
    checkpoint: JsonObject | None = None
    tags: tuple[str, ...] = ()
    place: RunPlace = RunPlace()


@runtime_checkable
class Job(Protocol):
    """One attempt of a task under way."""

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """Return the outcome, or None if `timeout` seconds pass first; None waits as long as it takes."""

    def cancel(self, grace: float) -> None:
        """
        Ask the action to stop, and stop it by force after `grace` seconds; returns at once.

        `wait` must return soon after the grace period, whatever the action does.
        """


@runtime_checkable
class QueuedJob(Job, Protocol):
    """
    An attempt that may have to wait before its action begins, as for a place in a cluster.

    It says itself where it stands, by events `State`: ``pending`` with the reason, then ``running``. Its
    time-out counts from there.
    """

    def wait_started(self) -> None:
        """Return once the action has begun, or the job has ended without."""


@runtime_checkable
class Executor(Protocol):
    """
    Decides where a task runs. Made once a kernel, from its spec's target, as ``target(kernel)``.

    With `in_process` true, tasks run in the kernel's own process: they carry the action's object, and a
    result may be any object. Otherwise the task is plain data, and so must the result be.

    One that has an attribute `queues` that is true gives `QueuedJob`.
    """

    in_process: bool

    def submit(self, task: Task, send: Send) -> Job:
        """Start the task; its events go to `send`, in order and all before the job ends."""

    def shutdown(self) -> None:
        """Release what the executor holds; called once, when the kernel shuts down."""


@runtime_checkable
class InlineExecutor(Executor, Protocol):
    """An executor that can also run a task in the thread that asks, when no one needs to stop it."""

    def run(self, task: Task, send: Send | None, token: CancelToken) -> Outcome:
        """Run the task here and now; `send` is None where nobody listens."""


@runtime_checkable
class Sink(Protocol):
    """
    Receives the events of one run. Made for each run as ``target(run: RunInfo, argument: str | None)``.

    The events of a run's children come too: they carry their own run's id and numbering.
    """

    def accept(self, events: Sequence[Event]) -> None:
        """Take a batch, in order; called by one thread at a time. Slow work goes in a thread of its own."""

    def close(self, outcome: Outcome) -> None:
        """The run is over: write what is left and release what is held."""


class ActionContextLike(Protocol):
    """What a service or an integration sees of the run that asks for it."""

    run_id: str
    env: Mapping[str, str]


ServiceFactory: TypeAlias = Callable[[ActionContextLike], object]
"""Makes the client that actions find on their context; called on first use in a run, in the worker."""

Integration: TypeAlias = Callable[[ActionContextLike], Callable[[], None] | None]
"""Turns a framework's logging on for one run; what it returns is called when the run ends."""

SchemaDialect: TypeAlias = Callable[[Mapping[str, object]], object]
"""Turns the JSON Schema of a params or result model into a form's description, as JSON-like data."""
