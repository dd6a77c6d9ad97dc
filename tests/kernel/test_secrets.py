"""No secret of a run leaves it, whichever way it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from synapse_kernel import Kernel, Log, RuntimeContext, action
from synapse_kernel.testing import RecordedSink

SECRET = "correct-horse-battery"


@pytest.mark.parametrize("executor", ["local", "process"])
def test_an_error_that_quotes_a_secret_is_masked_in_events_and_outcome(
    kernel: Kernel, make_folder: Callable[..., Path], tmp_path: Path, executor: str
) -> None:
    folder = make_folder(
        {
            "main.py": """
                from synapse_kernel import action

                @action
                def leak(params, ctx):
                    print("printed", ctx.env["API_KEY"], flush=True)
                    raise ValueError(f"refused: {ctx.env['API_KEY']} and {params['password']}")
            """
        }
    )
    file = tmp_path / "events.jsonl"
    outcome = kernel.run(
        str(folder), "leak", {"password": "tr0ub4dor"}, env={"API_KEY": SECRET}, executor=executor,
        sinks=[f"jsonl:{file}"],
    )  # fmt: skip
    assert outcome.error is not None
    assert "refused: *** and ***" == outcome.error.message
    told = json.dumps(outcome.to_dict()) + file.read_text()
    assert SECRET not in told
    assert "tr0ub4dor" not in told


def test_a_computed_field_survives_the_way_from_another_process(
    kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    folder = make_folder(
        {
            "main.py": """
                from pydantic import BaseModel, ConfigDict, computed_field
                from synapse_kernel import action

                class Area(BaseModel):
                    model_config = ConfigDict(extra="forbid")
                    side: int

                    @computed_field
                    @property
                    def area(self) -> int:
                        return self.side ** 2

                @action
                def measure(params, ctx) -> Area:
                    return Area(side=3)
            """
        }
    )
    outcome = kernel.run(str(folder), "measure", executor="process")
    assert ("Area", [], {"side": 3, "area": 9}) == (
        type(outcome.result).__name__,
        outcome.warnings,
        outcome.to_dict()["result"],
    )


class WithDefault(BaseModel):
    token: SecretStr = SecretStr("default-secret")


@action
def tell(params: WithDefault, ctx: RuntimeContext) -> None:
    """Say the secret that its model holds by default."""
    ctx.log("connect", {"url": f"https://x/?t={params.token.get_secret_value()}"})


def test_a_secret_that_a_model_holds_by_default_is_masked(kernel: Kernel) -> None:
    sink = RecordedSink()
    assert kernel.run(tell, sinks=[sink]).ok
    assert [{"url": "https://x/?t=***"}] == [event.data for event in sink.of(Log)]


def test_each_line_of_a_secret_is_masked_in_what_a_process_prints(
    kernel: Kernel, make_folder: Callable[..., Path]
) -> None:
    folder = make_folder(
        {
            "main.py": """
                from synapse_kernel import action

                @action
                def leak(params, ctx):
                    print(ctx.env["PRIVATE_KEY"], flush=True)
            """
        }
    )
    sink = RecordedSink()
    env = {"PRIVATE_KEY": "-----BEGIN-----\nAAAABBBBCCCC\n-----END-----"}
    assert kernel.run(str(folder), "leak", env=env, executor="process", sinks=[sink]).ok
    assert ["***"] * 3 == [event.data["text"] for event in sink.of(Log)]


def test_an_error_is_masked_whether_or_not_anyone_listens(kernel: Kernel) -> None:
    @action
    def fail(params: dict[str, str], ctx: RuntimeContext) -> None:
        raise ValueError(f"bad {ctx.env['API_KEY']}")

    for sinks in ([], [RecordedSink()]):
        error = kernel.run(fail, env={"API_KEY": SECRET}, sinks=sinks).error
        assert error is not None
        assert "bad ***" == error.message
