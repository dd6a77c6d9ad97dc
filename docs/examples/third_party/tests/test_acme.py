"""The tests of synapse-acme, against the installed package and a real kernel."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from synapse_acme.hello import hello
from synapse_kernel import Kernel, Message, UsageError, action


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel with the installed plugins, ours with a single thread."""
    with Kernel({"acme": {"threads": 1}, "work_dir": str(tmp_path / "runs")}, strict=True) as made:
        yield made


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return a file with five words on two lines."""
    file = tmp_path / "text.txt"
    file.write_text("The cat saw\nthe dog\n", encoding="utf-8")
    return file


def test_the_plugin_is_found_by_its_entry_point(kernel: Kernel) -> None:
    record = next(record for record in kernel.plugins if record.name == "acme")
    assert ("synapse-acme[acme]", "active") == (record.display, record.state)


def test_the_action_plugin_is_run_by_its_name(kernel: Kernel, text: Path) -> None:
    outcome = kernel.run("acme", "count", {"path": text})
    assert {"lines": 2, "words": 5, "top": {"the": 2, "cat": 1, "saw": 1}} == outcome.unwrap().model_dump()


def test_an_action_runs_in_a_thread_of_the_pool(kernel: Kernel) -> None:
    @action
    def where() -> str:
        return threading.current_thread().name

    assert "acme_0" == kernel.run(where, executor="acme-threads").unwrap()


def test_an_error_of_the_action_is_a_failed_outcome(kernel: Kernel) -> None:
    @action
    def fail() -> None:
        raise LookupError("no such thing")

    outcome = kernel.run(fail, executor="acme-threads")
    assert ("failed", "LookupError", "no such thing") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
    )


def test_cancel_stops_an_action_at_its_next_call_to_the_context(kernel: Kernel) -> None:
    run = kernel.submit("acme", "pause", {"seconds": 600}, executor="acme-threads")
    next(
        event for event in run.events() if event.level == "info" and getattr(event, "event", "") == "pausing"
    )
    run.cancel(grace=300)
    assert "cancelled" == run.result(timeout=120).status


def test_a_run_that_waits_for_a_thread_is_cancelled_before_it_starts(kernel: Kernel) -> None:
    @action
    def hold() -> None:
        started.set()
        release.wait(120)

    started, release = threading.Event(), threading.Event()
    first = kernel.submit(hold, executor="acme-threads")
    assert started.wait(120)
    second = kernel.submit("acme", "pause", executor="acme-threads")
    next(event for event in second.events() if getattr(event, "state", "") == "running")
    second.cancel()
    assert "cancelled" == second.result(timeout=120).status
    release.set()
    assert "succeeded" == first.result(timeout=120).status


def test_an_action_that_does_not_listen_is_left_behind_unheard(kernel: Kernel) -> None:
    @action
    def deaf(params: dict[str, object], ctx) -> None:
        started.set()
        release.wait(120)
        try:
            ctx.log_message("too late")
        finally:
            ended.set()

    started, release, ended = threading.Event(), threading.Event(), threading.Event()
    run = kernel.submit(deaf, executor="acme-threads")
    assert started.wait(120)
    run.cancel(grace=0)
    outcome = run.result(timeout=120)
    release.set()
    assert ended.wait(120)
    assert "cancelled" == outcome.status
    assert [] == [event for event in run.events() if isinstance(event, Message)]


def test_the_tally_counts_events_by_kind(kernel: Kernel, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "tally.json"
    outcome = kernel.run("acme", "count", {"path": text}, sinks=[f"acme-tally:{file}"])
    assert {
        "run_id": outcome.run_id,
        "action": "count",
        "executor": "local",
        "status": "succeeded",
        "events": {"log": 1, "metrics": 1, "progress": 1, "state": 3},
    } == json.loads(file.read_text(encoding="utf-8"))


def test_the_tally_leaves_nothing_beside_its_file(kernel: Kernel, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    kernel.run("acme", "count", {"path": text}, sinks=[f"acme-tally:{folder / 'tally.json'}"])
    assert ["tally.json"] == [file.name for file in folder.iterdir()]


@pytest.mark.parametrize(
    ("sink", "told"),
    [
        ("acme-tally", "The sink 'acme-tally' needs a file: --sink acme-tally:FILE"),
        (
            "acme-tally:nowhere/tally.json",
            "The tally cannot be written: there is no folder nowhere",
        ),
    ],
)
def test_a_tally_that_has_no_place_is_refused_before_the_run(
    kernel: Kernel, text: Path, sink: str, told: str
) -> None:
    with pytest.raises(UsageError) as raised:
        kernel.run("acme", "count", {"path": text}, sinks=[sink])
    assert told == str(raised.value)


def test_the_command_greets() -> None:
    assert "Hello Ada, from Acme.\n" == CliRunner().invoke(hello, ["Ada"]).output
