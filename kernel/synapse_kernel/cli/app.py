"""
The root command: global options, commands that are imported only when they run, errors and exit codes.

``--help`` lists the kernel's commands and those of plugins from their descriptors alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import TYPE_CHECKING

import click

from synapse_kernel._version import __version__
from synapse_kernel.cli.documents import promise_json, tell_error, tell_warning
from synapse_kernel.cli.lazy import LazyCommand, LazyGroup
from synapse_kernel.errors import EntrypointError, ParamsError, ProblemsError, SynapseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.settings import Settings

CORE_COMMANDS = {
    "run": ("synapse_kernel.cli.run:run", "Run an action and print its result."),
    "actions": ("synapse_kernel.cli.actions:actions", "List the actions of a target."),
    "describe": ("synapse_kernel.cli.actions:describe", "Show what an action takes and gives."),
    "plugins": ("synapse_kernel.cli.plugins:plugins", "List the plugins, their state and their hooks."),
    "completion": (
        "synapse_kernel.cli.completion:completion",
        "Print a script that completes in your shell.",
    ),
}

EXIT_INTERRUPTED = 130


class AppState:
    """What the global options say, and the kernel they make, on first use."""

    def __init__(self) -> None:
        self.without: tuple[str, ...] = ()
        self.strict_plugins = False
        self.settings_file: str | None = None
        self.set: tuple[str, ...] = ()
        self.json_to: Callable[[object], None] | None = None
        """Where a command under ``--json`` puts its document; errors go there too."""
        self._kernel: Kernel | None = None
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read from their files and variables."""
        if self._settings is None:
            from synapse_kernel.settings import assigned, load_settings

            self._settings = load_settings(
                self.settings_file, overrides=assigned(self.set), defaults={"store": "auto"}
            )
        return self._settings

    @property
    def kernel(self) -> Kernel:
        """The kernel of this command."""
        if self._kernel is None:
            from synapse_kernel.kernel import Kernel

            self._kernel = Kernel(self.settings, without=self.without, strict=self.strict_plugins)
        return self._kernel

    def also_set(self, assignments: tuple[str, ...]) -> None:
        """Set more settings; a kernel that was made to find the command is made anew."""
        if assignments:
            self.close()
            self.set += assignments
            self._kernel = self._settings = None

    def close(self) -> None:
        """Shut the kernel down, if there is one."""
        if self._kernel is not None:
            self._kernel.shutdown()


class App(LazyGroup):
    """The root group: the kernel's commands, and those that plugins contribute."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the kernel's commands in their order, then the plugins' sorted."""
        contributed = ctx.ensure_object(AppState).kernel.registry.names("commands")
        core = super().list_commands(ctx)
        return [*core, *sorted(set(contributed) - set(core))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a stand-in for the command of this name."""
        core = super().get_command(ctx, cmd_name)
        if core is not None:
            return core
        kernel = ctx.ensure_object(AppState).kernel
        if cmd_name not in kernel.registry.names("commands"):
            return None
        try:
            summary = kernel.registry.get("commands", cmd_name).spec.summary
        except SynapseError as conflict:
            summary = str(conflict).partition("\n")[0]
        return LazyCommand(cmd_name, summary, lambda: _contributed(kernel, cmd_name))


def _contributed(kernel: Kernel, name: str) -> click.Command:
    command = kernel.resolve("commands", name)
    if not isinstance(command, click.Command):
        raise SynapseError(f"Command {name!r} is not a click.Command but a {type(command).__name__}")
    return command


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    setattr(ctx.ensure_object(AppState), str(param.name), value)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"synapse-kernel {__version__}")
        ctx.exit()


def _complete_plugins(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    records = ctx.find_root().ensure_object(AppState).kernel.plugins
    return [record.name for record in records if record.name.startswith(incomplete)]


# --help is not eager, the others are: what they block must be known when the commands are listed.
@click.group(
    cls=App,
    lazy=CORE_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: synapse-kernel run ./my_plugin train -p epochs=3",
)
@click.option(
    "--without",
    multiple=True,
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_remember,
    shell_complete=_complete_plugins,
    help="Do not load this plugin. Repeatable.",
)
@click.option(
    "--strict-plugins",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Stop with exit code 3 if a plugin cannot be used, instead of going on without it.",
)
@click.option(
    "--settings",
    "settings_file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Read these settings instead of the project's synapse.yaml.",
)
@click.option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Set a setting, such as ray.address=local. Repeatable; also after a command that runs something.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
@click.help_option("-h", "--help", is_eager=False, help="Show this help.")
def app() -> None:
    """Run ML and data actions, from a laptop to a Ray cluster."""


def run_app(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a person's mistake is a message, never a traceback."""
    _show_warnings_plainly()
    # Modules of the folder one stands in can be named as targets, after all that is installed.
    with contextlib.suppress(OSError):  # a folder that was deleted meanwhile
        here = os.getcwd()  # noqa: PTH109 - pathlib is not imported yet
        if here not in sys.path:
            sys.path.append(here)
    state = AppState()
    try:
        code = app.main(
            args=list(args) if args is not None else None,
            prog_name="synapse-kernel",
            standalone_mode=False,
            obj=state,
        )
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        given = list(args) if args is not None else sys.argv[1:]
        if state.json_to is None and "--json" in given:
            promise_json(state)
        if state.json_to is not None:
            told = {"type": type(error).__name__, "message": error.format_message()}
            state.json_to({"status": "error", "error": told})
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except SynapseError as error:
        _tell(error, state)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (head, less): nothing more to say, not even when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EIO, errno.EBADF}:
            raise
        tell_error(f"The output cannot be written: {error.strerror}")
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    finally:
        state.close()


def _tell(error: SynapseError, state: AppState) -> None:
    if state.json_to is not None:
        document: dict[str, object] = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, ProblemsError):
            document["problems"] = [
                {"where": p.where, "message": p.message, "origin": p.origin} for p in error.problems
            ]
        state.json_to({"status": "error", "error": document})
    if isinstance(error, (EntrypointError, ParamsError)) and error.__cause__ is not None:
        # The author's code raised, while it was imported or its model built: show where.
        from synapse_kernel.worker import describe_error

        click.echo(describe_error(error.__cause__, "action").traceback.rstrip(), err=True)
    tell_error(error)


def _show_warnings_plainly() -> None:
    def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        if category.__module__.startswith("synapse"):
            tell_warning(message)
        else:
            original(message, category, *place, **more)  # type: ignore[arg-type]

    original = warnings.showwarning
    warnings.showwarning = show
