"""The commands `pipeline run`, `pipeline plan` and `pipeline validate`, and the example that they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.cli.app import run_app
from synapse_kernel.stores import RunQuery

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
SHAPES = Path(__file__).parents[3] / "docs/examples/shapes"

WORK = """
    from pathlib import Path

    from pydantic import BaseModel
    from synapse_kernel import action


    class CountParams(BaseModel):
        upto: int = 3
        word: str = ""


    class Counted(BaseModel):
        total: int
        word: str


    @action
    def count(params: CountParams, ctx) -> Counted:
        ctx.log_message(f"counted to {params.upto}")
        return Counted(total=sum(range(params.upto + 1)), word=params.word)


    class BreakParams(BaseModel):
        total: int
        file: Path


    @action
    def break_(params: BreakParams, ctx):
        if not params.file.exists():
            raise ValueError("the file is missing")
        return {"total": params.total}


    @action
    def fail(params, ctx):
        raise ValueError("no")
"""
PIPELINE = """
    name: counting
    params: {upto: null, word: hello}
    nodes:
      count: {action: "./work.py:count", with: {upto: "${params.upto}", word: "${params.word}"}}
"""
BREAKING = """
    name: breaking
    params: {upto: 3, file: null}
    nodes:
      count: {action: "./work.py:count", with: {upto: "${params.upto}"}}
      break: {action: "./work.py:break_", with: {total: "${count.total}", file: "${params.file}"}}
"""
MODULE = """
    from synapse_plugins.pipelines import ActionPipeline
    from work import count, break_

    counting = ActionPipeline([count], name="counting")
    other = 3
"""


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs `synapse-kernel pipeline` here, in the test's folder, with a history."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        capfd.readouterr()
        stdout = os.dup(1)
        try:
            code = run_app(["pipeline", *map(str, args)])
        finally:
            # A command that keeps stdout for its document has put stderr in its place.
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(args, code, printed.out, printed.err)

    return call


@pytest.fixture
def process(folder: Path) -> Cli:
    """Return a function that does the same in a process of its own: for modules, which stay imported."""

    def call(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), cwd=folder, capture_output=True, text=True, timeout=120)

    return call


def command(*args: str | Path) -> list[str]:
    """Return the command line that calls `pipeline`."""
    return [sys.executable, "-m", "synapse_kernel", "pipeline", *map(str, args)]


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with actions and pipelines."""
    return make_folder(
        {
            "work.py": WORK,
            "pipeline.yaml": PIPELINE,
            "breaking.yaml": BREAKING,
            "pipelines.py": MODULE,
            "broken.py": "import nothing_of_this_name\n",
            "empty/readme.txt": "",
        }
    )


class TestRun:
    def test_it_prints_the_result_and_tells_the_rest_on_stderr(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=4")

        assert (0, {"count": {"total": 10, "word": "hello"}}) == (done.returncode, json.loads(done.stdout))
        assert "counted to 4" in done.stderr
        assert "✓ counting succeeded in" in done.stderr

    @pytest.mark.parametrize("target", [".", "pipelines:counting", "pipelines.py:counting"])
    def test_a_pipeline_is_named_in_several_ways(self, process: Cli, target: str) -> None:
        done = process("run", target, "-p", "upto=4", "-q")

        assert 0 == done.returncode, done.stderr
        assert 10 == (json.loads(done.stdout).get("count") or json.loads(done.stdout))["total"]

    def test_text_for_a_param_whose_default_is_text_stays_text(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=1", "-p", "word=12", "-q")

        assert "12" == json.loads(done.stdout)["count"]["word"]

    def test_a_param_is_read_by_the_type_of_the_field_that_it_is_for(self, cli: Cli, folder: Path) -> None:
        (folder / "typed.yaml").write_text(
            "name: typed\nparams: {upto: null, word: null}\n"
            'nodes: {count: {action: "./work.py:count", '
            'with: {upto: "${params.upto}", word: "${params.word}"}}}\n'
        )
        done = cli("run", "typed.yaml", "-p", "upto=2", "-p", "word=2024", "-q")

        assert {"total": 3, "word": "2024"} == json.loads(done.stdout)["count"], done.stderr

    def test_a_param_that_does_not_fit_its_field_is_told_before_anything_starts(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=many")

        assert (
            2,
            "Error: The params of the pipeline 'counting' are not valid (1 mistake):\n"
            "  upto: input should be a valid integer, unable to parse string as an integer, got 'many'\n",
        ) == (done.returncode, done.stderr)

    def test_text_for_a_param_of_a_linear_one_is_what_its_actions_take(
        self, process: Cli, folder: Path
    ) -> None:
        (folder / "linear.py").write_text(
            "from synapse_plugins.pipelines import ActionPipeline\n"
            "from pydantic import BaseModel\n"
            "from synapse_kernel import action\n\n"
            "class P(BaseModel):\n    name: str\n    n: int\n\n"
            "@action\ndef show(params: P, ctx):\n    return params.model_dump()\n\n"
            "chain = ActionPipeline([show])\n"
        )

        done = process("run", "linear:chain", "-p", "name=12", "-p", "n=12", "-q")

        assert {"name": "12", "n": 12} == json.loads(done.stdout)

    def test_params_come_from_a_file_under_those_of_the_command_line(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "--params", "-", "-p", "word=b", "-q", stdin="{upto: 2, word: a}")

        assert {"count": {"total": 3, "word": "b"}} == json.loads(done.stdout)

    def test_all_mistakes_in_params_are_told_before_anything_starts(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "wrod=b")

        assert 2 == done.returncode
        assert (
            "Error: The params of the pipeline 'counting' are not valid (2 mistakes):\n"
            "  wrod: unknown; did you mean 'word'?\n"
            "  upto: missing (required)\n"
        ) == done.stderr

    def test_json_is_one_document_on_stdout(self, cli: Cli) -> None:
        document = json.loads(cli("run", "pipeline.yaml", "-p", "upto=4", "--json").stdout)

        assert ("succeeded", "counting", {"count": {"total": 10, "word": "hello"}}) == (
            document["status"],
            document["action"],
            document["result"],
        )

    def test_events_are_those_of_the_pipeline_and_of_its_nodes(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=4", "--events", "-", "-q")

        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert {"counting", "count"} <= {event.get("action") for event in events}
        assert {"pipeline_start", "node_start", "node_end"} <= {event.get("event") for event in events}
        assert "outcome" == events[-1]["kind"]

    def test_a_failed_one_says_how_to_go_on(self, cli: Cli, folder: Path) -> None:
        done = cli("run", "breaking.yaml", "-p", "file=here.txt", "-q", "--json")

        assert 1 == done.returncode
        run_id = json.loads(done.stdout)["run_id"]
        hint = f"Go on with it: synapse-kernel pipeline run breaking.yaml --resume {run_id}"
        assert hint == done.stderr.splitlines()[-1]

        (folder / "here.txt").write_text("")
        again = cli(*hint.partition("pipeline ")[2].split(), "-v")

        assert (0, {"break": {"total": 6}}) == (again.returncode, json.loads(again.stdout))
        assert "done before: count" in again.stderr

    def test_without_history_there_is_nothing_to_go_on_with(self, cli: Cli) -> None:
        done = cli("run", "breaking.yaml", "-p", "file=here.txt", "-q", "--no-history")

        assert 1 == done.returncode
        assert "--resume" not in done.stderr

    def test_a_tag_is_recorded(self, cli: Cli) -> None:
        cli("run", "pipeline.yaml", "-p", "upto=1", "-q", "--tag", "nightly")

        with Kernel({"store": "auto"}) as kernel:
            assert kernel.store is not None
            assert ["counting"] == [
                record.action for record in kernel.store.runs(RunQuery(tags=("nightly",)))
            ]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--force"], "--force is for --resume."),
            (["--resume", "x", "--no-history"], "--resume and --no-history cannot be used together."),
            (["-q", "-v"], "--quiet and --verbose cannot be used together."),
        ],
    )
    def test_options_that_make_no_sense_together_are_refused(
        self, cli: Cli, args: list[str], message: str
    ) -> None:
        done = cli("run", "pipeline.yaml", *args)

        assert 2 == done.returncode
        assert f"Error: {message}" == done.stderr.splitlines()[-1]

    def test_an_executor_that_is_not_there_is_refused(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=1", "--executor", "mainframe")

        assert 2 == done.returncode
        assert "'mainframe'" in done.stderr


class TestResume:
    @pytest.fixture
    def failed(self, cli: Cli) -> str:
        """Return the id of a run that failed at its second node."""
        done = cli("run", "breaking.yaml", "-p", "file=here.txt", "--json")
        run_id = json.loads(done.stdout)["run_id"]
        assert isinstance(run_id, str)
        return run_id

    @pytest.mark.parametrize("given", ["@last", "@last-failed", "@last~0", "{:.12}"])
    def test_a_run_is_named_by_the_beginning_of_its_id_or_as_the_last(
        self, cli: Cli, folder: Path, failed: str, given: str
    ) -> None:
        (folder / "here.txt").write_text("")

        done = cli("run", "breaking.yaml", "--resume", given.format(failed), "--json")

        document = json.loads(done.stdout)
        assert ("succeeded", failed, 2) == (document["status"], document["run_id"], document["attempts"])

    def test_one_that_has_succeeded_is_refused(self, cli: Cli) -> None:
        run_id = json.loads(cli("run", "pipeline.yaml", "-p", "upto=1", "--json").stdout)["run_id"]

        done = cli("run", "pipeline.yaml", "--resume", run_id)

        assert (
            2,
            f"Error: Run {run_id} has succeeded: there is nothing left to do\n"
            f"  see its result with: synapse-kernel runs show {run_id}\n",
        ) == (done.returncode, done.stderr)

    def test_an_unknown_one_is_refused(self, cli: Cli, failed: str) -> None:
        done = cli("run", "breaking.yaml", "--resume", "nosuchrun")

        assert 2 == done.returncode
        assert done.stderr.startswith("Error: No run 'nosuchrun' is in ")

    def test_the_one_before_the_last_is_meant_by_a_number(self, cli: Cli, folder: Path, failed: str) -> None:
        (folder / "here.txt").write_text("")
        cli("run", "pipeline.yaml", "-p", "upto=1", "-q")

        done = cli("run", "breaking.yaml", "--resume", "@last~1", "--json")

        assert failed == json.loads(done.stdout)["run_id"]

    def test_last_without_any_run_is_refused(self, cli: Cli) -> None:
        done = cli("run", "pipeline.yaml", "-p", "upto=1", "--resume", "@last")

        assert 2 == done.returncode
        assert done.stderr.startswith("Error: @last: no such run of a pipeline is in ")

    def test_one_whose_pipeline_has_changed_is_refused_but_for_force(
        self, cli: Cli, folder: Path, failed: str
    ) -> None:
        (folder / "here.txt").write_text("")
        text = (folder / "breaking.yaml").read_text()
        (folder / "breaking.yaml").write_text(text.replace('"${params.upto}"', "4"))
        (folder / "breaking.yaml").write_text((folder / "breaking.yaml").read_text().replace("upto: 3, ", ""))

        refused = cli("run", "breaking.yaml", "--resume", failed)
        forced = cli("run", "breaking.yaml", "--resume", failed, "--force", "-q")

        assert (2, "") == (refused.returncode, refused.stdout)
        assert (
            f"Error: Run {failed} was of another pipeline than this is now:" == refused.stderr.splitlines()[0]
        )
        assert "--force" in refused.stderr
        assert {"break": {"total": 10}} == json.loads(forced.stdout), forced.stderr


class TestDryRun:
    def test_it_shows_the_graph_and_the_params_with_their_origins_and_runs_nothing(self, cli: Cli) -> None:
        done = cli("run", "breaking.yaml", "-p", "file=here.txt", "--dry-run")

        assert 0 == done.returncode
        assert (
            "Would run breaking.yaml\n"
            "breaking (upto=3, file)\n"
            "└─ count  ./work.py:count\n"
            "   ↓ break  ./work.py:break_\n"
            "\n"
            "Params\n"
            "name  value     from\n"
            "upto  3         default\n"
            "file  here.txt  -p\n"
        ) == done.stdout
        assert "" == done.stderr

    def test_secrets_are_masked(self, cli: Cli, folder: Path) -> None:
        (folder / "secret.yaml").write_text(
            "name: s\nparams: {api_token: null}\n"
            'nodes: {see: {action: "./work.py:fail", with: {t: "${params.api_token}"}}}\n'
        )

        done = cli("run", "secret.yaml", "-p", "api_token=hunter2", "--dry-run")

        assert "hunter2" not in done.stdout
        assert "api_token" in done.stdout

    def test_json_is_one_document(self, cli: Cli) -> None:
        document = json.loads(
            cli("run", "breaking.yaml", "-p", "file=here.txt", "--dry-run", "--json").stdout
        )

        assert ("breaking.yaml", {"upto": 3, "file": "here.txt"}, "breaking") == (
            document["target"],
            document["params"],
            document["pipeline"]["name"],
        )

    def test_wrong_params_are_told(self, cli: Cli) -> None:
        done = cli("run", "breaking.yaml", "--dry-run")

        assert (2, "  file: missing (required)") == (done.returncode, done.stderr.splitlines()[-1])


class TestPlan:
    def test_the_graph_is_drawn_as_a_tree(self, cli: Cli) -> None:
        done = cli("plan", "breaking.yaml")

        assert (
            0,
            "breaking (upto=3, file)\n└─ count  ./work.py:count\n   ↓ break  ./work.py:break_\n",
        ) == (done.returncode, done.stdout)

    @pytest.mark.parametrize(("form", "begin"), [("mermaid", "flowchart"), ("graphviz", "digraph")])
    def test_the_graph_is_drawn_for_other_tools(self, cli: Cli, form: str, begin: str) -> None:
        assert begin in cli("plan", "breaking.yaml", "--format", form).stdout.splitlines()[0]

    def test_json_tells_the_nodes_and_their_levels(self, cli: Cli) -> None:
        document = json.loads(cli("plan", "breaking.yaml", "--json").stdout)

        assert (["count", "break"], [["count"], ["break"]]) == (
            [node["name"] for node in document["nodes"]],
            document["levels"],
        )


class TestValidate:
    def test_one_without_mistakes_is_told_to_be_valid(self, cli: Cli) -> None:
        done = cli("validate", "breaking.yaml")

        assert (0, "breaking.yaml is a valid pipeline: breaking, 2 nodes\n") == (done.returncode, done.stdout)
        assert {"target": ".", "valid": True, "problems": []} == json.loads(
            cli("validate", ".", "--json").stdout
        )

    def test_all_mistakes_are_told_with_their_lines(self, cli: Cli, folder: Path) -> None:
        (folder / "wrong.yaml").write_text(
            "name: wrong\n"
            "nodes:\n"
            '  a: {action: "./work.py:cuont"}\n'
            "  b:\n"
            '    action: "./work.py:count"\n'
            "    with: {upto: many}\n"
            "    needs: [c]\n"
        )

        done = cli("validate", "wrong.yaml")
        document = json.loads(cli("validate", "wrong.yaml", "--json").stdout)

        assert (2, "") == (done.returncode, done.stdout)
        assert [3, 6, 7] == [problem["line"] for problem in document["problems"]]
        assert ("wrong.yaml", False) == (document["target"], document["valid"])
        assert "wrong.yaml line 6: nodes.b.with.upto: " in done.stderr

    def test_a_linear_one_is_checked_too(self, process: Cli) -> None:
        assert 0 == process("validate", "pipelines:counting").returncode


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.yaml", "There is no nowhere.yaml"),
        ("pipelin.yaml", "There is no pipelin.yaml; did you mean 'pipeline.yaml'?"),
        ("empty", "The folder empty has no pipeline.yaml"),
        ("work.py", "'work.py' names no pipeline: give a pipeline.yaml, a folder with one, or MODULE:NAME"),
        ("counting", "'counting' names no pipeline: give a pipeline.yaml, a folder with one, or MODULE:NAME"),
        (
            "pipelines:countign",
            "pipelines:countign is no pipeline: 'countign' is not there; did you mean 'counting'?\n"
            "  pipelines in pipelines: counting",
        ),
        (
            "pipelines:other",
            "pipelines:other is no pipeline: 'other' is of type int\n  pipelines in pipelines: counting",
        ),
        ("no_module_at_all_here:x", "no_module_at_all_here:x names a module that is not there: "
         "'no_module_at_all_here'"),
        ("no.py:x", "There is no no.py; did you mean 'work.py'?"),
        (":x", "':x' names no pipeline: MODULE:NAME needs both"),
    ],
)  # fmt: skip
def test_a_target_that_is_no_pipeline_is_told(process: Cli, target: str, message: str) -> None:
    done = process("plan", target)

    assert (2, f"Error: {message}\n") == (done.returncode, done.stderr)


def test_a_module_that_does_not_import_shows_where(cli: Cli) -> None:
    done = cli("plan", "broken.py:x")

    assert 2 == done.returncode
    assert (
        "Error: The module of broken.py:x does not import: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    ) == done.stderr.splitlines()[-1]
    assert "import nothing_of_this_name" in done.stderr


class TestShapes:
    """The example: it is valid, it runs, and it goes on after a kill."""

    def test_it_is_valid(self, cli: Cli) -> None:
        done = cli("validate", SHAPES, "--json")

        assert [] == json.loads(done.stdout)["problems"]

    def test_it_draws_the_same_images_for_the_same_seed(self, cli: Cli) -> None:
        first, second, other = (
            result(cli("run", SHAPES, "--json", "-p", f"seed={seed}")) for seed in (1, 1, 2)
        )

        assert 40 == first["images"]
        assert report(first) == report(second)
        assert report(first).partition("\n")[2] != report(other).partition("\n")[2]

    def test_its_second_branch_can_be_left_out(self, cli: Cli) -> None:
        done = cli("run", SHAPES, "--json", "-p", "mirrored=false")

        assert 40 == result(done)["images"]

    @pytest.mark.slow
    def test_it_goes_on_after_a_kill(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        events = tmp_path / "events.jsonl"
        killed = subprocess.Popen(
            command("run", SHAPES, "-p", "delay=0.1", "--events", events, "-q"),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Of the three splits those of eight images are drawn before the one of twenty-four.
        until(lambda: events.exists() and '"node_end"' in events.read_text())
        killed.send_signal(signal.SIGKILL)
        killed.wait()

        done = cli("run", SHAPES, "--resume", "@last")

        assert 40 == json.loads(done.stdout)["images"]
        assert "done before: draw[1]" in done.stderr


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def result(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the result of a run that succeeded."""
    document = json.loads(done.stdout)
    assert "succeeded" == document["status"], document
    found = document["result"]
    assert isinstance(found, dict)
    return found


def report(found: dict[str, object]) -> str:
    """Return the text of a report."""
    return Path(str(found["report"])).read_text(encoding="utf-8")
