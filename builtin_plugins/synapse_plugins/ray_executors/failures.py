"""What Ray says when something dies, as the outcome of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ray import exceptions

from synapse_kernel.contracts import ErrorInfo
from synapse_plugins.ray_executors.environments import installer_lines

if TYPE_CHECKING:
    from synapse_kernel.contracts import ErrorKind

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def error_of(error: BaseException) -> ErrorInfo:
    """Describe an exception that Ray raised for a task or an actor's call."""
    text = _COLOURS.sub("", str(error)).strip()
    if isinstance(error, exceptions.OutOfMemoryError):
        return _crash("OutOfMemory", "Ray ended the worker: its node ran out of memory", text)
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return ErrorInfo(
            type="RuntimeEnvFailed",
            message="the run's environment could not be set up on the cluster",
            kind="executor",
            output=installer_lines(text),
        )
    if isinstance(error, exceptions.NodeDiedError) or _tells_node_death(error, text):
        return node_died(text)
    if isinstance(error, (exceptions.WorkerCrashedError, exceptions.ActorDiedError)):
        return _crash("WorkerCrashed", f"the worker process ended before the action did{_why(text)}", text)
    if isinstance(error, (exceptions.ActorUnavailableError, exceptions.ObjectLostError)):
        return _crash("WorkerLost", "the worker cannot be reached any more", text)
    if isinstance(error, (exceptions.TaskUnschedulableError, exceptions.ActorUnschedulableError)):
        return ErrorInfo(type="Unschedulable", message=_first(text), kind="executor", output=text)
    if isinstance(error, exceptions.RayTaskError):
        return _own_failure(error, text)
    return ErrorInfo(type=type(error).__name__, message=_first(text), kind="executor", output=_last(text))


def node_died(text: str) -> ErrorInfo:
    """Describe the loss of the node that ran an attempt."""
    return _crash("NodeDied", "the node that ran it has left the cluster", text)


def _own_failure(error: exceptions.RayTaskError, text: str) -> ErrorInfo:
    """Describe what failed on the worker outside the action: our own code, or that it is not there."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, ImportError):
        return ErrorInfo(
            type="WorkerIncomplete",
            message=(
                f"the cluster's workers lack what the run needs: {cause}\n"
                "  install synapse-kernel and its dependencies on the nodes, or name them in the setting\n"
                "  ray.runtime_env, such as {pip: [synapse-kernel]}"
            ),
            kind="executor",
            output=_last(text),
        )
    return ErrorInfo(
        type=type(cause).__name__, message=_first(str(cause)), kind="executor", output=_last(text)
    )


def _crash(name: str, message: str, text: str) -> ErrorInfo:
    kind: ErrorKind = "crash"
    return ErrorInfo(type=name, message=message, kind=kind, output=_last(text))


def _tells_node_death(error: BaseException, text: str) -> bool:
    if not isinstance(error, (exceptions.ActorDiedError, exceptions.WorkerCrashedError)):
        return False
    return "node died" in text.lower() or "node is dead" in text.lower() or "NODE_DIED" in text


def _why(text: str) -> str:
    if "out of memory" in text.lower() and "killed by the OOM killer due to high memory" not in text:
        return ": out of memory"
    code = re.search(r"exit code (-?\d+)", text)
    return f" (exit code {code[1]})" if code else ""


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last(text: str, count: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
