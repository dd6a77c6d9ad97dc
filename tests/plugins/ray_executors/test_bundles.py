"""Bundles: what of a folder or package travels to a worker, under a name made of its content."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_kernel import Kernel, UsageError
from synapse_kernel.contracts import ActionRef, Task
from synapse_plugins.ray_executors import bundles, code_bundles, folder_files
from synapse_plugins.ray_executors.bundles import Bundle, folder_bundle

OLD = time.time() - 1000


def members(bundle: Bundle) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(bundle.data())) as packed:
        return packed.namelist()


def inside(folder: Path, **options: object) -> list[str]:
    """Return what travels of a folder, relative to it."""
    names = members(folder_bundle(folder, **options))  # type: ignore[arg-type]
    return sorted(name.removeprefix(f"{folder.name}/") for name in names if name != f"{folder.name}/")


def age(folder: Path) -> None:
    """Make the files of a folder old enough for their times to be believed."""
    for file in folder.rglob("*"):
        os.utime(file, (OLD, OLD))


def task_of(entrypoint: str, folder: str | None = None) -> Task:
    return Task(run_id="r", action="a", ref=ActionRef(entrypoint, folder))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files whose content is read, as that happens."""
    names: list[str] = []
    real = bundles._hash_of

    def told(path: str) -> str:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(bundles, "_hash_of", told)
    return names


@pytest.fixture
def fresh_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget which packages were bundled, before and after."""
    monkeypatch.setattr(code_bundles, "_made", {})
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("shipped_"):
            del sys.modules[name]


# Which files travel.


def test_a_folder_travels_under_its_own_name(make_folder: Callable[..., Path]) -> None:
    bundle = folder_bundle(make_folder({"train.py": "x = 1", "plugin/data.py": "y = 2"}, "yolo"))
    assert ["yolo/", "yolo/plugin/data.py", "yolo/train.py"] == members(bundle)
    assert ("yolo", "yolo", "folder") == (bundle.name, bundle.inside, bundle.kind)


def test_a_folder_without_files_is_one_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ["empty/"] == members(folder_bundle(tmp_path / "empty"))


def test_what_gitignore_names_stays(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            ".gitignore": "*.log\n!kept.log\n/data\nbuild/\n",
            "a.py": "",
            "a.log": "",
            "kept.log": "",
            "data/big.bin": "",
            "plugin/data/small.bin": "",
            "build/out.txt": "",
        }
    )
    assert [".gitignore", "a.py", "kept.log", "plugin/data/small.bin"] == inside(folder)


def test_a_nested_gitignore_counts_from_its_own_folder_and_over_those_above(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(
        {
            ".gitignore": "*.csv\n",
            "a.csv": "",
            "plugin/.gitignore": "!b.csv\n/secret.py\n",
            "plugin/b.csv": "",
            "plugin/c.csv": "",
            "plugin/secret.py": "",
            "secret.py": "",
        }
    )
    assert [".gitignore", "plugin/.gitignore", "plugin/b.csv", "secret.py"] == inside(folder)


def test_synapseignore_has_the_last_word(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            ".gitignore": "*.pt\nmodels/\n",
            ".synapseignore": "!yolo.pt\n!models/small.bin\nnotes.md\n",
            "yolo.pt": "",
            "other.pt": "",
            "models/small.bin": "",
            "models/large.bin": "",
            "models/deep/large.bin": "",
            "notes.md": "",
        }
    )
    assert [".gitignore", ".synapseignore", "models/small.bin", "yolo.pt"] == inside(folder)


def test_files_to_keep_come_whatever_an_ignore_file_says(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({".synapseignore": "wheels\n*.whl\n", "wheels/a.whl": "", "wheels/b.whl": ""})
    assert [".synapseignore", "wheels/a.whl"] == inside(folder, keep=["wheels/a.whl"])


def test_caches_virtual_environments_and_repositories_never_travel(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            ".synapseignore": "!.git\n!*.pyc\n",
            "a.py": "",
            "a.pyc": "",
            ".git/config": "",
            "pkg/__pycache__/a.pyc": "",
            ".venv/x.py": "",
            "my_env/pyvenv.cfg": "",
            "my_env/lib/x.py": "",
            "web/node_modules/x.js": "",
            ".mypy_cache/x.json": "",
        }
    )
    assert [".synapseignore", "a.py"] == inside(folder)


def test_links_are_followed_out_of_the_folder_too(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder({"a.py": "x = 1"})
    outside = make_folder({"b.py": "y = 2"}, "outside")
    (folder / "file.py").symlink_to(folder / "a.py")
    (folder / "linked").symlink_to(outside)
    bundle = folder_bundle(folder)
    with zipfile.ZipFile(io.BytesIO(bundle.data())) as packed:
        assert b"x = 1" == packed.read("plugin_folder/file.py")
        assert b"y = 2" == packed.read("plugin_folder/linked/b.py")


def test_links_that_go_round_or_nowhere_are_passed_over(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"a/x.py": "", "b/y.py": ""})
    (folder / "a/round").symlink_to(folder)
    (folder / "a/b").symlink_to(folder / "b")
    (folder / "b/a").symlink_to(folder / "a")
    (folder / "nowhere").symlink_to(folder / "gone")
    assert ["a/b/y.py", "a/x.py", "b/a/x.py", "b/y.py"] == inside(folder)


# The digest.


def test_the_digest_is_of_names_contents_and_executability_and_not_of_times(tmp_path: Path) -> None:
    def digest(name: str, file: str, text: str, mode: int, when: float) -> str:
        folder = tmp_path / str(when) / name
        folder.mkdir(parents=True)
        (folder / file).write_text(text)
        (folder / file).chmod(mode)
        os.utime(folder / file, (when, when))
        return folder_bundle(folder).digest

    same = digest("p", "a.py", "x", 0o644, OLD)
    assert same == digest("p", "a.py", "x", 0o600, OLD + 1)
    others = [
        digest("p", "a.py", "y", 0o644, OLD + 2),
        digest("p", "b.py", "x", 0o644, OLD + 3),
        digest("p", "a.py", "x", 0o755, OLD + 4),
        digest("q", "a.py", "x", 0o644, OLD + 5),
    ]
    assert 5 == len({same, *others})


def test_the_same_content_makes_the_same_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zips = []
    for when in (OLD, OLD + 100):
        folder = tmp_path / str(when) / "p"
        folder.mkdir(parents=True)
        for name in ("b.py", "a.py"):
            (folder / name).write_text(name)
            os.utime(folder / name, (when, when))
        monkeypatch.setattr(bundles, "_zips", {})
        zips.append(folder_bundle(folder).data())
    assert zips[0] == zips[1]


def test_an_unchanged_folder_is_not_read_again(make_folder: Callable[..., Path], read: list[str]) -> None:
    folder = make_folder({"a.py": "x", "b.py": "y"})
    age(folder)
    first = folder_bundle(folder)
    assert ["a.py", "b.py"] == read
    read.clear()
    assert first is folder_bundle(folder)
    assert [] == read


def test_only_the_file_that_changed_is_read_again(make_folder: Callable[..., Path], read: list[str]) -> None:
    folder = make_folder({"a.py": "x", "b.py": "y"})
    age(folder)
    first = folder_bundle(folder)
    read.clear()
    (folder / "b.py").write_text("z")
    assert first.digest != folder_bundle(folder).digest
    assert ["b.py"] == read


def test_a_link_to_a_folder_is_followed_anew_each_time(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    link = tmp_path / "current"
    found = []
    for name in ("one", "two"):
        link.unlink(missing_ok=True)
        link.symlink_to(make_folder({f"{name}.py": "x"}, name))
        found.append(members(folder_bundle(link)))

    assert [["one/", "one/one.py"], ["two/", "two/two.py"]] == found


def test_a_file_written_a_moment_ago_is_read_again_each_time(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder({"a.py": "x"})
    first = folder_bundle(folder)
    status = (folder / "a.py").stat()
    (folder / "a.py").write_text("y")
    # As on a file system whose times are coarse.
    os.utime(folder / "a.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert first.digest != folder_bundle(folder).digest


def test_a_changed_ignore_file_counts_at_once(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({".synapseignore": "a.py\n", "a.py": "", "b.py": ""})
    assert [".synapseignore", "b.py"] == inside(folder)
    (folder / ".synapseignore").write_text("# nothing\n")
    assert [".synapseignore", "a.py", "b.py"] == inside(folder)
    (folder / ".gitignore").write_text("b.py\n")
    assert [".gitignore", ".synapseignore", "a.py"] == inside(folder)


def test_many_threads_get_one_bundle(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({f"f{number}.py": str(number) for number in range(50)})
    age(folder)
    found: list[Bundle] = []
    threads = [threading.Thread(target=lambda: found.append(folder_bundle(folder))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 20 == len(found)
    assert 1 == len({bundle.digest for bundle in found})


def test_the_executable_bit_travels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"run.sh": "", "a.py": ""})
    (folder / "run.sh").chmod(0o755)
    with zipfile.ZipFile(io.BytesIO(folder_bundle(folder).data())) as packed:
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in packed.infolist()}
    assert {"plugin_folder/": 0o755, "plugin_folder/a.py": 0o644, "plugin_folder/run.sh": 0o755} == modes


def test_zips_are_kept_up_to_a_total(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "_zips", {})
    monkeypatch.setattr(bundles, "_KEPT_ZIPS", 1)
    made = [folder_bundle(make_folder({"a.py": name}, name)) for name in ("p", "q")]
    for bundle in made:
        bundle.data()
    assert [made[1].digest] == list(bundles._zips)
    assert ["p/", "p/a.py"] == members(made[0])


# What cannot be shipped.


def test_a_folder_over_the_limit_names_its_largest_files(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(1, 8):
        (folder / f"{number}.bin").write_bytes(os.urandom(number * 1024))
    with pytest.raises(UsageError) as caught:
        folder_bundle(folder, limit=16 * 1024)
    assert (
        f"The folder {folder} is too large to ship: 28.0 KiB of files are more than 16.0 KiB when packed\n"
        "  the largest:\n"
        "       7.0 KiB  7.bin\n"
        "       6.0 KiB  6.bin\n"
        "       5.0 KiB  5.bin\n"
        "       4.0 KiB  4.bin\n"
        "       3.0 KiB  3.bin\n"
        f"  name what the action does not need in {folder}/.synapseignore, as in a .gitignore;\n"
        "  give it data by a path or URL that the workers reach, or raise the setting ray.upload_limit"
    ) == str(caught.value)


def test_the_limit_is_for_what_is_left_when_it_is_packed(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("the same words again\n" * 1000)
    assert 21_000 == folder_bundle(folder, limit=4096).size


def test_files_that_no_packing_makes_small_enough_are_not_read(tmp_path: Path, read: list[str]) -> None:
    folder = tmp_path / "sparse"
    folder.mkdir()
    with (folder / "disk.img").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"1\.0 TiB of files are more than 100\.0 MiB when packed"):
        folder_bundle(folder)
    assert [] == read


def test_a_folder_without_end_is_refused(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_files, "MOST_FILES", 2)
    folder = make_folder({"a": "", "b": "", "c": ""})
    with pytest.raises(UsageError) as caught:
        folder_bundle(folder)
    assert (
        f"The folder {folder} cannot be shipped: it has more than 2 files\n"
        f"  does a link lead out of it? Name what the action does not need in {folder}/.synapseignore"
    ) == str(caught.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        folder_bundle(tmp_path / "gone")
    place = tmp_path / "gone"
    assert f"The folder {place} cannot be shipped: {place}: No such file or directory" == str(caught.value)


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).touch()
    except OSError:
        pytest.skip("the file system takes no such names")
    with pytest.raises(UsageError) as caught:
        folder_bundle(folder)
    assert (
        f"'{folder}/\\udcff.py' cannot be shipped: its name is not UTF-8\n"
        "  rename it, or name it in .synapseignore if the action does not need it"
    ) == str(caught.value)


def test_a_file_that_changes_before_it_is_packed_is_told(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"a.py": "before it was packed"})
    bundle = folder_bundle(folder)
    (folder / "a.py").write_text("after")
    with pytest.raises(UsageError) as caught:
        bundle.data()
    assert f"{folder}/a.py was changed while it was packed for a worker: run it again" == str(caught.value)


# The code that is no folder's.


def test_the_kernel_travels_with_the_metadata_by_which_its_plugins_are_found(kernel: Kernel) -> None:
    (bundle,) = code_bundles.code_bundles(kernel, task_of("a:b", "/some/folder"))
    names = members(bundle)
    version = code_bundles._distribution("synapse-kernel").version  # type: ignore[union-attr]
    wanted = {
        "synapse_kernel/kernel.py",
        "synapse_plugins/ray_executors/bootstrap.py",
        f"synapse_kernel-{version}.dist-info/METADATA",
        f"synapse_kernel-{version}.dist-info/entry_points.txt",
    }
    assert set() == wanted - set(names)
    assert [] == [name for name in names if name.endswith(".pyc")]
    assert ("synapse-kernel", "path", "") == (bundle.name, bundle.kind, bundle.inside)


def test_a_kernel_is_built_of_nothing_but_its_bundle(kernel: Kernel, tmp_path: Path) -> None:
    (bundle,) = code_bundles.code_bundles(kernel, task_of("a:b", "/some/folder"))
    (tmp_path / "kernel.zip").write_bytes(bundle.data())
    with zipfile.ZipFile(tmp_path / "kernel.zip") as packed:
        packed.extractall(tmp_path / "unpacked")
    (tmp_path / "site").mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "synapse" not in entry.name:
            (tmp_path / "site" / entry.name).symlink_to(entry)
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'unpacked')!r}, {str(tmp_path / 'site')!r}]\n"
        "from synapse_kernel import Kernel\n"
        "with Kernel(strict=True) as kernel:\n"
        "    print(*[f'{r.name} {r.state} {r.version}' for r in kernel.plugins], sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert "" == done.stderr
    assert [f"{r.name} {r.state} {r.version}" for r in kernel.plugins] == done.stdout.splitlines()


def test_what_the_kernel_requires_leaves_out_its_extras() -> None:
    found = code_bundles.kernel_requirements()
    assert any(line.startswith("msgspec") for line in found)
    assert [] == [line for line in found if line.startswith("ray")]


@pytest.mark.usefixtures("fresh_code")
def test_a_third_party_plugin_travels_with_all_its_packages(make_distribution: Callable[..., Path]) -> None:
    make_distribution(
        "shipped-plugin",
        {
            "shipped_plugin/__init__.py": "import shipped_more",
            "shipped_more.py": "",
            "shipped_plugin/x.txt": "",
        },
        {"shipped": "shipped_plugin"},
    )
    with Kernel() as kernel:
        _, bundle = code_bundles.code_bundles(kernel, task_of("a:b", "/some/folder"))
    assert [
        "shipped_more.py",
        "shipped_plugin-1.0.dist-info/METADATA",
        "shipped_plugin-1.0.dist-info/entry_points.txt",
        "shipped_plugin/__init__.py",
        "shipped_plugin/x.txt",
    ] == members(bundle)


@pytest.mark.usefixtures("fresh_code")
def test_a_plugin_with_compiled_parts_does_not_travel(make_distribution: Callable[..., Path]) -> None:
    make_distribution(
        "shipped-compiled",
        {"shipped_compiled/__init__.py": "", "shipped_compiled/_fast.cpython-311-x86_64-linux-gnu.so": ""},
        {"compiled": "shipped_compiled"},
    )
    with Kernel() as kernel:
        found = code_bundles.code_bundles(kernel, task_of("a:b", "/some/folder"))
    assert ["synapse-kernel"] == [bundle.name for bundle in found]


@pytest.mark.usefixtures("fresh_code")
def test_a_blocked_plugin_does_not_travel(make_distribution: Callable[..., Path]) -> None:
    make_distribution("shipped-blocked", {"shipped_blocked.py": ""}, {"blocked": "shipped_blocked"})
    with Kernel(without=["blocked"]) as kernel:
        found = code_bundles.code_bundles(kernel, task_of("a:b", "/some/folder"))
    assert ["synapse-kernel"] == [bundle.name for bundle in found]


@pytest.mark.usefixtures("fresh_code")
@pytest.mark.parametrize(
    ("files", "entrypoint", "shipped"),
    [
        ({"shipped_one.py": ""}, "shipped_one:train", ["shipped_one.py"]),
        (
            {"shipped_pkg/__init__.py": "", "shipped_pkg/a/b.py": ""},
            "shipped_pkg.a.b:train",
            ["shipped_pkg/__init__.py", "shipped_pkg/a/b.py"],
        ),
        ({"shipped_space/part/a.py": ""}, "shipped_space.part.a:train", ["shipped_space/part/a.py"]),
    ],
    ids=["module", "package", "namespace package"],
)
def test_an_importable_action_travels_with_its_package(
    kernel: Kernel,
    make_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    entrypoint: str,
    shipped: list[str],
) -> None:
    monkeypatch.syspath_prepend(str(make_folder(files, "src")))
    _, bundle = code_bundles.code_bundles(kernel, task_of(entrypoint))
    assert shipped == members(bundle)


@pytest.mark.parametrize(
    "entrypoint", ["json:loads", "pytest:main", "synapse_kernel.actions:action", "no_such_module:x"]
)
def test_an_action_of_the_library_of_an_installed_package_or_of_nowhere_travels_with_nothing_more(
    kernel: Kernel, entrypoint: str
) -> None:
    found = code_bundles.code_bundles(kernel, task_of(entrypoint))
    assert ["synapse-kernel"] == [bundle.name for bundle in found]
