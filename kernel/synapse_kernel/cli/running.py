"""What the commands that run something share: params and variables as typed, sinks, Ctrl-C, the outcome."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

import click

from synapse_kernel.cli.complete import complete_sinks
from synapse_kernel.cli.documents import ReservedStdout, dump, state_of, tell_error, tell_warning
from synapse_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from synapse_kernel.cli.app import AppState
    from synapse_kernel.contracts import Outcome, Resources
    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.params import Layer


Command = TypeVar("Command", bound="Callable[..., object] | click.Command")


def _stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


params_options = _stacked(
    click.option(
        "-p", "--param", "given", multiple=True, metavar="KEY=VALUE", help="Set a parameter. Repeatable."
    ),
    click.option("--params", "params_file", metavar="FILE|-", help="Read params from YAML or JSON."),
)
"""``-p`` and ``--params``, for `read_layers`."""

output_options = _stacked(
    click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document."),
    click.option("--events", metavar="FILE|-", help="Also write the events as JSON lines."),
    click.option(
        "--sink",
        "sinks",
        multiple=True,
        shell_complete=complete_sinks,
        metavar="NAME[:ARG]",
        help="Send events there instead of the console. Repeatable; 'none' for nowhere.",
    ),
    click.option(
        "--tag", "tags", multiple=True, metavar="TAG", help="Find the run again by this. Repeatable."
    ),
)
"""Where what a run says goes, and how it is found again."""


def _also_set(ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> None:
    state_of(ctx).also_set(value)


settings_option = click.option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    is_eager=True,
    expose_value=False,
    callback=_also_set,
    help="Set a setting, such as ray.address=local. Repeatable.",
)
"""``--set`` after a command, where people expect it; the settings hold for it alone."""

verbosity_options = _stacked(
    click.option("-q", "--quiet", is_flag=True, help="Show warnings and errors only."),
    click.option("-v", "--verbose", is_flag=True, help="Show debug events and state changes too."),
)
"""``-q`` and ``-v``, for `verbosity_of`."""


def verbosity_of(*, quiet: bool, verbose: bool, as_json: bool) -> str:
    """Return how much the console shows; raises `click.UsageError` for both at once."""
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose cannot be used together.")
    return "verbose" if verbose else "quiet" if quiet or as_json else "normal"


def see_through(handle: Run, reserved: ReservedStdout | None, *, as_json: bool) -> int:
    """Wait for a run, Ctrl-C stopping it; print what came of it and return the exit code."""
    outcome, interrupted = wait_for(handle)
    print_outcome(outcome, reserved, as_json=as_json)
    if interrupted:
        return 130
    return 0 if outcome.ok else 2 if outcome.error is not None and outcome.error.kind == "params" else 1


def read_layers(given: tuple[str, ...], params_file: str | None) -> list[Layer]:
    """Return the params of ``--params`` and of ``-p``, the later winning; raises `UsageError`."""
    from synapse_kernel.params import Layer

    layers: list[Layer] = []
    if params_file is not None:
        layers.append(Layer(_read_params(params_file), "stdin" if params_file == "-" else params_file))
    if given:
        layers.append(Layer(parse_assignments(given), "-p"))
    return layers


def _read_params(file: str) -> Mapping[str, object]:
    from synapse_kernel.yaml_files import YamlError, parse_mapping, read_mapping

    try:
        if file == "-":
            return parse_mapping(sys.stdin.read(), "stdin")
        return read_mapping(file)
    except YamlError as error:
        raise UsageError(f"The params cannot be read: {error}") from error
    except OSError as error:
        raise UsageError(f"The params cannot be read: {file}: {error.strerror or error}") from error


def parse_assignments(given: tuple[str, ...]) -> dict[str, object]:
    """
    Return ``key=value`` texts as nested params whose leaves are `Text`.

    Raises `UsageError` for one without ``=`` or key, a file that cannot be read, and a key that is both a
    value and a mapping.
    """
    from synapse_kernel.params import Text

    values: dict[str, object] = {}
    for assignment in given:
        key, separator, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise UsageError(f"-p {assignment!r} is not KEY=VALUE; write it like -p epochs=3")
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@"):
            text = _file_content(key, text[1:])
        inner = values
        for part in parts[:-1]:
            deeper = inner.setdefault(part, {})
            if not isinstance(deeper, dict):
                raise UsageError(f"-p {key}: {part!r} is given a value and inner keys too")
            inner = deeper
        before = inner.get(parts[-1])
        if isinstance(before, dict):
            raise UsageError(f"-p {key}: {parts[-1]!r} is given a value and inner keys too")
        inner[parts[-1]] = Text((*before.texts, text)) if isinstance(before, Text) else Text((text,))
    return values


def _file_content(key: str, file: str) -> str:
    try:
        with open(file, encoding="utf-8") as stream:  # noqa: PTH123 - a name as the person typed it
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"-p {key}=@{file} cannot be read: {reason}") from error


def read_resources(cpus: float | None, gpus: float | None, memory: str | None) -> Resources | None:
    """Return what ``--cpus``, ``--gpus`` and ``--memory`` ask for; raises `UsageError`."""
    if cpus is None and gpus is None and memory is None:
        return None
    from synapse_kernel.contracts import Resources
    from synapse_kernel.durations import size

    return Resources(cpus=cpus, gpus=gpus, memory=None if memory is None else size(memory))


def read_variables(env: tuple[str, ...]) -> dict[str, str] | None:
    """Return the variables that ``KEY`` and ``KEY=VALUE`` texts pass; raises `UsageError`."""
    if not env:
        return None
    variables: dict[str, str] = {}
    for entry in env:
        name, separator, value = entry.partition("=")
        if not name:
            raise UsageError(f"--env {entry!r} is not KEY or KEY=VALUE")
        if not separator and name not in os.environ:
            raise UsageError(
                f"--env {name}: it is not set in this shell; give it a value: --env {name}=VALUE"
            )
        variables[name] = value if separator else os.environ[name]
    return variables


def choose_sinks(
    state: AppState,
    named: tuple[str, ...],
    events: str | None,
    reserved: ReservedStdout | None,
    verbosity: str,
) -> list[str]:
    """Return where the events of a run go: the sinks named, else the settings', else the console."""
    chosen = list(named) if named else list(state.settings.kernel.sinks or ())
    if not chosen and "console" in state.kernel.registry.names("sinks"):
        chosen = [f"console:{verbosity}"]
    if events is not None:
        chosen.append(f"jsonl:fd:{reserved.descriptor}" if reserved and events == "-" else f"jsonl:{events}")
    return chosen


def refuse_with_detach(**options: object) -> None:
    """Raise `click.UsageError` for an option that makes no sense for a run which nobody here listens to."""
    for name, value in options.items():
        if value:
            raise click.UsageError(
                f"--detach and {name} cannot be used together: the run is recorded, and goes on without this "
                "command.\nSee what it says with: synapse-kernel runs watch RUN"
            )


def tell_detached(kernel: Kernel, run_id: str, reserved: ReservedStdout | None) -> None:
    """Print the id of a run that was detached; on stderr, what can be done with it next."""
    if reserved is not None:
        record = kernel.store.get(run_id) if kernel.store is not None else None
        executor = record.executor if record is not None else None
        reserved.write({"run_id": run_id, "status": "pending", "executor": executor})
    else:
        click.echo(run_id)
    click.echo("The run goes on without this command", err=True)
    click.echo(f"  watch it with:         synapse-kernel runs watch {run_id}", err=True)
    click.echo(f"  see what it says with: synapse-kernel runs logs {run_id} --follow", err=True)
    click.echo(f"  stop it with:          synapse-kernel runs cancel {run_id}", err=True)


def wait_for(handle: Run) -> tuple[Outcome, bool]:
    """Wait for a run; Ctrl-C (or SIGTERM, or SIGHUP) tells it to stop, a second one makes it."""
    interrupted = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            handle.cancel(grace=0)
            return
        interrupted = True
        # Not click.echo, which would write through a live display instead of above it. On a terminal the
        # cursor stands behind its echo of ^C.
        start = "\n" if sys.stderr.isatty() else ""
        print(f"{start}Stopping; press Ctrl-C again to stop by force.", file=sys.stderr, flush=True)  # noqa: T201
        # Not in the handler itself: the main thread may hold a lock that cancelling needs.
        threading.Thread(target=handle.cancel, kwargs={"reason": "interrupted"}, daemon=True).start()

    # SIGHUP: the terminal was closed, or the connection to it lost.
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    # One that was told to ignore it (nohup) goes on.
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        return handle.result(), interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_outcome(outcome: Outcome, reserved: ReservedStdout | None, *, as_json: bool) -> None:
    """Print the result on stdout, or what went wrong on stderr; as a document where stdout is reserved."""
    if reserved is not None:
        document = outcome.to_dict()
        if as_json:
            reserved.write(document)
        else:
            reserved.write_line({"kind": "outcome", **document})
    for warning in outcome.warnings:
        tell_warning(warning)
    if outcome.error is not None:
        error = outcome.error
        if error.traceback and error.kind == "action":
            click.echo(error.traceback.rstrip(), err=True)
        if error.output:
            click.echo(f"The last lines it printed:\n{error.output}", err=True)
        tell_error(f"{error.type}: {error.message}" if error.message else error.type)
    elif reserved is None and outcome.result is not None:
        click.echo(outcome.result if isinstance(outcome.result, str) else dump(outcome.result))
