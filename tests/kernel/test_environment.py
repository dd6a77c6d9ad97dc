"""`PluginEnvironment`, and what of the caller's environment reaches a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import EnvError, Kernel, PluginEnvironment, UsageError

MakeFolder = Callable[..., Path]

both_executors = pytest.mark.parametrize("executor", ["local", "process"])


# Where values come from.


def test_a_dict_becomes_text():
    env = PluginEnvironment(
        {"N": 3, "F": 0.5, "ON": True, "OFF": False, "LIST": ["a", 1, True], "NONE": None}
    )

    assert {"N": "3", "F": "0.5", "ON": "true", "OFF": "false", "LIST": "a,1,true", "NONE": ""} == dict(env)


def test_a_path_becomes_text():
    assert "a/b" == PluginEnvironment({"P": Path("a/b")})["P"]


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(EnvError) as raised:
        PluginEnvironment({"NESTED": {"a": 1}})

    assert (
        "Environment variable 'NESTED' must be text, a number, true or false, or a list of those, not dict"
    ) == str(raised.value)
    assert "NESTED" == raised.value.key


def test_from_environ_takes_what_starts_with_the_prefix():
    environ = {"APP_URL": "u", "APP_": "bare", "HOME": "/h"}

    assert {"APP_URL": "u", "APP_": "bare"} == dict(PluginEnvironment.from_environ("APP_", environ))
    assert {"URL": "u"} == dict(PluginEnvironment.from_environ("APP_", environ, strip=True))
    assert environ == dict(PluginEnvironment.from_environ(environ=environ))


def test_from_environ_reads_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APP_URL", "here")

    assert "here" == PluginEnvironment.from_environ("APP_")["APP_URL"]


FILES = {
    "a.toml": 'URL = "u"\nN = 3\nLIVE = true\nLIST = ["a", "b"]\n',
    "a.yaml": "URL: u\nN: 3\nLIVE: true\nLIST: [a, b]\n",
    "a.yml": "URL: u\nN: 3\nLIVE: true\nLIST: [a, b]\n",
    ".env": "# a comment\nexport URL='u'\nN=3\n\nLIVE=true\nLIST=\"a,b\"\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_ending(make_folder: MakeFolder, name: str):
    env = PluginEnvironment.from_file(make_folder(FILES) / name)

    assert {"URL": "u", "N": "3", "LIVE": "true", "LIST": "a,b"} == dict(env)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    file = tmp_path / "missing.toml"

    with pytest.raises(EnvError) as raised:
        PluginEnvironment.from_file(file)

    assert (f"Cannot read the environment file {file}: [Errno 2] No such file or directory: '{file}'") == str(
        raised.value
    )


def test_a_file_that_is_not_text_is_told(tmp_path: Path):
    file = tmp_path / "a.env"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(EnvError, match=f"^Cannot read the environment file {file}: 'utf-8' codec"):
        PluginEnvironment.from_file(file)


def test_broken_toml_is_told_with_its_place(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("A = 1\nB = \n")

    with pytest.raises(EnvError) as raised:
        PluginEnvironment.from_file(file)

    assert f"{file} is not valid TOML: Invalid value (at line 2, column 5)" == str(raised.value)


def test_broken_yaml_is_told_with_its_place(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("A: 1\nB: [\n")

    with pytest.raises(EnvError) as raised:
        PluginEnvironment.from_file(file)

    assert str(file) in str(raised.value)
    assert "line 3" in str(raised.value)


def test_a_broken_env_line_is_told_with_its_number(tmp_path: Path):
    file = tmp_path / ".env"
    file.write_text("A=1\nthis is no pair\n")

    with pytest.raises(EnvError) as raised:
        PluginEnvironment.from_file(file)

    assert f"{file} line 2 is not KEY=VALUE: 'this is no pair'" == str(raised.value)


def test_a_table_in_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("[table]\nA = 1\n")

    with pytest.raises(EnvError) as raised:
        PluginEnvironment.from_file(file)

    assert (
        "Environment variable 'table' must be text, a number, true or false, or a list of those, not dict"
    ) == str(raised.value)


def test_merge_lets_the_later_win_and_keeps_the_earlier():
    first = PluginEnvironment({"A": 1, "B": 2})

    merged = first.merge({"B": 3}, PluginEnvironment({"C": 4, "B": 5}))

    assert {"A": "1", "B": "5", "C": "4"} == dict(merged)
    assert {"A": "1", "B": "2"} == dict(first)


def test_an_environment_cannot_be_changed():
    env = PluginEnvironment({"A": 1})

    with pytest.raises(TypeError):
        env["A"] = "2"  # type: ignore[index]
    env.to_dict()["A"] = "2"
    assert "1" == env["A"]


# Typed access.

ENV = PluginEnvironment(
    {
        "TEXT": "words",
        "N": "42",
        "F": "1.5",
        "ON": "Yes",
        "OFF": "0",
        "LIST": " a, b ,,c ",
        "PATHS": "x:y",
        "P": "~/data",
        "EMPTY": "",
        "API_KEY": "hush",
    }
)


def test_values_convert():
    assert "words" == ENV.get_str("TEXT")
    assert 42 == ENV.get_int("N")
    assert 1.5 == ENV.get_float("F")
    assert 42.0 == ENV.get_float("N")
    assert ["a", "b", "c"] == ENV.get_list("LIST")
    assert ["x", "y"] == ENV.get_list("PATHS", separator=":")
    assert [] == ENV.get_list("EMPTY")
    assert Path("~/data").expanduser() == ENV.get_path("P")
    assert "" == ENV.get_str("EMPTY")


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on", " on "])
def test_words_for_true(text: str):
    assert PluginEnvironment({"A": text}).get_bool("A") is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off", ""])
def test_words_for_false(text: str):
    assert PluginEnvironment({"A": text}).get_bool("A") is False


GETTERS = ["get_str", "get_int", "get_float", "get_bool", "get_list", "get_path"]


@pytest.mark.parametrize("getter", GETTERS)
@pytest.mark.parametrize("default", [None, 0, "text", []], ids=repr)
def test_a_missing_key_gives_the_default_as_it_is(getter: str, default: Any):
    assert default is getattr(ENV, getter)("MISSING", default)


@pytest.mark.parametrize("getter", GETTERS)
def test_a_missing_key_without_a_default_is_told(getter: str):
    env = PluginEnvironment({"API_URL": "u", "N": 1})

    with pytest.raises(EnvError) as raised:
        getattr(env, getter)("API_URI")

    assert (
        "Environment variable 'API_URI' is not set for this run; did you mean 'API_URL'?\n"
        "  set for this run: API_URL, N\n"
        "  pass it with  --env API_URI=VALUE  (or --env API_URI to take it from your shell)"
    ) == str(raised.value)
    assert "API_URI" == raised.value.key


def test_a_missing_key_of_an_empty_environment_is_told():
    with pytest.raises(EnvError) as raised:
        PluginEnvironment().get_str("URL")

    assert (
        "Environment variable 'URL' is not set for this run\n"
        "  set for this run: none\n"
        "  pass it with  --env URL=VALUE  (or --env URL to take it from your shell)"
    ) == str(raised.value)


@pytest.mark.parametrize(
    ("getter", "wanted"),
    [
        ("get_int", "a whole number"),
        ("get_float", "a number"),
        ("get_bool", "true or false (1/0, yes/no, on/off)"),
    ],
)
def test_a_value_that_does_not_convert_is_told_with_it(getter: str, wanted: str):
    with pytest.raises(EnvError) as raised:
        getattr(ENV, getter)("TEXT", None)

    assert f"Environment variable 'TEXT' is not {wanted}: 'words'" == str(raised.value)
    assert "TEXT" == raised.value.key


def test_a_secret_value_that_does_not_convert_is_not_shown():
    with pytest.raises(EnvError) as raised:
        ENV.get_int("API_KEY")

    assert "Environment variable 'API_KEY' is not a whole number: ***" == str(raised.value)


def test_secrets_are_masked_where_an_environment_is_shown():
    env = PluginEnvironment({"API_KEY": "hush", "URL": "u"})

    assert {"API_KEY": "***", "URL": "u"} == env.masked()
    assert "PluginEnvironment({'API_KEY': '***', 'URL': 'u'})" == repr(env)
    assert {"API_KEY": "hush", "URL": "u"} == env.to_dict()


# What reaches a run.

TELL = """
    import os

    from synapse_kernel import action


    @action
    def tell(params, ctx):
        return {"ctx": dict(ctx.env), "process": dict(os.environ)}
"""


def folder_with(make_folder: MakeFolder, env: str = "") -> str:
    config = f"name: tell\nactions: {{tell: 'tell:tell'}}\n{env}"
    return str(make_folder({"config.yaml": config, "tell.py": TELL}))


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables in the caller's environment."""
    for name in ("ALPHA", "BETA", "PRE_ONE", "PRE_TWO"):
        monkeypatch.setenv(name, f"caller's {name}")


@both_executors
@pytest.mark.usefixtures("callers")
def test_nothing_reaches_a_run_unless_it_is_named(kernel: Kernel, make_folder: MakeFolder, executor: str):
    assert {} == kernel.run(folder_with(make_folder), executor=executor).unwrap()["ctx"]


@pytest.mark.usefixtures("callers")
def test_a_process_gets_nothing_of_the_callers_environment_but_what_it_needs_to_start(
    kernel: Kernel, make_folder: MakeFolder
):
    outcome = kernel.run(folder_with(make_folder), executor="process", env=["BETA"])

    found = outcome.unwrap()["process"]
    assert {"BETA"} == {name for name in found if name in {"ALPHA", "BETA", "PRE_ONE", "PRE_TWO"}}
    assert "PATH" in found


@both_executors
@pytest.mark.usefixtures("callers")
def test_variables_named_in_the_call_are_taken_from_the_caller(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    outcome = kernel.run(folder_with(make_folder), executor=executor, env=["ALPHA"])

    assert {"ALPHA": "caller's ALPHA"} == outcome.unwrap()["ctx"]


@both_executors
@pytest.mark.usefixtures("callers")
def test_variables_given_in_the_call_have_the_values_of_the_call(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    outcome = kernel.run(folder_with(make_folder), executor=executor, env={"ALPHA": 1, "ON": True})

    assert {"ALPHA": "1", "ON": "true"} == outcome.unwrap()["ctx"]


def test_a_variable_named_in_the_call_that_is_not_set_is_told(kernel: Kernel, make_folder: MakeFolder):
    with pytest.raises(UsageError) as raised:
        kernel.run(folder_with(make_folder), env=["GAMMA"])

    assert "env: GAMMA is not set in this environment; give it a value: GAMMA=VALUE" == str(raised.value)


@pytest.mark.usefixtures("callers")
def test_a_single_name_is_one_name_and_not_its_letters(kernel: Kernel, make_folder: MakeFolder):
    outcome = kernel.run(folder_with(make_folder), env="ALPHA")

    assert {"ALPHA": "caller's ALPHA"} == outcome.unwrap()["ctx"]


@both_executors
@pytest.mark.usefixtures("callers")
def test_the_config_may_name_variables(kernel: Kernel, make_folder: MakeFolder, executor: str):
    folder = folder_with(make_folder, "env: [ALPHA, NOT_SET]")

    assert {"ALPHA": "caller's ALPHA"} == kernel.run(folder, executor=executor).unwrap()["ctx"]


@both_executors
@pytest.mark.usefixtures("callers")
def test_the_config_may_give_variables_values(kernel: Kernel, make_folder: MakeFolder, executor: str):
    folder = folder_with(make_folder, "env: {ALPHA: mine, N: 3, LIVE: true}")

    found = kernel.run(folder, executor=executor, env={"N": 4}).unwrap()["ctx"]

    assert {"ALPHA": "mine", "N": "4", "LIVE": "true"} == found


@both_executors
@pytest.mark.usefixtures("callers")
def test_the_settings_may_name_variables_and_a_prefix(make_folder: MakeFolder, executor: str):
    with Kernel({"env": {"names": ["BETA", "NOT_SET"], "prefix": "PRE_"}}, strict=True) as kernel:
        found = kernel.run(folder_with(make_folder), executor=executor).unwrap()["ctx"]

    assert {
        "BETA": "caller's BETA",
        "PRE_ONE": "caller's PRE_ONE",
        "PRE_TWO": "caller's PRE_TWO",
    } == found


@pytest.mark.usefixtures("callers")
def test_the_call_wins_over_the_config_and_the_config_over_the_settings(make_folder: MakeFolder):
    folder = folder_with(make_folder, "env: {ALPHA: config, BETA: config}")

    with Kernel({"env": {"names": ["ALPHA", "BETA"], "prefix": "PRE_"}}, strict=True) as kernel:
        found = kernel.run(folder, env={"BETA": "call", "PRE_ONE": "call"}).unwrap()["ctx"]

    assert {"ALPHA": "config", "BETA": "call", "PRE_ONE": "call", "PRE_TWO": "caller's PRE_TWO"} == found


def test_a_plan_shows_the_environment_with_secrets_masked(kernel: Kernel, make_folder: MakeFolder):
    plan = kernel.plan(folder_with(make_folder), env={"API_TOKEN": "hush", "URL": "u"})

    assert {"API_TOKEN": "***", "URL": "u"} == plan.env


@both_executors
def test_values_of_secret_variables_never_reach_an_event(
    kernel: Kernel, make_folder: MakeFolder, recorder: Any, executor: str
):
    folder = str(
        make_folder(
            {
                "config.yaml": "name: leak\nactions: {leak: 'leak:leak'}\n",
                "leak.py": """
                    from synapse_kernel import action


                    @action
                    def leak(params, ctx):
                        token = ctx.env["API_TOKEN"]
                        ctx.log("using " + token, {"header": f"Bearer {token}", token: 1})
                        ctx.log_message(f"using {token}")
                        ctx.set_metrics({token: 1}, token)
                        ctx.set_progress(1, 2, token)
                        print("printed", token)
                        raise ValueError(f"refused {token}")
                """,
            }
        )
    )

    outcome = kernel.run(folder, executor=executor, env={"API_TOKEN": "open-sesame"}, sinks=[recorder])

    assert "failed" == outcome.status
    assert 5 <= len(recorder.events)
    assert "sesame" not in repr(recorder.events)
