"""`runs compare`: what differs between runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

A, B, C = "aaaa0000aaaa0000", "bbbb0000bbbb0000", "cccc0000cccc0000"


@pytest.fixture
def two(book, events: type, store) -> None:
    """Record two runs that differ in some things."""
    from synapse_kernel.stores import Environment

    store.put_environment(
        Environment(id="e2", python="3.11.7", platform="Linux-6.1-x86_64", packages={"numpy": "2.2.0"})
    )
    book.run(
        A,
        params={"epochs": 3, "optimizer": {"lr": 0.1, "name": "sgd"}, "sizes": [1, 2]},
        environment=book.environment(),
        events=events(A).metrics({"loss": 0.5, "acc": 1.0}, "val").made,
    )
    book.run(
        B,
        "failed",
        seconds=30,
        params={"epochs": 3, "optimizer": {"lr": 0.2, "name": "sgd"}, "sizes": [1, 2, 3], "tag": "x"},
        environment="e2",
        events=events(B).metrics({"loss": 0.25, "acc": 1.0}, "val").made,
    )


def test_only_what_differs_is_shown(runs: Callable, two: None) -> None:
    said = runs("compare", "aaaa", "bbbb")
    assert (0, "") == (said.code, said.err)
    assert [
        "                 aaaa0000   bbbb0000",
        "   RUN",
        "≠  state         succeeded  failed",
        "≠  duration      12 s       30 s",
        "   PARAMS",
        "≠  optimizer.lr  0.1        0.2",
        "≠  sizes         [1,2]      [1,2,3]",
        "≠  tag           -          x",
        "   METRICS",
        "≠  val/loss      0.5        0.25",
        "   PACKAGES",
        "≠  numpy         2.1.0      2.2.0",
    ] == said.out.splitlines()


def test_all_shows_what_is_equal_unmarked(runs: Callable, two: None) -> None:
    lines = [line.split() for line in runs("compare", A, B, "--all").out.splitlines()]
    assert ["epochs", "3", "3"] in lines
    assert ["≠", "optimizer.lr", "0.1", "0.2"] in lines
    assert ["val/acc", "1", "1"] in lines


def test_a_document_has_the_same(runs: Callable, two: None) -> None:
    document = runs("compare", A, B, "--json").document
    assert [A, B] == document["runs"]
    assert {"optimizer.lr", "sizes", "tag"} == set(document["params"])
    assert {"values": [0.1, 0.2], "differ": True} == document["params"]["optimizer.lr"]
    assert {"values": [0.5, 0.25], "differ": True} == document["metrics"]["val/loss"]
    everything = runs("compare", A, B, "--all", "--json").document
    assert {"values": [3, 3], "differ": False} == everything["params"]["epochs"]


def test_what_json_cannot_hold_is_text_in_a_document(runs: Callable, book, events: type) -> None:
    book.run(A, events=events(A).metrics({"loss": float("nan")}).made)
    book.run(B, events=events(B).metrics({"loss": float("-inf")}).made)
    document = runs("compare", A, B, "--json").document
    assert {"values": ["NaN", "-Infinity"], "differ": True} == document["metrics"]["loss"]


def test_more_than_two_stand_side_by_side(runs: Callable, two: None, book) -> None:
    book.run(C, params={"epochs": 9})
    line = next(x for x in runs("compare", A, B, C).out.splitlines() if "epochs" in x)
    assert ["≠", "epochs", "3", "3", "9"] == line.split()


def test_one_run_alone_is_not_compared(runs: Callable, two: None) -> None:
    for names in ([A], [A, "aaaa"]):
        said = runs("compare", *names)
        assert (
            2,
            "Error: To compare, name two runs or more; see them with: synapse-kernel runs list\n",
        ) == (said.code, said.err)


def test_runs_that_do_not_differ_are_told(runs: Callable, book) -> None:
    book.run(A)
    book.run(B)
    said = runs("compare", A, B)
    assert (0, "", "They do not differ; see all that is recorded with --all\n") == said
