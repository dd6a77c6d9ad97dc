"""What Tab offers for a place."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from tests.plugins.storage.commands.conftest import FILES, fill

from synapse_kernel.cli.app import AppState, app


@pytest.fixture
def offered(work: Path):
    """Return a function that tells what the shell offers, with its kind."""

    def complete(*args: str) -> list[tuple[str, str]]:
        state = AppState()
        try:
            completer = ShellComplete(app, {"obj": state}, "synapse-kernel", "_COMPLETE")
            found = completer.get_completions(["storage", *args[:-1]], args[-1])
            return [(item.type, item.value) for item in found]
        finally:
            state.close()

    return complete


@pytest.mark.parametrize("incomplete", ["sto", "storage:/", "storage://"])
def test_the_names_of_the_settings_are_offered(offered, incomplete: str):
    assert [("plain", "storage://other/"), ("plain", "storage://pool/")] == offered("ls", incomplete)


def test_the_names_that_begin_so_are_offered(offered):
    assert [("plain", "storage://pool/")] == offered("cp", "data", "storage://p")


def test_keys_of_a_storage_on_this_machine_are_offered(offered, work: Path):
    fill(work / "pool", FILES)

    assert [
        ("plain", "storage://pool/a/"),
        ("plain", "storage://pool/b/"),
        ("plain", "storage://pool/top.txt"),
    ] == (offered("ls", "storage://pool/"))
    assert [("plain", "storage://pool/a/1.txt")] == offered("ls", "storage://pool/a/1")


def test_paths_are_the_shell_s(offered):
    assert [("file", "da")] == offered("sync", "da")


@pytest.mark.parametrize("incomplete", ["s3://bucket/", "storage://nobody/x"])
def test_no_server_is_asked_and_no_error_shown(offered, incomplete: str):
    assert [] == offered("ls", incomplete)
