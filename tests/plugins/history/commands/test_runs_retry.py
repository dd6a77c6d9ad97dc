"""`runs retry`: the next attempt of a run that did not succeed."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel.cli.running import parse_assignments
from synapse_kernel.owners import Owner
from synapse_kernel.params import Layer, merge
from synapse_kernel.stores import RunRecord, RunStore

A, B, C = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000"


def test_a_failed_run_goes_on_under_its_id_where_it_was_started(
    cli: Callable, work: Path, store: RunStore, tmp_path: Path
) -> None:
    first = cli("run", "work.py", "flaky", "-p", "size=3", "--timeout", "1h", cwd=work)
    assert 1 == first.code
    (work / "ready").touch()
    again = cli("runs", "retry", "@last", cwd=tmp_path)
    assert 0 == again.code, again.err
    assert {"attempt": 2, "params": {"size": 3}, "folder": str(work)} == again.document
    [record] = store.runs()
    assert ("succeeded", 2, 3600.0, "flaky") == (
        record.status,
        record.attempt,
        record.timeout,
        record.action,
    )
    assert re.fullmatch(
        rf"attempt 2\n✓ flaky succeeded in .* after 2 attempts \(run {record.run_id}\)\n", again.err
    )


def test_it_fails_again_with_the_same_exit_code(cli: Callable, work: Path, store: RunStore) -> None:
    cli("run", "work.py", "flaky", cwd=work)
    again = cli("runs", "retry", "@last-failed", "--json", cwd=work)
    assert (1, "failed", 2) == (again.code, again.document["status"], again.document["attempts"])
    assert 1 == store.count()


def test_a_run_whose_process_was_killed_goes_on(
    cli: Callable, start: Callable, work: Path, store: RunStore
) -> None:
    process = start("run", "work.py", "wait", cwd=work)
    assert any("begun" in line for line in process.stderr)
    [record] = store.runs()
    busy = cli("runs", "retry", record.run_id)
    assert (
        2,
        f"Error: Run {record.run_id} is running in process {process.pid} on {record.owner.host}\n"
        f"  watch it with: synapse-kernel runs watch {record.run_id}\n"
        f"  stop it with:  synapse-kernel runs cancel {record.run_id}\n",
    ) == (busy.code, busy.err)
    process.kill()
    process.communicate()
    again = start("runs", "retry", record.run_id)
    assert any("begun" in line for line in again.stderr)
    now = store.get(record.run_id)
    assert (2, again.pid) == (now.attempt, now.owner.pid)
    again.send_signal(signal.SIGINT)
    _, err = again.communicate(timeout=60)
    assert 130 == again.returncode
    assert "■ wait cancelled in" in err


def test_fresh_starts_a_new_run_with_the_same_request(cli: Callable, work: Path, store: RunStore) -> None:
    (work / "ready").touch()
    cli("run", "work.py", "flaky", "-p", "size=3", "-p", "name=x", cwd=work)
    refused = cli("runs", "retry", "@last")
    [first] = store.runs()
    assert (
        2,
        f"Error: Run {first.run_id} succeeded: there is nothing to go on with\n"
        f"  run it again with: synapse-kernel runs retry {first.run_id} --fresh\n",
    ) == (refused.code, refused.err)
    again = cli("runs", "retry", "@last", "--fresh", "-p", "size=4", "-q")
    assert {"attempt": 1, "params": {"size": 4, "name": "x"}, "folder": str(work)} == again.document
    assert 2 == store.count()


def test_all_of_the_request_is_asked_for_again(cli: Callable, work: Path, store: RunStore) -> None:
    (work / "ready").touch()
    options = ["--timeout", "1h", "--retries", "2", "--tag", "x", "--cpus", "2", "--executor", "process"]
    cli("run", "work.py", "flaky", *options, cwd=work)
    assert 0 == cli("runs", "retry", "@last", "--fresh").code

    def request(record: RunRecord) -> tuple[object, ...]:
        return (
            record.target, record.action, record.timeout, record.retries, record.tags, record.resources,
            record.executor, record.cwd,
        )  # fmt: skip

    again, first = store.runs()
    assert request(first) == request(again)
    assert ("process", 3600.0, ["x"]) == (again.executor, again.timeout, again.tags)


def test_params_stay_as_they_were_unless_it_is_fresh(cli: Callable, work: Path, store: RunStore) -> None:
    cli("run", "work.py", "flaky", "-p", "a.size=3", cwd=work)
    said = cli("runs", "retry", "@last", "-p", "a.size=4", "-p", "b=1")
    [record] = store.runs()
    assert (
        2,
        f"Error: Run {record.run_id} cannot go on:\n"
        "  a.size: a run goes on with the params it has; to change them, start a new run with --fresh\n"
        "  b: a run goes on with the params it has; to change them, start a new run with --fresh\n",
    ) == (said.code, said.err)


def test_secrets_must_be_given_again(cli: Callable, work: Path, store: RunStore) -> None:
    given = ["-p", "name=y", "-p", "token=hunter22", "-p", "keys=abcd1", "-p", "keys=abcd2"]
    assert 1 == cli("run", "work.py", "secret", *given, cwd=work).code
    (work / "ready").touch()
    [record] = store.runs()
    said = cli("runs", "retry", "@last")
    assert (
        2,
        f"Error: Run {record.run_id} cannot go on:\n"
        "  token: it is secret and was not recorded; give it again: -p token=VALUE\n"
        "  keys: it is secret and was not recorded; give it again: -p keys=VALUE\n",
    ) == (said.code, said.err)
    (work / "token.txt").write_text("hunter22")
    again = cli("runs", "retry", "@last", "-p", "token=@token.txt", "-p", "keys=abcd1", "-q", cwd=work)
    assert (0, "22retnuh\n") == (again.code, again.out)


def test_variables_are_taken_from_this_shell_or_given_again(
    cli: Callable, work: Path, store: RunStore
) -> None:
    args = ["run", "work.py", "variable", "--env", "PLACE=here", "--env", "OTHER"]
    assert "hereyes\n" == cli(*args, cwd=work, OTHER="yes").out
    [record] = store.runs()
    said = cli("runs", "retry", "@last", "--fresh", OTHER="no")
    assert (
        2,
        f"Error: Run {record.run_id} cannot go on:\n"
        "  PLACE: it was passed to the run and is not set here: --env PLACE=VALUE\n",
    ) == (said.code, said.err)
    assert "thereno\n" == cli("runs", "retry", "@last", "--fresh", "--env", "PLACE=there", OTHER="no").out


def test_variables_of_the_plugin_s_config_need_not_be_given_again(
    cli: Callable, work: Path, store: RunStore
) -> None:
    (work / "config.yaml").write_text(
        "name: Work\ncode: work\nversion: 1.0\ncategory: custom\nenv: {PLACE: config, OTHER: uration}\n"
        "actions: {variable: 'work:variable'}\n"
    )
    assert "configuration\n" == cli("run", ".", "variable", cwd=work).out
    assert "configuration\n" == cli("runs", "retry", "@last", "--fresh").out


def test_a_part_of_a_run_goes_on_with_the_whole(runs: Callable, book) -> None:
    book.run(A, "failed", kind="pipeline")
    book.child(B, A, "train", "failed")
    said = runs("retry", B)
    assert (
        2,
        f"Error: Run {B} is part of run {A}, as its node train\n"
        f"  go on with the whole: synapse-kernel runs retry {A}\n"
        f"  or run this part alone: synapse-kernel runs retry {B} --fresh\n",
    ) == (said.code, said.err)


@pytest.fixture
def pipeline(work: Path) -> Path:
    """Return a folder with a pipeline whose second node fails at first."""
    (work / "pipeline.yaml").write_text(
        "name: both\n"
        "params: {size: 1, token: null}\n"
        "nodes:\n"
        '  first: {action: "work.py:flaky", with: {size: "${params.size}"}, on_failure: continue}\n'
        '  second: {action: "work.py:secret", with: {token: "${params.token}"}}\n'
    )
    return work


def test_a_pipeline_s_run_goes_on_with_what_was_not_done(
    cli: Callable, pipeline: Path, store: RunStore, tmp_path: Path
) -> None:
    begun = cli("pipeline", "run", "pipeline.yaml", "-p", "token=hunter22", cwd=pipeline)
    assert 1 == begun.code
    (pipeline / "ready").touch()
    [record] = [run for run in store.runs() if run.kind == "pipeline"]
    (tmp_path / "token.txt").write_text("hunter22")
    again = cli("runs", "retry", record.run_id, "-p", "token=@token.txt", "--json", cwd=tmp_path)
    assert (0, "succeeded", 2) == (again.code, again.document["status"], again.document["attempts"]), (
        again.err
    )
    assert "22retnuh" in again.out
    anew = cli("runs", "retry", record.run_id, "--fresh")
    assert (
        2,
        f"Error: Run {record.run_id} is a pipeline's: start it anew as a pipeline\n"
        f"  with: cd {pipeline} && synapse-kernel pipeline run pipeline.yaml -p size=1 -p 'token=…'\n",
    ) == (anew.code, anew.err)
    done = cli("runs", "retry", record.run_id, cwd=pipeline)
    assert (
        2,
        f"Error: Run {record.run_id} succeeded: there is nothing to go on with\n"
        "  run it again with: synapse-kernel pipeline run pipeline.yaml -p size=1 -p 'token=…'\n",
    ) == (done.code, done.err)


def test_a_pipeline_s_run_takes_no_variables(runs: Callable, book) -> None:
    book.run(A, "failed", kind="pipeline", target="pipeline.yaml")
    said = runs("retry", A, "--env", "A=1")
    assert (2, f"Error: Run {A} is a pipeline's, which passes no variables of --env\n") == (
        said.code,
        said.err,
    )


def test_the_params_of_a_command_to_type_are_read_as_they_were(runs: Callable, book) -> None:
    params: dict[str, object] = {
        "size": 1, "name": "1", "word": "a b", "handle": "@me", "none": None, "nan": "NaN",
        "login": {"user": {"a": 1}, "token": "***"},
    }  # fmt: skip
    book.run(A, kind="pipeline", target="my pipeline.yaml", params=params, masked=["login.token"])
    command = runs("retry", A).err.partition("synapse-kernel pipeline run ")[2]
    target, *options = shlex.split(command)
    assert ("my pipeline.yaml", {"-p"}) == (target, set(options[::2]))
    read = merge([Layer(parse_assignments(tuple(options[1::2])), "-p")]).values
    assert {**params, "login": {"user": {"a": 1}, "token": "…"}} == read


def test_without_the_pipelines_plugin_a_pipeline_s_run_says_what_to_type(cli: Callable, book) -> None:
    book.run(A, "failed", kind="pipeline", target="pipeline.yaml")
    said = cli("--without", "pipelines", "runs", "retry", A)
    assert (
        2,
        f"Error: Run {A} is a pipeline's, and no plugin has the command 'pipeline'\n"
        f"  where one has: synapse-kernel pipeline run pipeline.yaml --resume {A}\n",
    ) == (said.code, said.err)


def test_a_run_that_cannot_be_found_again_is_told(runs: Callable, book, tmp_path: Path) -> None:
    book.run(A, "failed", target="greet", cwd=str(tmp_path))
    said = runs("retry", A)
    assert 2 == said.code
    assert said.err.startswith(
        f"Error: Run {A} cannot go on from here: its action was an object of a Python program, or has moved\n"
        "Nothing is known of 'greet'"
    )
    book.run(B, "failed", cwd=str(tmp_path / "gone"))
    assert (
        f"Error: Run {B} was started in {tmp_path / 'gone'}, which cannot be entered: "
        "No such file or directory\n"
        "  run it from another folder with: synapse-kernel run ./plugin train\n"
    ) == runs("retry", B).err


def test_errors_are_documents_too(cli: Callable, book, ended_process: Owner) -> None:
    book.run(A)
    said = cli("runs", "retry", A, "--json")
    assert (2, "UsageError") == (said.code, json.loads(said.out)["error"]["type"])
