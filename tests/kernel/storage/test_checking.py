"""The check of a storage: each operation is tried, told and undone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.storage.memory import MemoryProvider, in_memory, texts_of

from synapse_kernel import Kernel
from synapse_kernel.storage import Storage, StorageConnectionError
from synapse_kernel.storage.checking import CheckReport, CheckStep, check


def failing(storage: Storage, **errors: Exception) -> Storage:
    """Let operations of a storage in memory fail."""

    def fail(operation: str, _key: str) -> None:
        if operation in errors:
            raise errors[operation]

    provider = storage.provider
    assert isinstance(provider, MemoryProvider)
    provider.before = fail
    return storage


def steps_of(report: CheckReport) -> dict[str, tuple[bool | None, str | None, str | None]]:
    return {step.operation: (step.ok, step.reason, step.hint) for step in report.steps}


WORKS = (True, None, None)


def test_where_everything_is_allowed_everything_works_and_nothing_is_left_behind():
    storage = in_memory({"a.txt": "one"})

    report = check(storage)

    assert {"list": WORKS, "write": WORKS, "read": WORKS, "delete": WORKS} == steps_of(report)
    assert (storage.url, True, True, None) == (report.url, report.ok, report.readable, report.left_behind)
    assert {"a.txt": "one"} == texts_of(storage)


def test_a_folder_of_this_machine_is_left_as_it_was(tmp_path: Path, kernel: Kernel):
    assert kernel.storage(f"file://{tmp_path}").check().ok
    assert [] == list(tmp_path.iterdir())


def test_where_only_reading_is_allowed_a_file_that_is_there_is_read():
    storage = failing(in_memory({"a.txt": "one"}), put=PermissionError("denied"))

    report = check(storage)

    assert {
        "list": WORKS,
        "write": (
            False,
            "not allowed: denied",
            "give these credentials the right to write, or use it for reading only",
        ),
        "read": WORKS,
        "delete": (None, "nothing could be written", None),
    } == steps_of(report)
    assert (False, True) == (report.ok, report.readable)


def test_where_only_reading_is_allowed_and_nothing_is_there_it_says_so():
    report = check(failing(in_memory(), put=PermissionError("denied")))

    assert (None, "nothing could be written, and no file is there", None) == steps_of(report)["read"]
    assert report.readable


def test_where_reading_is_not_allowed_nothing_is_left_behind():
    storage = failing(in_memory(), read=PermissionError("denied"))

    report = check(storage)

    assert [True, True, False, True] == [step.ok for step in report.steps]
    assert {} == texts_of(storage)


def test_where_listing_is_not_allowed_the_rest_is_tried():
    report = check(failing(in_memory(), entries=PermissionError("denied")))

    assert [False, True, True, True] == [step.ok for step in report.steps]
    assert "give these credentials the right to list it" == report.steps[0].hint
    assert not report.readable


def test_a_file_that_cannot_be_deleted_is_told():
    storage = failing(in_memory(), delete=PermissionError("denied"))

    report = check(storage)

    assert [report.left_behind] == list(texts_of(storage))
    assert (
        CheckStep(
            operation="delete",
            ok=False,
            reason="not allowed: denied",
            hint="give these credentials the right to delete files",
        )
        == report.steps[3]
    )


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, kernel: Kernel):
    report = check(kernel.storage("file:///").at(f"{tmp_path}/missing".lstrip("/")))

    assert (
        False,
        "there is nothing under this key",
        "see that the bucket, host and folder of its URL are there",
    ) == steps_of(report)["list"]
    assert [(None, "there is no such folder", None)] * 3 == [*steps_of(report).values()][1:]
    assert [] == list(tmp_path.iterdir())


def test_a_host_that_cannot_be_reached_is_told_with_what_to_look_at():
    gone = StorageConnectionError("the host is not known")
    report = check(failing(in_memory(), entries=gone, put=gone, stat=gone))

    assert (
        False,
        "the host is not known",
        "see that the host, the port and the network are right",
    ) == steps_of(report)["list"]
    assert [False, False, None, None] == [step.ok for step in report.steps]


def test_an_interrupt_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    storage = in_memory()

    def interrupt(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "read_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check(storage)

    assert {} == texts_of(storage)
