"""
The environment of a worker: what a task's folder, its config and the settings ask for together.

Ray builds what is in `runtime_env`, once a node, and keeps it; the folder and its wheels come as bundles.
The values of a task's `env` are no part of it: Ray shows a runtime environment to whoever sees its
dashboard. The worker sets them itself.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import textwrap
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.config import FILE_NAME, PluginConfig, load_config
from synapse_kernel.errors import UsageError
from synapse_plugins.ray_executors.bundles import Bundle, folder_bundle
from synapse_plugins.ray_executors.requirements import Requirements, read_requirements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_kernel.contracts import JsonObject, Task
    from synapse_plugins.ray_executors.settings import RaySettings

REQUIREMENTS = "requirements.txt"
# Tells Ray that a process that has a folder's wheels is not one for other folders.
WHEELS_VARIABLE = "SYNAPSE_WHEELS"
INSTALLER_LINES = 15
_INSTALLERS = ("pip", "uv")
_OPTIONS = {"pip": "pip_install_options", "uv": "uv_pip_install_options"}
# Ray's own, which options of the user's would replace.
_DEFAULT_OPTIONS = {"pip": ["--disable-pip-version-check", "--no-cache-dir"], "uv": ["--no-cache"]}
_OUTPUT_BEGINS = re.compile(r"^Last \d+ lines of stdout:\n", re.MULTILINE)
_IS_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class RunEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What must be there on a worker before a task can run on it."""

    runtime_env: dict[str, object] | None = None
    """For Ray's ``.options(runtime_env=…)``; None for the cluster's own environment."""
    folder: Bundle | None = None
    wheels: list[str] = []
    """Wheels in the folder, relative to it, to be installed from there."""
    package_manager: str = "pip"
    package_manager_options: list[str] = []
    key: str = ""
    """Equal for tasks that may share a process: the folder's code is no part of it."""


class _Folder(msgspec.Struct, frozen=True):
    """What a folder asks for, and the files that say so as they were then."""

    stamps: dict[str, tuple[int, int, int] | None]
    config: PluginConfig | None
    requirements: Requirements


class _Parts(msgspec.Struct, frozen=True, eq=False):
    """What a folder brings to an environment."""

    asked: _Folder = _Folder({}, None, Requirements())
    wheels: list[str] = []
    bundle: Bundle | None = None

    def same(self, other: _Parts) -> bool:
        # What has not changed is not looked at again: it is the same object.
        return self.asked is other.asked and self.bundle is other.bundle and self.wheels == other.wheels


_folders: dict[str, _Folder] = {}
_made: dict[str | None, tuple[_Parts, RunEnvironment]] = {}
"""The last of each folder without a `runtime_env`."""
_no_folder = _Parts()
_lock = threading.Lock()


def environment_of(settings: RaySettings, task: Task) -> RunEnvironment:
    """
    Return the environment of a task; neither the settings nor the task are changed.

    Raises `UsageError` for what Ray cannot build, and for a folder that is too large, and `ConfigError` for
    a `config.yaml` that cannot be read.
    """
    place = task.ref.folder
    parts = _no_folder if place is None else _parts(place, settings.upload_limit)
    if settings.runtime_env or task.runtime_env:
        # It may name files, which change.
        return _joined_environment(settings, task, parts)
    known = _made.get(place)
    if known is not None and known[0].same(parts):
        return known[1]
    environment = _joined_environment(settings, task, parts)
    with _lock:
        _made[place] = parts, environment
    return environment


def _parts(place: str, limit: int) -> _Parts:
    asked = _asked(place)
    wheels = _wheels(place, asked)
    return _Parts(asked, wheels, folder_bundle(place, limit=limit, keep=wheels))


def _joined_environment(settings: RaySettings, task: Task, folder: _Parts) -> RunEnvironment:
    place, config, bundle = task.ref.folder, folder.asked.config, folder.bundle
    manager = config.package_manager if config is not None else "pip"
    options = config.package_manager_options if config is not None else []
    env = _laid_over(_normal(settings.runtime_env, None), _normal(task.runtime_env, place))
    _add_requirements(env, folder.asked.requirements.lines, manager, options, place)
    _check(env)
    parts: list[object] = [env]
    if bundle is not None and folder.wheels:
        members = {f"{bundle.name}/{wheel}" for wheel in folder.wheels}
        contents = sorted(source.digest for source in bundle.sources if source.member in members)
        parts.append([contents, manager, options])
        variables = cast("dict[str, str]", env.get("env_vars", {}))
        env["env_vars"] = {**variables, WHEELS_VARIABLE: _digest(parts[1:])}
    return RunEnvironment(
        runtime_env=env or None,
        folder=bundle,
        wheels=folder.wheels,
        package_manager=manager,
        package_manager_options=options,
        key=_digest(parts),
    )


def installer_lines(text: str) -> str:
    """Return what the installer said last, of the text of Ray's `RuntimeEnvSetupError`."""
    # Each try and each node tells its own; the last is as good as any.
    *_, said = _OUTPUT_BEGINS.split(text)
    lines = [line.rstrip() for line in textwrap.dedent(said).splitlines() if line.strip()]
    if said == text:
        # No installer got to say anything: what is left is Ray's own error, at the end of a traceback.
        lines = [line for line in lines if not line.startswith(" ")]
    return "\n".join(lines[-INSTALLER_LINES:])


def _asked(place: str) -> _Folder:
    known = _folders.get(place)
    if known is not None and all(_stamp(path) == stamp for path, stamp in known.stamps.items()):
        return known
    folder = Path(place)
    config_file, requirements_file = folder / FILE_NAME, folder / REQUIREMENTS
    # Before they are read: a change in between shows as one.
    stamps = {str(path): _stamp(str(path)) for path in (config_file, requirements_file)}
    config = load_config(config_file) if config_file.is_file() else None
    requirements = read_requirements(requirements_file, folder)
    stamps |= {path: _stamp(path) for path in requirements.files if path not in stamps}
    found = _Folder(stamps, config, requirements)
    with _lock:
        _folders[place] = found
    return found


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - on the way of every run
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _wheels(place: str, asked: _Folder) -> list[str]:
    named = asked.config.wheels_dir if asked.config is not None else "wheels"
    try:
        names = os.listdir(f"{place}/{named}")  # noqa: PTH208 - on the way of every run
    except OSError:
        names = []
    found = {PurePosixPath(named, name).as_posix() for name in names if name.endswith(".whl")}
    return sorted(found | set(asked.requirements.wheels))


def _normal(env: Mapping[str, object], place: str | None) -> dict[str, object]:
    """Return a copy of a runtime environment, what pip or uv installs as a mapping with a list."""
    made = copy.deepcopy(dict(env))
    for name in _INSTALLERS:
        if made.get(name) is not None:
            made[name] = _normal_installer(name, made[name], place)
    return made


def _normal_installer(name: str, value: object, place: str | None) -> dict[str, object]:
    fields: dict[str, object] = dict(value) if isinstance(value, dict) else {"packages": value}
    packages = fields.get("packages", [])
    if isinstance(packages, str):
        file = Path(place or Path.cwd(), packages)
        if not file.is_file():
            raise UsageError(f"runtime_env.{name} names a requirements file that is not there: {file}")
        packages = read_requirements(file, file.parent).lines
    if not (isinstance(packages, list) and all(isinstance(line, str) for line in packages)):
        raise UsageError(
            f"runtime_env.{name} must be a list of packages, the path of a requirements file, or a mapping "
            f"with 'packages', got {value!r}"
        )
    return {**fields, "packages": packages}


def _laid_over(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    made = {**base, **over}
    for name in _INSTALLERS:
        below, above = base.get(name), over.get(name)
        if isinstance(below, dict) and isinstance(above, dict):
            made[name] = {**below, **above, "packages": _joined(below["packages"], above["packages"])}
    below, above = base.get("env_vars"), over.get("env_vars")
    if isinstance(below, dict) and isinstance(above, dict):
        made["env_vars"] = {**below, **above}
    return {name: value for name, value in made.items() if value is not None}


def _joined(below: list[str], above: list[str]) -> list[str]:
    return list(dict.fromkeys([*below, *above]))


def _add_requirements(
    env: dict[str, object], lines: list[str], manager: str, options: list[str], place: str | None
) -> None:
    """Put a folder's requirements where Ray installs them from."""
    if not lines:
        return
    other = next((name for name in ("pip", "uv", "conda") if name != manager and name in env), None)
    if other is not None:
        change = "add them to the conda environment" if other == "conda" else f"set  package_manager: {other}"
        raise UsageError(
            f"{Path(place or '', REQUIREMENTS)} is installed with {manager}, but the runtime_env has "
            f"{other!r}, and Ray builds only one of them\n"
            f"  {change} in {Path(place or '', FILE_NAME)}, or take {other!r} out of the runtime_env"
        )
    fields = cast("dict[str, object]", env.get(manager, {}))
    packages = cast("list[str]", fields.get("packages", []))
    made: JsonObject = {**fields, "packages": _joined(packages, lines)}
    if options:
        before = cast("list[str]", fields.get(_OPTIONS[manager], _DEFAULT_OPTIONS[manager]))
        made[_OPTIONS[manager]] = _joined(before, options)
    env[manager] = made


def _check(env: Mapping[str, object]) -> None:
    """Refuse what Ray would refuse later, or upload in vain."""
    present = [name for name in ("pip", "uv", "conda") if name in env]
    if len(present) > 1:
        raise UsageError(
            f"The runtime_env has {' and '.join(map(repr, present))}, and Ray builds only one of them\n"
            f"  it is the setting ray.runtime_env with the runtime_env of {FILE_NAME} laid over it: "
            f"a null there takes a key away"
        )
    variables = env.get("env_vars", {})
    if not isinstance(variables, dict) or not all(isinstance(v, str) for v in variables.values()):
        raise UsageError(f"runtime_env.env_vars must map names to texts, got {variables!r}")
    for name in ("working_dir", "py_modules"):
        value = env.get(name, [])
        for each in value if isinstance(value, list) else [value]:
            if not (isinstance(each, str) and _IS_URI.match(each)):
                raise UsageError(
                    f"runtime_env.{name} is a path of this machine: {each!r}\n"
                    f"  the action's folder is shipped without it; leave {name} out, or give a URI such as "
                    f"s3://bucket/code.zip"
                )


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:32]
