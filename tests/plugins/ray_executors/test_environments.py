"""The environment of a worker: requirements, config and settings together, nobody's data changed."""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_kernel import UsageError
from synapse_kernel.contracts import ActionRef, Task
from synapse_kernel.errors import ConfigError
from synapse_plugins.ray_executors.environments import RunEnvironment, environment_of, installer_lines
from synapse_plugins.ray_executors.requirements import read_requirements
from synapse_plugins.ray_executors.settings import RaySettings

PIP_DEFAULTS = ["--disable-pip-version-check", "--no-cache-dir"]


def environment(
    folder: Path | None = None,
    *,
    config_env: dict[str, object] | None = None,
    settings_env: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
) -> RunEnvironment:
    ref = ActionRef("train:train", None if folder is None else str(folder))
    task = Task(run_id="r", action="train", ref=ref, runtime_env=config_env or {}, env=env or {})
    return environment_of(RaySettings(runtime_env=settings_env or {}), task)


@pytest.fixture
def lines_of(make_folder: Callable[..., Path]) -> Callable[..., list[str]]:
    """Return a function that writes requirements files and returns the lines that Ray gets."""

    def read(text: str, **others: str) -> list[str]:
        files = {name.replace("_txt", ".txt"): content for name, content in others.items()}
        folder = make_folder({"requirements.txt": text, **files})
        return read_requirements(folder / "requirements.txt", folder).lines

    return read


# Requirements files.


def test_option_lines_are_kept_and_comments_go(lines_of: Callable[..., list[str]]) -> None:
    assert [
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "-i https://${TOKEN}@host/simple",
        "torch==2.13.0",
        "numpy>=1 ; python_version > '3'",
        "six @ https://host/six.zip#sha256=abc",
    ] == lines_of(
        "# what the action needs \\\n"
        "--extra-index-url https://download.pytorch.org/whl/cpu\n"
        "-i https://${TOKEN}@host/simple\n"
        "torch==2.13.0   # not the newest\n"
        "\n"
        "numpy>=1 \\\n; python_version > '3'\n"
        "six @ https://host/six.zip#sha256=abc\n"
    )


@pytest.mark.parametrize(
    "form", ["-r more.txt", "-rmore.txt", "--requirement more.txt", "--requirement=more.txt"]
)
def test_included_files_stand_in_their_place(lines_of: Callable[..., list[str]], form: str) -> None:
    assert ["a", "b", "c"] == lines_of(f"a\n{form}\nc\n", more_txt="b\n-r requirements.txt\n")


def test_an_included_url_is_left_to_the_installer(lines_of: Callable[..., list[str]]) -> None:
    assert [" --requirement https://host/r.txt"] == lines_of("-r https://host/r.txt\n")


def test_relative_paths_are_those_of_the_file_that_names_them(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            "requirements.txt": "-r sub/more.txt\n-f https://host/links\n./lib[extra]\n-e .\nplain\n",
            "sub/more.txt": "--find-links index\n",
        }
    )
    assert [
        f"--find-links {folder}/sub/index",
        "--find-links https://host/links",
        f"{folder}/lib[extra]",
        f"--editable {folder}",
        "plain",
    ] == read_requirements(folder / "requirements.txt", folder).lines


def test_a_changed_constraints_file_makes_another_environment(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"requirements.txt": "a\n-c limits.txt\n", "limits.txt": "a<2\n"})
    first = environment(folder)
    (folder / "limits.txt").write_text("a<1.5\n")
    second = environment(folder)
    assert first.key != second.key
    assert first.runtime_env != second.runtime_env


def test_a_wheel_of_the_folder_travels_with_it(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            ".gitignore": "*.whl\n",
            "requirements.txt": "./vendor/x-1.0-py3-none-any.whl\nsix\n",
            "vendor/x-1.0-py3-none-any.whl": "",
        }
    )
    found = environment(folder)
    assert ["vendor/x-1.0-py3-none-any.whl"] == found.wheels
    assert found.runtime_env is not None
    assert {"packages": ["six"]} == found.runtime_env["pip"]


def test_an_included_file_that_is_not_there_is_told(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"requirements.txt": "-r gone.txt\n"})
    with pytest.raises(UsageError) as caught:
        environment(folder)
    assert (
        f"The requirements file {folder}/gone.txt, which {folder}/requirements.txt names, cannot be read: "
        "No such file or directory"
    ) == str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "--extra-index-url https://host/simple\n"])
def test_a_file_that_asks_for_nothing_makes_no_environment(
    make_folder: Callable[..., Path], text: str
) -> None:
    assert environment(make_folder({"requirements.txt": text})).runtime_env is None


# The folder and its config.


def test_a_folder_without_config_or_requirements_needs_its_code_alone(
    make_folder: Callable[..., Path],
) -> None:
    found = environment(make_folder({"train.py": ""}))
    assert found.folder is not None
    assert (None, "plugin_folder", []) == (found.runtime_env, found.folder.name, found.wheels)


def test_an_action_without_folder_needs_nothing() -> None:
    found = environment()
    assert (None, None, []) == (found.runtime_env, found.folder, found.wheels)


def test_requirements_are_installed_with_pip(make_folder: Callable[..., Path]) -> None:
    found = environment(make_folder({"requirements.txt": "six==1.17\n"}))
    assert {"pip": {"packages": ["six==1.17"]}} == found.runtime_env


@pytest.mark.parametrize(
    ("manager", "field", "defaults"),
    [("pip", "pip_install_options", PIP_DEFAULTS), ("uv", "uv_pip_install_options", ["--no-cache"])],
)
def test_the_config_names_the_package_manager_and_its_options(
    make_folder: Callable[..., Path], manager: str, field: str, defaults: list[str]
) -> None:
    config = f"name: x\npackage_manager: {manager}\npackage_manager_options: [--no-deps]\n"
    found = environment(make_folder({"config.yaml": config, "requirements.txt": "six\n"}))
    assert {manager: {"packages": ["six"], field: [*defaults, "--no-deps"]}} == found.runtime_env
    assert (manager, ["--no-deps"]) == (found.package_manager, found.package_manager_options)


def test_wheels_travel_even_where_they_are_ignored(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            "config.yaml": "name: x\nwheels_dir: dist\n",
            ".gitignore": "dist/\n",
            "dist/b-1-py3-none-any.whl": "b",
            "dist/a-1-py3-none-any.whl": "a",
            "dist/a.txt": "",
        }
    )
    found = environment(folder)
    assert ["dist/a-1-py3-none-any.whl", "dist/b-1-py3-none-any.whl"] == found.wheels
    assert found.folder is not None
    assert {"dist/a-1-py3-none-any.whl", "dist/b-1-py3-none-any.whl", "config.yaml", ".gitignore", ""} == {
        source.member.removeprefix("plugin_folder/") for source in found.folder.sources
    }


def test_a_process_with_wheels_is_not_one_for_others(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"wheels/a-1-py3-none-any.whl": "a"})
    first = environment(folder, config_env={"env_vars": {"A": "1"}})
    (folder / "wheels/a-1-py3-none-any.whl").write_text("another")
    second = environment(folder, config_env={"env_vars": {"A": "1"}})
    variables = [found.runtime_env["env_vars"] for found in (first, second) if found.runtime_env]
    assert [{"A", "SYNAPSE_WHEELS"}] * 2 == [set(each) for each in variables]  # type: ignore[call-overload]
    assert variables[0] != variables[1]
    assert first.key != second.key


def test_the_code_of_a_folder_is_no_part_of_the_key(make_folder: Callable[..., Path]) -> None:
    first = environment(make_folder({"a.py": "x", "requirements.txt": "six\n"}, "one"))
    second = environment(make_folder({"b.py": "y", "requirements.txt": "six\n"}, "two"))
    assert first.key == second.key
    assert environment().key != first.key


def test_a_changed_file_is_read_again(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"requirements.txt": "-r more.txt\n", "more.txt": "six\n"})
    assert {"pip": {"packages": ["six"]}} == environment(folder).runtime_env
    (folder / "more.txt").write_text("attrs\n")
    assert {"pip": {"packages": ["attrs"]}} == environment(folder).runtime_env
    (folder / "config.yaml").write_text("name: x\npackage_manager: uv\n")
    assert {"uv": {"packages": ["attrs"]}} == environment(folder).runtime_env


def test_what_has_not_changed_is_not_worked_out_again(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"train.py": "x = 1", "requirements.txt": "six"})
    for file in folder.iterdir():
        os.utime(file, (1, 1))

    assert environment(folder) is environment(folder)


def test_what_a_runtime_env_names_is_read_each_time(make_folder: Callable[..., Path]) -> None:
    folder, beside = make_folder({"train.py": "x = 1"}), make_folder({"more.txt": "six"}, "beside")
    asked: dict[str, object] = {"pip": str(beside / "more.txt")}
    first = environment(folder, config_env=asked)
    (beside / "more.txt").write_text("attrs")

    assert first.key != environment(folder, config_env=asked).key


def test_a_config_that_cannot_be_used_is_told(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="package_manager"):
        environment(make_folder({"config.yaml": "name: x\npackage_manager: conda\n"}))


def test_the_values_of_the_task_are_not_in_rays_environment(make_folder: Callable[..., Path]) -> None:
    found = environment(make_folder({"a.py": ""}), env={"API_TOKEN": "hidden"})
    assert found.runtime_env is None


# Runtime environments laid over each other.


def test_the_config_is_laid_over_the_settings_and_both_stay_as_they_are() -> None:
    below: dict[str, object] = {
        "env_vars": {"A": "1", "B": "1"},
        "pip": ["six"],
        "config": {"setup_timeout_seconds": 5, "eager_install": True},
        "nsight": "default",
    }
    above: dict[str, object] = {
        "env_vars": {"B": "2"},
        "pip": {"packages": ["attrs", "six"], "pip_check": True},
        "config": {"setup_timeout_seconds": 60},
        "nsight": None,
    }
    before = copy.deepcopy((below, above))
    assert {
        "env_vars": {"A": "1", "B": "2"},
        "pip": {"packages": ["six", "attrs"], "pip_check": True},
        "config": {"setup_timeout_seconds": 60},
    } == environment(settings_env=below, config_env=above).runtime_env
    assert before == (below, above)


def test_what_is_returned_is_the_callers_own(make_folder: Callable[..., Path]) -> None:
    folder = make_folder({"requirements.txt": "six\n"})
    config: dict[str, object] = {"env_vars": {"A": "1"}, "py_modules": ["s3://bucket/a.zip"]}
    first = environment(folder, config_env=config).runtime_env
    assert first is not None
    for value in first.values():
        value.clear()  # type: ignore[attr-defined]
    assert {
        "env_vars": {"A": "1"},
        "py_modules": ["s3://bucket/a.zip"],
        "pip": {"packages": ["six"]},
    } == environment(folder, config_env=config).runtime_env


def test_requirements_join_those_of_the_runtime_env(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            "config.yaml": "name: x\npackage_manager_options: [--no-deps]\n",
            "requirements.txt": "six\nattrs\n",
            "other.txt": "attrs\n# nothing\nmsgspec\n",
        }
    )
    given: dict[str, object] = {"pip": {"packages": "other.txt", "pip_install_options": ["--quiet"]}}
    assert {
        "pip": {"packages": ["attrs", "msgspec", "six"], "pip_install_options": ["--quiet", "--no-deps"]}
    } == environment(folder, config_env=given).runtime_env


@pytest.mark.parametrize("other", ["uv", "conda"])
def test_requirements_beside_another_installer_are_refused(
    make_folder: Callable[..., Path], other: str
) -> None:
    folder = make_folder({"requirements.txt": "six\n"})
    with pytest.raises(UsageError) as caught:
        environment(folder, settings_env={other: {"packages": []}})
    change = "add them to the conda environment" if other == "conda" else "set  package_manager: uv"
    assert (
        f"{folder}/requirements.txt is installed with pip, but the runtime_env has {other!r}, and Ray builds "
        f"only one of them\n"
        f"  {change} in {folder}/config.yaml, or take {other!r} out of the runtime_env"
    ) == str(caught.value)


@pytest.mark.parametrize(("one", "two"), [("pip", "uv"), ("pip", "conda"), ("uv", "conda")])
def test_two_installers_are_refused(one: str, two: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment(settings_env={one: {"packages": ["six"]}}, config_env={two: {"packages": ["six"]}})
    assert (
        f"The runtime_env has {one!r} and {two!r}, and Ray builds only one of them\n"
        "  it is the setting ray.runtime_env with the runtime_env of config.yaml laid over it: a null there "
        "takes a key away"
    ) == str(caught.value)


def test_a_null_takes_away_what_the_settings_ask_for() -> None:
    assert environment(settings_env={"uv": ["six"]}, config_env={"uv": None}).runtime_env is None


@pytest.mark.parametrize(("name", "value"), [("working_dir", "."), ("py_modules", ["s3://b/a.zip", "./lib"])])
def test_a_path_that_ray_would_upload_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        environment(config_env={name: value})
    path = value if isinstance(value, str) else "./lib"
    assert (
        f"runtime_env.{name} is a path of this machine: {path!r}\n"
        f"  the action's folder is shipped without it; leave {name} out, or give a URI such as "
        f"s3://bucket/code.zip"
    ) == str(caught.value)


def test_uris_are_passed_on() -> None:
    given: dict[str, object] = {"working_dir": "s3://bucket/a.zip", "py_modules": ["gcs://_ray_pkg_a.zip"]}
    assert given == environment(config_env=given).runtime_env


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"pip": {"packages": [1]}},
            "runtime_env.pip must be a list of packages, the path of a requirements file, or a mapping with "
            "'packages', got {'packages': [1]}",
        ),
        ({"uv": "gone.txt"}, "runtime_env.uv names a requirements file that is not there: {cwd}/gone.txt"),
        ({"env_vars": {"A": 1}}, "runtime_env.env_vars must map names to texts, got {'A': 1}"),
    ],
    ids=["packages", "file", "variables"],
)
def test_what_ray_would_refuse_is_refused_here(given: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment(settings_env=given)
    assert told.replace("{cwd}", str(Path.cwd())) == str(caught.value)


# What the installer said.

SETUP_ERROR = """\
Failed to set up runtime environment.
[Node 10.0.0.1] Traceback (most recent call last):
  File "runtime_env_agent.py", line 561, in _create_runtime_env_with_retry
    runtime_env_context = await asyncio.wait_for(
                          ^^^^^^^^^^^^^^^^^^^^^^^
"""


def test_the_installers_lines_are_taken_out_of_rays_error() -> None:
    text = (
        f"{SETUP_ERROR}SubprocessCalledProcessError: Run cmd[9] failed with the following details.\n"
        "Command '['python', '-m', 'pip']' returned non-zero exit status 1.\n"
        "Last 50 lines of stdout:\n"
        "    Looking in links: /index\n\n"
        "    ERROR: No matching distribution found for none\n"
        "      (from versions: none)\n\n"
    )
    assert (
        "Looking in links: /index\nERROR: No matching distribution found for none\n  (from versions: none)"
    ) == installer_lines(text)


def test_only_the_last_lines_are_taken() -> None:
    text = "Last 50 lines of stdout:\n" + "".join(f"    line {number}\n" for number in range(50))
    assert [f"line {number}" for number in range(35, 50)] == installer_lines(text).splitlines()


def test_without_an_installers_lines_rays_own_error_is_left() -> None:
    assert (
        "Failed to set up runtime environment.\n"
        "[Node 10.0.0.1] Traceback (most recent call last):\n"
        "OSError: the disk is full"
    ) == installer_lines(f"{SETUP_ERROR}OSError: the disk is full\n")


# On a real Ray.

SCRIPT = """
    import json, sys
    from pathlib import Path

    import ray

    from synapse_kernel.contracts import ActionRef, Task
    from synapse_plugins.ray_executors import bootstrap
    from synapse_plugins.ray_executors.environments import environment_of, installer_lines
    from synapse_plugins.ray_executors.settings import RaySettings

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             object_store_memory=100 * 1024 * 1024)

    @ray.remote(num_cpus=0, max_retries=0)
    def look(source, digest, data, name, wheels, options, manager):
        import importlib, sys, types

        boot = types.ModuleType("boot")
        exec(source, boot.__dict__)
        folder = f"{boot.unpack(digest, data)}/{name}"
        boot.add_paths([boot.install_wheels([f"{folder}/{w}" for w in wheels], options, manager)])
        return {name: importlib.import_module(name).x for name in ("env_asked", "env_more", "env_wheel")}

    def run(folder):
        task = Task(run_id="r", action="a", ref=ActionRef("a:b", folder))
        env = environment_of(RaySettings(), task)
        call = look.options(runtime_env=env.runtime_env).remote(
            Path(bootstrap.__file__).read_text(), env.folder.digest, env.folder.data(), env.folder.inside,
            env.wheels, env.package_manager_options, env.package_manager)
        try:
            return ray.get(call, timeout=300)
        except ray.exceptions.RuntimeEnvSetupError as error:
            return installer_lines(str(error))

    print(json.dumps([run(folder) for folder in sys.argv[1:]]))
    ray.shutdown()
"""


@pytest.fixture
def short_folder() -> Iterator[str]:
    """Return a private folder with a short path: Ray's sockets are in it."""
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def make_wheel(folder: Path, name: str, number: str) -> None:
    """Build a wheel of one module whose `x` is its version."""
    source = folder.parent / f"{name}-{number}"
    source.mkdir(parents=True)
    (source / f"{name}.py").write_text(f"x = {number!r}\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "{number}"\n'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["{name}.py"]\n'
    )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)


@pytest.mark.slow
def test_a_worker_gets_requirements_constraints_options_and_wheels(
    make_folder: Callable[..., Path], tmp_path: Path, short_folder: str
) -> None:
    index = tmp_path / "built" / "index"
    for name, number in [("env_asked", "1.0"), ("env_more", "1.0"), ("env_more", "2.0")]:
        make_wheel(index, name, number)
    folders = []
    config = "name: x\npackage_manager: {}\npackage_manager_options: [--no-index]\n"
    for manager in ("pip", "uv"):
        folder = make_folder(
            {
                "config.yaml": config.format(manager),
                "requirements.txt": "-f index  # ours\nenv_asked==1.0\n-r more.txt\n-c limits.txt\n",
                "more.txt": "env_more\n",
                "limits.txt": "env_more<2\n",
                ".gitignore": "wheels/\nindex/\n",
            },
            f"with_{manager}",
        )
        shutil.copytree(index, folder / "index")
        make_wheel(folder / "wheels", "env_wheel", "3.0")
        folders.append(folder)
    folders.append(make_folder({"requirements.txt": "--no-index\nenv-not-there==1.0\n"}, "failing"))
    token = Path(short_folder, "token")
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ |= {
        "RAY_TMPDIR": short_folder,
        "TMPDIR": short_folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A failed environment is not tried again here.
        "RUNTIME_ENV_RETRY_TIMES": "1",
    }
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script), *map(str, folders)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert 0 == done.returncode, done.stderr
    *good, failed = json.loads(done.stdout.splitlines()[-1])
    assert [{"env_asked": "1.0", "env_more": "1.0", "env_wheel": "3.0"}] * 2 == good
    assert "ERROR: No matching distribution found for env-not-there==1.0" in failed.splitlines()
