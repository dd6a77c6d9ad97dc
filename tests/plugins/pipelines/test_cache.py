"""`cache: true`: what has been done before with the same code, params and files is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import Kernel
from synapse_kernel.contracts import Outcome
from synapse_kernel.events import Log
from synapse_kernel.stores import RunRecord, StoreError
from synapse_kernel.testing import RecordedSink
from synapse_plugins.pipelines import Pipeline

ACTIONS = """
    import os
    from pathlib import Path

    from pydantic import BaseModel

    from synapse_kernel import action

    class Params(BaseModel):
        size: int = 1
        source: Path | None = None

    class Made(BaseModel):
        path: Path
        pid: int

    @action
    def make(params: Params, ctx) -> Made:
        with open(os.environ["COUNT_FILE"], "a") as file:
            file.write("x")
        made = ctx.work_dir / "made.txt"
        made.write_text(str(params.size))
        return Made(path=made, pid=os.getpid())

    @action
    def keep_secret(params, ctx):
        with open(os.environ["COUNT_FILE"], "a") as file:
            file.write("x")
        return {"token": "hush-hush-4711"}

    @action
    def pair(params, ctx):
        with open(os.environ["COUNT_FILE"], "a") as file:
            file.write("x")
        return ("a", {"b": (1, None)})

    @action
    def diverge(params, ctx):
        with open(os.environ["COUNT_FILE"], "a") as file:
            file.write("x")
        return {"loss": float("nan")}

    @action
    def fail(params, ctx):
        with open(os.environ["COUNT_FILE"], "a") as file:
            file.write("x")
        raise LookupError("gone")
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a store that is not there yet."""
    return f"sqlite://{tmp_path}/history.db"


@pytest.fixture
def recording(url: str) -> Iterator[Kernel]:
    """Return a kernel that records."""
    with Kernel({"store": url, "env": {"names": ["COUNT_FILE"]}}, strict=True) as kernel:
        yield kernel


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that says how often an action was really run."""
    file = tmp_path / "count"
    file.touch()
    monkeypatch.setenv("COUNT_FILE", str(file))
    return lambda: len(file.read_text())


@pytest.fixture
def work(make_folder: Callable[..., Path]) -> Path:
    """Return the file with the actions."""
    return make_folder({"work.py": ACTIONS}) / "work.py"


def pipeline(work: Path, action: str = "make", **options: Any) -> Pipeline:
    """Return a pipeline of one node whose result is cached."""
    made = Pipeline("p", output="${n}")
    made.add("n", f"{work}:{action}", cache=True, **options)
    return made


def child_of(kernel: Kernel, outcome: Outcome) -> RunRecord:
    """Return the record of the pipeline's one node."""
    assert kernel.store is not None
    (child,) = kernel.store.children(outcome.run_id)
    found = kernel.store.get(child.run_id)
    assert found is not None
    return found


def test_the_same_again_is_not_run_again_and_says_where_its_result_is_from(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    sink = RecordedSink()

    first = pipeline(work).execute(kernel=recording)
    second = pipeline(work).execute(kernel=recording, sinks=[sink])

    assert 1 == count()
    before, after = child_of(recording, first), child_of(recording, second)
    assert before.run_id != after.run_id
    assert (None, before.run_id) == (before.cached_from, after.cached_from)
    assert ("succeeded", first.result) == (after.status, second.result)
    assert type(first.result) is type(second.result)
    ends = [e.data for e in sink.events if isinstance(e, Log) and e.event == "node_end"]
    assert [before.run_id] == [data["cached_from"] for data in ends]


def test_a_result_is_there_for_another_kernel(
    url: str, recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    pipeline(work).execute(kernel=recording)
    with Kernel({"store": url}, strict=True) as other:
        assert pipeline(work).execute(kernel=other).ok
    assert 1 == count()


def test_what_was_taken_from_the_cache_counts_for_what_comes_after(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    for _ in range(2):
        chained = Pipeline("p", output="${b.path}")
        first = chained.add("a", f"{work}:make", cache=True)
        chained.add("b", f"{work}:make", cache=True, with_={"source": first["path"], "size": 2})
        assert chained.execute(kernel=recording).ok
    assert 2 == count()


@pytest.mark.parametrize("changed", [{"size": 2}, {"source": "/dev/null"}])
def test_other_params_are_another_result(
    recording: Kernel, work: Path, count: Callable[[], int], changed: dict[str, object]
) -> None:
    pipeline(work).execute(kernel=recording)
    pipeline(work, with_=changed).execute(kernel=recording)
    assert 2 == count()


def test_a_default_that_is_given_is_the_same_as_one_that_is_not(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    pipeline(work).execute(kernel=recording)
    pipeline(work, with_={"size": 1}).execute(kernel=recording)
    assert 1 == count()


def test_other_code_is_another_result(recording: Kernel, work: Path, count: Callable[[], int]) -> None:
    pipeline(work).execute(kernel=recording)
    work.write_text(work.read_text().replace('"made.txt"', '"made-otherwise.txt"'))
    outcome = pipeline(work).execute(kernel=recording)

    assert 2 == count()
    assert "made-otherwise.txt" == outcome.unwrap().path.name  # type: ignore[attr-defined]


def test_another_content_of_a_file_is_another_result(
    recording: Kernel, work: Path, count: Callable[[], int], tmp_path: Path
) -> None:
    file = tmp_path / "input.txt"
    file.write_text("one")
    for text in ("one", "one", "two"):
        file.write_text(text)
        assert pipeline(work, with_={"source": str(file)}).execute(kernel=recording).ok
    assert 2 == count()


def test_another_content_of_a_declared_input_is_another_result(
    recording: Kernel, work: Path, count: Callable[[], int], tmp_path: Path
) -> None:
    file = tmp_path / "inputs" / "input.txt"
    file.parent.mkdir()
    for text in ("one", "one", "two"):
        file.write_text(text)
        assert pipeline(work, inputs=[file.parent]).execute(kernel=recording).ok
    assert 2 == count()


def test_where_a_file_of_the_result_is_gone_it_is_made_again(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    first = pipeline(work).execute(kernel=recording)
    first.unwrap().path.unlink()  # type: ignore[attr-defined]

    second = pipeline(work).execute(kernel=recording)

    assert 2 == count()
    assert second.unwrap().path.exists()  # type: ignore[attr-defined]
    assert child_of(recording, second).cached_from is None


def test_without_the_cache_it_is_run_again_and_the_new_result_counts(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    pipeline(work).execute(kernel=recording)
    second = pipeline(work).execute(kernel=recording, use_cache=False)
    assert 2 == count()

    third = pipeline(work).execute(kernel=recording)

    assert 2 == count()
    assert child_of(recording, second).run_id == child_of(recording, third).cached_from


def test_a_node_that_does_not_ask_for_it_is_not_cached(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    for _ in range(2):
        plain = Pipeline("p")
        plain.add("n", f"{work}:make")
        assert plain.execute(kernel=recording).ok
    assert 2 == count()


def test_a_failure_is_not_cached(recording: Kernel, work: Path, count: Callable[[], int]) -> None:
    for _ in range(2):
        assert not pipeline(work, "fail").execute(kernel=recording).ok
    assert 2 == count()


def test_a_result_with_a_secret_is_not_cached(
    recording: Kernel, work: Path, count: Callable[[], int], tmp_path: Path
) -> None:
    for _ in range(2):
        assert pipeline(work, "keep_secret").execute(kernel=recording).ok
    recording.shutdown()

    assert 2 == count()
    assert b"hush-hush" not in b"".join(file.read_bytes() for file in tmp_path.glob("history.db*"))


def test_results_from_another_process_are_cached_too(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    import os

    first = pipeline(work, executor="process").execute(kernel=recording)
    second = pipeline(work, executor="process").execute(kernel=recording)

    assert 1 == count()
    assert first.result == second.result
    assert os.getpid() != second.unwrap().pid  # type: ignore[attr-defined]


def test_instances_are_cached_each(recording: Kernel, work: Path, count: Callable[[], int]) -> None:
    for items in ([1, 2], [2, 3, 1]):
        each = pipeline(work, foreach=items, with_={"size": "${item}"})
        assert each.execute(kernel=recording).ok
    assert 3 == count()


def test_without_a_history_nothing_is_cached(kernel: Kernel, work: Path, count: Callable[[], int]) -> None:
    for _ in range(2):
        assert pipeline(work).execute(kernel=kernel).ok
    assert 2 == count()


def test_a_result_that_cannot_be_kept_is_a_result_all_the_same(
    recording: Kernel, work: Path, count: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = recording.store
    assert store is not None

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("The disk is full", url=store.url)

    monkeypatch.setattr(store, "put", refuse)
    with pytest.warns(UserWarning, match=r"The result of run \w+ is not cached: The disk is full"):
        assert pipeline(work).execute(kernel=recording).ok


def test_a_tuple_is_kept_and_comes_back_as_a_list(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    first = pipeline(work, "pair").execute(kernel=recording)
    second = pipeline(work, "pair").execute(kernel=recording)

    assert 1 == count()
    assert ("a", {"b": (1, None)}) == first.result
    assert ["a", {"b": [1, None]}] == second.result


def test_a_result_with_a_number_that_json_has_none_for_is_made_again(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    results = [pipeline(work, "diverge").execute(kernel=recording).result for _ in range(2)]

    assert 2 == count()
    assert ["nan", "nan"] == [str(result["loss"]) for result in results]


def test_a_result_is_not_used_again_once_its_run_was_deleted(
    recording: Kernel, work: Path, count: Callable[[], int]
) -> None:
    first = pipeline(work).execute(kernel=recording)
    assert recording.store is not None

    recording.store.delete([first.run_id])
    pipeline(work).execute(kernel=recording)

    assert 2 == count()
