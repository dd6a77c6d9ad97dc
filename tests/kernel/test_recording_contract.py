"""When a run is recorded, when it must be, and how a recorded one goes on: with the real history."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, SecretStr

from synapse_kernel import (
    BaseAction,
    Kernel,
    RuntimeContext,
    StoreSpec,
    UsageError,
    action,
    hookimpl,
)
from synapse_kernel.contracts import KnownResult, Outcome, RunPlace
from synapse_kernel.events import State
from synapse_kernel.owners import this_process
from synapse_kernel.plugins import PluginWarning
from synapse_kernel.stores import ChildResult, RunBusyError, RunNotFoundError, RunRecord, RunStore, StoreError
from synapse_kernel.testing import RecordedSink

WAIT = 60


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a store that is not there yet."""
    return f"sqlite://{tmp_path}/history.db"


@pytest.fixture
def recording(url: str) -> Iterator[Kernel]:
    """Return a kernel that records."""
    with Kernel({"store": url}, strict=True) as kernel:
        yield kernel


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel whose store cannot be opened."""
    (tmp_path / "text.db").write_text("Not a database, but long enough to be looked at: " + "x" * 200)
    with Kernel({"store": f"sqlite://{tmp_path}/text.db"}, strict=True) as kernel:
        yield kernel


def store_of(kernel: Kernel) -> RunStore:
    """Return the kernel's store, which is there."""
    assert kernel.store is not None
    return kernel.store


def record_of(kernel: Kernel, run_id: str) -> RunRecord:
    """Return a run's record, which is there."""
    found = store_of(kernel).get(run_id)
    assert found is not None
    return found


def states_of(kernel: Kernel, run_id: str) -> list[tuple[int, str, int]]:
    """Return the recorded states of a run: number, state and attempt."""
    events = [stored.event for stored in store_of(kernel).events(run_id)]
    return [(e.seq, e.state, e.attempt) for e in events if isinstance(e, State)]


@action
def add(params: dict[str, Any]) -> int:
    """Add two numbers."""
    return int(params.get("a", 1)) + int(params.get("b", 2))


@action
def call(params: dict[str, Any], ctx: RuntimeContext) -> object:
    """Call what it is given."""
    return params["call"](ctx)


@action
def fail(params: dict[str, Any]) -> None:
    """Fail."""
    raise LookupError("gone")


@action
def stop(params: dict[str, Any]) -> None:
    """Do as if a person had pressed Ctrl-C."""
    raise KeyboardInterrupt


class Secretive(BaseModel):
    """Params of which one is a secret by its type, one by its name."""

    password: str = "by-name-1234"
    pin: SecretStr = SecretStr("by-type-1234")
    size: int = 3


class Hide(BaseAction[Secretive, dict[str, Any]]):
    """Says nothing of its params."""

    action_name = "hide"

    def execute(self) -> dict[str, Any]:
        """Return what is open."""
        return {"size": self.params.size}


@pytest.mark.parametrize("record", [None, True])
def test_a_run_is_recorded_where_the_settings_name_a_store(recording: Kernel, record: bool | None) -> None:
    outcome = recording.run(add, record=record, tags=["b", "a"], job_id="j7")

    found = record_of(recording, outcome.run_id)
    assert ("add", "succeeded", 1) == (found.action, found.status, found.attempt)
    assert (["b", "a"], "j7", "local", outcome.run_id) == (
        found.tags,
        found.job_id,
        found.executor,
        found.root,
    )
    assert 3 == (store_of(recording).outcome(outcome.run_id) or {})["result"]


@pytest.mark.parametrize("record", [None, False])
def test_without_a_store_a_run_is_not_recorded(kernel: Kernel, record: bool | None, own_home: Path) -> None:
    assert kernel.run(add, record=record).ok
    assert kernel.store is None
    assert [] == list(own_home.iterdir())


def test_a_run_that_is_left_out_is_not_in_the_store(recording: Kernel, tmp_path: Path) -> None:
    outcome = recording.run(add, record=False)

    assert not (tmp_path / "history.db").exists()
    assert store_of(recording).get(outcome.run_id) is None


def test_the_automatic_store_is_in_the_state_folder(own_home: Path) -> None:
    with Kernel({"store": "auto"}, strict=True) as kernel:
        outcome = kernel.run(add)
        assert "add" == record_of(kernel, outcome.run_id).action
    assert (own_home / "history.db").is_file()


def test_the_store_none_records_nothing(own_home: Path) -> None:
    with Kernel({"store": "none"}, strict=True) as kernel:
        assert kernel.run(add).ok
    assert [] == list(own_home.iterdir())


def test_a_run_that_must_be_recorded_needs_a_store(kernel: Kernel) -> None:
    with pytest.raises(UsageError) as caught:
        kernel.run(add, record=True)

    assert str(caught.value) == (
        "The run cannot be recorded: there is no run store\n"
        "  name one with the setting store, or the variable SYNAPSE_STORE; 'auto' is the state folder's"
    )


def test_without_the_plugin_that_records_a_run_goes_unrecorded_unless_it_must_be(url: str) -> None:
    with Kernel({"store": "auto"}, without=["history"], strict=True) as kernel:
        assert kernel.run(add).ok
        with pytest.raises(UsageError, match="there is no run store"):
            kernel.run(add, record=True)


def test_a_store_that_cannot_be_opened_costs_a_plain_run_its_record_alone(
    broken: Kernel, tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = broken.run(add)

    assert outcome.ok
    assert outcome.unrecorded is None
    assert [
        f"This run is not recorded: The run store {tmp_path}/text.db is not a database; it was left as it is"
    ] == [str(warning.message).partition("\n")[0] for warning in caught]


def test_a_store_that_cannot_be_opened_stops_a_run_that_must_be_recorded(
    broken: Kernel, tmp_path: Path
) -> None:
    sink = RecordedSink()

    with pytest.raises(StoreError) as caught:
        broken.run(add, record=True, sinks=[sink])

    assert (
        f"The run store {tmp_path}/text.db is not a database; it was left as it is"
        == (str(caught.value).partition("\n")[0])
    )
    assert [] == sink.events


def test_a_store_that_cannot_be_opened_is_not_asked_for_a_run_that_is_left_out(broken: Kernel) -> None:
    assert broken.run(add, record=False).ok


@pytest.mark.parametrize("record", [None, True, False])
def test_a_part_is_recorded_as_its_parent_is_unless_it_says_otherwise(
    recording: Kernel, record: bool | None
) -> None:
    def begin(ctx: RuntimeContext) -> str:
        place = RunPlace(parent=ctx.run_id, node="part[3]")
        return recording.run(add, place=place, record=record).run_id

    outcome = recording.run(call, params={"call": begin})

    found = store_of(recording).get(outcome.unwrap())  # type: ignore[arg-type]
    if record is False:
        assert found is None
        return
    assert found is not None
    assert (outcome.run_id, outcome.run_id, "part[3]") == (found.parent, found.root, found.node)
    children = store_of(recording).children(outcome.run_id)
    assert [
        ChildResult(
            run_id=found.run_id,
            node="part[3]",
            status="succeeded",
            attempt=1,
            result=msgspec.Raw(b"3"),
            reusable=True,
        )
    ] == children


def test_a_part_of_a_run_that_is_left_out_is_left_out_too(recording: Kernel) -> None:
    def begin(ctx: RuntimeContext) -> str:
        return recording.run(add, place=RunPlace(parent=ctx.run_id)).run_id

    outcome = recording.run(call, params={"call": begin}, record=False)

    assert 0 == store_of(recording).count()
    assert outcome.ok


def test_a_part_of_a_recorded_run_must_be_recorded(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(recording)

    def refuse(*_: object) -> None:
        raise StoreError("The disk is full", url=store.url)

    def begin(ctx: RuntimeContext) -> str:
        monkeypatch.setattr(store, "start", refuse)
        with pytest.raises(StoreError) as caught:
            recording.run(add, place=RunPlace(parent=ctx.run_id))
        monkeypatch.undo()
        return str(caught.value)

    assert "The disk is full" == recording.run(call, params={"call": begin}).unwrap()


def test_a_run_that_cannot_be_recorded_closes_the_sinks_it_opened(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, closed = store_of(recording), []

    class Closing(RecordedSink):
        def close(self, outcome: Outcome) -> None:
            closed.append(outcome)

    def refuse(*_: object) -> None:
        raise StoreError("The disk is full", url=store.url)

    monkeypatch.setattr(store, "start", refuse)
    with pytest.raises(StoreError):
        recording.run(add, record=True, sinks=[Closing()])

    (outcome,) = closed
    assert ("failed", "StoreError: The disk is full") == (
        outcome.status,
        f"{outcome.error.type}: {outcome.error.message}",
    )


class Closing(RecordedSink):
    """Keeps the outcome that it is closed with."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[Outcome] = []

    def close(self, outcome: Outcome) -> None:
        """Keep it."""
        self.closed.append(outcome)


def trip(*_: object, **__: object) -> None:
    """Raise what a store should not."""
    raise LookupError("a bug of the store's")


class OddStores:
    """A plugin with a store that raises when it is opened."""

    @hookimpl
    def synapse_register_stores(self) -> list[StoreSpec]:
        """Register it."""
        return [StoreSpec(name="odd", target=f"{__name__}:trip", schemes=("odd",))]


@pytest.mark.parametrize("when", ["opened", "started"])
def test_whatever_a_store_raises_costs_a_plain_run_its_record_alone(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sink = Closing()
    if when == "started":
        monkeypatch.setattr(store_of(recording), "start", trip)
    settings = {"store": "odd://user:hush@host"}
    with (
        Kernel(settings, plugins=[OddStores()], strict=True) as odd,
        pytest.warns(PluginWarning) as caught,
    ):
        outcome = (odd if when == "opened" else recording).run(add, sinks=[sink])

    assert outcome.ok
    assert [outcome] == sink.closed
    assert ["This run is not recorded: LookupError: a bug of the store's"] == [
        str(warning.message) for warning in caught
    ]


@pytest.mark.parametrize("when", ["opened", "started", "claimed"])
def test_whatever_a_store_raises_stops_a_run_that_must_be_recorded(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sink, place = Closing(), RunPlace()
    if when == "started":
        monkeypatch.setattr(store_of(recording), "start", trip)
    if when == "claimed":
        recording.run(fail, place=RunPlace(run_id="r1"))
        monkeypatch.setattr(store_of(recording), "claim", trip)
        place = RunPlace(run_id="r1", resume=True)
    settings = {"store": "odd://user:hush@host"}
    with (
        Kernel(settings, plugins=[OddStores()], strict=True) as odd,
        pytest.raises(StoreError) as caught,
    ):
        (odd if when == "opened" else recording).run(add, record=True, sinks=[sink], place=place)

    assert "The run cannot be recorded: LookupError: a bug of the store's" == str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)
    assert "hush" not in caught.value.url
    # Where the store comes before the sinks, none was opened.
    assert ([] if when == "opened" else ["failed"]) == [outcome.status for outcome in sink.closed]


def test_a_run_that_is_interrupted_while_it_is_recorded_closes_the_sinks_it_opened(
    recording: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Closing()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_of(recording), "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recording.run(add, sinks=[sink])

    assert ["failed"] == [outcome.status for outcome in sink.closed]


def test_secret_params_are_masked_and_named(recording: Kernel) -> None:
    outcome = recording.run(Hide, params={"password": "hush-hush-1", "pin": "hush-hush-2", "size": 4})

    found = record_of(recording, outcome.run_id)
    assert {"password": "***", "pin": "***", "size": 4} == found.params
    assert ["password", "pin"] == found.masked


def test_a_crashed_run_goes_on_under_its_id_with_its_next_attempt_and_number(
    recording: Kernel, url: str
) -> None:
    first = recording.run(fail, place=RunPlace(run_id="r1"))
    sink = RecordedSink()

    second = recording.run(add, sinks=[sink], place=RunPlace(run_id="r1", resume=True))

    assert ("failed", 1) == (first.status, first.attempts)
    assert ("succeeded", 2) == (second.status, second.attempts)
    assert [
        (1, "pending", 1),
        (2, "running", 1),
        (3, "failed", 1),
        (4, "pending", 2),
        (5, "running", 2),
        (6, "succeeded", 2),
    ] == states_of(recording, "r1")
    assert [4, 5, 6] == [event.seq for event in sink.events]
    found = record_of(recording, "r1")
    assert ("succeeded", 2, 6, None) == (found.status, found.attempt, found.last_seq, found.error)


def test_a_run_that_goes_on_is_recorded_with_what_is_different_now(
    recording: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": WORKER}) / "work.py"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    place = RunPlace(run_id="r1", resume=True)

    monkeypatch.chdir(first)
    recording.run(str(file), params={"until": 2}, executor="process", place=RunPlace(run_id="r1"))
    monkeypatch.chdir(second)
    recording.run(fail, place=msgspec.structs.replace(place, known=KnownResult(3, "r0")))
    changed = record_of(recording, "r1")
    recording.run(add, place=place)

    assert ("local", str(second), "r0") == (changed.executor, changed.cwd, changed.cached_from)
    assert record_of(recording, "r1").cached_from is None


def test_attempts_of_a_run_that_goes_on_are_numbered_on(url: str) -> None:
    with Kernel({"store": url, "retry": {"initial": 0.0}}, strict=True) as kernel:
        kernel.run(fail, retries=1, place=RunPlace(run_id="r1"))
        kernel.run(fail, retries=1, place=RunPlace(run_id="r1", resume=True))

        running = [attempt for _, state, attempt in states_of(kernel, "r1") if state == "running"]
        assert [1, 2, 3, 4] == running
        assert 4 == record_of(kernel, "r1").attempt


def test_an_interrupted_run_is_recorded_as_cancelled_in_whichever_attempt(recording: Kernel) -> None:
    recording.run(fail, place=RunPlace(run_id="r1"))

    with pytest.raises(KeyboardInterrupt):
        recording.run(stop, place=RunPlace(run_id="r1", resume=True))

    found = record_of(recording, "r1")
    assert ("cancelled", 2, "KeyboardInterrupt: the run was interrupted") == (
        found.status,
        found.attempt,
        found.error,
    )


def test_a_plugin_that_concludes_a_run_itself_concludes_its_latest_attempt(url: str) -> None:
    import synapse_kernel

    class Cache:
        @synapse_kernel.hookimpl
        def synapse_run(self, request: Any) -> Outcome:
            from datetime import UTC, datetime

            now = datetime.now(UTC)
            return Outcome(
                run_id=request.run_id, status="succeeded", action="add", started=now, finished=now, result=9
            )

    with Kernel({"store": url}, strict=True) as kernel:
        kernel.run(fail, place=RunPlace(run_id="r1"))
        kernel.register(Cache())
        outcome = kernel.run(add, place=RunPlace(run_id="r1", resume=True))

        assert (None, 2) == (outcome.unrecorded, outcome.attempts)
        assert ("succeeded", 2) == (record_of(kernel, "r1").status, record_of(kernel, "r1").attempt)


def test_a_run_that_is_under_way_does_not_go_on_a_second_time(recording: Kernel) -> None:
    def begin(ctx: RuntimeContext) -> str:
        with pytest.raises(RunBusyError) as caught:
            recording.run(add, place=RunPlace(run_id=ctx.run_id, resume=True))
        return str(caught.value)

    outcome = recording.run(call, params={"call": begin}, place=RunPlace(run_id="r1"))

    owner = this_process()
    assert outcome.unwrap() == (
        f"Run r1 is running in process {owner.pid} on {owner.host}\n"
        "  watch it with: synapse-kernel runs watch r1\n"
        "  stop it with:  synapse-kernel runs cancel r1"
    )
    assert ("succeeded", 1) == (record_of(recording, "r1").status, record_of(recording, "r1").attempt)


def test_a_run_that_is_not_in_the_store_cannot_go_on(recording: Kernel, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError) as caught:
        recording.run(add, place=RunPlace(run_id="r1", resume=True))

    assert str(caught.value) == (
        f"No run 'r1' is in {store_of(recording).url}\n  see what is there with: synapse-kernel runs list"
    )


def test_two_runs_of_one_id_are_refused(recording: Kernel) -> None:
    recording.run(add, place=RunPlace(run_id="r1"))

    with pytest.raises(StoreError) as caught:
        recording.run(add, place=RunPlace(run_id="r1"), record=True)

    assert f"A run r1 is in {store_of(recording).url} already" == str(caught.value)


def test_a_result_that_is_taken_over_is_recorded_with_where_it_came_from(recording: Kernel) -> None:
    place = RunPlace(run_id="r2", known=KnownResult({"path": "x"}, "r1"))

    assert recording.run(fail, place=place).ok

    assert "r1" == record_of(recording, "r2").cached_from
    assert {"path": "x"} == (store_of(recording).outcome("r2") or {})["result"]


def test_a_recorded_run_tells_its_folder_and_definition(recording: Kernel, own_home: Path) -> None:
    recording.run(add, place=RunPlace(run_id="r1", kind="pipeline", definition={"name": "p"}))
    recording.run(add, place=RunPlace(run_id="r2", work_dir="/somewhere/else", target="./pipeline.yaml"))

    first, second = record_of(recording, "r1"), record_of(recording, "r2")
    assert ("pipeline", {"name": "p"}, str(own_home / "runs" / "r1")) == (
        first.kind,
        first.definition,
        first.work_dir,
    )
    assert ("/somewhere/else", "./pipeline.yaml") == (second.work_dir, second.target)


def test_checkpoints_of_a_run_that_failed_are_there_for_its_next_attempt(recording: Kernel) -> None:
    def begin(ctx: RuntimeContext) -> None:
        assert ctx.checkpoint_store is not None
        ctx.checkpoint_store.put("epoch", {"number": 3})
        raise LookupError("gone")

    def go_on(ctx: RuntimeContext) -> object:
        assert ctx.checkpoint_store is not None
        return ctx.checkpoint_store.get("epoch")

    recording.run(call, params={"call": begin}, place=RunPlace(run_id="r1"))
    outcome = recording.run(call, params={"call": go_on}, place=RunPlace(run_id="r1", resume=True))

    assert {"number": 3} == outcome.unwrap()
    assert [] == store_of(recording).entries("r1")


WORKER = """
    import os

    from synapse_kernel import action


    @action
    def count(params, ctx):
        if ctx.checkpoint_store is None:
            return None
        seen = ctx.checkpoint_store.get("seen", 0) + 1
        ctx.checkpoint_store.put("seen", seen)
        if seen < params["until"]:
            os._exit(9)
        return [seen, ctx.attempt, os.getpid()]
"""


def test_a_worker_process_opens_the_store_for_its_checkpoints(
    recording: Kernel, make_folder: Callable[..., Path]
) -> None:
    import os

    file = make_folder({"work.py": WORKER}) / "work.py"

    first = recording.run(str(file), params={"until": 2}, executor="process", place=RunPlace(run_id="r1"))
    second = recording.run(
        str(file), params={"until": 2}, executor="process", place=RunPlace(run_id="r1", resume=True)
    )

    assert "crash" == (first.error and first.error.kind)
    seen, attempt, pid = second.unwrap()  # type: ignore[misc]
    assert (2, 2) == (seen, attempt)
    assert os.getpid() != pid


def test_a_worker_process_of_a_run_that_is_not_recorded_has_no_checkpoints(
    recording: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = make_folder({"work.py": WORKER}) / "work.py"

    assert recording.run(str(file), executor="process", record=False).unwrap() is None


def test_a_sink_without_a_hash_is_taken(kernel: Kernel) -> None:
    class Unhashable(RecordedSink):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return self is other

    sink = Unhashable()
    assert kernel.run(add, sinks=[sink]).ok
    assert [] != sink.events


def test_a_kernel_imports_no_store_until_it_records() -> None:
    import subprocess

    code = (
        "import sys; from synapse_kernel import Kernel, action\n"
        "@action\n"
        "def add(params): return 3\n"
        "with Kernel() as kernel: assert kernel.run(add).ok\n"
        "heavy = ('sqlite3', 'synapse_plugins.history.recorder', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == said.stdout
