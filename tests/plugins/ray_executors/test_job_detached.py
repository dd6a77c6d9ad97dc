"""Runs that go on in a Ray cluster while the commands about them come and go, each a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from tests.plugins.ray_executors.heads import Head, end_head, start_head, wait_for

from synapse_kernel import Kernel, Message, State
from synapse_kernel.events import Event
from synapse_kernel.stores import RunRecord
from synapse_plugins.history.sqlite_store import SqliteStore
from synapse_plugins.ray_executors.job_api import JobsApi
from synapse_plugins.ray_executors.job_following import ClusterLostError
from synapse_plugins.ray_executors.settings import RaySettings

WAIT = 120
SECRET = "a-secret-7391"

TALK = """
    import sys
    import time
    from pathlib import Path

    from pydantic import BaseModel

    from synapse_kernel import action


    class Talk(BaseModel):
        gate: str = ""
        failed: str = ""
        token: str = ""


    class Said(BaseModel):
        words: int
        told: str


    @action
    def talk(params: Talk, ctx) -> Said:
        "Say some words, wait for the gate to open, say some more."
        for number in range(3):
            ctx.log_message(f"word {number}")
        print(params.token)
        if params.failed and not Path(params.failed).exists():
            Path(params.failed).touch()
            raise OSError(f"not yet {params.token}")
        ctx.log_message("begun")
        try:
            while params.gate and not Path(params.gate).exists():
                time.sleep(0.05)
                ctx.set_progress(1, 2)
        finally:
            ctx.log_message("over")
        for number in range(3):
            ctx.log_message(f"more {number}")
        return Said(words=6, told=params.token)
"""


class Desk:
    """A folder with the action ``talk.py``, where commands are typed."""

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.head = head
        self.started: list[subprocess.Popen[str]] = []
        self.store = SqliteStore("sqlite")

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "synapse_kernel", *args],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def call(self, *args: str) -> tuple[int, str, str]:
        """Run a command to its end."""
        process = self.start(*args)
        out, err = process.communicate(timeout=WAIT)
        return process.returncode, out, err

    def detach(self, *args: str) -> str:
        """Start a detached run and return its id."""
        code, out, err = self.call(
            "run", "talk.py", "talk", "--executor", "ray-job", "--detach", *args, "-p", f"gate={self.gate}"
        )
        assert 0 == code, err
        return out.strip()

    def record(self, run_id: str) -> RunRecord:
        record = self.store.get(run_id)
        assert record is not None
        return record

    def events(self, run_id: str) -> list[Event]:
        return [stored.event for stored in self.store.events(run_id)]

    def words(self, run_id: str) -> list[str]:
        return [event.text for event in self.events(run_id) if isinstance(event, Message)]

    def states(self, run_id: str) -> list[str]:
        return [event.state for event in self.events(run_id) if isinstance(event, State)]

    def await_word(self, run_id: str, word: str) -> None:
        wait_for(lambda: word in self.words(run_id), f"the word {word!r}")

    def await_status(self, job_id: str, status: str) -> None:
        api = JobsApi(self.head.url, RaySettings(token_path=str(self.head.token)))
        wait_for(lambda: (api.state(job_id) or api.states()[0]).status == status, f"the job's {status}")

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        self.gate.touch()
        self.store.close()


@pytest.fixture
def desk(head: Head, own_home: Path, make_folder: Callable[..., Path]) -> Iterator[Desk]:
    section = {"address": head.url, "token_path": str(head.token)}
    settings = {"ray": section, "grace": 5.0, "retry": {"initial": 0.05}}
    (own_home / "synapse.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with closing(Desk(make_folder({"talk.py": TALK}), head)) as made:
        yield made


def all_said(attempts: int = 1) -> list[str]:
    words = [f"word {number}" for number in range(3)]
    return [*(attempts * words), "begun", "over", *(f"more {number}" for number in range(3))]


def assert_whole(events: list[Event]) -> None:
    assert list(range(1, len(events) + 1)) == [event.seq for event in events]


def test_a_detached_run_is_seen_through_by_other_commands(desk: Desk) -> None:
    run_id = desk.detach("--json")
    run_id = json.loads(run_id)["run_id"]
    [listed] = json.loads(desk.call("runs", "list", "--json")[1])
    assert (run_id, None, True) == (listed["run_id"], listed["owner"], listed["detached"])

    watcher = desk.start("runs", "watch", run_id)
    desk.await_word(run_id, "begun")
    logs = desk.start("runs", "logs", run_id, "--follow", "--kind", "message")
    desk.gate.touch()
    out, err = watcher.communicate(timeout=WAIT)

    assert (0, {"words": 6, "told": ""}) == (watcher.returncode, json.loads(out))
    assert all_said() == [line for line in err.splitlines() if line in all_said()]
    assert (0, all_said()) == (logs.wait(WAIT), logs.communicate()[0].splitlines())
    shown = json.loads(desk.call("runs", "show", run_id, "--json")[1])
    assert ("succeeded", {"words": 6, "told": ""}) == (shown["status"], shown["result"])
    assert ["pending", "running", "succeeded"] == desk.states(run_id)
    assert_whole(desk.events(run_id))


@pytest.mark.slow
def test_a_run_whose_client_was_killed_goes_on_and_is_watched_to_its_end(desk: Desk) -> None:
    client = desk.start("run", "talk.py", "talk", "--executor", "ray-job", "-p", f"gate={desk.gate}")
    wait_for(desk.store.runs, "the run's record")
    [record] = desk.store.runs()
    desk.await_word(record.run_id, "begun")
    client.send_signal(signal.SIGKILL)
    client.wait(WAIT)

    [listed] = json.loads(desk.call("runs", "list", "--json")[1])
    assert ("running", True) == (listed["status"], listed["detached"])
    watcher = desk.start("runs", "watch", record.run_id)
    desk.gate.touch()
    out, _ = watcher.communicate(timeout=WAIT)

    assert (0, {"words": 6, "told": ""}) == (watcher.returncode, json.loads(out))
    assert all_said() == desk.words(record.run_id)
    assert ["pending", "pending", "running", "succeeded"] == desk.states(record.run_id)
    assert_whole(desk.events(record.run_id))


@pytest.mark.slow
def test_a_detached_run_is_cancelled_and_cleans_up(desk: Desk) -> None:
    run_id = desk.detach()
    watcher = desk.start("runs", "watch", run_id)
    desk.await_word(run_id, "begun")
    watcher.send_signal(signal.SIGKILL)
    watcher.wait(WAIT)

    assert (0, f"talk (run {run_id}): cancelled\n", "") == desk.call("runs", "cancel", run_id)

    assert "over" == desk.words(run_id)[-1]
    assert ["pending", "running", "cancelled"] == desk.states(run_id)
    assert_whole(desk.events(run_id))


@pytest.mark.slow
def test_a_request_to_stop_that_nobody_waits_for_reaches_the_job(desk: Desk) -> None:
    run_id = desk.detach()
    desk.await_status(f"synapse-{run_id}", "RUNNING")

    asked = desk.call("runs", "cancel", run_id, "--no-wait")

    assert (0, f"talk (run {run_id}): asked to stop\n", "") == asked
    desk.await_status(f"synapse-{run_id}", "STOPPED")
    code, _, err = desk.call("runs", "watch", run_id)
    assert (1, True) == (code, "RunCancelled: " in err), err


@pytest.mark.slow
def test_a_detached_run_makes_its_attempts_itself_and_is_found_again_in_the_second(desk: Desk) -> None:
    run_id = desk.detach("--retries", "1", "-p", f"failed={desk.folder / 'failed'}")
    first = desk.start("runs", "watch", run_id)
    desk.await_word(run_id, "begun")
    first.send_signal(signal.SIGKILL)
    first.wait(WAIT)
    assert 2 == desk.record(run_id).attempt
    desk.gate.touch()

    code, out, err = desk.call("runs", "watch", run_id)

    assert (0, {"words": 6, "told": ""}) == (code, json.loads(out)), err
    assert ["pending", "running", "retrying", "running", "succeeded"] == desk.states(run_id)
    assert all_said(attempts=2) == desk.words(run_id)
    assert_whole(desk.events(run_id))


@pytest.mark.slow
def test_the_time_out_of_a_detached_run_is_kept_there(desk: Desk) -> None:
    run_id = desk.detach("--timeout", "1")

    code, _, err = desk.call("runs", "watch", run_id)

    assert (1, "timed_out") == (code, desk.record(run_id).status)
    assert "Error: RunTimedOut: the run took longer than its 1 s\n" in err
    assert "begun" in desk.words(run_id)


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_secret_stays_one_whoever_sees_the_run_through(
    desk: Desk, own_home: Path, *, is_killed: bool, fails: bool
) -> None:
    params = ["-p", f"token={SECRET}"]
    params += ["-p", f"failed={desk.folder / 'failed'}"] if fails else []
    if is_killed:
        client = desk.start(
            "run", "talk.py", "talk", "--executor", "ray-job", *params, "-p", f"gate={desk.gate}"
        )
        wait_for(desk.store.runs, "the run's record")
        run_id = desk.store.runs()[0].run_id
        wait_for(lambda: "pending" in desk.states(run_id)[1:], "the submission")
        client.send_signal(signal.SIGKILL)
        client.wait(WAIT)
    else:
        run_id = desk.detach(*params)
    desk.gate.touch()

    code, out, err = desk.call("runs", "watch", run_id)
    shown = desk.call("runs", "show", run_id, "--json")[1]
    logs = desk.call("runs", "logs", run_id, "--json")[1]

    assert int(fails) == code, err
    assert ("OSError: not yet ***" in err) == fails
    assert ('"told": "***"' in out) != fails
    assert "***" in logs
    desk.store.close()
    files = [file for file in own_home.rglob("*") if file.is_file()]
    kept = "".join(file.read_bytes().decode("latin-1") for file in files)
    assert run_id in kept
    assert SECRET not in out + err + shown + logs + kept
    if not is_killed:
        api = JobsApi(desk.head.url, RaySettings(token_path=str(desk.head.token)))
        assert SECRET not in api.log(f"synapse-{run_id}")


@pytest.mark.slow
def test_a_detached_run_is_not_said_to_have_ended_when_the_cluster_is_lost_sight_of(
    desk: Desk, make_folder: Callable[..., Path]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rk"))
    process, head = start_head(folder)
    section = {"address": head.url, "token_path": str(head.token), "connect_timeout": 5}
    try:
        with Kernel({"ray": section, "store": "sqlite"}, strict=True) as kernel:
            target = str(desk.folder / "talk.py")
            run_id = kernel.detach(target, "talk", {"gate": str(desk.gate)}, executor="ray-job")
            handle = kernel.attach(run_id)
            desk.await_word(run_id, "begun")
            end_head(process)
            with pytest.raises(ClusterLostError) as caught:
                handle.result(WAIT)
    finally:
        end_head(process)
        shutil.rmtree(folder, ignore_errors=True)
    assert f"  the job synapse-{run_id} may go on there" == str(caught.value).splitlines()[-1]
    record = desk.record(run_id)
    assert ("running", True) == (record.status, record.detached)
    assert ["pending", "running"] == desk.states(run_id)
