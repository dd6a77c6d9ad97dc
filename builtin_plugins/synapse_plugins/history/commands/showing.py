"""The command `runs show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.cli.selecting import ago_text, one_run
from synapse_kernel.event_text import size_text
from synapse_kernel.events import Log
from synapse_plugins.history.commands.artifacts import artifacts_of
from synapse_plugins.history.commands.reading import Follower, children_of
from synapse_plugins.history.commands.record_text import (
    document_of,
    resources_text,
    seconds_of,
    short_ids,
    styled,
    time_text,
    took_text,
)
from synapse_plugins.history.commands.retrying import how_to_go_on
from synapse_plugins.history.commands.selecting import complete_runs, json_option, open_store
from synapse_plugins.history.commands.series import json_number, number_text, series_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synapse_kernel.contracts import JsonObject
    from synapse_kernel.stores import Environment, RunRecord, RunStore

MOST_CHILDREN = 40
"""So many runs of one parent are shown in the tree: those that did not succeed before the others."""

EPILOG = """\b
Examples:
  synapse-kernel runs show @last
  synapse-kernel runs show 3f2a --events
  synapse-kernel runs show 3f2a --json
"""


@click.command("show", epilog=EPILOG)
@click.argument("run", shell_complete=complete_runs)
@click.option("--events", "with_events", is_flag=True, help="Also print the events, as `runs logs` does.")
@json_option
@click.pass_context
def show_run(ctx: click.Context, run: str, with_events: bool, as_json: bool) -> None:
    """Show all that is recorded of RUN: what it was to do, where it ran, what came of it."""
    if as_json:
        promise_json(state_of(ctx))
    store = open_store(ctx)
    record = one_run(store, run)
    outcome = store.outcome(record.run_id) or {}
    environment = store.environment(record.environment) if record.environment is not None else None
    if as_json:
        document = _document(store, record, outcome, environment)
        if with_events:
            pages = Follower(store, record.run_id).new()
            document["events"] = [event for page in pages for event in page]
        click.echo(dump(document))
        return
    _print_facts(store, record, environment)
    _print_params(record)
    _print_outcome(store, record, outcome)
    _print_artifacts(store, record)
    _print_metrics(store, record)
    _print_children(store, record)
    if with_events:
        from synapse_plugins.history.commands.following import LineWriter

        click.echo("\nEvents")
        writer = LineWriter(store, record.run_id, level="debug", indent="  ")
        for page in Follower(store, record.run_id).new():
            writer.write(page)
    hint = how_to_go_on(record)
    if hint:
        click.echo(f"\n{hint}", err=True)


def _document(
    store: RunStore, record: RunRecord, outcome: JsonObject, environment: Environment | None
) -> JsonObject:
    return {
        **document_of(record),
        "environment": environment,
        "result": outcome.get("result"),
        # The record has the error as one line, the outcome has all of it.
        "error": outcome.get("error") or record.error,
        "warnings": outcome.get("warnings") or [],
        "artifacts": artifacts_of(store, record.run_id),
        "metrics": {s.label: json_number(s.last) for s in series_of(store, record.run_id, descendants=False)},
        "children": [_child_document(store, child) for child in children_of(store, record.run_id)],
    }


def _child_document(store: RunStore, child: RunRecord) -> JsonObject:
    document = document_of(child)
    document["children"] = [_child_document(store, inner) for inner in children_of(store, child.run_id)]
    return document


def _print_facts(store: RunStore, record: RunRecord, environment: Environment | None) -> None:
    click.echo(f"{record.action} {styled(record.status)} (run {record.run_id})")
    for label, text in _facts(store, record, environment):
        if text:
            click.echo(f"  {label:<11} {text}")


def _facts(
    store: RunStore, record: RunRecord, environment: Environment | None
) -> Iterator[tuple[str, str | None]]:
    yield "kind", record.kind if record.kind != "action" else None
    yield "target", record.target
    yield "made", f"{time_text(record.created)} ({ago_text(record.created)})"
    # Later than made where the run had to wait, or goes on.
    begun = record.started or record.created
    waited = (begun - record.created).total_seconds() >= 1
    yield "started", f"{time_text(begun)} ({ago_text(begun)})" if waited else None
    yield "duration", took_text(record) if seconds_of(record) is not None else None
    attempts = f"{record.attempt}, retried at most {record.retries} times" if record.retries else None
    yield "attempts", attempts or (str(record.attempt) if record.attempt > 1 else None)
    yield "timeout", f"{record.timeout:g} s" if record.timeout is not None else None
    yield "executor", record.executor
    yield "resources", resources_text(record.resources)
    yield "variables", ", ".join(record.env_names)
    if record.owner is not None:
        yield "process", f"{record.owner.pid} on {record.owner.host}"
    else:
        yield "process", "none here: it goes on elsewhere"
    if environment is not None:
        yield "python", f"{environment.python} on {environment.platform}"
        yield "packages", f"{len(environment.packages)} (listed by --json)"
    yield "commit", record.commit
    yield "folder", record.cwd
    yield "work folder", record.work_dir
    yield "job", record.job_id
    yield "tags", ", ".join(record.tags)
    yield "part of", f"run {record.parent}, as its node {record.node}" if record.parent else None
    yield "result of", _source_text(store, record.cached_from, "not run again")


def _source_text(store: RunStore, cached_from: str | None, more: str = "") -> str | None:
    """Return which run a result was taken over from; that it is gone, where it was cleaned."""
    if cached_from is None:
        return None
    if store.get(cached_from) is None:
        more = "which is not in the history any more"
    return f"run {cached_from}{f', {more}' if more else ''}"


def _print_params(record: RunRecord) -> None:
    if record.params:
        from synapse_plugins.history.commands.comparing import flattened

        click.echo("\nParams")
        rows = [(key, _value_text(value)) for key, value in flattened(record.params).items()]
        print_table(("name", "value"), rows)


def _value_text(value: object) -> str:
    if isinstance(value, str):
        return value
    import msgspec

    return msgspec.json.encode(value).decode()


def _print_outcome(store: RunStore, record: RunRecord, outcome: JsonObject) -> None:
    for warning in cast("list[str]", outcome.get("warnings") or []):
        click.echo(f"\nWarning: {warning}")
    error = cast("dict[str, str] | None", outcome.get("error"))
    if error is not None:
        click.echo("\nError")
        trace = error.get("traceback")
        if trace and record.kind == "pipeline":
            # It is that of the first node that failed; the message names them all.
            click.echo(_indented(error["message"]))
            node = _node_of(store, record, error)
            click.echo(f"\nTraceback of node {node}" if node else "\nTraceback")
        click.echo(_indented(trace or f"{error.get('type')}: {error.get('message')}"))
        if error.get("output"):
            click.echo("\nThe last lines it printed")
            click.echo(_indented(error["output"]))
    elif record.error is not None:
        click.echo(f"\nError\n{_indented(record.error)}")
    elif outcome.get("result") is not None:
        result = outcome["result"]
        click.echo("\nResult")
        click.echo(_indented(result if isinstance(result, str) else dump(result)))


def _node_of(store: RunStore, record: RunRecord, told: Mapping[str, str]) -> str | None:
    """Return the node of a pipeline, or of one in it, whose traceback a pipeline's error has."""
    ended = [(child.finished, child) for child in children_of(store, record.run_id) if child.finished]
    # The first that the message names: one that may fail could have the same traceback.
    for _, child in sorted(ended, key=lambda pair: (pair[1].run_id not in told["message"], pair[0])):
        if child.status == "succeeded":
            continue
        error = cast("dict[str, str] | None", (store.outcome(child.run_id) or {}).get("error"))
        if error is not None and error.get("traceback") == told["traceback"]:
            inner = _node_of(store, child, error)
            return f"{child.node}/{inner}" if inner else child.node
    return None


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.rstrip().splitlines())


def _print_artifacts(store: RunStore, record: RunRecord) -> None:
    found = artifacts_of(store, record.run_id)
    if found:
        click.echo("\nArtifacts")
        rows = [
            (a.name, size_text(a.size) if a.size is not None else "-", a.path, a.sha256 or "-") for a in found
        ]
        print_table(("name", "size", "path", "sha256"), rows)


def _print_metrics(store: RunStore, record: RunRecord) -> None:
    found = series_of(store, record.run_id, descendants=False)
    if found:
        click.echo("\nMetrics")
        print_table(("metric", "last"), [(series.label, number_text(series.last)) for series in found])


def _print_children(store: RunStore, record: RunRecord) -> None:
    lines = list(_tree(store, record.run_id, ""))
    without_run = _not_started(store, record)
    skipped = _skipped(store, record) if without_run else set()
    for label, names in (
        ("skipped", [name for name in without_run if name in skipped]),
        ("not started", [name for name in without_run if name not in skipped]),
    ):
        if names:
            lines.append(f"{label}: {', '.join(names)}")
    if lines:
        click.echo("\nNodes")
        click.echo("\n".join(lines))


def _not_started(store: RunStore, record: RunRecord) -> list[str]:
    """Return the nodes of a pipeline's definition that no run was made for."""
    nodes = (record.definition or {}).get("nodes")
    if not isinstance(nodes, list):
        return []
    names = [str(node.get("name")) for node in nodes if isinstance(node, dict)]
    # One run of a node with several is `draw[3]`.
    begun = {(child.node or "").partition("[")[0] for child in children_of(store, record.run_id)}
    return [name for name in names if name not in begun]


def _skipped(store: RunStore, record: RunRecord) -> set[str]:
    """Return the nodes that a pipeline's last attempt passed over."""
    found: set[str] = set()
    for stored in store.events(record.run_id, kinds=("log",)):
        event = stored.event
        if isinstance(event, Log) and event.event == "pipeline_start":
            found.clear()
        elif isinstance(event, Log) and event.event == "node_skipped":
            found.add(str(event.data.get("node")))
    return found


def _tree(store: RunStore, parent: str, indent: str) -> Iterator[str]:
    children = children_of(store, parent)
    shown = _worth_showing(children)
    ids = short_ids(child.run_id for child in shown)
    names = {child.run_id: child.node or child.action for child in shown}
    width = max(map(len, names.values()), default=0)
    left_out = len(children) - len(shown)
    for index, child in enumerate(shown):
        is_last = index == len(shown) - 1 and not left_out
        source = _source_text(store, child.cached_from)
        taken = f", result of {source}" if source else ""
        attempts = f", attempt {child.attempt}" if child.attempt > 1 else ""
        yield (
            f"{indent}{'└─' if is_last else '├─'} {names[child.run_id]:<{width}}  {styled(child.status, 9)}  "
            f"{took_text(child):>9}  run {ids[child.run_id]}{attempts}{taken}"
        )
        yield from _tree(store, child.run_id, indent + ("   " if is_last else "│  "))
    if left_out:
        yield f"{indent}└─ and {left_out} more: synapse-kernel runs list --children {parent} --all"


def _worth_showing(children: Sequence[RunRecord]) -> Sequence[RunRecord]:
    if len(children) <= MOST_CHILDREN:
        return children
    told = sorted(range(len(children)), key=lambda index: (children[index].status == "succeeded", index))
    return [children[index] for index in sorted(told[:MOST_CHILDREN])]
