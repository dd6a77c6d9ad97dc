"""Conditions: what they can say, what they refuse, and that nothing in them can run away."""

from __future__ import annotations

import pytest

from synapse_plugins.pipelines.conditions import (
    ConditionError,
    holds,
    parse_condition,
    references_in_condition,
)
from synapse_plugins.pipelines.references import ReferenceLookupError

SCOPE = {
    "check": {"images": 3, "names": ["a", "b"], "ok": True, "empty": [], "note": "it's"},
    "params": {"mode": "full", "rate": 0.5},
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("${check.images} > 0 and ${params.mode} == 'full'", True),
        ("${check.images} > 3", False),
        ("1 < ${check.images} <= 3", True),
        ("not ${check.ok}", False),
        ("${check.ok} == true", True),
        ("${check.gone:-null} is null", True),
        ("${gone.images:-0} > 0", False),
        ("'a' in ${check.names}", True),
        ("${params.mode} in ['full', 'half']", True),
        ("${params.mode} not in ('full', 'half')", False),
        ("len(${check.names}) == 2", True),
        ("max(${check.images}, 7) - 1 == 6", True),
        ("${check.images} % 2 == 1", True),
        ("${check.names}[0] == 'a'", True),
        ("${params.rate} * 2 == 1 or false", True),
        ('${check.note} == "it\'s"', True),
        ("${check.images}", True),
        ("${check.empty}", False),
        ("${gone:-false}", False),
        (True, True),
        (False, False),
        (None, True),
    ],
)
def test_a_condition_holds_or_not(condition: str | bool | None, expected: bool) -> None:
    assert expected is holds(condition, SCOPE)


def test_the_references_of_a_condition_are_known() -> None:
    found = references_in_condition("${check.images} > 0 and ${params.mode} == 'full'")

    assert ["check.images", "params.mode"] == [reference.plain for reference in found]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("${a} >", "The condition '${a} >' cannot be read: invalid syntax"),
        ("", "The condition '' cannot be read: it is not one expression"),
        ("x = 1", "The condition 'x = 1' cannot be read: it is not one expression"),
        (
            "${a} == full",
            "The condition '${a} == full' has the bare word 'full'; put text in quotes, or write ${full…}",
        ),
        (
            "'${a}' == 'full'",
            "The condition \"'${a}' == 'full'\" has ${a} in quotes; a reference stands without them",
        ),
        (
            "open('x')",
            "The condition \"open('x')\" calls open; "
            "it may call: abs, bool, float, int, len, max, min, round, str",
        ),
        (
            "${a.b}()",
            "The condition '${a.b}()' calls ${a.b}; "
            "it may call: abs, bool, float, int, len, max, min, round, str",
        ),
        (
            "${a}.size > 1",
            "The condition '${a}.size > 1' takes .size of a value; "
            "write it inside the reference, as ${node.size}",
        ),
        ("[x for x in ${a}]", "The condition '[x for x in ${a}]' uses what a condition has not: ListComp"),
        ("2 ** 9", "The condition '2 ** 9' uses what a condition has not: Pow"),
        ("f'{1:9}'", "The condition \"f'{1:9}'\" uses what a condition has not: JoinedStr"),
        (
            "lambda: 1",
            "The condition 'lambda: 1' uses what a condition has not: Lambda",
        ),
    ],
)
def test_what_a_condition_may_not_say_is_told_when_it_is_read(condition: str, message: str) -> None:
    with pytest.raises(ConditionError) as raised:
        parse_condition(condition)

    assert message == str(raised.value)


def test_a_condition_has_an_end() -> None:
    with pytest.raises(ConditionError) as raised:
        parse_condition("1 + " * 600 + "1")

    assert f"The condition '{'1 + ' * 10}…' is too long: 2401 characters of 2000" == str(raised.value)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "${params.mode} > 3",
            "The condition '${params.mode} > 3' cannot be evaluated: "
            "'>' not supported between instances of 'str' and 'int'\n  with params.mode = 'full'",
        ),
        (
            "1 / 0 == 1",
            "The condition '1 / 0 == 1' cannot be evaluated: ZeroDivisionError: division by zero",
        ),
        (
            "'x' * 1000000000 == 'x'",
            "The condition \"'x' * 1000000000 == 'x'\" cannot be evaluated: "
            "a text or list in it would be too long",
        ),
        (
            "'%1000000000d' % 1 == ''",
            "The condition \"'%1000000000d' % 1 == ''\" cannot be evaluated: "
            "% takes numbers, not str and int",
        ),
    ],
)
def test_what_the_values_do_not_allow_is_told_when_it_is_met(condition: str, message: str) -> None:
    with pytest.raises(ConditionError) as raised:
        holds(condition, SCOPE)

    assert message == str(raised.value)


def test_a_condition_on_what_is_not_there_needs_a_default() -> None:
    with pytest.raises(ReferenceLookupError) as raised:
        holds("${gone.images} > 0", SCOPE)

    assert (
        "${gone.images}: there is no result of 'gone': it was skipped, or it failed\n"
        "  give a default for that case: ${gone.images:-VALUE}"
    ) == str(raised.value)
