"""The kernel as its embedders use it: no global state, a clean end, typed methods."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import synapse_kernel
from synapse_kernel import (
    ActionNotFoundError,
    ExecutorSpec,
    Kernel,
    Outcome,
    PluginError,
    Resources,
    RuntimeContext,
    Settings,
    SettingsError,
    TargetNotFoundError,
    UnknownNameError,
    UsageError,
    action,
    hookimpl,
    run_plugin,
)
from synapse_kernel.plugins import PluginWarning


@action
def double(params: dict[str, Any], ctx: RuntimeContext) -> int:
    """Double a number."""
    return 2 * params["x"]


@action
def wait_until_told(params: dict[str, threading.Event], ctx: RuntimeContext) -> None:
    """Say that it runs, then wait."""
    params["started"].set()
    while True:
        ctx.check_cancelled()
        params["never"].wait(0.01)


class Executors:
    """A plugin with one executor, `mine`, whose target is in this module."""

    def __init__(self, target: str) -> None:
        self.target = target

    @hookimpl
    def synapse_register_executors(self) -> list[ExecutorSpec]:
        return [ExecutorSpec(name="mine", target=self.target, methods=("task",))]


def test_two_kernels_in_one_process_do_not_know_of_each_other():
    first = Kernel({"grace": 1.0}, entry_points=[])
    second = Kernel({"grace": 2.0}, entry_points=[])

    first.register(Executors("os:getcwd"))

    assert ["mine"] == first.registry.names("executors")
    assert [] == second.registry.names("executors")
    assert [] == second.plugins
    assert (1.0, 2.0) == (first.settings.kernel.grace, second.settings.kernel.grace)
    first.shutdown()
    assert not second.closed


def test_two_kernels_run_the_same_action_each_with_its_own_plugins():
    seen: list[str] = []

    def tracer(name: str) -> object:
        class Tracer:
            @hookimpl(wrapper=True)
            def synapse_run(self):  # type: ignore[no-untyped-def]
                outcome = yield
                seen.append(name)
                return outcome

        return Tracer()

    with Kernel(plugins=[tracer("first")]) as first, Kernel(plugins=[tracer("second")]) as second:
        assert 4 == first.run(double, params={"x": 2}).result
        assert 6 == second.run(double, params={"x": 3}).result

    assert ["first", "second"] == seen


def test_one_plugin_object_may_serve_two_kernels():
    plugin = Executors("os:getcwd")

    kernels = [Kernel(entry_points=[], plugins=[plugin]) for _ in range(2)]

    assert [["mine"], ["mine"]] == [kernel.registry.names("executors") for kernel in kernels]


def test_importing_the_package_makes_no_kernel_and_imports_nothing_heavy():
    """`import synapse_kernel` must stay free of what its names need."""
    import subprocess
    import sys

    code = "import synapse_kernel, sys; print(sorted(m for m in sys.modules if m.startswith('synapse')))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert (
        "['synapse_kernel', 'synapse_kernel._version', 'synapse_kernel.lazy_names']" == shown.stdout.strip()
    )


def test_every_public_name_is_there_and_listed():
    for name in synapse_kernel.__all__:
        assert getattr(synapse_kernel, name) is not None
    assert set(synapse_kernel.__all__) <= set(dir(synapse_kernel))


def test_a_public_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'synapse_kernel' has no attribute 'Kernal'"):
        synapse_kernel.Kernal  # noqa: B018


def test_settings_may_be_given_as_a_mapping_or_checked():
    assert 1.5 == Kernel({"grace": 1.5}, entry_points=[]).settings.kernel.grace
    assert 2.5 == Kernel(Settings({"grace": 2.5}), entry_points=[]).settings.kernel.grace
    assert 5.0 == Kernel(entry_points=[]).settings.kernel.grace


def test_a_key_of_the_settings_that_no_plugin_knows_is_refused():
    with pytest.raises(SettingsError) as caught:
        Kernel({"pluginz": {}, "painter": {}}, entry_points=[])

    assert (
        "the settings cannot be used:\n"
        "  pluginz: no plugin knows this key; did you mean 'plugins'?\n"
        "  painter: no plugin knows this key"
    ) == str(caught.value)


def test_a_section_that_a_plugin_declares_is_accepted():
    class Acme:
        SYNAPSE_SETTINGS = ("acme",)

    kernel = Kernel({"acme": {"colour": "red"}}, entry_points=[], plugins=[Acme()])

    assert {"colour": "red"} == kernel.settings.values["acme"]


def test_with_a_plugin_left_out_unknown_sections_may_be_its_own():
    class Entry:
        name = "broken"
        value = "broken"
        dist = None

        def load(self) -> object:
            raise ImportError("broken")

    with pytest.warns(PluginWarning):
        kernel = Kernel({"acme": {}}, entry_points=[Entry()])

    assert "failed" == kernel.plugins[0].state


def test_leaving_the_context_shuts_down():
    with Kernel(entry_points=[]) as kernel:
        assert not kernel.closed

    assert kernel.closed


def test_shutdown_cancels_what_runs_and_waits_for_its_end():
    kernel = Kernel(strict=True)
    started, never = threading.Event(), threading.Event()
    run = kernel.submit(wait_until_told, params={"started": started, "never": never})
    assert started.wait(60)

    kernel.shutdown()

    assert "cancelled" == run.status
    error = run.result(60).error
    assert error is not None
    assert "the run was cancelled: the kernel shut down" == error.message


def test_a_run_on_a_closed_kernel_ends_cancelled():
    kernel = Kernel(strict=True)
    kernel.shutdown()

    outcome = kernel.run(double, params={"x": 1})

    assert outcome.error is not None
    assert ("cancelled", "the run was cancelled: the kernel shut down") == (
        outcome.status,
        outcome.error.message,
    )


class StuckExecutor:
    """An executor that cannot be shut down."""

    in_process = True

    def __init__(self, kernel: Kernel) -> None: ...

    def shutdown(self) -> None:
        raise OSError("stuck")


def test_shutdown_goes_on_when_an_executor_fails_to():
    ended: list[str] = []

    class Plugin:
        @hookimpl
        def synapse_shutdown(self) -> None:
            ended.append("plugin")

    kernel = Kernel(entry_points=[], plugins=[Plugin(), Executors(f"{__name__}:StuckExecutor")])
    kernel.executor("mine")

    with pytest.warns(PluginWarning, match="Executor 'mine' failed to shut down: OSError: stuck"):
        kernel.shutdown()

    assert ["plugin"] == ended


def test_an_executor_is_made_once(kernel: Kernel):
    assert kernel.executor("local") is kernel.executor("local")


def test_a_target_that_nobody_knows_says_what_may_be_given():
    with pytest.raises(TargetNotFoundError) as caught:
        Kernel(entry_points=[]).discover("trian")

    assert (
        "Nothing is known of 'trian'\n"
        "  give a folder with a config.yaml, a Python file, a module or an installed action plugin\n"
        "  installed: none"
    ) == str(caught.value)


def test_a_target_that_can_be_no_target_is_a_usage_error(kernel: Kernel):
    with pytest.raises(UsageError) as caught:
        kernel.run(42)

    assert ("A target is a path, a module, an installed plugin's name, or an action; got int") == str(
        caught.value
    )


def test_another_name_for_an_action_object_is_an_error(kernel: Kernel):
    with pytest.raises(ActionNotFoundError) as caught:
        kernel.run(double, "duoble", {"x": 1})

    assert str(caught.value).endswith(
        "double has no action 'duoble'; did you mean 'double'?\n  actions there: double"
    )


def test_plan_tells_what_run_would_do_with_secrets_masked(kernel: Kernel):
    plan = kernel.plan(
        double,
        params={"x": 1, "api_key": "sk-12345"},
        env={"HUB_TOKEN": "t-1", "MODE": "fast"},
        timeout="1m30s",
        retries=2,
        resources=Resources(cpus=2),
    )

    assert {"x": 1, "api_key": "***"} == plan.params
    assert {"x": "the call", "api_key": "the call"} == plan.origins
    assert {"HUB_TOKEN": "***", "MODE": "fast"} == plan.env
    assert ("double", "local", 90.0, 2) == (plan.action, plan.executor, plan.timeout, plan.retries)
    assert Resources(cpus=2) == plan.resources


def test_run_plugin_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    outcome = run_plugin(double, "double", {"x": 21})

    assert isinstance(outcome, Outcome)
    assert 42 == outcome.unwrap()


def test_run_plugin_refuses_an_unknown_mode():
    with pytest.raises(UsageError, match="mode must be 'local', 'task' or 'job', got 'cloud'"):
        run_plugin(double, "double", {"x": 1}, mode="cloud")


def test_a_mode_that_no_executor_serves_says_how_to_get_one():
    with Kernel(without=["ray_executors"]) as kernel, pytest.raises(UnknownNameError) as caught:
        run_plugin(double, "double", {"x": 1}, mode="job", kernel=kernel)

    assert (
        "No executor serves the method 'job'\n"
        "  executors here: local, pipeline, process\n"
        "  install one with: pip install 'synapse-kernel[ray]'  or run it here with: --executor local"
    ) == str(caught.value)


def test_an_executor_whose_target_is_gone_is_a_plugin_error():
    kernel = Kernel(plugins=[Executors("acme_gone:Executor")])

    with pytest.raises(PluginError) as caught:
        kernel.run(double, params={"x": 1}, executor="mine")

    assert (
        "Executor 'mine' of plugin Executors does not load: its target 'acme_gone:Executor' raised "
        "ModuleNotFoundError: No module named 'acme_gone'"
    ) == str(caught.value)
