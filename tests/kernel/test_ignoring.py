"""What ignore files leave out is what Git leaves out."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from synapse_kernel.ignoring import OWN_IGNORE
from synapse_kernel.storage.archive_contents import Choice, LocalFolder, items_of

NAMES = ["a", "b", "c.log", "d.txt", "build", "x y"]
PATTERNS = [
    "a", "b/", "*.log", "!c.log", "/a", "a/b", "**/b", "b/**", "!b", "!b/", "*", "!*/", "!*.txt", "build/",
    "!build/d.txt", "x\\ y", "[ab]", "?", "a/*", "!a/b", "a/**/c.log", "#x", "\\!b", "!a/", "/*", "/b/c.log",
    "!/a", "*.txt ", "d.txt", "!**/d.txt",
]  # fmt: skip

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def packed(folder: Path) -> set[str]:
    found = items_of(LocalFolder(folder), Choice(ignore=True))
    return {item.name for item in found if not item.is_folder}


def seen_by_git(folder: Path) -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(filter(None, done.stdout.split("\0")))


def fill(folder: Path, chance: random.Random, depth: int = 0) -> None:
    for name in NAMES:
        drawn = chance.random()
        if drawn < 0.35:
            (folder / name).write_text("")
        elif drawn < 0.6 and depth < 3:
            (folder / name).mkdir()
            fill(folder / name, chance, depth + 1)
    if chance.random() < (0.9 if depth == 0 else 0.3):
        lines = [chance.choice(PATTERNS) for _ in range(chance.randint(1, 5))]
        (folder / ".gitignore").write_text("\n".join(lines) + "\n")


@needs_git
@pytest.mark.parametrize("seed", [10, 19, 76, 80, *range(200, 216)])
def test_a_repository_and_a_folder_in_it_are_seen_as_git_sees_them(tmp_path: Path, seed: int):
    """The first four seeds are trees that pathspec's own match sees in another way."""
    chance = random.Random(seed)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    fill(tmp_path, chance)
    inner = [path for path in tmp_path.rglob("*") if path.is_dir() and ".git" not in path.parts]
    folder = chance.choice(sorted(inner)) if inner else tmp_path
    named = ["git", "check-ignore", "-q", str(folder)]

    assert seen_by_git(tmp_path) == packed(tmp_path)
    if folder != tmp_path and subprocess.run(named, cwd=tmp_path, check=False).returncode:
        assert seen_by_git(folder) == packed(folder)


def test_files_above_a_folder_count_as_far_as_the_repository_reaches(tmp_path: Path):
    (tmp_path / ".gitignore").write_text("*.md\n")
    repository = tmp_path / "repository"
    inner = repository / "packages/one"
    inner.mkdir(parents=True)
    (repository / ".git").mkdir()
    (repository / ".gitignore").write_text("*.log\n/packages/one/data\n")
    (repository / "packages/.gitignore").write_text("!keep.log\n")
    for name in ["a.log", "keep.log", "a.md", "data"]:
        (inner / name).write_text("")

    assert {"a.md", "keep.log"} == packed(inner)


@pytest.mark.parametrize("pattern", ["runs/", "runs/**", "/runs/*", "*"])
def test_a_folder_that_is_ignored_itself_is_packed_when_it_is_named(tmp_path: Path, pattern: str):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text(f"{pattern}\n")
    (tmp_path / "runs/1").mkdir(parents=True)
    (tmp_path / "runs/1/metrics.json").write_text("")

    assert {"metrics.json"} == packed(tmp_path / "runs/1")


def test_our_own_file_has_the_last_word(tmp_path: Path):
    (tmp_path / "weights/best").mkdir(parents=True)
    (tmp_path / "weights/best/model.pt").write_text("")
    (tmp_path / "weights/last.pt").write_text("")
    (tmp_path / "notes.md").write_text("")
    (tmp_path / ".gitignore").write_text("weights/\n!notes.md\n")
    (tmp_path / OWN_IGNORE).write_text("*.md\n!/weights/best/model.pt\n")

    assert {".gitignore", OWN_IGNORE, "weights/best/model.pt"} == packed(tmp_path)


def test_what_is_made_anew_everywhere_is_left_out(tmp_path: Path):
    for name in [".git/config", "a/__pycache__/a.pyc", "b.pyc", ".venv/pyvenv.cfg", "a/a.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    assert {"a/a.py"} == packed(tmp_path)


def test_an_ignore_file_may_begin_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / ".gitignore").write_text("\ufeffa.txt\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("")

    assert {".gitignore"} == packed(tmp_path)


@pytest.mark.parametrize("line", ["!", "a.txt\\"])
def test_a_line_that_is_no_pattern_names_nothing(tmp_path: Path, line: str):
    (tmp_path / ".gitignore").write_text(f"{line}\nb.txt\n")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")

    assert {".gitignore", "a.txt"} == packed(tmp_path)
