"""
What a job takes along: the task or order, and the code that it needs.

Each is a Python package of its own among the job's ``py_modules``. Ray names those by their content and keeps
them: what was uploaded once is not uploaded again. Secrets may be in the task; so it is in such a package
too, and never in the command, the metadata or the variables, which the dashboard shows.
"""

from __future__ import annotations

import math
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel._version import __version__
from synapse_kernel.contracts import Task
from synapse_kernel.lasting import Order
from synapse_kernel.serialization import encode_struct
from synapse_plugins.ray_executors.code_bundles import code_bundles, kernel_requirements
from synapse_plugins.ray_executors.environments import environment_of
from synapse_plugins.ray_executors.job_work import Start
from synapse_plugins.ray_executors.resources import demand_of, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_kernel.kernel import Kernel
    from synapse_plugins.ray_executors.bundles import Bundle
    from synapse_plugins.ray_executors.settings import RaySettings

# Between the grace period's end and Ray's SIGKILL: for the process executor's own force, and to tell the end.
_STOP_MARGIN = 10
# With one of these, the job's Python is the one that Ray made for it.
_OWN_PYTHON = frozenset({"pip", "uv", "conda", "container", "image_uri", "py_executable"})
_HERE = Path(__file__).parent


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A job, ready to be submitted."""

    job_id: str
    entrypoint: str
    runtime_env: dict[str, object]
    metadata: dict[str, str]
    demand: dict[str, float]
    start: Start


def job_id_of(run_id: str, attempt: int | None = None) -> str:
    """
    Return the submission id of an attempt: the same from whichever process.

    None stands for a run that conducts itself, with all its attempts.
    """
    return f"synapse-{run_id}" if attempt is None else f"synapse-{run_id}-{attempt}"


@contextmanager
def packed(kernel: Kernel, settings: RaySettings, work: Task | Order) -> Iterator[Parcel]:
    """
    Pack a task, or an order for a whole run, in a folder that is there within the context.

    Raises `UsageError` for code that cannot be shipped and an environment that cannot be made.
    """
    task = work if isinstance(work, Task) else _first_task(work)
    environment = environment_of(settings, task)
    code = [] if settings.ship_code is False else code_bundles(kernel, task, limit=settings.upload_limit)
    folder, demand = environment.folder, demand_of(task.resources)
    job_id = job_id_of(task.run_id, task.attempt if isinstance(work, Task) else None)
    grace = kernel.settings.kernel.grace
    start = Start(
        word=secrets.token_hex(8),
        conducts=isinstance(work, Order),
        grace=grace,
        waits_for=f"Ray job {job_id} waits for {told(demand)} and its environment",
        submitted=time(),
        boot=kernel.owner.boot,
        cwd=str(Path.cwd()),
        paths=[bundle.digest for bundle in code],
        requirements=list(kernel_requirements()) if code else [],
        folder=None if folder is None else (folder.digest, folder.name),
        wheels=environment.wheels,
        manager=environment.package_manager,
        options=environment.package_manager_options,
    )
    with tempfile.TemporaryDirectory(prefix="synapse-job-") as made:
        root = Path(made)
        modules = [_bundle_package(root, bundle) for bundle in (*code, *([folder] if folder else []))]
        name = f"synapse_job_{start.word}"
        modules.append(_work_package(root / name, start, work))
        env = dict(environment.runtime_env or {})
        variables = cast("dict[str, str]", env.get("env_vars", {}))
        yield Parcel(
            job_id=job_id,
            entrypoint=_entrypoint(name, own_python=not _OWN_PYTHON.isdisjoint(env)),
            runtime_env={
                **env,
                "py_modules": [*cast("list[str]", env.get("py_modules", [])), *modules],
                "env_vars": {**variables, "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(grace) + _STOP_MARGIN)},
            },
            metadata={
                "synapse_run": task.run_id,
                "synapse_attempt": str(task.attempt),
                "synapse_action": task.action,
                "synapse_word": start.word,
                "synapse_version": __version__,
            },
            demand=demand,
            start=start,
        )


def _first_task(order: Order) -> Task:
    """Return what the environment of an order's attempts is found by."""
    spec = order.action
    return Task(
        run_id=order.run_id,
        action=spec.name,
        ref=spec.ref,
        resources=order.resources,
        runtime_env=spec.runtime_env,
    )


def _bundle_package(root: Path, bundle: Bundle) -> str:
    package = root / f"synapse_code_{bundle.digest}"
    package.mkdir()
    (package / "bundle.zip").write_bytes(bundle.data())
    return str(package)


def _work_package(package: Path, start: Start, work: Task | Order) -> str:
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copyfile(_HERE / "job_entry.py", package / "__main__.py")
    shutil.copyfile(_HERE / "bootstrap.py", package / "bootstrap.py")
    (package / "start.json").write_bytes(encode_struct(start))
    (package / "work.json").write_bytes(encode_struct(work))
    return str(package)


def _entrypoint(package: str, *, own_python: bool) -> str:
    """
    Return the shell command of the job.

    The `python` of a cluster may lack what this process's has: that one is taken where it is there too, as on
    the same machine or in the same image.
    """
    rest = f"-P -m {package}"
    if own_python:
        return f"exec python {rest}"
    mine = shlex.quote(os.path.abspath(sys.executable))  # noqa: PTH100 - a link to it is part of what it is
    return f"if [ -x {mine} ]; then exec {mine} {rest}; else exec python {rest}; fi"
