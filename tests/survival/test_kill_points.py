"""
A pipeline that is killed, at every point where one can be, and goes on.

After each death a new process looks at the store: the dead runs read crashed and no other, all that was
acknowledged is there, and the database is whole. The next one goes on, and at last the result is that of an
undisturbed run, each effect was there once if it was recorded, and nothing was done before what it needs.
"""

from __future__ import annotations

import itertools
import random
import signal
from typing import Any

import pytest

LONGEST = 340
"""More boundaries than a pipeline passes; how many those are is decided by which branch is faster."""


def mistakes(told: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what went wrong, by the order that it went wrong with."""
    return {str(each["order"]): each["mistakes"] for each in told if each["mistakes"]}


def deaths(told: list[dict[str, Any]]) -> list[str]:
    """Return where the processes died."""
    lives = [life for each in told for life in each.get("lives", ())]
    return [said["died"] for life in lives for said in life["said"] if "died" in said]


def under_way(told: list[dict[str, Any]]) -> int:
    """Return how many lives were ended while their pipeline's run was there and had not ended."""
    lives = [life for each in told for life in each.get("lives", ())]
    return sum(life["status"] == signal.SIGKILL and bool(life["found"]["reaped"]) for life in lives)


def at_random(seed: str, count: int, pipeline: str = "survivor") -> list[dict[str, Any]]:
    """Return orders with several deaths in a row, up to so many boundaries apart."""
    dice = random.Random(seed)
    longest = LONGEST if pipeline == "survivor" else 90
    return [
        {"pipeline": pipeline, "seed": seed, "kills": [dice.randint(1, longest // n) for n in range(1, 5)]}
        for _ in range(count)
    ]


def test_a_pipeline_killed_at_some_boundary_goes_on(ordeals):
    told = ordeals.all([{"kills": [number]} for number in range(1, LONGEST, 13)])

    assert {} == mistakes(told)
    assert len(deaths(told)) >= 20


@pytest.fixture(scope="module")
def sweep(ordeals) -> list[dict[str, Any]]:
    """Return what became of a pipeline that was killed at each boundary, one after the other."""
    return ordeals.all([{"kills": [number]} for number in range(1, LONGEST + 1)])


@pytest.mark.slow
def test_a_pipeline_killed_at_any_boundary_goes_on(sweep):
    assert {} == mistakes(sweep)
    assert len(deaths(sweep)) >= 300


@pytest.mark.slow
def test_every_kind_of_boundary_is_among_those_that_a_pipeline_is_killed_at(sweep):
    kinds = {" ".join(place.split()[:2]) for place in deaths(sweep)}
    calls = {"start", "append", "finish", "put", "put_environment"}
    assert {f"{when} {call}" for when in ("before", "after") for call in calls} - kinds == set()
    assert {"before a", "before the", "after the"} <= kinds


@pytest.mark.parametrize("seed", ["few"])
def test_a_pipeline_killed_several_times_in_a_row_goes_on(ordeals, seed):
    told = ordeals.all(at_random(seed, 5))

    assert {} == mistakes(told)
    assert under_way(told) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [f"seed {number}" for number in range(10)])
def test_a_pipeline_killed_many_times_in_a_row_goes_on(ordeals, seed):
    told = ordeals.all(at_random(seed, 10))

    assert {} == mistakes(told)
    assert under_way(told) >= 20


def from_outside(seed: str, count: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    # In parts of a life, of which later ones are shorter: some of them fall within it.
    lengths = itertools.islice(itertools.cycle([0.4, 0.6, 0.8, 1.0]), count)
    return [{"seed": seed, "kills": [dice.uniform(0.0, longest) for _ in range(3)]} for longest in lengths]


def test_a_pipeline_killed_from_outside_at_any_time_goes_on(ordeals):
    told = ordeals.all(from_outside("few", 12))

    assert {} == mistakes(told)
    # How many fall within a life is the machine's affair.
    assert under_way(told) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [f"seed {number}" for number in range(6)])
def test_a_pipeline_killed_from_outside_at_very_many_times_goes_on(ordeals, seed):
    told = ordeals.all(from_outside(seed, 10))

    assert {} == mistakes(told)
    assert under_way(told) >= 1


def test_each_compensation_of_a_killed_rollback_is_done_once_and_in_order(ordeals):
    told = ordeals.all([{"pipeline": "rolled_back", "kills": [number]} for number in range(30, 84, 6)])

    assert {} == mistakes(told)
    assert len(deaths(told)) >= 7


@pytest.mark.slow
def test_each_compensation_is_done_once_wherever_the_process_is_killed(ordeals):
    told = ordeals.all([{"pipeline": "rolled_back", "kills": [number]} for number in range(1, 90)])
    several = ordeals.all(at_random("rollback", 40, "rolled_back"))

    assert {} == mistakes([*told, *several])
    assert under_way(told) >= 70
    assert under_way(several) >= 60


def test_a_clock_that_jumps_back_changes_nothing(ordeals):
    told = ordeals.all([{"clock": "jumps back", "kills": [n, n]} for n in range(60, 150, 30)])

    assert {} == mistakes(told)
    assert under_way(told) >= 4
    for each in told:
        found = each["lives"][-1]["found"]
        plan = next(run for run, is_ in found["runs"].items() if is_["node"] == "plan")
        assert found["outcomes"][plan]["finished"] > found["outcomes"][found["root"]]["started"]


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_nothing_wherever_the_process_is_killed(ordeals):
    told = ordeals.all([{"clock": "jumps back", "kills": [n, n]} for n in range(1, LONGEST, 5)])

    assert {} == mistakes(told)
    assert under_way(told) >= 70


@pytest.mark.slow
def test_a_pipeline_with_a_node_in_another_process_goes_on(ordeals):
    options = {"executor": "process"}
    told = ordeals.all([{"options": options, "kills": [n, n]} for n in range(3, LONGEST, 12)])

    assert {} == mistakes(told)
    assert under_way(told) >= 25


def test_an_effect_is_repeated_if_the_process_died_before_it_was_recorded(ordeals):
    (told,) = ordeals.all([{"kills": ["after the effect right "]}])

    assert {} == mistakes([told])
    right = [(line["life"], line["attempt"]) for line in told["ledger"] if line["node"] == "right"]
    assert [(1, 1), (2, 2)] == right


def test_an_effect_is_not_repeated_once_what_needs_it_has_begun(ordeals):
    (told,) = ordeals.all([{"kills": ["before the effect build lay"]}])

    assert {} == mistakes([told])
    right = [(line["life"], line["attempt"]) for line in told["ledger"] if line["node"] == "right"]
    assert [(1, 1)] == right


@pytest.mark.parametrize(
    ("sabotage", "pipeline", "place", "noticed"),
    [
        ("forgetful", "survivor", "before the effect report ", "node plan was done, and again in life 2"),
        ("hasty", "survivor", "after the effect left ", "left was done before plan"),
        ("silent", "survivor", "before the effect last ", "is lost"),
        ("strange_ids", "survivor", "after the effect flaky try", "broke off in attempt 1 and is still at 1"),
        ("unannounced", "rolled_back", "after the effect collapse undo raise", "undo roof out of order"),
    ],
)
def test_it_would_be_noticed_if_the_engine_were_broken(ordeals, sabotage, pipeline, place, noticed):
    (told,) = ordeals.all([{"sabotage": sabotage, "pipeline": pipeline, "kills": [place]}])

    assert any(noticed in mistake for mistake in told["mistakes"])
