"""The command `runs retry`: the next attempt of a run that did not succeed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from synapse_kernel.cli.complete import complete_executors
from synapse_kernel.cli.documents import ReservedStdout, promise_json, state_of
from synapse_kernel.cli.running import (
    choose_sinks,
    parse_assignments,
    read_variables,
    see_through,
    verbosity_of,
    verbosity_options,
)
from synapse_kernel.cli.selecting import one_run
from synapse_kernel.contracts import RunPlace
from synapse_kernel.errors import Problem, ProblemsError, TargetNotFoundError, UsageError
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.stores import RunBusyError
from synapse_plugins.history.commands.selecting import complete_runs, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_kernel.cli.app import AppState
    from synapse_kernel.params import Layer
    from synapse_kernel.stores import RunRecord

EPILOG = """\b
Examples:
  synapse-kernel runs retry @last-failed
  synapse-kernel runs retry 3f2a -p api_token=@token.txt
  synapse-kernel runs retry 3f2a --fresh -p epochs=20

The run goes on under its id, with the params it was given and the checkpoints it left. --fresh starts a new
run with the same request instead; -p changes params then. Secrets are not recorded: give them again.

Exit codes: 0 done, 1 the run failed, 2 usage, params or config, 3 a plugin problem, 130 interrupted.
"""


@click.command("retry", epilog=EPILOG)
@click.argument("run", shell_complete=complete_runs)
@click.option("-p", "--param", "given", multiple=True, metavar="KEY=VALUE",
              help="Give a secret param again or, with --fresh, change a param. Repeatable.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Start a new run with the same request.")
@click.option("--executor", shell_complete=complete_executors, metavar="NAME", help="Run it there instead.")
@click.option("--env", multiple=True, metavar="KEY[=VALUE]", help="Pass a variable. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document.")
@verbosity_options
@click.pass_context
def retry(
    ctx: click.Context,
    run: str,
    given: tuple[str, ...],
    fresh: bool,
    executor: str | None,
    env: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Go on with RUN, which did not succeed, as its next attempt; events go to stderr."""
    verbosity = verbosity_of(quiet=quiet, verbose=verbose, as_json=as_json)
    state = state_of(ctx)
    if as_json:
        promise_json(state)
    record = one_run(open_store(ctx), run)
    check_may_retry(record, fresh=fresh)
    # Files and variables are meant as this shell sees them, before the run's folder is entered.
    assigned = parse_assignments(given)
    variables = dict(read_variables(env) or {})
    given = tuple(map(_with_whole_path, given))
    _enter(record)
    if record.kind == "pipeline":
        if variables:
            raise UsageError(f"Run {record.run_id} is a pipeline's, which passes no variables of --env")
        options = {"--json": as_json, "-q": quiet, "-v": verbose}
        flags = [name for name, is_set in options.items() if is_set]
        flags += ["--executor", executor] if executor else []
        return _retry_pipeline(ctx, record, given, flags)
    layers = _layers(record, assigned, fresh=fresh)
    # From here on the code of the action may print.
    reserved = ReservedStdout(state) if as_json else None
    variables = _with_recorded(state, record, variables)
    place = RunPlace() if fresh else RunPlace(run_id=record.run_id, resume=True, work_dir=record.work_dir)
    handle = state.kernel.submit(
        record.target,
        record.action,
        layers,
        executor=executor or record.executor,
        resources=record.resources,
        env=variables,
        timeout=record.timeout,
        retries=record.retries,
        job_id=record.job_id,
        tags=record.tags,
        sinks=choose_sinks(state, (), None, reserved, verbosity),
        place=place,
    )
    return see_through(handle, reserved, as_json=as_json)


def check_may_retry(record: RunRecord, *, fresh: bool) -> None:
    """Raise `SynapseError` for a run that cannot go on, with what can be done instead."""
    if fresh:
        if record.kind == "pipeline":
            raise UsageError(
                f"Run {record.run_id} is a pipeline's: start it anew as a pipeline\n"
                f"  with: {how_to_run_anew(record)}"
            )
        return
    if record.status not in FINAL_STATUSES:
        raise RunBusyError(record.run_id, record.owner)
    if record.parent is not None:
        raise UsageError(
            f"Run {record.run_id} is part of run {record.root}, as its node {record.node}\n"
            f"  go on with the whole: synapse-kernel runs retry {record.root}\n"
            f"  or run this part alone: {how_to_run_anew(record)}"
        )
    if record.status == "succeeded":
        raise UsageError(
            f"Run {record.run_id} succeeded: there is nothing to go on with\n"
            f"  run it again with: {how_to_run_anew(record)}"
        )


def how_to_go_on(record: RunRecord) -> str | None:
    """Return the command to type next for a run that did not succeed, or that has not ended."""
    if record.status not in FINAL_STATUSES:
        where = "It goes on elsewhere; watch it" if record.detached else "Watch it"
        return f"{where} with: synapse-kernel runs watch {record.run_id}"
    if record.status == "succeeded":
        return None
    if record.parent is not None:
        return f"Go on with the whole: synapse-kernel runs retry {record.root}"
    secrets = "".join(f" -p {shlex.quote(place)}=…" for place in record.masked)
    if record.kind == "pipeline" and record.cwd in {"", os.getcwd()}:  # noqa: PTH109 - text is compared
        command = f"pipeline run {shlex.quote(record.target)} --resume {record.run_id}"
        return f"Go on with it: synapse-kernel {command}{secrets}"
    return f"Go on with it: synapse-kernel runs retry {record.run_id}{secrets}"


def how_to_run_anew(record: RunRecord) -> str:
    """Return the command that starts a new run with the same request; ``…`` is a secret to be given."""
    if record.kind != "pipeline":
        return f"synapse-kernel runs retry {record.run_id} --fresh"
    # The target and files among the params are meant from there.
    is_there = record.cwd in {"", os.getcwd()}  # noqa: PTH109 - text is compared
    before = "" if is_there else f"cd {shlex.quote(record.cwd)} && "
    return f"{before}synapse-kernel pipeline run {shlex.quote(record.target)}{_as_options(record)}"


def _with_whole_path(assignment: str) -> str:
    """Return ``key=@file`` with the file's whole path: it is read from another folder."""
    key, _, text = assignment.partition("=")
    is_file = text.startswith("@") and not text.startswith("@@")
    return f"{key}=@{Path(text[1:]).absolute()}" if is_file else assignment


def _enter(record: RunRecord) -> None:
    """Go where the run was started: its target and params may be meant from there."""
    if not record.cwd:
        return
    try:
        os.chdir(record.cwd)
    except OSError as error:
        raise UsageError(
            f"Run {record.run_id} was started in {record.cwd}, which cannot be entered: {error.strerror}\n"
            f"  run it from another folder with: synapse-kernel run {record.target} {record.action}"
        ) from error
    if record.cwd not in sys.path:
        sys.path.append(record.cwd)


def _layers(record: RunRecord, given: Mapping[str, object], *, fresh: bool) -> list[Layer]:
    """Return the recorded params and those given again; raises for what is missing or may not change."""
    from synapse_kernel.params import Layer

    secret = _given_again(record)
    problems = [
        Problem(place, f"it is secret and was not recorded; give it again: -p {place}=VALUE")
        for place in secret
        if not _has(given, place)
    ]
    if not fresh:
        problems += [
            Problem(key, "a run goes on with the params it has; to change them, start a new run with --fresh")
            for key in _leaves(given)
            if not any(key == place or key.startswith(f"{place}.") for place in secret)
        ]
    if problems:
        raise ProblemsError(f"Run {record.run_id} cannot go on:", problems)
    # What is masked there is covered by what was given again.
    layers = [Layer(record.params, f"run {record.run_id}")]
    return [*layers, Layer(given, "-p")] if given else layers


def _given_again(record: RunRecord) -> list[str]:
    """Return the params that were masked; for one inside a list, which -p cannot reach, the list."""
    places: dict[str, None] = {}
    for place in record.masked:
        value: object = record.params
        parts = place.split(".")
        reached: list[str] = []
        for part in parts:
            if not isinstance(value, dict):
                break
            value = value.get(part)
            reached.append(part)
        places[".".join(reached) if reached else place] = None
    return list(places)


def _has(given: Mapping[str, object], place: str) -> bool:
    value: object = given
    for part in place.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _leaves(given: Mapping[str, object], before: str = "") -> list[str]:
    found: list[str] = []
    for key, value in given.items():
        place = f"{before}{key}"
        found += _leaves(value, f"{place}.") if isinstance(value, dict) else [place]
    return found


def _with_recorded(state: AppState, record: RunRecord, given: dict[str, str]) -> dict[str, str]:
    """Return the variables that the run had: those given now, those of its plugin's config, of this shell."""
    from synapse_kernel.preparation import resolve_action

    try:
        _, spec, _ = resolve_action(state.kernel, record.target, record.action)
    except TargetNotFoundError as error:
        raise UsageError(
            f"Run {record.run_id} cannot go on from here: its action was an object of a Python program, "
            f"or has moved\n{error}"
        ) from error
    wanted = [name for name in record.env_names if name not in given and name not in spec.env]
    missing = [name for name in wanted if name not in os.environ]
    if missing:
        problems = [
            Problem(name, f"it was passed to the run and is not set here: --env {name}=VALUE")
            for name in missing
        ]
        raise ProblemsError(f"Run {record.run_id} cannot go on:", problems)
    return {**{name: os.environ[name] for name in wanted}, **given}


def _retry_pipeline(ctx: click.Context, record: RunRecord, given: tuple[str, ...], flags: list[str]) -> int:
    """Hand over to the command `pipeline run`, whichever plugin has it."""
    kernel = state_of(ctx).kernel
    if "pipeline" not in kernel.registry.names("commands"):
        raise UsageError(
            f"Run {record.run_id} is a pipeline's, and no plugin has the command 'pipeline'\n"
            f"  where one has: synapse-kernel pipeline run {record.target} --resume {record.run_id}"
        )
    command = cast("click.Command", kernel.resolve("commands", "pipeline"))
    params = [part for text in given for part in ("-p", text)]
    args = ["run", record.target, "--resume", record.run_id, *params, *flags]
    with command.make_context("pipeline", args, parent=ctx.find_root()) as inner:
        code = inner.command.invoke(inner)
    return code if isinstance(code, int) else 0


def _as_options(record: RunRecord) -> str:
    """Return the params of a run as they are typed."""
    from synapse_plugins.history.commands.comparing import flattened

    secret = _given_again(record)
    texts: dict[str, str] = {}
    for key, value in record.params.items():
        if any(place == key or place.startswith(f"{key}.") for place in secret):
            for place, leaf in flattened(value, key).items():
                texts[place] = "…" if place in secret else _typed(leaf)
        else:
            texts[key] = _typed(value)
    return "".join(f" -p {shlex.quote(f'{key}={text}')}" for key, text in texts.items())


def _typed(value: object) -> str:
    """Return a value so that -p reads it as it is: as JSON, and text that is no JSON as it stands."""
    import json

    import msgspec

    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return f"@{value}" if value.startswith("@") else value
    return msgspec.json.encode(value).decode()
