"""`kernel.run` in this process, without listeners, against calling the action itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from figures import Figure, at_least, rate
from pydantic import BaseModel
from startup import NOOP

from synapse_kernel import BaseAction, Kernel


class Noop(BaseAction):
    """Does nothing."""

    def execute(self) -> None:
        return None


class Bare:
    """What the kernel is compared with: an object and its method."""

    def execute(self) -> None:
        return None


class Params(BaseModel):
    """Five fields."""

    a: int = 1
    b: float = 0.5
    c: str = "x"
    d: bool = False
    e: list[int] = []


class WithParams(BaseAction[Params, Params]):
    """Returns its params."""

    def execute(self) -> Params:
        return self.params


def figures() -> list[Figure]:
    """Measure each."""
    with tempfile.TemporaryDirectory() as folder, Kernel() as kernel:
        (Path(folder) / "config.yaml").write_text("name: noop\nactions: {noop: 'main:Noop'}\n")
        (Path(folder) / "main.py").write_text(NOOP)
        outcome = kernel.run(folder, "noop", sinks=["none"])
        assert outcome.ok, outcome.error
        bare = rate(lambda: Bare().execute(), 200_000)
        label = f"a bare object's method: {bare:,.0f}/s"
        return [
            at_least(
                "kernel.run from a folder",
                rate(lambda: kernel.run(folder, "noop", sinks=["none"]), 5_000), 10_000, baseline=label,
            ),
            at_least(
                "kernel.run from an action class (aim 60,000)",
                rate(lambda: kernel.run(Noop, sinks=["none"]), 20_000), 20_000, baseline=label,
            ),
            at_least(
                "kernel.run from an action class with five params",
                rate(lambda: kernel.run(WithParams, None, {"a": 2}, sinks=["none"]), 20_000), 20_000,
                baseline=label,
            ),
        ]  # fmt: skip
