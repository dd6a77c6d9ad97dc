"""Settings: their sources and who wins, and every mistake told in full."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from synapse_kernel import Kernel, Settings, SettingsError, hookimpl, load_settings
from synapse_kernel.plugins import PluginWarning
from synapse_kernel.settings import assigned


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a user's folder; `environ` of it points there."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "deep" / "down").mkdir(parents=True)
    return folder


def test_with_no_source_the_defaults_hold(home: Path, project: Path):
    settings = load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    kernel = settings.kernel
    assert ("the settings", {}) == (settings.origin, settings.values)
    assert (None, None, None, 5.0) == (kernel.executor, kernel.sinks, kernel.work_dir, kernel.grace)
    assert (1.0, 60.0) == (kernel.retry.initial, kernel.retry.maximum)
    assert ([], None, {}) == (kernel.plugins.block, kernel.plugins.only, kernel.plugins.prefer)
    assert ([], None) == (kernel.env.names, kernel.env.prefix)


def test_later_sources_win_key_by_key(home: Path, project: Path):
    (home / "synapse.yaml").write_text(
        "executor: user\ngrace: 1\nretry: {initial: 1, maximum: 10}\nwork_dir: /user\n"
    )
    (project / "synapse.yaml").write_text("executor: project\ngrace: 2\nretry: {maximum: 20}\n")
    environ = {"SYNAPSE_HOME": str(home), "SYNAPSE_GRACE": "3", "SYNAPSE_EXECUTOR": "variable"}

    settings = load_settings(start=project, environ=environ, overrides={"grace": 4})

    kernel = settings.kernel
    assert ("variable", 4, "/user") == (kernel.executor, kernel.grace, kernel.work_dir)
    assert (1, 20) == (kernel.retry.initial, kernel.retry.maximum)
    assert (f"{home / 'synapse.yaml'} + {project / 'synapse.yaml'} + SYNAPSE_* variables") == settings.origin


def test_the_project_file_is_the_nearest_at_or_above(home: Path, project: Path):
    (project / "synapse.yaml").write_text("executor: far\n")
    environ = {"SYNAPSE_HOME": str(home)}
    assert "far" == load_settings(start=project / "deep" / "down", environ=environ).kernel.executor

    (project / "deep" / "synapse.yaml").write_text("executor: near\n")

    assert "near" == load_settings(start=project / "deep" / "down", environ=environ).kernel.executor


def test_a_named_file_takes_the_place_of_the_projects(home: Path, project: Path):
    (home / "synapse.yaml").write_text("work_dir: /user\n")
    (project / "synapse.yaml").write_text("executor: project\n")
    named = project / "other.yaml"
    named.write_text("grace: 9\n")

    settings = load_settings(named, start=project, environ={"SYNAPSE_HOME": str(home)})

    assert {"work_dir": "/user", "grace": 9} == settings.values


def test_the_users_file_is_found_where_xdg_says(tmp_path: Path, project: Path):
    (tmp_path / "synapse-kernel").mkdir()
    (tmp_path / "synapse-kernel" / "synapse.yaml").write_text("executor: xdg\n")

    settings = load_settings(start=project, environ={"XDG_CONFIG_HOME": str(tmp_path)})

    assert "xdg" == settings.kernel.executor


@pytest.mark.parametrize(
    ("variables", "values"),
    [
        ({"SYNAPSE_GRACE": "0.5"}, {"grace": 0.5}),
        ({"SYNAPSE_RETRY__INITIAL": "2"}, {"retry": {"initial": 2}}),
        ({"SYNAPSE_PLUGINS": "a, b,"}, {"plugins": {"only": ["a", "b"]}}),
        ({"SYNAPSE_PLUGINS": ""}, {"plugins": {"only": []}}),
        (
            {"SYNAPSE_PLUGINS": "a", "SYNAPSE_PLUGINS__BLOCK": "[b, c]"},
            {"plugins": {"only": ["a"], "block": ["b", "c"]}},
        ),
        ({"SYNAPSE_SINKS": "console, jsonl:run.jsonl"}, {"sinks": ["console", "jsonl:run.jsonl"]}),
        ({"SYNAPSE_SINKS": ""}, {"sinks": []}),
        ({"SYNAPSE_STORE": "sqlite:"}, {"store": "sqlite:"}),
        ({"SYNAPSE_WORK_DIR": "/srv/runs"}, {"work_dir": "/srv/runs"}),
        ({"SYNAPSE_ENV__PREFIX": "ACME_"}, {"env": {"prefix": "ACME_"}}),
        ({"SYNAPSE_EXECUTOR": ""}, {"executor": None}),
        ({"SYNAPSE_SOMETHING": "else", "OTHER": "x"}, {}),
    ],
)
def test_variables_are_read_as_yaml_with_two_underscores_between_levels(
    project: Path, home: Path, variables: dict[str, str], values: dict[str, object]
):
    settings = load_settings(start=project, environ={"SYNAPSE_HOME": str(home), **variables})

    assert values == settings.values


def test_all_mistakes_are_told_at_once(home: Path, project: Path):
    file = project / "synapse.yaml"
    file.write_text(
        "grace: soon\n"
        "executor: [local]\n"
        "sinks: console\n"
        "plugins:\n  blok: [x]\n  only: {a: 1}\n  prefer: {executors: [x]}\n"
        "retry: {initial: 1, jitters: 2}\n"
        "env: PATH\n"
    )

    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    assert (
        f"{file} cannot be used:\n"
        "  grace: expected a number, got text: 'soon'\n"
        "  executor: expected text or null, got a list: ['local']\n"
        "  sinks: expected a list or null, got text: 'console'\n"
        "  plugins.blok: unknown key; did you mean 'block'?\n"
        "  plugins.only: expected a list or null, got a mapping: {'a': 1}\n"
        "  plugins.prefer.executors: expected a mapping, got a list: ['x']\n"
        "  retry.jitters: unknown key; known: initial, maximum\n"
        "  env: expected a mapping, got text: 'PATH'"
    ) == str(caught.value)
    assert 8 == len(caught.value.problems)


def test_a_mistake_in_a_variable_names_the_variables_as_its_source(home: Path, project: Path):
    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home), "SYNAPSE_GRACE": "soon"})

    assert ("SYNAPSE_* variables cannot be used:\n  grace: expected a number, got text: 'soon'") == str(
        caught.value
    )


def test_a_variable_that_is_no_yaml_is_told_by_its_name(home: Path, project: Path):
    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home), "SYNAPSE_RETRY": "{a: ["})

    assert ("The settings cannot be read:\n  SYNAPSE_RETRY: not a YAML value: '{a: ['") == str(caught.value)


def test_a_broken_file_is_told_with_line_and_column(home: Path, project: Path):
    file = project / "synapse.yaml"
    file.write_text("grace: 1\nplugins: {block: [a\n")

    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    title, problem = str(caught.value).splitlines()
    assert "The settings cannot be read:" == title
    assert problem.startswith(f"  {file} line 3, column 1: ")


def test_a_key_written_twice_is_a_mistake(home: Path, project: Path):
    file = project / "synapse.yaml"
    file.write_text("grace: 1\ngrace: 2\n")

    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    assert (
        f"The settings cannot be read:\n  {file} line 2, column 1: the key 'grace' is there twice"
    ) == str(caught.value)


def test_a_file_that_is_no_mapping_is_a_mistake(home: Path, project: Path):
    file = project / "synapse.yaml"
    file.write_text("- a\n- b\n")

    with pytest.raises(SettingsError) as caught:
        load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    assert (
        "The settings cannot be read:\n"
        f"  {file} line 1, column 1: expected a mapping (key: value), got a list"
    ) == str(caught.value)


def test_a_named_file_that_is_not_there_is_a_mistake(tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "gone.yaml", start=tmp_path, environ={})

    assert (f"The settings cannot be read:\n  {tmp_path / 'gone.yaml'}: there is no such file") == str(
        caught.value
    )


def test_an_empty_file_and_null_sections_mean_the_defaults(home: Path, project: Path):
    (home / "synapse.yaml").write_text("")
    (project / "synapse.yaml").write_text("plugins:\nretry: null\ngrace:\n")

    settings = load_settings(start=project, environ={"SYNAPSE_HOME": str(home)})

    assert 5.0 == settings.kernel.grace
    assert [] == settings.kernel.plugins.block


class Colours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's section."""

    colour: str = "red"
    shades: int = 3


def test_settings_that_are_assigned_are_yaml_under_dotted_keys():
    found = assigned(
        ["ray.address=local", "ray.max_workers=2", "grace=1.5", "store=sqlite:/x.db", "sinks=a,b"]
    )

    assert {
        "ray": {"address": "local", "max_workers": 2},
        "grace": 1.5,
        "store": "sqlite:/x.db",
        "sinks": ["a", "b"],
    } == found


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("grace", "--set grace: expected KEY=VALUE, such as ray.address=local"),
        ("a..b=1", "--set a..b=1: expected KEY=VALUE, such as ray.address=local"),
        ("grace=[1", "--set grace: not a YAML value: '[1'"),
    ],
)
def test_an_assignment_that_is_none_is_told(assignment: str, message: str):
    with pytest.raises(SettingsError) as caught:
        assigned([assignment])

    assert f"The settings cannot be read:\n  {message}" == str(caught.value)


class Painter:
    """A plugin that reads its section."""

    SYNAPSE_SETTINGS = ("painter",)

    @hookimpl
    def synapse_configure(self, settings: Settings) -> None:
        self.colours = settings.section("painter", Colours)


def test_a_plugin_reads_its_section_as_a_struct():
    painter = Painter()

    Kernel({"painter": {"colour": "blue"}}, entry_points=[], plugins=[painter])

    assert Colours("blue", 3) == painter.colours


def test_a_section_that_is_not_there_is_its_defaults():
    assert Colours() == Settings({}).section("painter", Colours)


class CheckedPainter:
    """A plugin that says what its section is."""

    SYNAPSE_SETTINGS: ClassVar[dict[str, str]] = {"painter": f"{__name__}:Colours"}


def test_a_section_whose_struct_is_known_is_checked_when_the_kernel_starts(monkeypatch: pytest.MonkeyPatch):
    # Tests are imported under names that nothing else can import.
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Colours.__module__])

    with pytest.raises(SettingsError) as caught:
        Kernel({"painter": {"color": "blue"}}, entry_points=[], plugins=[CheckedPainter()])
    Kernel({"painter": {"colour": "blue"}}, entry_points=[], plugins=[CheckedPainter()])

    assert ("the settings cannot be used:\n  painter.color: unknown key; did you mean 'colour'?") == str(
        caught.value
    )


def test_a_section_whose_struct_cannot_be_imported_is_a_warning():
    class Broken:
        SYNAPSE_SETTINGS: ClassVar[dict[str, str]] = {"painter": "acme_gone:Colours"}

    with pytest.warns(
        PluginWarning, match="acme_gone:Colours cannot be imported: No module named 'acme_gone'"
    ):
        Kernel({"painter": {"colour": "blue"}}, entry_points=[], plugins=[Broken()])


def test_mistakes_in_a_section_are_told_with_its_name():
    settings = Settings({"painter": {"color": "blue", "shades": "many"}}, origin="synapse.yaml")

    with pytest.raises(SettingsError) as caught:
        settings.section("painter", Colours)

    assert (
        "synapse.yaml cannot be used:\n"
        "  painter.color: unknown key; did you mean 'colour'?\n"
        "  painter.shades: expected a whole number, got text: 'many'"
    ) == str(caught.value)


def test_a_section_that_is_no_mapping_is_a_mistake():
    with pytest.raises(SettingsError) as caught:
        Settings({"painter": "blue"}).section("painter", Colours)

    assert ("the settings cannot be used:\n  painter: expected a mapping, got 'blue'") == str(caught.value)


def test_giving_settings_leaves_the_mapping_that_was_given_alone(home: Path, project: Path):
    (project / "synapse.yaml").write_text("plugins: {block: [a]}\n")
    overrides = {"plugins": {"only": ["b"]}}

    settings = load_settings(start=project, environ={"SYNAPSE_HOME": str(home)}, overrides=overrides)

    assert {"plugins": {"block": ["a"], "only": ["b"]}} == settings.values
    assert {"plugins": {"only": ["b"]}} == overrides
