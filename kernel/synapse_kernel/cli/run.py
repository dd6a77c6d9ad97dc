"""The command `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.complete import complete_actions, complete_executors
from synapse_kernel.cli.documents import ReservedStdout, dump, print_table, state_of
from synapse_kernel.cli.running import (
    choose_sinks,
    output_options,
    params_options,
    read_layers,
    read_resources,
    read_variables,
    refuse_with_detach,
    see_through,
    settings_option,
    tell_detached,
    verbosity_of,
    verbosity_options,
)

if TYPE_CHECKING:
    from synapse_kernel.preparation import Plan

EPILOG = """\b
Examples:
  synapse-kernel run ./my_plugin train -p epochs=3 -p optimizer.lr=0.01
  synapse-kernel run ./my_plugin train --params params.yaml --timeout 1h30m --retries 2
  synapse-kernel run hello.py greet -p name=Ada --json
  synapse-kernel run ./my_plugin train --dry-run
  synapse-kernel run ./my_plugin train --executor ray-job --detach

TARGET is a folder with a config.yaml, a Python file, a module, or an installed action plugin.
Values of -p are JSON where the parameter takes that, else text; dotted keys reach inside, a repeated
key makes a list, KEY=@FILE takes a file's content and KEY=@@TEXT is text that starts with @.

Exit codes: 0 done, 1 the run failed, 2 usage, params or config, 3 a plugin problem, 130 interrupted.
"""


@click.command(epilog=EPILOG)
@click.argument("target")
@click.argument("action", required=False, shell_complete=complete_actions)
@params_options
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
@click.option(
    "--detach", is_flag=True, help="Start it and leave: print its id; see: synapse-kernel runs watch."
)
@click.option("--dry-run", is_flag=True, help="Print what would run, and with which params; run nothing.")
@output_options
@click.option("--no-history", is_flag=True, help="Do not record the run; see: synapse-kernel runs.")
@settings_option
@verbosity_options
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
    detach: bool,
    dry_run: bool,
    as_json: bool,
    events: str | None,
    sinks: tuple[str, ...],
    tags: tuple[str, ...],
    no_history: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run ACTION of TARGET and print its result; events go to stderr."""
    verbosity = verbosity_of(quiet=quiet, verbose=verbose, as_json=as_json)
    if detach:
        refuse_with_detach(**{"--events": events, "--sink": sinks, "--no-history": no_history})
    state = state_of(ctx)
    reserved = ReservedStdout(state) if as_json or events == "-" else None
    kernel = state.kernel
    params = read_layers(given, params_file)
    resources = read_resources(cpus, gpus, memory)
    variables = read_variables(env)
    if dry_run:
        plan = kernel.plan(
            target, action, params, executor=executor, resources=resources, env=variables, timeout=timeout,
            retries=retries,
        )  # fmt: skip
        _print_plan(plan, reserved)
        return 0
    if detach:
        run_id = kernel.detach(
            target, action, params, executor=executor, resources=resources, env=variables, timeout=timeout,
            retries=retries, tags=tags,
        )  # fmt: skip
        tell_detached(kernel, run_id, reserved)
        return 0
    chosen = choose_sinks(state, sinks, events, reserved, verbosity)
    handle = kernel.submit(
        target, action, params, executor=executor, resources=resources, env=variables, timeout=timeout,
        retries=retries, sinks=chosen, tags=tags, record=False if no_history else None,
    )  # fmt: skip
    return see_through(handle, reserved, as_json=as_json)


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
