"""The documentation as data: its pages, and the blocks that are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Its commands start a cluster, which takes a test of its own.
RAY_PAGE = ROOT / "docs/how-to/ray.md"

_FENCE = re.compile(r"^```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# file: (\S+)\n")
_PROGRESS = re.compile(r"^\S+ [\d.]+/[\d.]+ \(\d+ %\).*$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where the text begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line says so: ``# file: hello.py``."""
        named = _FILE.match(self.text)
        return named.group(1) if named else None


def blocks_of(page: Path, replaced: Mapping[str, str] | None = None) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for old, new in (replaced or {}).items():
        text = text.replace(old, new)
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(text)
    ]


def sections_of(page: Path) -> dict[str, str]:
    """Return what stands under each heading of a page, up to the next of its level or above."""
    text = page.read_text(encoding="utf-8")
    # A comment in a block is no heading: blocks are blanked while headings are looked for.
    blanked = _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)
    headings = list(re.finditer(r"^(#+) (.+)$", blanked, re.MULTILINE))
    sections: dict[str, str] = {}
    for index, heading in enumerate(headings):
        later = (h.start() for h in headings[index + 1 :] if len(h[1]) <= len(heading[1]))
        sections[heading[2]] = text[heading.end() : next(later, len(text))]
    return sections


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `page` once for each page, one that runs it not for those it cannot run."""
    if "page" in metafunc.fixturenames:
        pages = [page for page in PAGES if page != RAY_PAGE or "run_blocks" not in metafunc.fixturenames]
        metafunc.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def blocks() -> Callable[[Path], list[Block]]:
    return blocks_of


@pytest.fixture
def sections() -> Callable[[Path], dict[str, str]]:
    return sections_of


@pytest.fixture
def docs() -> Path:
    return ROOT / "docs"


@pytest.fixture
def run_blocks(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """
    Return a function that runs the blocks of a page, in order, in a folder of their own.

    The folder holds ``docs/examples``. Blocks that are files are written there, ```python blocks are run in
    one namespace, ```console blocks by a shell that finds the commands of this environment. Texts of the page
    can be replaced, such as a port by one that is free.
    """
    folder = tmp_path / "work"
    shutil.copytree(
        ROOT / "docs/examples", folder / "docs/examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(own_home))

    def run(page: Path, replaced: Mapping[str, str] | None = None) -> None:
        # A module of its own, as a script is: what the blocks define can be named ``module:attribute``.
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)
        for block in blocks_of(page, replaced):
            place = f"{page.relative_to(ROOT)}:{block.line}"
            if block.file is not None:
                file = folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), module.__dict__)
            elif block.language == "console":
                run_console(block.text, place)

    yield run
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def run_console(text: str, place: str) -> None:
    """
    Run the commands of a ```console block and compare what they print with what stands under them.

    ``…`` there matches anything. Without output under it a command must merely succeed; it may fail only
    where an error is shown. How often progress is told, and between which other lines, depends on the time:
    what is shown of it must be among what was told.
    """
    for command, expected in commands_of(text):
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=300,
        )
        printed = "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())
        told = f"{place}: $ {command}\nexited with {done.returncode} and printed:\n{printed}"
        if expected:
            instead = f"{told}\ninstead of:\n{expected}"
            wanted, expected_rest = without_progress(expected)
            told_of, printed_rest = without_progress(printed)
            assert wanted <= told_of, instead
            assert re.fullmatch(pattern_of(expected_rest), printed_rest, re.DOTALL), instead
        assert done.returncode == 0 or "Error" in expected, told


def pattern_of(expected: str) -> str:
    """Return the pattern of an output: ``…`` is any text, on a line of its own any lines, or none."""
    whole_lines = re.split(r"^…\n", expected, flags=re.MULTILINE)
    return r"(?:.*\n)?".join(".*".join(map(re.escape, part.split("…"))) for part in whole_lines)


def without_progress(text: str) -> tuple[set[str], str]:
    """Return the lines of progress in an output, and the rest of it."""
    return {line.rstrip() for line in _PROGRESS.findall(text)}, _PROGRESS.sub("", text).rstrip()


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a ```console block (a line that ends in a backslash goes on) and its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command}\n{more}"
        yield command, output.rstrip()
