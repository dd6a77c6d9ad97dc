"""The models of `config.yaml`: what may stand there, and every mistake told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from synapse_kernel import ActionConfig, ConfigError, PluginConfig
from synapse_kernel.config import Category, DataKind, config_file, load_config

Refusal = Callable[[str], str]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], PluginConfig]:
    """Return a function that reads a config from its text."""

    def read(text: str) -> PluginConfig:
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path)

    return read


@pytest.fixture
def refusal(load: Callable[[str], PluginConfig], tmp_path: Path) -> Refusal:
    """Return a function that gives the whole message with which a config is refused, its path as FILE."""

    def read(text: str) -> str:
        with pytest.raises(ConfigError) as raised:
            load(text)
        return str(raised.value).replace(str(tmp_path / "config.yaml"), "FILE")

    return read


def test_a_full_config_is_read(load: Callable[[str], PluginConfig]) -> None:
    config = load(
        """
name: Box counter
code: box_counter
version: 1.2.3
category: neural_net
description: Counts boxes.
readme: README.md
package_manager: uv
package_manager_options: [--no-cache]
wheels_dir: dist
env: {LEVEL: 3, DEBUG: true, NAME: x}
runtime_env: {pip: [numpy]}
data_type: image
tasks: [image.object_detection]
supported_data_type: [image, video]
annotation_category: object_detection
annotation_type: bbox
smart_tool: interactive
actions:
  train:
    name: fit
    description: Train it.
    entrypoint: plugin.train:TrainAction
    method: job
    category: export
    input_type: yolo_dataset
    output_type: ModelWeights
    params: {epochs: 3}
    resources: {cpus: 2, gpus: 0.5, memory: 8GiB, custom: {tpu: 1}}
  count: plugin.count.CountAction
  found: {entrypoint: null}
"""
    )

    assert ("Box counter", "box_counter", "1.2.3") == (config.name, config.code, config.version)
    assert ("uv", ["--no-cache"], "dist") == (
        config.package_manager,
        config.package_manager_options,
        config.wheels_dir,
    )
    actions = config.action_configs()
    assert ["fit", "count", "found"] == list(actions)
    assert ({"epochs": 3}, "job", 0.5) == (
        actions["fit"].params,
        actions["fit"].method,
        actions["fit"].resources.gpus,
    )
    assert ActionConfig(entrypoint="plugin.count.CountAction") == actions["count"]
    assert actions["found"].entrypoint is None


def test_a_name_is_enough(load: Callable[[str], PluginConfig]) -> None:
    assert PluginConfig(name="x") == load("name: x\n")


@pytest.mark.parametrize("category", get_args(Category))
def test_every_category_may_be_named(load: Callable[[str], PluginConfig], category: str) -> None:
    assert category == load(f"name: x\ncategory: {category}\n").category


@pytest.mark.parametrize("kind", get_args(DataKind))
def test_every_data_type_may_be_named(load: Callable[[str], PluginConfig], kind: str) -> None:
    assert kind == load(f"name: x\ndata_type: {kind}\n").data_type


@pytest.mark.parametrize("method", ["task", "job", "serve", "local"])
def test_every_method_may_be_named(load: Callable[[str], PluginConfig], method: str) -> None:
    config = load(f"name: x\nactions: {{a: {{method: {method}}}}}\n")

    assert method == config.action_configs()["a"].method


def test_a_version_may_look_like_a_number(load: Callable[[str], PluginConfig]) -> None:
    assert 2.5 == load("name: x\nversion: 2.5\n").version


def test_env_may_be_names_to_take_from_the_caller(load: Callable[[str], PluginConfig]) -> None:
    assert ["TOKEN", "HOME"] == load("name: x\nenv: [TOKEN, HOME]\n").env


def test_the_config_of_a_folder_and_the_file_itself_are_the_same(tmp_path: Path) -> None:
    assert [tmp_path / "config.yaml"] * 2 == [config_file(tmp_path), config_file(tmp_path / "config.yaml")]


def test_every_mistake_is_told_in_one_error(refusal: Refusal) -> None:
    told = refusal(
        """
version: [1]
categry: custom
data_type: picture
tasks: detection
supported_data_type: [image, smell, 3]
env: {GOOD: 1, BAD: [1]}
actions:
  train:
    entrypoin: a:b
    method: jobb
    params: [1]
    resources: {cpu: 1, gpus: two, memory: lots}
    input_type: yolo_datset
  twice: {name: train}
  bare: just_a_word
  number: {entrypoint: 3}
  nothing: [x]
"""
    )
    assert (
        told
        == """\
FILE cannot be used:
  version: expected a whole number or a number or text or null, got a list: [1]
  categry: unknown key; did you mean 'category'?
  data_type: expected one of image, text, video, pcd, audio, got 'picture'
  tasks: expected a list, got text: 'detection'
  supported_data_type[1]: expected one of image, text, video, pcd, audio, got 'smell'
  supported_data_type[2]: expected text, got a whole number: 3
  env.BAD: expected true or false or a whole number or a number or text, got a list: [1]
  actions.train.entrypoin: unknown key; did you mean 'entrypoint'?
  actions.train.method: expected one of local, task, job, serve, got 'jobb'; did you mean 'job'?
  actions.train.params: expected a mapping, got a list: [1]
  actions.train.resources.cpu: unknown key; did you mean 'cpus'?
  actions.train.resources.gpus: expected a number or null, got text: 'two'
  actions.number.entrypoint: expected text or null, got a whole number: 3
  actions.nothing: expected text or a mapping or null, got a list: ['x']
  name: missing
  actions.train.input_type: No data type is named 'yolo_datset'; did you mean 'yolo_dataset'?
  actions.train.resources.memory: 'lots' is not a size; write it like 512MB or 8GiB
  actions.twice: the name 'train' is that of actions.train too
  actions.bare.entrypoint: expected 'module:Attribute', got 'just_a_word'"""
    )


def test_the_mistakes_are_data_too(load: Callable[[str], PluginConfig]) -> None:
    with pytest.raises(ConfigError) as raised:
        load("nam: x\nactions: {train: {metod: job}}\n")

    assert ["nam", "actions.train.metod", "name"] == [problem.where for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("entrypoint", "accepted"),
    [
        ("module:Attr", True),
        ("package.module:Attr", True),
        ("package.module.Attr", True),
        ("module:Outer.Inner", True),
        ("module", False),
        ("module:", False),
        (":Attr", False),
        ("module.", False),
        ("module:Attr()", False),
        ("module: Attr", False),
        ("my-module:Attr", False),
        ("folder/module.py:Attr", False),
        ("a:b:c", False),
        ("..module:Attr", False),
    ],
)
def test_an_entrypoint_names_a_module_and_an_attribute(
    load: Callable[[str], PluginConfig], refusal: Refusal, entrypoint: str, accepted: bool
) -> None:
    text = f"name: x\nactions:\n  a: '{entrypoint}'\n"

    if accepted:
        assert entrypoint == load(text).action_configs()["a"].entrypoint
    else:
        assert (
            f"FILE cannot be used:\n  actions.a.entrypoint: expected 'module:Attribute', got {entrypoint!r}"
            == refusal(text)
        )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: 3", "name: expected text, got a whole number: 3"),
        ("name: 2024-01-01", "name: expected text, got a date: datetime.date(2024, 1, 1)"),
        ("{}", "name: missing"),
        ("name: x\nactions:", "actions: expected a mapping, got null"),
        ("name: x\nactions: [a]", "actions: expected a mapping, got a list: ['a']"),
        ("name: x\nactions: {3: 'a:b'}", "actions.3: the key is not text; put it in quotes"),
        ("name: x\nactions: {yes: 'a:b'}", "actions.True: the key is not text; put it in quotes"),
        (
            "name: x\npackage_manager: conda",
            "package_manager: expected one of pip, uv, got 'conda'",
        ),
        ("name: x\nruntime_env: 3", "runtime_env: expected a mapping, got a whole number: 3"),
        (
            "name: x\nactions: {a: {resources: {cpus: -1}}}",
            "actions.a.resources.cpus: expected a number >= 0.0: -1",
        ),
        (
            "name: x\nactions: {a: {whatever: 1}}",
            "actions.a.whatever: unknown key; known: category, description, entrypoint, input_type, method, "
            "name, output_type, params, resources",
        ),
        (
            "name: x\nzzz: 1",
            "zzz: unknown key; known: actions, annotation_category, annotation_type, category, code, "
            "data_type, description, env, name, package_manager, package_manager_options, readme, "
            "runtime_env, smart_tool, supported_data_type, tasks, version, wheels_dir",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(refusal: Refusal, text: str, problem: str) -> None:
    assert f"FILE cannot be used:\n  {problem}" == refusal(text)


def test_an_unknown_data_type_without_a_near_one_lists_the_known(refusal: Refusal) -> None:
    message = refusal("name: x\nactions: {a: {output_type: quux}}\n")

    assert message.startswith(
        "FILE cannot be used:\n  actions.a.output_type: No data type is named 'quux'; known: coco_dataset, "
    )


def test_a_data_type_of_the_plugins_own_is_known_only_with_its_code(
    load: Callable[[str], PluginConfig],
) -> None:
    config = load("name: x\nactions: {a: {input_type: 'plugin.types:Tiles'}}\n")

    assert "plugin.types:Tiles" == config.action_configs()["a"].input_type


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "name: 'x\n",
            "line 2, column 1: while scanning a quoted scalar from line 1, column 7: "
            "found unexpected end of stream",
        ),
        (
            "name: x\nactions:\n  a: b: c\n",
            "line 3, column 7: mapping values are not allowed in this context",
        ),
        ("name: x\nname: y\n", "line 2, column 1: the key 'name' is there twice"),
        (
            "name: x\nactions:\n  train: a:b\n  export: c:d\n  train: e:f\n",
            "line 5, column 3: the key 'train' is there twice",
        ),
        ("- name: x\n", "line 1, column 1: expected a mapping (key: value), got a list"),
    ],
)
def test_broken_yaml_is_told_with_line_and_column(refusal: Refusal, text: str, problem: str) -> None:
    assert f"The config cannot be read:\n  FILE {problem}" == refusal(text)


def test_a_config_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path)

    file = tmp_path / "config.yaml"
    assert f"The config cannot be read:\n  {file}: No such file or directory" == str(raised.value)
