"""`synapse-kernel run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_result_is_on_stdout_and_the_events_on_stderr(cli: Cli, greeter: Path) -> None:
    done = cli("run", greeter, "greet", "-p", "name=Ada")
    assert 0 == done.returncode
    printed, _, result = done.stdout.partition("\n")
    assert "printed by the action" == printed
    assert {"text": "Hello Ada Hello Ada", "length": 19} == json.loads(result)
    assert "words 1/1 (100 %)" in done.stderr
    assert "length=19" in done.stderr
    assert "✓ greet succeeded in" in done.stderr


def test_json_prints_one_document_even_when_the_action_prints(cli: Cli, greeter: Path) -> None:
    for action in ("greet", "shout"):
        done = cli("run", greeter, action, "--json")
        document = json.loads(done.stdout)
        assert "succeeded" == document["status"]
    assert "from a C call" in done.stderr


def test_json_document_holds_the_whole_outcome(cli: Cli, greeter: Path) -> None:
    document = json.loads(cli("run", greeter, "greet", "--json").stdout)
    assert {
        "run_id", "status", "action", "started", "finished", "result", "error", "attempts", "warnings",
    } == set(document)  # fmt: skip
    assert {"text": "Hello world Hello world", "length": 23} == document["result"]


def test_events_as_json_lines_on_stdout_end_with_the_outcome(cli: Cli, greeter: Path) -> None:
    done = cli("run", greeter, "greet", "--events", "-")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["state", "state", "metrics", "progress", "state", "outcome"] == [line["kind"] for line in lines]
    assert [1, 2, 3, 4, 5] == [line["seq"] for line in lines[:-1]]
    assert "succeeded" == lines[-1]["status"]


def test_events_go_to_a_file(cli: Cli, greeter: Path, tmp_path: Path) -> None:
    done = cli("run", greeter, "greet", "--events", "deep/events.jsonl", "--executor", "process")
    assert 0 == done.returncode, done.stderr
    events = [json.loads(line) for line in (tmp_path / "deep" / "events.jsonl").read_text().splitlines()]
    assert ["pending", "running", "succeeded"] == [e["state"] for e in events if e["kind"] == "state"]
    printed = [e["data"]["text"] for e in events if e.get("event") == "output"]
    assert ["printed by the action"] == printed


def test_params_are_typed_by_the_model(cli: Cli, greeter: Path, tmp_path: Path) -> None:
    (tmp_path / "word.txt").write_text("from a file")
    given = [
        "count=5", "ratio=1e-3", "flag=yes", "word=7", "sizes=1", "sizes=2", "inner.lr=0.5",
        "inner.steps=[3,4]", 'extra={"a": null}',
    ]  # fmt: skip
    args = [part for assignment in given for part in ("-p", assignment)]
    result = json.loads(cli("run", greeter, "settings", *args).stdout)
    assert (5, 0.001, True, "7") == (result["count"], result["ratio"], result["flag"], result["word"])
    assert ([1, 2], {"lr": 0.5, "steps": [3, 4]}) == (result["sizes"], result["inner"])
    assert {"a": None} == result["extra"]
    result = json.loads(cli("run", greeter, "settings", "-p", "word=@word.txt", "-p", "sizes=9").stdout)
    assert ("from a file", [9]) == (result["word"], result["sizes"])


def test_later_sources_of_params_win(cli: Cli, greeter: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("name: file\ntimes: 3\n")
    done = cli("run", greeter, "greet", "--params", "params.yaml", "-p", "name=line", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert {"name": "line", "times": 3, "tone": "plain"} == plan["params"]
    assert {"name": "-p", "times": "params.yaml", "tone": "default"} == plan["origins"]
    done = cli("run", greeter, "greet", "--params", "-", "--dry-run", "--json", stdin='{"name": "piped"}')
    assert {"name": "stdin", "times": "config.yaml", "tone": "default"} == json.loads(done.stdout)["origins"]


def test_dry_run_prints_the_plan_with_secrets_masked_and_runs_nothing(cli: Cli, greeter: Path) -> None:
    done = cli(
        "run", greeter, "settings", "-p", "token=hunter22", "--env", "API_KEY=abcdef", "--env", "MODE=x",
        "--timeout", "1h30m", "--retries", "2", "--cpus", "2", "--memory", "1GiB", "--dry-run",
    )  # fmt: skip
    assert 0 == done.returncode
    assert "hunter22" not in done.stdout
    assert "abcdef" not in done.stdout
    assert f"Would run settings of {greeter} on the executor local" in done.stdout
    assert "timeout    5400 s" in done.stdout
    assert "resources  cpus 2, memory 1073741824 bytes" in done.stdout
    assert [["API_KEY", "***"], ["MODE", "x"]] == [line.split() for line in done.stdout.splitlines()[-2:]]


def test_only_named_variables_reach_the_action(cli: Cli, greeter: Path) -> None:
    for executor in ("local", "process"):
        done = cli(
            "run", greeter, "settings", "--executor", executor, "--env", "GIVEN=1", "--env", "FROM_SHELL",
            env={"FROM_SHELL": "2", "UNNAMED": "3"},
        )  # fmt: skip
        assert {"GIVEN": "1", "FROM_SHELL": "2"} == json.loads(done.stdout)["env"]


def test_a_failed_run_exits_with_1_and_shows_the_actions_own_traceback(cli: Cli, greeter: Path) -> None:
    for executor in ("local", "process"):
        done = cli("run", greeter, "fail", "--executor", executor)
        assert 1 == done.returncode
        assert "" == done.stdout
        assert 'raise ValueError("the disk of dreams is full")' in done.stderr
        assert "worker.py" not in done.stderr
        assert done.stderr.rstrip().endswith("Error: ValueError: the disk of dreams is full")


def test_a_result_that_breaks_its_schema_fails_without_a_traceback(cli: Cli, greeter: Path) -> None:
    done = cli("run", greeter, "bad_result", "-q")
    assert 1 == done.returncode
    assert (
        "Error: ResultError: the result of 'bad_result' does not fit GreetResult: "
        "text: input should be a valid string, got 3; length: field required\n"
        '  fix the result, or set result_check = "warn" on the action to keep it as it is\n'
    ) == done.stderr


def test_all_mistakes_of_params_are_told_at_once(cli: Cli, greeter: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("times: 9\n")
    done = cli("run", greeter, "greet", "--params", "params.yaml", "-p", "tone=cold", "-p", "nam=Ada")
    assert 2 == done.returncode
    assert (
        "Error: The params of 'greet' are not valid (3 mistakes):\n"
        "  times: input should be less than or equal to 5, got 9 (from params.yaml)\n"
        "  tone: input should be 'plain' or 'warm', got 'cold' (from -p)\n"
        "  nam: unknown; did you mean 'name'? (from -p)\n"
        f"see what it takes with: synapse-kernel describe {greeter} greet\n"
    ) == done.stderr


def test_errors_before_the_run_are_json_too(cli: Cli, greeter: Path) -> None:
    done = cli("run", greeter, "greet", "-p", "times=0", "--json")
    assert 2 == done.returncode
    document = json.loads(done.stdout)
    assert ("error", "ParamsError") == (document["status"], document["error"]["type"])
    assert [
        {"where": "times", "message": "input should be greater than or equal to 1, got 0", "origin": "-p"}
    ] == document["error"]["problems"]


def _error(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.removeprefix("Error: ").rstrip("\n")


def test_mistakes_on_the_command_line_are_told_in_a_sentence(cli: Cli, greeter: Path, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    assert (
        2,
        f"{greeter} has no action 'gret'; did you mean 'greet'?\n"
        "  actions there: bad_result, fail, greet, remote, settings, shout, slow",
    ) == _error(cli("run", greeter, "gret"))
    assert (2, f"There is no {greeter}r; did you mean 'greeter'?") == _error(
        cli("run", f"{greeter}r", "greet")
    )
    assert (
        2,
        "Nothing is known of 'no_such_module'\n"
        "  give a folder with a config.yaml, a Python file, a module or an installed action plugin\n"
        "  installed: none",
    ) == _error(cli("run", "no_such_module", "greet"))
    assert (
        2,
        "-p 'times' is not KEY=VALUE; write it like -p epochs=3",
    ) == _error(cli("run", greeter, "greet", "-p", "times"))
    assert (
        2,
        "-p times=@none.txt cannot be read: No such file or directory",
    ) == _error(cli("run", greeter, "greet", "-p", "times=@none.txt"))
    assert (
        2,
        "-p a.b: 'a' is given a value and inner keys too",
    ) == _error(cli("run", greeter, "shout", "-p", "a=1", "-p", "a.b=2"))
    assert (
        2,
        "The params cannot be read: none.yaml: No such file or directory",
    ) == _error(cli("run", greeter, "greet", "--params", "none.yaml"))
    assert (
        2,
        "The params cannot be read: list.yaml line 1, column 1: expected a mapping (key: value), got a list",
    ) == _error(cli("run", greeter, "greet", "--params", "list.yaml"))
    code, text = _error(cli("run", greeter, "greet", "--params", "broken.yaml"))
    assert (2, "The params cannot be read: broken.yaml line 2, column 2: ") == (code, text[:57])
    assert (
        2,
        "'soon' is not a duration; write it like 90, 45s, 10m or 1h30m",
    ) == _error(cli("run", greeter, "greet", "--timeout", "soon"))
    assert (
        2,
        "'much' is not a size; write it like 512MB or 8GiB",
    ) == _error(cli("run", greeter, "greet", "--memory", "much"))
    assert (
        2,
        "--env NOPE: it is not set in this shell; give it a value: --env NOPE=VALUE",
    ) == _error(cli("run", greeter, "greet", "--env", "NOPE"))
    assert (
        2,
        "Executor 'proces' is not registered; did you mean 'process'?\n"
        "  registered: local, pipeline, process, ray-actor, ray-job, ray-pipeline, ray-task",
    ) == _error(cli("run", greeter, "greet", "--executor", "proces"))
    assert (
        2,
        "No executor serves the method 'job'\n"
        "  executors here: local, pipeline, process\n"
        "  install one with: pip install 'synapse-kernel[ray]'  or run it here with: --executor local",
    ) == _error(cli("--without", "ray_executors", "run", greeter, "remote"))
    assert (2, "Sink 'consol' is not registered; did you mean 'console'?\n"
               "  registered: console, history, jsonl, logging") == _error(
        cli("run", greeter, "greet", "--sink", "consol")
    )  # fmt: skip


def test_an_event_file_that_cannot_be_written_stops_before_the_run(
    cli: Cli, greeter: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert (
        2,
        "The events cannot be written to file/events.jsonl: Not a directory",
    ) == _error(cli("run", greeter, "greet", "--events", "file/events.jsonl"))


def test_a_timeout_ends_the_run(cli: Cli, greeter: Path) -> None:
    done = cli("run", greeter, "slow", "--timeout", "300ms", "--json")
    assert 1 == done.returncode
    document = json.loads(done.stdout)
    assert ("timed_out", "timeout") == (document["status"], document["error"]["kind"])


def test_a_work_folder_that_cannot_be_made_fails_the_run(
    cli: Cli, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(
        {
            "work.py": """
                from synapse_kernel import action

                @action
                def write(params, ctx):
                    return str(ctx.work_dir)
            """
        }
    )
    (tmp_path / "taken").write_text("a file, no folder")
    done = cli("run", folder / "work.py", "write", "-q", env={"SYNAPSE_WORK_DIR": str(tmp_path / "taken")})
    assert 1 == done.returncode
    first, *rest = done.stderr.splitlines()[-2:]
    assert first.startswith(f"Error: WorkFolderError: The run's work folder {tmp_path / 'taken'}")
    assert first.endswith("cannot be written: Not a directory")
    assert ["  choose another with the setting work_dir, or the variable SYNAPSE_WORK_DIR"] == rest


def _start_slow(greeter: Path, executor: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "synapse_kernel", "run", str(greeter), "slow", "--executor", executor],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stderr is not None
    assert "begun" == process.stderr.readline().strip()
    return process


def test_ctrl_c_tells_the_action_lets_it_clean_up_and_exits_with_130(greeter: Path) -> None:
    for executor in ("local", "process"):
        process = _start_slow(greeter, executor)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert 130 == process.returncode
        assert "" == stdout
        assert "Stopping; press Ctrl-C again to stop by force." in stderr
        assert "cleaned up" in stderr
        assert "■ slow cancelled in" in stderr
        assert "Traceback" not in stderr


def test_sigterm_stops_a_run_like_ctrl_c(greeter: Path) -> None:
    process = _start_slow(greeter, "process")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "cleaned up" in stderr


def test_code_that_does_not_load_shows_its_own_traceback(cli: Cli, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(
        {
            "main.py": """
                from synapse_kernel import action
                import no_such_library

                @action
                def go(params, ctx): ...
            """
        }
    )
    done = cli("run", folder, "go")
    assert 2 == done.returncode
    assert done.stderr == (
        "Traceback (most recent call last):\n"
        f'  File "{folder}/main.py", line 2, in <module>\n'
        "    import no_such_library\n"
        "ModuleNotFoundError: No module named 'no_such_library'\n"
        "Error: The code of 'go' does not load: ModuleNotFoundError: No module named 'no_such_library'\n"
    )
