"""
A person clones the repository, types what the README says, and looks around.

The README's command runs in a copy of the tracked files; the tour that follows is done with what it
installed, on a real COCO annotation file.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

Done = subprocess.CompletedProcess[str]

ANNOTATIONS = "../shared/data/coco-tiny-train/annotations/instances_train2017.json"


class Clone(NamedTuple):
    """A copy of the tracked files in which the README's command ran."""

    folder: Path
    done: Done


class Truth(NamedTuple):
    """What an annotation file holds."""

    file: Path
    images: int
    annotations: int
    crowds: int
    unused: list[str]
    per_class: dict[str, tuple[int, int]]
    """Annotations and images by class."""


@pytest.fixture(scope="session")
def readme_command(root: Path) -> Callable[[str], str]:
    """Return a function that returns the first shell block under a heading of the README."""
    readme = (root / "README.md").read_text(encoding="utf-8")

    def command(heading: str) -> str:
        found = re.search(
            rf"^#+ {re.escape(heading)}$.*?^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL
        )
        assert found is not None, f"README.md has no sh block under {heading!r}"
        return found[1].strip()

    return command


@pytest.fixture(scope="module")
def clone(
    root: Path,
    readme_command: Callable[[str], str],
    call: Callable[..., Done],
    must: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Clone:
    """Copy the tracked files as they are now, and run the README's first command there."""
    folder = tmp_path_factory.mktemp("clone") / "synapse-kernel"
    for name in must("git", "ls-files", "-z", cwd=root).split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return Clone(folder, call("sh", "-ec", readme_command("Set up and run"), cwd=folder))


@pytest.fixture
def synapse(clone: Clone, call: Callable[..., Done]) -> Callable[..., Done]:
    """Return a function that runs the `synapse-kernel` which the README's command installed, in the clone."""
    (program,) = clone.folder.glob("*/bin/synapse-kernel")
    return lambda *arguments: call(program, *arguments, cwd=clone.folder)


@pytest.fixture(scope="module")
def truth(root: Path) -> Truth:
    """Read a real annotation file with nothing but the json module."""
    file = (root / ANNOTATIONS).resolve()
    if not file.is_file():
        pytest.skip(f"the data set is not on this machine: {ANNOTATIONS}")
    data = json.loads(file.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in data["categories"]}
    annotations = Counter(names[annotation["category_id"]] for annotation in data["annotations"])
    pairs = {(annotation["category_id"], annotation["image_id"]) for annotation in data["annotations"]}
    images = Counter(names[category] for category, _ in pairs)
    return Truth(
        file=file,
        images=len(data["images"]),
        annotations=len(data["annotations"]),
        crowds=sum(annotation["iscrowd"] for annotation in data["annotations"]),
        unused=sorted(set(names.values()) - set(annotations)),
        per_class={name: (count, images[name]) for name, count in annotations.items()},
    )


def test_the_readmes_first_command_ends_with_a_report(clone: Clone):
    assert 0 == clone.done.returncode, clone.done.stderr
    result = json.loads(clone.done.stdout)
    assert (40, 66) == (result["images"], result["boxes"])
    assert "| square | 23 | " in Path(result["report"]).read_text(encoding="utf-8")
    assert "Traceback" not in clone.done.stderr


def test_the_readmes_first_command_shows_its_nodes(clone: Clone):
    shown = re.findall(r"^(\w+)(?:\[0\])? succeeded in ", clone.done.stderr, re.MULTILINE)

    assert ["draw", "check", "measure", "mirror", "report", "sheet"] == sorted(
        shown, key=["draw", "check", "measure", "mirror", "report", "sheet"].index
    )


def test_the_run_of_the_readmes_first_command_is_in_the_history(clone: Clone, synapse: Callable[..., Done]):
    done = synapse("runs", "list", "--kind", "pipeline", "--json")

    (run,) = json.loads(done.stdout)
    assert ("shapes", "succeeded", "docs/examples/shapes/pipeline.yaml") == (
        run["action"],
        run["status"],
        run["target"],
    )
    assert Path(json.loads(clone.done.stdout)["report"]).is_relative_to(run["work_dir"])
    listed = synapse("runs", "list", "--kind", "pipeline").stdout
    assert re.search(rf"^{run['run_id'][:8]}  shapes  succeeded  .* 12/12$", listed, re.MULTILINE)


def test_what_its_nodes_did_and_measured_is_there_too(synapse: Callable[..., Done]):
    last = json.loads(synapse("runs", "list", "--kind", "pipeline", "--json").stdout)[0]["run_id"]

    nodes = json.loads(synapse("runs", "list", "--children", last, "--all", "--json").stdout)
    assert [("check", "succeeded")] == [(n["action"], n["status"]) for n in nodes if n["node"] == "check"]
    assert 12 == len(nodes)
    metrics = synapse("runs", "metrics", last, "check/*").stdout
    assert [["check/images", "40"], ["check/boxes", "66"]] == [
        line.split()[:2] for line in metrics.splitlines()[1:]
    ]


def test_the_readmes_second_command_is_what_ci_runs(root: Path, readme_command: Callable[[str], str]):
    assert (
        readme_command("Set up and test")
        in (root / ".ci" / "run").read_text(encoding="utf-8").replace("\n    ", "\n").splitlines()
    )


def test_actions_lists_what_the_example_holds(synapse: Callable[..., Done]):
    done = synapse("actions", "docs/examples/coco_report")

    heading, row = done.stdout.splitlines()
    assert ["action", "method", "entrypoint", "description"] == heading.split()
    assert [
        "report",
        "local",
        "plugin.report:ReportAction",
        "Report the classes of a COCO annotation file.",
    ] == row.split(maxsplit=3)
    assert (0, "") == (done.returncode, done.stderr)


def test_describe_shows_types_defaults_limits_and_meanings(synapse: Callable[..., Done]):
    lines = synapse("describe", "docs/examples/coco_report", "report").stdout.splitlines()

    assert "report: Report the classes of a COCO annotation file." == lines[0]
    rows = {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}
    assert ["path", "required", "A COCO annotation file (JSON)."] == rows["path"]
    assert [
        "integer",
        "10 (config)",
        "≥ 1",
        "How many classes to list, the most frequent first.",
    ] == rows["top"]
    assert ["integer", "required", "Images in the file."] == rows["images"]


def test_plugins_shows_the_built_in_ones_at_work(synapse: Callable[..., Done]):
    done = synapse("--strict-plugins", "plugins", "--json")

    plugins = json.loads(done.stdout)
    assert {("synapse-kernel", "active")} == {(p["distribution"], p["state"]) for p in plugins}
    assert {"console", "discovery", "history", "local_executors", "pipelines", "ui_schema"} <= {
        p["name"] for p in plugins
    }
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("executor", ["local", "process"])
def test_a_run_on_a_real_file_reports_what_is_in_it(
    synapse: Callable[..., Done], truth: Truth, executor: str, tmp_path: Path
):
    done = synapse(
        "run", "docs/examples/coco_report", "report", "-p", f"path={truth.file}", "-p", "top=1000",
        "--executor", executor, "--events", str(tmp_path / "events.jsonl"), "--json",
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    outcome = json.loads(done.stdout)
    result = outcome["result"]
    assert "succeeded" == outcome["status"]
    assert (truth.images, truth.annotations, truth.crowds, truth.unused) == (
        result["images"],
        result["annotations"],
        result["crowds"],
        result["unused"],
    )
    assert truth.per_class == {c["name"]: (c["annotations"], c["images"]) for c in result["classes"]}
    counts = [c["annotations"] for c in result["classes"]]
    assert sorted(counts, reverse=True) == counts


def test_the_events_of_a_run_are_there_as_json_lines(
    synapse: Callable[..., Done], truth: Truth, tmp_path: Path
):
    file = tmp_path / "events.jsonl"
    synapse(
        "run",
        "docs/examples/coco_report",
        "report",
        "-p",
        f"path={truth.file}",
        "--events",
        str(file),
        "--json",
    )

    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    last = {event["kind"]: event for event in events}
    assert {"state", "log", "progress", "metrics", "message", "artifact"} == set(last)
    assert "succeeded" == last["state"]["state"]
    assert (truth.annotations, truth.annotations) == (last["progress"]["current"], last["progress"]["total"])
    assert {
        "annotations": truth.annotations,
        "classes": len(truth.per_class),
        "crowds": truth.crowds,
    } == last["metrics"]["values"]
    assert list(range(1, len(events) + 1)) == [event["seq"] for event in events]


def test_a_run_for_a_person_shows_progress_and_metrics(synapse: Callable[..., Done], truth: Truth):
    done = synapse("run", "docs/examples/coco_report", "report", "-p", f"path={truth.file}")

    assert truth.annotations == json.loads(done.stdout)["annotations"]
    assert f"{truth.annotations} annotations of {len(truth.per_class)} classes" in done.stderr
    assert f"annotations={truth.annotations}" in done.stderr


MISTAKES = [
    pytest.param(["run", "docs/examples/coco_reprot", "report"], id="no such folder"),
    pytest.param(["run", "docs/examples/coco_report", "reprot"], id="no such action"),
    pytest.param(["run", "docs/examples/coco_report", "report"], id="a param is missing"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "-p", "top=0"], id="out of range"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "-p", "tpo=3"], id="an unknown param"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path"], id="not KEY=VALUE"),
    pytest.param(["run", "docs/examples/coco_report", "--params", "nowhere.yaml"], id="no params file"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "--executor", "rya"], id="no executor"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "--sink", "consle"], id="no sink"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "--timeout", "soon"], id="no duration"),
    pytest.param(["run", "docs/examples/coco_report", "-p", "path=x", "--env", "NOT_SET_HERE"], id="no env"),
    pytest.param(["actions", "README.md"], id="no action plugin"),
    pytest.param(["describe", "docs/examples/coco_report", "reprot"], id="nothing to describe"),
    pytest.param(["describe", "docs/examples/coco_report", "report", "--schema", "jsn"], id="no dialect"),
    pytest.param(["plugins", "show", "consol"], id="no such plugin"),
    pytest.param(["--settings", "nowhere.yaml", "plugins"], id="no settings"),
    pytest.param(["rnu"], id="no such command"),
]


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_persons_mistake_is_told_without_a_traceback(synapse: Callable[..., Done], arguments: list[str]):
    done = synapse(*arguments)

    assert 2 == done.returncode, done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
