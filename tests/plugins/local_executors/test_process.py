"""The executor `process`: whatever happens to the worker process is an outcome, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from synapse_kernel import (
    BaseAction,
    EntrypointError,
    Event,
    Kernel,
    Log,
    Message,
    UsageError,
)
from synapse_kernel.testing import RecordedSink

WAIT = 120
# What a process needs to find its programs, libraries and places.
BASE = """
    PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR TEMP TMP VIRTUAL_ENV
    PYTHONHOME PYTHONPATH PYTHONHASHSEED PYTHONUNBUFFERED LD_LIBRARY_PATH DYLD_LIBRARY_PATH
    SSL_CERT_FILE SSL_CERT_DIR CUDA_VISIBLE_DEVICES SYNAPSE_HOME
    XDG_STATE_HOME XDG_CONFIG_HOME XDG_CACHE_HOME SYSTEMROOT
"""

ACTIONS = r'''
    import ctypes
    import os
    import signal
    import subprocess
    import sys
    import time

    from pydantic import BaseModel, Field

    from synapse_kernel import action


    def die(how):
        if how == "exit":
            os._exit(7)
        if how == "exit-0":
            os._exit(0)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "abort":
            os.abort()
        if how == "fd":
            os.closerange(3, 256)


    @action
    def crash(params, ctx):
        print("about to", params["how"])
        ctx.log_message("said before")
        ctx.end_log()
        die(params["how"])


    @action
    def crash_after_much(params, ctx):
        for number in range(200):
            print("line", number)
        print("without an end", end="")
        sys.stdout.flush()
        os._exit(1)


    @action
    def return_a_lock(params, ctx):
        import threading

        return {"fine": [1, {"deep": threading.Lock()}]}


    class Renamed(BaseModel):
        value: int = Field(serialization_alias="the value")


    @action
    def return_what_does_not_read_back(params, ctx) -> Renamed:
        return Renamed(value=3)


    @action
    def return_much(params, ctx):
        return {"text": "x" * 20_000_000, "list": list(range(200_000))}


    @action
    def take_much(params, ctx):
        return len(params["text"])


    @action
    def say_much(params, ctx):
        for number in range(params["count"]):
            ctx.log("n", {"n": number})


    @action
    def print_much(params, ctx):
        for number in range(params["count"]):
            print(number)
        print("end", end="")


    @action
    def print_oddly(params, ctx):
        print("café 😀")
        print("to the other", file=sys.stderr)
        os.write(1, b"caf\xc3\xa9 \xff\xfe\r\n")
        os.write(1, b"no end")
        ctx.log_message("a file named \udcff")


    @action
    def tell_secrets(params, ctx):
        secret = ctx.env["API_KEY"]
        ctx.log("login", {"note": f"key is {secret}", "password": "other"})
        ctx.log_message(f"using {secret} and {params['token']}")
        print("printed", os.environ["API_KEY"])
        print("failed with", params["token"], file=sys.stderr)
        if params["crash"]:
            os._exit(3)
        raise ValueError(f"rejected: {secret}")


    @action
    def environment(params, ctx):
        return dict(os.environ)


    @action
    def read_stdin(params, ctx):
        return sys.stdin.read()


    @action
    def start_another(params, ctx):
        """Start a process, say its id, and wait or go."""
        code = params.get("code", "import time; time.sleep(3600)")
        other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
        ctx.log("started", {"mine": os.getpid(), "other": other.pid})
        ctx.end_log()
        while params["wait"]:
            time.sleep(3600)
        os.set_blocking(1, True)


    @action
    def ignore_everything(params, ctx):
        """A worker that no polite request reaches."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctx.log("started", {"mine": os.getpid(), "other": os.getpid()})
        ctx.end_log()
        while True:
            time.sleep(3600)
'''

LOADS_ONCE = """
    import os

    from synapse_kernel import action

    if "OF_THE_CALLER" not in os.environ:
        raise RuntimeError("this module needs OF_THE_CALLER")


    @action
    def run(params, ctx):
        return 1
"""


class Keep(RecordedSink):
    """Tells what was printed."""

    @property
    def output(self) -> list[tuple[str, str]]:
        return [
            (str(e.data["stream"]), str(e.data["text"]))
            for e in self.events
            if isinstance(e, Log) and e.event == "output"
        ]


@pytest.fixture
def target(make_folder: Callable[..., Path]) -> Path:
    """Return a Python file with the actions above."""
    return make_folder({"actions.py": ACTIONS}) / "actions.py"


@pytest.fixture
def quick() -> Iterator[Kernel]:
    """Return a kernel that retries at once and gives no grace worth speaking of."""
    with Kernel({"retry": {"initial": 0.001, "maximum": 0.001}, "grace": 0.1}, strict=True) as kernel:
        yield kernel


def is_gone(pid: int) -> bool:
    """Wait until a process is no more, or is dead and only waits to be collected."""
    for _ in range(WAIT * 20):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


CRASHES = [
    ("exit", "the worker process exited with code 7 before the action ended"),
    ("exit-0", "the worker process exited with code 0 before the action ended"),
    ("segfault", "the worker process was killed by SIGSEGV"),
    ("kill", "the worker process was killed by SIGKILL, as the system does when memory runs out"),
    ("abort", "the worker process was killed by SIGABRT"),
]


@pytest.mark.parametrize(("how", "why"), CRASHES)
def test_a_crash_is_a_failed_outcome_that_says_so_with_the_last_output(
    quick: Kernel, target: Path, how: str, why: str
):
    sink = Keep()

    outcome = quick.run(target, "crash", {"how": how}, executor="process", sinks=[sink])

    assert outcome.error is not None
    assert ("failed", "ProcessCrashed", why, "crash") == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
    )
    assert f"about to {how}" == outcome.error.output.splitlines()[0]
    assert ["said before"] == [e.text for e in sink.events if isinstance(e, Message)]
    assert ["pending", "running", "failed"] == sink.states
    assert [outcome] == sink.outcomes


def test_a_worker_that_loses_its_line_to_the_kernel_is_a_crash(quick: Kernel, target: Path):
    outcome = quick.run(target, "crash", {"how": "fd"}, executor="process")

    assert outcome.error is not None
    assert ("failed", "crash") == (outcome.status, outcome.error.kind)


def test_of_much_output_the_last_lines_are_kept(quick: Kernel, target: Path):
    error = quick.run(target, "crash_after_much", executor="process").error

    assert error is not None
    assert [*(f"line {n}" for n in range(181, 200)), "without an end"] == error.output.splitlines()


def test_a_crash_is_retried(quick: Kernel, target: Path):
    sink = Keep()

    outcome = quick.run(target, "crash", {"how": "exit"}, executor="process", retries=1, sinks=[sink])

    assert ("failed", 2) == (outcome.status, outcome.attempts)
    assert ["pending", "running", "retrying", "running", "failed"] == sink.states
    assert list(range(1, len(sink.events) + 1)) == [e.seq for e in sink.events]


def test_a_result_that_is_not_json_fails_with_where_and_what_to_do(quick: Kernel, target: Path):
    error = quick.run(target, "return_a_lock", executor="process", retries=2).error

    assert error is not None
    assert "result" == error.kind
    assert (
        "The result is not JSON: it['fine'][1]['deep'] is of type lock\n"
        "  return numbers, text, lists, mappings or a pydantic model; write the rest to a file in\n"
        "  ctx.work_dir and return its path, or run with the executor 'local', where any object may pass"
    ) == error.message


def test_a_result_whose_json_does_not_read_back_stays_plain_with_a_warning(quick: Kernel, target: Path):
    outcome = quick.run(target, "return_what_does_not_read_back", executor="process")

    assert ("succeeded", {"the value": 3}) == (outcome.status, outcome.result)
    assert [
        "the result of 'return_what_does_not_read_back' stays plain data, its JSON does not fit its model: "
        "value: field required"
    ] == outcome.warnings


def test_large_params_and_results_pass(quick: Kernel, target: Path):
    result: Any = quick.run(target, "return_much", executor="process").unwrap()
    assert (20_000_000, 200_000) == (len(result["text"]), len(result["list"]))

    assert 5_000_000 == quick.run(target, "take_much", {"text": "y" * 5_000_000}, executor="process").result


def test_many_events_arrive_all_and_in_order(quick: Kernel, target: Path):
    sink = Keep()

    outcome = quick.run(target, "say_much", {"count": 100_000}, executor="process", sinks=[sink])

    assert outcome.ok
    assert list(range(100_000)) == [e.data["n"] for e in sink.events if isinstance(e, Log)]
    assert list(range(1, 100_004)) == [e.seq for e in sink.events]


def test_printed_lines_become_events_in_order(quick: Kernel, target: Path):
    sink = Keep()

    quick.run(target, "print_much", {"count": 50_000}, executor="process", sinks=[sink])

    assert [*(("stdout", str(n)) for n in range(50_000)), ("stdout", "end")] == sink.output
    assert ["pending", "running", "succeeded"] == sink.states


def test_odd_text_is_kept_as_far_as_it_is_text(quick: Kernel, target: Path):
    sink = Keep()

    outcome = quick.run(target, "print_oddly", executor="process", sinks=[sink])

    assert outcome.ok
    assert ["café 😀", "café \ufffd\ufffd", "no end"] == [t for s, t in sink.output if s == "stdout"]
    assert ["to the other"] == [t for s, t in sink.output if s == "stderr"]
    assert [r"a file named \udcff"] == [e.text for e in sink.events if isinstance(e, Message)]


@pytest.mark.parametrize("crash", [False, True], ids=["raises", "crashes"])
def test_secrets_reach_neither_events_nor_the_output_of_a_crash(quick: Kernel, target: Path, crash: bool):
    sink = Keep()

    outcome = quick.run(
        target,
        "tell_secrets",
        {"token": "tok-98765", "crash": crash},
        env={"API_KEY": "sk-12345"},
        executor="process",
        sinks=[sink],
    )

    assert outcome.error is not None
    assert "failed" == outcome.status
    told = repr([(e, getattr(e, "data", None)) for e in sink.events]) + outcome.error.output
    assert "***" in told
    assert [] == [secret for secret in ("sk-12345", "tok-98765", "other") if secret in told]
    assert {("stdout", "printed ***"), ("stderr", "failed with ***")} == set(sink.output)


def test_the_worker_has_the_named_variables_and_the_base_alone(
    quick: Kernel, target: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OF_THE_CALLER", "unnamed")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unnamed")
    monkeypatch.setenv("NAMED", "yes")
    monkeypatch.setenv("LC_MESSAGES", "C")

    found: Any = quick.run(target, "environment", env=["NAMED"], executor="process").unwrap()

    assert "yes" == found["NAMED"]
    assert os.environ["PATH"] == found["PATH"]
    others = {name for name in found if name not in BASE.split() and not name.startswith(("LC_", "RAY_"))}
    assert {"NAMED"} == others


def test_the_worker_knows_the_cluster_that_it_is_part_of_but_not_its_token(
    quick: Kernel, target: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "unnamed")

    found: Any = quick.run(target, "environment", executor="process").unwrap()

    assert "head:6379" == found["RAY_ADDRESS"]
    assert "RAY_AUTH_TOKEN" not in found


def test_stdin_of_an_action_is_empty(quick: Kernel, target: Path):
    assert "" == quick.run(target, "read_stdin", executor="process", timeout=WAIT).result


def started(stream: Iterator[Event]) -> dict[str, int]:
    """Wait for the event that names the worker's process and the one it started."""
    data: Any = next(e for e in stream if isinstance(e, Log) and e.event == "started").data
    return dict(data)


def test_cancel_ends_the_worker_and_all_it_started(quick: Kernel, target: Path):
    run = quick.submit(target, "start_another", {"wait": True}, executor="process")
    pids = started(iter(run.events()))

    run.cancel()

    assert "cancelled" == run.result(WAIT).status
    assert [True, True] == [is_gone(pids["mine"]), is_gone(pids["other"])]


def test_a_time_out_ends_the_worker_and_all_it_started(quick: Kernel, target: Path):
    run = quick.submit(target, "start_another", {"wait": True}, executor="process", timeout=2)
    pids = started(iter(run.events()))

    assert "timed_out" == run.result(WAIT).status
    assert [True, True] == [is_gone(pids["mine"]), is_gone(pids["other"])]


def test_a_worker_that_ignores_signals_is_killed(quick: Kernel, target: Path):
    run = quick.submit(target, "ignore_everything", executor="process")
    pids = started(iter(run.events()))

    run.cancel()

    assert "cancelled" == run.result(WAIT).status
    assert is_gone(pids["mine"])


def test_what_an_action_leaves_running_goes_with_it(quick: Kernel, target: Path):
    run = quick.submit(target, "start_another", {"wait": False}, executor="process")
    pids = started(iter(run.events()))

    assert "succeeded" == run.result(WAIT).status
    assert is_gone(pids["other"])


def test_a_daemon_that_goes_on_printing_does_not_hold_the_run(quick: Kernel, target: Path):
    """It left the process group, so it is not killed; its pipes are not waited for either."""
    code = "import os\nos.setsid()\nwhile os.getppid(): os.write(1, b'still here' + b'.' * 500 + b'\\n')"
    run = quick.submit(target, "start_another", {"wait": False, "code": code}, executor="process")
    pids = started(iter(run.events()))

    assert "succeeded" == run.result(WAIT).status
    assert is_gone(pids["other"])  # of its own accord: nobody reads its pipe any more


def test_shutdown_of_the_kernel_ends_the_worker(target: Path):
    kernel = Kernel(strict=True)
    run = kernel.submit(target, "start_another", {"wait": True}, executor="process")
    pids = started(iter(run.events()))

    kernel.shutdown()

    assert "cancelled" == run.status
    assert [True, True] == [is_gone(pids["mine"]), is_gone(pids["other"])]


def test_nothing_is_orphaned_when_the_kernel_is_killed(target: Path, tmp_path: Path):
    script = tmp_path / "embedding.py"
    script.write_text(
        "import sys\n"
        "from synapse_kernel import Kernel, Log\n"
        "run = Kernel().submit(sys.argv[1], 'start_another', {'wait': True}, executor='process')\n"
        "for event in run.events():\n"
        "    if isinstance(event, Log):\n"
        "        print(event.data['mine'], event.data['other'], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, script, target], stdout=subprocess.PIPE, text=True) as embedding:
        assert embedding.stdout is not None
        mine, other = (int(pid) for pid in embedding.stdout.readline().split())
        assert psutil.pid_exists(mine)

        os.kill(embedding.pid, signal.SIGKILL)

        assert [True, True] == [is_gone(mine), is_gone(other)]


def test_a_module_that_does_not_load_in_the_worker_is_not_retried(
    quick: Kernel, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OF_THE_CALLER", "is not passed on")
    folder = make_folder({"once.py": LOADS_ONCE})

    outcome = quick.run(folder / "once.py", "run", executor="process", retries=3)

    assert outcome.error is not None
    assert ("failed", "RuntimeError", "this module needs OF_THE_CALLER", "load", 1) == (
        outcome.status,
        outcome.error.type,
        outcome.error.message,
        outcome.error.kind,
        outcome.attempts,
    )


def test_a_process_that_cannot_be_started_fails_the_run(quick: Kernel, target: Path):
    outcome = quick.run(target, "environment", env={"BAD": "a\0b"}, executor="process")

    assert outcome.error is not None
    assert ("failed", "ValueError", "executor") == (outcome.status, outcome.error.type, outcome.error.kind)


def test_an_action_defined_inside_a_function_says_what_to_do(quick: Kernel):
    class Inner(BaseAction[dict[str, Any]]):
        def execute(self) -> int:
            return 1

    with pytest.raises(EntrypointError) as raised:
        quick.run(Inner, executor="process")

    where = f"{Inner.__module__}:{Inner.__qualname__}"
    assert (
        f"{where} is defined inside a function, where another process cannot find it\n"
        "  move it to the top level of its module, or run it with the executor 'local'"
    ) == str(raised.value)


def test_params_that_are_not_json_are_refused_with_where(quick: Kernel, target: Path):
    with pytest.raises(UsageError) as raised:
        quick.run(target, "environment", {"deep": [object()]}, executor="process")

    assert (
        "The params are not JSON: params['deep'][0] is of type object\n"
        "  another process takes numbers, text, lists, mappings and models; "
        "or run it with the executor 'local'"
    ) == str(raised.value)


SCRIPT = """
import sys
from synapse_kernel import BaseAction, Kernel, action


class Count(BaseAction):
    def execute(self):
        return {"name": __name__, "sum": sum(self.params["of"])}


@action
def shout(params, ctx):
    return params["word"].upper()


if __name__ == "__main__":
    with Kernel(strict=True) as kernel:
        print(kernel.run(Count, params={"of": [1, 2, 3]}, executor="process").unwrap()["sum"])
        print(kernel.run(shout, params={"word": "hey"}, executor="process").unwrap())
"""


@pytest.mark.parametrize("name", ["script.py", "my-script.py"])
def test_an_action_in_the_script_that_is_run_works(tmp_path: Path, name: str):
    script = tmp_path / name
    script.write_text(SCRIPT)

    shown = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=WAIT, check=False
    )

    assert ("6\nHEY\n", "") == (shown.stdout, shown.stderr)


def test_an_action_of_an_interactive_session_says_what_to_do():
    code = (
        "from synapse_kernel import Kernel, action\n"
        "@action\n"
        "def shout(params, ctx): ...\n"
        "try:\n"
        "    Kernel().run(shout, executor='process')\n"
        "except Exception as error:\n"
        "    print(error)"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=True
    )

    assert (
        "__main__:shout is defined in an interactive session, which another process cannot see\n"
        "  write it to a file, or run it with the executor 'local'\n"
    ) == shown.stdout


def test_what_was_said_right_before_a_crash_arrives(kernel: Kernel, make_folder: Callable[..., Path]):
    folder = make_folder(
        {
            "main.py": """
                import os
                from synapse_kernel import action

                @action
                def die(params, ctx):
                    for number in range(100):
                        ctx.log("step", {"number": number})
                        ctx.set_metrics({"number": number})
                    os._exit(3)
            """
        }
    )
    run = kernel.submit(str(folder), "die", executor="process")
    assert "failed" == run.result(60).status
    kinds = [type(event).__name__ for event in run.events()]
    assert (100, 100) == (kinds.count("Log"), kinds.count("Metrics"))
