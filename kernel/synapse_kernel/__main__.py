"""``python -m synapse_kernel``: the command line, where its script is not on the path."""

from synapse_kernel.cli import main

main()
