"""
Every hook of the kernel.

Contribution hooks return descriptors (see `synapse_kernel.specs`); each plugin's is called by itself, so a
plugin that raises loses its own contributions and no one else's. Deciding hooks are `firstresult`: the
first answer that is not None counts, and only they may be wrapped. All hooks are called in the kernel's
process; a worker process builds a kernel of its own for what actions ask for.

The signatures here are public: a hook may gain arguments, it never loses or renames one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synapse_kernel.contracts import ActionPlugin, Outcome, RunRequest
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.settings import Settings
    from synapse_kernel.specs import (
        ActionsSpec,
        CommandSpec,
        ExecutorSpec,
        FormatSpec,
        IntegrationSpec,
        SchemaSpec,
        ServiceSpec,
        SinkSpec,
        StorageSpec,
        StoreSpec,
        TemplateSpec,
    )

PROJECT = "synapse_kernel"
API = 1
"""The number of this hook interface; a plugin that needs a newer one says so in `SYNAPSE_API`."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def synapse_add_hookspecs(kernel: Kernel) -> None:
    """
    Add hooks of your own, with ``kernel.add_hookspecs(module)``.

    When: once, as the plugin is registered; a plugin registered later is still called.
    Process: the kernel's.
    Result: ignored.
    Errors: the plugin is marked `failed` and taken out; everything else goes on.
    """


@hookspec(historic=True)
def synapse_configure(kernel: Kernel, settings: Settings) -> None:
    """
    Set the plugin up; read its section with ``settings.section(name)``.

    When: once, as the plugin is registered, after `synapse_add_hookspecs`; a late plugin is still called.
    Process: the kernel's, and each worker process that builds a kernel.
    Result: ignored.
    Errors: the plugin is marked `failed` and taken out; everything else goes on.
    """


@hookspec
def synapse_shutdown(kernel: Kernel) -> None:
    """
    Release what `synapse_configure` took.

    When: once, when the kernel shuts down, for each plugin, the last registered first.
    Process: the kernel's.
    Result: ignored.
    Errors: logged as a warning that names the plugin; the others are still called.
    """


@hookspec
def synapse_register_actions() -> Sequence[ActionsSpec] | None:
    """
    Contribute action plugins that an installed package ships, to be run by name.

    When: on the first look-up of an installed action plugin, once.
    Process: the kernel's.
    Result: descriptors; `target` is the module, or package with a `config.yaml`, that holds the actions.
    Errors: this plugin's actions are left out, with a warning that names it.
    """


@hookspec
def synapse_register_executors() -> Sequence[ExecutorSpec] | None:
    """
    Contribute places where tasks run.

    When: on the first look-up of an executor, once.
    Process: the kernel's.
    Result: descriptors; the target is called as ``target(kernel)`` on first use and gives an `Executor`.
    Errors: this plugin's executors are left out, with a warning that names it.
    """


@hookspec
def synapse_register_sinks() -> Sequence[SinkSpec] | None:
    """
    Contribute places where events go.

    When: on the first look-up of a sink, once. There is no hook call per event: sinks are called directly.
    Process: the kernel's.
    Result: descriptors; the target is called as ``target(run, argument)`` for each run and gives a `Sink`.
    Errors: this plugin's sinks are left out, with a warning that names it.
    """


@hookspec
def synapse_register_stores() -> Sequence[StoreSpec] | None:
    """
    Contribute run stores: history, outcomes and checkpoints behind one contract.

    When: on the first look-up of a store, once.
    Process: the kernel's, and a worker's when its action keeps checkpoints.
    Result: descriptors with the URL schemes they answer to; the target is called as ``target(url)`` and
    gives a `RunStore`.
    Errors: this plugin's stores are left out, with a warning that names it.
    """


@hookspec
def synapse_register_storage() -> Sequence[StorageSpec] | None:
    """
    Contribute storage providers, by URL scheme and alias.

    When: on the first look-up of a storage, once.
    Process: the kernel's, and a worker's when its action asks for a storage.
    Result: descriptors; the target is a `synapse_kernel.storage.Provider` class, made with its configuration.
    Errors: this plugin's providers are left out, with a warning that names it.
    """


@hookspec
def synapse_register_formats() -> Sequence[FormatSpec] | None:
    """
    Contribute dataset readers, writers and direct converters.

    When: on the first look-up of a format, once.
    Process: the kernel's, and a worker's when its action converts.
    Result: descriptors; a direct converter is preferred for its pair where it is faster or keeps more.
    Errors: this plugin's formats are left out, with a warning that names it.
    """


@hookspec
def synapse_register_services() -> Sequence[ServiceSpec] | None:
    """
    Contribute clients that actions find on their context, as ``ctx.NAME``.

    When: on the first look-up of a service, once.
    Process: a worker's, when its action asks for one; the kernel's for runs in process.
    Result: descriptors; the target is called as ``target(ctx)`` on first use in a run.
    Errors: this plugin's services are left out, with a warning that names it.
    """


@hookspec
def synapse_register_integrations() -> Sequence[IntegrationSpec] | None:
    """
    Contribute ML frameworks that ``self.autolog(NAME)`` knows.

    When: on the first call of `autolog`, once.
    Process: a worker's, when its action asks; the kernel's for runs in process.
    Result: descriptors; the target is called as ``target(ctx)``, what it returns is called at the run's end.
    Errors: this plugin's integrations are left out, with a warning that names it.
    """


@hookspec
def synapse_register_schemas() -> Sequence[SchemaSpec] | None:
    """
    Contribute UI schema dialects for ``describe --schema NAME``.

    When: on the first look-up of a dialect, once.
    Process: the kernel's.
    Result: descriptors; the target is called with the JSON Schema and gives JSON-like data.
    Errors: this plugin's dialects are left out, with a warning that names it.
    """


@hookspec
def synapse_register_templates() -> Sequence[TemplateSpec] | None:
    """
    Contribute project templates.

    When: on the first look-up of a template, once.
    Process: the kernel's.
    Result: descriptors; the target names the template's folder or its maker.
    Errors: this plugin's templates are left out, with a warning that names it.
    """


@hookspec
def synapse_register_commands() -> Sequence[CommandSpec] | None:
    """
    Contribute commands to the command line.

    When: for ``--help``, completion, and a command that is not the kernel's own.
    Process: the kernel's.
    Result: descriptors; the target is a `click.Command`, imported only when it is called.
    Errors: this plugin's commands are left out, with a warning that names it.
    """


@hookspec(firstresult=True)
def synapse_discover(target: str) -> ActionPlugin | None:
    """
    Say which actions a target holds: a path, a module's dotted name, or an installed plugin's name.

    When: at the start of every run, dry run and listing; answers should be kept until the files change.
    Process: the kernel's.
    Result: the first answer that is not None; None passes the question on.
    Errors: a `SynapseError` reaches the caller as it is; anything else as `HookError` naming the plugin.
    """


@hookspec
def synapse_detect_format(path: Path) -> str | None:
    """
    Say which dataset format lies at a path, by the format's name.

    When: a dataset's format is not given.
    Process: the kernel's, or a worker's when its action converts.
    Result: all answers are collected; two different ones are an error that names both.
    Errors: logged as a warning that names the plugin; the others are still asked.
    """


@hookspec(firstresult=True)
def synapse_choose_executor(request: RunRequest, available: Mapping[str, str]) -> str | None:
    """
    Choose the executor of a run: policy.

    When: once a run, before `synapse_run`. `available` maps each executor's name to ``available`` or to
    ``missing PACKAGE``.
    Process: the kernel's.
    Result: the first name that is not None; the kernel's own answer, asked last, is the executor that was
    asked for, else one that serves the action's method, else ``local``.
    Errors: raised as `HookError` naming the plugin.
    """


@hookspec(firstresult=True)
def synapse_run(request: RunRequest) -> Outcome | None:
    """
    Run it. The kernel's own implementation comes last; wrap it for retry, cache, tracing or locks.

    When: once a run, after its executor was chosen.
    Process: the kernel's, in the thread that runs.
    Result: the first outcome that is not None; answering without the kernel's own means that nothing ran.
    Errors: raised as `HookError` naming the plugin; the run ends `failed`.
    """


CONTRIBUTIONS: dict[str, str] = {
    "actions": "synapse_register_actions",
    "executors": "synapse_register_executors",
    "sinks": "synapse_register_sinks",
    "stores": "synapse_register_stores",
    "storage": "synapse_register_storage",
    "formats": "synapse_register_formats",
    "services": "synapse_register_services",
    "integrations": "synapse_register_integrations",
    "schemas": "synapse_register_schemas",
    "templates": "synapse_register_templates",
    "commands": "synapse_register_commands",
}
"""The kinds of contributions, and the hook that each comes from."""
