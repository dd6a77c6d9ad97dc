"""What an action finds around it while it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synapse_kernel.environment import PluginEnvironment
from synapse_kernel.errors import SynapseError, UsageError, WorkFolderError

if TYPE_CHECKING:
    import logging
    import os
    from collections.abc import Callable, Mapping

    from synapse_kernel.contracts import Task
    from synapse_kernel.emitter import Emitter
    from synapse_kernel.events import Level
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.storage.storage import Storage
    from synapse_kernel.storage.transfers import TransferProgress
    from synapse_kernel.stores import CheckpointStore


class RuntimeContext:
    """
    The run's surroundings: its ids, environment, folder, services, and the ways to say something.

    Every call that emits is also a place where a cancelled run stops, by raising `RunCancelled`.

    A service that a plugin registered is an attribute under its name: ``ctx.client``, ``ctx.agent_client``.
    """

    def __init__(self, task: Task, emitter: Emitter, kernel: Callable[[], Kernel]) -> None:
        self._task = task
        self._emitter = emitter
        self._kernel = kernel
        self._at_end: list[Callable[[], None]] = []
        self.run_id: str = task.run_id
        self.attempt: int = task.attempt
        self.job_id: str | None = task.job_id
        self.checkpoint: Mapping[str, object] | None = task.checkpoint
        """Where to go on from, if the caller gave it: plain data, such as a category and a path."""
        # The emitter's own methods, without the frame of those below: a million calls a second go this way.
        self.__dict__.update(log=emitter.log, set_progress=emitter.progress, set_metrics=emitter.metrics)

    def log(self, event: str, data: Mapping[str, object] | None = None, *, level: Level = "info") -> None:
        """
        Log a named event with data.

        The data is snapshotted as JSON now; what JSON cannot hold is kept as its ``repr``. Text under secret
        names (``*KEY*``, ``*TOKEN*``…) and the run's known secret values are masked.
        """
        self._emitter.log(event, data, level=level)

    def set_progress(self, current: float, total: float | None = None, category: str | None = None) -> None:
        """
        Set how far the work, or a category of it, has come.

        Any unit will do. Calls are coalesced to about ten events a second; the last one is always sent.
        Raises `TypeError` if a value is not a number.
        """
        self._emitter.progress(current, total, category)

    def set_metrics(self, values: Mapping[str, object], category: str | None = None) -> None:
        """Record numbers measured together; raises `TypeError` naming a value that is not a number."""
        self._emitter.metrics(values, category)

    def log_message(self, text: str, context: str = "info") -> None:
        """Say a sentence to the person who watches; `context` is info, success, warning or error."""
        self._emitter.message(text, context)

    def log_dev_event(self, message: str, data: Mapping[str, object] | None = None) -> None:
        """Log something for the developers of the action: an event of level debug."""
        self._emitter.log("dev_event", {"message": message, **(data or {})}, level="debug")

    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """
        Tell of a file or folder that this run made, with its size and checksum.

        A relative path is one in `work_dir`. Where the settings name a storage for `artifacts`, it is written
        there, as ``RUN_ID/NAME``, and told with its URL; if that fails, a warning says so and its place here
        is told.

        Raises `UsageError` if it is not there.
        """
        file = Path(path)
        if not file.is_absolute():
            file = self.work_dir / file
        if not file.exists():
            raise UsageError(f"log_artifact: there is no {file}")
        self.check_cancelled()
        if self._emitter.heard:
            from synapse_kernel.files import size_and_checksum

            label = name or file.name
            place = self._stored(file, label)
            self._emitter.artifact(label, place, *size_and_checksum(file))

    def _stored(self, file: Path, name: str) -> str:
        """Write an artifact to the storage of the settings, if they name one, and return where it is."""
        wanted = self._kernel().settings.kernel.artifacts
        if wanted is None:
            return str(file)
        try:
            storage = self.storage(wanted).at(self.run_id)
            storage.upload(file, name)
        except SynapseError as error:
            self.log("artifact_not_stored", {"name": name, "error": str(error)}, level="warning")
            return str(file)
        return storage.get_address(name)

    def end_log(self) -> None:
        """Send all that is waiting now, instead of within the next tenth of a second."""
        self._emitter.flush()

    @property
    def cancelled(self) -> bool:
        """True once the run was told to stop: a loop that emits nothing can look here."""
        return self._emitter.cancelled

    def check_cancelled(self) -> None:
        """Raise `RunCancelled` if the run was told to stop; clean-up after it is not interrupted again."""
        self._emitter.checkpoint()

    @property
    def env(self) -> PluginEnvironment:
        """The variables that were named for this run."""
        found = self.__dict__.get("_env")
        if found is None:
            found = self.__dict__["_env"] = PluginEnvironment(self._task.env)
        return cast("PluginEnvironment", found)

    @property
    def checkpoint_store(self) -> CheckpointStore | None:
        """
        Where the run keeps what its next attempt goes on from; None for a run that is not recorded.

        Raises `StoreError` if the store cannot be opened from this process.
        """
        if not self._task.recorded:
            return None
        found = self.__dict__.get("_checkpoints")
        if found is None:
            from synapse_kernel.stores import CheckpointStore

            store = self._kernel().store
            if store is None:
                return None
            found = self.__dict__["_checkpoints"] = CheckpointStore(store, self.run_id)
        return cast("CheckpointStore", found)

    @property
    def work_dir(self) -> Path:
        """
        A folder of the run's own, made on first use and kept afterwards.

        Raises `WorkFolderError` if it cannot be made.
        """
        found = self.__dict__.get("_work_dir")
        if found is None:
            found = self.__dict__["_work_dir"] = make_work_dir(
                self._task.work_root, self.run_id, self._task.work_dir
            )
        return cast("Path", found)

    @property
    def logger(self) -> logging.Logger:
        """A standard logger whose records become events of the run; registered nowhere."""
        found = self.__dict__.get("_logger")
        if found is None:
            from synapse_kernel.logs import event_logger

            found = self.__dict__["_logger"] = event_logger(self._task.action, self._emitter)
        return cast("logging.Logger", found)

    def service(self, name: str) -> object:
        """Return the client that a plugin registered under a name; made on first use, kept for the run."""
        services = cast("dict[str, object]", self.__dict__.setdefault("_services", {}))
        if name not in services:
            factory = cast("Callable[[RuntimeContext], object]", self._kernel().resolve("services", name))
            services[name] = factory(self)
        return services[name]

    def storage(self, url_or_name: str | Mapping[str, object]) -> Storage:
        """
        Return the storage of a URL (``s3://bucket/prefix``), of a name from the settings, or a configuration.

        Its transfers are told as progress of the run, one category an operation; cancelling the run ends
        them. Raises what `Kernel.storage` raises.
        """
        return self._kernel().storage(url_or_name).at("", progress=self._tell_transfer)

    def _tell_transfer(self, progress: TransferProgress) -> None:
        if progress.total_bytes:
            self.set_progress(progress.bytes, progress.total_bytes, progress.operation)
        else:
            self.set_progress(progress.files, progress.total_files, progress.operation)

    def autolog(self, framework: str) -> None:
        """Log what an ML framework does, for this run alone, through the integration of that name."""
        start = cast(
            "Callable[[RuntimeContext], Callable[[], None] | None]",
            self._kernel().resolve("integrations", framework),
        )
        stop = start(self)
        if stop is not None:
            self._at_end.append(stop)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call back when the action is over, however it ended; the last registered first."""
        self._at_end.append(callback)

    def finish(self) -> None:
        """Run what `at_end` registered; called by the worker."""
        while self._at_end:
            callback = self._at_end.pop()
            try:
                callback()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the others must still be called
                self._emitter.log(
                    "clean_up_failed", {"error": f"{type(error).__name__}: {error}"}, level="warning"
                )

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.service(name)
        except SynapseError as error:
            raise AttributeError(str(error)) from error


_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def make_work_dir(root: str | None, run_id: str, own: str | None = None) -> Path:
    """Make the folder of a run, `own` or under `root` (None: the user's state folder), and return it."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(f"{run_id!r} cannot name a run: use letters, digits, '.', '_' and '-'")
    from synapse_kernel.settings import state_home

    folder = Path(own) if own else (Path(root) if root else state_home() / "runs") / run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkFolderError(str(folder), error.strerror or str(error)) from error
    return folder
