"""The contract of storage providers notices one that breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = Path(__file__).with_name("broken_providers.py")
ROOT = Path(__file__).parents[3]

BYTES = "test_bytes_come_back_as_they_were_written"
ENCODED = "test_an_encoded_dot_is_just_a_name"
FORMS = "test_two_unicode_forms_of_a_name_are_two_files"
SOUGHT = "test_an_open_file_can_be_sought_in"
PREFIX = "test_a_folder_whose_name_begins_like_another_is_not_in_it"
MANY = "test_many_files_are_listed_each_once"
MISSING = "test_reading_what_is_not_there_says_where"
CHANGED = "test_a_file_that_changed_since_it_was_looked_at_is_not_written"
LISTENER = "test_a_listener_that_raises_in_the_middle_leaves_what_was_there"
DOWNLOADED = "test_a_file_is_downloaded"
DELETED = "test_the_provider_deletes_keys_together_and_minds_none_that_is_missing"
WRITERS = "test_two_writers_of_one_key_leave_one_whole_content"
TESTS = (
    BYTES, ENCODED, FORMS, SOUGHT, PREFIX, MANY, MISSING, CHANGED, LISTENER, DOWNLOADED, DELETED, WRITERS,
)  # fmt: skip


@pytest.fixture(scope="module")
def judged() -> dict[str, dict[str, str]]:
    """Return what became of some of the contract's tests, by class and test."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", str(BROKEN)),
            *("-k", " or ".join(TESTS)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    found: dict[str, dict[str, str]] = {}
    for kind, test, result in re.findall(r"::Test(\w+)::(\w+) ([A-Z]+)", done.stdout):
        found.setdefault(kind, {})[test] = result
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(
    ("provider", "broken"),
    [
        ("Sound", set()),
        ("WritesInPieces", {CHANGED, LISTENER, WRITERS}),
        ("DoesNotCheckTheSource", {CHANGED}),
        ("TakesPrefixesForFolders", {PREFIX}),
        ("DecodesKeys", {ENCODED}),
        ("NormalizesNames", {FORMS}),
        ("ReadsOneByteTooMany", {SOUGHT}),
        ("ListsOnePage", {MANY}),
        ("MindsWhatIsMissing", {DELETED}),
        ("ForgetsWhere", {MISSING}),
        ("GetsHalf", {DOWNLOADED}),
    ],
)
def test_the_contract_fails_where_it_is_broken_and_nowhere_else(
    judged: dict[str, dict[str, str]], provider: str, broken: set[str]
):
    expected = {test: "FAILED" if test in broken else "PASSED" for test in TESTS}

    assert expected == judged[provider]
