"""What becomes of a run when something dies: on a real cluster, with all that was said before."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.contracts import Outcome, Resources
from synapse_kernel.events import FINAL_STATUSES, Log, Message, State
from synapse_kernel.handles import Run
from synapse_kernel.testing import RecordedSink
from synapse_plugins.ray_executors.connection import ClusterError

WAIT = 90
QUICK: dict[str, object] = {"retry": {"initial": 0.001, "maximum": 0.001}, "grace": 0.3}

ACTIONS = """
    import ctypes
    import os
    import signal
    import sys
    import time

    from synapse_kernel import action

    BIG = "x" * 1000


    @action
    def nothing(params, ctx):
        ctx.log("here", {"pid": os.getpid()})


    @action
    def fail_oddly(params, ctx):
        from odd import Odd

        ctx.log("said", {"n": 0})
        raise Odd("salt", pepper=2)


    @action
    def return_what_is_no_json(params, ctx):
        ctx.log("said", {"n": 0})
        return {"worker": ctx}


    @action
    def die_at_start(params, ctx):
        os.kill(os.getpid(), signal.SIGKILL)


    @action
    def die_midway(params, ctx):
        for number in range(params["count"]):
            ctx.log("said", {"n": number, "text": BIG})
        os.kill(os.getpid(), signal.SIGKILL)


    @action
    def die_once(params, ctx):
        ctx.log("said", {"n": ctx.attempt})
        if ctx.attempt < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return ctx.attempt


    @action
    def exit_hard(params, ctx):
        ctx.log("said", {"n": 0})
        os._exit(7)


    @action
    def segfault(params, ctx):
        ctx.log("said", {"n": 0})
        ctypes.string_at(0)


    @action
    def linger(params, ctx):
        ctx.log("said", {"n": 0})
        ctx.log("here", {"pid": os.getpid()})
        while True:
            time.sleep(0.05)


    @action
    def block(params, ctx):
        ctx.log("here", {"pid": os.getpid()})
        time.sleep(600)


    @action
    def hold(params, ctx):
        ctx.log("here", {"pid": os.getpid()})
        # Long enough for it to be heard: no other thread runs while C has the lock.
        time.sleep(0.5)
        ctypes.PyDLL(None).sleep(600)


    @action
    def pause(params, ctx):
        ctx.log("here", {"pid": os.getpid()})
        time.sleep(params["seconds"])


    @action
    def end_and_die(params, ctx):
        import threading

        def die():
            time.sleep(params["seconds"])
            os.kill(os.getpid(), signal.SIGKILL)

        # First: with no time at all, the thread may be done before it is said to have started.
        ctx.log("said", {"n": 0})
        threading.Thread(target=die).start()
        return "done"


    @action
    def flood(params, ctx):
        import threading

        def talk():
            while not stopped:
                ctx.log("noise", {"text": BIG})

        stopped = []
        threads = [threading.Thread(target=talk, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        return "done"
"""


# Its constructor takes more than its text: who unpickles it needs the class.
ODD = """
    class Odd(Exception):
        def __init__(self, text, *, pepper):
            super().__init__(f"{text}, and pepper {pepper}")
"""


class Watched:
    """A run and what its sink heard; each wait is bounded."""

    def __init__(self, kernel: Kernel, folder: Path, action: str, params: object, **options: object) -> None:
        self.sink = RecordedSink()
        self.run: Run = kernel.submit(str(folder), action, params, sinks=[self.sink], **options)  # type: ignore[arg-type]

    def end(self) -> Outcome:
        """Wait for the outcome, and see that the run has one final state and one numbering."""
        outcome = self.run.result(WAIT)
        assert list(range(1, len(self.sink.events) + 1)) == [event.seq for event in self.sink.events]
        assert [outcome.status] == [state for state in self.sink.states if state in FINAL_STATUSES]
        assert self.sink.states[-1] == outcome.status
        return outcome

    def logged(self, name: str) -> list[Mapping[str, object]]:
        """Return the data of the logs of one name."""
        return [event.data for event in self.sink.of(Log) if event.event == name]

    @property
    def numbers(self) -> list[object]:
        """What the action counted."""
        return [data["n"] for data in self.logged("said")]

    @property
    def stages(self) -> list[tuple[str, int]]:
        """The states it went through, but for why it had to wait."""
        states = self.sink.of(State)
        return [(each.state, each.attempt) for each in states if each.state != "pending" or not each.detail]

    def worker(self) -> int:
        """Wait until the action has said in which process it is."""
        wait_for(lambda: bool(self.logged("here")))
        return int(str(self.logged("here")[0]["pid"]))

    def pending(self) -> str:
        """Wait until it is told why the run has to wait, for more than a worker's start."""

        def reasons() -> list[str]:
            told = [each.detail for each in self.sink.of(State) if each.state == "pending" and each.detail]
            return [text for text in told if text != "waiting for a worker to start"]

        wait_for(lambda: bool(reasons()))
        return reasons()[0]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(params=["ray-task", "ray-actor"])
def executor(request: pytest.FixtureRequest) -> str:
    """Return the name of each executor in turn."""
    return str(request.param)


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with the actions above."""
    return make_folder({"actions.py": ACTIONS, "odd.py": ODD})


@pytest.fixture
def start(ray_kernel: Callable[..., Kernel], folder: Path) -> Callable[..., Watched]:
    """Return a function that submits a run of an action."""
    kernel = ray_kernel(QUICK)

    def submit(action: str, params: object = None, **options: object) -> Watched:
        return Watched(kernel, folder, action, params, **options)

    return submit


# Workers that die.


@pytest.mark.parametrize(("action", "said"), [("die_at_start", []), ("exit_hard", [0]), ("segfault", [0])])
def test_a_worker_that_dies_fails_its_run_with_all_that_was_said(
    start: Callable[..., Watched], executor: str, action: str, said: list[int]
):
    run = start(action, executor=executor)

    error = run.end().error

    assert error is not None
    assert ("crash", "WorkerCrashed") == (error.kind, error.type)
    assert error.message.startswith("the worker process ended before the action did")
    assert said == run.numbers
    assert [("pending", 1), ("running", 1), ("failed", 1)] == run.stages


@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.slow), 500, pytest.param(20_000, marks=pytest.mark.slow)]
)
def test_every_event_before_a_kill_arrives(start: Callable[..., Watched], executor: str, count: int):
    run = start("die_midway", {"count": count}, executor=executor)

    error = run.end().error

    assert error is not None
    assert "WorkerCrashed" == error.type
    assert list(range(count)) == run.numbers


def test_a_worker_that_another_process_kills_fails_its_run(start: Callable[..., Watched], executor: str):
    run = start("linger", executor=executor)

    os.kill(run.worker(), signal.SIGKILL)

    error = run.end().error
    assert error is not None
    assert ("crash", "WorkerCrashed") == (error.kind, error.type)
    assert [0] == run.numbers


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.002, 0.02])
def test_a_worker_that_dies_as_its_action_ends_gives_one_outcome(
    start: Callable[..., Watched], executor: str, seconds: float
):
    run = start("end_and_die", {"seconds": seconds}, executor=executor)

    outcome = run.end()

    assert outcome.status in {"succeeded", "failed"}
    assert outcome.status == "succeeded" or (outcome.error and outcome.error.type == "WorkerCrashed")
    assert [0] == run.numbers
    # It may have begun on the worker that dies: then that is a crash, and its own.
    assert start("nothing", executor=executor, retries=1).end().ok


def test_a_crash_is_retried_and_the_attempts_do_not_mix(start: Callable[..., Watched], executor: str):
    run = start("die_once", executor=executor, retries=3)

    outcome = run.end()

    assert (3, 3) == (outcome.result, outcome.attempts)
    assert [1, 2, 3] == run.numbers
    assert [
        ("pending", 1),
        ("running", 1),
        ("retrying", 1),
        ("running", 2),
        ("retrying", 2),
        ("running", 3),
        ("succeeded", 3),
    ] == run.stages


@pytest.mark.slow
def test_threads_that_go_on_talking_do_not_keep_a_run_from_its_end(
    start: Callable[..., Watched], executor: str
):
    assert "done" == start("flood", executor=executor).end().result
    assert start("nothing", executor=executor).end().ok


# What cannot travel.


def test_an_exception_of_a_module_that_is_not_here_is_told_in_words(
    start: Callable[..., Watched], executor: str
):
    run = start("fail_oddly", executor=executor)

    error = run.end().error

    assert "odd" not in sys.modules
    assert error is not None
    assert ("action", "Odd", "salt, and pepper 2") == (error.kind, error.type, error.message)
    assert 'raise Odd("salt", pepper=2)' in error.traceback
    assert [0] == run.numbers


def test_a_result_that_is_no_json_fails_its_run_and_not_its_worker(
    start: Callable[..., Watched], executor: str
):
    run = start("return_what_is_no_json", executor=executor)

    error = run.end().error

    assert error is not None
    assert ("result", "ResultError") == (error.kind, error.type)
    assert error.message.startswith("The result is not JSON: it['worker'] is of type RuntimeContext\n")
    assert [0] == run.numbers
    assert start("nothing", executor=executor).end().ok


# Warm actors.


def test_an_actor_that_died_while_idle_costs_no_run(start: Callable[..., Watched]):
    first = start("nothing", executor="ray-actor")
    assert first.end().ok
    os.kill(first.worker(), signal.SIGKILL)

    after = [start("nothing", executor="ray-actor") for _ in range(3)]

    assert ["succeeded"] * 3 == [run.end().status for run in after]
    assert all([("pending", 1), ("running", 1), ("succeeded", 1)] == run.stages for run in after)


def test_a_pool_whose_actor_was_killed_is_refilled(start: Callable[..., Watched]):
    run = start("linger", executor="ray-actor")
    killed = run.worker()
    os.kill(killed, signal.SIGKILL)
    assert "failed" == run.end().status

    after = start("nothing", executor="ray-actor")

    assert after.end().ok
    assert killed != after.worker()


@pytest.mark.slow
def test_no_more_actors_than_allowed_are_made(ray_kernel: Callable[..., Kernel], folder: Path):
    kernel = ray_kernel(QUICK, max_workers=1)

    runs = [Watched(kernel, folder, "nothing", None, executor="ray-actor") for _ in range(5)]

    assert all(run.end().ok for run in runs)
    assert 1 == len({run.worker() for run in runs})


@pytest.mark.slow
def test_an_actor_that_was_idle_for_long_goes(
    ray_kernel: Callable[..., Kernel], folder: Path, pid_is_gone: Callable[[int], bool]
):
    run = Watched(ray_kernel(QUICK, idle_timeout=0.2), folder, "nothing", None, executor="ray-actor")
    assert run.end().ok

    wait_for(lambda: pid_is_gone(run.worker()))


@pytest.mark.slow
def test_an_idle_actor_gives_way_to_a_run_that_needs_its_cpus(
    ray_kernel: Callable[..., Kernel], folder: Path
):
    kernel = ray_kernel(QUICK)
    both = Resources(cpus=2)
    assert Watched(kernel, folder, "nothing", None, executor="ray-actor", resources=both).end().ok

    assert Watched(kernel, folder, "nothing", None, executor="ray-task", resources=both).end().ok


# Stops.


@pytest.mark.parametrize("action", ["block", pytest.param("hold", marks=pytest.mark.slow)])
def test_a_call_that_nothing_interrupts_ends_with_its_worker(
    start: Callable[..., Watched], executor: str, action: str, pid_is_gone: Callable[[int], bool]
):
    run = start(action, executor=executor)
    worker = run.worker()

    run.run.cancel()

    assert "cancelled" == run.end().status
    wait_for(lambda: pid_is_gone(worker))
    assert start("nothing", executor=executor).end().ok


@pytest.mark.slow
def test_a_time_out_counts_from_the_start_and_not_while_a_run_waits(
    start: Callable[..., Watched], executor: str
):
    first = start("pause", {"seconds": 3}, executor=executor, resources=Resources(cpus=2))
    first.worker()

    second = start("pause", {"seconds": 0}, executor=executor, resources=Resources(cpus=2), timeout=2)

    assert "waiting for 2 CPUs: 2 of 2 in use" == second.pending() or executor == "ray-actor"
    assert ["succeeded", "succeeded"] == [first.end().status, second.end().status]


def test_a_run_that_waits_can_be_cancelled(start: Callable[..., Watched], executor: str):
    first = start("linger", executor="ray-task", resources=Resources(cpus=2))
    first.worker()
    second = start("linger", executor=executor)
    assert "waiting for 1 CPU: 2 of 2 in use" == second.pending()

    second.run.cancel()

    assert "cancelled" == second.end().status
    assert not first.run.done
    first.run.cancel()
    assert "cancelled" == first.end().status
    assert [] == second.logged("here")


# Resources and environments.


def test_what_no_node_has_fails_at_once_with_what_there_is(start: Callable[..., Watched], executor: str):
    with pytest.raises(ClusterError) as caught:
        raise_or_end(start("nothing", executor=executor, resources=Resources(cpus=64, custom={"tpu": 1})))

    lines = str(caught.value).splitlines()
    assert lines[0].startswith("The run can never start on the Ray cluster at ")
    assert lines[0].endswith(": it asks for 64 CPUs, 1 tpu, which no node of the cluster has")
    assert lines[1].startswith("  1 node has 2 CPUs, 0 tpu, ")
    assert "  ask for less, or set ray.autoscaling where nodes come when they are asked for" == lines[2]


def raise_or_end(run: Watched) -> None:
    outcome = run.end()
    assert outcome.error is not None
    raise ClusterError(outcome.error.message, address="")


def test_same_named_packages_of_two_folders_run_side_by_side(
    ray_kernel: Callable[..., Kernel], make_folder: Callable[..., Path], executor: str
):
    text = """
        import time

        from synapse_kernel import action

        from same.told import NAME

        @action
        def tell(params, ctx):
            time.sleep(0.2)
            from same import late
            return [NAME, late.NAME]
    """
    folders = [
        make_folder(
            {
                "actions.py": text,
                "same/__init__.py": "",
                "same/told.py": f"NAME = {name!r}",
                "same/late.py": f"NAME = 'late {name}'",
            },
            name,
        )
        for name in ("one", "two")
    ]
    kernel = ray_kernel(QUICK)

    runs = [Watched(kernel, folder, "tell", None, executor=executor) for folder in [*folders, *folders]]

    assert [["one", "late one"], ["two", "late two"]] * 2 == [run.end().result for run in runs]


@pytest.mark.slow
def test_an_environment_that_cannot_be_built_is_told_with_the_installers_last_lines(
    ray_kernel: Callable[..., Kernel], make_folder: Callable[..., Path], executor: str
):
    folder = make_folder({"actions.py": ACTIONS, "requirements.txt": "no-such-package-for-synapse==9.9\n"})
    kernel = ray_kernel(QUICK)

    error = Watched(kernel, folder, "nothing", None, executor=executor).end().error

    assert error is not None
    assert ("RuntimeEnvFailed", "executor", "the run's environment could not be set up on the cluster") == (
        error.type,
        error.kind,
        error.message,
    )
    assert "No matching distribution found for no-such-package-for-synapse==9.9" in error.output


@pytest.mark.slow
def test_ray_prints_nothing_of_its_own(
    start: Callable[..., Watched], executor: str, capfd: pytest.CaptureFixture[str]
):
    run = start("die_midway", {"count": 1}, executor=executor)
    run.end()
    # What Ray tells of it comes later, and by itself.
    time.sleep(2)

    assert ("", "") == tuple(capfd.readouterr())


def test_the_first_run_says_which_cluster_it_uses(start: Callable[..., Watched]):
    run = start("nothing", executor="ray-task")

    run.end()

    told = [event.text for event in run.sink.of(Message)]
    assert [] == [text for text in told if not text.startswith("started a Ray cluster for this process: ")]
