"""The folders of actions that the executor's contract runs, written where a test wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.testing.executor_actions import FILES

if TYPE_CHECKING:
    from pathlib import Path

# Two folders of these differ in a word that each has in a package of the same name.
_TWIN = {
    "config.yaml": "name: twin\nactions:\n  say: main:say\n",
    "main.py": """\
from parts.word import WORD, Spoken

from synapse_kernel import action


@action
def say(params, ctx) -> Spoken:
    from parts import word

    ctx.log_message(WORD)
    return Spoken(word=WORD, later=word.WORD)
""",
    "parts/__init__.py": "",
    "parts/word.py": """\
from pydantic import BaseModel

WORD = "{word}"


class Spoken(BaseModel):
    word: str
    later: str
""",
}

# What loads where it is looked at before the run, and not where the run takes place.
_LOADS_HERE = {
    "config.yaml": "name: once\nactions:\n  run: main:run\n",
    "main.py": """\
import os

from synapse_kernel import action

if "CONTRACT_OF_THE_CALLER" not in os.environ:
    raise RuntimeError("this module needs CONTRACT_OF_THE_CALLER")


@action
def run(params, ctx):
    return 1
""",
}


def write_actions(folder: Path) -> Path:
    """Write the actions of the contract."""
    return _write(folder, FILES)


def write_twin(folder: Path, word: str) -> Path:
    """Write a folder whose one action says a word; its packages are named like those of every other."""
    return _write(folder, {path: text.replace("{word}", word) for path, text in _TWIN.items()})


def write_what_loads_here(folder: Path) -> Path:
    """Write a folder that does not load without the variable ``CONTRACT_OF_THE_CALLER``."""
    return _write(folder, _LOADS_HERE)


def _write(folder: Path, files: dict[str, str]) -> Path:
    for relative, text in files.items():
        file = folder / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder
