"""The command `acme-hello`."""

from __future__ import annotations

import click


@click.command("acme-hello", epilog="Example: synapse-kernel acme-hello Ada")
@click.argument("name", default="world")
def hello(name: str) -> None:
    """Greet NAME from Acme."""
    click.echo(f"Hello {name}, from Acme.")
