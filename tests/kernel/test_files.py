"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_kernel.files import write_whole


def test_a_new_file_holds_the_text_as_it_was_given(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "one\r\ntwo\nü")

    assert "one\r\ntwo\nü".encode() == (tmp_path / "a.txt").read_bytes()


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(0o600)

    write_whole(file, "new")

    assert ("new", 0o600) == (file.read_text(), file.stat().st_mode & 0o777)


def test_a_reader_that_has_the_old_file_open_still_reads_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    with file.open() as reader:
        write_whole(file, "new")
        assert "old" == reader.read()


def test_what_stood_there_stays_when_writing_fails_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """A lone surrogate is no text that UTF-8 could hold, so that the write fails half way."""
    file = tmp_path / "a.txt"
    file.write_text("old")

    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "x" * 100_000 + "\udcff")

    assert ("old", ["a.txt"]) == (file.read_text(), [p.name for p in tmp_path.iterdir()])


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "a.txt", "text")
