"""What an action finds of storage: its context's, params that are paths in one, and where artifacts go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from synapse_kernel import Kernel, ParamsError, RuntimeContext, StoragePath, action, get_storage
from synapse_kernel.events import Artifact, Log, Progress


class Copying(BaseModel):
    source: StoragePath
    target: StoragePath | None = None


@action
def copy(params: Copying, ctx: RuntimeContext) -> dict[str, Any]:
    """Copy a text, and say where it came from."""
    text = params.source.read_text()
    if params.target is not None:
        (params.target / "copied.txt").write_text(text)
    return {"text": text, "source": str(params.source)}


@action
def put(params: dict[str, str], ctx: RuntimeContext) -> str:
    """Upload a file of two megabytes to the storage of a name."""
    file = ctx.work_dir / "large.bin"
    file.write_bytes(bytes(2_000_000))
    storage = ctx.storage(params["to"])
    storage.upload(file, "in/large.bin")
    return storage.get_url("in/large.bin")


@action
def make(params: dict[str, str], ctx: RuntimeContext) -> str:
    """Make an artifact, and a folder of them."""
    (ctx.work_dir / "report.txt").write_text("all is well")
    (ctx.work_dir / "plots").mkdir()
    (ctx.work_dir / "plots/a.txt").write_text("a")
    ctx.log_artifact("report.txt")
    ctx.log_artifact("plots", name="charts/all")
    return ctx.run_id


@action
def ask(params: dict[str, str], ctx: RuntimeContext) -> str:
    """Ask for a storage without a context."""
    return get_storage(params["name"]).read_text("a.txt")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    return folder


@pytest.fixture
def settings(data: Path, tmp_path: Path) -> dict[str, Any]:
    return {"storage": {"data": f"file://{data}"}, "work_dir": str(tmp_path / "runs")}


def test_a_param_that_names_a_storage_arrives_as_a_path_of_it(settings, data):
    with Kernel(settings) as kernel:
        params = {"source": "storage://data/a.txt", "target": "storage://data/out"}
        outcome = kernel.run(copy, params=params)

    assert {"text": "hello", "source": "storage://data/a.txt"} == outcome.unwrap()
    assert "hello" == (data / "out/copied.txt").read_text()


def test_it_does_so_in_another_process_too(settings, make_folder):
    code = """
        from pydantic import BaseModel
        from synapse_kernel import StoragePath, action

        class Reading(BaseModel):
            source: StoragePath

        @action
        def read(params: Reading, ctx):
            return [params.source.read_text(), str(params.source)]
    """
    folder = make_folder({"actions.py": code}) / "actions.py"
    with Kernel(settings) as kernel:
        outcome = kernel.run(folder, "read", params={"source": "storage://data/a.txt"}, executor="process")

    assert ["hello", "storage://data/a.txt"] == outcome.unwrap()


def test_a_param_may_be_a_url_or_a_local_path(settings, data, monkeypatch):
    monkeypatch.chdir(data)
    with Kernel(settings) as kernel:
        sources = (f"file://{data}/a.txt", "a.txt")
        found = [kernel.run(copy, params={"source": source}).unwrap() for source in sources]

    assert [{"text": "hello", "source": f"file://{data}/a.txt"}] * 2 == found


def test_a_param_with_a_storage_that_nobody_named_is_a_mistake_before_the_run(settings):
    with Kernel(settings) as kernel, pytest.raises(ParamsError) as caught:
        kernel.run(copy, params={"source": "storage://date/a.txt"})

    assert (
        "source: storage 'date' is neither a URL nor a name from the settings; did you mean 'data'?; "
        "named there: data, got 'storage://date/a.txt' (from the call)" in str(caught.value)
    )


def test_a_param_whose_key_leaves_the_storage_is_a_mistake_before_the_run(settings):
    with Kernel(settings) as kernel, pytest.raises(ParamsError, match="a key cannot leave the root"):
        kernel.run(copy, params={"source": "storage://data/../secret"})


def test_a_model_with_a_storage_path_has_a_schema_and_dumps_as_text(settings):
    with Kernel(settings) as kernel:
        path = kernel.storage("data").get_pathlib("a.txt")

    assert {"type": "string", "format": "storage-path"}.items() <= Copying.model_json_schema()["properties"][
        "source"
    ].items()
    assert {"source": "storage://data/a.txt", "target": None} == Copying(source=path).model_dump(mode="json")


def test_transfers_of_an_action_are_its_progress(settings, recorder):
    with Kernel(settings) as kernel:
        url = kernel.run(put, params={"to": "data"}, sinks=[recorder]).unwrap()

    told = [event for event in recorder.events if isinstance(event, Progress)]
    assert url.endswith("/data/in/large.bin")
    assert (2_000_000.0, 2_000_000.0, "upload") == (told[-1].current, told[-1].total, told[-1].category)


def test_artifacts_go_to_the_storage_that_the_settings_name(settings, data, recorder):
    settings["artifacts"] = "storage://data/artifacts"
    with Kernel(settings) as kernel:
        run_id = kernel.run(make, sinks=[recorder]).unwrap()

    told = [event for event in recorder.events if isinstance(event, Artifact)]
    assert [
        ("report.txt", f"storage://data/artifacts/{run_id}/report.txt", 11),
        ("charts/all", f"storage://data/artifacts/{run_id}/charts/all", 1),
    ] == [(event.name, event.path, event.size) for event in told]
    assert "all is well" == (data / f"artifacts/{run_id}/report.txt").read_text()
    assert "a" == (data / f"artifacts/{run_id}/charts/all/a.txt").read_text()


def test_an_artifact_that_cannot_be_stored_is_told_where_it_is(settings, data, tmp_path, recorder):
    (data / "artifacts").write_text("a file is in the way")
    settings["artifacts"] = "storage://data/artifacts"
    with Kernel(settings) as kernel:
        run_id = kernel.run(make, sinks=[recorder]).unwrap()

    warnings = [event for event in recorder.events if isinstance(event, Log) and event.level == "warning"]
    told = [event for event in recorder.events if isinstance(event, Artifact)]
    assert ["artifact_not_stored"] * 2 == [event.event for event in warnings]
    assert str(tmp_path / "runs" / run_id / "report.txt") == told[0].path


def test_get_storage_in_an_action_is_that_of_its_run(settings):
    with Kernel(settings) as kernel:
        assert "hello" == kernel.run(ask, params={"name": "data"}).unwrap()


def test_a_storage_is_opened_once(settings):
    with Kernel(settings) as kernel:
        assert kernel.storage("data").provider is kernel.storage("data").at("x").provider
