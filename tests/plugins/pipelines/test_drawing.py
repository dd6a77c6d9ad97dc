"""The graph as text."""

from __future__ import annotations

from synapse_kernel import Resources, action
from synapse_plugins.pipelines import REQUIRED, Pipeline
from synapse_plugins.pipelines.definition import PipelineSpec
from synapse_plugins.pipelines.drawing import graphviz, mermaid, tree


def shapes() -> PipelineSpec:
    made = Pipeline("shapes", params={"count": REQUIRED, "size": 64})
    made.add("draw", "./a:draw", foreach="${params.count}", max_parallel=2, with_={"size": "${params.size}"})
    made.add("check", "./a:check", needs=["draw"], executor="process", retries=2, timeout="1h")
    made.add(
        "small", "./a:split", needs=["check"], when="${check.n} > 1", resources=Resources(cpus=2, memory=1024)
    )
    made.add("large", "./a:split", needs=["check"], cache=True, on_failure="continue", timeout=90.0)
    made.add("train", "./a:train", with_={"data": "${large.path}"})
    made.add("report", "./a:report", needs=["train", "small", "draw"])
    made.add("notes", "./a:notes")
    return made.spec


def test_a_tree_shows_each_node_once_under_the_last_that_it_needs() -> None:
    assert (
        "shapes (count, size=64)\n"
        "├─ draw  ./a:draw  [foreach ${params.count}, 2 at once]\n"
        "│  ↓ check  ./a:check  [executor process, retries 2, timeout 1h]\n"
        "│  ├─ small  ./a:split  [when ${check.n} > 1, cpus 2, memory 1024 bytes]\n"
        "│  └─ large  ./a:split  [timeout 90 s, cache, goes on if it fails]\n"
        "│     ↓ train  ./a:train\n"
        "│     ↓ report  ./a:report  ← also draw, small\n"
        "└─ notes  ./a:notes"
    ) == tree(shapes())


def test_a_tree_shows_how_far_the_nodes_are() -> None:
    made = Pipeline("x")
    made.add("a", "m:a")
    made.add("b", "m:b", needs=["a"])
    made.add("c", "m:c", needs=["a"])
    made.add("d", "m:d", needs=["a"])

    assert ("x\n└─ a ✓ succeeded  m:a\n   ├─ b ✗ failed  m:b\n   ├─ c · waiting  m:c\n   └─ d  m:d") == tree(
        made.spec, {"a": "succeeded", "b": "failed", "c": "waiting"}
    )


def test_a_tree_may_be_deeper_than_the_stack() -> None:
    made = Pipeline("long")
    made.add("n0", "m:a")
    for at in range(1, 3000):
        made.add(f"n{at}", "m:a", needs=[f"n{at - 1}"])
        made.add(f"side{at}", "m:a", needs=[f"n{at - 1}"])

    assert 6000 == len(tree(made.spec).splitlines())


def test_mermaid_is_a_flowchart() -> None:
    made = Pipeline("x")
    made.add("a", "m:a", foreach=[1])
    made.add("b", "m:b", needs=["a"], when="${a[0].n} > 1 and '#1' == \"`&`\"")
    made.add("c-1", "m:c", needs=["a", "b"])

    assert (
        "flowchart TD\n"
        '    n0[["a ✓<br/>m:a<br/>foreach [1]"]]\n'
        "    n1[\"b ▸<br/>m:b<br/>when ${a[0].n} #gt; 1 and '#35;1' == #quot;#96;#amp;#96;#quot;\"]\n"
        '    n2["c-1<br/>m:c"]\n'
        "    n0 --> n1\n"
        "    n0 --> n2\n"
        "    n1 --> n2\n"
        "    classDef succeeded fill:#c8e6c9\n"
        "    class n0 succeeded\n"
        "    classDef running fill:#bbdefb\n"
        "    class n1 running"
    ) == mermaid(made.spec, {"a": "succeeded", "b": "running"})


def test_graphviz_is_a_digraph() -> None:
    made = Pipeline('a "quoted" \\ name')
    made.add("a", "m:a", foreach=[1])
    made.add("b", 'm:"b"', needs=["a"], when="${a[0].n} == 'x\\y'\n")

    assert (
        'digraph "a \\"quoted\\" \\\\ name" {\n'
        '    node [shape=box, style="rounded,filled", fillcolor=white]\n'
        '    "a" [label="a\\nm:a\\nforeach [1]", peripheries=2]\n'
        '    "b" [label="b ✗\\nm:\\"b\\"\\nwhen ${a[0].n} == \'x\\\\y\'\\n", fillcolor="#ffcdd2"]\n'
        '    "a" -> "b"\n'
        "}"
    ) == graphviz(made.spec, {"b": "failed"})


def test_an_action_of_this_process_is_shown_by_where_it_is() -> None:
    @action
    def here(params, ctx):  # type: ignore[no-untyped-def]
        return params

    made = Pipeline("x")
    made.add("a", here)

    place = "test_an_action_of_this_process_is_shown_by_where_it_is.<locals>.here"
    assert f"x\n└─ a  {__name__}:{place}" == tree(made.spec)
