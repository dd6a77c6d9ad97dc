"""The command line `synapse-kernel`."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code; the console script."""
    from synapse_kernel.cli.app import run_app

    raise SystemExit(run_app())
