"""`RuntimeContext`: what an action finds around it, and the ways it has to say something."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synapse_kernel import (
    IntegrationSpec,
    Kernel,
    Log,
    Message,
    RunCancelled,
    ServiceSpec,
    UsageError,
    WorkFolderError,
    action,
    hookimpl,
)
from synapse_kernel.context import make_work_dir
from synapse_kernel.events import encode_event

MakeFolder = Callable[..., Path]

both_executors = pytest.mark.parametrize("executor", ["local", "process"])


def logs(recorder: Any) -> list[tuple[str, dict[str, object], str]]:
    return [(e.event, e.data, e.level) for e in recorder.of(Log)]


# Who and where.


def test_the_context_knows_its_run(kernel: Kernel):
    @action
    def tell(params, ctx):
        return [ctx.run_id, ctx.job_id, ctx.attempt, ctx.checkpoint]

    outcome = kernel.run(tell, job_id="job-7", checkpoint={"category": "base_model", "path": "/w.pt"})

    assert [outcome.run_id, "job-7", 1, {"category": "base_model", "path": "/w.pt"}] == outcome.unwrap()


def test_job_id_and_checkpoint_are_none_unless_given(kernel: Kernel):
    @action
    def tell(params, ctx):
        return [ctx.job_id, ctx.checkpoint]

    assert [None, None] == kernel.run(tell).unwrap()


def test_a_retry_is_another_attempt_of_the_same_run():
    seen: list[tuple[str, int]] = []

    @action
    def flaky(params, ctx):
        seen.append((ctx.run_id, ctx.attempt))
        if ctx.attempt < 3:
            raise OSError("not yet")

    with Kernel({"retry": {"initial": 0.001, "maximum": 0.002}}, strict=True) as kernel:
        outcome = kernel.run(flaky, retries=2)

    assert [(outcome.run_id, 1), (outcome.run_id, 2), (outcome.run_id, 3)] == seen


SURROUNDINGS = {
    "config.yaml": "name: around\nactions: {tell: 'around:tell'}\n",
    "around.py": """
        from synapse_kernel import action


        @action
        def tell(params, ctx):
            (ctx.work_dir / "made.txt").write_text("here")
            return {
                "run_id": ctx.run_id,
                "job_id": ctx.job_id,
                "checkpoint": ctx.checkpoint,
                "work_dir": str(ctx.work_dir),
            }
    """,
}


@both_executors
def test_the_surroundings_are_the_same_in_every_executor(
    make_folder: MakeFolder, tmp_path: Path, executor: str
):
    folder = str(make_folder(SURROUNDINGS))

    with Kernel({"work_dir": str(tmp_path / "runs")}, strict=True) as kernel:
        outcome = kernel.run(folder, executor=executor, job_id="j", checkpoint={"path": "w"})

    work_dir = tmp_path / "runs" / outcome.run_id
    assert {
        "run_id": outcome.run_id,
        "job_id": "j",
        "checkpoint": {"path": "w"},
        "work_dir": str(work_dir),
    } == outcome.unwrap()
    assert "here" == (work_dir / "made.txt").read_text()


# The work folder.


def test_the_work_folder_is_made_on_first_use(kernel: Kernel, own_home: Path):
    @action
    def idle(params, ctx):
        return None

    @action
    def work(params, ctx):
        return ctx.work_dir

    kernel.run(idle)
    assert not (own_home / "runs").exists()

    first, second = kernel.run(work), kernel.run(work)
    assert own_home / "runs" / first.run_id == first.unwrap()
    assert first.unwrap().is_dir()
    assert first.unwrap() != second.unwrap()


def test_the_work_folder_stays_the_same_in_all_attempts():
    seen: list[Path] = []

    @action
    def flaky(params, ctx):
        seen.append(ctx.work_dir)
        raise OSError("never")

    with Kernel({"retry": {"initial": 0.001, "maximum": 0.002}}, strict=True) as kernel:
        kernel.run(flaky, retries=1)

    assert 2 == len(seen)
    assert seen[0] == seen[1]


def test_a_work_folder_that_cannot_be_made_fails_the_run_and_says_what_to_do(tmp_path: Path):
    in_the_way = tmp_path / "taken"
    in_the_way.write_text("a file")

    @action
    def work(params, ctx):
        return str(ctx.work_dir)

    with Kernel({"work_dir": str(in_the_way)}, strict=True) as kernel:
        outcome = kernel.run(work)

    assert "failed" == outcome.status
    assert isinstance(outcome.exception, WorkFolderError)
    assert (
        f"The run's work folder {in_the_way / outcome.run_id} cannot be written: Not a directory\n"
        "  choose another with the setting work_dir, or the variable SYNAPSE_WORK_DIR"
    ) == outcome.error.message


@pytest.mark.parametrize("run_id", ["..", "a/b", "", ".hidden", "a b"])
def test_a_run_id_that_would_leave_the_folder_is_refused(tmp_path: Path, run_id: str):
    with pytest.raises(UsageError) as raised:
        make_work_dir(str(tmp_path), run_id)

    assert f"{run_id!r} cannot name a run: use letters, digits, '.', '_' and '-'" == str(raised.value)


# Services.


class Clients:
    """A plugin with three services."""

    @hookimpl
    def synapse_register_services(self):
        return [
            ServiceSpec(name="client", target=f"{__name__}:make_client"),
            ServiceSpec(name="agent_client", target=f"{__name__}:make_agent"),
            ServiceSpec(name="broken", target=f"{__name__}:make_broken"),
        ]


class Client:
    def __init__(self, ctx: Any) -> None:
        self.url = ctx.env.get_str("URL", "none")
        self.run_id = ctx.run_id


def make_client(ctx: Any) -> Client:
    return Client(ctx)


def make_agent(ctx: Any) -> str:
    return f"agent of {ctx.run_id}"


def make_broken(ctx: Any) -> None:
    ctx.env.get_str("ACCOUNT")


@pytest.fixture
def with_clients(kernel: Kernel) -> Kernel:
    """Return a kernel with services; this module can be imported by its name."""
    assert __name__ in sys.modules
    kernel.register(Clients(), name="clients")
    return kernel


def test_a_service_is_an_attribute_made_once_a_run(with_clients: Kernel):
    @action
    def use(params, ctx):
        return [ctx.client, ctx.client, ctx.service("client"), ctx.agent_client]

    outcome = with_clients.run(use, env={"URL": "http://here"})

    first, second, third, agent = outcome.unwrap()
    assert first is second is third
    assert ("http://here", outcome.run_id) == (first.url, first.run_id)
    assert f"agent of {outcome.run_id}" == agent
    assert with_clients.run(use).unwrap()[0] is not first


def test_a_service_that_nobody_registered_is_told_with_the_nearest(with_clients: Kernel):
    @action
    def use(params, ctx):
        assert not hasattr(ctx, "cleint")
        return ctx.cleint

    outcome = with_clients.run(use)

    assert "AttributeError" == outcome.error.type
    assert "did you mean 'client'?" in outcome.error.message


def test_why_a_service_could_not_be_made_is_told(with_clients: Kernel):
    @action
    def use(params, ctx):
        return ctx.broken

    outcome = with_clients.run(use)

    assert "Environment variable 'ACCOUNT' is not set for this run" in outcome.error.message


# Autolog.


class Frameworks:
    """A plugin with an integration that notes when it is on, off, and for which run."""

    notes: list[str] = []  # noqa: RUF012 - cleared by the fixture

    @hookimpl
    def synapse_register_integrations(self):
        return [
            IntegrationSpec(name="torchlet", target=f"{__name__}:start_torchlet"),
            IntegrationSpec(name="silent", target=f"{__name__}:start_silent"),
            IntegrationSpec(name="rude", target=f"{__name__}:start_rude"),
        ]


def start_torchlet(ctx: Any) -> Callable[[], None]:
    Frameworks.notes.append(f"start {ctx.run_id}")
    ctx.log("torchlet_on")

    def stop() -> None:
        Frameworks.notes.append(f"stop {ctx.run_id}")
        ctx.log("torchlet_off")

    return stop


def start_silent(ctx: Any) -> None:
    Frameworks.notes.append("silent")


def start_rude(ctx: Any) -> Callable[[], None]:
    def stop() -> None:
        raise RuntimeError("will not stop")

    return stop


@pytest.fixture
def with_frameworks(kernel: Kernel) -> Kernel:
    Frameworks.notes.clear()
    kernel.register(Frameworks(), name="frameworks")
    return kernel


@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_autolog_starts_an_integration_and_stops_it_at_the_end(
    with_frameworks: Kernel, recorder: Any, ending: str
):
    @action
    def train(params, ctx):
        ctx.autolog("torchlet")
        ctx.autolog("silent")
        if ending == "raises":
            raise ValueError("diverged")

    outcome = with_frameworks.run(train, sinks=[recorder])

    assert {"returns": "succeeded", "raises": "failed"}[ending] == outcome.status
    assert [f"start {outcome.run_id}", "silent", f"stop {outcome.run_id}"] == Frameworks.notes
    assert ["torchlet_on", "torchlet_off"] == [name for name, _, _ in logs(recorder)]


def test_an_integration_that_fails_to_stop_is_a_warning_of_the_run(with_frameworks: Kernel, recorder: Any):
    @action
    def train(params, ctx):
        ctx.autolog("torchlet")
        ctx.autolog("rude")
        return "trained"

    outcome = with_frameworks.run(train, sinks=[recorder])

    assert "trained" == outcome.unwrap()
    assert ("clean_up_failed", {"error": "RuntimeError: will not stop"}, "warning") in logs(recorder)
    assert f"stop {outcome.run_id}" == Frameworks.notes[-1]


def test_a_framework_that_nobody_registered_is_told_with_the_nearest(with_frameworks: Kernel):
    @action
    def train(params, ctx):
        ctx.autolog("torchlte")

    outcome = with_frameworks.run(train)

    assert "UnknownNameError" == outcome.error.type
    assert "did you mean 'torchlet'?" in outcome.error.message


# Clean-up.


def test_callbacks_at_the_end_run_last_first(kernel: Kernel):
    order: list[int] = []

    @action
    def work(params, ctx):
        for number in (1, 2, 3):
            ctx.at_end(lambda number=number: order.append(number))

    kernel.run(work)

    assert [3, 2, 1] == order


def test_clean_up_speaks_undisturbed_in_a_run_that_was_told_to_stop(kernel: Kernel, recorder: Any):
    """The first call that emits after a cancel raises, but only inside the action's own work."""
    entered = threading.Event()
    cancelled = threading.Event()

    @action
    def work(params, ctx):
        ctx.at_end(lambda: ctx.log("last_words"))
        ctx.at_end(lambda: ctx.log("first_words"))
        entered.set()
        assert cancelled.wait(60)
        while not ctx.cancelled:
            pass

    run = kernel.submit(work, sinks=[recorder])
    assert entered.wait(60)
    run.cancel(grace=60)
    cancelled.set()
    run.result(60)

    assert ["first_words", "last_words"] == [name for name, _, _ in logs(recorder)]


def test_an_action_can_ask_whether_it_was_told_to_stop(kernel: Kernel):
    seen: list[str] = []
    entered = threading.Event()

    @action
    def work(params, ctx):
        entered.set()
        try:
            while True:
                ctx.check_cancelled()
        except RunCancelled:
            seen.append("told")
            raise

    run = kernel.submit(work)
    assert entered.wait(60)
    run.cancel(grace=60)

    assert "cancelled" == run.result(60).status
    assert ["told"] == seen


# Saying something.


def test_log_message_and_dev_event(kernel: Kernel, recorder: Any):
    @action
    def speak(params, ctx):
        ctx.log("started", {"n": 1})
        ctx.log("bare", level="error")
        ctx.log("odd", level="shout")
        ctx.log_message("all well", "success")
        ctx.log_message("take care", "warning")
        ctx.log_dev_event("cache miss", {"key_count": 3})
        ctx.log_dev_event("nothing else")

    kernel.run(speak, sinks=[recorder])

    assert [
        ("started", {"n": 1}, "info"),
        ("bare", {}, "error"),
        ("odd", {}, "info"),
        ("dev_event", {"message": "cache miss", "key_count": 3}, "debug"),
        ("dev_event", {"message": "nothing else"}, "debug"),
    ] == logs(recorder)
    assert [("all well", "success", "info"), ("take care", "warning", "warning")] == [
        (e.text, e.context, e.level) for e in recorder.of(Message)
    ]


def test_records_of_the_logger_are_events_with_their_level_and_traceback(kernel: Kernel, recorder: Any):
    @action
    def speak(params, ctx):
        ctx.logger.debug("detail")
        ctx.logger.info("read %d files", 3)
        ctx.logger.warning("careful")
        try:
            raise LookupError("gone")
        except LookupError:
            ctx.logger.exception("failed")
        ctx.logger.critical("over")

    kernel.run(speak, sinks=[recorder])

    found = logs(recorder)
    assert [("detail", "debug"), ("read 3 files", "info"), ("careful", "warning")] == [
        (data["message"], level) for _, data, level in found[:3]
    ]
    assert {"log"} == {name for name, _, _ in found}
    _, data, level = found[3]
    assert ("failed", "error", "synapse.action.speak") == (data["message"], level, data["logger"])
    assert str(data["traceback"]).endswith("LookupError: gone")
    assert "error" == found[4][2]


def test_the_logger_is_registered_nowhere(kernel: Kernel):
    @action
    def speak(params, ctx):
        ctx.logger.info("hello")
        return ctx.logger.name

    name = kernel.run(speak).unwrap()

    assert name not in logging.root.manager.loggerDict


def test_an_artifact_is_told_with_its_size(kernel: Kernel, recorder: Any, tmp_path: Path):
    outside = tmp_path / "weights.pt"
    outside.write_bytes(b"12345")

    @action
    def make(params, ctx):
        (ctx.work_dir / "report").mkdir()
        (ctx.work_dir / "report" / "a.txt").write_text("abc")
        (ctx.work_dir / "report" / "b.txt").write_text("de")
        ctx.log_artifact(outside)
        ctx.log_artifact(str(outside), name="best")
        ctx.log_artifact("report")
        return ctx.work_dir

    work_dir = kernel.run(make, sinks=[recorder]).unwrap()

    assert [
        ("weights.pt", str(outside), 5),
        ("best", str(outside), 5),
        ("report", str(work_dir / "report"), 5),
    ] == [(e.name, e.path, e.size) for e in recorder.events if type(e).__name__ == "Artifact"]


def test_an_artifact_that_is_not_there_is_told(kernel: Kernel, tmp_path: Path):
    @action
    def make(params, ctx):
        ctx.log_artifact(tmp_path / "nothing.pt")

    outcome = kernel.run(make)

    assert ("UsageError", f"log_artifact: there is no {tmp_path / 'nothing.pt'}") == (
        outcome.error.type,
        outcome.error.message,
    )


def test_end_log_sends_what_is_waiting_at_once(kernel: Kernel, recorder: Any):
    seen: list[list[str]] = []

    @action
    def speak(params, ctx):
        ctx.log("one")
        ctx.set_progress(1, 2)
        ctx.end_log()
        seen.append([type(e).__name__ for e in recorder.events])

    kernel.run(speak, sinks=[recorder])

    assert [["State", "State", "Log", "Progress"]] == seen


def test_what_an_action_says_is_the_same_in_every_executor(
    kernel: Kernel, make_folder: MakeFolder, recorder: Any
):
    folder = str(
        make_folder(
            {
                "config.yaml": "name: say\nactions: {say: 'say:say'}\n",
                "say.py": """
                    from synapse_kernel import action


                    @action
                    def say(params, ctx):
                        ctx.log("started", {"n": float("nan"), "path": ctx.work_dir.name == ctx.run_id})
                        ctx.logger.warning("careful")
                        ctx.set_metrics({"loss": float("nan"), "top": float("inf"), "n": 3}, "train")
                        ctx.log_message("half way", "success")
                        ctx.log_dev_event("inside")
                        (ctx.work_dir / "w.pt").write_bytes(b"123")
                        ctx.log_artifact("w.pt")
                        for n in range(1001):
                            ctx.set_progress(n, 1000, "train")
                        ctx.end_log()
                """,
            }
        )
    )

    def told(executor: str) -> list[object]:
        recorder.batches.clear()
        assert kernel.run(folder, executor=executor, sinks=[recorder]).ok
        run_id = recorder.events[0].run_id
        assert list(range(1, len(recorder.events) + 1)) == [e.seq for e in recorder.events]
        progress = [e for e in recorder.events if type(e).__name__ == "Progress"]
        assert 1000 == progress[-1].current
        rest = [json.loads(encode_event(e)) for e in recorder.events if type(e).__name__ != "Progress"]
        return [
            {k: str(v).replace(run_id, "RUN") for k, v in event.items() if k not in {"run_id", "seq", "time"}}
            for event in rest
        ]

    assert told("local") == told("process")
