"""Plugins: found, sorted, blocked before import, checked, and recorded whatever becomes of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel, PluginError, hookimpl, load_settings
from synapse_kernel.plugins import EntryPointLike, PluginRecord, PluginWarning, installed_entry_points

Distribution = Callable[..., Path]

GOOD = """
    from synapse_kernel import ExecutorSpec, hookimpl

    @hookimpl
    def synapse_register_executors():
        return [ExecutorSpec(name="good", target="somewhere:Something")]
"""


def entries_of(*distributions: str) -> list[EntryPointLike]:
    """Return the installed entry points of these distributions alone."""
    return [e for e in installed_entry_points() if e.dist is not None and e.dist.name in distributions]


def load(*distributions: str, **options: object) -> tuple[Kernel, list[str]]:
    """Make a kernel of the plugins of these distributions; return it and the warnings it gave."""
    with pytest.warns(PluginWarning) as told:
        kernel = Kernel(entry_points=entries_of(*distributions), **options)  # type: ignore[arg-type]
    return kernel, [str(warning.message) for warning in told]


def record_of(kernel: Kernel, display: str) -> PluginRecord:
    return next(record for record in kernel.plugins if record.display == display)


def test_built_in_plugins_come_first_then_distribution_and_name(make_distribution: Distribution):
    make_distribution("zeta", {"zeta_b.py": "", "zeta_a.py": ""}, {"b": "zeta_b", "a": "zeta_a"})
    make_distribution("alpha", {"alpha_x.py": ""}, {"x": "alpha_x"})

    kernel = Kernel(strict=True)

    found = [record.display for record in kernel.plugins]
    own = [display for display in found if display.startswith("synapse-kernel[")]
    assert sorted(own) == own
    assert [*own, "alpha[x]", "zeta[a]", "zeta[b]"] == found
    assert "synapse-kernel[local_executors]" in own


def test_a_record_tells_distribution_version_hooks_and_import_time(make_distribution: Distribution):
    make_distribution("acme-plugins", {"acme_good.py": GOOD}, {"good": "acme_good"}, version="2.5")

    (record,) = Kernel(entry_points=entries_of("acme-plugins"), strict=True).plugins

    assert "active" == record.state
    assert "acme-plugins" == record.distribution
    assert "2.5" == record.version
    assert "acme_good" == record.value
    assert ["synapse_register_executors"] == record.hooks
    assert record.import_ms is not None
    assert record.import_ms > 0


def test_an_entry_point_without_a_distribution_is_loaded_as_unknown(make_distribution: Distribution):
    from importlib_metadata import EntryPoint

    make_distribution("acme", {"acme_bare.py": GOOD}, {})
    entry = EntryPoint("bare", "acme_bare", "synapse_kernel.plugins")

    (record,) = Kernel(entry_points=[entry], strict=True).plugins

    assert ("unknown[bare]", "active", None, None) == (
        record.display,
        record.state,
        record.distribution,
        record.version,
    )


BLOCKING = [
    pytest.param({"without": ["mine"]}, "blocked by --without", id="without-name"),
    pytest.param({"without": ["acme[mine]"]}, "blocked by --without", id="without-display"),
    pytest.param(
        {"settings": {"plugins": {"block": ["mine"]}}}, "blocked by the setting plugins.block", id="block"
    ),
    pytest.param({"settings": {"plugins": {"only": ["other"]}}}, "not among plugins.only", id="only-other"),
    pytest.param({"settings": {"plugins": {"only": []}}}, "not among plugins.only", id="only-none"),
]


@pytest.mark.parametrize(("options", "reason"), BLOCKING)
def test_a_blocked_plugin_is_not_imported(
    make_distribution: Distribution, options: dict[str, object], reason: str
):
    make_distribution("acme", {"acme_blocked.py": "raise RuntimeError('imported')"}, {"mine": "acme_blocked"})

    with warnings.catch_warnings():
        # That nothing is named "other" here is told, and beside the point.
        warnings.simplefilter("ignore", PluginWarning)
        (record,) = Kernel(entry_points=entries_of("acme"), strict=True, **options).plugins  # type: ignore[arg-type]

    assert ("blocked", reason, None) == (record.state, record.reason, record.import_ms)
    assert "acme_blocked" not in sys.modules


@pytest.mark.parametrize("name", ["mine", "acme[mine]"])
def test_only_lets_the_named_plugin_in(make_distribution: Distribution, name: str):
    make_distribution("acme", {"acme_a.py": GOOD, "acme_b.py": GOOD}, {"mine": "acme_a", "other": "acme_b"})

    kernel = Kernel({"plugins": {"only": [name]}}, entry_points=entries_of("acme"), strict=True)

    assert {"mine": "active", "other": "blocked"} == {r.name: r.state for r in kernel.plugins}


def test_synapse_plugins_names_the_only_plugins(tmp_path: Path):
    settings = load_settings(start=tmp_path, environ={"SYNAPSE_PLUGINS": "discovery, local_executors"})

    kernel = Kernel(settings, strict=True)

    active = {record.name for record in kernel.plugins if record.state == "active"}
    assert {"discovery", "local_executors"} == active


def test_empty_synapse_plugins_loads_none(tmp_path: Path):
    settings = load_settings(start=tmp_path, environ={"SYNAPSE_PLUGINS": ""})

    kernel = Kernel(settings, strict=True)

    assert {"blocked"} == {record.state for record in kernel.plugins}


def test_every_built_in_plugin_can_be_blocked():
    names = [entry.name for entry in entries_of("synapse-kernel")]

    kernel = Kernel(entry_points=entries_of("synapse-kernel"), without=names, strict=True)

    assert {"blocked"} == {record.state for record in kernel.plugins}
    assert [] == kernel.contributions("executors")


BROKEN = [
    pytest.param(
        "raise RuntimeError('no licence')",
        "raised RuntimeError: no licence when it was imported",
        id="exception",
    ),
    pytest.param("raise ValueError", "raised ValueError when it was imported", id="exception-without-text"),
    pytest.param("import sys; sys.exit(3)", "raised SystemExit(3) when it was imported", id="sys-exit"),
    pytest.param(
        "import acme_nowhere",
        "raised ModuleNotFoundError: No module named 'acme_nowhere' when it was imported",
        id="missing-module",
    ),
    pytest.param("SYNAPSE_API = '1'", "has SYNAPSE_API = '1', which is not a whole number", id="api-is-text"),
    pytest.param(
        "SYNAPSE_API = True", "has SYNAPSE_API = True, which is not a whole number", id="api-is-bool"
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_choose_executor(request, colour): ...
        """,
        "does not fit the hooks: Argument(s) {'colour'} are declared in the hookimpl but can not be found "
        "in the hookspec",
        id="wrong-signature",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_register_excutors(): ...
        """,
        "implements 'synapse_register_excutors', which is no hook; "
        "did you mean 'synapse_register_executors'?",
        id="unknown-hook-with-a-near-name",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl
        def brew_coffee(): ...
        """,
        "implements 'brew_coffee', which is no hook",
        id="unknown-hook",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl(wrapper=True)
        def synapse_register_sinks():
            return (yield)
        """,
        "wraps 'synapse_register_sinks', but only hooks with a single answer can be wrapped",
        id="wrapper-on-a-collecting-hook",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl(hookwrapper=True)
        def synapse_shutdown(kernel):
            yield
        """,
        "wraps 'synapse_shutdown', but only hooks with a single answer can be wrapped",
        id="old-style-wrapper-on-an-observer",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_configure(kernel, settings):
            raise OSError("no disk")
        """,
        "raised OSError: no disk when it was configured",
        id="configure-raises",
    ),
    pytest.param(
        """
        import sys
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_configure(kernel):
            sys.exit("bye")
        """,
        "raised SystemExit('bye') when it was configured",
        id="configure-exits",
    ),
    pytest.param(
        """
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_add_hookspecs(kernel):
            raise KeyError("gone")
        """,
        "raised KeyError: 'gone' when it was configured",
        id="add-hookspecs-raises",
    ),
    pytest.param(
        """
        class Plugin:
            def __init__(self):
                raise TypeError("needs a table")
        """,
        "raised TypeError: needs a table when it was imported",
        id="class-that-cannot-be-made",
    ),
]


@pytest.mark.parametrize(("source", "reason"), BROKEN)
def test_a_broken_plugin_is_left_out_with_one_warning_and_the_others_go_on(
    make_distribution: Distribution, source: str, reason: str
):
    entry = "acme_broken:Plugin" if "class Plugin" in source else "acme_broken"
    make_distribution("acme", {"acme_broken.py": source}, {"broken": entry})
    make_distribution("zeta", {"zeta_good.py": GOOD}, {"good": "zeta_good"})

    kernel, told = load("acme", "zeta")

    assert [f"Plugin acme[broken] {reason}. It is left out; see: synapse-kernel plugins show broken"] == told
    assert ("failed", reason) == (kernel.plugins[0].state, kernel.plugins[0].reason)
    assert "active" == record_of(kernel, "zeta[good]").state
    assert ["good"] == kernel.registry.names("executors")


@pytest.mark.parametrize(("source", "reason"), BROKEN)
def test_strict_raises_plugin_error_for_a_broken_plugin(
    make_distribution: Distribution, source: str, reason: str
):
    entry = "acme_strict:Plugin" if "class Plugin" in source else "acme_strict"
    make_distribution("acme", {"acme_strict.py": source}, {"broken": entry})

    with pytest.raises(PluginError) as caught:
        Kernel(entry_points=entries_of("acme"), strict=True)

    assert f"Plugin acme[broken] {reason}" == str(caught.value)
    assert "acme[broken]" == caught.value.plugin


def test_a_plugin_that_needs_a_newer_hook_interface_is_incompatible(make_distribution: Distribution):
    make_distribution("acme", {"acme_new.py": "SYNAPSE_API = 2"}, {"new": "acme_new"})

    kernel, told = load("acme")

    assert [
        "Plugin acme[new] needs hook interface 2, this kernel has 1: "
        "upgrade it with pip install -U synapse-kernel. It is left out; see: synapse-kernel plugins show new"
    ] == told
    assert "incompatible" == kernel.plugins[0].state


def test_an_entry_point_whose_attribute_is_not_there_is_left_out(make_distribution: Distribution):
    make_distribution("acme", {"acme_empty.py": ""}, {"gone": "acme_empty:Plugin"})

    _, told = load("acme")

    assert [
        "Plugin acme[gone] raised AttributeError: module 'acme_empty' has no attribute 'Plugin' when it was "
        "imported. It is left out; see: synapse-kernel plugins show gone"
    ] == told


def test_ctrl_c_while_a_plugin_is_imported_is_not_swallowed(make_distribution: Distribution):
    make_distribution("acme", {"acme_slow.py": "raise KeyboardInterrupt"}, {"slow": "acme_slow"})

    with pytest.raises(KeyboardInterrupt):
        Kernel(entry_points=entries_of("acme"))


def test_the_record_of_a_failed_plugin_keeps_the_traceback(make_distribution: Distribution):
    make_distribution("acme", {"acme_deep.py": "def f():\n    1 / 0\nf()\n"}, {"deep": "acme_deep"})

    kernel, _ = load("acme")

    trace = record_of(kernel, "acme[deep]").traceback
    assert "acme_deep.py" in trace
    assert "in f" in trace
    assert trace.endswith("ZeroDivisionError: division by zero\n")


def test_a_plugin_whose_configure_raises_is_not_half_registered(make_distribution: Distribution):
    source = (
        GOOD
        + """
    @hookimpl
    def synapse_choose_executor(request):
        raise AssertionError("asked although it was never set up")

    @hookimpl
    def synapse_configure(kernel):
        raise OSError("no disk")

    @hookimpl
    def synapse_shutdown(kernel):
        raise AssertionError("called although it was never set up")
    """
    )
    make_distribution("acme", {"acme_half.py": source}, {"half": "acme_half"})

    kernel, _ = load("acme")

    assert [] == kernel.contributions("executors")
    assert {} == {hook: names for hook, names in kernel.hook_names().items() if names}
    assert [] == record_of(kernel, "acme[half]").hooks
    kernel.shutdown()


def test_an_unknown_hook_marked_optional_is_fine(make_distribution: Distribution):
    source = """
        from synapse_kernel import hookimpl
        @hookimpl(optionalhook=True)
        def other_plugin_hook(): ...
    """
    make_distribution("acme", {"acme_optional.py": source}, {"optional": "acme_optional"})

    (record,) = Kernel(entry_points=entries_of("acme"), strict=True).plugins

    assert "active" == record.state


def test_two_entries_with_one_module_are_told_apart_by_the_warning(make_distribution: Distribution):
    make_distribution("acme", {"acme_twice.py": GOOD}, {"a": "acme_twice", "b": "acme_twice"})

    kernel, told = load("acme")

    assert [
        "Plugin acme[b] is the same object as the plugin acme[a]. It is left out; see: "
        "synapse-kernel plugins show b"
    ] == told
    assert ["active", "failed"] == [record.state for record in kernel.plugins]


def test_the_same_entry_name_in_two_distributions_is_no_conflict(make_distribution: Distribution):
    make_distribution("acme", {"acme_same.py": ""}, {"same": "acme_same"})
    make_distribution("zeta", {"zeta_same.py": ""}, {"same": "zeta_same"})

    kernel = Kernel(entry_points=entries_of("acme", "zeta"), strict=True)

    assert ["acme[same]", "zeta[same]"] == [r.display for r in kernel.plugins if r.state == "active"]


def test_a_second_plugin_under_a_taken_name_is_refused():
    class Mine:
        pass

    kernel = Kernel(entry_points=[], plugins=[Mine()])

    with pytest.raises(PluginError) as caught:
        kernel.register(Mine())

    assert "Plugin Mine is registered twice under this name" == str(caught.value)
    assert ["Mine"] == [record.display for record in kernel.plugins]


def test_an_object_that_cannot_be_registered_raises_and_leaves_no_record():
    class Mine:
        @hookimpl
        def synapse_discovr(self, target: str) -> None: ...

    kernel = Kernel(entry_points=[])

    with pytest.raises(PluginError) as caught:
        kernel.register(Mine(), name="mine")

    assert (
        "Plugin mine implements 'synapse_discovr', which is no hook; did you mean 'synapse_discover'?"
        == str(caught.value)
    )
    assert [] == kernel.plugins
    assert "synapse_discovr" not in kernel.hook_names()


def test_a_class_as_plugin_is_instantiated_for_each_kernel(make_distribution: Distribution):
    source = """
        from synapse_kernel import hookimpl

        class Plugin:
            @hookimpl
            def synapse_configure(self, kernel):
                self.kernel = kernel
    """
    make_distribution("acme", {"acme_class.py": source}, {"made": "acme_class:Plugin"})
    first = Kernel(entry_points=entries_of("acme"), strict=True)
    second = Kernel(entry_points=entries_of("acme"), strict=True)

    objects = [kernel.plugins[0].plugin for kernel in (first, second)]

    assert objects[0] is not objects[1]
    assert [first, second] == [made.kernel for made in objects]  # type: ignore[attr-defined]


def test_a_class_given_in_code_is_instantiated_too():
    class Mine:
        @hookimpl
        def synapse_configure(self, kernel: Kernel) -> None:
            self.kernel = kernel

    kernel = Kernel(entry_points=[], plugins=[Mine])

    assert kernel is kernel.plugins[0].plugin.kernel  # type: ignore[attr-defined]
    assert "Mine" == kernel.plugins[0].name


def test_a_plugin_may_implement_a_hook_that_a_later_one_specifies(make_distribution: Distribution):
    """`alpha` is loaded first and implements what `omega` specifies: order must not matter."""
    implementing = """
        from synapse_kernel import hookimpl
        @hookimpl
        def synapse_brew(kind):
            return f"a cup of {kind}"
    """
    specifying = """
        from synapse_kernel import hookimpl, hookspec

        class Specs:
            @hookspec(firstresult=True)
            def synapse_brew(self, kind): ...

        @hookimpl
        def synapse_add_hookspecs(kernel):
            kernel.add_hookspecs(Specs)
    """
    make_distribution("alpha", {"alpha_impl.py": implementing}, {"impl": "alpha_impl"})
    make_distribution("omega", {"omega_spec.py": specifying}, {"spec": "omega_spec"})

    kernel = Kernel(entry_points=entries_of("alpha", "omega"), strict=True)

    assert "a cup of tea" == kernel.hook.synapse_brew(kind="tea")
    assert ["alpha[impl]"] == kernel.hook_names()["synapse_brew"]


def test_a_plugin_registered_late_is_still_configured_after_its_hookspecs():
    calls: list[tuple[str, object]] = []

    class Late:
        @hookimpl
        def synapse_configure(self, kernel: Kernel, settings: object) -> None:
            calls.append(("configure", settings))

        @hookimpl
        def synapse_add_hookspecs(self, kernel: Kernel) -> None:
            calls.append(("add_hookspecs", kernel))

    kernel = Kernel(entry_points=[])
    kernel.register(Late())

    assert [("add_hookspecs", kernel), ("configure", kernel.settings)] == calls


def test_several_broken_plugins_give_one_warning_each(make_distribution: Distribution):
    make_distribution("acme", {"acme_1.py": "1/0", "acme_2.py": "1/0"}, {"one": "acme_1", "two": "acme_2"})

    kernel, told = load("acme")

    assert 2 == len(told)
    assert ["failed", "failed"] == [record.state for record in kernel.plugins]
