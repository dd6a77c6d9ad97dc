"""Contributions: collected plugin by plugin, resolved on first use, one rule for conflicts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from synapse_kernel import (
    ConflictError,
    ExecutorSpec,
    Kernel,
    MissingPackageError,
    PluginError,
    SinkSpec,
    StorageSpec,
    StoreSpec,
    UnknownNameError,
    hookimpl,
)
from synapse_kernel.plugins import PluginWarning, installed_entry_points

Distribution = Callable[..., Path]


class Executors:
    """A plugin with the executors it is given."""

    def __init__(self, *specs: object) -> None:
        self.specs = specs
        self.calls = 0

    @hookimpl
    def synapse_register_executors(self) -> list[object]:
        self.calls += 1
        return list(self.specs)


def executor(name: str, target: str = "os:getcwd", **more: object) -> ExecutorSpec:
    return ExecutorSpec(name=name, target=target, **more)  # type: ignore[arg-type]


@pytest.fixture
def two() -> Iterator[Callable[..., Kernel]]:
    """Return a function that makes a kernel whose plugins `left` and `right` both have an executor `x`."""

    def make(prefer: str | None = None) -> Kernel:
        kernel = Kernel(
            {"plugins": {"prefer": {"executors": {"x": prefer}}}} if prefer else None, entry_points=[]
        )
        kernel.register(Executors(executor("x", "os:getcwd")), name="left")
        kernel.register(Executors(executor("x", "os:getpid")), name="right")
        return kernel

    return make


def test_contributions_come_in_the_order_of_the_plugins():
    kernel = Kernel(entry_points=[])
    kernel.register(Executors(executor("b"), executor("a")), name="first")
    kernel.register(Executors(executor("c")), name="second")

    found = [(c.plugin.display, c.spec.name) for c in kernel.contributions("executors")]

    assert [("first", "b"), ("first", "a"), ("second", "c")] == found


def test_plugins_are_asked_once_for_a_kind():
    plugin = Executors(executor("a"))
    kernel = Kernel(entry_points=[], plugins=[plugin])

    for _ in range(3):
        kernel.registry.get("executors", "a")
        kernel.contributions("executors")

    assert 1 == plugin.calls


def test_a_late_plugin_is_asked_although_others_were_already():
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("a"))])
    assert ["a"] == kernel.registry.names("executors")

    kernel.register(Executors(executor("b")), name="late")

    assert ["a", "b"] == kernel.registry.names("executors")


def test_a_plugin_with_two_implementations_of_a_hook_contributes_with_both():
    class Two:
        @hookimpl
        def synapse_register_executors(self) -> list[ExecutorSpec]:
            return [executor("a")]

        @hookimpl(specname="synapse_register_executors")
        def more_executors(self) -> list[ExecutorSpec]:
            return [executor("b")]

    kernel = Kernel(entry_points=[], plugins=[Two()])

    assert ["a", "b"] == sorted(kernel.registry.names("executors"))


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("no network"), "RuntimeError: no network"), (SystemExit(4), "SystemExit: 4")],
)
def test_a_plugin_that_raises_loses_its_contributions_of_that_kind_alone(error: BaseException, told: str):
    class Raising:
        @hookimpl
        def synapse_register_executors(self) -> None:
            raise error

        @hookimpl
        def synapse_register_sinks(self) -> list[SinkSpec]:
            return [SinkSpec(name="s", target="os:getcwd")]

    kernel = Kernel(entry_points=[], plugins=[Raising(), Executors(executor("a"))])

    with pytest.warns(PluginWarning) as warned:
        names = kernel.registry.names("executors")

    assert ["a"] == names
    assert [f"Plugin Raising failed in synapse_register_executors, its executors are left out: {told}"] == [
        str(w.message) for w in warned
    ]
    assert ["s"] == kernel.registry.names("sinks")


def test_a_plugin_that_returns_something_else_than_descriptors_is_left_out_whole():
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("a"), "b")])

    with pytest.warns(PluginWarning) as warned:
        names = kernel.registry.names("executors")

    assert [] == names
    assert (
        "Plugin Executors failed in synapse_register_executors, its executors are left out: "
        "TypeError: 'b' is no descriptor"
    ) == str(warned[0].message)


def test_an_unknown_name_suggests_the_nearest_and_lists_what_exists():
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("ray-task"), executor("ray-job"))])

    with pytest.raises(UnknownNameError) as caught:
        kernel.resolve("executors", "raytask")

    assert (
        "Executor 'raytask' is not registered; did you mean 'ray-task'?\n  registered: ray-job, ray-task"
    ) == str(caught.value)
    assert ("executors", "raytask") == (caught.value.kind, caught.value.name)


def test_an_unknown_name_where_nothing_is_registered_says_none():
    with pytest.raises(UnknownNameError) as caught:
        Kernel(entry_points=[]).resolve("sinks", "console")

    assert "Sink 'console' is not registered\n  registered: none" == str(caught.value)


def test_the_same_name_from_two_plugins_is_an_error_when_it_is_used(two: Callable[..., Kernel]):
    kernel = two()
    assert ["x", "x"] == kernel.registry.names("executors")

    with pytest.raises(ConflictError) as caught:
        kernel.resolve("executors", "x")

    assert (
        "executors 'x' is registered by left and right\n"
        "  decide with the setting  plugins: {prefer: {executors: {x: 'left'}}}\n"
        "  or block one with  --without 'right'"
    ) == str(caught.value)
    assert ["left", "right"] == caught.value.plugins


def test_the_setting_that_a_conflict_proposes_is_yaml_that_decides(make_distribution: Distribution):
    source = """
        from synapse_kernel import ExecutorSpec, hookimpl
        @hookimpl
        def synapse_register_executors():
            return [ExecutorSpec(name="x", target="os:getcwd")]
    """
    make_distribution("acme", {"acme_x.py": source}, {"mine": "acme_x"})
    make_distribution("zeta", {"zeta_x.py": source.replace("getcwd", "getpid")}, {"mine": "zeta_x"})
    entries = [e for e in installed_entry_points() if e.dist is not None and e.dist.name in {"acme", "zeta"}]
    with pytest.raises(ConflictError) as caught:
        Kernel(entry_points=entries, strict=True).resolve("executors", "x")

    proposal = yaml.safe_load(str(caught.value).splitlines()[1].partition("setting  ")[2])

    assert {"plugins": {"prefer": {"executors": {"x": "acme[mine]"}}}} == proposal
    import os

    assert os.getcwd is Kernel(proposal, entry_points=entries, strict=True).resolve("executors", "x")
    by_distribution = {"plugins": {"prefer": {"executors": {"x": "zeta"}}}}
    assert os.getpid is Kernel(by_distribution, entry_points=entries).resolve("executors", "x")


def test_prefer_decides_by_the_name_of_the_plugin(two: Callable[..., Kernel]):
    import os

    assert os.getcwd is two(prefer="left").resolve("executors", "x")
    assert os.getpid is two(prefer="right").resolve("executors", "x")


def test_prefer_for_a_plugin_that_is_not_there_decides_nothing(two: Callable[..., Kernel]):
    with pytest.raises(ConflictError):
        two(prefer="nobody").resolve("executors", "x")


def test_a_missing_package_is_told_with_the_extra_that_brings_it(make_distribution: Distribution):
    source = """
        from synapse_kernel import ExecutorSpec, hookimpl
        @hookimpl
        def synapse_register_executors():
            return [
                ExecutorSpec(
                    name="space",
                    target="acme_fat:Executor",
                    requires=("os", "acme_spacecraft"),
                    extra="space",
                )
            ]
    """
    make_distribution("acme-plugins", {"acme_thin.py": source}, {"space": "acme_thin"})
    entries = [e for e in installed_entry_points() if e.dist is not None and e.dist.name == "acme-plugins"]
    kernel = Kernel(entry_points=entries, strict=True)

    with pytest.raises(MissingPackageError) as caught:
        kernel.resolve("executors", "space")

    assert (
        "Executor 'space' needs the package 'acme_spacecraft', which is not installed. "
        "Install it with: pip install 'acme-plugins[space]'"
    ) == str(caught.value)
    assert "acme_spacecraft" == caught.value.package
    assert "missing acme_spacecraft" == kernel.contributions("executors")[0].state


def test_a_missing_package_without_an_extra_is_told_by_its_own_name():
    spec = executor("space", requires=("acme_spacecraft", "acme_suit"))
    kernel = Kernel(entry_points=[], plugins=[Executors(spec)])

    with pytest.raises(MissingPackageError) as caught:
        kernel.resolve("executors", "space")

    assert "pip install acme_spacecraft acme_suit" == caught.value.install


def test_whether_a_package_is_there_is_told_without_importing_it(make_distribution: Distribution):
    make_distribution("heavy", {"heavy_package.py": "raise AssertionError('imported')"}, {})
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("a", requires=("heavy_package",)))])

    assert "available" == kernel.contributions("executors")[0].state
    assert "heavy_package" not in sys.modules


def test_a_target_is_imported_on_first_use_and_kept(make_distribution: Distribution):
    make_distribution("acme", {"acme_target.py": "class Executor: pass"}, {})
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("a", "acme_target:Executor"))])
    kernel.contributions("executors")
    assert "acme_target" not in sys.modules

    found = kernel.resolve("executors", "a")

    assert sys.modules["acme_target"].Executor is found
    assert kernel.resolve("executors", "a") is found


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("acme_gone:Executor", "ModuleNotFoundError: No module named 'acme_gone'"),
        ("os:no_such_name", "AttributeError: module 'os' has no attribute 'no_such_name'"),
        ("acme_exit:Executor", "SystemExit: 5"),
    ],
)
def test_a_target_that_does_not_load_names_plugin_and_target(
    make_distribution: Distribution, target: str, why: str
):
    make_distribution("acme", {"acme_exit.py": "raise SystemExit(5)"}, {})
    kernel = Kernel(entry_points=[], plugins=[Executors(executor("a", target))])

    with pytest.raises(PluginError) as caught:
        kernel.resolve("executors", "a")

    assert (f"Executor 'a' of plugin Executors does not load: its target {target!r} raised {why}") == str(
        caught.value
    )


def test_storage_is_found_by_name_alias_and_scheme():
    class Storages:
        @hookimpl
        def synapse_register_storage(self) -> list[StorageSpec]:
            return [StorageSpec(name="blob", target="os:getcwd", schemes=("az", "abfs"), aliases=("azure",))]

    kernel = Kernel(entry_points=[], plugins=[Storages()])

    found = [kernel.registry.get("storage", name).spec.name for name in ("blob", "azure", "az", "abfs")]

    assert ["blob"] * 4 == found
    assert ["blob"] == kernel.registry.names("storage")


def test_two_stores_with_one_scheme_conflict_by_that_scheme_only():
    def store(name: str) -> object:
        class Stores:
            @hookimpl
            def synapse_register_stores(self) -> list[StoreSpec]:
                return [StoreSpec(name=name, target="os:getcwd", schemes=("sql",))]

        return Stores()

    kernel = Kernel(entry_points=[])
    kernel.register(store("one"), name="p")
    kernel.register(store("two"), name="q")

    assert "one" == kernel.registry.get("stores", "one").spec.name
    with pytest.raises(ConflictError) as caught:
        kernel.registry.get("stores", "sql")
    assert "stores 'sql' is registered by p and q" == str(caught.value).splitlines()[0]
