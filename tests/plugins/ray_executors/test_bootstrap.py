"""What puts code on a worker, with the standard library alone: unpacked whole, found by its digest."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import os
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from synapse_plugins.ray_executors import bootstrap
from synapse_plugins.ray_executors.bootstrap import BootstrapError

SOURCE = Path(bootstrap.__file__)
WEEK = 7 * 24 * 3600


def zip_of(files: dict[str, str], executable: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if name in executable else 0o100644) << 16
            packed.writestr(info, text)
    return buffer.getvalue()


def age(path: str | Path, seconds: float) -> None:
    """Make a folder and what is in it look as if it was last used a time ago."""
    when = time.time() - seconds
    for each in [*Path(path).rglob("*"), Path(path)]:
        os.utime(each, (when, when))


def let_go() -> None:
    """Forget what this process holds on to, as when it ends."""
    for held in bootstrap._in_use.values():
        held.close()
    bootstrap._in_use.clear()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a temporary folder of its own, and take back what it did to the imports."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    known = set(sys.modules)
    yield tmp_path / f"synapse-kernel-{os.getuid()}" / "code"
    let_go()
    for name in set(sys.modules) - known:
        if name.startswith("shipped_"):
            del sys.modules[name]
    importlib.invalidate_caches()


# Unpacking.


def test_a_bundle_is_unpacked_under_its_digest_for_its_user_alone(root: Path) -> None:
    place = bootstrap.unpack("abc", zip_of({"yolo/train.py": "x = 1", "yolo/run.sh": ""}, ("yolo/run.sh",)))
    assert str(root / "abc") == place == bootstrap.path_of("abc")
    assert "x = 1" == Path(place, "yolo/train.py").read_text()
    assert [0o644, 0o755] == [
        Path(place, name).stat().st_mode & 0o777 for name in ("yolo/train.py", "yolo/run.sh")
    ]
    assert 0o700 == root.parent.stat().st_mode & 0o777


def test_a_worker_tells_what_it_has() -> None:
    assert not bootstrap.has("abc")
    bootstrap.unpack("abc", zip_of({"a.py": ""}))
    assert bootstrap.has("abc")
    assert not bootstrap.has("abcd")


def test_what_is_there_is_not_unpacked_again() -> None:
    first = bootstrap.unpack("abc", zip_of({"a.py": "first"}))
    let_go()
    assert first == bootstrap.unpack("abc", b"no zip at all")
    assert "first" == Path(first, "a.py").read_text()


def test_a_bundle_of_which_files_are_gone_is_unpacked_again() -> None:
    data = zip_of({"a.py": "a", "b/c.py": "c"})
    place = bootstrap.unpack("abc", data)
    let_go()
    Path(place, "b/c.py").unlink()
    age(place, 2 * 24 * 3600)
    assert not bootstrap.has("abc")
    assert place == bootstrap.unpack("abc", data)
    assert "c" == Path(place, "b/c.py").read_text()


def test_what_a_killed_process_left_under_a_digest_is_replaced(root: Path) -> None:
    bootstrap.code_root()
    (root / "abc").mkdir()
    (root / "abc" / "half.py").touch()
    place = bootstrap.unpack("abc", zip_of({"a.py": ""}))
    assert {"a.py", ".synapse-bundle"} == {path.name for path in Path(place).iterdir()}


def test_processes_that_unpack_at_once_all_have_it(root: Path) -> None:
    data = zip_of({f"p/f{number}.py": str(number) for number in range(300)})
    script = textwrap.dedent(
        f"""
        import base64, runpy, sys, tempfile
        tempfile.tempdir = {str(root.parent.parent)!r}
        names = runpy.run_path({str(SOURCE)!r})
        data = base64.b64decode(sys.stdin.readline())
        print(names["unpack"]("abc", data))
        """
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    line = base64.b64encode(data).decode() + "\n"
    printed = [process.communicate(line, timeout=120)[0].strip() for process in started]
    assert [str(root / "abc")] * 4 == printed
    assert 300 == len(list((root / "abc" / "p").iterdir()))
    assert ["abc"] == [path.name for path in root.iterdir()]


@pytest.mark.parametrize("name", ["../out.py", "/etc/out.py", "a/../../out.py", "a\\..\\out.py", "a//b.py"])
def test_a_zip_that_reaches_out_of_its_folder_is_refused(root: Path, name: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        bootstrap.unpack("abc", zip_of({"a.py": "", name: ""}))
    assert f"the bundle holds {name!r}, which is no place inside of it" == str(caught.value)
    assert [] == list(root.iterdir())


def test_a_digest_is_no_path() -> None:
    with pytest.raises(BootstrapError) as caught:
        bootstrap.has("../../etc")
    assert "'../../etc' is not the digest of a bundle" == str(caught.value)


def test_a_folder_that_others_can_write_is_not_used(root: Path) -> None:
    root.parent.mkdir()
    root.parent.chmod(0o777)
    with pytest.raises(BootstrapError) as caught:
        bootstrap.has("abc")
    assert (
        f"{root.parent} is not a folder that only user {os.getuid()} can write\n"
        "  remove it, or give the workers another TMPDIR"
    ) == str(caught.value)


def test_a_link_in_the_place_of_the_folder_is_not_used(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BootstrapError, match="is not a folder that only user"):
        bootstrap.has("abc")


# Removing.


def test_what_was_not_used_for_a_week_goes_when_something_new_comes() -> None:
    old = bootstrap.unpack("old", zip_of({"a.py": ""}))
    young = bootstrap.unpack("young", zip_of({"a.py": ""}))
    let_go()
    age(old, WEEK + 60)
    age(young, WEEK - 60)
    bootstrap.unpack("new", zip_of({"a.py": ""}))
    assert [False, True] == [Path(place).exists() for place in (old, young)]


def test_what_a_process_uses_stays_however_long() -> None:
    place = bootstrap.unpack("old", zip_of({"a.py": ""}))
    age(place, 10 * WEEK)
    bootstrap.unpack("new", zip_of({"a.py": ""}))
    assert Path(place).exists()


def test_use_counts_as_such() -> None:
    place = bootstrap.unpack("old", zip_of({"a.py": ""}))
    let_go()
    age(place, 6 * 24 * 3600)
    assert bootstrap.has("old")
    let_go()
    assert time.time() - Path(place, "a.py").stat().st_mtime < 3600
    bootstrap.remove_unused(24 * 3600)
    assert Path(place).exists()


def test_what_was_left_half_made_goes_after_a_day(root: Path) -> None:
    bootstrap.code_root()
    for name, hours in ((".abc.1", 25), (".abc.2", 1)):
        (root / name).mkdir()
        age(root / name, hours * 3600)
    bootstrap.remove_unused()
    assert [".abc.2"] == [path.name for path in root.iterdir()]


# Imports.


def test_shipped_packages_come_before_installed_ones(make_folder: Callable[..., Path]) -> None:
    sys.path.insert(0, str(make_folder({"shipped_mod.py": "x = 'installed'"}, "installed")))
    place = bootstrap.unpack("abc", zip_of({"shipped_mod.py": "x = 'shipped'"}))
    assert "" == bootstrap.add_paths([place])
    assert "shipped" == importlib.import_module("shipped_mod").x


def test_paths_keep_their_order_and_come_once() -> None:
    places = [bootstrap.unpack(name, zip_of({f"shipped_{name}.py": ""})) for name in ("a", "b")]
    before = sys.path.copy()
    bootstrap.add_paths(places)
    bootstrap.add_paths(places)
    assert [*places, *before] == sys.path


def test_a_newer_bundle_of_a_package_replaces_the_older() -> None:
    first = bootstrap.unpack("a", zip_of({"shipped_p/__init__.py": "", "shipped_p/m.py": "x = 1"}))
    bootstrap.add_paths([first])
    assert 1 == importlib.import_module("shipped_p.m").x
    second = bootstrap.unpack("b", zip_of({"shipped_p/__init__.py": "", "shipped_p/m.py": "x = 2"}))
    assert "" == bootstrap.add_paths([second])
    assert 2 == importlib.import_module("shipped_p.m").x
    assert [second] == [path for path in sys.path if path in {first, second}]


def test_another_kernel_that_is_imported_stays_and_is_told() -> None:
    before = sys.path.copy()
    place = bootstrap.unpack(
        "a",
        zip_of({"synapse_kernel/__init__.py": "", "synapse_kernel/_version.py": '__version__ = "9.9"'}),
    )
    here = Path(sys.modules["synapse_kernel"].__file__ or "").parent
    version = importlib.import_module("synapse_kernel._version").__version__
    assert (
        f"this worker had already imported synapse_kernel {version} from {here} when the run came with 9.9, "
        "and uses its own"
    ) == bootstrap.add_paths([place])
    assert before == sys.path


def test_the_same_kernel_elsewhere_is_not_told() -> None:
    here = Path(sys.modules["synapse_kernel"].__file__ or "").parent
    files = {f"synapse_kernel/{file.relative_to(here)}": file.read_text() for file in here.rglob("*.py")}
    assert "" == bootstrap.add_paths([bootstrap.unpack("a", zip_of(files))])


def test_the_module_needs_nothing_but_the_standard_library() -> None:
    script = (
        f"import runpy, sys; runpy.run_path({str(SOURCE)!r}); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert ("['__main__']\n", "") == (done.stdout, done.stderr)


# Wheels.


def make_wheel(folder: Path, name: str, *, requires: str = "", value: str = "1", number: str = "1.0") -> Path:
    """Write a wheel of one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{number}.dist-info"
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"x = {value}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n{requirement}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {
        path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for path, text in files.items()
    }
    record = "".join(f"{path},sha256={hashes[path]},{len(text)}\n" for path, text in files.items())
    wheel = folder / f"{name}-{number}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            packed.writestr(path, text)
    return wheel


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_wheels_are_installed_with_what_they_need_and_is_not_there(tmp_path: Path, manager: str) -> None:
    needed = make_wheel(tmp_path / "index", "shipped_needed", value="2")
    wheel = make_wheel(tmp_path / "wheels", "shipped_wheel", requires="shipped_needed>=1")
    options = ["--no-index", "--find-links", str(needed.parent)]
    place = bootstrap.install_wheels([str(wheel)], options, manager)
    bootstrap.add_paths([place])
    assert 1 == importlib.import_module("shipped_wheel").x
    assert 2 == importlib.import_module("shipped_needed").x


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_what_the_worker_has_is_not_installed_again(tmp_path: Path, manager: str) -> None:
    wheel = make_wheel(tmp_path / "wheels", "shipped_wheel", requires="msgspec")
    place = bootstrap.install_wheels([str(wheel)], ["--no-index"], manager)
    assert Path(place, "shipped_wheel.py").is_file()
    assert not Path(place, "msgspec").exists()


def test_wheels_are_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "wheels", "shipped_wheel")
    first = bootstrap.install_wheels([str(wheel)], ["--no-index"], "pip")
    let_go()
    monkeypatch.setattr(bootstrap, "_run", lambda *_: pytest.fail("it was installed again"))
    assert first == bootstrap.install_wheels([str(wheel)], ["--no-index"], "pip")


def test_wheels_of_other_content_are_installed_beside(tmp_path: Path) -> None:
    places = [
        bootstrap.install_wheels(
            [str(make_wheel(tmp_path / "wheels", "shipped_wheel", value=value))], ["--no-index"], "pip"
        )
        for value in ("1", "2")
    ]
    assert ["x = 1\n", "x = 2\n"] == [Path(place, "shipped_wheel.py").read_text() for place in places]


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_an_installer_that_fails_has_the_last_word(root: Path, tmp_path: Path, manager: str) -> None:
    wheel = make_wheel(tmp_path / "wheels", "shipped_wheel", requires="no-such-package-zz")
    with pytest.raises(BootstrapError) as caught:
        bootstrap.install_wheels([str(wheel)], ["--no-index"], manager)
    first, *rest = str(caught.value).splitlines()
    assert "The wheels shipped_wheel-1.0-py3-none-any.whl cannot be installed:" == first
    assert any("no-such-package-zz" in line for line in rest)
    assert [] == list(root.iterdir())


def test_uv_stands_in_where_there_is_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    assert "uv" == bootstrap._installer("pip")[0]


def test_a_worker_without_an_installer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "wheels", "shipped_wheel")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BootstrapError) as caught:
        bootstrap.install_wheels([str(wheel)], [], "uv")
    assert f"neither pip nor uv is installed for {sys.executable} on this worker" == str(caught.value)


def test_requirements_that_are_there_need_no_installer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_run", lambda *_: pytest.fail("it was installed"))
    assert "" == bootstrap.install_missing(["msgspec>=0.20", "pydantic"], [], "pip")


def test_requirements_that_are_missing_are_installed(tmp_path: Path) -> None:
    needed = make_wheel(tmp_path / "index", "shipped_needed")
    options = ["--no-index", "--find-links", str(needed.parent)]
    place = bootstrap.install_missing(["msgspec", "shipped_needed>=1"], options, "pip")
    assert Path(place, "shipped_needed.py").is_file()


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_a_wheel_wins_over_what_the_worker_has_of_the_same_version(tmp_path: Path, manager: str) -> None:
    number = version("msgspec")
    wheel = make_wheel(tmp_path / "wheels", "msgspec", number=number)
    place = bootstrap.install_wheels([str(wheel)], ["--no-index"], manager)
    assert "x = 1\n" == Path(place, "msgspec.py").read_text()
