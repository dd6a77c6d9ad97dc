"""Files of a web server that `download_file` keeps: by the whole address, and gone on with after a break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.plugins.storage.http.answering import Answer, Answering, Asked, answering

from synapse_kernel import Kernel
from synapse_kernel.settings import Settings
from synapse_kernel.storage import download_file
from synapse_plugins.storage.http.provider import HttpProvider

CONTENT = bytes(range(256)) * 40
CHANGED = CONTENT[::-1]


class Served:
    """A file that a server has, and gives in parts without looking at `If-Range`."""

    content = CONTENT
    etag = '"1"'

    def __call__(self, asked: Asked) -> Answer:
        headers = {"ETag": self.etag}
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        if not start:
            return Answer(200, headers, self.content)
        size = len(self.content)
        part = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return Answer(206, {**headers, **part}, self.content[start:])


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(Settings()) as kernel:
        yield kernel


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def server(served: Served) -> Iterator[Answering]:
    with answering(served) as server:
        yield server


def left_part(kernel: Kernel, url: str, folder: Path, *, is_left: bool) -> Path:
    """Leave what a process leaves that ended at the half; return where the copy will be."""
    copy = download_file(url, folder, kernel=kernel)
    note = folder / f".{copy.name}.json"
    mark = {"content": msgspec.json.decode(note.read_bytes()), "is_left": is_left}
    (folder / f".{copy.name}.part.json").write_bytes(msgspec.json.encode(mark))
    (folder / f".{copy.name}.part").write_bytes(CONTENT[:5000])
    note.unlink()
    copy.unlink()
    return copy


def test_a_download_is_kept_by_its_whole_address(kernel: Kernel, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(200, {"ETag": f'"{len(asked.path)}"'}, asked.path.encode())

    with answering(answer) as server:
        first, second = (
            download_file(f"{server.url}a%20b.bin?token={token}", tmp_path, kernel=kernel)
            for token in ("one", "two")
        )

    assert (b"/a%20b.bin?token=one", b"/a%20b.bin?token=two") == (
        first.read_bytes(),
        second.read_bytes(),
    )
    assert first.name.endswith("-a b.bin")
    assert not any(b"token" in file.read_bytes() for file in tmp_path.glob(".*"))


def test_a_killed_download_is_gone_on_with_by_the_next_process(
    kernel: Kernel, server: Answering, tmp_path: Path
) -> None:
    left_part(kernel, f"{server.url}file", tmp_path, is_left=False)

    assert CONTENT == download_file(f"{server.url}file", tmp_path, kernel=kernel).read_bytes()
    assert {"range": "bytes=5000-", "if-range": '"1"'}.items() <= server.asked[-1].headers.items()


def test_a_part_of_a_file_that_changed_is_not_gone_on_with(
    kernel: Kernel, served: Served, server: Answering, tmp_path: Path
) -> None:
    left_part(kernel, f"{server.url}file", tmp_path, is_left=True)
    served.content, served.etag = CHANGED, '"2"'

    assert CHANGED == download_file(f"{server.url}file", tmp_path, kernel=kernel).read_bytes()
    assert "range" not in server.asked[-1].headers


@pytest.mark.parametrize(("is_left", "goes_on"), [(True, True), (False, False)])
def test_what_was_not_written_in_order_is_good_only_if_it_was_left_so(
    kernel: Kernel,
    server: Answering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_left: bool,
    goes_on: bool,
) -> None:
    monkeypatch.setattr(HttpProvider, "gets_in_order", False)
    left_part(kernel, f"{server.url}file", tmp_path, is_left=is_left)

    assert CONTENT == download_file(f"{server.url}file", tmp_path, kernel=kernel).read_bytes()
    assert goes_on == ("range" in server.asked[-1].headers)
