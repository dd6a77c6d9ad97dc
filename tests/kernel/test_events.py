"""Events: what they hold, and that all of it survives the way through JSON."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import pathlib
import types
from time import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from pydantic import BaseModel, SecretStr

from synapse_kernel import Artifact, Event, Kernel, Log, Message, Metrics, Progress, State, action
from synapse_kernel.events import (
    FINAL_STATUSES,
    decode_event,
    decode_events,
    encode_data,
    encode_event,
    encode_events,
    encode_metrics,
)

HEAD: tuple[Any, ...] = ("run-1", 7, 1700000000.25, "train", "load")

EVENTS: list[Event] = [
    State(*HEAD, "retrying", 2, "OSError: gone"),
    Log(*HEAD, "epoch", "warning", msgspec.Raw(encode_data({"n": 1, "inner": {"a": [1, None, "é"]}}))),
    Log(*HEAD, "bare"),
    Progress(*HEAD, "train", 3, 10, 1.5),
    Progress(*HEAD, None, 2.5),
    Metrics(*HEAD, "val", msgspec.Raw(encode_metrics({"loss": 0.25, "n": 3}))),
    Message(*HEAD, "done", "success"),
    Artifact(*HEAD, "weights", "/w.pt", 5),
    Artifact(*HEAD, "folder", "/w"),
]


def parts(event: Event) -> dict[str, object]:
    """Return an event's fields, with encoded data as it reads."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    if "raw" in fields:
        fields["raw"] = json.loads(bytes(fields["raw"]))
    return fields


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_each_event_survives_json(event: Event):
    line = encode_event(event)

    found = decode_event(line)

    assert type(event) is type(found)
    assert parts(event) == parts(found)
    assert parts(event) == parts(decode_event(line.decode()))


def test_a_batch_survives_json_in_order():
    found = decode_events(encode_events(EVENTS))

    assert [type(e) for e in EVENTS] == [type(e) for e in found]
    assert [parts(e) for e in EVENTS] == [parts(e) for e in found]


def test_as_json_an_event_is_one_object_whose_kind_names_its_type():
    assert {
        "kind": "log",
        "run_id": "run-1",
        "seq": 7,
        "time": 1700000000.25,
        "action": "train",
        "step": "load",
        "event": "epoch",
        "level": "info",
        "data": {"n": 1},
    } == json.loads(encode_event(Log(*HEAD, "epoch", "info", msgspec.Raw(b'{"n":1}'))))
    kinds = [json.loads(encode_event(event))["kind"] for event in EVENTS]
    assert [
        "state",
        "log",
        "log",
        "progress",
        "progress",
        "metrics",
        "message",
        "artifact",
        "artifact",
    ] == kinds


def test_metrics_that_are_no_finite_numbers_survive_json():
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "n": 3, "x": 0.5}

    line = encode_event(Metrics(*HEAD, "train", msgspec.Raw(encode_metrics(values))))
    found = decode_event(line).values

    assert json.loads(line)["values"] == {
        "nan": "NaN",
        "up": "Infinity",
        "down": "-Infinity",
        "n": 3,
        "x": 0.5,
    }
    assert math.isnan(found.pop("nan"))
    assert {"up": math.inf, "down": -math.inf, "n": 3, "x": 0.5} == found


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.booleans(), max_size=5))
def test_any_numbers_by_any_name_survive_json(values: dict[str, float]):
    line = encode_event(Metrics(*HEAD, None, msgspec.Raw(encode_metrics(values))))

    found = decode_event(line).values

    assert values.keys() == found.keys()
    for name, value in values.items():
        assert value == found[name] or (math.isnan(value) and math.isnan(found[name]))


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=8,
    )
)
def test_any_json_data_survives_json(value: object):
    line = encode_event(Log(*HEAD, "e", "info", msgspec.Raw(encode_data({"value": value}))))

    assert {"value": value} == decode_event(line).data


@pytest.mark.parametrize("line", [b"", b"{}", b'{"kind": "other"}', b'{"kind": "log"}', b"[1]"])
def test_what_is_no_event_is_refused(line: bytes):
    with pytest.raises(msgspec.DecodeError):
        decode_event(line)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_events_cannot_be_changed(event: Event):
    with pytest.raises(AttributeError):
        event.seq = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("state", "level"),
    [
        ("pending", "info"),
        ("running", "info"),
        ("retrying", "warning"),
        ("succeeded", "info"),
        ("failed", "error"),
        ("cancelled", "warning"),
        ("timed_out", "error"),
        ("crashed", "error"),
    ],
)
def test_a_state_has_a_level(state: Any, level: str):
    assert level == State(*HEAD, state).level


@pytest.mark.parametrize(
    ("context", "level"),
    [("info", "info"), ("success", "info"), ("warning", "warning"), ("error", "error"), ("odd", "info")],
)
def test_a_message_has_a_level(context: str, level: str):
    assert level == Message(*HEAD, "text", context).level


def test_progress_metrics_and_artifacts_are_of_level_info():
    levels = {e.level for e in EVENTS if isinstance(e, (Progress, Metrics, Artifact))}

    assert {"info"} == levels


@pytest.mark.parametrize(
    ("current", "total", "expected"),
    [(1, 4, 25.0), (0, 4, 0.0), (5, 4, 100.0), (-1, 4, 0.0), (1, None, None), (1, 0, None)],
)
def test_percent_is_the_share_done(current: float, total: float | None, expected: float | None):
    assert expected == Progress(*HEAD, None, current, total).percent


# What is logged.


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int


class Scalar:
    """Stands for the number of an array library."""

    shape = ()

    def item(self) -> float:
        return 1.5

    def __repr__(self) -> str:
        return "<scalar>"


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (decimal.Decimal("1.5"), "1.5"),
        (datetime.date(2024, 5, 6), "2024-05-06"),
        (pathlib.Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Point(x=1), {"x": 1}),
        (Scalar(), 1.5),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ((1, 2), [1, 2]),
        (2**70, 2**70),
        (Odd(), "<odd>"),
        ([Odd()], ["<odd>"]),
        (SecretStr("hush"), "SecretStr('**********')"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_logged_data_becomes_json_and_the_rest_its_repr(value: object, expected: object):
    assert {"value": expected} == json.loads(encode_data({"value": value}))


def test_keys_of_logged_data_become_text():
    assert {"1": "a", "(2, 3)": "b", "None": "c"} == json.loads(encode_data({1: "a", (2, 3): "b", None: "c"}))  # type: ignore[dict-item]


def test_logged_data_that_is_no_mapping_is_kept_under_value():
    assert {"value": [1, 2]} == json.loads(encode_data([1, 2]))  # type: ignore[arg-type]
    assert {"value": "text"} == json.loads(encode_data("text"))  # type: ignore[arg-type]


def test_text_that_no_json_can_hold_is_kept_as_repr_with_secrets_masked():
    data = {"text": "\ud800", "api_key": "hush"}

    assert {"repr": "{'text': '\\ud800', 'api_key': '***'}"} == json.loads(encode_data(data))


def test_data_that_contains_itself_is_told_as_such():
    data: dict[str, object] = {}
    data["self"] = data

    assert {"repr": "<dict that contains itself>"} == json.loads(encode_data(data))


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1], 1j, object], ids=lambda v: type(v).__name__)
def test_a_metric_that_is_no_number_is_refused_by_name(value: object):
    with pytest.raises(TypeError) as raised:
        encode_metrics({"fine": 1, "loss": value})

    assert f"metric 'loss' is not a number: {value!r}" == str(raised.value)


@pytest.mark.parametrize("value", [[1, 2], "text", None, 5], ids=lambda v: type(v).__name__)
def test_metrics_that_are_no_mapping_are_refused(value: Any):
    with pytest.raises(TypeError) as raised:
        encode_metrics(value)

    assert f"set_metrics takes numbers by name, not {value!r}" == str(raised.value)


def test_numbers_of_other_kinds_are_metrics():
    values = {"decimal": decimal.Decimal("1.5"), "bool": True, "scalar": Scalar()}

    assert {"decimal": 1.5, "bool": 1, "scalar": 1.5} == json.loads(encode_metrics(values))


# In a run.


@pytest.mark.parametrize("ending", ["succeeded", "failed"])
def test_a_run_numbers_its_events_from_one_without_gaps(kernel: Kernel, recorder: Any, ending: str):
    @action
    def work(params, ctx):
        for n in range(5000):
            ctx.log("step", {"n": n})
            ctx.set_progress(n, 5000)
        if ending == "failed":
            raise ValueError("over")

    before = time()
    outcome = kernel.run(work, sinks=[recorder])
    after = time()

    events = recorder.events
    assert ending == outcome.status
    assert list(range(1, len(events) + 1)) == [e.seq for e in events]
    assert {outcome.run_id} == {e.run_id for e in events}
    assert {"work"} == {e.action for e in events}
    assert all(before <= e.time <= after for e in events)
    logged = [e.time for e in events if isinstance(e, Log)]
    assert sorted(logged) == logged
    assert list(range(5000)) == [e.data["n"] for e in events if isinstance(e, Log)]


def test_a_run_tells_its_states_and_ends_with_one_final_state(kernel: Kernel, recorder: Any):
    @action
    def work(params, ctx):
        return None

    outcome = kernel.run(work, sinks=[recorder])

    states = [e.state for e in recorder.of(State)]
    assert ["pending", "running", "succeeded"] == states
    assert [recorder.events[-1].state] == [s for s in states if s in FINAL_STATUSES]
    assert outcome is recorder.outcome


def test_the_numbering_goes_on_through_retries(recorder: Any):
    @action
    def flaky(params, ctx):
        ctx.log("try", {"attempt": ctx.attempt})
        if ctx.attempt < 3:
            raise OSError("not yet")

    with Kernel({"retry": {"initial": 0.001, "maximum": 0.002}}, strict=True) as kernel:
        kernel.run(flaky, retries=3, sinks=[recorder])

    assert list(range(1, len(recorder.events) + 1)) == [e.seq for e in recorder.events]
    told = [(e.state, e.attempt) for e in recorder.of(State)]
    assert [
        ("pending", 1),
        ("running", 1),
        ("retrying", 1),
        ("running", 2),
        ("retrying", 2),
        ("running", 3),
        ("succeeded", 3),
    ] == told
    assert [1, 2, 3] == [e.data["attempt"] for e in recorder.of(Log)]
