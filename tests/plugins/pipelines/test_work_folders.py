"""The folder of a pipeline's run: made when it is used, and nothing leads out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_kernel import Kernel, action
from synapse_kernel.errors import UsageError, WorkFolderError
from synapse_plugins.pipelines import Pipeline
from synapse_plugins.pipelines.work_folders import FOLDERS, PipelineContext


@pytest.fixture
def context(tmp_path: Path) -> PipelineContext:
    """Return the context of the run `r1` under the test's folder."""
    return PipelineContext(tmp_path, "r1")


def names_in(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(found.name for found in folder.iterdir())


def test_nothing_is_made_before_it_is_used(context: PipelineContext, tmp_path: Path) -> None:
    context.node_path("train")
    context.names()

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FOLDERS)
def test_each_shared_folder_is_made_when_it_is_asked_for(
    context: PipelineContext, tmp_path: Path, name: str
) -> None:
    found = getattr(context, name)

    assert tmp_path / "r1" / name == found
    assert [name] == names_in(tmp_path / "r1")


def test_a_folder_that_is_there_is_used_as_it_is(context: PipelineContext, tmp_path: Path) -> None:
    (tmp_path / "r1" / "models").mkdir(parents=True)
    (tmp_path / "r1" / "models" / "best.pt").write_text("weights")

    assert ["best.pt"] == [file.name for file in context.models.iterdir()]


def test_a_relative_root_means_where_the_process_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    context = PipelineContext("work", "r1")
    monkeypatch.chdir("/")

    assert tmp_path / "work" / "r1" / "logs" == context.logs


@pytest.mark.parametrize(
    ("node", "relative"),
    [
        ("train", "nodes/train"),
        ("draw[3]", "nodes/draw/3"),
        ("draw[03]", "nodes/draw/3"),
        ("draw-3", "nodes/draw-3"),
        ("-", "nodes/-"),
        ("fit.v2", "nodes/fit.v2"),
        ("zeichne_größer", "nodes/zeichne_größer"),
    ],
)
def test_a_node_instance_has_a_folder_of_its_own(
    context: PipelineContext, tmp_path: Path, node: str, relative: str
) -> None:
    assert str(tmp_path / "r1" / relative) == context.node_path(node)
    assert context.node_path(node) == str(context.node_dir(node))
    assert context.node_dir(node).is_dir()


def test_the_names_of_references_are_texts_and_make_the_folder_they_name(
    context: PipelineContext, tmp_path: Path
) -> None:
    names = context.names()

    assert str(tmp_path / "r1" / "datasets") == names["datasets"]
    assert ["datasets"] == names_in(tmp_path / "r1")
    assert {
        "id": "r1",
        "folder": str(tmp_path / "r1"),
        **{name: str(tmp_path / "r1" / name) for name in FOLDERS},
    } == dict(names)
    assert "wherever" not in names


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "../up",
        "a/../../b",
        "/etc",
        "a/b",
        "a\\b",
        "C:",
        "a\0b",
        "a\n",
        "what?",
        "a*",
        "a<b",
        "a|b",
        '"a"',
        "~",
        ".hidden",
        "dot.",
        "space ",
        "[3]",
        "a[1][2]",
        "../a[1]",
        "a[-1]",
        "a[1]/b",
        "a[1234567890]",
    ],
)
def test_a_name_that_is_not_plain_is_refused(context: PipelineContext, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as raised:
        context.node_dir(name)

    assert f"{name!r} cannot name a node: use letters, digits, '_' and '-', and '.' between them" == str(
        raised.value
    )
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["con", "NUL", "aux.txt", "Com1", "lpt9", "prn[2]"])
def test_a_name_that_windows_keeps_for_a_device_is_refused(context: PipelineContext, name: str) -> None:
    with pytest.raises(UsageError) as raised:
        context.node_dir(name)

    assert f"{name!r} cannot name a node: Windows keeps the name for a device" == str(raised.value)


def test_a_name_longer_than_a_file_systems_is_refused(context: PipelineContext) -> None:
    name = "é" * 101

    with pytest.raises(UsageError) as raised:
        context.node_dir(name)

    assert f"{name!r} cannot name a node: it is longer than 200 bytes" == str(raised.value)


@pytest.mark.parametrize("run_id", ["../r1", "/r1", "r1/..", "", "r1\0"])
def test_a_runs_id_that_is_not_plain_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError) as raised:
        PipelineContext(tmp_path, run_id)

    assert f"{run_id!r} cannot name a run: use letters, digits, '_' and '-', and '.' between them" == str(
        raised.value
    )


@pytest.mark.parametrize(("linked", "asked"), [("datasets", "datasets"), ("nodes", "nodes/train")])
def test_a_link_that_leads_out_is_refused_and_nothing_is_made_behind_it(
    context: PipelineContext, tmp_path: Path, linked: str, asked: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / linked).symlink_to(outside)

    with pytest.raises(UsageError) as raised:
        context.node_dir("train") if linked == "nodes" else context.datasets

    real = outside / asked.removeprefix(linked).lstrip("/")
    assert (
        f"{tmp_path / 'r1' / asked} leads out of the folder of run r1, to {real}\n"
        "  remove the link, or start a new run"
    ) == str(raised.value)
    assert [] == list(outside.iterdir())


def test_a_link_in_place_of_the_runs_own_folder_is_refused(context: PipelineContext, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "r1").symlink_to(tmp_path / "outside")

    with pytest.raises(UsageError, match="leads out of the folder of run r1"):
        context.logs  # noqa: B018 - what it does when it is read


def test_a_root_that_is_reached_by_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "disk")

    assert PipelineContext(tmp_path / "work", "r1").logs.is_dir()
    assert (tmp_path / "disk" / "r1" / "logs").is_dir()


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(
    context: PipelineContext, tmp_path: Path
) -> None:
    (tmp_path / "r1").write_text("a file in its place")

    with pytest.raises(WorkFolderError) as raised:
        context.node_dir("train")

    assert (
        f"The run's work folder {tmp_path / 'r1' / 'nodes' / 'train'} cannot be written: Not a directory\n"
        "  choose another with the setting work_dir, or the variable SYNAPSE_WORK_DIR"
    ) == str(raised.value)


@pytest.mark.parametrize("linked", ["r1", "r1/nodes", "r1/nodes/draw", "r1/nodes/draw/3"])
def test_a_nodes_own_folder_is_not_told_where_a_link_on_the_way_leads_out(
    context: PipelineContext, tmp_path: Path, linked: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / linked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / linked).symlink_to(outside)

    with pytest.raises(UsageError, match="leads out of the folder of run r1"):
        context.node_path("draw[3]")


def test_a_link_that_stays_in_the_runs_folder_is_followed(context: PipelineContext, tmp_path: Path) -> None:
    (tmp_path / "r1" / "elsewhere").mkdir(parents=True)
    (tmp_path / "r1" / "nodes").symlink_to("elsewhere")

    assert str(tmp_path / "r1" / "nodes" / "train") == context.node_path("train")


def test_a_node_does_not_start_in_a_folder_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    @action
    def lead_out(params, ctx):
        (ctx.work_dir.parent / "late").symlink_to(outside)

    @action
    def write(params, ctx):
        (ctx.work_dir / "made.txt").write_text("here")

    pipeline = Pipeline("p")
    pipeline.add("late", write, needs=[pipeline.add("first", lead_out)])
    with Kernel({"work_dir": str(tmp_path / "runs")}) as kernel:
        outcome = pipeline.execute(kernel=kernel)

    assert outcome.error is not None
    assert "leads out of the folder of run" in outcome.error.message
    assert [] == list(outside.iterdir())
