"""The command `run`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.complete import complete_actions, complete_executors, complete_sinks
from synapse_kernel.cli.documents import ReservedStdout, dump, print_table, state_of, tell_error, tell_warning
from synapse_kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from synapse_kernel.cli.app import AppState
    from synapse_kernel.contracts import Outcome, Resources
    from synapse_kernel.handles import Run
    from synapse_kernel.params import Layer
    from synapse_kernel.preparation import Plan

EPILOG = """\b
Examples:
  synapse-kernel run ./my_plugin train -p epochs=3 -p optimizer.lr=0.01
  synapse-kernel run ./my_plugin train --params params.yaml --timeout 1h30m --retries 2
  synapse-kernel run hello.py greet -p name=Ada --json
  synapse-kernel run ./my_plugin train --dry-run

TARGET is a folder with a config.yaml, a Python file, a module, or an installed action plugin.
Values of -p are JSON where the parameter takes that, else text; dotted keys reach inside, a repeated
key makes a list, KEY=@FILE takes a file's content and KEY=@@TEXT is text that starts with @.

Exit codes: 0 done, 1 the run failed, 2 usage, params or config, 3 a plugin problem, 130 interrupted.
"""


@click.command(epilog=EPILOG)
@click.argument("target")
@click.argument("action", required=False, shell_complete=complete_actions)
@click.option(
    "-p", "--param", "given", multiple=True, metavar="KEY=VALUE", help="Set a parameter. Repeatable."
)
@click.option("--params", "params_file", metavar="FILE|-", help="Read params from YAML or JSON.")
@click.option("--executor", shell_complete=complete_executors, metavar="NAME", help="Where to run it.")
@click.option("--cpus", metavar="N", type=click.FloatRange(min=0), help="CPUs to ask for.")
@click.option("--gpus", metavar="N", type=click.FloatRange(min=0), help="GPUs to ask for.")
@click.option("--memory", metavar="SIZE", help="Memory to ask for, such as 8GiB.")
@click.option("--env", "env", multiple=True, metavar="KEY[=VALUE]", help="Pass a variable. Repeatable.")
@click.option(
    "--timeout", metavar="DURATION", help="Stop an attempt that takes longer, such as 90s or 1h30m."
)
@click.option(
    "--retries", metavar="N", type=click.IntRange(min=0), default=0, help="Try again this often if it fails."
)
@click.option("--dry-run", is_flag=True, help="Print what would run, and with which params; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document.")
@click.option("--events", metavar="FILE|-", help="Also write the events as JSON lines.")
@click.option("--sink", "sinks", multiple=True, shell_complete=complete_sinks, metavar="NAME[:ARG]",
              help="Send events there instead of the console. Repeatable; 'none' for nowhere.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Show warnings and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Show debug events and state changes too.")
@click.pass_context
def run(
    ctx: click.Context,
    target: str,
    action: str | None,
    given: tuple[str, ...],
    params_file: str | None,
    executor: str | None,
    cpus: float | None,
    gpus: float | None,
    memory: str | None,
    env: tuple[str, ...],
    timeout: str | None,
    retries: int,
    dry_run: bool,
    as_json: bool,
    events: str | None,
    sinks: tuple[str, ...],
    quiet: bool,
    verbose: bool,
) -> int:
    """Run ACTION of TARGET and print its result; events go to stderr."""
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose cannot be used together.")
    state = state_of(ctx)
    reserved = ReservedStdout(state) if as_json or events == "-" else None
    kernel = state.kernel
    params = _layers(given, params_file)
    resources = _resources(cpus, gpus, memory)
    variables = _variables(env)
    if dry_run:
        plan = kernel.plan(
            target, action, params, executor=executor, resources=resources, env=variables, timeout=timeout,
            retries=retries,
        )  # fmt: skip
        _print_plan(plan, reserved)
        return 0
    verbosity = "verbose" if verbose else "quiet" if quiet or as_json else "normal"
    chosen = choose_sinks(state, sinks, events, reserved, verbosity)
    handle = kernel.submit(
        target, action, params, executor=executor, resources=resources, env=variables, timeout=timeout,
        retries=retries, sinks=chosen,
    )  # fmt: skip
    return see_through(handle, reserved, as_json=as_json)


def see_through(handle: Run, reserved: ReservedStdout | None, *, as_json: bool) -> int:
    """Wait for a run, Ctrl-C stopping it; print what came of it and return the exit code."""
    outcome, interrupted = _wait(handle)
    print_outcome(outcome, reserved, as_json=as_json)
    if interrupted:
        return 130
    return 0 if outcome.ok else 2 if outcome.error is not None and outcome.error.kind == "params" else 1


def _layers(given: tuple[str, ...], params_file: str | None) -> list[Layer]:
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


def _resources(cpus: float | None, gpus: float | None, memory: str | None) -> Resources | None:
    if cpus is None and gpus is None and memory is None:
        return None
    from synapse_kernel.contracts import Resources
    from synapse_kernel.durations import size

    return Resources(cpus=cpus, gpus=gpus, memory=None if memory is None else size(memory))


def _variables(env: tuple[str, ...]) -> dict[str, str] | None:
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


def _wait(handle: Run) -> tuple[Outcome, bool]:
    """Wait for a run; Ctrl-C (or SIGTERM) tells it to stop, a second one makes it."""
    interrupted = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            handle.cancel(grace=0)
            return
        interrupted = True
        # On a terminal the cursor stands behind its echo of ^C.
        click.echo(
            f"{chr(10) if sys.stderr.isatty() else ''}Stopping; press Ctrl-C again to stop by force.",
            err=True,
        )
        # Not in the handler itself: the main thread may hold a lock that cancelling needs.
        threading.Thread(target=handle.cancel, kwargs={"reason": "interrupted"}, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
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


def _print_plan(plan: Plan, reserved: ReservedStdout | None) -> None:
    if reserved is not None:
        reserved.write(plan)
        return
    place = f" in {plan.folder}" if plan.folder else ""
    click.echo(f"Would run {plan.action} of {plan.target} on the executor {plan.executor}")
    click.echo(f"  code       {plan.entrypoint}{place}")
    limits = [f"{name} {value:g}" for name in ("cpus", "gpus") if (value := getattr(plan.resources, name))]
    if plan.resources.memory:
        limits.append(f"memory {plan.resources.memory} bytes")
    click.echo(f"  resources  {', '.join(limits) or 'none asked for'}")
    click.echo(f"  timeout    {'none' if plan.timeout is None else f'{plan.timeout:g} s'}")
    click.echo(f"  retries    {plan.retries}")
    if plan.params:
        click.echo("\nParams")
        rows = [
            (k, dump(v) if not isinstance(v, str) else v, _origin_of(k, plan)) for k, v in plan.params.items()
        ]
        print_table(("name", "value", "from"), rows)
    if plan.env:
        click.echo("\nEnvironment")
        print_table(("name", "value"), list(plan.env.items()))


def _origin_of(key: str, plan: Plan) -> str:
    inner = {origin for path, origin in plan.origins.items() if path == key or path.startswith(f"{key}.")}
    return ", ".join(sorted(inner))
