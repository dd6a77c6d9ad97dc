"""Bounds of a number as a form can keep them: inclusive, on the steps between, or excluded by name."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Number: TypeAlias = int | float


class NumberBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The lowest and highest value, the step, and which of the two bounds are not allowed themselves."""

    low: Number | None
    high: Number | None
    step: Number | None
    excluded: list[Number]


def number_bounds(keywords: Mapping[str, object]) -> NumberBounds:
    """
    Return the bounds that a number's schema sets.

    With a step (``multipleOf``, or 1 for integers) both bounds are moved inwards onto it, for browsers count
    steps from the lowest value; an exclusive bound becomes the next step. Without one, an exclusive bound
    stays where it is and is named in `excluded`.
    """
    step = _decimal(keywords.get("multipleOf"))
    if keywords.get("type") == "integer" and (step is None or step % 1):
        step = Decimal(1) if step is None else step * step.as_integer_ratio()[1]
    low = _strictest(keywords, "minimum", "exclusiveMinimum", sign=1)
    high = _strictest(keywords, "maximum", "exclusiveMaximum", sign=-1)
    if step:
        return NumberBounds(
            low=_number(_onto_step(low, step, sign=1)),
            high=_number(_onto_step(high, step, sign=-1)),
            step=_number(step),
            excluded=[],
        )
    excluded = [_number(bound[0]) for bound in (low, high) if bound is not None and bound[1]]
    return NumberBounds(
        low=_number(low[0] if low else None),
        high=_number(high[0] if high else None),
        step=None,
        excluded=[bound for bound in excluded if bound is not None],
    )


def _strictest(
    keywords: Mapping[str, object], inclusive: str, exclusive: str, *, sign: int
) -> tuple[Decimal, bool] | None:
    """Return the bound that allows least, and whether it is not allowed itself."""
    bounds = [
        (value, excluded)
        for key, excluded in ((inclusive, False), (exclusive, True))
        if (value := _decimal(keywords.get(key))) is not None
    ]
    return max(bounds, key=lambda bound: (sign * bound[0], bound[1]), default=None)


def _onto_step(bound: tuple[Decimal, bool] | None, step: Decimal, *, sign: int) -> Decimal | None:
    if bound is None:
        return None
    value, excluded = bound
    steps = value / step
    whole = steps.to_integral_value(rounding="ROUND_CEILING" if sign > 0 else "ROUND_FLOOR")
    if excluded and whole == steps:
        whole += sign
    return whole * step


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    found = Decimal(str(value))
    return found if found.is_finite() else None


def _number(value: Decimal | None) -> Number | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else float(value)
