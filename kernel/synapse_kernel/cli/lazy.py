"""Commands that are known by name and imported when they are called, and the groups that hold them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from synapse_kernel.errors import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LazyCommand(click.Command):
    """Stands for a command in listings; the real one is imported when it is called or completed."""

    def __init__(self, name: str, summary: str, load: Callable[[], click.Command]) -> None:
        super().__init__(name, help=summary, short_help=summary, add_help_option=False)
        self._load = load

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Hand over to the real command."""
        return self._load().make_context(info_name, args, parent=parent, **extra)


class LazyGroup(click.Group):
    """
    Knows its commands by name; a command's module is imported when it is used.

    `lazy` gives for each name the command, as ``module:attribute``, and its summary, in the order in which a
    person meets them.
    """

    def __init__(self, *args: object, lazy: Mapping[str, tuple[str, str]], **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in their order."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a stand-in for the command of this name."""
        if cmd_name not in self._lazy:
            return None
        target, summary = self._lazy[cmd_name]
        return LazyCommand(cmd_name, summary, lambda: import_command(target))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is told with the nearest there is."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = suggest(args[0], self.list_commands(ctx))
            # The root is the program itself: its name says nothing more.
            name = args[0] if ctx.parent is None else f"{self.name} {args[0]}"
            raise click.UsageError(f"There is no command {name!r}{near}", ctx) from error


def import_command(target: str) -> click.Command:
    """Return the command at ``module:attribute``."""
    module, _, attribute = target.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command
