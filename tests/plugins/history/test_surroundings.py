"""What a run is recorded with besides itself: the commit around its code, and the environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_kernel.stores import Environment
from synapse_plugins.history import surroundings
from synapse_plugins.history.surroundings import commit_of, environment_id, environment_of


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Forget what was seen of other tests' folders."""
    surroundings._commits.clear()
    surroundings._repository.cache_clear()
    surroundings._asked.cache_clear()
    yield
    surroundings._commits.clear()


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, with an identity and none of the user's settings."""
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *words], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with two commits."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in "12":
        git(folder, "commit", "-q", "--allow-empty", "-m", number)
    return folder


@pytest.fixture
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the program git away, so that only its files can be read."""
    monkeypatch.setenv("PATH", "/nowhere")


def head(folder: Path) -> str:
    """Return what git says is checked out."""
    return git(folder, "rev-parse", "HEAD")


def test_a_plain_repository(repository: Path, request: pytest.FixtureRequest) -> None:
    expected = head(repository)
    request.getfixturevalue("no_git")

    assert expected == commit_of(str(repository))


def test_a_folder_deep_inside_a_repository(repository: Path, request: pytest.FixtureRequest) -> None:
    (repository / "a" / "b").mkdir(parents=True)
    expected = head(repository)
    request.getfixturevalue("no_git")

    assert expected == commit_of(str(repository / "a" / "b"))


def test_a_detached_head(repository: Path, request: pytest.FixtureRequest) -> None:
    git(repository, "checkout", "-q", "HEAD~1")
    expected = head(repository)
    request.getfixturevalue("no_git")

    assert expected == commit_of(str(repository))


def test_packed_references(repository: Path, request: pytest.FixtureRequest) -> None:
    git(repository, "pack-refs", "--all")
    expected = head(repository)
    request.getfixturevalue("no_git")

    assert not (repository / ".git" / "refs" / "heads" / "main").exists()
    assert expected == commit_of(str(repository))


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_worktree(repository: Path, request: pytest.FixtureRequest, packed: bool) -> None:
    worktree = repository.parent / "worktree"
    git(repository, "worktree", "add", "-q", "-b", "topic/one", str(worktree), "HEAD~1")
    if packed:
        git(repository, "pack-refs", "--all")
    expected = head(worktree)
    assert expected != head(repository)
    request.getfixturevalue("no_git")

    assert expected == commit_of(str(worktree))


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")

    assert commit_of(str(tmp_path)) is None


@pytest.mark.usefixtures("no_git")
def test_no_repository(tmp_path: Path) -> None:
    assert commit_of(str(tmp_path)) is None


@pytest.mark.usefixtures("no_git")
@pytest.mark.parametrize("text", ["", "gitdir: ../gone", "anything \x00 at all"])
def test_a_broken_link_to_a_repository_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".git").write_text(text)

    assert commit_of(str(tmp_path)) is None


def test_references_in_another_format_are_asked_of_git(tmp_path: Path) -> None:
    try:
        git(tmp_path, "init", "-q", "--ref-format=reftable")
    except subprocess.CalledProcessError:
        pytest.skip("this git knows no reftable")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "1")

    assert head(tmp_path) == commit_of(str(tmp_path))


@pytest.mark.skipif(os.getuid() != 0, reason="takes a user who may not search a folder")
def test_a_folder_that_may_not_be_searched_is_no_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "work").mkdir(parents=True)
    closed.chmod(0o700)
    code = (
        "import os, sys\n"
        "from synapse_plugins.history.surroundings import commit_of\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(commit_of(sys.argv[1]))"
    )

    said = subprocess.run(
        ["python3", "-c", code, str(closed / "work")],
        env={**os.environ, "PATH": f"{Path(surroundings.sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("None\n", "") == (said.stdout, said.stderr)


def test_a_new_commit_is_seen(repository: Path) -> None:
    before = commit_of(str(repository))
    git(repository, "commit", "-q", "--allow-empty", "-m", "3")
    surroundings._commits.clear()

    assert head(repository) == commit_of(str(repository)) != before


def test_the_environment_has_one_id_in_a_process() -> None:
    assert environment_id() == environment_id()
    made = environment_of(environment_id())
    assert isinstance(made, Environment)
    assert sorted(made.packages, key=str.lower) == list(made.packages)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of a hundred distributions, which is all that is installed."""
    folder = tmp_path / "site-packages"
    for number in range(100):
        (folder / f"package_{number}").mkdir(parents=True)
        (folder / f"package_{number}-1.{number}.dist-info").mkdir()
    os.utime(folder, (0, 0))
    monkeypatch.setattr(surroundings.sys, "path", [str(folder)])
    return folder


def environment() -> str:
    """Return the id as a process that just began would."""
    environment_id.cache_clear()
    try:
        return environment_id()
    finally:
        environment_id.cache_clear()


def test_environments_whose_folders_are_as_old_differ_in_what_is_installed(installed: Path) -> None:
    before = environment()

    (installed / "package_7-1.7.dist-info").rename(installed / "package_7-1.8.dist-info")
    os.utime(installed, (0, 0))

    assert before != environment()


def test_an_environment_is_the_same_whatever_order_its_folder_is_read_in(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment()
    names = sorted(path.name for path in installed.iterdir())

    monkeypatch.setattr(surroundings.os, "listdir", lambda _: names[::-1])

    assert before == environment()


def test_the_id_of_an_environment_has_64_bits_that_do_not_follow_from_each_other() -> None:
    ids = [surroundings._checksum(f"a text as long as the others, {n:02}".encode()) for n in range(100)]

    assert {16} == {len(found) for found in ids}
    assert 100 == len({int(found[:8], 16) ^ int(found[8:], 16) for found in ids})


def test_the_environment_is_told_without_what_is_dear_to_import() -> None:
    code = (
        "import sys\n"
        "from synapse_plugins.history.surroundings import environment_id\n"
        "environment_id()\n"
        "print([name for name in ('hashlib', 'importlib.metadata') if name in sys.modules])"
    )

    said = subprocess.run(
        [surroundings.sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "[]\n" == said.stdout
