"""The executor `ray-job` on a real head: each way an action can end, and who finds its job again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from tests.plugins.ray_executors.heads import Head, end_head, free_ports, start_head, wait_for

from synapse_kernel import Kernel, Log, State
from synapse_kernel.contracts import Outcome, QueuedJob, Resources, Task
from synapse_kernel.events import Event
from synapse_kernel.lasting import LastingJob, Order
from synapse_kernel.testing import RecordedSink
from synapse_plugins.ray_executors.job_api import JobExistsError, JobNotFoundError, JobsApi
from synapse_plugins.ray_executors.job_following import SMALL
from synapse_plugins.ray_executors.jobs import RayJobExecutor
from synapse_plugins.ray_executors.settings import RaySettings

WAIT = 120

ACTIONS = """
    import os
    import sys
    import time

    from pydantic import BaseModel

    from synapse_kernel import action


    class Count(BaseModel):
        count: int = 3
        text: str = "x"


    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")
            self.held = lambda: None


    @action
    def nothing(params: Count):
        return {"count": params.count}


    @action
    def talk(params: Count, ctx):
        print("printed")
        for number in range(params.count):
            ctx.log("tick", {"number": number, "text": params.text})
        print("to stderr", file=sys.stderr)


    @action
    def fail(params):
        raise Odd(1, "two")


    @action
    def leave(params, ctx):
        ctx.log("said")
        os._exit(7)


    @action
    def system_exit(params):
        sys.exit("enough")


    @action
    def no_json(params):
        return object()


    @action
    def polite(params, ctx):
        ctx.log("begun")
        try:
            while True:
                ctx.set_progress(1, 2)
                time.sleep(0.05)
        finally:
            ctx.log("cleaned up")


    @action
    def deaf(params, ctx):
        ctx.log("begun", {"pid": os.getpid()})
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass


    @action
    def await_file(params, ctx):
        ctx.log("begun", {"pid": os.getpid()})
        while not os.path.exists(params["file"]):
            time.sleep(0.05)
        ctx.log("seen")
        return "seen"


    @action
    def kill_conductor(params, ctx):
        ctx.log("begun")
        time.sleep(0.5)
        os.kill(os.getppid(), 9)
        time.sleep(600)


    @action
    def where(params, ctx):
        from plugin_part import NAME
        ray = "RAY_ADDRESS" in os.environ
        return {"cwd": os.getcwd(), "env": ctx.env.get("MINE"), "part": NAME, "ray": ray}
"""


def settings_of(head: Head) -> dict[str, object]:
    return {"ray": {"address": head.url, "token_path": str(head.token)}, "grace": 1.0}


@pytest.fixture
def job_kernel(head: Head) -> Iterator[Kernel]:
    with Kernel(settings_of(head), strict=True) as kernel:
        yield kernel


@pytest.fixture
def actions(make_folder: Callable[..., Path]) -> str:
    folder = make_folder({"actions.py": ACTIONS, "plugin_part.py": "NAME = 'part'\n"})
    return str(folder / "actions.py")


class Ran:
    """A run, and all that was said of it."""

    def __init__(
        self, kernel: Kernel, target: str, action: str, params: object = None, **options: object
    ) -> None:
        self.sink = RecordedSink()
        self.run = kernel.submit(target, action, params, executor="ray-job", sinks=[self.sink], **options)  # type: ignore[arg-type]

    def end(self) -> Outcome:
        return self.run.result(WAIT)

    def await_event(self, name: str) -> Log:
        wait_for(lambda: self.named(name) or self.run.done, f"the event {name}")
        assert self.named(name), self.end()
        return self.named(name)[0]

    def named(self, name: str) -> list[Log]:
        return [e for e in list(self.sink.events) if isinstance(e, Log) and e.event == name]

    def states(self) -> list[str]:
        return [e.state for e in self.sink.events if isinstance(e, State)]


def order_of(kernel: Kernel, actions: str, action: str, run_id: str, **fields: object) -> Order:
    return Order(
        run_id=run_id,
        target=actions,
        action=kernel.discover(actions).actions[action],
        settings=kernel.worker_settings,
        **fields,  # type: ignore[arg-type]
    )


def task_of(kernel: Kernel, actions: str, action: str, run_id: str, **fields: object) -> Task:
    spec = kernel.discover(actions).actions[action]
    return Task(
        run_id=run_id,
        action=action,
        ref=spec.ref,
        settings=kernel.worker_settings,
        **fields,  # type: ignore[arg-type]
    )


def test_an_action_runs_and_its_result_comes_back(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "nothing", {"count": 5})
    outcome = ran.end()
    assert outcome.error is None
    assert ("succeeded", {"count": 5}) == (outcome.status, outcome.result)
    assert ["pending", "pending", "running", "succeeded"] == ran.states()


@pytest.mark.slow
def test_a_job_says_what_it_waits_for_before_it_runs(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "nothing")
    ran.end()
    waiting, running = [e for e in ran.sink.events if isinstance(e, State)][1:3]
    assert waiting.detail == f"Ray job synapse-{ran.run.run_id}-1 waits for 1 CPU and its environment"
    assert (2, 3) == (waiting.seq, running.seq)


def test_events_and_printed_lines_come_in_order_without_gaps(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "talk", {"count": 200})
    assert "succeeded" == ran.end().status
    assert list(range(200)) == [e.data["number"] for e in ran.named("tick")]
    assert list(range(1, len(ran.sink.events) + 1)) == [e.seq for e in ran.sink.events]
    printed = [e.data for e in ran.named("output")]
    assert {"stream": "stdout", "text": "printed"} in printed
    assert {"stream": "stderr", "text": "to stderr"} in printed


@pytest.mark.slow
def test_a_log_that_grows_long_is_read_to_its_end(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "talk", {"count": 3000, "text": "y" * (SMALL // 1000)})
    assert ran.end().error is None
    assert list(range(3000)) == [e.data["number"] for e in ran.named("tick")]
    assert list(range(1, len(ran.sink.events) + 1)) == [e.seq for e in ran.sink.events]


@pytest.mark.slow
def test_an_action_finds_its_folder_its_env_and_the_cluster(job_kernel: Kernel, actions: str) -> None:
    outcome = Ran(job_kernel, actions, "where", env={"MINE": "yes"}).end()
    assert {"cwd": str(Path.cwd()), "env": "yes", "part": "part", "ray": True} == outcome.result


def test_an_exception_that_does_not_pickle_arrives_with_its_traceback(
    job_kernel: Kernel, actions: str
) -> None:
    error = Ran(job_kernel, actions, "fail").end().error
    assert error is not None
    assert ("Odd", "1 and two", "action") == (error.type, error.message, error.kind)
    assert 'raise Odd(1, "two")' in error.traceback


@pytest.mark.slow
def test_an_action_that_leaves_its_process_is_a_crash_with_all_it_said(
    job_kernel: Kernel, actions: str
) -> None:
    ran = Ran(job_kernel, actions, "leave")
    error = ran.end().error
    assert error is not None
    assert ("ProcessCrashed", "crash") == (error.type, error.kind)
    assert "the worker process exited with code 7 before the action ended" == error.message
    assert 1 == len(ran.named("said"))


@pytest.mark.slow
def test_sys_exit_is_the_actions_own_error(job_kernel: Kernel, actions: str) -> None:
    error = Ran(job_kernel, actions, "system_exit").end().error
    assert error is not None
    expected = ("SystemExit", "the action called sys.exit('enough')", "action")
    assert expected == (error.type, error.message, error.kind)


@pytest.mark.slow
def test_a_result_that_is_no_json_fails_and_says_what_to_do(job_kernel: Kernel, actions: str) -> None:
    error = Ran(job_kernel, actions, "no_json").end().error
    assert error is not None
    assert "result" == error.kind
    assert error.message.startswith("The result is not JSON: it is of type object\n")


@pytest.mark.slow
def test_a_killed_conductor_is_a_crash_and_takes_the_action_along(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "kill_conductor")
    error = ran.end().error
    assert error is not None
    assert ("JobCrashed", "crash") == (error.type, error.kind)
    assert "the job's process exited with code 1 before it told an outcome" == error.message
    assert error.output.endswith("the process that conducted the run was killed")
    assert 1 == len(ran.named("begun"))


def test_cancel_reaches_an_action_that_listens_which_cleans_up(job_kernel: Kernel, actions: str) -> None:
    ran = Ran(job_kernel, actions, "polite")
    ran.await_event("begun")
    ran.run.cancel(grace=30)
    outcome = ran.end()
    assert "cancelled" == outcome.status
    assert 1 == len(ran.named("cleaned up"))


@pytest.mark.slow
def test_an_action_that_does_not_listen_is_killed_after_the_grace_period(
    job_kernel: Kernel, actions: str
) -> None:
    ran = Ran(job_kernel, actions, "deaf")
    pid = int(str(ran.await_event("begun").data["pid"]))
    ran.run.cancel()
    assert "cancelled" == ran.end().status
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the action's process")


@pytest.mark.slow
def test_a_job_that_waits_for_a_place_is_cancelled_at_once_and_never_begins(
    job_kernel: Kernel, actions: str, tmp_path: Path
) -> None:
    both = Resources(cpus=2)
    first = Ran(job_kernel, actions, "await_file", {"file": str(tmp_path / "go")}, resources=both)
    first.await_event("begun")
    second = Ran(job_kernel, actions, "talk", resources=both)
    wait_for(lambda: second.states() == ["pending", "pending"], "the job's waiting")
    second.run.cancel()
    assert "cancelled" == second.end().status
    (tmp_path / "go").touch()
    assert "seen" == first.end().result
    executor = RayJobExecutor(job_kernel)
    wait_for(lambda: executor.get_status(second.run.run_id) == "cancelled", "the end of the job that waited")
    assert "" == executor.get_logs(second.run.run_id)


@pytest.mark.slow
def test_the_time_out_counts_from_when_the_action_begins(
    job_kernel: Kernel, actions: str, tmp_path: Path
) -> None:
    ran = Ran(job_kernel, actions, "await_file", {"file": str(tmp_path / "never")}, timeout=0.5)
    assert "timed_out" == ran.end().status
    assert ["pending", "pending", "running", "timed_out"] == ran.states()
    assert 1 == len(ran.named("begun"))


@pytest.mark.slow
def test_each_attempt_is_a_job_of_its_own(head: Head, actions: str) -> None:
    with Kernel({**settings_of(head), "retry": {"initial": 0.05}}, strict=True) as kernel:
        ran = Ran(kernel, actions, "fail", retries=1)
        assert ("failed", 2) == (ran.end().status, ran.end().attempts)
    states = [e for e in ran.sink.events if isinstance(e, State) and e.detail and "Ray job" in e.detail]
    assert [1, 2] == [state.attempt for state in states]
    assert list(range(1, len(ran.sink.events) + 1)) == [e.seq for e in ran.sink.events]


def test_what_the_cluster_never_has_fails_at_once_with_what_it_has(
    head: Head, job_kernel: Kernel, actions: str
) -> None:
    error = Ran(job_kernel, actions, "nothing", resources=Resources(gpus=3)).end().error
    assert error is not None
    assert ("ClusterError", "executor") == (error.type, error.kind)
    first, second, _ = error.message.splitlines()
    assert first == (
        f"The run can never start on the Ray cluster at {head.url}: it asks for 1 CPU, 3 GPUs, which no "
        "node of the cluster has"
    )
    assert second.startswith("  1 node has 2 CPUs, 0 GPUs, ")


def test_secrets_are_neither_in_what_ray_shows_nor_in_the_log(
    head: Head, job_kernel: Kernel, actions: str
) -> None:
    ran = Ran(job_kernel, actions, "talk", {"text": "a-secret-7391"}, env={"MY_TOKEN": "a-secret-7391"})
    assert "succeeded" == ran.end().status
    api = JobsApi(head.url, RaySettings(token_path=str(head.token)))
    job_id = f"synapse-{ran.run.run_id}-1"
    assert "***" == ran.named("tick")[0].data["text"]
    assert "a-secret-7391" not in api.log(job_id)
    shown = api._client._do_request("GET", f"/api/jobs/{job_id}").text
    assert job_id in shown
    assert "a-secret-7391" not in shown


@pytest.mark.slow
def test_code_that_was_uploaded_once_is_not_uploaded_again(
    job_kernel: Kernel, actions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ran(job_kernel, actions, "nothing").end()
    sent: list[str] = []
    api = job_kernel.executor("ray-job").api  # type: ignore[attr-defined]
    upload = api._client._upload_package

    def count(uri: str, path: str, **options: object) -> object:
        sent.append(Path(path).name)
        return upload(uri, path, **options)

    monkeypatch.setattr(api._client, "_upload_package", count)
    assert "succeeded" == Ran(job_kernel, actions, "nothing").end().status
    assert ["synapse_job"] == [name.rpartition("_")[0] for name in sent]


@pytest.mark.slow
def test_another_kernel_finds_the_job_of_a_client_that_was_killed(
    head: Head, actions: str, tmp_path: Path
) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import sys\n"
        "from synapse_kernel import Kernel\n"
        "from synapse_kernel.contracts import RunPlace\n"
        f"kernel = Kernel({settings_of(head)!r})\n"
        f"kernel.run({actions!r}, 'await_file', {{'file': {str(tmp_path / 'go')!r}}}, executor='ray-job',\n"
        f"           sinks=['jsonl:{tmp_path}/events'], place=RunPlace(run_id='orphan'))\n"
    )
    client = subprocess.Popen([sys.executable, str(script)])
    try:
        events = tmp_path / "events"
        wait_for(lambda: events.exists() and "begun" in events.read_text(), "the action's begin")
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(WAIT)
    with Kernel(settings_of(head), strict=True) as kernel:
        heard: list[Event] = []
        executor = RayJobExecutor(kernel)
        job = executor.attach("orphan", 1, 3, heard.extend)
        (tmp_path / "go").touch()
        outcome = job.wait(WAIT)
        executor.shutdown()
    assert outcome is not None
    assert ("succeeded", "seen") == (outcome.status, outcome.result)
    assert [4, 5] == [event.seq for event in heard]
    assert ["begun", "seen"] == [event.event for event in heard if isinstance(event, Log)]


def test_a_launched_run_conducts_itself_with_its_retries(head: Head, actions: str) -> None:
    with Kernel({**settings_of(head), "retry": {"initial": 0.05}}, strict=True) as kernel:
        RayJobExecutor(kernel).launch(order_of(kernel, actions, "fail", "launched", retries=1))
    with Kernel(settings_of(head), strict=True) as other:
        heard: list[Event] = []
        executor = RayJobExecutor(other)
        job = executor.attach("launched", 1, 0, heard.extend)
        outcome = job.wait(WAIT)
        executor.shutdown()
    assert outcome is not None
    assert ("failed", 2, "launched") == (outcome.status, outcome.attempts, outcome.run_id)
    expected = ["pending", "running", "retrying", "running", "failed"]
    assert expected == [e.state for e in heard if isinstance(e, State)]
    assert list(range(1, len(heard) + 1)) == [e.seq for e in heard]


@pytest.mark.slow
def test_a_killed_clients_later_attempt_is_found_though_nobody_heard_of_it(
    job_kernel: Kernel, actions: str
) -> None:
    executor = RayJobExecutor(job_kernel)
    for attempt, seq in ((1, 1), (2, 9)):
        task = task_of(job_kernel, actions, "nothing", "later", attempt=attempt, seq=seq)
        assert executor.submit(task, lambda _: None).wait(WAIT) is not None
    heard: list[Event] = []
    outcome = executor.attach("later", 1, 3, heard.extend).wait(WAIT)
    assert outcome is not None
    assert ("succeeded", 2) == (outcome.status, outcome.attempts)
    assert [10, 11] == [event.seq for event in heard]
    executor.shutdown()


@pytest.mark.slow
def test_a_launched_run_in_a_later_attempt_is_found_by_it(head: Head, actions: str) -> None:
    with Kernel({**settings_of(head), "retry": {"initial": 0.05}}, strict=True) as kernel:
        executor = RayJobExecutor(kernel)
        executor.launch(order_of(kernel, actions, "fail", "in-its-second", retries=1))
        heard: list[Event] = []
        outcome = executor.attach("in-its-second", 2, 3, heard.extend).wait(WAIT)
        executor.shutdown()
    assert outcome is not None
    assert ("failed", 2) == (outcome.status, outcome.attempts)
    assert 4 == heard[0].seq


@pytest.mark.slow
def test_a_request_to_stop_is_taken_by_the_time_the_job_is_closed(job_kernel: Kernel, actions: str) -> None:
    executor = RayJobExecutor(job_kernel)
    executor.launch(order_of(job_kernel, actions, "polite", "left"))
    job = executor.attach("left", 1, 0, lambda _: None)
    assert isinstance(job, LastingJob)
    job.wait_started()
    stopped: list[bool] = []
    stop = executor.api.stop

    def stop_late(job_id: str) -> bool:
        time.sleep(0.3)
        stopped.append(stop(job_id))
        return stopped[-1]

    executor.api.stop = stop_late  # type: ignore[method-assign]
    job.cancel(1.0)
    job.close()
    assert [True] == stopped
    assert job.wait(WAIT) is None
    wait_for(lambda: executor.get_status("left") == "cancelled", "the job's end")
    executor.shutdown()


@pytest.mark.slow
def test_a_launched_run_is_stopped_from_elsewhere_and_cleans_up(job_kernel: Kernel, actions: str) -> None:
    executor = RayJobExecutor(job_kernel)
    executor.launch(order_of(job_kernel, actions, "polite", "stopped"))
    heard: list[Event] = []
    job = executor.attach("stopped", 1, 0, heard.extend)
    wait_for(lambda: any(isinstance(e, Log) and e.event == "begun" for e in heard), "the action's begin")
    assert "running" == executor.get_status("stopped")
    assert executor.stop("stopped")
    outcome = job.wait(WAIT)
    assert outcome is not None
    assert "cancelled" == outcome.status
    assert "cleaned up" in [e.event for e in heard if isinstance(e, Log)]
    wait_for(lambda: executor.get_status("stopped") == "cancelled", "the job's end")
    assert not executor.stop("stopped")
    executor.shutdown()


@pytest.mark.slow
def test_those_who_embed_read_what_a_run_said_and_wait_for_it(job_kernel: Kernel, actions: str) -> None:
    executor = RayJobExecutor(job_kernel)
    executor.launch(order_of(job_kernel, actions, "talk", "told", params={"count": 2}))
    streamed = list(executor.stream_logs("told"))
    assert {"printed", "to stderr", "tick number=0 text=x", "tick number=1 text=x"} == set(streamed)
    assert streamed == executor.get_logs("told").splitlines()
    outcome = executor.wait("told", WAIT)
    assert outcome is not None
    assert "succeeded" == outcome.status
    wait_for(lambda: executor.get_status("told") == "succeeded", "the job's end")
    executor.shutdown()


@pytest.mark.slow
def test_its_jobs_say_themselves_when_they_begin(job_kernel: Kernel, actions: str) -> None:
    executor = RayJobExecutor(job_kernel)
    job = executor.submit(task_of(job_kernel, actions, "nothing", "queued"), lambda _: None)
    assert isinstance(job, QueuedJob)
    job.wait_started()
    assert job.wait(WAIT) is not None
    executor.shutdown()


@pytest.mark.slow
def test_an_attempt_is_not_submitted_twice(head: Head, job_kernel: Kernel, actions: str) -> None:
    executor = RayJobExecutor(job_kernel)
    task = task_of(job_kernel, actions, "nothing", "twice")
    executor.submit(task, lambda _: None).wait(WAIT)
    with pytest.raises(JobExistsError) as caught:
        executor.submit(task, lambda _: None)
    expected = (
        f"The Ray cluster at {head.url} has a job synapse-twice-1 already\n"
        "  this attempt of the run was submitted before: attach to it, or run under another id"
    )
    assert expected == str(caught.value)
    executor.shutdown()


def test_a_run_that_the_cluster_does_not_know_is_told(head: Head, job_kernel: Kernel) -> None:
    executor = RayJobExecutor(job_kernel)
    expected = (
        f"The Ray cluster at {head.url} has no job of run nobody\n"
        "  its jobs are listed by: ray job list; a cluster that was started anew knows no earlier ones"
    )
    for ask in (executor.get_status, lambda run_id: executor.attach(run_id, 1, 0, lambda _: None)):
        with pytest.raises(JobNotFoundError) as caught:
            ask("nobody")
        assert expected == str(caught.value)


def test_an_address_where_nobody_listens_is_told(actions: str) -> None:
    (port,) = free_ports(1)
    with Kernel({"ray": {"address": f"http://127.0.0.1:{port}"}}, strict=True) as kernel:
        error = Ran(kernel, actions, "nothing").end().error
    assert error is not None
    assert ("ClusterError", "executor") == (error.type, error.kind)
    expected = (
        f"No Ray dashboard answers at http://127.0.0.1:{port}: Connection refused\n"
        "  start a cluster with: ray start --head\n"
        "  name the dashboard of another with: --set ray.address=http://HOST:8265"
    )
    assert expected == error.message


def test_a_machine_that_does_not_answer_is_told_in_time(actions: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Kernel({"ray": {"address": url, "connect_timeout": 0.3}}, strict=True) as kernel:
            error = Ran(kernel, actions, "nothing").end().error
    assert error is not None
    assert f"No Ray dashboard answers at {url}: no answer within 0.3 s" == error.message.splitlines()[0]


def test_a_server_that_is_no_dashboard_is_told(actions: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Kernel({"ray": {"address": url}}, strict=True) as kernel:
            error = Ran(kernel, actions, "nothing").end().error
        server.shutdown()
    assert error is not None
    expected = (
        f"What answers at {url} is no Ray dashboard that takes jobs: its answer is not JSON\n"
        "  give the URL that `ray start --head` prints for the dashboard; its machine needs ray[default]"
    )
    assert expected == error.message


@pytest.mark.parametrize(
    ("token", "said"),
    # Without one of its own, Ray may still know that of another test's cluster.
    [
        ("0123456789abcdef0123456789abcdef", {"refuses the token"}),
        (None, {"asks for a token", "refuses the token"}),
    ],
)
def test_a_wrong_or_missing_token_is_told(
    head: Head, actions: str, tmp_path: Path, token: str | None, said: set[str]
) -> None:
    section: dict[str, object] = {"address": head.url}
    if token is not None:
        (tmp_path / "token").write_text(token)
        section["token_path"] = str(tmp_path / "token")
    with Kernel({"ray": section}, strict=True) as kernel:
        error = Ran(kernel, actions, "nothing").end().error
    assert error is not None
    first, second = error.message.splitlines()
    assert first.removeprefix(f"The Ray cluster at {head.url} ") in said
    assert "  name the file that holds it with: --set ray.token_path=FILE" == second


@pytest.mark.slow
def test_an_environment_that_cannot_be_built_ends_with_the_installers_words(
    job_kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    folder = make_folder({"actions.py": ACTIONS, "requirements.txt": "no-such-package-7391==1\n"})
    (folder / "config.yaml").write_text(
        "name: broken\nactions:\n  nothing: {entrypoint: 'actions:nothing'}\n", encoding="utf-8"
    )
    error = Ran(job_kernel, str(folder), "nothing").end().error
    assert error is not None
    assert ("RuntimeEnvFailed", "executor") == (error.type, error.kind)
    assert "no-such-package-7391" in error.output


@pytest.mark.slow
def test_a_head_that_is_gone_ends_the_run_in_time(actions: str, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rk"))
    process, head = start_head(folder)
    try:
        section = {"address": head.url, "token_path": str(head.token), "connect_timeout": 10}
        with Kernel({"ray": section}, strict=True) as kernel:
            ran = Ran(kernel, actions, "await_file", {"file": str(tmp_path / "never")})
            pid = int(str(ran.await_event("begun").data["pid"]))
            end_head(process)
            error = ran.end().error
    finally:
        end_head(process)
        shutil.rmtree(folder, ignore_errors=True)
    assert error is not None
    assert ("ClusterLost", "executor") == (error.type, error.kind)
    assert f"No Ray dashboard answers at {head.url}: Connection refused" == error.message.splitlines()[0]
    last = f"  the job synapse-{ran.run.run_id}-1 may go on there"
    assert last == error.message.splitlines()[-1]
    assert 1 == len(ran.named("begun"))
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the action's process")
