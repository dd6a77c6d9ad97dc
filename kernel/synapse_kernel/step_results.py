"""How a step ended: its result, or the error that ends its workflow."""

from __future__ import annotations

import msgspec

from synapse_kernel.errors import SynapseError


class StepResult(msgspec.Struct, kw_only=True):
    """What a step did: its data for later steps, and what its own rollback will need."""

    success: bool = True
    data: dict[str, object] = {}
    rollback_data: dict[str, object] = {}
    skipped: bool = False
    error: str | None = None


class StepFailed(SynapseError):  # noqa: N818 - the name that authors of workflows know
    """
    A step ended its workflow; raised from the cause, where there is an exception.

    `step` is its name, `result` what it returned, `rollback_errors` maps steps to what their rollback raised.
    """

    exit_code = 1

    def __init__(self, step: str, reason: str, result: StepResult | None = None) -> None:
        self.step = step
        self.result = result
        self.rollback_errors: dict[str, Exception] = {}
        self.concluded = False
        """True once its workflow is rolled back: to a workflow around that one, it is a cause like others."""
        super().__init__(f"Step {step!r} failed: {reason}")
