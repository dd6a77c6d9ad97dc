"""
The kernel: the only caller of hooks, and typed methods over them.

A `Kernel` holds no global state; two of them live in one process without knowing of each other.
"""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from synapse_kernel import hookspecs
from synapse_kernel.defaults import KernelDefaults
from synapse_kernel.errors import (
    HookError,
    PluginError,
    SynapseError,
    TargetNotFoundError,
    UnknownNameError,
    UsageError,
    listing,
    suggest,
    suggest_module,
)
from synapse_kernel.hooking import Hooks
from synapse_kernel.hookspecs import CONTRIBUTIONS
from synapse_kernel.plugins import (
    PluginHost,
    PluginRecord,
    installed_entry_points,
    make_manager,
    warn,
)
from synapse_kernel.registry import Contribution, Registry
from synapse_kernel.settings import Settings
from synapse_kernel.specs import ExecutorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path
    from types import ModuleType, TracebackType

    from typing_extensions import Unpack

    from synapse_kernel.contracts import (
        ActionPlugin,
        Executor,
        JsonObject,
        Outcome,
        Resources,
        RunInfo,
        RunPlace,
        RunRequest,
        Sink,
    )
    from synapse_kernel.control import Live
    from synapse_kernel.detaching import AttachedRun
    from synapse_kernel.emitter import Pulse
    from synapse_kernel.handles import Run
    from synapse_kernel.owners import Owner
    from synapse_kernel.plugins import EntryPointLike
    from synapse_kernel.preparation import DetachKeywords, Plan, RunKeywords
    from synapse_kernel.storage.finding import Storages
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.stores import RunStore


DEFAULT_STORE = "sqlite"
"""The store that the setting ``auto`` means."""


class Kernel:
    """
    Loads plugins, knows their contributions, and runs actions.

    `settings` are the checked settings, or a mapping of them; no file and no variable is read here (see
    `load_settings`). `entry_points` are those of installed plugins: None scans for them, an empty list loads
    none. `plugins` are objects to register besides. `without` blocks plugins by name before they are
    imported. With `strict`, a plugin that cannot be used raises `PluginError` instead of a warning.

    Use it as a context manager, or call `shutdown`.
    """

    def __init__(
        self,
        settings: Settings | Mapping[str, object] | None = None,
        *,
        entry_points: Iterable[EntryPointLike] | None = None,
        plugins: Iterable[object] = (),
        without: Sequence[str] = (),
        strict: bool = False,
    ) -> None:
        self.settings = settings if isinstance(settings, Settings) else Settings(settings)
        self.live_runs: dict[str, Live] = {}
        self.attached_runs: dict[str, AttachedRun] = {}
        self._manager = make_manager(hookspecs)
        self._hooks = Hooks(self._manager)
        self._host = PluginHost(self._manager, strict=strict)
        self.registry = Registry(
            lambda kind: self._hooks.collect(kind, self._host.records), self.settings.kernel.plugins.prefer
        )
        self._executors: dict[str, Executor] = {}
        self._lock = threading.RLock()
        self._pulse: Pulse | None = None
        self._owner: Owner | None = None
        self._store: RunStore | None = None
        self._closed = False
        self._without = tuple(without)
        self._manager.register(KernelDefaults(self), name="kernel")
        # Historic hooks are fired before any plugin is there, so that each replays at its own registration.
        self._hooks.caller.synapse_add_hookspecs.call_historic(kwargs={"kernel": self})
        self._hooks.caller.synapse_configure.call_historic(kwargs={"kernel": self, "settings": self.settings})
        self._host.load_all(
            installed_entry_points() if entry_points is None else entry_points,
            self.settings.kernel.plugins,
            without,
        )
        for plugin in plugins:
            self.register(plugin)
        self._host.check_sections(self.settings)

    @property
    def plugins(self) -> list[PluginRecord]:
        """What became of each plugin, in the order they were loaded."""
        return list(self._host.records)

    def register(self, plugin: object, name: str | None = None) -> PluginRecord:
        """Register an object that implements hooks; raises `PluginError` if it cannot be used."""
        record = self._host.register(plugin, name)
        self._host.check_hooks(record, strict=True)
        self.registry.invalidate()
        return record

    def add_hookspecs(self, module_or_class: ModuleType | type) -> None:
        """Add the hooks that a module or class specifies; plugins call this in `synapse_add_hookspecs`."""
        self._manager.add_hookspecs(module_or_class)

    @property
    def hook(self) -> Any:
        """Call hooks that plugins added; the kernel's own have typed methods."""
        return self._hooks.caller

    def hook_names(self) -> dict[str, list[str]]:
        """Return every hook with the plugins that implement it, the first called first."""
        return self._hooks.implementations(except_for="kernel")

    contribution_kinds = tuple(CONTRIBUTIONS)

    def contributions(self, kind: str) -> list[Contribution]:
        """Return every contribution of a kind (``executors``, ``sinks``…)."""
        return self.registry.all(kind)

    def resolve(self, kind: str, name: str) -> object:
        """Import and return what a contribution of this kind and name stands for."""
        return self.registry.resolve(kind, name)

    def discover(self, target: str) -> ActionPlugin:
        """
        Return the actions of a path, a module or an installed action plugin.

        Raises `TargetNotFoundError` where no plugin knows the target, `ConfigError` for a broken config.
        """
        if not target.strip():
            raise UsageError(
                "The target is empty; name a folder, a Python file, a module or an action plugin"
            )
        found = self._hooks.first("synapse_discover", target=target)
        if found is None:
            known = self.registry.names("actions")
            raise TargetNotFoundError(
                f"Nothing is known of {target!r}{suggest(target, known) or suggest_module(target)}\n"
                f"  give a folder with a config.yaml, a Python file, a module or an installed action plugin\n"
                f"  installed: {listing(known)}",
                target=target,
            )
        return cast("ActionPlugin", found)

    def discover_module(self, module: object) -> ActionPlugin:
        """Return the actions of a module object."""
        name = getattr(module, "__name__", None)
        if not isinstance(name, str):
            raise UsageError(
                f"A target is a path, a module, an installed plugin's name, or an action; "
                f"got {type(module).__name__}"
            )
        return self.discover(name)

    def choose_executor(self, request: RunRequest) -> str:
        """Return the name of the executor that policy chooses for a request."""
        available = self.registry.states("executors")
        chosen = self._hooks.first("synapse_choose_executor", request=request, available=available)
        return cast("str", chosen)

    def detect_format(self, path: Path) -> str | None:
        """
        Return the dataset format that plugins recognise at a path, or None if none does.

        Raises `UsageError` naming the formats and plugins if two claim it.
        """
        claims = {
            name: plugin
            for plugin, name in self._hooks.observe("synapse_detect_format", path=path)
            if name is not None
        }
        if len(claims) > 1:
            told = " and ".join(f"{name} (by {plugin})" for name, plugin in sorted(claims.items()))
            raise UsageError(f"{path} looks like {told}; name the format")
        return next(iter(claims), None)

    def call_run(self, request: RunRequest) -> Outcome:
        """Call `synapse_run`; used by the life of a run."""
        from synapse_kernel.contracts import Outcome

        found = self._hooks.first("synapse_run", request=request)
        if not isinstance(found, Outcome):
            plugins = " or ".join(self.hook_names()["synapse_run"])
            raise HookError(plugins, "synapse_run", TypeError(f"{found!r} is no Outcome"))
        return found

    def executor(self, name: str, *, hint: str = "") -> Executor:
        """Return the executor of this name, made on first use and kept until the kernel shuts down."""
        found = self._executors.get(name)
        if found is None:
            factory = cast(
                "Callable[[Kernel], Executor]", self.registry.resolve("executors", name, hint=hint)
            )
            with self._lock:
                found = self._executors.get(name)
                if found is None:
                    found = self._executors[name] = self._made(name, factory)
        return found

    @property
    def worker_settings(self) -> JsonObject:
        """The settings from which a worker in another process builds a kernel with the same plugins."""
        if not self._without:
            return self.settings.values
        plugins = cast("Mapping[str, object]", self.settings.values.get("plugins", {}))
        block = [*self.settings.kernel.plugins.block, *self._without]
        return {**self.settings.values, "plugins": {**plugins, "block": block}}

    def is_lasting(self, name: str) -> bool:
        """Tell whether the jobs of an executor outlive the process that submits them."""
        try:
            spec = self.registry.get("executors", name).spec
        except SynapseError:
            return False
        return isinstance(spec, ExecutorSpec) and spec.lasting

    def executor_for(self, method: str, available: Mapping[str, str] | None = None) -> str:
        """
        Return the name of an executor that serves a config method (local, task, job, serve).

        One whose packages are there comes first. Raises `UnknownNameError` if none serves it.
        """
        available = self.registry.states("executors") if available is None else available
        serving = [
            c.spec.name
            for c in self.contributions("executors")
            if isinstance(c.spec, ExecutorSpec) and method in c.spec.methods
        ]
        if serving:
            return next((name for name in serving if available[name] == "available"), serving[0])
        raise UnknownNameError(
            f"No executor serves the method {method!r}\n"
            f"  executors here: {listing(available)}\n"
            f"  install one with: pip install 'synapse-kernel[ray]'  or run it here with: --executor local",
            kind="executors",
            name=method,
        )

    def open_sinks(self, wanted: Sequence[object], info: RunInfo) -> list[tuple[str, Sink]]:
        """
        Open sinks for a run: objects as they are, ``name`` or ``name:argument`` from their plugins.

        Raises `SynapseError` for an unknown name or an argument that the sink refuses;
        a sink that fails otherwise is left out with a warning.
        """
        # All names first: a wrong one must not leave the sinks before it open.
        factories = {
            entry: cast(
                "Callable[[RunInfo, str | None], Sink]",
                self.registry.resolve("sinks", entry.partition(":")[0]),
            )
            for entry in wanted
            if isinstance(entry, str)
        }
        opened: list[tuple[str, Sink]] = []
        for entry in wanted:
            if not isinstance(entry, str):
                opened.append((type(entry).__name__, cast("Sink", entry)))
                continue
            name, _, argument = entry.partition(":")
            try:
                opened.append((name, factories[entry](info, argument or None)))
            except SynapseError:
                raise
            except Exception as error:  # noqa: BLE001 - a sink never fails a run
                warn(f"Sink {name!r} is off for this run: {type(error).__name__}: {error}")
        return opened

    def storage(self, wanted: str | Mapping[str, object]) -> Storage:
        """
        Return the storage of a URL, of a name from the settings, or of a ``{provider, configuration}``.

        Raises `StorageConfigError` for a configuration with mistakes, `UnknownNameError` for a name or scheme
        that nobody has, `MissingPackageError` where the provider's extra is not installed.
        """
        return self.storages.storage(wanted)

    @cached_property
    def storages(self) -> Storages:
        """Its storages, each opened once."""
        from synapse_kernel.storage.finding import Storages

        return Storages(self)

    @property
    def store(self) -> RunStore | None:
        """
        The store in which runs are recorded, opened on first use; None where the settings name none.

        Raises `StoreError` for one that cannot be opened, `UnknownNameError` for a URL that no plugin serves.
        """
        url = self.settings.kernel.store
        if url is None or url == "none":
            return None
        if self._store is None:
            if url == "auto":
                url = DEFAULT_STORE
                if url not in self.registry.names("stores"):
                    return None
            factory = cast(
                "Callable[[str], RunStore]", self.registry.resolve("stores", url.partition(":")[0])
            )
            with self._lock:
                self._store = self._store or factory(url)
        return self._store

    @property
    def owner(self) -> Owner:
        """This kernel and its process, as the store knows who runs a run."""
        found = self._owner
        # Another number: this is a fork of the process that asked before, and another owner.
        if found is None or found.pid != os.getpid():
            from synapse_kernel.owners import this_process

            with self._lock:
                found = self._owner
                if found is None or found.pid != os.getpid():
                    found = self._owner = this_process()
        return found

    def cancel(self, run_id: str, reason: str = "cancelled", grace: float | None = None) -> bool:
        """Tell a run of this kernel to stop, and with it those that are part of it; False if none is live."""
        live = self.live_runs.get(run_id)
        if live is not None:
            live.control.cancel(reason, grace)
            return True
        attached = self.attached_runs.get(run_id)
        if attached is not None:
            attached.cancel(grace, reason=reason)
        return attached is not None

    def cancel_parts(self, run_id: str, reason: str = "cancelled", grace: float | None = None) -> None:
        """Tell the runs that are part of a run to stop."""
        live = self.live_runs.get(run_id)
        if live is not None:
            live.control.cancel_parts(reason, grace)

    @property
    def pulse(self) -> Pulse:
        """The thread that flushes the events of this kernel's runs, made on first use."""
        if self._pulse is None:
            from synapse_kernel.emitter import Pulse

            with self._lock:
                self._pulse = self._pulse or Pulse()
        return self._pulse

    def run(
        self,
        target: object,
        action: str | None = None,
        params: object = None,
        *,
        executor: str | None = None,
        resources: Resources | None = None,
        env: Mapping[str, object] | Iterable[str] | None = None,
        timeout: float | str | timedelta | None = None,
        retries: int = 0,
        sinks: Sequence[object] | None = None,
        checkpoint: JsonObject | None = None,
        job_id: str | None = None,
        tags: Sequence[str] = (),
        record: bool | None = None,
        place: RunPlace | None = None,
    ) -> Outcome:
        """
        Run an action and return its outcome; a failed run is an outcome too, it does not raise.

        `target` is a path, a module, an installed action plugin's name, or an action class or function.
        `params` are a mapping or an instance of the action's params model. `env` names variables of this
        process to pass, or maps names to values. `timeout` is per attempt, in seconds or like ``"1h30m"``.
        `sinks` are names (``"jsonl:events.jsonl"``) or `Sink` objects; None takes those of the settings.
        The run is recorded in the kernel's `store`, if it has one: `record` false leaves it out, true makes
        it an error that it cannot be. `tags` are found again in the history. `place` is for what conducts
        runs of its own.

        Raises `SynapseError` for what is wrong before anything starts: target, action, params, executor.
        """
        from synapse_kernel.contracts import RunPlace
        from synapse_kernel.control import Control
        from synapse_kernel.opening import open_sinks
        from synapse_kernel.preparation import RunOptions, prepare
        from synapse_kernel.runs import conduct

        options = RunOptions(
            executor=executor,
            resources=resources,
            env=env,
            timeout=timeout,
            retries=retries,
            sinks=sinks,
            checkpoint=checkpoint,
            job_id=job_id,
            tags=tags,
            record=record,
            place=place or RunPlace(),
        )
        prepared = prepare(self, target, action, params, options)
        control = Control(self.settings.kernel.grace)
        return conduct(self, prepared, control, open_sinks(self, prepared), inline=True)

    def submit(
        self, target: object, action: str | None = None, params: object = None, **options: Unpack[RunKeywords]
    ) -> Run:
        """Start a run and return its handle; arguments and errors are those of `run`."""
        from synapse_kernel.handles import Run
        from synapse_kernel.preparation import RunOptions, prepare

        return Run.start(self, prepare(self, target, action, params, RunOptions(**options)))

    def detach(
        self,
        target: object,
        action: str | None = None,
        params: object = None,
        **options: Unpack[DetachKeywords],
    ) -> str:
        """
        Start a run that goes on without this process, and return its id.

        Arguments are those of `run`, but `sinks` and `record`: such a run is always recorded, and its events
        are kept where it goes on until a process attaches to it. Raises what `run` does for what is wrong
        before anything starts, `UsageError` for an executor whose jobs do not outlive this process, and what
        the executor raises that cannot start it; the record says so then.
        """
        from synapse_kernel.detaching import detach
        from synapse_kernel.preparation import RunOptions

        return detach(self, target, action, params, RunOptions(**options, sinks=(), record=True))

    def attach(self, run_id: str, *, sinks: Sequence[object] | None = None) -> AttachedRun:
        """
        Look after a run that goes on elsewhere, and return its handle: it was detached, or its process died.

        What it said meanwhile comes first. Its events and outcome go to `sinks`, as in `run`, and into its
        record. When this kernel shuts down, or the handle's `release` is called, it goes on without.

        Raises `RunNotFoundError`; `RunBusyError` if a process looks after it; `UsageError` if it has ended or
        ended with its process; and what the executor raises that does not find it: it stays as it was then.
        """
        from synapse_kernel.detaching import attach

        return attach(self, run_id, sinks)

    def plan(
        self, target: object, action: str | None = None, params: object = None, **options: Unpack[RunKeywords]
    ) -> Plan:
        """Return what `run` would do with the same arguments, without doing it; raises what it would."""
        from synapse_kernel.preparation import RunOptions, make_plan, prepare

        return make_plan(prepare(self, target, action, params, RunOptions(**options), dry=True))

    @property
    def closed(self) -> bool:
        """True once the kernel was shut down; a run that is asked for then ends `cancelled`."""
        return self._closed

    def shutdown(self) -> None:
        """
        Cancel what still runs and let it end, shut executors and plugins down; once.

        Runs that it attached to go on elsewhere.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for attached in list(self.attached_runs.values()):
            attached.release()
        running = list(self.live_runs.values())
        for live in running:
            live.control.cancel("cancelled: the kernel shut down")
        for live in running:
            parent = live.prepared.request.place.parent
            # Its parent has given it up already.
            if parent is None or parent in self.live_runs:
                live.wait()
        for name, executor in list(self._executors.items()):
            try:
                executor.shutdown()
            except Exception as error:  # noqa: BLE001 - the others must still be shut down
                warn(f"Executor {name!r} failed to shut down: {type(error).__name__}: {error}")
        self._hooks.observe("synapse_shutdown", kernel=self)
        if "storages" in self.__dict__:
            self.storages.close()
        if self._store is not None:
            self._store.close()
        if self._pulse is not None:
            self._pulse.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _made(self, name: str, factory: Callable[[Kernel], Executor]) -> Executor:
        try:
            return factory(self)
        except SynapseError:
            raise
        except Exception as error:
            plugin = self.registry.get("executors", name).plugin.display
            raise PluginError(
                f"Executor {name!r} of plugin {plugin} cannot be made: {type(error).__name__}: {error}",
                plugin=plugin,
            ) from error


def run_plugin(
    target: object,
    action: str | None = None,
    params: object = None,
    mode: str = "local",
    *,
    kernel: Kernel | None = None,
    **options: Unpack[RunKeywords],
) -> Outcome:
    """
    Run an action with the settings that the command line would use, and return its outcome.

    `mode` is ``local`` (here and now), or ``task`` or ``job`` for an executor that serves that method. The
    other `options` are those of `Kernel.run`; `kernel` uses one that is there instead of making one.
    """
    from synapse_kernel.settings import load_settings

    if mode not in {"local", "task", "job"}:
        raise UsageError(f"mode must be 'local', 'task' or 'job', got {mode!r}")
    if kernel is None:
        with Kernel(load_settings(defaults={"store": "auto"})) as own:
            return run_plugin(target, action, params, mode, kernel=own, **options)
    if options.get("executor") is None:
        options["executor"] = kernel.executor_for(mode)
    return kernel.run(target, action, params, **options)
