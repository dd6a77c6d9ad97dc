"""
Where a job begins, on the cluster: travels as a file, and imports nothing but the standard library.

Ray ends a job by SIGTERM to its process and to all that descend from it, the action's too, which would then
die without a word. So the work is done by a process that descends from nobody here (the conductor), and this
one (the front) stands before Ray for it: it hands the request to stop on, and when it is killed, the
conductor sees a pipe end and kills the action. What the conductor runs is there once the shipped code is.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, ModuleType
    from typing import TypedDict

    class Start(TypedDict):
        """What is read here of the file ``start.json``; all of it is in `job_work`."""

        paths: list[str]
        requirements: list[str]
        folder: tuple[str, str] | None
        wheels: list[str]
        manager: str
        options: list[str]


STOP = b"T"


def main(here: Path) -> None:
    """Run the job whose files lie in `here`; exits with 0 where it succeeded."""
    # Ray's workers block signals, which their children inherit.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    told, tell = os.pipe()
    ended, end = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(tell)
        os.close(ended)
        _conduct(here, told, end)
    os.close(told)
    os.close(end)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.write(tell, STOP)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    os.waitpid(middle, 0)
    code = os.read(ended, 1)
    if not code:
        os.write(2, b"the process that conducted the run was killed\n")
    os._exit(code[0] if code else 1)


def _conduct(here: Path, told: int, end: int) -> None:
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        start = json.loads((here / "start.json").read_bytes())
        folder, warnings = _code_in_place(here, start)
        # Not a plain import: a type checker would follow it, and the file travels alone.
        work = importlib.import_module("synapse_plugins.ray_executors.job_work").work
        code = work(start, (here / "work.json").read_bytes(), folder, warnings, told)
    except BaseException:  # noqa: BLE001 - whatever it is, the log is where it is read
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(end, bytes([code]))
    os._exit(code)


def _code_in_place(here: Path, start: Start) -> tuple[str | None, list[str]]:
    """Unpack the code that came with the job; returns the action's folder, and warnings."""
    if not start["paths"] and start["folder"] is None:
        return None, []
    bootstrap = _beside(here, "bootstrap")
    places = [_unpacked(bootstrap, digest) for digest in start["paths"]]
    places.append(bootstrap.install_missing(start["requirements"], [], start["manager"]))
    folder = None
    if start["folder"] is not None:
        digest, name = start["folder"]
        folder = f"{_unpacked(bootstrap, digest)}/{name}"
        if start["wheels"]:
            wheels = [f"{folder}/{wheel}" for wheel in start["wheels"]]
            places.append(bootstrap.install_wheels(wheels, start["options"], start["manager"]))
    places = [place for place in places if place]
    warning = bootstrap.add_paths(places)
    # The action's process finds them by this.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*places, *([before] if before else [])])
    return folder, [warning] if warning else []


def _unpacked(bootstrap: ModuleType, digest: str) -> str:
    if bootstrap.has(digest):
        return str(bootstrap.path_of(digest))
    return str(bootstrap.unpack(digest, _bundle(digest).read_bytes()))


def _bundle(digest: str) -> Path:
    """Return where Ray put a bundle: in a package of its own, beside the others on the path."""
    for entry in sys.path:
        file = Path(entry, f"synapse_code_{digest}", "bundle.zip")
        if file.is_file():
            return file
    raise FileNotFoundError(f"the code {digest} did not come with the job; on the path: {sys.path}")


def _beside(here: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_synapse_{name}", here / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(__file__).parent)
