"""Which files of a folder travel: those that Git sees, wherever in a repository the folder lies."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.kernel.test_ignoring import fill, seen_by_git

from synapse_plugins.ray_executors import folder_files
from synapse_plugins.ray_executors.folder_files import FolderFiles

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def shipped(folder: Path, *, git: bool = True) -> set[str]:
    return {file.relative for file in FolderFiles(str(folder), git=git).look()}


def ignored_by_git(folder: Path, names: list[str]) -> set[str]:
    command = ["git", "check-ignore", "--stdin", "-z"]
    given = "".join(f"{name}\0" for name in names)
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return set(filter(None, done.stdout.split("\0")))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def write(folder: Path, **contents: str) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@needs_git
@pytest.mark.parametrize("seed", [10, 19, 76, 80, *range(300, 312)])
def test_each_folder_of_a_repository_travels_as_git_sees_it(repository: Path, seed: int) -> None:
    fill(repository, random.Random(seed))
    folders = [path for path in repository.rglob("*") if path.is_dir() and ".git" not in path.parts]
    ignored = ignored_by_git(repository, [str(folder) for folder in folders])

    for folder in [repository, *(each for each in folders if str(each) not in ignored)]:
        assert seen_by_git(folder) == shipped(folder), folder


@needs_git
def test_a_pattern_for_folders_names_no_file_of_an_ignored_folder_again(repository: Path) -> None:
    write(repository, **{".gitignore": "build\n", "build/a/b.py": "", "lab/build/c.py": "", "lab/d.py": ""})
    write(repository, **{"lab/.gitignore": "!*/\n*.tmp\n", "lab/e.tmp": "", "lab/deep/.gitignore": "!*/\n"})
    write(repository, **{"lab/deep/f.tmp": ""})

    names = {"build/c.py", "d.py", "e.tmp", ".gitignore", "deep/.gitignore", "deep/f.tmp"}
    assert names - ignored_by_git(repository / "lab", sorted(names)) == shipped(repository / "lab")
    assert {"d.py", "build/c.py", ".gitignore", "deep/.gitignore"} == shipped(repository / "lab")


@needs_git
def test_ignore_files_above_a_folder_count_in_its_repository_alone(tmp_path: Path) -> None:
    write(tmp_path, **{".gitignore": "*.md\n", "r/.gitignore": "*.log\n/packages/lab/data/\n"})
    write(tmp_path, **{"r/packages/.gitignore": "!kept.log\n", "r/packages/lab/data/x.bin": ""})
    write(tmp_path, **{f"r/packages/lab/{name}": "" for name in ["a.log", "kept.log", "a.md", "a.py"]})
    subprocess.run(["git", "init", "-q", str(tmp_path / "r")], check=True)
    lab = tmp_path / "r/packages/lab"

    assert {"kept.log", "a.md", "a.py"} == seen_by_git(lab) == shipped(lab)


@needs_git
def test_a_link_is_no_gitignore(repository: Path) -> None:
    write(repository, **{"patterns": "*.py\n", "lab/a.py": ""})
    (repository / ".gitignore").symlink_to("patterns")
    (repository / "lab/.gitignore").symlink_to("../patterns")

    assert {".gitignore", "a.py"} == seen_by_git(repository / "lab") == shipped(repository / "lab")


def test_a_synapseignore_above_has_the_last_word_too(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, **{".gitignore": "*.pt\n", ".synapseignore": "!best.pt\nnotes/\n"})
    write(tmp_path, **{"lab/best.pt": "", "lab/last.pt": "", "lab/notes/a.txt": "", "lab/a.py": ""})

    assert {"best.pt", "a.py"} == shipped(tmp_path / "lab")


def test_a_folder_that_is_ignored_itself_travels_whole(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, **{".gitignore": "/scratch/\n*.log\n", "scratch/a.py": "", "scratch/a.log": ""})

    assert {"a.py", "a.log"} == shipped(tmp_path / "scratch")


def test_a_package_travels_whatever_git_would_ignore(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, **{".gitignore": "*.so\n", "package/a.so": "", "package/.gitignore": "*\n"})

    assert {"a.so", ".gitignore"} == shipped(tmp_path / "package", git=False)


def test_what_changes_above_a_folder_counts_at_once(tmp_path: Path) -> None:
    write(tmp_path, **{".gitignore": "*.log\n", "lab/in/a.log": "", "lab/in/b.csv": ""})
    files = FolderFiles(str(tmp_path / "lab"))

    def names() -> set[str]:
        return {file.relative for file in files.look()}

    assert {"in/a.log", "in/b.csv"} == names()
    (tmp_path / ".git").mkdir()
    assert {"in/b.csv"} == names()
    (tmp_path / ".gitignore").write_text("*.log\n*.csv\n")
    assert set() == names()
    (tmp_path / ".gitignore").unlink()
    assert {"in/a.log", "in/b.csv"} == names()
    (tmp_path / ".synapseignore").write_text("*.csv\n")
    assert {"in/a.log"} == names()
    (tmp_path / "lab/.git").write_text("gitdir: elsewhere\n")
    assert {".git", "in/a.log", "in/b.csv"} == names()


def test_ignore_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, **{".gitignore": "*.log\n", "lab/.gitignore": "*.csv\n", "lab/a.py": ""})
    files = FolderFiles(str(tmp_path / "lab"))
    first = files.look()

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(folder_files, "rules_above", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    assert first == files.look()
