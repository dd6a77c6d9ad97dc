"""The commands `storage`, called in a folder of the test's whose settings name two storages."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synapse_kernel.cli.app import run_app

FILES = {"a/1.txt": "one\n", "a/2.txt": "two\n", "b/x.json": "{}\n", "top.txt": "top\n"}


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the commands run in: some data, and the storages `pool` and `other`."""
    folder = tmp_path / "work"
    fill(folder / "data", FILES)
    (folder / "synapse.yaml").write_text(
        f"""
storage:
  pool: {{provider: local, configuration: {{location: "{folder}/pool"}}}}
  other: file://{folder}/other
"""
    )
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def storage(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Return a function that calls ``synapse-kernel storage …`` in this process."""
    # What the command line changes for its own process.
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("sys.path", list(sys.path))

    def call(*args: object) -> Said:
        code = run_app(["storage", *map(str, args)])
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def spawn(work: Path) -> Callable:
    """Return a function that starts the command on a terminal of 100 columns."""
    import pexpect

    def start(*args: object) -> pexpect.spawn:
        return pexpect.spawn(
            sys.executable,
            ["-m", "synapse_kernel", "storage", *map(str, args)],
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
            encoding="utf-8",
            timeout=60,
            dimensions=(30, 100),
            cwd=str(work),
        )

    return start


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Write files of these texts."""
    for key, text in files.items():
        file = folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def files_in(folder: Path) -> dict[str, str]:
    """Return the texts of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
