"""The commands `pipeline run`, `pipeline plan` and `pipeline validate`."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from synapse_kernel.cli.complete import complete_executors
from synapse_kernel.cli.documents import ReservedStdout, dump, print_table, promise_json, state_of
from synapse_kernel.cli.running import (
    choose_sinks,
    output_options,
    params_options,
    read_layers,
    refuse_with_detach,
    see_through,
    settings_option,
    tell_detached,
    verbosity_of,
    verbosity_options,
)
from synapse_kernel.errors import ProblemsError, SynapseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.lasting import PipelineConductor, PipelineHost
    from synapse_kernel.params import Layer, Merged
    from synapse_plugins.pipelines.running import Runnable

RUN_EPILOG = """\b
Examples:
  synapse-kernel pipeline run pipeline.yaml -p epochs=3
  synapse-kernel pipeline run my_project.pipelines:detector --params params.yaml
  synapse-kernel pipeline run pipeline.yaml --resume @last
  synapse-kernel pipeline run pipeline.yaml --dry-run
  synapse-kernel pipeline run pipeline.yaml --on ray --detach

TARGET is a pipeline.yaml, a folder with one, MODULE:NAME or FILE.py:NAME. Values of -p are JSON where that
reads, else text; dotted keys reach inside, KEY=@FILE takes a file's content.

Exit codes: 0 done, 1 the run failed, 2 usage, params or pipeline, 3 a plugin problem, 130 interrupted.
"""
PLAN_EPILOG = """\b
Examples:
  synapse-kernel pipeline plan pipeline.yaml
  synapse-kernel pipeline plan pipeline.yaml --format graphviz | dot -Tsvg > pipeline.svg
"""
VALIDATE_EPILOG = """\b
Examples:
  synapse-kernel pipeline validate pipeline.yaml
  synapse-kernel pipeline validate my_project.pipelines:detector --json

The exit code is 2 if anything is wrong.
"""

FORMATS = ("tree", "mermaid", "graphviz")
_HOST = "-pipeline"
_UNDONE = ("crashed", "failed", "cancelled", "timed_out")


def _complete_target(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _complete_resume(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the pipelines' runs that can go on, the newest first."""
    from synapse_kernel.cli.selecting import NEWEST
    from synapse_kernel.stores import RunQuery, StoreError

    try:
        store = state_of(ctx).kernel.store
        if store is None:
            return []
        with suppress(StoreError):  # where it cannot be written it can be read
            store.reap()
        found = store.runs(RunQuery(kinds=("pipeline",), statuses=_UNDONE, roots_only=True, limit=20))
    except SynapseError:
        return []
    items = [CompletionItem(record.run_id, help=f"{record.action} {record.status}") for record in found]
    return [item for item in [*map(CompletionItem, NEWEST), *items] if item.value.startswith(incomplete)]


def _complete_places(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer where whole pipelines can run."""
    try:
        places = _places(state_of(ctx).kernel)
    except SynapseError:
        return []
    return [place for place in places if place.startswith(incomplete)]


target_argument = click.argument("target", metavar="TARGET", shell_complete=_complete_target)


@click.group()
def pipeline() -> None:
    """Run, plan and check pipelines of actions."""


@pipeline.command(epilog=RUN_EPILOG)
@target_argument
@params_options
@click.option("--resume", metavar="ID", shell_complete=_complete_resume,
              help="Go on with this interrupted run; nodes that were done are not run again.")  # fmt: skip
@click.option("--force", is_flag=True, help="Resume although the pipeline has changed.")
@click.option("--no-cache", is_flag=True, help="Run every node, also those with a cached result.")
@click.option("--concurrency", metavar="N", type=click.IntRange(min=1), help="Run so many nodes at once.")
@click.option("--executor", shell_complete=complete_executors, metavar="NAME",
              help="Where nodes run that do not say.")  # fmt: skip
@click.option("--on", "place", metavar="NAME", shell_complete=_complete_places,
              help="Run the pipeline itself elsewhere too, such as on ray.")  # fmt: skip
@click.option("--detach", is_flag=True,
              help="With --on: start it and leave; see: synapse-kernel runs watch.")  # fmt: skip
@click.option("--timeout", metavar="DURATION", help="Stop the pipeline if it takes longer, such as 1h30m.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and with which params; run nothing.")
@output_options
@click.option("--no-history", is_flag=True, help="Do not record the run; it cannot be resumed then.")
@settings_option
@verbosity_options
@click.pass_context
def run(
    ctx: click.Context,
    target: str,
    given: tuple[str, ...],
    params_file: str | None,
    resume: str | None,
    force: bool,
    no_cache: bool,
    concurrency: int | None,
    executor: str | None,
    place: str | None,
    detach: bool,
    timeout: str | None,
    dry_run: bool,
    as_json: bool,
    events: str | None,
    sinks: tuple[str, ...],
    tags: tuple[str, ...],
    no_history: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run a pipeline and print its result; events go to stderr."""
    from synapse_kernel.durations import seconds
    from synapse_plugins.pipelines.engine import Launch
    from synapse_plugins.pipelines.loading import find_pipeline
    from synapse_plugins.pipelines.running import LaunchKeywords

    verbosity = verbosity_of(quiet=quiet, verbose=verbose, as_json=as_json)
    if force and resume is None:
        raise click.UsageError("--force is for --resume.")
    if resume is not None and no_history:
        raise click.UsageError("--resume and --no-history cannot be used together.")
    _check_place(place, detach=detach, no_history=no_history, events=events, sinks=sinks)
    state = state_of(ctx)
    reserved = ReservedStdout(state) if as_json or events == "-" else None
    kernel = state.kernel
    host = None if place is None else _host(kernel, place)
    found = find_pipeline(target, kernel)
    merged = _merged(found, kernel, read_layers(given, params_file))
    options = LaunchKeywords(
        resume=None if resume is None else _run_to_resume(kernel, resume),
        force=force,
        use_cache=not no_cache,
        concurrency=concurrency,
        executor=_known(kernel, executor),
        target=target,
    )
    limit = None if timeout is None else seconds(timeout)
    if host is not None:
        order = _conductor(kernel).order(found, merged.values, tags=tags, timeout=limit, **options)
    else:
        launch = Launch(kernel, found, merged.values, record=False if no_history else None, **options)  # type: ignore[misc]
    if dry_run:
        _print_plan(found, target, merged, reserved)
        return 0
    if host is None:
        chosen = choose_sinks(state, sinks, events, reserved, verbosity)
        handle = launch.submit(sinks=chosen, tags=tags, timeout=limit)
    else:
        host.take(order, detached=detach)
        if detach:
            tell_detached(kernel, order.run_id, reserved)
            return 0
        chosen = choose_sinks(state, sinks, events, reserved, verbosity)
        handle = host.follow(order.run_id, sinks=chosen)
    code = see_through(handle, reserved, as_json=as_json)
    if code and not no_history and kernel.store is not None:
        on = "" if place is None else f" --on {shlex.quote(place)}"
        typed = f"{shlex.quote(target)}{on} --resume {handle.id}"
        click.echo(f"Go on with it: synapse-kernel pipeline run {typed}", err=True)
    return code


@pipeline.command(epilog=PLAN_EPILOG)
@target_argument
@click.option("--format", "form", type=click.Choice(FORMATS), default="tree", help="How to draw the graph.")
@click.option("--json", "as_json", is_flag=True, help="Print the pipeline as one JSON document.")
@click.pass_context
def plan(ctx: click.Context, target: str, form: str, as_json: bool) -> None:
    """Draw the graph of a pipeline; its actions are not looked at."""
    from synapse_plugins.pipelines import drawing
    from synapse_plugins.pipelines.definition import document_of, levels
    from synapse_plugins.pipelines.loading import find_pipeline

    if as_json:
        promise_json(state_of(ctx))
    spec = find_pipeline(target).spec
    if as_json:
        click.echo(dump({**document_of(spec), "levels": levels(spec)}))
        return
    click.echo(getattr(drawing, form)(spec))


@pipeline.command(epilog=VALIDATE_EPILOG)
@target_argument
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as one JSON document.")
@click.pass_context
def validate(ctx: click.Context, target: str, as_json: bool) -> int:
    """Check a pipeline and its actions, and tell all that is wrong with it."""
    from synapse_plugins.pipelines.loading import find_pipeline

    state = state_of(ctx)
    if as_json:
        promise_json(state)
    try:
        spec = find_pipeline(target, state.kernel).spec
    except ProblemsError as error:
        if not as_json:
            raise
        click.echo(dump({"target": target, "valid": False, "problems": _documents(error)}))
        return error.exit_code
    if as_json:
        click.echo(dump({"target": target, "valid": True, "problems": []}))
    else:
        count = "1 node" if len(spec.nodes) == 1 else f"{len(spec.nodes)} nodes"
        click.echo(f"{target} is a valid pipeline: {spec.name}, {count}")
    return 0


def _check_place(
    place: str | None, *, detach: bool, no_history: bool, events: str | None, sinks: tuple[str, ...]
) -> None:
    """Raise `click.UsageError` for options that do not go with where the pipeline is to run."""
    if detach and place is None:
        raise click.UsageError("--detach is for --on: a pipeline that runs here ends with this command.")
    if place is not None and no_history:
        raise click.UsageError("--on and --no-history cannot be used together: it is found by its record.")
    if detach:
        refuse_with_detach(**{"--events": events, "--sink": sinks})


def _places(kernel: Kernel) -> list[str]:
    """Return the names that `--on` takes: those of executors for pipelines, without ``-pipeline``."""
    from synapse_kernel.specs import ExecutorSpec

    specs = [contribution.spec for contribution in kernel.contributions("executors")]
    hosts = {spec.name for spec in specs if isinstance(spec, ExecutorSpec) and spec.pipelines}
    return sorted(name.removesuffix(_HOST) for name in hosts)


def _host(kernel: Kernel, place: str) -> PipelineHost:
    """Return what runs pipelines elsewhere; raises `UnknownNameError` for a name that is not there."""
    from synapse_kernel.errors import UnknownNameError, listing, suggest
    from synapse_kernel.lasting import PipelineHost

    known = _places(kernel)
    name = f"{place}{_HOST}"
    if place not in known:
        raise UnknownNameError(
            f"No pipeline can run on {place!r}{suggest(place, known)}\n  --on takes: {listing(known)}",
            kind="executors",
            name=name,
        )
    found = kernel.executor(name, hint="\n  or run it here, without --on")
    if not isinstance(found, PipelineHost):
        raise SynapseError(f"Executor {name!r} does not run pipelines: it is no PipelineHost")
    return found


def _conductor(kernel: Kernel) -> PipelineConductor:
    from synapse_kernel.lasting import PipelineConductor

    found = kernel.executor("pipeline")
    assert isinstance(found, PipelineConductor)
    return found


def _documents(error: ProblemsError) -> list[dict[str, object]]:
    return [
        {
            "where": problem.where,
            "message": problem.message,
            "file": getattr(problem, "file", None),
            "line": getattr(problem, "line", None),
        }
        for problem in error.problems
    ]


def _merged(found: Runnable, kernel: Kernel, layers: Sequence[Layer]) -> Merged:
    """Merge params from their sources; each is read by its type, or stays text where its default is text."""
    from synapse_kernel.params import merge
    from synapse_plugins.pipelines.param_types import params_code

    texts = {name: str for name, default in found.spec.params.items() if isinstance(default, str)}
    return merge(layers, params_code({**texts, **found.param_types(kernel)}))


def _known(kernel: Kernel, executor: str | None) -> str | None:
    """Return an executor's name; raises `UnknownNameError` for one that is not there."""
    if executor is not None:
        kernel.registry.get("executors", executor)
    return executor


def _run_to_resume(kernel: Kernel, given: str) -> str:
    """Return the id of the run that is meant: by its id, the beginning of it, or a word for the newest."""
    from synapse_kernel.cli.selecting import one_run

    store = kernel.store
    if store is None:  # told where the run is looked up
        return given
    # What died reads as crashed from now on, and is among those that did not end well.
    store.reap()
    return one_run(store, given, kinds=("pipeline",)).run_id


def _print_plan(found: Runnable, target: str, merged: Merged, reserved: ReservedStdout | None) -> None:
    from synapse_kernel.redaction import redact
    from synapse_plugins.pipelines.definition import document_of
    from synapse_plugins.pipelines.drawing import tree
    from synapse_plugins.pipelines.references import as_text

    params = redact(found.join_params(merged.values))
    assert isinstance(params, dict)
    if reserved is not None:
        reserved.write({"target": target, "params": params, "pipeline": document_of(found.spec)})
        return
    click.echo(f"Would run {target}")
    click.echo(tree(found.spec))
    if params:
        click.echo("\nParams")
        print_table(
            ("name", "value", "from"),
            [(name, as_text(value), _origin(name, merged.origins)) for name, value in params.items()],
        )


def _origin(name: str, origins: Mapping[str, str]) -> str:
    inner = {origin for path, origin in origins.items() if path == name or path.startswith(f"{name}.")}
    return ", ".join(sorted(inner)) or "default"
