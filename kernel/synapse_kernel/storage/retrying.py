"""Calls that are tried again while their error is one that passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from synapse_kernel.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and after what waits a call is tried: exponential with full jitter."""

    attempts: int = 5
    """How often in all, the first time counted."""
    initial: float = 0.2
    """Seconds that the first wait lasts at most; each next one up to twice as long."""
    maximum: float = 10.0
    """Seconds that no wait exceeds."""


def call_again(policy: RetryPolicy, call: Callable[[], R], explain: Callable[[Exception], StorageError]) -> R:
    """Return what a call gives; raises the error of its last try, explained."""
    try:
        return call()
    except Exception as error:
        told = explain(error)
        if not told.transient or policy.attempts <= 1:
            raise told from error
    # Imported where something failed: most calls never need it.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    failed = [told]

    def again() -> R:
        if failed:
            raise failed.pop()
        try:
            return call()
        except Exception as error:
            raise explain(error) from error

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, StorageError) and error.transient),
        stop=stop_after_attempt(policy.attempts),
        wait=wait_random_exponential(multiplier=policy.initial, max=policy.maximum),
        reraise=True,
    )(again)
