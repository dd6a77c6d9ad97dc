"""The contract of executors notices one that breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = Path(__file__).with_name("broken_executors.py")

RESULT = "test_params_have_the_defaults_of_their_model"
EVENTS = "test_events_come_in_the_order_they_were_said_with_all_they_hold"
LIVE = "test_events_are_heard_while_the_action_runs"
ERROR = "test_an_exception_becomes_data_with_the_actions_own_traceback"


@pytest.fixture(scope="module")
def judged() -> dict[str, dict[str, str]]:
    """Return what became of some of the contract's tests, by class and test."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", str(BROKEN)),
            *("-k", " or ".join((RESULT, EVENTS, LIVE, ERROR))),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found: dict[str, dict[str, str]] = {}
    for kind, test, result in re.findall(r"::Test(\w+)::(\w+) ([A-Z]+)", done.stdout):
        found.setdefault(kind, {})[test] = result
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(
    ("executor", "broken"),
    [
        ("Sound", set()),
        ("LosesTheLastEvent", {EVENTS, ERROR}),
        ("KeepsEventsToTheEnd", {LIVE}),
        ("EndsTwice", {RESULT, EVENTS, LIVE, ERROR}),
        ("SwallowsTheMessage", {ERROR}),
        ("NeverEnds", {RESULT, EVENTS, ERROR}),
    ],
)
def test_the_contract_fails_where_it_is_broken_and_nowhere_else(
    judged: dict[str, dict[str, str]], executor: str, broken: set[str]
):
    expected = {test: "FAILED" if test in broken else "PASSED" for test in (RESULT, EVENTS, LIVE, ERROR)}

    assert expected == judged[executor]
