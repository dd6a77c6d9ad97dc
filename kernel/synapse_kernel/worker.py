"""
The one function that runs an action, whichever process it is in.

`execute` loads the action, builds its params and context, runs it, checks its result, and turns whatever
happens into an `Outcome`. A worker's exception becomes data here, so that an exception whose class cannot
travel never hides its cause.
"""

from __future__ import annotations

import importlib
import os
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synapse_kernel import folders
from synapse_kernel.actions import BaseAction, action_code, configure_instance
from synapse_kernel.context import RuntimeContext
from synapse_kernel.contracts import ActionSpec, ErrorInfo, Outcome
from synapse_kernel.current import current_kernel
from synapse_kernel.emitter import CancelToken, Emitter, current_step
from synapse_kernel.errors import (
    EntrypointError,
    RunCancelled,
    SynapseError,
    WorkFolderError,
    listing,
    suggest,
    suggest_module,
)
from synapse_kernel.models import check_type
from synapse_kernel.params import build_params, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from threading import Lock

    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import ActionRef, ErrorKind, Send, Task
    from synapse_kernel.emitter import Pulse
    from synapse_kernel.events import Status
    from synapse_kernel.kernel import Kernel

_current_token: ContextVar[CancelToken | None] = ContextVar("synapse_token", default=None)


def current_token() -> CancelToken | None:
    """Return the request to stop of the run that is executed in this thread."""
    return _current_token.get()


def load_action(ref: ActionRef) -> ActionCode:
    """
    Import the action a reference names; a changed file of its folder is read again.

    Raises `EntrypointError` for a reference that is not ``module:attribute`` or leads nowhere, and whatever
    the module itself raises.
    """
    if ref.loaded is not None:
        return action_code(ref.loaded)
    module_name, colon, attribute = ref.entrypoint.partition(":")
    if not (module_name and colon and attribute):
        raise EntrypointError(
            f"The entrypoint {ref.entrypoint!r} is not 'module:Attribute'", entrypoint=ref.entrypoint
        )
    place = f" in {ref.folder}" if ref.folder else ""
    try:
        if ref.folder is not None:
            module = folders.load(ref.folder, module_name)
        else:
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").removeprefix(f"{folders.package_of(ref.folder)}." if ref.folder else "")
        if missing and (module_name == missing or module_name.startswith(f"{missing}.")):
            known = folders.beside(ref.folder, missing) if ref.folder else None
            raise EntrypointError(
                f"The entrypoint {ref.entrypoint!r} names a module that is not there: {missing!r}{place}"
                f"{suggest_module(missing, known)}",
                entrypoint=ref.entrypoint,
            ) from error
        raise
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            public = [name for name in vars(module) if not name.startswith("_")]
            raise EntrypointError(
                f"The entrypoint {ref.entrypoint!r} names an attribute that is not there: {part!r}"
                f"{suggest(part, public)}\n  module {module_name!r}{place} has: {listing(public)}",
                entrypoint=ref.entrypoint,
            ) from None
    return action_code(found, entrypoint=ref.entrypoint)


def execute(
    task: Task,
    send: Send | None,
    token: CancelToken,
    *,
    kernel: Callable[[], Kernel],
    pulse: Pulse | None = None,
    eager: bool = False,
    lock: Lock | None = None,
) -> Outcome:
    """
    Run a task in this process and thread and say how it ended.

    Events go to `send`, all of them before this returns; `eager` sends each as it is said, and `lock` is held
    meanwhile. Raises only what asks the whole process to end: `KeyboardInterrupt`, after the action was
    unwound.
    """
    started = datetime.now(UTC)
    emitter = Emitter(
        task.run_id,
        task.action,
        send,
        pulse=pulse,
        seq=task.seq,
        secrets=task.secrets,
        eager=eager,
        lock=lock,
    )
    token.on_set(emitter.cancel)
    token.on_strike(emitter.release)
    context = RuntimeContext(task, emitter, kernel)
    mark = _current_token.set(token)
    kernel_mark = current_kernel.set(kernel)
    # A run that a step started is none of its steps.
    step_mark = current_step.set(None)
    warnings: list[str] = []
    result: object = None
    error: ErrorInfo | None = None
    exception: BaseException | None = None
    stage: ErrorKind | None = "load"
    try:
        code = task.code or load_action(task.ref)
        stage = "params"
        params = task.__dict__.get("params_object")
        if params is None:
            params = build_params(code, task.params)
        stage = None
        emitter.checkpoint()
        returned = _call(code, params, context, task)
        if code.result_type is not None:
            returned = _checked(code, returned, context, warnings)
        result = returned
    except RunCancelled as stop:
        error, exception = cancelled(token.told), stop
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # noqa: BLE001 - sys.exit() in an action ends the run, not the kernel
        error, exception = describe_error(raised, stage), raised
        if token.is_set and type(raised).__name__ == "CancelledError":
            error = cancelled(token.told)
    finally:
        _current_token.reset(mark)
        current_kernel.reset(kernel_mark)
        current_step.reset(step_mark)
        emitter.release()
        try:
            context.finish()
        finally:
            emitter.close()
    outcome = Outcome(
        run_id=task.run_id,
        status=_status(error),
        action=task.action,
        started=started,
        finished=datetime.now(UTC),
        result=result,
        error=error,
        attempts=task.attempt,
        warnings=warnings,
    )
    if exception is not None:
        outcome.__dict__["exception"] = exception
    return outcome


def describe_error(error: BaseException, kind: ErrorKind | None = None) -> ErrorInfo:
    """Turn an exception into data, with a traceback of the action's own code alone."""
    if kind is None:
        kind = "action"
        if isinstance(error, _ResultError):
            kind = "result"
        elif isinstance(error, EntrypointError):
            kind = "load"
        elif isinstance(error, WorkFolderError):
            kind = "folder"
    lines: list[str] = []
    if kind == "action" or not isinstance(error, SynapseError):
        told = traceback.TracebackException.from_exception(error)
        _drop_own_frames(told)
        lines = list(told.format())
    name = type(error).__name__
    return ErrorInfo(
        type="ResultError" if kind == "result" else name,
        message=_message(error),
        kind=kind,
        traceback="".join(lines),
    )


def cancelled(told: str = "cancelled") -> ErrorInfo:
    """Return the error of a run that was stopped; `told` is as in `CancelToken.told`."""
    return ErrorInfo(type="RunCancelled", message=f"the run was {told}", kind="cancelled")


def concluded(task: Task, started: datetime, status: Status, error: ErrorInfo) -> Outcome:
    """Make the outcome of an attempt that `execute` did not conclude."""
    return Outcome(
        run_id=task.run_id,
        status=status,
        action=task.action,
        started=started,
        finished=datetime.now(UTC),
        error=error,
        attempts=task.attempt,
    )


def interrupted(task: Task, started: datetime) -> Outcome:
    """Conclude a task whose action raised `KeyboardInterrupt` where that is not the caller's."""
    error = ErrorInfo(type="KeyboardInterrupt", message="the action interrupted its run", kind="cancelled")
    return concluded(task, started, "cancelled", error)


class _ResultError(SynapseError):
    exit_code = 1


def _drop_own_frames(told: traceback.TracebackException) -> None:
    pending = [told]
    while pending:
        each = pending.pop()
        each.stack[:] = [frame for frame in each.stack if not _is_own(frame.filename)]
        inner = (each.__cause__, each.__context__, *(each.exceptions or ()))
        pending.extend(one for one in inner if one is not None)


_OWN_FOLDER = str(Path(__file__).parent) + os.sep
_IMPORT_FILES = frozenset(
    {importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
)


_ASYNCIO = f"{os.sep}asyncio{os.sep}"


def _is_own(file: str) -> bool:
    return file in _IMPORT_FILES or file.startswith(_OWN_FOLDER) or _ASYNCIO in file


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the action called sys.exit({'' if error.code is None else repr(error.code)})"
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception whose __str__ raises must not hide itself
        return f"<{type(error).__name__} whose text cannot be read>"


def _status(error: ErrorInfo | None) -> Status:
    if error is None:
        return "succeeded"
    return "cancelled" if error.kind == "cancelled" else "failed"


def _call(code: ActionCode, params: object, context: RuntimeContext, task: Task) -> object:
    if code.is_class:
        make = cast("type[BaseAction[object, object]]", code.obj)
        instance = make(params, context)
        _configure(instance, task)
        returned: object = instance.execute()
    else:
        function = cast("Callable[..., object]", code.obj)
        returned = function(*(params, context)[: code.arity])
    return run_awaitable(returned) if hasattr(returned, "__await__") else returned


def _configure(instance: BaseAction[object, object], task: Task) -> None:
    if instance.action_name == task.action and not (task.category or task.input_type or task.output_type):
        return
    configure_instance(
        instance,
        ActionSpec(
            name=task.action,
            ref=task.ref,
            category=task.category,
            input_type=task.input_type,
            output_type=task.output_type,
        ),
    )


def run_awaitable(returned: Awaitable[object]) -> object:
    """Run what an async action or step returned to its end; a request to stop its run cancels its task."""
    import asyncio

    token = _current_token.get()

    async def main() -> object:
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(returned)

        def cancel() -> None:
            assert token is not None
            token.strike()
            work.cancel()

        def stop() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(cancel)

        if token is not None:
            token.on_set(stop)
        return await work

    if asyncio._get_running_loop() is None:  # the public one raises, which tracebacks show
        return asyncio.run(main())
    # The caller is itself inside a loop (a notebook, say): the action gets a loop in a thread of its own.
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1, thread_name_prefix="synapse-async") as pool:
        return pool.submit(copy_context().run, asyncio.run, main()).result()


def _checked(code: ActionCode, returned: object, context: RuntimeContext, warnings: list[str]) -> object:
    wanted = code.result_type
    if isinstance(wanted, type) and type(returned) is wanted:
        return returned
    try:
        return check_type(wanted, returned)
    except ValueError as error:
        name = wanted.__name__ if isinstance(wanted, type) else str(wanted)
        text = f"the result of {code.name!r} does not fit {name}: {explain(error)}"
        if code.result_check == "warn":
            warnings.append(text)
            context.log("result_mismatch", {"message": text}, level="warning")
            return returned
        raise _ResultError(
            f'{text}\n  fix the result, or set result_check = "warn" on the action to keep it as it is'
        ) from None
