"""The commands `plugins`: list, show, hooks. They work when plugins are broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of
from synapse_kernel.errors import UnknownNameError, listing, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.kernel import Kernel
    from synapse_kernel.plugins import PluginRecord

EPILOG = """\b
Examples:
  synapse-kernel plugins
  synapse-kernel plugins list --all --json
  synapse-kernel plugins show my_plugin
  synapse-kernel plugins hooks
"""

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_all = click.option("--all", "show_all", is_flag=True, help="Also list what each plugin contributes.")


@click.group(invoke_without_command=True, epilog=EPILOG)
@_all
@_json
@click.pass_context
def plugins(ctx: click.Context, show_all: bool, as_json: bool) -> None:
    """List the plugins: distribution, version, state, hooks and milliseconds to import."""
    if ctx.invoked_subcommand is None:
        _list(ctx, show_all=show_all, as_json=as_json)


@plugins.command("list", epilog="Example: synapse-kernel plugins list --all")
@_all
@_json
@click.pass_context
def list_plugins(ctx: click.Context, show_all: bool, as_json: bool) -> None:
    """List the plugins and their states."""
    _list(ctx, show_all=show_all, as_json=as_json)


@plugins.command("show", epilog="Example: synapse-kernel plugins show discovery")
@click.argument("name")
@_json
@click.pass_context
def show_plugin(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show one plugin: its contributions, and the traceback if it failed."""
    state = state_of(ctx)
    if as_json:
        promise_json(state)
    kernel = state.kernel
    found = [record for record in kernel.plugins if record.answers_to(name)]
    if not found:
        known = [record.name for record in kernel.plugins]
        raise UnknownNameError(
            f"No plugin is named {name!r}{suggest(name, known)}\n  installed: {listing(known)}",
            kind="plugins",
            name=name,
        )
    if as_json:
        documents = [_document(kernel, record, contributions=True) for record in found]
        click.echo(dump(documents[0] if len(documents) == 1 else documents))
        return
    for record in found:
        _show(kernel, record)


@plugins.command("hooks", epilog="Example: synapse-kernel plugins hooks --json")
@_json
@click.pass_context
def show_hooks(ctx: click.Context, as_json: bool) -> None:
    """List every hook with the plugins that implement it, the first called first."""
    state = state_of(ctx)
    hooks = state.kernel.hook_names()
    if as_json:
        click.echo(dump(hooks))
    else:
        print_table(("hook", "implemented by"), [(name, ", ".join(by) or "-") for name, by in hooks.items()])


def _list(ctx: click.Context, *, show_all: bool, as_json: bool) -> None:
    state = state_of(ctx)
    if as_json:
        promise_json(state)
    kernel = state.kernel
    if as_json:
        click.echo(dump([_document(kernel, record, contributions=show_all) for record in kernel.plugins]))
        return
    rows = [
        (
            record.name,
            record.distribution or "-",
            record.version or "-",
            record.state,
            "-" if record.import_ms is None else f"{record.import_ms:.1f}",
            record.reason or ", ".join(hook.removeprefix("synapse_") for hook in record.hooks),
        )
        for record in kernel.plugins
    ]
    print_table(("plugin", "distribution", "version", "state", "ms", "hooks"), rows)
    if show_all:
        click.echo()
        print_table(
            ("kind", "name", "state", "plugin", "summary"), _contribution_rows(kernel, kernel.plugins)
        )


def _contribution_rows(kernel: Kernel, records: Sequence[PluginRecord]) -> list[tuple[str, ...]]:
    return [
        (kind, c.spec.name, c.state, c.plugin.display, c.spec.summary)
        for kind in kernel.contribution_kinds
        for c in kernel.contributions(kind)
        if c.plugin in records
    ]


def _document(kernel: Kernel, record: PluginRecord, *, contributions: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "name": record.name,
        "display": record.display,
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "reason": record.reason,
        "hooks": record.hooks,
        "import_ms": record.import_ms,
        "value": record.value,
    }
    if contributions:
        rows = _contribution_rows(kernel, [record])
        document["contributions"] = [
            {"kind": kind, "name": name, "state": state, "summary": summary}
            for kind, name, state, _, summary in rows
        ]
        document["traceback"] = record.traceback
    return document


def _show(kernel: Kernel, record: PluginRecord) -> None:
    click.echo(f"{record.display}: {record.state}{f', {record.reason}' if record.reason else ''}")
    click.echo(f"  version    {record.version or '-'}")
    click.echo(f"  entry      {record.value}")
    click.echo(f"  imported   {'-' if record.import_ms is None else f'in {record.import_ms:.1f} ms'}")
    click.echo(f"  hooks      {', '.join(record.hooks) or '-'}")
    rows = _contribution_rows(kernel, [record])
    if rows:
        click.echo()
        print_table(("kind", "name", "state", "summary"), [(k, n, s, text) for k, n, s, _, text in rows])
    if record.traceback:
        click.echo(f"\n{record.traceback.rstrip()}")
