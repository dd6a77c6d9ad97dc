"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  eval "$(synapse-kernel completion bash)"     # in ~/.bashrc
  eval "$(synapse-kernel completion zsh)"      # in ~/.zshrc
  synapse-kernel completion fish | source      # in ~/.config/fish/config.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for SHELL that completes commands, options, actions and names of plugins."""
    found = get_completion_class(shell)
    assert found is not None
    maker = found(ctx.find_root().command, {}, "synapse-kernel", "_SYNAPSE_KERNEL_COMPLETE")
    # Not maker.source(): for bash it starts a bash to check its version first.
    click.echo(maker.source_template % maker.source_vars())
