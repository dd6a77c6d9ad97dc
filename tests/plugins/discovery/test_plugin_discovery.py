"""`PluginDiscovery`: the actions of a folder, a file, a module or an installed package, and their code."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import (
    ActionConfig,
    ActionNotFoundError,
    ConfigError,
    EntrypointError,
    Kernel,
    TargetNotFoundError,
)
from synapse_plugins.discovery import PluginDiscovery

MakeFolder = Callable[..., Path]

COUNTER = {
    "config.yaml": """
        name: Counter
        code: counter
        version: 1.0.0
        category: neural_net
        description: Counts.
        env: {LEVEL: 3, LOUD: true}
        actions:
          train:
            entrypoint: plugin.train.TrainAction
            description: Train it.
            method: job
            input_type: yolo_dataset
            params: {epochs: 3}
            resources: {memory: 1KiB, gpus: 1}
          count: plugin.count:count
          found: {entrypoint: null, description: By its name.}
    """,
    "plugin/__init__.py": "",
    "plugin/train.py": """
        from pydantic import BaseModel
        from synapse_kernel import BaseAction, COCODataset, ModelWeights

        class Params(BaseModel):
            epochs: int = 1

        class Weights(BaseModel):
            path: str

        class TrainAction(BaseAction[Params, Weights]):
            input_type = COCODataset
            output_type = ModelWeights

            def execute(self):
                return {"path": "w"}
    """,
    "plugin/count.py": """
        from synapse_kernel import action

        @action(output_type="test_results")
        def count(params, ctx):
            return 1

        @action
        def found(params, ctx):
            return "found"
    """,
}


@pytest.fixture
def counter(make_folder: MakeFolder) -> Path:
    """Return a plugin folder with a class, a function and an action found by its name."""
    return make_folder(COUNTER, name="counter_folder")


def test_the_actions_of_a_folder_are_listed_in_the_order_of_the_config(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    assert ["train", "count", "found"] == discovery.list_actions()
    assert [True, False] == [discovery.has_action("count"), discovery.has_action("cuont")]


def test_the_config_file_stands_for_its_folder(counter: Path) -> None:
    by_file, by_folder = (
        PluginDiscovery.from_path(path) for path in (str(counter / "config.yaml"), f"{counter}/")
    )

    assert by_file.plugin.actions == by_folder.plugin.actions


def test_what_the_config_says_of_the_plugin_is_kept(counter: Path) -> None:
    plugin = PluginDiscovery.from_path(counter).plugin

    assert ("counter", "1.0.0", "Counts.", str(counter), []) == (
        plugin.name,
        plugin.version,
        plugin.description,
        plugin.folder,
        plugin.problems,
    )


def test_what_the_config_says_of_an_action_reaches_the_kernel(counter: Path) -> None:
    spec = PluginDiscovery.from_path(counter).get_action_spec("train")

    assert ("neural_net", {"epochs": 3}, {"LEVEL": "3", "LOUD": "true"}, "config.yaml") == (
        spec.category,
        spec.params,
        spec.env,
        spec.origin,
    )
    assert (1024, 1.0, None) == (spec.resources.memory, spec.resources.gpus, spec.resources.cpus)


def test_an_actions_config_is_given_in_full_and_empty_for_a_bare_entrypoint(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    assert "Train it." == discovery.get_action_config("train").description
    assert ActionConfig(entrypoint="plugin.count:count") == discovery.get_action_config("count")


def test_an_entrypoint_is_given_with_a_colon_however_it_was_written(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    assert ["plugin.train:TrainAction", "plugin.count:count", "plugin.count:found"] == [
        discovery.get_action_entrypoint(name) for name in discovery.list_actions()
    ]


def test_a_method_is_local_where_the_config_names_none(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    assert ["job", "local"] == [discovery.get_action_method(name) for name in ("train", "count")]


def test_the_class_the_function_and_their_models_are_imported_when_they_are_asked_for(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    train = discovery.get_action_class("train")
    assert ("TrainAction", "Params", "Weights") == (
        getattr(train, "__name__", None),
        getattr(discovery.get_action_params_model("train"), "__name__", None),
        getattr(discovery.get_action_result_model("train"), "__name__", None),
    )
    count = discovery.get_action_class("count")
    assert ("count", None, None) == (
        getattr(count, "__name__", None),
        discovery.get_action_params_model("count"),
        discovery.get_action_result_model("count"),
    )


def test_the_types_come_from_the_config_and_else_from_the_code(counter: Path) -> None:
    discovery = PluginDiscovery.from_path(counter)

    assert ("yolo_dataset", "model_weights") == (
        discovery.get_action_input_type("train"),
        discovery.get_action_output_type("train"),
    )
    assert (None, "test_results") == (
        discovery.get_action_input_type("count"),
        discovery.get_action_output_type("count"),
    )


@pytest.mark.parametrize(
    "ask",
    [
        "get_action_class",
        "get_action_config",
        "get_action_method",
        "get_action_entrypoint",
        "get_action_params_model",
        "get_action_result_model",
        "get_action_input_type",
        "get_action_output_type",
    ],
)
def test_an_action_that_is_not_there_is_told_with_the_nearest(counter: Path, ask: str) -> None:
    discovery = PluginDiscovery.from_path(counter)

    with pytest.raises(ActionNotFoundError) as raised:
        getattr(discovery, ask)("trian")

    assert (
        f"{counter} has no action 'trian'; did you mean 'train'?\n  actions there: count, found, train"
        == str(raised.value)
    )


def test_nothing_is_imported_to_list_and_describe(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {"config.yaml": "name: x\nactions: {a: 'plugin:A'}", "plugin.py": "raise RuntimeError('imported')"}
    )
    discovery = PluginDiscovery.from_path(folder)

    assert (["a"], "plugin:A", "local") == (
        discovery.list_actions(),
        discovery.get_action_entrypoint("a"),
        discovery.get_action_method("a"),
    )
    with pytest.raises(RuntimeError, match="imported"):
        discovery.get_action_class("a")


def test_two_folders_with_one_package_name_give_their_own_classes(make_folder: MakeFolder) -> None:
    first, second = (
        PluginDiscovery.from_path(make_folder(COUNTER, name=name)).get_action_class("train")
        for name in ("first", "second")
    )

    assert first is not second
    assert first.__module__ != second.__module__


def test_a_folder_without_a_config_counts_by_its_source(make_folder: MakeFolder) -> None:
    folder = make_folder({k: v for k, v in COUNTER.items() if k != "config.yaml"}, name="bare.plugin")
    discovery = PluginDiscovery.from_path(folder)

    assert ("bare.plugin", ["count", "found", "train"]) == (discovery.plugin.name, discovery.list_actions())
    assert "plugin.train:TrainAction" == discovery.get_action_entrypoint("train")
    assert "test_results" == discovery.get_action_output_type("count")
    assert ActionConfig() == discovery.get_action_config("count")


def test_a_file_of_a_package_counts_with_its_packages_imports(make_folder: MakeFolder) -> None:
    """Relative and absolute ones: the entrypoint is named from the folder above the package."""
    folder = make_folder(
        {
            "pack/__init__.py": "",
            "pack/inner/__init__.py": "",
            "pack/base.py": "from synapse_kernel import BaseAction\n\nclass Mid(BaseAction):\n    pass",
            "pack/inner/a.py": """
                from pack.base import Mid
                from ..base import Mid as Same

                class A(Mid):
                    def execute(self):
                        return Mid is Same
            """,
        }
    )
    discovery = PluginDiscovery.from_path(folder / "pack" / "inner" / "a.py")

    assert ("a", "pack.inner.a:A", str(folder)) == (
        discovery.plugin.name,
        discovery.get_action_entrypoint("a"),
        discovery.plugin.folder,
    )
    with Kernel() as kernel:
        assert kernel.run(str(folder / "pack" / "inner" / "a.py"), "a", {}).unwrap() is True


def test_a_folder_that_is_a_package_with_a_config_works_by_path_and_by_module(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(
        {
            "config.yaml": """
                name: x
                actions: {one: 'one:one', two: 'shipped_actions.one:one', root: '__init__:root'}
            """,
            "__init__.py": """
                from synapse_kernel import action

                @action
                def root(params):
                    return "root"
            """,
            "one.py": """
                from synapse_kernel import action

                @action
                def one(params): ...
            """,
        },
        name="shipped_actions",
    )
    by_path = PluginDiscovery.from_path(folder)
    assert 1 == len({by_path.get_action_class(name) for name in ("one", "two")})
    assert "root" == by_path.get_action_class("root")({})  # type: ignore[operator]

    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "shipped_actions", raising=False)
    by_module = PluginDiscovery.from_module("shipped_actions")
    assert ["shipped_actions.one:one", "shipped_actions.one:one", "shipped_actions:root"] == [
        by_module.get_action_entrypoint(name) for name in by_module.list_actions()
    ]
    assert "shipped_actions.one" == by_module.get_action_class("one").__module__


@pytest.fixture
def module(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an importable module with actions of its own and one from elsewhere."""
    folder = make_folder(
        {
            "some_actions.py": """
                '''Some actions.

                More of it.
                '''
                from other_actions import elsewhere
                from synapse_kernel import BaseAction, action

                class BaseThing(BaseAction):
                    def execute(self): ...

                class RealThing(BaseThing):
                    '''Do the thing.'''
                    category = "export"

                class NoExecute(BaseAction): ...

                @action(name="listed", description="List.")
                def function(params): ...

                def plain(params): ...

                @action
                def _hidden(params): ...
            """,
            "other_actions.py": """
                from synapse_kernel import action

                __all__ = ["elsewhere"]

                @action
                def elsewhere(params): ...

                @action
                def left_out(params): ...
            """,
        }
    )
    monkeypatch.syspath_prepend(str(folder))
    for name in ("some_actions", "other_actions"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "some_actions"


def test_a_module_gives_the_actions_it_defines(module: str) -> None:
    discovery = PluginDiscovery.from_module(module)

    assert ("some_actions", "Some actions.") == (discovery.plugin.name, discovery.plugin.description)
    assert ["real_thing", "listed"] == discovery.list_actions()
    assert ("some_actions:RealThing", "Do the thing.", "export") == (
        discovery.get_action_entrypoint("real_thing"),
        discovery.get_action_spec("real_thing").description,
        discovery.get_action_spec("real_thing").category,
    )


def test_a_module_object_gives_what_its_name_gives(module: str) -> None:
    by_name = PluginDiscovery.from_module(module)
    by_object = PluginDiscovery.from_module(importlib.import_module(module))

    assert by_name.plugin == by_object.plugin
    assert by_name.get_action_class("listed") is by_object.get_action_class("listed")


def test_a_module_that_lists_its_public_names_counts_by_them(module: str) -> None:
    assert ["elsewhere"] == PluginDiscovery.from_module("other_actions").list_actions()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("some_actons", "; did you mean 'some_actions'?"),
        ("synapse_kernel.action", "; did you mean 'synapse_kernel.actions'?"),
        ("synapse_kernel.qqqq", ""),
    ],
)
def test_a_module_that_is_not_there_is_told_with_the_nearest(module: str, name: str, near: str) -> None:
    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.from_module(name)

    assert f"There is no module {name!r}{near}" == str(raised.value)


def test_a_module_that_raises_raises_its_own_error(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(make_folder({"lacking_actions.py": "import a_package_nobody_has"})))

    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        PluginDiscovery.from_module("lacking_actions")


def test_a_path_that_is_not_there_is_told_with_the_nearest(counter: Path) -> None:
    path = counter.parent / "counter_foldr"

    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.from_path(path)

    assert f"There is no {path}; did you mean 'counter_folder'?" == str(raised.value)


def test_a_folder_with_neither_config_nor_action_says_what_an_action_is(make_folder: MakeFolder) -> None:
    folder = make_folder({"a.py": "def run(): ...", "b.py": "def ("})

    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.from_path(folder)

    assert (
        f"{folder} has no config.yaml and no action in its source\n"
        "  b.py line 1: invalid syntax\n"
        "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action"
    ) == str(raised.value)


def test_one_name_for_two_actions_of_a_folder_is_an_error_that_names_both(make_folder: MakeFolder) -> None:
    source = "from synapse_kernel import action\n\n@action\ndef train(params): ..."
    folder = make_folder({"a.py": source, "b.py": source})

    with pytest.raises(ConfigError) as raised:
        PluginDiscovery.from_path(folder)
    assert (
        f"{folder} cannot be used:\n"
        "  train: several actions have this name: a:train, b:train\n"
        "  give one another name, or say which is meant in a config.yaml"
    ) == str(raised.value)

    (folder / "config.yaml").write_text("name: x\nactions: {train: {entrypoint: null}}")
    with pytest.raises(ConfigError) as raised:
        PluginDiscovery.from_path(folder)
    assert (
        f"{folder / 'config.yaml'} cannot be used:\n"
        "  actions.train.entrypoint: null, and several actions have this name: a:train, b:train"
    ) == str(raised.value)


def test_null_entrypoints_that_the_code_does_not_fill_are_told_together(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "config.yaml": "name: x\nactions: {train: {}, trian: {entrypoint: null}, quux: {}}",
            "a.py": "from synapse_kernel import action\n\n@action\ndef train(params): ...",
        }
    )

    with pytest.raises(ConfigError) as raised:
        PluginDiscovery.from_path(folder)

    assert (
        f"{folder / 'config.yaml'} cannot be used:\n"
        "  actions.trian.entrypoint: null, and no action of this name is in the code; did you mean 'train'?\n"
        "  actions.quux.entrypoint: null, and no action of this name is in the code; "
        "actions in the code: train"
    ) == str(raised.value)


WRONG_ENTRYPOINTS = {
    "no_module": (
        "plugn.main:A",
        "The entrypoint 'plugn.main:A' names a module that is not there: 'plugn' in FOLDER; "
        "did you mean 'plugin'?",
    ),
    "no_submodule": (
        "plugin.mian:A",
        "The entrypoint 'plugin.mian:A' names a module that is not there: 'plugin.mian' in FOLDER; "
        "did you mean 'plugin.main'?",
    ),
    "no_attribute": (
        "plugin.main:TrainActoin",
        "The entrypoint 'plugin.main:TrainActoin' names an attribute that is not there: 'TrainActoin'; "
        "did you mean 'TrainAction'?\n"
        "  module 'plugin.main' in FOLDER has: BaseAction, NoExecute, NotOne, TrainAction, number, plain",
    ),
    "a_class": (
        "plugin.main:NotOne",
        "plugin.main:NotOne is a class that does not derive from BaseAction, not an action\n"
        "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action",
    ),
    "a_function": (
        "plugin.main:plain",
        "plugin.main:plain is a function without @action, not an action\n"
        "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action",
    ),
    "a_number": (
        "plugin.main.number",
        "plugin.main:number is a int, not an action\n"
        "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action",
    ),
    "no_execute": (
        "plugin.main:NoExecute",
        "plugin.main:NoExecute does not implement execute(), so it cannot run",
    ),
}


@pytest.mark.parametrize("case", WRONG_ENTRYPOINTS)
def test_a_wrong_entrypoint_is_told(make_folder: MakeFolder, case: str) -> None:
    entrypoint, message = WRONG_ENTRYPOINTS[case]
    folder = make_folder(
        {
            "config.yaml": f"name: x\nactions: {{a: '{entrypoint}'}}",
            "plugin/__init__.py": "",
            "plugin/main.py": """
                from synapse_kernel import BaseAction

                class TrainAction(BaseAction):
                    def execute(self): ...

                class NoExecute(BaseAction): ...

                class NotOne: ...

                def plain(params): ...

                number = 3
            """,
        }
    )

    with pytest.raises(EntrypointError) as raised:
        PluginDiscovery.from_path(folder).get_action_class("a")

    assert message == str(raised.value).replace(str(folder), "FOLDER")


def test_a_class_of_a_folder_crosses_to_a_worker_process(counter: Path) -> None:
    """The worker imports it from the folder: nothing but the class's name travels."""
    action = PluginDiscovery.from_path(counter).get_action_class("train")

    with Kernel() as kernel:
        outcome = kernel.run(action, None, {"epochs": 1}, executor="process")

    assert {"path": "w"} == outcome.to_dict()["result"]


def test_the_public_class_is_imported_only_when_it_is_asked_for() -> None:
    script = (
        "import sys, synapse_plugins.discovery as d\n"
        "print('synapse_plugins.discovery.plugin_discovery' in sys.modules)\n"
        "print(d.PluginDiscovery.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ,
    )

    assert "False\nPluginDiscovery\n" == done.stdout
