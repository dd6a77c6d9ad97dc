"""What the kernel gives to stores: outcomes as they are kept, checkpoints, errors that name the next step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from pydantic import BaseModel, SecretStr, computed_field

from synapse_kernel import Kernel, UnknownNameError
from synapse_kernel.contracts import ErrorInfo, Outcome
from synapse_kernel.errors import UsageError
from synapse_kernel.owners import this_process
from synapse_kernel.stores import (
    CheckpointStore,
    RunBusyError,
    RunNotFoundError,
    RunStore,
    StoreError,
    end_of,
    kept_result,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Shelf:
    """Holds values, and none of the rest of a store."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.writes = 0

    def put(self, scope: str, entries: Mapping[str, bytes]) -> None:
        """Keep values."""
        self.writes += 1
        self.kept.update({(scope, key): value for key, value in entries.items()})

    def value(self, scope: str, key: str) -> bytes | None:
        """Return a value."""
        return self.kept.get((scope, key))

    def entries(self, scope: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Return values."""
        found = self.kept.items()
        return [(key, value) for (where, key), value in found if where == scope and key.startswith(prefix)]

    def remove(self, scope: str, keys: Sequence[str] | None = None) -> None:
        """Forget values."""
        for key in keys or ():
            self.kept.pop((scope, key), None)


@pytest.fixture
def shelf() -> Shelf:
    """Return a shelf."""
    return Shelf()


@pytest.fixture
def checkpoints(shelf: Shelf) -> CheckpointStore:
    """Return the checkpoints of a run."""
    return CheckpointStore(cast("RunStore", shelf), "r1")


class Point(BaseModel):
    """A model with a field that is computed."""

    x: int = 1
    path: Path = Path("/a")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        """Return twice x."""
        return self.x * 2


def done(result: object = None, **changes: Any) -> Outcome:
    """Conclude a run."""
    return Outcome(
        **{"run_id": "r1", "status": "succeeded", "action": "a", "started": NOW, "finished": NOW, **changes},
        result=result,
    )


def test_checkpoints_come_back_as_plain_data_in_the_order_they_were_put(
    checkpoints: CheckpointStore,
) -> None:
    checkpoints.put("b", Point(x=2))
    checkpoints.put_all({"a/1": [1, None], "a/2": {"k": "ü"}})

    assert {"x": 2, "path": "/a"} == checkpoints.get("b")
    assert [("b", {"x": 2, "path": "/a"}), ("a/1", [1, None]), ("a/2", {"k": "ü"})] == checkpoints.items()
    assert [("a/1", [1, None]), ("a/2", {"k": "ü"})] == checkpoints.items("a/")


def test_several_checkpoints_are_one_write(checkpoints: CheckpointStore, shelf: Shelf) -> None:
    checkpoints.put_all({"a": 1, "b": 2})
    assert 1 == shelf.writes


def test_a_checkpoint_that_is_not_there_is_the_default_and_null_is_not(checkpoints: CheckpointStore) -> None:
    checkpoints.put("null", None)

    assert checkpoints.get("null", "default") is None
    assert checkpoints.get("gone") is None
    assert "default" == checkpoints.get("gone", "default")


def test_removed_checkpoints_are_gone(checkpoints: CheckpointStore) -> None:
    checkpoints.put_all({"a": 1, "b": 2, "c": 3})

    checkpoints.remove("a", "c", "never there")

    assert [("b", 2)] == checkpoints.items()


def test_a_checkpoint_that_json_cannot_hold_is_refused_with_its_place_and_nothing_is_kept(
    checkpoints: CheckpointStore, shelf: Shelf
) -> None:
    with pytest.raises(UsageError) as caught:
        checkpoints.put_all({"good": 1, "bad": {"it": [object()]}})

    assert (
        "The checkpoint is not JSON: bad['it'][0] is of type object\n"
        "  keep numbers, text, lists and mappings; write the rest to a file and keep its path"
    ) == str(caught.value)
    assert {} == shelf.kept


@pytest.mark.parametrize(
    ("result", "kept", "reusable"),
    [
        (None, None, True),
        ({"a": [1, "x"]}, {"a": [1, "x"]}, True),
        (Point(x=3), {"x": 3, "path": "/a"}, True),
        ({"api_key": "hush"}, {"api_key": "***"}, False),
        ({"deep": [{"password": "hush"}]}, {"deep": [{"password": "***"}]}, False),
        ({"keypoints": "many"}, {"keypoints": "many"}, True),
        ({1, 2}.__class__, "<class 'set'>", False),
        ({"a": int, "token": "hush"}, {"a": "<class 'int'>", "token": "***"}, False),
        ((1, (2, "x")), [1, [2, "x"]], True),
        ({1: ("a", None)}, {"1": ["a", None]}, True),
        ({"loss": float("inf")}, {"loss": float("inf")}, False),
        ({"big": 2**70 + 1}, {"big": 2**70 + 1}, True),
    ],
)
def test_a_result_is_kept_without_secrets_and_says_whether_it_is_whole(
    result: object, kept: object, reusable: bool
) -> None:
    assert (kept, reusable) == kept_result(result)


def test_a_secret_of_the_run_is_taken_out_of_a_result_wherever_it_stands() -> None:
    result = {"url": "https://me:hush-hush@host", 'say "hush-hush"': [1]}

    assert ({"url": "https://me:***@host", 'say "***"': [1]}, False) == kept_result(result, ["hush-hush"])
    assert ({"url": "plain"}, True) == kept_result({"url": "plain"}, ["hush-hush"])


@pytest.mark.parametrize("secrets", [[], ["hush-hush"]])
@pytest.mark.parametrize("result", [float("nan"), {"losses": [0.5, float("nan")]}])
def test_no_one_goes_on_from_a_number_that_json_would_make_null_of(
    result: object, secrets: list[str]
) -> None:
    assert not kept_result(result, secrets)[1]


def test_a_secret_field_of_a_result_is_never_written_out() -> None:
    class Hidden(BaseModel):
        pin: SecretStr = SecretStr("hush-hush")

    kept, _ = kept_result(Hidden())
    assert "hush-hush" not in json.dumps(kept)


def test_an_outcome_is_kept_with_its_error_in_one_line() -> None:
    error = ErrorInfo(type="ValueError", message="first\nsecond", traceback="Traceback…")
    end = end_of(done(status="failed", error=error, attempts=3))

    assert ("r1", "failed", NOW, 3, "ValueError: first") == (
        end.run_id,
        end.status,
        end.finished,
        end.attempt,
        end.error,
    )
    told = msgspec.json.decode(end.outcome)
    assert "first\nsecond" == told["error"]["message"]
    assert "Traceback…" == told["error"]["traceback"]


def test_an_outcome_is_kept_as_its_json() -> None:
    outcome = done(Point(x=3), warnings=["careful"])

    told = msgspec.json.decode(end_of(outcome).outcome)

    assert {**outcome.to_dict(), "result": {"x": 3, "path": "/a"}} == told


def test_errors_of_a_store_say_what_to_do_next() -> None:
    owner = this_process()
    assert "No run 'x' is in sqlite:///a.db\n  see what is there with: synapse-kernel runs list" == str(
        RunNotFoundError("x", url="sqlite:///a.db")
    )
    assert (
        f"Run x is running in process {owner.pid} on {owner.host}\n"
        "  watch it with: synapse-kernel runs watch x\n"
        "  stop it with:  synapse-kernel runs cancel x"
    ) == str(RunBusyError("x", owner))
    assert "sqlite:///a.db" == StoreError("It is full", url="sqlite:///a.db").url


@pytest.fixture
def misled() -> Iterator[Kernel]:
    """Return a kernel whose store no plugin serves."""
    with Kernel({"store": "sqlit:///x.db"}, strict=True) as kernel:
        yield kernel


def test_a_store_that_no_plugin_serves_is_told_with_those_there_are(misled: Kernel) -> None:
    with pytest.raises(UnknownNameError) as caught:
        _ = misled.store
    assert (
        "Run store 'sqlit' is not registered; did you mean 'sqlite'?\n  registered: postgres, sqlite"
        == str(caught.value)
    )


def test_a_kernels_store_is_opened_once_and_its_owner_is_one(tmp_path: Path) -> None:
    with Kernel({"store": f"sqlite://{tmp_path}/history.db"}, strict=True) as kernel:
        assert not (tmp_path / "history.db").exists()
        assert kernel.store is kernel.store
        assert isinstance(kernel.store, RunStore)
        assert kernel.owner is kernel.owner
        with Kernel(strict=True) as other:
            assert other.store is None
            assert other.owner.token != kernel.owner.token


def test_a_result_with_a_name_that_is_no_text_is_kept_as_one_can_read_it() -> None:
    assert ({"file": "caf\\udce9.txt"}, False) == kept_result({"file": "caf\udce9.txt"})
