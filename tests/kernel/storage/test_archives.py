"""What is packed: chosen by ignore files and patterns, whole or not at all, and the same bytes each time."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.kernel.storage.archive_trees import FORMATS, make_tree, names_in, read_tree

from synapse_kernel import Kernel
from synapse_kernel.errors import MissingPackageError
from synapse_kernel.storage import (
    Location,
    StorageConfigError,
    StorageError,
    StorageNotFoundError,
    TransferProgress,
)
from synapse_kernel.storage.archive_formats import ArchiveError
from synapse_kernel.storage.archive_reading import extract_archive
from synapse_kernel.storage.archives import ArchiveReport, create_archive

DATA = Path(__file__).parents[3].parent / "shared/data"
PARTS = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
TREES = st.dictionaries(
    st.lists(PARTS.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=4).map("/".join),
    st.one_of(st.none(), st.binary(max_size=40)),
    max_size=8,
)


@pytest.fixture(params=FORMATS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A place for an archive of each format."""
    return tmp_path / f"packed.{request.param}"


def names_packed(archive: Path, tmp_path: Path) -> list[str]:
    shutil.rmtree(tmp_path / "looked at", ignore_errors=True)
    extract_archive(archive, tmp_path / "looked at")
    return sorted(read_tree(tmp_path / "looked at"))


# Round trips


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=TREES)
def test_any_tree_comes_back(
    tmp_path_factory: pytest.TempPathFactory, kind: str, files: dict[str, bytes | None]
):
    folder = tmp_path_factory.mktemp("tree")
    # Of names where one is a folder of another, or begins as a drive, there is no tree or archive.
    kept: dict[str, bytes | str | None] = {
        name: content
        for name, content in files.items()
        if not any(other.startswith(f"{name}/") for other in files)
        and not (name[1:2] == ":" and name[0].isalpha() and name[0].isascii())
    }
    make_tree(folder / "in", kept)

    create_archive(folder / "in", folder / f"a.{kind}", ignore=False)
    extract_archive(folder / f"a.{kind}", folder / "out")

    assert read_tree(folder / "in") == read_tree(folder / "out")


def test_links_modes_and_empty_folders_come_back(archive: Path, tmp_path: Path):
    tree: dict[str, bytes | str | None] = {
        "bin/run": b"#!",
        "bin/latest": "run",
        "up/again": "../bin",
        "through": "up/again/run",
        "broken": "not/there",
        "round": "round",
        "empty/inner": None,
        "ünï/ﬁle \n%41#?.txt": b"x",
    }
    folder = make_tree(tmp_path / "in", tree)
    (folder / "bin/run").chmod(0o4700)

    report = create_archive(folder, archive)
    unpacked = extract_archive(archive, tmp_path / "out")

    assert tree == read_tree(tmp_path / "out")
    assert ArchiveReport(files=7, bytes=3) == report == unpacked
    umask = os.umask(0)
    os.umask(umask)
    assert 0o755 & ~umask == (tmp_path / "out/bin/run").stat().st_mode & 0o7777
    assert 0o644 & ~umask == next((tmp_path / "out/ünï").iterdir()).stat().st_mode & 0o7777


@pytest.mark.parametrize("kind", FORMATS)
def test_a_real_dataset_comes_back_byte_for_byte(tmp_path: Path, kind: str):
    folder = DATA / "coco-tiny-train"
    if not folder.is_dir():
        pytest.skip("needs the dataset coco-tiny-train")

    create_archive(folder, tmp_path / f"a.{kind}", ignore=False)
    extract_archive(tmp_path / f"a.{kind}", tmp_path / "out")

    assert read_tree(folder) == read_tree(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("zip", ["unzip", "-q", "{archive}", "-d", "{out}"]),
        ("tar.gz", ["tar", "-xzf", "{archive}", "-C", "{out}"]),
        ("tar.zst", ["tar", "--zstd", "-xf", "{archive}", "-C", "{out}"]),
    ],
)
def test_other_programs_unpack_it(tmp_path: Path, kind: str, command: list[str]):
    if shutil.which(command[0]) is None or (kind == "tar.zst" and shutil.which("zstd") is None):
        pytest.skip(f"needs {command[0]}")
    tree: dict[str, bytes | str | None] = {"a/ü.txt": b"1", f"{'long' * 40}/b": b"2", "l": "a/ü.txt"}
    folder = make_tree(tmp_path / "in", tree)
    (tmp_path / "out").mkdir()

    create_archive(folder, tmp_path / f"a.{kind}")
    filled = [part.format(archive=tmp_path / f"a.{kind}", out=tmp_path / "out") for part in command]
    subprocess.run(filled, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})

    assert tree == read_tree(tmp_path / "out")


# The same bytes


def test_the_same_files_give_the_same_bytes_wherever_and_whenever_they_were_written(
    archive: Path, tmp_path: Path
):
    files: dict[str, bytes | str | None] = {"b/ü": b"2" * 5000, "a": b"1", "c/d": b"3", "e": None}
    one = make_tree(tmp_path / "one", files)
    other = make_tree(tmp_path / "deeper/other", dict(reversed(files.items())))
    (one / "a").chmod(0o600)
    os.utime(other / "b/ü", (1, 1))
    again = archive.with_name(f"another{archive.name}")

    create_archive(one, archive)
    create_archive(other, again)

    assert archive.read_bytes() == again.read_bytes()


def test_another_hash_seed_or_zone_gives_the_same_bytes(archive: Path, tmp_path: Path):
    make_tree(tmp_path / "in", {f"{n}/ü{n}": b"x" for n in range(20)})
    code = "import sys, synapse_kernel.storage.archives as made; made.create_archive(*sys.argv[1:])"
    made = []
    for seed, zone in [("1", "UTC"), ("2", "Asia/Kolkata")]:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": zone,
            "SOURCE_DATE_EPOCH": f"{seed}000000000",
        }
        command = [sys.executable, "-c", code, str(tmp_path / "in"), str(archive)]
        subprocess.run(command, env=environment, check=True)
        made.append(archive.read_bytes())

    assert made[0] == made[1]


def test_a_gzip_header_holds_no_name_and_no_time(tmp_path: Path):
    create_archive(make_tree(tmp_path / "in", {"a": b"1"}), tmp_path / "a.tgz")

    assert b"\x1f\x8b\x08\0\0\0\0\0" == (tmp_path / "a.tgz").read_bytes()[:8]


def test_an_executable_file_is_another_archive(archive: Path, tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": b"1"})
    create_archive(folder, archive)
    before = archive.read_bytes()
    (folder / "a").chmod(0o755)
    create_archive(folder, archive)

    assert before != archive.read_bytes()


# What is packed


def test_ignore_files_count_and_can_be_told_not_to(tmp_path: Path):
    folder = make_tree(
        tmp_path / "in",
        {".gitignore": b"*.log\n", "a.log": b"", "b.txt": b"", "sub/.gitignore": b"!c.log", "sub/c.log": b""},
    )

    create_archive(folder, tmp_path / "a.zip")
    create_archive(folder, tmp_path / "b.zip", ignore=False)

    assert [".gitignore", "b.txt", "sub/.gitignore", "sub/c.log"] == names_packed(
        tmp_path / "a.zip", tmp_path
    )
    assert [".gitignore", "a.log", "b.txt", "sub/.gitignore", "sub/c.log"] == names_packed(
        tmp_path / "b.zip", tmp_path
    )


def test_patterns_take_some_and_leave_some(tmp_path: Path):
    folder = make_tree(
        tmp_path / "in", {"images/1.jpg": b"", "images/2.png": b"", "raw/3.jpg": b"", "e": None, "n.txt": b""}
    )

    create_archive(folder, tmp_path / "a.zip", include=["*.jpg", "/n.txt"], exclude=["raw/"])

    assert ["images/1.jpg", "n.txt"] == names_packed(tmp_path / "a.zip", tmp_path)


def test_nothing_left_to_pack_is_an_error(tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a.jpeg": b""})

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, tmp_path / "a.zip", include=["*.jpg"])

    assert (
        f"Storage: create_archive {str(tmp_path / 'a.zip')!r}: nothing of the folder is left to pack: see "
        f"its ignore files, include= and exclude=, or pack all of it with ignore=False" == str(raised.value)
    )
    assert not (tmp_path / "a.zip").exists()


def test_an_empty_folder_is_an_archive_of_nothing(archive: Path, tmp_path: Path):
    create_archive(make_tree(tmp_path / "in", {}), archive)

    assert ArchiveReport(files=0, bytes=0) == extract_archive(archive, tmp_path / "out")
    assert [] == list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../x", "leads out of the folder"),
        ("a/../../x", "leads out of the folder"),
        ("inner/x", "leads out of the folder"),
        ("/etc/hosts", "is absolute"),
        ("a\\b", "holds a backslash, which separates folders on some systems"),
    ],
)
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, target: str, reason: str):
    folder = make_tree(tmp_path / "in", {"deep/er/x": b"", "inner": "deep/er/../../..", "l": target})
    if not target.startswith("inner"):
        (folder / "inner").unlink()

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, tmp_path / "a.zip")

    link = f"'inner' -> {'deep/er/../../..'!r}" if target.startswith("inner") else f"'l' -> {target!r}"
    assert (
        f"Storage: create_archive {str(tmp_path / 'a.zip')!r}: the link {link} {reason}, and would lead "
        f"elsewhere where it is unpacked: make it a relative one to something in the folder, or leave it out "
        f"with exclude= or an ignore file" == str(raised.value)
    )
    assert ["in"] == names_in(tmp_path)


def test_a_link_out_of_the_folder_can_be_left_out(tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": b"", "l": "/etc/hosts"})

    create_archive(folder, tmp_path / "a.zip", exclude=["/l"])

    assert ["a"] == names_packed(tmp_path / "a.zip", tmp_path)


def test_a_socket_and_a_named_pipe_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_tree(tmp_path / "in", {"a": b""})
    monkeypatch.chdir(folder)
    told = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ArchiveError) as raised:
            create_archive(folder, tmp_path / "a.zip")
        told.append(raised.value.reason)
    (folder / "s").unlink()
    os.mkfifo(folder / "p")
    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, tmp_path / "a.zip")
    told.append(raised.value.reason)

    rest = "which no archive holds: leave it out with exclude= or an ignore file"
    assert [f"'s' is a socket, {rest}", f"'p' is a named pipe, {rest}"] == told


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"a\\b", "holds a backslash, which separates folders on some systems"),
        (b"c:x", "begins with a drive letter"),
        (b"\xff", "is not valid UTF-8"),
    ],
)
def test_a_name_that_cannot_be_unpacked_everywhere_is_refused(tmp_path: Path, name: bytes, reason: str):
    folder = make_tree(tmp_path / "in", {})
    (folder / os.fsdecode(name)).write_bytes(b"")

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, tmp_path / "a.zip")

    assert (
        f"the name {os.fsdecode(name)!r} {reason}, and could not be unpacked everywhere: rename it, or leave "
        f"it out with exclude= or an ignore file" == raised.value.reason
    )


def test_names_that_are_one_to_some_file_systems_are_noted(archive: Path, tmp_path: Path):
    names = ["README", "readme", "e\u0301", "\xe9", "x"]
    folder = make_tree(tmp_path / "in", dict.fromkeys(names, b""))
    expected = (("README", "readme"), ("e\u0301", "\xe9"))

    assert expected == create_archive(folder, archive).collisions
    assert expected == extract_archive(archive, tmp_path / "out").collisions


# The target


def test_a_target_inside_the_source_is_refused_unless_it_is_left_out(tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": b"1", "dist/.gitignore": b"*.zip"})

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, folder / "a.zip")
    create_archive(folder, folder / "dist/a.zip")
    create_archive(folder, folder / "b.zip", exclude=["b.zip"])
    first = (folder / "dist/a.zip").read_bytes()
    create_archive(folder, folder / "dist/a.zip", exclude=["/b.zip"])

    assert (
        "it lies in the folder that it is made of, and would hold the archive before it: put it elsewhere, "
        "or leave it out with exclude= or an ignore file" == raised.value.reason
    )
    assert first == (folder / "dist/a.zip").read_bytes()


def test_a_failure_leaves_what_was_there(archive: Path, tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": bytes(5 << 20)})
    archive.write_bytes(b"before")

    def stop(progress: TransferProgress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        create_archive(folder, archive, progress=stop)

    assert b"before" == archive.read_bytes()
    assert {"in", archive.name} == set(names_in(tmp_path))


def test_a_file_that_changes_while_it_is_read_is_an_error(archive: Path, tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": bytes(3 << 20)})

    def grow(progress: TransferProgress) -> None:
        if progress.bytes < 2 << 20:
            with (folder / "a").open("ab") as file:
                file.write(b"more")

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, archive, progress=grow)

    assert "'a' changed while it was read: let its writer finish, and try again" == raised.value.reason
    assert ["in"] == names_in(tmp_path)


def test_a_file_that_is_written_anew_in_its_place_is_an_error_too(archive: Path, tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": bytes(3 << 20)})

    def rewrite(progress: TransferProgress) -> None:
        with (folder / "a").open("r+b") as file:
            file.write(b"other")
        os.utime(folder / "a", (1, 1))

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, archive, progress=rewrite)

    assert "'a' changed while it was read: let its writer finish, and try again" == raised.value.reason


def test_progress_tells_how_much_there_is(archive: Path, tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": bytes(100), "b": bytes(50), "e": None})
    told: list[TransferProgress] = []

    create_archive(folder, archive, progress=told.append)

    whole = TransferProgress(operation="create_archive", files=2, bytes=150, total_files=2, total_bytes=150)
    assert whole == told[-1]
    assert {150} == {each.total_bytes for each in told}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda folder: create_archive(folder, folder / "a.rar"),
            "the name does not tell the format: let it end in one of .tar.gz, .tar.zst, .tgz, .tzst, .zip, "
            "or give format=",
        ),
        (
            lambda folder: create_archive(folder, folder / "a", format="zipp"),
            "there is no archive format 'zipp'; did you mean 'zip'?; formats: tar.gz, tar.zst, zip",
        ),
        (
            lambda folder: create_archive(folder, folder / "a.zip", level=11),
            "zip has the levels 0 to 9, and 11 is none of them",
        ),
        (
            lambda folder: create_archive(folder / "file", folder / "a.zip"),
            "an archive is made of a folder, and {folder}/file is a file",
        ),
        (
            lambda folder: create_archive(folder / "no", folder / "a.zip"),
            "there is no local folder {folder}/no",
        ),
        (
            lambda folder: create_archive(folder, folder, format="zip"),
            "{folder} is a folder: give the archive a name in it",
        ),
    ],
)
def test_options_that_cannot_be_used_are_told(tmp_path: Path, call: object, reason: str):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises((StorageConfigError, StorageNotFoundError)) as raised:
        call(tmp_path)  # type: ignore[operator]

    assert reason.format(folder=tmp_path) == raised.value.reason


def test_a_file_that_cannot_be_read_is_named(archive: Path, tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may read all files")
    folder = make_tree(tmp_path / "in", {"a": b"1"})
    (folder / "a").chmod(0)

    with pytest.raises(ArchiveError) as raised:
        create_archive(folder, archive)

    assert f"{folder / 'a'}: Permission denied" == raised.value.reason


def test_a_missing_package_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_tree(tmp_path / "in", {"a": b"1"})
    monkeypatch.setitem(sys.modules, "pathspec", None)
    monkeypatch.delattr("backports.zstd", raising=False)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)

    create_archive(folder, tmp_path / "a.zip")
    told = []
    for name, options in [("a.zip", {"include": ["a"]}), ("a.tar.zst", {})]:
        with pytest.raises(MissingPackageError) as raised:
            create_archive(folder, tmp_path / name, **options)  # type: ignore[arg-type]
        told.append(str(raised.value))

    install = "which is not installed. Install it with: pip install 'synapse-kernel[archives]'"
    assert [
        f"Archive option 'include=' needs the package 'pathspec', {install}",
        f"Archive format 'tar.zst' needs the package 'backports.zstd', {install}",
    ] == told


# Storages


def test_an_archive_goes_from_storage_to_storage(archive: Path, tmp_path: Path, kernel: Kernel):
    tree: dict[str, bytes | str | None] = {
        ".gitignore": b"*.log\n",
        "x.log": b"",
        "large": bytes(3 << 20),
        **{f"{n % 3}/ü{n}": bytes([n]) * n for n in range(40)},
    }
    make_tree(tmp_path / "root/in", tree)
    storage = kernel.storage(f"file://{tmp_path}/root")

    report = create_archive(Location(storage, "in"), storage.get_pathlib(f"out/{archive.name}"))
    create_archive(tmp_path / "root/in", archive)
    extract_archive(Location(storage, f"out/{archive.name}"), tmp_path / "out")

    del tree["x.log"]
    assert tree == read_tree(tmp_path / "out")
    assert archive.read_bytes() == storage.read_bytes(f"out/{archive.name}")
    assert 42 == report.files
    assert {"root", "out", archive.name} == set(names_in(tmp_path))


def test_a_target_inside_a_source_of_the_same_storage_is_refused(tmp_path: Path, kernel: Kernel):
    make_tree(tmp_path / "in", {"a": b"1"})
    storage = kernel.storage(f"file://{tmp_path}")

    with pytest.raises(ArchiveError, match="it lies in the folder that it is made of"):
        create_archive(Location(storage, "in"), Location(storage.at("in"), "a.zip"))
    create_archive(Location(storage, "in"), Location(storage, "in.zip"))

    assert ["in", "in.zip"] == names_in(tmp_path)


def test_a_source_that_is_not_in_its_storage_is_not_found(tmp_path: Path, kernel: Kernel):
    storage = kernel.storage(f"file://{tmp_path}")

    with pytest.raises(StorageError) as raised:
        create_archive(Location(storage, "no"), tmp_path / "a.zip")

    assert "Storage 'local': info 'no': there is nothing under this key" == str(raised.value)


def test_readers_see_the_old_archive_or_the_new_one(tmp_path: Path):
    folder = make_tree(tmp_path / "in", {"a": b"1" * 100_000})
    target = tmp_path / "a.zip"
    create_archive(folder, target)
    done = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not done.is_set():
            with zipfile.ZipFile(target) as archive:
                seen.add(str(archive.testzip()))

    reader = threading.Thread(target=look)
    reader.start()
    end = time.monotonic() + 20
    for _ in range(20):
        create_archive(folder, target)
        assert time.monotonic() < end
    done.set()
    reader.join()

    assert {"None"} == seen


# Large ones


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_more_than_4_gib_comes_back(tmp_path: Path, kind: str):
    size = (4 << 30) + 5
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/large").open("wb") as file:
        file.truncate(size)
        file.seek(size - 1)
        file.write(b"!")

    create_archive(tmp_path / "in", tmp_path / f"a.{kind}", level=1)
    extract_archive(tmp_path / f"a.{kind}", tmp_path / "out")

    with (tmp_path / "out/large").open("rb") as file:
        file.seek(size - 2)
        assert b"\0!" == file.read()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_more_than_65535_files_come_back(tmp_path: Path, kind: str):
    for number in range(66_000):
        folder = tmp_path / f"in/{number % 100}"
        if number < 100:
            folder.mkdir(parents=True)
        (folder / str(number)).touch()

    create_archive(tmp_path / "in", tmp_path / f"a.{kind}")

    assert 66_000 == extract_archive(tmp_path / f"a.{kind}", tmp_path / "out").files
    assert 66_000 == sum(len(files) for _, _, files in os.walk(tmp_path / "out"))
