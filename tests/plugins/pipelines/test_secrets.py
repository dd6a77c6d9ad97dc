"""What is secret by its type is kept out of the history, on the first run and when a pipeline goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from synapse_kernel import Kernel, action
from synapse_kernel.contracts import Outcome
from synapse_kernel.errors import ProblemsError
from synapse_plugins.pipelines import REQUIRED, ActionPipeline, Pipeline
from synapse_plugins.pipelines.engine import PipelineChangedError

STATE = {"fails": True}


class Login(BaseModel):
    """Who logs in."""

    user: str = "me"
    pin: SecretStr = SecretStr("")


class Wanted(BaseModel):
    """Params with what is secret by its type alone."""

    entry: SecretStr
    login: Login = Login()


@action
def enter(params: Wanted) -> int:
    """Go in."""
    return len(params.entry.get_secret_value())


@action
def say(params: dict[str, object]) -> None:
    """Take what it is given, and fail where it is told to."""
    if STATE["fails"]:
        raise LookupError("gone")


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel that records."""
    STATE["fails"] = True
    with Kernel({"store": f"sqlite://{tmp_path}/history.db", "retry": {"initial": 0.0}}, strict=True) as made:
        yield made


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], bytes]:
    """Return a function that reads all that was written."""
    return lambda: b"".join(file.read_bytes() for file in tmp_path.glob("history.db*"))


def pipeline(entry: object = REQUIRED, size: int = 1, **default: object) -> Pipeline:
    """Return a pipeline whose params are secret by the fields that they fill."""
    made = Pipeline("p", params={"entry": entry, "login": default, "size": size})
    made.add("enter", enter, with_={"entry": "${params.entry}", "login": "${params.login}"})
    made.add("say", say, with_={"text": "it is ${params.entry}", "size": "${params.size}"}, needs=["enter"])
    return made


GIVEN = {"entry": "given-pin-of-four-words", "login": {"pin": "inner-pin-of-four-words"}}


def failed(kernel: Kernel) -> Outcome:
    """Run the pipeline until it fails."""
    outcome = pipeline().execute(GIVEN, kernel=kernel)
    assert outcome.error is not None
    return outcome


def test_params_that_are_secret_by_type_are_not_written(
    recording: Kernel, written: Callable[[], bytes]
) -> None:
    outcome = failed(recording)

    assert recording.store is not None
    record = recording.store.get(outcome.run_id)
    assert record is not None
    assert {"entry": "***", "login": "***", "size": 1} == record.params
    assert b"pin-of-four-words" not in written()


def test_defaults_that_are_secret_by_type_are_not_in_the_definition(
    recording: Kernel, written: Callable[[], bytes]
) -> None:
    outcome = pipeline("default-pin-of-four-words", pin="inner-pin-of-four-words").execute(kernel=recording)

    assert recording.store is not None
    record = recording.store.get(outcome.run_id)
    assert record is not None
    assert record.definition is not None
    assert {"entry": "***", "login": "***", "size": 1} == record.definition["params"]
    assert b"pin-of-four-words" not in written()


def test_what_is_written_into_a_secret_field_is_not_in_the_definition(
    recording: Kernel, written: Callable[[], bytes]
) -> None:
    made = Pipeline("p")
    made.add(
        "enter",
        enter,
        with_={"entry": "literal-pin-of-four-words", "login": {"pin": "inner-pin-of-four-words"}},
    )

    assert made.execute(kernel=recording).ok

    assert b"pin-of-four-words" not in written()


def test_a_secret_must_be_given_again_to_go_on_and_is_not_written_then(
    recording: Kernel, written: Callable[[], bytes]
) -> None:
    run_id = failed(recording).run_id

    with pytest.raises(ProblemsError) as caught:
        pipeline().execute(kernel=recording, resume=run_id)

    assert (
        f"Run {run_id} had secret params, which the history does not keep; give them again:\n"
        "  entry: -p entry=VALUE\n"
        "  login: -p login=VALUE"
    ) == str(caught.value)
    STATE["fails"] = False
    assert pipeline().execute(GIVEN, kernel=recording, resume=run_id).ok
    assert b"pin-of-four-words" not in written()


def test_secrets_are_not_kept_with_a_pipeline_that_goes_on_changed_and_are_asked_for_again(
    recording: Kernel, written: Callable[[], bytes]
) -> None:
    run_id = failed(recording).run_id
    changed = {**GIVEN, "size": 2}

    assert not pipeline().execute(changed, kernel=recording, resume=run_id, force=True).ok

    assert b"pin-of-four-words" not in written()
    with pytest.raises(ProblemsError) as caught:
        pipeline().execute({"size": 2}, kernel=recording, resume=run_id)
    assert "  entry: -p entry=VALUE\n  login: -p login=VALUE" in str(caught.value)
    STATE["fails"] = False
    assert pipeline().execute(changed, kernel=recording, resume=run_id).ok


def test_what_differs_is_told_without_secrets(recording: Kernel) -> None:
    run_id = (
        pipeline("default-pin-of-four-words", pin="inner-pin-of-four-words").execute(kernel=recording).run_id
    )

    with pytest.raises(PipelineChangedError) as caught:
        pipeline("another-pin-of-four-words", pin="sesame", size=2).execute(
            GIVEN, kernel=recording, resume=run_id
        )

    assert "params: 'size' was 1 by default, is 2 by default" in str(caught.value)
    assert not re.search("pin-of-four-words|sesame", str(caught.value))


def test_a_param_that_has_become_secret_since_is_told_without_its_value(recording: Kernel) -> None:
    made = Pipeline("p", params={"entry": "was-pin-of-four-words"})
    made.add("say", say, with_={"entry": "${params.entry}"})
    run_id = made.execute(kernel=recording).run_id
    now = Pipeline("p", params={"entry": REQUIRED})
    now.add("say", enter, with_={"entry": "${params.entry}"})

    with pytest.raises(PipelineChangedError) as caught:
        now.execute({"entry": "is-pin-of-four-words"}, kernel=recording, resume=run_id)

    assert "is-pin-of-four-words" not in str(caught.value)
    assert "params: 'entry' was '***', is '***'" in str(caught.value)


def test_secret_defaults_of_a_chain_are_not_written(recording: Kernel, written: Callable[[], bytes]) -> None:
    chain = ActionPipeline(
        [enter, say],
        params={"entry": "default-pin-of-four-words", "login": {"pin": "inner-pin-of-four-words"}},
    )

    outcome = chain.execute(kernel=recording)

    assert recording.store is not None
    record = recording.store.get(outcome.run_id)
    assert record is not None
    assert ["entry", "login"] == record.masked
    assert b"pin-of-four-words" not in written()
