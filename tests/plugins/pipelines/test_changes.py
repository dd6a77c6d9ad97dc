"""What differs between two definitions, in sentences."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from synapse_kernel.contracts import Resources
from synapse_plugins.pipelines import REQUIRED, Pipeline
from synapse_plugins.pipelines.changes import changed_nodes, changes

Document = dict[str, object]


def definition(**params: object) -> Pipeline:
    made = Pipeline("detector", params={"source": REQUIRED, "epochs": 3, **params}, concurrency=2)
    made.add("convert", "./plugin:convert", with_={"path": "${params.source}"})
    made.add(
        "train",
        "./plugin:train",
        with_={"data": "${convert.path}", "epochs": "${params.epochs}", "opt": {"lr": 0.1, "name": "sgd"}},
        executor="process",
    )
    return made


def coded(**codes: str) -> Document:
    made = definition()
    nodes = tuple(msgspec.structs.replace(node, code=codes.get(node.name)) for node in made.spec.nodes)
    return Pipeline.of(msgspec.structs.replace(made.spec, nodes=nodes)).to_document()


def with_another_node(made: Pipeline) -> Pipeline:
    made.add("report", "./plugin:report")
    return made


def changed(**fields: object) -> Pipeline:
    made = definition()
    first, train = made.spec.nodes
    return Pipeline.of(
        msgspec.structs.replace(made.spec, nodes=(first, msgspec.structs.replace(train, **fields)))
    )


def test_the_same_pipeline_has_not_changed() -> None:
    assert [] == changes(definition().to_document(), definition().to_document())


def test_description_place_and_order_of_the_nodes_are_passed_over() -> None:
    spec = definition().spec
    other = msgspec.structs.replace(spec, description="Other.", base="/elsewhere", nodes=spec.nodes[::-1])

    assert [] == changes(definition().to_document(), Pipeline.of(other).to_document())


def test_on_what_how_long_and_how_often_nodes_run_is_passed_over() -> None:
    now = changed(
        executor=None, retries=2, timeout="2h", resources=Resources(memory=2**34), max_parallel=1, cache=True,
        on_failure="continue",
    )  # fmt: skip
    fewer = Pipeline.of(msgspec.structs.replace(now.spec, concurrency=1))

    assert [] == changes(definition().to_document(), fewer.to_document())
    assert set() == changed_nodes(definition().to_document(), fewer.to_document())


def test_the_nodes_that_changed_are_named() -> None:
    before, now = definition().to_document(), with_another_node(changed(with_={}))

    assert {"train", "report"} == changed_nodes(before, now.to_document())


@pytest.mark.parametrize(
    ("now", "sentences"),
    [
        (lambda: with_another_node(definition()), ["node 'report' is new"]),
        (lambda: definition(size=1), ["params: 'size' is new"]),
        (lambda: definition(epochs=5), ["params: 'epochs' was 3 by default, is 5 by default"]),
        (lambda: definition(epochs=REQUIRED), ["params: 'epochs' was 3 by default, is required"]),
        (
            lambda: definition(source="here"),
            ["params: 'source' was required, is 'here' by default"],
        ),
        (
            lambda: changed(with_={"data": "${convert.path}", "epochs": 5, "opt": {"lr": 0.2}, "x": True}),
            [
                "node 'train': with.epochs was '${params.epochs}', is 5",
                "node 'train': with.opt.lr was 0.1, is 0.2",
                "node 'train': with.opt.name was 'sgd', is not given",
                "node 'train': with.x was not given, is true",
            ],
        ),
        (
            lambda: changed(action="./plugin:learn", when="${params.epochs} > 1"),
            [
                "node 'train': action was './plugin:train', is './plugin:learn'",
                "node 'train': when was not given, is '${params.epochs} > 1'",
            ],
        ),
        (
            lambda: Pipeline.of(msgspec.structs.replace(definition().spec, name="other", output="${train}")),
            [
                "name was 'detector', is 'other'",
                "output was not given, is '${train}'",
            ],
        ),
    ],
)
def test_each_difference_is_a_sentence(now: Callable[[], Pipeline], sentences: list[str]) -> None:
    assert sentences == changes(definition().to_document(), now().to_document())


def test_what_is_not_there_any_more_is_told() -> None:
    before = with_another_node(definition(size=1))

    assert ["params: 'size' is gone", "node 'report' is gone"] == changes(
        before.to_document(), definition().to_document()
    )


def test_code_that_changed_is_told_by_its_fingerprint() -> None:
    before = coded(convert="c1", train="t1")

    assert ["the code of node 'train' changed"] == changes(before, coded(convert="c1", train="t2"))


def test_without_a_fingerprint_code_counts_as_the_same() -> None:
    assert [] == changes(coded(convert="c1", train="t1"), coded(train="t1"))


def test_true_is_not_one() -> None:
    one, true = changed(with_={"x": 1}), changed(with_={"x": True})

    assert ["node 'train': with.x was 1, is true"] == changes(one.to_document(), true.to_document())


def test_a_long_value_is_cut() -> None:
    before, after = changed(with_={"x": "a"}), changed(with_={"x": "b" * 200})

    assert [f"node 'train': with.x was 'a', is '{'b' * 78}…"] == changes(
        before.to_document(), after.to_document()
    )
