"""
The models of an action plugin's `config.yaml`.

They are msgspec structs rather than pydantic models: reading a config is on the way of every run, and
importing pydantic and building such models would cost it 0.1 s. Mistakes are told all at once all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from synapse_kernel.contracts import ActionRef, ActionSpec, JsonObject, Method, Resources
from synapse_kernel.errors import ConfigError, Problem, SynapseError, UsageError
from synapse_kernel.structs import convert

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_NAME = "config.yaml"

Category = Literal[
    "neural_net",
    "export",
    "upload",
    "smart_tool",
    "post_annotation",
    "pre_annotation",
    "data_validation",
    "custom",
]
DataKind = Literal["image", "text", "video", "pcd", "audio"]
PackageManager = Literal["pip", "uv"]
Scalar = str | int | float | bool
Count = Annotated[float, msgspec.Meta(ge=0)]
Size = Annotated[int, msgspec.Meta(ge=0)]


class ResourcesConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Resources as a config asks for them: `memory` in bytes, or text such as ``8GiB``."""

    cpus: Count | None = None
    gpus: Count | None = None
    memory: Size | str | None = None
    custom: dict[str, Count] = {}


class ActionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One action of a `config.yaml`."""

    name: str | None = None
    """Another name for it than its key."""
    description: str = ""
    entrypoint: str | None = None
    """``module:Attribute`` or ``module.Attribute``; null finds the action of this name in the code."""
    method: Method | None = None
    category: Category | None = None
    input_type: str | None = None
    output_type: str | None = None
    params: JsonObject = {}
    """Defaults that stand before the params of a run."""
    resources: ResourcesConfig = ResourcesConfig()


def as_action_config(value: ActionConfig | str | None) -> ActionConfig:
    """Read what stands for an action: a bare entrypoint, or nothing where the code tells it."""
    return value if isinstance(value, ActionConfig) else ActionConfig(entrypoint=value)


class PluginConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `config.yaml`."""

    name: str
    code: str | None = None
    """A short name without spaces, for machines."""
    version: str | int | float | None = None
    category: Category | None = None
    description: str = ""
    readme: str | None = None
    package_manager: PackageManager = "pip"
    package_manager_options: list[str] = []
    wheels_dir: str = "wheels"
    env: dict[str, Scalar] | list[str] = {}
    """Variables of every run: names to take from the caller's environment, or names with values."""
    runtime_env: JsonObject = {}
    data_type: DataKind | None = None
    tasks: list[str] = []
    supported_data_type: list[DataKind] = []
    annotation_category: str | None = None
    annotation_type: str | None = None
    smart_tool: str | None = None
    actions: dict[str, ActionConfig | str | None] = {}

    def action_configs(self) -> dict[str, ActionConfig]:
        """Return the actions by name, those written as a bare entrypoint too."""
        configs = {key: as_action_config(value) for key, value in self.actions.items()}
        return {config.name or key: config for key, config in configs.items()}


def config_file(path: str | Path) -> Path:
    """Return the config of a plugin folder, or the file itself if that is what was given."""
    given = Path(path)
    return given / FILE_NAME if given.is_dir() else given


def load_config(path: str | Path) -> PluginConfig:
    """Read a `config.yaml`, given itself or its folder; raises `ConfigError` with every mistake in it."""
    from synapse_kernel.yaml_files import YamlError, read_mapping

    file = config_file(path)
    try:
        data = read_mapping(file)
    except YamlError as error:
        raise ConfigError("The config cannot be read:", [Problem("", str(error))]) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError("The config cannot be read:", [Problem(str(file), reason)]) from error
    config, problems = convert(data, PluginConfig)
    problems += _deeper_problems(data)
    if config is not None and not problems:
        return config
    raise ConfigError(f"{file} cannot be used:", problems)


def action_spec(
    name: str, config: ActionConfig, plugin: PluginConfig, *, entrypoint: str, folder: str | None, origin: str
) -> ActionSpec:
    """Describe an action of a config for the kernel."""
    resources = config.resources
    return ActionSpec(
        name=name,
        ref=ActionRef(normal_entrypoint(entrypoint), folder),
        method=config.method,
        description=config.description,
        category=config.category or plugin.category,
        input_type=config.input_type,
        output_type=config.output_type,
        params=config.params,
        resources=Resources(
            cpus=resources.cpus, gpus=resources.gpus, memory=_bytes(resources.memory), custom=resources.custom
        ),
        env={k: _env_text(v) for k, v in plugin.env.items()} if isinstance(plugin.env, dict) else {},
        env_names=plugin.env if isinstance(plugin.env, list) else [],
        runtime_env=plugin.runtime_env,
        origin=origin,
    )


def normal_entrypoint(entrypoint: str) -> str:
    """Return an entrypoint as ``module:Attribute``, from that or from ``module.Attribute``."""
    if ":" in entrypoint:
        return entrypoint
    module, _, attribute = entrypoint.rpartition(".")
    return f"{module}:{attribute}"


def _deeper_problems(data: Mapping[str, object]) -> Iterator[Problem]:
    """Yield what the types alone cannot say, of data that may have mistakes of type besides."""
    actions = data.get("actions")
    if not isinstance(actions, dict):
        return
    seen: dict[object, str] = {}
    for key, value in actions.items():
        action = value if isinstance(value, dict) else {"entrypoint": value}
        place = f"actions.{key}"
        name = action.get("name") or key
        if name in seen:
            yield Problem(place, f"the name {name!r} is that of {seen[name]} too")
        seen[name] = place
        entrypoint = action.get("entrypoint")
        if isinstance(entrypoint, str) and not _is_entrypoint(entrypoint):
            yield Problem(f"{place}.entrypoint", f"expected 'module:Attribute', got {entrypoint!r}")
        for field in ("input_type", "output_type"):
            yield from _type_problems(action.get(field), f"{place}.{field}")
        resources = action.get("resources")
        memory = resources.get("memory") if isinstance(resources, dict) else None
        try:
            _bytes(memory if isinstance(memory, str) else None)
        except UsageError as error:
            yield Problem(f"{place}.resources.memory", str(error))


def _type_problems(named: object, place: str) -> Iterator[Problem]:
    from synapse_kernel.types import data_type

    # A type of the plugin's own is known only once its code is imported: it is named module:Type.
    if not isinstance(named, str) or ":" in named:
        return
    try:
        data_type(named)
    except SynapseError as error:
        unknown, _, known = str(error).partition("\n  ")
        yield Problem(place, unknown if "did you mean" in unknown else f"{unknown}; {known}")


def _is_entrypoint(text: str) -> bool:
    module, _, attribute = normal_entrypoint(text).partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(module and attribute) and all(part.isidentifier() for part in parts)


def _bytes(memory: int | str | None) -> int | None:
    if memory is None or isinstance(memory, int):
        return memory
    from synapse_kernel.durations import size

    return size(memory)


def _env_text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
