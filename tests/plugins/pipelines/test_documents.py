"""Reading of `pipeline.yaml`: what it says, and where what is wrong with it stands."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel, Resources
from synapse_plugins.pipelines import REQUIRED, PipelineError, load_pipeline
from synapse_plugins.pipelines.definition import NodeSpec, PipelineSpec
from synapse_plugins.pipelines.documents import read_pipeline

FULL = """
    name: detector
    description: Finds shapes.
    version: 2
    params: {source: null, epochs: 3}
    concurrency: 4
    nodes:
      convert: "dataset:convert"
      train:
        action: "./plugin:train"
        needs: convert
        with: {data: "${convert.path}", epochs: "${params.epochs}"}
        executor: process
        resources: {cpus: 1, memory: 1GiB, custom: {slots: 2}}
        retries: 2
        timeout: 1h
        env: {DEBUG: true, LEVEL: 3}
        when: "${convert.images} > 0"
        foreach: "${convert.parts}"
        max_parallel: 2
        cache: true
        inputs: "${params.source}"
        on_failure: continue
      report: {action: "./plugin", needs: [convert, train], timeout: 90, env: [HOME], when: true}
    output: {weights: "${train[*].weights}"}
"""


def test_a_document_says_all_that_a_pipeline_can_be(tmp_path: Path) -> None:
    expected = PipelineSpec(
        name="detector",
        description="Finds shapes.",
        version="2",
        params={"source": REQUIRED, "epochs": 3},
        concurrency=4,
        nodes=(
            NodeSpec(name="convert", action="dataset:convert"),
            NodeSpec(
                name="train",
                action="./plugin:train",
                needs=("convert",),
                with_={"data": "${convert.path}", "epochs": "${params.epochs}"},
                executor="process",
                resources=Resources(cpus=1.0, memory=1024**3, custom={"slots": 2.0}),
                retries=2,
                timeout="1h",
                env={"DEBUG": "true", "LEVEL": "3"},
                when="${convert.images} > 0",
                foreach="${convert.parts}",
                max_parallel=2,
                cache=True,
                inputs=("${params.source}",),
                on_failure="continue",
            ),
            NodeSpec(
                name="report",
                action="./plugin",
                needs=("convert", "train"),
                timeout=90.0,
                env=("HOME",),
                when=True,
            ),
        ),
        output={"weights": "${train[*].weights}"},
        base=str(tmp_path),
    )
    file = tmp_path / "pipeline.yaml"
    file.write_text(textwrap.dedent(FULL), encoding="utf-8")

    assert expected == load_pipeline(file).spec
    assert expected == load_pipeline(tmp_path).spec


def test_json_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    document = {"name": "x", "nodes": {"a": {"action": "dataset:convert", "with": {"n": [1, None, True]}}}}
    file.write_text(json.dumps(document, indent="\t"), encoding="utf-8")

    (node,) = load_pipeline(tmp_path).spec.nodes

    assert {"n": [1, None, True]} == node.with_


def test_targets_are_relative_to_the_file(
    folder: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pipeline.yaml").write_text('name: x\nnodes: {a: "./shapes.py:anything"}\n')
    monkeypatch.chdir(folder.parent)

    assert str(folder) == load_pipeline("project/pipeline.yaml", kernel).spec.base


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["line 1: name: missing", "line 1: nodes: missing"]),
        ("name: x\n", ["line 1: nodes: missing"]),
        ("name: x\nnodes: {}\n", ["line 2: nodes: a pipeline needs at least one node"]),
        ("name: x\nnodes: [a]\n", ["line 2: nodes: expected a mapping, got a list: ['a']"]),
        (
            "name: x\nnodes:\n  a:\n  b: 3\n",
            [
                "line 3: nodes.a: expected a mapping with its action, got None",
                "line 4: nodes.b: expected a mapping with its action, got 3",
            ],
        ),
        ("name: x\nnodes:\n  a: {with: {x: 1}}\n", ["line 3: nodes.a.action: missing"]),
        (
            "name: x\nnodes:\n  ../up: dataset:convert\n  params: dataset:convert\n",
            [
                "line 3: nodes.../up: '../up' is no node's name: letters, digits, _ and - are allowed",
                "line 4: nodes.params: 'params' is no node's name: "
                "references use it (params, run, item, index)",
            ],
        ),
        (
            "name: x\nnodes:\n  a:\n    action: d:c\n    need: b\n    retries: 1.5\n    cache: maybe\n"
            "    resources: {cpu: 1, gpus: -1}\n    foreach: 3\n    env: 3\n    with: [1]\n",
            [
                "line 5: nodes.a.need: unknown key; did you mean 'needs'?",
                "line 6: nodes.a.retries: expected a whole number, got a number: 1.5",
                "line 7: nodes.a.cache: expected true or false, got text: 'maybe'",
                "line 8: nodes.a.resources.cpu: unknown key; did you mean 'cpus'?",
                "line 8: nodes.a.resources.gpus: expected a number >= 0.0: -1",
                "line 9: nodes.a.foreach: expected text or a list or null, got a whole number: 3",
                "line 10: nodes.a.env: expected a mapping or a list or null, got a whole number: 3",
                "line 11: nodes.a.with: expected a mapping, got a list: [1]",
            ],
        ),
        (
            "name: x\nnodes:\n  a:\n    action: d:c\n    with:\n      - wrong\n"
            "  b: {action: d:c, needs: z}\n",
            [
                "line 5: nodes.a.with: expected a mapping, got a list: ['wrong']",
                "line 7: nodes.b.needs[0]: there is no node 'z'; nodes here: a, b",
            ],
        ),
        (
            "name: x\nnodes:\n  a:\n    action: d:c\n    with:\n      inner:\n        - 1\n"
            '        - "${b.x}"\n',
            ["line 8: nodes.a.with.inner[1]: ${b.x}: there is no node 'b'; nodes here: a"],
        ),
    ],
)
def test_all_mistakes_are_told_with_their_lines(text: str, problems: list[str]) -> None:
    with pytest.raises(PipelineError) as raised:
        read_pipeline(text, "p.yaml")

    assert ["p.yaml cannot be used:", *(f"  p.yaml {problem}" for problem in problems)] == str(
        raised.value
    ).splitlines()


def test_the_place_of_a_mistake_is_data_too() -> None:
    with pytest.raises(PipelineError) as raised:
        read_pipeline("name: x\nnodes:\n  a: {action: d:c, needs: z}\n", "p.yaml")

    assert [("p.yaml", 3, "nodes.a.needs[0]")] == [
        (problem.file, problem.line, problem.where)  # type: ignore[attr-defined]
        for problem in raised.value.problems
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: [x\n", "p.yaml line 2, column 1: while parsing a flow sequence from line 1, column 7: "
                       "did not find expected ',' or ']'"),
        ("name: x\nname: y\n", "p.yaml line 2, column 1: the key 'name' is there twice"),
        ("name: x\nnodes:\n  a: d:c\n  a: d:c\n", "p.yaml line 4, column 3: the key 'a' is there twice"),
        ("- a\n", "p.yaml line 1, column 1: expected a mapping (key: value), got a list"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_is_told(text: str, problem: str) -> None:
    with pytest.raises(PipelineError) as raised:
        read_pipeline(text, "p.yaml")

    assert f"The pipeline cannot be read:\n  {problem}" == str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as raised:
        load_pipeline(tmp_path / "gone.yaml")
    with pytest.raises(PipelineError) as in_folder:
        load_pipeline(tmp_path)

    assert f"The pipeline cannot be read:\n  {tmp_path}/gone.yaml: No such file or directory" == str(
        raised.value
    )
    assert (f"The pipeline cannot be read:\n  {tmp_path}/pipeline.yaml: No such file or directory") == str(
        in_folder.value
    )


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_bytes("name: ü\n".encode("latin-1"))

    with pytest.raises(PipelineError) as raised:
        load_pipeline(file)

    assert (f"The pipeline cannot be read:\n  {file}: not UTF-8 text (invalid start byte at byte 6)") == str(
        raised.value
    )


def test_what_its_actions_tell_has_its_line_later_too(
    folder: Path, kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    file = folder / "pipeline.yaml"
    file.write_text('name: x\nnodes:\n  a: {action: "./shapes.py:train", with: {epochs: 1}}\n')
    made = load_pipeline(file)

    with pytest.raises(PipelineError) as raised:
        made.validate(kernel)

    assert (
        f"The pipeline 'x' cannot be used:\n  {file} line 3: nodes.a.with.data: missing (required, Path)"
    ) == str(raised.value)


def test_merged_keys_have_the_line_of_their_node() -> None:
    text = "name: x\nnodes:\n  a: &a {action: d:c, needs: z}\n  b:\n    <<: *a\n"

    with pytest.raises(PipelineError) as raised:
        read_pipeline(text, "p.yaml")

    assert [
        "  p.yaml line 3: nodes.a.needs[0]: there is no node 'z'; nodes here: a, b",
        "  p.yaml line 4: nodes.b.needs[0]: there is no node 'z'; nodes here: a, b",
    ] == str(raised.value).splitlines()[1:]
