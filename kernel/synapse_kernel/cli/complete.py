"""What the shell offers when Tab is pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.cli.documents import state_of
from synapse_kernel.errors import SynapseError

if TYPE_CHECKING:
    import click


def complete_actions(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the actions of the target that was typed."""
    target = ctx.params.get("target")
    if not target:
        return []
    try:
        names = list(state_of(ctx).kernel.discover(target).actions)
    except SynapseError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_executors(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the executors that plugins register, but for those of whole pipelines."""
    from synapse_kernel.specs import ExecutorSpec

    found = state_of(ctx).kernel.contributions("executors")
    names = sorted(c.spec.name for c in found if not (isinstance(c.spec, ExecutorSpec) and c.spec.pipelines))
    return [name for name in names if name.startswith(incomplete)]


def complete_sinks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the sinks that plugins register."""
    return _names(ctx, "sinks", incomplete)


def complete_dialects(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the schema dialects that plugins register."""
    return _names(ctx, "schemas", incomplete)


def _names(ctx: click.Context, kind: str, incomplete: str) -> list[str]:
    return [name for name in state_of(ctx).kernel.registry.names(kind) if name.startswith(incomplete)]
