"""
The figures of the kernel, each with its baseline measured in the same run.

    python tests/benchmarks/run.py                 # all of them, some minutes
    python tests/benchmarks/run.py startup emit    # some groups
    python tests/benchmarks/run.py --json > figures.json

A ratio is the median over pairs of runs, A B A B, so that it holds on a machine whose speed drifts. Targets
are printed beside what was measured; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import clustering
import emitting
import in_process
import pipelining
import recording
import startup
import stepping
import storing_http
import storing_local
import storing_s3
import storing_sftp
from figures import Figure

GROUPS: dict[str, Callable[[], list[Figure]]] = {
    "startup": startup.figures,
    "runs": in_process.figures,
    "emit": emitting.figures,
    "steps": stepping.figures,
    "pipelines": pipelining.figures,
    "history": recording.figures,
    "ray": clustering.figures,
    "storage-http": storing_http.figures,
    "storage-local": storing_local.figures,
    "storage-s3": storing_s3.figures,
    "storage-sftp": storing_sftp.figures,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], help=f"of: {', '.join(GROUPS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    figures = [figure for group in options.groups or GROUPS for figure in GROUPS[group]()]
    if options.json:
        print(json.dumps([figure.to_dict() for figure in figures], indent=2))
        return
    print(f"Python {platform.python_version()}, {platform.machine()}")
    for figure in figures:
        print(figure.line())


if __name__ == "__main__":
    main()
