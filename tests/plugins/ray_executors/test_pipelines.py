"""Pipelines that a coordinator in the cluster conducts, from submission to whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
import ray
from pydantic import BaseModel

from synapse_kernel import Kernel, action
from synapse_kernel.cli.app import run_app
from synapse_kernel.contracts import Outcome
from synapse_kernel.errors import RunFailedError, SynapseError, UsageError
from synapse_kernel.lasting import PipelineOrder
from synapse_kernel.stores import RunBusyError, RunQuery
from synapse_plugins.pipelines import ActionPipeline, Pipeline, PipelineError
from synapse_plugins.ray_executors import RayPipelineExecutor
from synapse_plugins.ray_executors.bootstrap import code_root
from synapse_plugins.ray_executors.pipeline_host import RayPipelineHost, coordinator_name
from synapse_plugins.ray_executors.pipeline_places import check_hand_overs
from synapse_plugins.ray_executors.settings import RaySettings

SHAPES = Path(__file__).parents[3] / "docs/examples/shapes"
PATIENCE = 90.0

WORK = """
    import os
    import time
    from pathlib import Path

    from pydantic import BaseModel

    from synapse_kernel import action


    class StepParams(BaseModel):
        name: str
        folder: Path
        after: int = 0
        wait: bool = False


    class Stepped(BaseModel):
        count: int
        file: Path
        pid: int


    @action
    def step(params: StepParams, ctx) -> Stepped:
        with (params.folder / "effects").open("a") as effects:
            effects.write(f"{params.name}\\n")
        ctx.log_message(f"{params.name} begins")
        while params.wait and not (params.folder / "go").exists():
            ctx.set_progress(1, 2)
            time.sleep(0.02)
        return Stepped(count=params.after + 1, file=params.folder / params.name, pid=os.getpid())


    class FailParams(BaseModel):
        text: str


    @action
    def fail(params: FailParams, ctx):
        raise ValueError(params.text)


    @action
    def where(params, ctx):
        import ray

        return {"actor": ray.get_runtime_context().get_actor_name() or ""}


    @action
    def variable(params, ctx):
        return {"value": ctx.env["FLAVOUR"]}
"""

STEPS = """
    name: steps
    params: {folder: null, wait: false}
    nodes:
      first: {action: "work.py:step", with: {name: first, folder: "${params.folder}"}}
      second:
        action: work.py:step
        with: {name: second, folder: "${params.folder}", after: "${first.count}", wait: "${params.wait}"}
      third:
        action: work.py:step
        with: {name: third, folder: "${params.folder}", after: "${second.count}"}
    output: {count: "${third.count}"}
"""


OWN_CODE = """
    import synapse_kernel
    from synapse_kernel import action


    @action
    def code(params, ctx) -> str:
        return synapse_kernel.__file__
"""


class DoubleParams(BaseModel):
    value: int


@action
def double(params: DoubleParams, ctx: object) -> dict[str, int]:
    return {"value": 2 * params.value}


@pytest.fixture
def project(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with actions, and a pipeline of three steps whose second may wait."""
    return make_folder({"work.py": WORK, "pipeline.yaml": STEPS}, "project")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the URL of a store that is not there yet."""
    return f"sqlite://{tmp_path}/history.db"


@pytest.fixture
def kernel(ray_kernel: Callable[..., Kernel], store: str) -> Kernel:
    """Return a kernel on the cluster that records in the store."""
    return ray_kernel({"store": store})


@pytest.fixture
def pipelines(kernel: Kernel) -> RayPipelineExecutor:
    """Return what runs pipelines in the cluster."""
    return RayPipelineExecutor(kernel)


@pytest.fixture
def settings_file(tmp_path: Path, ray_settings: Mapping[str, object], store: str, kernel: Kernel) -> Path:
    """Return a settings file for another process that joins the cluster."""
    address = ray.get_runtime_context().gcs_address
    file = tmp_path / "synapse.yaml"
    section = {"address": address, "token_path": ray_settings["token_path"], "ship_code": False}
    file.write_text(json.dumps({"store": store, "ray": section}), encoding="utf-8")
    return file


@pytest.fixture
def other_process(settings_file: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts the command line in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "synapse_kernel", "--settings", str(settings_file), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.05)


def effects_of(folder: Path) -> list[str]:
    file = folder / "effects"
    return file.read_text().split() if file.exists() else []


def waits_in_second(folder: Path) -> Callable[[], bool]:
    return lambda: effects_of(folder)[-1:] == ["second"]


def ended(pipelines: RayPipelineExecutor, run_id: str) -> Outcome:
    outcome = pipelines.wait(run_id, PATIENCE)
    assert outcome is not None
    return outcome


def coordinator_pid(kernel: Kernel, run_id: str) -> int:
    assert kernel.store is not None
    record = kernel.store.get(run_id)
    assert record is not None
    assert record.owner is not None
    return record.owner.pid


def is_gone(run_id: str, namespace: str = "synapse") -> bool:
    try:
        ray.get_actor(coordinator_name(run_id), namespace=namespace)
    except ValueError:
        return True
    return False


def test_a_pipeline_runs_in_the_cluster_and_its_nodes_as_ray_tasks(
    pipelines: RayPipelineExecutor, kernel: Kernel, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})

    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    assert kernel.store is not None
    record = kernel.store.get(run_id)
    assert record is not None
    assert ("pipeline", "ray-pipeline", True, "succeeded") == (
        record.kind, record.executor, record.lasting, record.status,
    )  # fmt: skip
    nodes = kernel.store.runs(RunQuery(parent=run_id))
    assert {"first": "ray-task", "second": "ray-task", "third": "ray-task"} == {
        str(node.node): node.executor for node in nodes
    }


@pytest.mark.slow
def test_its_coordinator_goes_when_it_has_ended(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})
    ended(pipelines, run_id)

    until(lambda: is_gone(run_id), "the coordinator to go")


def test_a_node_that_names_local_runs_in_the_coordinator(
    pipelines: RayPipelineExecutor, project: Path
) -> None:
    (project / "pipeline.yaml").write_text(
        "{name: here, nodes: {one: {action: 'work.py:where', executor: local}}}"
    )

    run_id = pipelines.submit(str(project))

    assert {"one": {"actor": coordinator_name(run_id)}} == pipelines.get_result(run_id, PATIENCE)


def test_a_pipeline_of_python_travels_where_its_actions_can_be_found(pipelines: RayPipelineExecutor) -> None:
    pipeline = Pipeline("doubled", params={"value": 4})
    once = pipeline.add("once", double, with_={"value": "${params.value}"})
    pipeline.add("twice", double, with_={"value": once["value"]})

    run_id = pipelines.submit(pipeline)

    assert {"twice": {"value": 16}} == pipelines.get_result(run_id, PATIENCE)


@pytest.mark.slow
def test_variables_that_nodes_pass_on_are_those_of_who_submitted_it(
    pipelines: RayPipelineExecutor, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAVOUR", "plum")
    (project / "pipeline.yaml").write_text(
        "{name: env, nodes: {one: {action: 'work.py:variable', env: [FLAVOUR]}}}"
    )

    run_id = pipelines.submit(str(project))

    assert {"one": {"value": "plum"}} == pipelines.get_result(run_id, PATIENCE)


def test_a_failure_of_a_node_is_that_of_the_pipeline(pipelines: RayPipelineExecutor, project: Path) -> None:
    (project / "pipeline.yaml").write_text(
        "{name: broken, nodes: {one: {action: 'work.py:fail', with: {text: it is broken}}}}"
    )

    run_id = pipelines.submit(str(project))

    with pytest.raises(RunFailedError, match="it is broken"):
        pipelines.get_result(run_id, PATIENCE)


def test_cancel_ends_the_nodes_and_the_pipeline(
    pipelines: RayPipelineExecutor, kernel: Kernel, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    assert pipelines.wait(run_id, 0.0) is None

    assert pipelines.cancel(run_id, "not wanted")

    outcome = ended(pipelines, run_id)
    assert ("cancelled", "the run was cancelled: not wanted") == (
        outcome.status,
        outcome.error and outcome.error.message,
    )
    assert kernel.store is not None
    states = {node.node: node.status for node in kernel.store.runs(RunQuery(parent=run_id))}
    assert {"first": "succeeded", "second": "cancelled"} == states
    assert not pipelines.cancel(run_id)


@pytest.mark.slow
def test_a_cancelled_pipeline_is_gone_on_with_from_its_record(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    pipelines.cancel(run_id)
    ended(pipelines, run_id)
    until(lambda: is_gone(run_id), "the coordinator to go")
    (tmp_path / "go").touch()

    assert run_id == pipelines.resume_from(run_id)

    file = tmp_path / "events.jsonl"
    pipelines._host.follow(run_id, sinks=[f"jsonl:{file}"]).result(PATIENCE)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    told = [event["attempt"] for event in events if event["kind"] == "state" and event["run_id"] == run_id]
    assert {2} == set(told)
    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    assert ["first", "second", "second", "third"] == effects_of(tmp_path)


@pytest.mark.slow
def test_a_run_that_succeeded_is_not_gone_on_with(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})
    ended(pipelines, run_id)
    until(lambda: is_gone(run_id), "the coordinator to go")

    with pytest.raises(SynapseError) as raised:
        pipelines.resume_from(run_id)

    assert (
        f"Run {run_id} has succeeded: there is nothing left to do\n"
        f"  see its result with: synapse-kernel runs show {run_id}"
    ) == str(raised.value)


def test_a_run_under_way_is_not_gone_on_with(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})

    with pytest.raises(RunBusyError):
        pipelines.resume_from(run_id)

    (tmp_path / "go").touch()
    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)


def test_progress_is_streamed_to_the_end(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})

    last = [*pipelines.stream_progress(run_id)][-1]

    assert (100.0, "succeeded", ["first", "second", "third"]) == _told(last)
    assert _told(last) == _told(pipelines.get_progress(run_id))


@pytest.mark.slow
def test_progress_is_streamed_without_blocking_a_loop(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})

    async def collect() -> list[object]:
        return [progress async for progress in pipelines.stream_progress_async(run_id)]

    assert (100.0, "succeeded", ["first", "second", "third"]) == _told(asyncio.run(collect())[-1])


def _told(progress: object) -> tuple[float, str, list[str]]:
    from synapse_plugins.pipelines import PipelineProgress

    assert isinstance(progress, PipelineProgress)
    return progress.percent, str(progress.status), [node.name for node in progress.actions]


@pytest.mark.slow
def test_a_coordinator_whose_process_is_killed_goes_on_and_runs_no_node_again(
    pipelines: RayPipelineExecutor, kernel: Kernel, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    followed = pipelines._host.follow(run_id, sinks=())

    os.kill(coordinator_pid(kernel, run_id), signal.SIGKILL)
    until(lambda: effects_of(tmp_path) == ["first", "second", "second"], "the second step once more")
    (tmp_path / "go").touch()

    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    assert ["first", "second", "second", "third"] == effects_of(tmp_path)
    assert ("succeeded", 2) == (followed.result(PATIENCE).status, followed.result().attempts)


@pytest.mark.slow
def test_a_coordinator_that_is_gone_for_good_leaves_a_crashed_run_that_can_go_on(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel({"store": store}, max_restarts=0)
    pipelines = RayPipelineExecutor(kernel)
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")

    os.kill(coordinator_pid(kernel, run_id), signal.SIGKILL)

    outcome = ended(pipelines, run_id)
    assert ("crashed", "CoordinatorLost") == (outcome.status, outcome.error and outcome.error.type)
    (tmp_path / "go").touch()
    pipelines.resume_from(run_id)
    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    assert 1 == effects_of(tmp_path).count("first")


@pytest.mark.slow
def test_who_looks_after_a_run_whose_coordinator_is_gone_records_its_end(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel({"store": store}, max_restarts=0)
    run_id = RayPipelineExecutor(kernel).submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    with pytest.raises(RunBusyError):
        kernel.attach(run_id)
    os.kill(coordinator_pid(kernel, run_id), signal.SIGKILL)
    until(lambda: is_gone(run_id), "the coordinator to go")
    assert kernel.store is not None
    kernel.store.reap()

    outcome = kernel.attach(run_id, sinks=()).result(PATIENCE)

    record = kernel.store.get(run_id)
    assert record is not None
    assert ("crashed", "crashed") == (outcome.status, record.status)


@pytest.mark.slow
def test_a_pipeline_that_was_cancelled_is_gone_on_with_where_it_is_mirrored_too(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel({"store": f"sqlite://{tmp_path}/mine.db"}, store=store)
    pipelines = RayPipelineExecutor(kernel)
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    pipelines.cancel(run_id)
    assert "cancelled" == ended(pipelines, run_id).status
    until(lambda: is_gone(run_id), "the coordinator to go")
    (tmp_path / "go").touch()

    pipelines.resume_from(run_id)

    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    assert kernel.store is not None
    record = kernel.store.get(run_id)
    assert record is not None
    assert ("succeeded", 2) == (record.status, record.attempt)


@pytest.mark.slow
def test_the_death_of_the_client_leaves_a_pipeline_running(
    other_process: Callable[..., subprocess.Popen[str]],
    pipelines: RayPipelineExecutor,
    kernel: Kernel,
    project: Path,
    tmp_path: Path,
) -> None:
    client = other_process(
        "pipeline", "run", str(project), "--on", "ray", "-p", f"folder={tmp_path}", "-p", "wait=true"
    )
    until(waits_in_second(tmp_path), "the second step")
    assert kernel.store is not None
    (record,) = kernel.store.runs(RunQuery(kinds=("pipeline",)))

    client.send_signal(signal.SIGKILL)
    client.wait(PATIENCE)
    # Its coordinator's process too: what it was given must not have died with the client.
    os.kill(coordinator_pid(kernel, record.run_id), signal.SIGKILL)
    until(lambda: effects_of(tmp_path) == ["first", "second", "second"], "the second step once more")
    (tmp_path / "go").touch()

    assert {"count": 3} == pipelines.get_result(record.run_id, PATIENCE)


@pytest.mark.slow
def test_a_detached_pipeline_is_watched_from_another_process(
    other_process: Callable[..., subprocess.Popen[str]], project: Path, tmp_path: Path
) -> None:
    client = other_process(
        "pipeline", "run", str(project), "--on", "ray", "--detach",
        "-p", f"folder={tmp_path}", "-p", "wait=true",
    )  # fmt: skip
    printed, told = client.communicate(timeout=PATIENCE)
    run_id = printed.strip()
    assert 0 == client.returncode
    assert f"  watch it with:         synapse-kernel runs watch {run_id}" in told.splitlines()
    watcher = other_process("runs", "watch", run_id, "--json")
    until(waits_in_second(tmp_path), "the second step")
    (tmp_path / "go").touch()

    printed, _ = watcher.communicate(timeout=PATIENCE)

    assert {"count": 3} == json.loads(printed)["result"]


@pytest.mark.slow
def test_who_watches_a_run_does_not_take_the_death_of_its_coordinators_process_for_the_end(
    other_process: Callable[..., subprocess.Popen[str]],
    pipelines: RayPipelineExecutor,
    kernel: Kernel,
    project: Path,
    tmp_path: Path,
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    until(waits_in_second(tmp_path), "the second step")
    watcher = other_process("runs", "watch", run_id, "--json")
    os.kill(coordinator_pid(kernel, run_id), signal.SIGKILL)
    until(lambda: effects_of(tmp_path) == ["first", "second", "second"], "the second step once more")
    (tmp_path / "go").touch()

    printed, told = watcher.communicate(timeout=PATIENCE)

    assert ("", {"count": 3}) == (told, json.loads(printed)["result"])


@pytest.mark.slow
def test_ctrl_c_cancels_the_pipeline_in_the_cluster(
    other_process: Callable[..., subprocess.Popen[str]], kernel: Kernel, project: Path, tmp_path: Path
) -> None:
    client = other_process(
        "pipeline", "run", str(project), "--on", "ray", "-p", f"folder={tmp_path}", "-p", "wait=true"
    )
    until(waits_in_second(tmp_path), "the second step")
    assert kernel.store is not None
    (record,) = kernel.store.runs(RunQuery(kinds=("pipeline",)))
    # It follows the run once it has shown that it began.
    assert client.stderr is not None
    while "second begins" not in client.stderr.readline():
        pass

    client.send_signal(signal.SIGINT)

    client.communicate(timeout=PATIENCE)
    assert 130 == client.returncode
    after = kernel.store.get(record.run_id)
    assert after is not None
    assert "cancelled" == after.status


@pytest.mark.slow
def test_the_shapes_example_runs_on_ray_unchanged(
    settings_file: Path, kernel: Kernel, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_app(
        ["--settings", str(settings_file), "pipeline", "run", str(SHAPES), "--on", "ray", "--json",
         "-p", 'splits=[{"name": "train", "images": 4}, {"name": "val", "images": 2}]']
    )  # fmt: skip

    outcome = json.loads(capfd.readouterr().out)
    assert (0, "succeeded") == (code, outcome["status"])
    assert Path(outcome["result"]["report"]).is_file()


def test_events_come_to_the_sinks_of_who_follows_it(
    pipelines: RayPipelineExecutor, project: Path, tmp_path: Path
) -> None:
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})
    file = tmp_path / "events.jsonl"

    pipelines._host.follow(run_id, sinks=[f"jsonl:{file}"]).result(PATIENCE)

    events = [json.loads(line) for line in file.read_text().splitlines()]
    said = [event["text"] for event in events if event.get("text", "").endswith("begins")]
    assert ["first begins", "second begins", "third begins"] == said
    numbers = [event["seq"] for event in events if event["run_id"] == run_id and "seq" in event]
    assert [*range(1, len(numbers) + 1)] == numbers


# Another store than the client's


def test_a_pipeline_with_a_store_of_its_own_is_mirrored_in_the_clients(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel({"store": f"sqlite://{tmp_path}/mine.db"}, store=store)
    pipelines = RayPipelineExecutor(kernel)
    run_id = pipelines.submit(str(project), {"folder": str(tmp_path), "wait": True})
    assert kernel.store is not None
    before = kernel.store.get(run_id)
    assert before is not None
    assert (True, "ray-pipeline", True) == (before.detached, before.executor, before.lasting)
    (tmp_path / "go").touch()

    outcome = ended(pipelines, run_id)

    assert {"count": 3} == outcome.result
    after = kernel.store.get(run_id)
    theirs = pipelines._host.place.store
    assert after is not None
    assert "succeeded" == after.status
    assert [each.event for each in theirs.events(run_id)] == [
        each.event for each in kernel.store.events(run_id)
    ]


def test_without_any_store_a_pipeline_cannot_run_there(
    ray_kernel: Callable[..., Kernel], project: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        RayPipelineExecutor(ray_kernel()).submit(str(project), {"folder": "/"})

    assert (
        "A pipeline on Ray needs a run store that its coordinator reaches, and the settings name none\n"
        "  set store: auto for one on this machine, or the URL of a server that the cluster reaches,\n"
        "  as store or as ray.store"
    ) == str(raised.value)


# Code that has to travel


def test_the_folders_of_actions_come_along_to_another_machine(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel(store=store)
    # As if the coordinator were on another machine, where no folder of this one is.
    kernel._owner = msgspec.structs.replace(kernel.owner, boot="another machine")
    pipelines = RayPipelineExecutor(kernel)

    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})

    assert {"count": 3} == pipelines.get_result(run_id, PATIENCE)
    definition = pipelines._host.record(run_id).definition
    assert definition is not None
    assert str(definition["base"]).endswith(f"/pipelines/{run_id}{project}")


@pytest.mark.slow
def test_the_kernels_own_code_comes_along_where_it_is_shipped(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    (project / "work.py").write_text(textwrap.dedent(OWN_CODE))
    (project / "pipeline.yaml").write_text(
        "{name: code, nodes: {here: {action: 'work.py:code', executor: local}, there: work.py:code}}"
    )
    pipelines = RayPipelineExecutor(ray_kernel({"store": store}, ship_code=True))

    run_id = pipelines.submit(str(project))

    result = pipelines.get_result(run_id, PATIENCE)
    assert isinstance(result, dict)
    assert [True, True] == [str(place).startswith(code_root()) for place in result.values()]


# What is refused


def test_a_mistake_is_told_before_anything_starts(
    pipelines: RayPipelineExecutor, kernel: Kernel, project: Path
) -> None:
    with pytest.raises(SynapseError, match="folder: missing"):
        pipelines.submit(str(project))

    assert kernel.store is not None
    assert [] == kernel.store.runs()


def test_an_action_inside_a_function_does_not_travel(pipelines: RayPipelineExecutor) -> None:
    @action
    def inner(params: dict[str, object], ctx: object) -> None: ...

    pipeline = Pipeline("inside")
    pipeline.add("one", inner)

    with pytest.raises(PipelineError) as raised:
        pipelines.submit(pipeline)

    assert str(raised.value).startswith("The pipeline 'inside' cannot run in another process:")
    assert "where another process cannot find it" in str(raised.value)


def test_an_action_pipeline_does_not_travel(pipelines: RayPipelineExecutor) -> None:
    with pytest.raises(UsageError) as raised:
        pipelines.submit(ActionPipeline([double], name="doubled"), {"value": 2})

    assert (
        "The ActionPipeline 'doubled' cannot run in another process: only what is a Pipeline is plain data\n"
        "  write it as a Pipeline or as a pipeline.yaml, or run it here"
    ) == str(raised.value)


def test_an_action_is_not_for_this_executor(kernel: Kernel) -> None:
    outcome = kernel.run(double, None, {"value": 1}, executor="ray-pipeline")

    assert (
        "The executor 'ray-pipeline' runs whole pipelines, and 'double' is an action\n"
        "  run it with the executor 'ray-task', a pipeline with: synapse-kernel pipeline run TARGET --on ray"
    ) == (outcome.error and outcome.error.message)


def test_a_pipeline_is_not_detached_in_a_cluster_that_ends_with_this_process(
    kernel: Kernel, project: Path
) -> None:
    host, conductor = kernel.executor("ray-pipeline"), kernel.executor("pipeline")
    assert isinstance(host, RayPipelineHost)
    order = conductor.order(str(project), {"folder": "/"})  # type: ignore[attr-defined]

    with pytest.raises(UsageError) as raised:
        host.take(order, detached=True)

    assert (
        "A pipeline cannot be detached in a cluster that this process started: it ends with it\n"
        "  start one with: ray start --head\n"
        "  or name one with: --set ray.address=HOST:PORT"
    ) == str(raised.value)


def test_storage_that_is_no_folder_is_refused(
    ray_kernel: Callable[..., Kernel], store: str, project: Path
) -> None:
    kernel = ray_kernel({"store": store}, storage="s3://bucket/data")

    with pytest.raises(UsageError) as raised:
        RayPipelineExecutor(kernel).submit(str(project), {"folder": "/"})

    assert str(raised.value).startswith(
        "ray.storage 's3://bucket/data': nodes cannot hand folders over by 's3' yet"
    )


def test_paths_are_not_handed_from_machine_to_machine_without_a_storage() -> None:
    lines = [f"node 'n{number}' is given make.path" for number in range(6)]
    order = PipelineOrder(run_id="r1", name="p", document={}, hand_overs=lines)

    check_hand_overs(order, RaySettings(), ["a"])
    check_hand_overs(order, RaySettings(storage="/shared"), ["a", "b"])
    with pytest.raises(UsageError) as raised:
        check_hand_overs(order, RaySettings(), ["a", "b"])

    assert (
        "The pipeline 'p' hands paths from node to node, and the cluster has 2 machines, of which each has "
        "its own files:\n"
        "    node 'n0' is given make.path\n"
        "    node 'n1' is given make.path\n"
        "    node 'n2' is given make.path\n"
        "    node 'n3' is given make.path\n"
        "    node 'n4' is given make.path\n"
        "    and 1 more\n"
        "  name a folder that all of them reach: --set ray.storage=/shared/folder\n"
        "  or put these nodes on one machine: resources: {custom: {NAME: 1}}"
    ) == str(raised.value)


def test_the_folders_of_runs_are_in_the_storage(
    ray_kernel: Callable[..., Kernel], store: str, project: Path, tmp_path: Path
) -> None:
    kernel = ray_kernel({"store": store}, storage=f"file://{tmp_path}/shared")
    pipelines = RayPipelineExecutor(kernel)

    run_id = pipelines.submit(str(project), {"folder": str(tmp_path)})

    ended(pipelines, run_id)
    assert kernel.store is not None
    record = kernel.store.get(run_id)
    assert record is not None
    assert f"{tmp_path}/shared/{run_id}" == record.work_dir


def test_a_place_that_is_not_there_lists_those_that_are(
    settings_file: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_app(["--settings", str(settings_file), "pipeline", "run", str(project), "--on", "rya"])

    assert (2, "No pipeline can run on 'rya'; did you mean 'ray'?\n  --on takes: ray") == (
        code,
        capsys.readouterr().err.strip().removeprefix("Error: "),
    )
