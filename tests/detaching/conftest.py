"""A farm of processes that outlive those that start them, and an action that waits there."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from synapse_kernel import Kernel
from synapse_kernel.events import Event, State, decode_event
from synapse_kernel.stores import RunStore
from synapse_plugins.history.sqlite_store import SqliteStore

PLUGIN = Path(__file__).with_name("lasting.py")
# Long enough for any machine; none of it is waited for where all is well.
PATIENCE = 60.0

TALK = """
    import time
    from pathlib import Path

    from pydantic import BaseModel

    from synapse_kernel import action


    class Talk(BaseModel):
        words: int = 3
        gate: str = ""
        token: str = ""
        failures: str = ""
        stubborn: bool = False


    @action
    def talk(params: Talk, ctx):
        "Say some words, wait for the gate to open, say some more."
        if params.failures and not Path(params.failures).exists():
            Path(params.failures).touch()
            raise OSError("not yet")
        for number in range(params.words):
            ctx.log_message(f"word {number}")
        while params.gate and not Path(params.gate).exists():
            time.sleep(0.02)
            ctx.set_progress(1, 2)
        for number in range(params.words):
            ctx.log_message(f"more {number}")
        return {"said": 2 * params.words}
"""


class Farm:
    """The folder in which the runs live."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def events(self, name: str) -> list[Event]:
        """Return what a run has said so far."""
        file = self.folder / name / "events.ndjson"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return [decode_event(line) for line in lines if line.endswith(b"\n")]

    def has_ended(self, name: str) -> bool:
        return (self.folder / name / "outcome.json").exists()

    @staticmethod
    def until(condition: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"in vain: {what}"
            time.sleep(0.01)

    @staticmethod
    def states(events: Iterable[Event]) -> list[str]:
        """Return the states that events tell of."""
        return [event.state for event in events if isinstance(event, State)]

    def close(self) -> None:
        """Kill what still lives, and see that nothing is left."""
        self.until(lambda: not self._kill_all(), "every process of the farm ends")

    def _kill_all(self) -> int:
        """Kill the processes of this farm, also those that had no time to say who they are; count them."""
        lines = psutil.process_iter(["cmdline"])
        # Its path is an argument of each, and of the shell that starts it.
        found = [each for each in lines if f"{self.folder}/" in " ".join(each.info["cmdline"] or ())]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(found)


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    made = Farm(tmp_path / "farm")
    monkeypatch.setenv("LASTING_FARM", str(made.folder))
    yield made
    made.close()


@pytest.fixture
def here(
    farm: Farm,
    make_distribution: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Stand in a folder with the action ``talk.py``, where the plugin of the farm is installed."""
    site = make_distribution("lasting", {"lasting.py": PLUGIN.read_text("utf-8")}, {"lasting": "lasting"})
    monkeypatch.setenv("PYTHONPATH", str(site))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "talk.py").write_text(textwrap.dedent(TALK), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def make_kernel(here: Path) -> Iterator[Callable[..., Kernel]]:
    """Return a function that makes kernels on the store of this test."""
    made: list[Kernel] = []

    def make(**settings: object) -> Kernel:
        made.append(Kernel({"store": "sqlite", **settings}))
        return made[-1]

    yield make
    for kernel in made:
        kernel.shutdown()


@pytest.fixture
def kernel(make_kernel: Callable[..., Kernel]) -> Kernel:
    return make_kernel()


@pytest.fixture
def store(own_home: Path) -> Iterator[RunStore]:
    with contextlib.closing(SqliteStore("sqlite")) as opened:
        yield opened


Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def script(here: Path) -> Iterator[Script]:
    """Return a function that starts Python on a text, or on ``-m synapse_kernel`` with arguments."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str = "", *args: str) -> subprocess.Popen[str]:
        command = ["-c", textwrap.dedent(text)] if text else ["-m", "synapse_kernel"]
        process = subprocess.Popen(
            [sys.executable, *command, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
