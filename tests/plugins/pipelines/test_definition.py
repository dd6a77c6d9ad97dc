"""What a pipeline is: put together in Python, ordered, written down and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synapse_kernel import ActionRef, BaseAction, Kernel, ParamsError, Resources, UsageError, action
from synapse_plugins.pipelines import REQUIRED, Pipeline, PipelineError
from synapse_plugins.pipelines.definition import (
    PipelineSpec,
    dependencies,
    join_params,
    last_nodes,
    levels,
    needs_of,
    order,
    spec_of_document,
)
from synapse_plugins.pipelines.targets import split_action, target_of


@action
def double(params, ctx):  # type: ignore[no-untyped-def]
    return {"value": params["value"] * 2}


class Count(BaseAction[dict[str, int], dict[str, int]]):
    def execute(self) -> dict[str, int]:
        return self.params


def diamond() -> Pipeline:
    made = Pipeline("diamond", params={"source": REQUIRED, "epochs": 3, "note": None}, description="Four.")
    top = made.add("top", double, with_={"value": "${params.source}"})
    left = made.add("left", Count, with_={"n": top["value"]}, executor="process", retries=2, timeout="1h")
    right = made.add(
        "right",
        "./plugin:count",
        needs=[top],
        foreach=[1, 2],
        max_parallel=1,
        resources=Resources(cpus=1, custom={"slots": 2}),
        env={"MODE": 1},
        when="${params.epochs} > 1",
        cache=True,
        inputs=[Path("data"), top["value"]],
        on_failure="continue",
    )
    made.add("bottom", double, with_={"value": [left.result, right["*"]["n"], f"{top['value']}/x"]})
    return made


def test_a_handle_makes_references() -> None:
    handle = Pipeline("x").add("draw", double)

    assert [
        "${draw}", "${draw}", "${draw.path}", "${draw[0].path}", "${draw[*].path}", "${draw['any key']}",
        "NodeHandle('draw')", "NodeReference('${draw.path}')",
    ] == [
        str(handle), str(handle.result), str(handle["path"]), str(handle[0]["path"]),
        str(handle["*"]["path"]),
        str(handle["any key"]), repr(handle), repr(handle["path"]),
    ]  # fmt: skip


def test_handles_become_text_wherever_they_stand() -> None:
    _, left, right, bottom = diamond().spec.nodes

    assert {"n": "${top.value}"} == left.with_
    assert ("data", "${top.value}") == right.inputs
    assert {"value": ["${left}", "${right[*].n}", "${top.value}/x"]} == bottom.with_


def test_what_a_node_refers_to_it_needs() -> None:
    made = Pipeline("x")
    made.add(
        "a", double, needs=["n1", "n2"], with_={"v": "${n3.x}", "w": ["${params.p} ${n1} ${item} ${run.id}"]},
        foreach="${n4.items}", when="${n5.ok} and ${index}", inputs=["${n6.path}"], env={"V": "${n7.v}"},
    )  # fmt: skip

    assert ("n1", "n2", "n3", "n4", "n6", "n7", "n5") == needs_of(made.spec.nodes[0])


def test_one_need_may_stand_alone() -> None:
    made = Pipeline("x")
    first = made.add("first", double)
    made.add("a", double, needs=first)  # type: ignore[arg-type]
    made.add("b", double, needs="first")

    assert [("first",), ("first",)] == [node.needs for node in made.spec.nodes[1:]]


def test_nodes_are_ordered_by_what_they_need_and_else_as_written() -> None:
    spec = diamond().spec

    assert [["top"], ["left", "right"], ["bottom"]] == levels(spec)
    assert ["top", "left", "right", "bottom"] == order(spec)
    assert ["bottom"] == last_nodes(dependencies(spec))


def test_a_cycle_has_no_order() -> None:
    made = Pipeline("round")
    made.add("start", double)
    made.add("b", double, needs=["start", "c"])
    made.add("c", double, with_={"x": "${b.x}"})

    with pytest.raises(PipelineError) as raised:
        order(made.spec)

    assert ("The pipeline 'round' cannot be used:\n  nodes.b: the nodes need each other: b → c → b") == str(
        raised.value
    )


def test_a_definition_is_read_again_as_it_was_written() -> None:
    made = diamond()

    document = json.loads(json.dumps(made.to_document()))

    assert document == made.to_document()
    assert made.spec == spec_of_document(document)


def test_a_definition_says_what_differs_from_the_usual() -> None:
    assert {
        "name": "diamond",
        "description": "Four.",
        "params": {"source": None, "epochs": 3, "note": None},
        "required": ["source"],
        "nodes": [
            {
                "name": "top",
                "action": {"entrypoint": f"{__name__}:double"},
                "with": {"value": "${params.source}"},
            },
            {
                "name": "left",
                "action": {"entrypoint": f"{__name__}:Count"},
                "with": {"n": "${top.value}"},
                "executor": "process",
                "retries": 2,
                "timeout": "1h",
            },
            {
                "name": "right",
                "action": "./plugin:count",
                "needs": ["top"],
                "foreach": [1, 2],
                "max_parallel": 1,
                "resources": {"cpus": 1, "custom": {"slots": 2}},
                "env": {"MODE": "1"},
                "when": "${params.epochs} > 1",
                "cache": True,
                "inputs": ["data", "${top.value}"],
                "on_failure": "continue",
            },
            {
                "name": "bottom",
                "action": {"entrypoint": f"{__name__}:double"},
                "with": {"value": ["${left}", "${right[*].n}", "${top.value}/x"]},
            },
        ],
    } == diamond().to_document()


def test_a_definition_holds_what_is_no_json_as_text() -> None:
    made = Pipeline("x")
    made.add("a", double, with_={"path": Path("/data"), "odd": object})

    (node,) = made.to_document()["nodes"]  # type: ignore[misc]

    assert {"path": "/data", "odd": "<class 'object'>"} == node["with"]  # type: ignore[index]


def test_a_definition_without_required_counts_null_as_it() -> None:
    spec = spec_of_document({"name": "x", "params": {"a": None, "b": 1}})

    assert {"a": REQUIRED, "b": 1} == spec.params


def test_what_is_no_definition_is_told() -> None:
    with pytest.raises(UsageError) as raised:
        spec_of_document({"name": "x", "nodes": [{"name": "a"}]})

    assert (
        "This is no definition of a pipeline: Object missing required field `action` - at `$.nodes[0]`"
    ) == str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../up", "'../up' is no node's name: letters, digits, _ and - are allowed"),
        ("a.b", "'a.b' is no node's name: letters, digits, _ and - are allowed"),
        ("", "'' is no node's name: letters, digits, _ and - are allowed"),
        ("näme", "'näme' is no node's name: letters, digits, _ and - are allowed"),
        ("a\n", "'a\\n' is no node's name: letters, digits, _ and - are allowed"),
        ("params", "'params' is no node's name: references use it (params, run, item, index)"),
        ("first", "The pipeline 'x' has a node 'first' already"),
    ],
)
def test_a_node_has_a_name_of_its_own_that_leads_nowhere(name: str, message: str) -> None:
    made = Pipeline("x")
    made.add("first", double)

    with pytest.raises(UsageError) as raised:
        made.add(name, double)

    assert message == str(raised.value)


def test_what_can_be_no_action_is_told() -> None:
    with pytest.raises(UsageError) as raised:
        Pipeline("x").add("a", 3)

    assert (
        "The action of node 'a' must be a text like 'TARGET:ACTION', or an action class or function; got int"
    ) == str(raised.value)


def test_params_are_laid_over_the_defaults() -> None:
    spec = diamond().spec

    assert {"source": "here", "epochs": 5, "note": None} == join_params(spec, {"epochs": 5, "source": "here"})


def test_unknown_and_missing_params_are_told_together() -> None:
    with pytest.raises(ParamsError) as raised:
        join_params(diamond().spec, {"epoch": 5, "xyz": 1})

    assert (
        "The params of the pipeline 'diamond' are not valid (3 mistakes):\n"
        "  epoch: unknown; did you mean 'epochs'?\n"
        "  xyz: unknown; known: epochs, note, source\n"
        "  source: missing (required)"
    ) == str(raised.value)


# Where an action is


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("dataset:convert", ("dataset", "convert")),
        ("./plugin:train", ("./plugin", "train")),
        ("./plugin", ("./plugin", None)),
        ("C:/plugin", ("C:/plugin", None)),
        ("package.module:train", ("package.module", "train")),
        ("plugin:", ("plugin", None)),
    ],
)
def test_an_action_is_a_target_and_a_name(written: str, expected: tuple[str, str | None]) -> None:
    assert expected == split_action(written)


def test_a_path_is_relative_to_the_pipelines_folder(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "plain_folder").mkdir()
    base = str(tmp_path)

    assert [
        (f"{base}/plugin", "a"),
        (f"{base}/actions.py", None),
        ("/elsewhere", "a"),
        (f"{base}/plain_folder", "a"),
        ("json", "a"),
        ("installed", "a"),
    ] == [
        target_of(written, base, kernel)
        for written in (
            "./plugin:a", "actions.py", "/elsewhere:a", "plain_folder:a", "json:a", "installed:a"
        )
    ]  # fmt: skip
    assert ("./plugin", "a") == target_of("./plugin:a", None, kernel)


def test_an_action_that_was_written_down_is_loaded_again(kernel: Kernel) -> None:
    assert (double, None) == target_of(ActionRef.of(double), None, kernel)

    (node,) = spec_of_document(_alone().to_document()).nodes
    assert isinstance(node.action, ActionRef)
    assert None is node.action.loaded


def _alone() -> Pipeline:
    made = Pipeline("x")
    made.add("a", double)
    return made


def test_the_reference_of_a_definition_leads_to_the_action(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written_down.py").write_text(
        "from synapse_kernel import action\n@action\ndef f(params): return 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import written_down  # type: ignore[import-not-found]

    assert (written_down.f, None) == target_of(ActionRef("written_down:f"), None, kernel)


def test_an_empty_pipeline_is_a_spec_too() -> None:
    assert PipelineSpec(name="x") == Pipeline("x").spec
    assert "Pipeline('x', 0 nodes)" == repr(Pipeline("x"))


def test_every_public_name_is_there() -> None:
    import synapse_plugins.pipelines as package

    assert [] == [name for name in package.__all__ if getattr(package, name) is None]
    with pytest.raises(AttributeError) as raised:
        package.Pipelin  # noqa: B018
    assert "module 'synapse_plugins.pipelines' has no attribute 'Pipelin'" == str(raised.value)
