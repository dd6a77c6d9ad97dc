"""The action `pause`, written as a function."""

from __future__ import annotations

import time

from pydantic import BaseModel, Field

from synapse_kernel import RuntimeContext, action

STEP = 0.05


class PauseParams(BaseModel):
    """How long to pause."""

    seconds: float = Field(1, ge=0, le=3600, description="How long to pause.")


@action
def pause(params: PauseParams, ctx: RuntimeContext) -> str:
    """Pause, as something to time out or to cancel."""
    ctx.log("pausing", {"seconds": params.seconds})
    steps = round(params.seconds / STEP)
    for done in range(1, steps + 1):
        time.sleep(STEP)
        ctx.set_progress(done, steps)
    return f"paused for {params.seconds:g} s"
