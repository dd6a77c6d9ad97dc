"""Pipelines as plain data for another process, what paths they hand over, and where `--on` sends them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.cli.app import run_app
from synapse_kernel.contracts import ActionRef
from synapse_kernel.errors import ParamsError, UsageError
from synapse_kernel.handles import Run
from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.lasting import PipelineConductor, PipelineOrder
from synapse_kernel.specs import ExecutorSpec
from synapse_plugins.pipelines import ActionPipeline, Pipeline

WORK = """
    from pathlib import Path

    from pydantic import BaseModel
    from synapse_kernel import action


    class Made(BaseModel):
        path: Path
        count: int = 1


    @action
    def make(params, ctx) -> Made:
        return Made(path=ctx.work_dir / "made")


    @action
    def use(params, ctx):
        return {"params": dict(params), "flavour": ctx.env.get("FLAVOUR")}
"""


@pytest.fixture
def project(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with actions."""
    return make_folder({"work.py": WORK}, "project")


@pytest.fixture
def conductor(kernel: Kernel) -> PipelineConductor:
    """Return what makes orders of pipelines."""
    found = kernel.executor("pipeline")
    assert isinstance(found, PipelineConductor)
    return found


def written(project: Path, nodes: str, head: str = "") -> str:
    (project / "pipeline.yaml").write_text(f"name: p\n{head}\nnodes: {{{nodes}}}\n", encoding="utf-8")
    return str(project / "pipeline.yaml")


def test_an_order_runs_in_another_kernel_as_the_pipeline_would(
    conductor: PipelineConductor, kernel: Kernel, project: Path
) -> None:
    file = written(project, "one: {action: 'work.py:use', with: {n: '${params.n}'}}", "params: {n: 1}")
    order = conductor.order(file, {"n": 5}, tags=["t"], timeout="1m")

    run = conductor.begin(order, executor="pipeline")

    assert (order.run_id, 60.0) == (run.id, order.timeout)
    assert {"one": {"params": {"n": 5}, "flavour": None}} == run.result(30).result


def test_folders_that_are_elsewhere_there_are_found(
    conductor: PipelineConductor, project: Path, tmp_path: Path
) -> None:
    absolute = f"'{project}/work.py:use'"
    order = conductor.order(written(project, f"one: ./work.py:use, two: {absolute}"), {})
    moved = tmp_path / "moved"
    (moved / str(project.parent).lstrip("/")).mkdir(parents=True)
    project.rename(moved / str(project).lstrip("/"))

    run = conductor.begin(order, executor="pipeline", places={"/": str(moved)})

    assert "succeeded" == run.result(30).status


def test_actions_are_told_once_each_with_their_folder(conductor: PipelineConductor, project: Path) -> None:
    order = conductor.order(written(project, "one: work.py:use, two: work.py:use, three: work.py:make"), {})

    assert [ActionRef("work:use", str(project)), ActionRef("work:make", str(project))] == [
        spec.ref for spec in order.actions
    ]


def test_variables_that_are_passed_by_name_come_along(
    conductor: PipelineConductor, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAVOUR", "plum")
    order = conductor.order(written(project, "one: {action: 'work.py:use', env: [FLAVOUR]}"), {})

    assert {"FLAVOUR": "plum"} == order.env


def test_mistakes_in_params_are_told_when_the_order_is_made(
    conductor: PipelineConductor, project: Path
) -> None:
    with pytest.raises(ParamsError, match="n: missing"):
        conductor.order(
            written(project, "one: {action: 'work.py:use', with: {n: '${params.n}'}}", "params: {n: null}"),
            {},
        )


def test_an_action_pipeline_makes_no_order(conductor: PipelineConductor, project: Path) -> None:
    pipeline = ActionPipeline([f"{project}/work.py:use"], name="linear")

    with pytest.raises(UsageError, match="The ActionPipeline 'linear' cannot run in another process"):
        conductor.order(pipeline, {})


def test_a_record_with_masked_secrets_makes_no_order(conductor: PipelineConductor, project: Path) -> None:
    pipeline = Pipeline("p", base=project)
    pipeline.add("one", "work.py:use", with_={"api_key": "***"})

    with pytest.raises(UsageError) as raised:
        conductor.order(pipeline.to_document(), {})

    assert (
        "The record of the pipeline 'p' holds no secrets, and some stand in the pipeline\n"
        "  give the pipeline itself"
    ) == str(raised.value)


# Paths


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("use: {action: 'work.py:use', with: {it: '${make.path}'}}", ["node 'use' is given make.path"]),
        ("use: {action: 'work.py:use', with: {it: '${make}'}}", ["node 'use' is given make"]),
        ("use: {action: 'work.py:use', with: {it: '${make.count}'}}", []),
        ("use: {action: 'work.py:use', needs: [make]}", []),
    ],
)
def test_paths_that_are_handed_over_are_told(
    conductor: PipelineConductor, project: Path, nodes: str, expected: list[str]
) -> None:
    order = conductor.order(written(project, f"make: work.py:make, {nodes}"), {})

    assert expected == order.hand_overs


def test_those_of_a_node_for_each_item_too(conductor: PipelineConductor, project: Path) -> None:
    nodes = (
        "make: {action: 'work.py:make', foreach: [1, 2]}, "
        "use: {action: 'work.py:use', with: {all: '${make[*].path}'}}"
    )

    assert ["node 'use' is given make[*].path"] == conductor.order(written(project, nodes), {}).hand_overs


def test_nodes_that_ask_for_a_resource_of_their_own_are_left_to_who_wrote_so(
    conductor: PipelineConductor, project: Path
) -> None:
    one = "resources: {custom: {disk: 1}}"
    nodes = (
        f"make: {{action: 'work.py:make', {one}}}, "
        f"use: {{action: 'work.py:use', with: {{it: '${{make.path}}'}}, {one}}}"
    )

    assert [] == conductor.order(written(project, nodes), {}).hand_overs


# --on


class Host:
    """Takes pipelines, and runs them here after all."""

    in_process = True
    taken: list[tuple[PipelineOrder, bool]]

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._runs: dict[str, Run] = {}
        taken.clear()

    def take(self, order: PipelineOrder, *, detached: bool = False) -> None:
        taken.append((order, detached))
        conductor = self._kernel.executor("pipeline")
        assert isinstance(conductor, PipelineConductor)
        self._runs[order.run_id] = conductor.begin(order, executor="pipeline")

    def follow(self, run_id: str, *, sinks: Sequence[object] | None = None) -> Run:
        return self._runs[run_id]

    def submit(self, task: object, send: object) -> None: ...

    def shutdown(self) -> None: ...


taken: list[tuple[PipelineOrder, bool]] = []


class Hosting:
    """A plugin with a place for pipelines."""

    @hookimpl
    def synapse_register_executors(self) -> list[ExecutorSpec]:
        return [ExecutorSpec(name="farm-pipeline", target=f"{__name__}:Host", pipelines=True)]


@pytest.fixture
def farm(make_distribution: Callable[..., Path]) -> Iterator[Mapping[str, str]]:
    """Install a plugin with a place `farm` for pipelines."""
    sys.modules.setdefault("farm_host", sys.modules[__name__])
    code = f"from farm_host import Hosting\nHERE = {os.getpid()}\nplugin = Hosting()\n"
    make_distribution("farm", {"farm_plugin.py": code}, {"farm": "farm_plugin:plugin"})
    yield {}
    sys.modules.pop("farm_host", None)


@pytest.mark.usefixtures("farm")
def test_on_sends_a_pipeline_there_and_follows_it(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = written(project, "one: {action: 'work.py:use', with: {n: '${params.n}'}}", "params: {n: 1}")

    code = run_app(["pipeline", "run", file, "--on", "farm", "-p", "n=3", "-q"])

    assert 0 == code
    assert '"n": 3' in capfd.readouterr().out
    (order, detached), *_ = taken
    assert (False, file) == (detached, order.target)


@pytest.mark.usefixtures("farm")
def test_detach_sends_it_there_and_prints_its_id(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run_app(["pipeline", "run", written(project, "one: work.py:use"), "--on", "farm", "--detach"])

    ((order, detached),) = taken
    printed = capfd.readouterr()
    assert (0, True, f"{order.run_id}\n") == (code, detached, printed.out)
    assert f"  watch it with:         synapse-kernel runs watch {order.run_id}" in printed.err.splitlines()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--detach"], "--detach is for --on: a pipeline that runs here ends with this command."),
        (
            ["--on", "farm", "--no-history"],
            "--on and --no-history cannot be used together: it is found by its record.",
        ),
    ],
)
@pytest.mark.usefixtures("farm")
def test_options_that_do_not_go_with_it_are_refused(
    project: Path, capfd: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    code = run_app(["pipeline", "run", written(project, "one: work.py:use"), *options])

    assert (2, f"Error: {expected}") == (code, capfd.readouterr().err.strip().splitlines()[-1])


@pytest.mark.usefixtures("farm")
def test_a_place_that_is_not_there_lists_those_that_are(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_app(["pipeline", "run", written(project, "one: work.py:use"), "--on", "fram"])

    assert (2, "Error: No pipeline can run on 'fram'; did you mean 'farm'?\n  --on takes: farm, ray") == (
        code,
        capfd.readouterr().err.strip(),
    )
