"""`sync_config_file` and its command: what is found is written, what a person wrote stays."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import ConfigError, TargetNotFoundError, UsageError
from synapse_kernel.config import load_config
from synapse_plugins.discovery import PluginDiscovery
from synapse_plugins.discovery.static import Unreadable
from synapse_plugins.discovery.sync import SyncReport

MakeFolder = Callable[..., Path]
Sync = Callable[[str], tuple[SyncReport, str]]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]

CODE = '''
    from synapse_kernel import BaseAction, action

    class TrainAction(BaseAction[dict]):
        """Train: a "model" # fast."""

        def execute(self): ...

    class Yes(BaseAction):
        action_name = "yes"

        def execute(self): ...

    @action(name="export", description="Schreibe es.")
    def write(params, ctx): ...
'''

TRAIN = """\
  train:
    entrypoint: main:TrainAction
    description: 'Train: a "model" # fast.'
"""
YES = """\
  'yes':
    entrypoint: main:Yes
"""
EXPORT = """\
  export:
    entrypoint: main:write
    description: Schreibe es.
"""
ALL = f"{TRAIN}{YES}{EXPORT}"


@pytest.fixture
def sync(make_folder: MakeFolder) -> Sync:
    """Return a function that syncs a config text with CODE, twice, and gives the report and the new text."""

    def call(config: str) -> tuple[SyncReport, str]:
        folder = make_folder({"main.py": CODE})
        (folder / "config.yaml").write_bytes(config.encode())
        report = PluginDiscovery.sync_config_file(folder)
        written = (folder / "config.yaml").read_bytes()
        again = PluginDiscovery.sync_config_file(folder)
        assert (False, {}, {}, "") == (again.changed, again.added, again.filled, again.diff)
        assert written == (folder / "config.yaml").read_bytes()
        return report, written.decode()

    return call


def lines_between(old: str, new: str) -> tuple[list[str], list[str]]:
    """Return the lines that went and the lines that came."""
    lines = list(difflib.ndiff(old.splitlines(keepends=True), new.splitlines(keepends=True)))
    return [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]


def test_missing_actions_are_added_after_the_others_and_before_what_follows(sync: Sync) -> None:
    head = "# The plugin\nname:   'x'   # its name\nactions:\n  other: a:b  # kept\n"
    tail = "\n# how to run it\nenv: {A: 1,   B: yes}   \ntasks:\n- one\n-   two\n"

    report, written = sync(head + tail)

    assert head + ALL + tail == written
    assert {"train": "main:TrainAction", "yes": "main:Yes", "export": "main:write"} == report.added


def test_the_indentation_and_the_blank_lines_of_the_file_are_kept_to(sync: Sync) -> None:
    config = """\
name: x
actions:
    # the first
    other:
        entrypoint: a:b # why
        params: {a: 1,   b: ~}

    second:
        entrypoint: a:c

tasks: []
"""

    _, written = sync(config)

    assert (
        """\
    second:
        entrypoint: a:c

    train:
        entrypoint: main:TrainAction
        description: 'Train: a "model" # fast.'

    'yes':
        entrypoint: main:Yes

    export:
        entrypoint: main:write
        description: Schreibe es.

tasks: []
"""
        in written
    )
    assert config.partition("\ntasks")[0] == written.partition("\n    train")[0]


def test_null_entrypoints_are_filled_in_where_they_stand(sync: Sync) -> None:
    report, written = sync(
        """\
name: x
actions:
  train:
    description: 'mine'
    entrypoint: null  # todo
  export:
    entrypoint:
    method: job
  "yes":
    # no entrypoint yet
    method: task
"""
    )

    assert (
        """\
name: x
actions:
  train:
    description: 'mine'
    entrypoint: main:TrainAction  # todo
  export:
    entrypoint: main:write
    method: job
  "yes":
    # no entrypoint yet
    entrypoint: main:Yes
    method: task
"""
        == written
    )
    assert ({}, {"train": "main:TrainAction", "export": "main:write", "yes": "main:Yes"}) == (
        report.added,
        report.filled,
    )


def test_an_action_written_in_braces_stays_in_braces(sync: Sync) -> None:
    _, written = sync(
        "name: x\nactions: {other: 'a:b', train: {entrypoint: null}, \"yes\": {}, export: {method: job}}\n"
    )

    assert (
        "name: x\nactions: {other: 'a:b', train: {entrypoint: \"main:TrainAction\"}, "
        '"yes": {entrypoint: "main:Yes"}, export: {entrypoint: "main:write", method: job}}\n'
    ) == written


def test_actions_in_braces_get_the_new_ones_in_braces(sync: Sync) -> None:
    _, written = sync("name: x\nactions: {train: 'main:TrainAction', y: 'main:Yes'}  # all\n")

    assert (
        "name: x\nactions: {train: 'main:TrainAction', y: 'main:Yes', "
        'export: {entrypoint: "main:write", description: "Schreibe es."}}  # all\n'
    ) == written


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("name: x\nactions: {}  # none yet\ntasks: []\n", f"name: x\nactions:  # none yet\n{ALL}tasks: []\n"),
        ("name: x\n# the end", f"name: x\n# the end\nactions:\n{ALL}"),
        ("name: x\nactions:\n  o: a:b", f"name: x\nactions:\n  o: a:b\n{ALL}"),
        (
            "name: x\nactions:\n  o: a:b\n  # p: q:r\n\n  # far\n",
            f"name: x\nactions:\n  o: a:b\n  # p: q:r\n{ALL}\n  # far\n",
        ),
        (
            "name: x\nactions:\n  o:\n    description: |\n      text\n      # text too\n\n# c\ntasks: []\n",
            "name: x\nactions:\n  o:\n    description: |\n      text\n      # text too\n"
            f"{ALL}\n# c\ntasks: []\n",
        ),
        (
            "name: x\nactions:\n  o:\n    params:\n      k:\n      - 1\n      -  # empty\n# c\n",
            f"name: x\nactions:\n  o:\n    params:\n      k:\n      - 1\n      -  # empty\n{ALL}# c\n",
        ),
        ("\ufeffname: x\nactions:\n  o: a:b\n", f"\ufeffname: x\nactions:\n  o: a:b\n{ALL}"),
        (
            "name: x\r\nactions:\r\n  o: a:b\r\n# c\r\n",
            f"name: x\nactions:\n  o: a:b\n{ALL}# c\n".replace("\n", "\r\n"),
        ),
        (
            "%YAML 1.1\n---\nname: x\nactions:\n  o: a:b\n...\n",
            f"%YAML 1.1\n---\nname: x\nactions:\n  o: a:b\n{ALL}...\n",
        ),
        (
            'name: x\ndescription: "a\n  b"\nreadme: >\n  folded\n  text\nactions:\n  "o": a:b\n',
            f'name: x\ndescription: "a\n  b"\nreadme: >\n  folded\n  text\nactions:\n  "o": a:b\n{ALL}',
        ),
    ],
)
def test_every_other_byte_stays(sync: Sync, config: str, expected: str) -> None:
    assert expected == sync(config)[1]


def test_an_anchor_and_its_alias_stay(sync: Sync) -> None:
    config = "name: x\nactions:\n  o: &o\n    entrypoint: a:b\n    method: job\n  p: *o\n"

    assert f"{config}{ALL}" == sync(config)[1]


def test_a_merged_null_is_filled_in_the_action_itself(sync: Sync) -> None:
    config = "name: x\nactions:\n  train: &t\n    entrypoint: null\n  export:\n    <<: *t\n    method: job\n"

    assert (
        "name: x\nactions:\n  train: &t\n    entrypoint: main:TrainAction\n  export:\n"
        f"    entrypoint: main:write\n    <<: *t\n    method: job\n{YES}"
    ) == sync(config)[1]


@pytest.mark.parametrize(
    "config",
    [
        "{name: x, actions: {other: 'a:b'}}  # all in braces\n",
        "---\nname: x   # kept\n...\n",
        "name: x\nactions:\n  o:\n    description: |+\n      kept lines\n\n\n# c\ntasks: []\n",
    ],
)
def test_a_document_of_an_unusual_shape_keeps_its_data_and_comments(sync: Sync, config: str) -> None:
    """These cannot be added to line by line: they are written anew by a round-trip library."""
    report, written = sync(config)

    assert ["train", "yes", "export"] == list(report.added)
    assert ("#" in config) == ("#" in written.replace('# fast."""', "").replace('" # fast.', ""))


def test_a_document_that_cannot_be_added_to_says_what_to_write(make_folder: MakeFolder) -> None:
    """One mapping under two names cannot hold two entrypoints."""
    config = "name: x\nactions:\n  train: &t\n    method: job\n  export: *t\n  y: main:Yes\n"
    folder = make_folder({"main.py": CODE, "config.yaml": config})

    with pytest.raises(ConfigError) as raised:
        PluginDiscovery.sync_config_file(folder)

    assert (
        f"{folder / 'config.yaml'} is written in a way that cannot be added to:\n"
        "  actions.train: add entrypoint: main:TrainAction\n"
        "  actions.export: add entrypoint: main:write"
    ) == str(raised.value)
    assert config == (folder / "config.yaml").read_text()


def test_nothing_is_written_when_nothing_changed(make_folder: MakeFolder) -> None:
    config = "name:  x\nactions: {t: 'main:TrainAction', y: main.Yes,   e: 'main:write'}\n"
    folder = make_folder({"main.py": CODE, "config.yaml": config})
    file = folder / "config.yaml"
    os.utime(file, ns=(1_000, 1_000))

    report = PluginDiscovery.sync_config_file(folder)

    assert (False, False, {}, {}, {}, [], "") == (
        report.changed,
        report.created,
        report.added,
        report.filled,
        report.stale,
        report.problems,
        report.diff,
    )
    assert (config, 1_000) == (file.read_text(), file.stat().st_mtime_ns)


def test_an_action_under_another_name_or_through_a_re_export_is_not_added_again(
    make_folder: MakeFolder,
) -> None:
    source = "from synapse_kernel import action\n\n@action\ndef {}(params): ...\n"
    folder = make_folder(
        {
            "plugin/__init__.py": "from .a import one as first\nfrom .b import *",
            "plugin/a.py": source.format("one"),
            "plugin/b.py": source.format("two"),
            "plugin/c.py": source.format("three"),
            "config.yaml": """
                name: x
                actions:
                  mine: plugin:first
                  other: {name: yours, entrypoint: plugin.two}
                  third: plugin.c:three
            """,
        }
    )

    report = PluginDiscovery.sync_config_file(folder)

    assert (False, {}, {}) == (report.changed, report.added, report.stale)


def test_an_action_that_is_gone_from_the_code_is_told_and_stays(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "main.py": CODE,
            "plugin/__init__.py": "from main import gone_too",
            "plugin/broken.py": "def (",
            "plugin/open.py": "from somewhere_else import *",
            "plugin/values.py": "made = object()\nfirst, (second, third) = 1, (2, 3)",
            "config.yaml": """
                name: x
                actions:
                  t: main:TrainAction
                  y: main:Yes
                  e: main:write
                  no_module: gone.module:A
                  no_attribute: {name: renamed, entrypoint: main.Gone, params: {a: 1}}
                  forwarded: plugin:gone_too
                  null_one: {}
                  unreadable: plugin.broken:A
                  may_be_there: plugin.open:A
                  assigned: plugin.values:third
            """,
        }
    )
    config = (folder / "config.yaml").read_text()

    report = PluginDiscovery.sync_config_file(folder)

    assert {
        "no_module": "gone.module:A",
        "renamed": "main.Gone",
        "forwarded": "plugin:gone_too",
        "null_one": None,
    } == report.stale
    assert config == (folder / "config.yaml").read_text()


def test_two_actions_of_one_name_are_told_and_neither_is_written(make_folder: MakeFolder) -> None:
    source = "from synapse_kernel import action\n\n@action\ndef {}(params): ...\n"
    folder = make_folder(
        {
            "a.py": source.format("train"),
            "b.py": source.format("train"),
            "c.py": source.format("taken"),
            "d.py": source.format("fine"),
            "config.yaml": "name: x\nactions:\n  train: {}\n  taken: elsewhere:thing\n",
        }
    )

    report = PluginDiscovery.sync_config_file(folder)

    assert ({"fine": "d:fine"}, {}) == (report.added, report.filled)
    assert [
        "a.py line 4: another action is named 'train'; give a:train a name of its own",
        "b.py line 4: another action is named 'train'; give b:train a name of its own",
        "c.py line 4: another action is named 'taken'; give c:taken a name of its own",
    ] == [str(problem) for problem in report.problems]


def test_an_action_in_a_file_that_no_entrypoint_can_name_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {"my-actions.py": "from synapse_kernel import action\n\n@action\ndef a(params): ..."}
    )

    report = PluginDiscovery.sync_config_file(folder)

    reason = "action 'a' is in a file or folder whose name no entrypoint can hold"
    assert [Unreadable(file="my-actions.py", line=4, reason=reason)] == report.problems
    assert not (folder / "config.yaml").exists()


def test_a_config_is_made_where_there_is_none(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": CODE}, name="Box counter")

    report = PluginDiscovery.sync_config_file(folder)

    assert (True, True) == (report.changed, report.created)
    assert (
        f"name: Box counter\nversion: 0.1.0\ncategory: custom\nactions:\n{ALL}"
        == (folder / "config.yaml").read_text()
    )
    assert ["train", "yes", "export"] == list(load_config(folder).action_configs())
    assert ["train", "yes", "export"] == PluginDiscovery.from_path(folder).list_actions()


@pytest.mark.parametrize("name", ["yes", "1.5", "null", "a: b"])
def test_a_folder_whose_name_yaml_would_misread_is_quoted(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder({"main.py": CODE}, name=name)

    PluginDiscovery.sync_config_file(folder)

    assert name == load_config(folder).name


def test_no_config_is_made_where_the_code_has_no_action(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "x = 1"})

    report = PluginDiscovery.sync_config_file(folder)

    assert (False, False, "") == (report.changed, report.created, report.diff)
    assert ["main.py"] == [p.name for p in folder.iterdir()]


def test_a_dry_run_shows_the_difference_and_writes_nothing(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": CODE, "config.yaml": "name: x\nactions:\n  train: {}\n  y: main:Yes\n"})
    file = folder / "config.yaml"

    report = PluginDiscovery.sync_config_file(folder, dry_run=True)

    assert (
        f"--- {file}\n+++ {file}\n@@ -1,4 +1,7 @@\n name: x\n actions:\n"
        '-  train: {}\n+  train: {entrypoint: "main:TrainAction"}\n   y: main:Yes\n'
        "+  export:\n+    entrypoint: main:write\n+    description: Schreibe es.\n"
    ) == report.diff
    assert (True, "name: x\nactions:\n  train: {}\n  y: main:Yes\n") == (report.changed, file.read_text())


def test_a_dry_run_makes_no_config(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": CODE})

    report = PluginDiscovery.sync_config_file(folder, dry_run=True)

    assert report.created
    assert report.diff.startswith(f"--- /dev/null\n+++ {folder / 'config.yaml'}\n@@ -0,0 +1,")
    assert not (folder / "config.yaml").exists()


def test_nothing_is_executed(make_folder: MakeFolder, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    folder = make_folder({"main.py": CODE, "other.py": f"open({str(mark)!r}, 'w')\nraise SystemExit"})

    PluginDiscovery.sync_config_file(folder)

    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("name: 'x\n", "The config cannot be read:\n  FILE line 2, column 1: "),
        ("name: x\nactons: {}\n", "FILE cannot be used:\n  actons: unknown key; did you mean 'actions'?"),
    ],
)
def test_a_broken_config_is_told_and_left_alone(make_folder: MakeFolder, config: str, problem: str) -> None:
    folder = make_folder({"main.py": CODE, "config.yaml": config})

    with pytest.raises(ConfigError) as raised:
        PluginDiscovery.sync_config_file(folder)

    assert str(raised.value).replace(str(folder / "config.yaml"), "FILE").startswith(problem)
    assert config == (folder / "config.yaml").read_text()


def test_a_path_that_is_not_there_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": CODE}, name="counter")

    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.sync_config_file(folder.parent / "coutner" / "config.yaml")
    assert f"There is no {folder.parent / 'coutner'}; did you mean 'counter'?" == str(raised.value)

    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.sync_config_file(folder.parent / "coutner")
    assert f"There is no {folder.parent / 'coutner'}; did you mean 'counter'?" == str(raised.value)


def test_a_file_that_is_no_config_is_refused(make_folder: MakeFolder) -> None:
    file = make_folder({"main.py": CODE}) / "main.py"

    with pytest.raises(UsageError) as raised:
        PluginDiscovery.sync_config_file(file)

    assert f"{file} is neither a folder nor its config.yaml" == str(raised.value)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a function that runs `synapse-kernel` as a process of its own."""

    def call(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
        script = f"{before}\nimport sys\nfrom synapse_kernel.cli import main\nsys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", script, *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return call


MIXED = {
    "main.py": CODE,
    "config.yaml": "name: x\nactions:\n  train: {}\n  old: gone:A\n  lost: {}\n  y: main:Yes\n",
}


def test_the_command_tells_what_it_did(cli: Cli, make_folder: MakeFolder) -> None:
    folder = make_folder(MIXED)

    done = cli("sync-config", str(folder))

    assert (
        "added   export  main:write\n"
        "filled  train   main:TrainAction\n"
        "stale   old     gone:A is not in the code\n"
        "stale   lost    has no entrypoint, and the code has no action of this name\n"
        f"{folder / 'config.yaml'}: written\n"
    ) == done.stdout
    assert ("", 0) == (done.stderr, done.returncode)
    assert "main:write" in (folder / "config.yaml").read_text()


def test_the_command_shows_the_difference_on_a_dry_run(cli: Cli, make_folder: MakeFolder) -> None:
    folder = make_folder(MIXED)

    done = cli("sync-config", "plugin_folder", "--dry-run")

    assert '\n-  train: {}\n+  train: {entrypoint: "main:TrainAction"}\n' in done.stdout
    assert 0 == done.returncode
    assert MIXED["config.yaml"] == (folder / "config.yaml").read_text()


def test_the_command_says_so_when_there_is_nothing_to_change(cli: Cli, make_folder: MakeFolder) -> None:
    folder = make_folder({"config.yaml": "name: x\n"})

    assert f"{folder / 'config.yaml'}: nothing to change\n" == cli("sync-config", str(folder)).stdout


def test_the_command_prints_one_document_as_json(cli: Cli, make_folder: MakeFolder) -> None:
    folder = make_folder(MIXED)

    done = cli("sync-config", str(folder), "--dry-run", "--json")

    report = json.loads(done.stdout)
    assert done.stdout.endswith("}\n")
    assert ({"export": "main:write"}, {"train": "main:TrainAction"}, {"old": "gone:A", "lost": None}) == (
        report["added"],
        report["filled"],
        report["stale"],
    )
    assert (str(folder / "config.yaml"), True, False, []) == (
        report["file"],
        report["changed"],
        report["created"],
        report["problems"],
    )


def test_files_that_do_not_parse_make_exit_code_2_after_the_rest_is_written(
    cli: Cli, make_folder: MakeFolder
) -> None:
    folder = make_folder({"main.py": CODE, "bad.py": "def ("})

    done = cli("sync-config", str(folder), "--json")

    assert (2, "passed over: bad.py line 1: invalid syntax\n") == (done.returncode, done.stderr)
    assert [{"file": "bad.py", "line": 1, "reason": "invalid syntax"}] == json.loads(done.stdout)["problems"]
    assert ["train", "yes", "export"] == list(load_config(folder).action_configs())


def test_the_command_reports_a_broken_config_without_a_traceback(cli: Cli, make_folder: MakeFolder) -> None:
    folder = make_folder({"config.yaml": "name: x\nname: y\n"})

    done = cli("sync-config", str(folder))

    assert (2, "") == (done.returncode, done.stdout)
    assert f"{folder / 'config.yaml'} line 2, column 1: the key 'name' is there twice" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_config_that_cannot_be_written_is_told_and_left_as_it_was(
    cli: Cli, make_folder: MakeFolder
) -> None:
    """The process may write no byte to any file, as on a full disk."""
    folder = make_folder({"main.py": CODE, "config.yaml": "name: x\n"})

    done = cli(
        "sync-config",
        str(folder),
        before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    )

    file = folder / "config.yaml"
    assert (2, "") == (done.returncode, done.stdout)
    assert f"The config cannot be written:\n  {file}: File too large\n" in done.stderr
    assert ("name: x\n", ["config.yaml", "main.py"]) == (
        file.read_text(),
        sorted(p.name for p in folder.iterdir()),
    )


def test_the_commands_help_teaches_with_an_example(cli: Cli) -> None:
    done = cli("sync-config", "--help")

    assert "  synapse-kernel sync-config ./my_plugin --dry-run\n" in done.stdout
    assert "Write the actions found in a folder's code into its config.yaml." in done.stdout
