"""The ring in which a worker's words outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from synapse_plugins.ray_executors import spool as spools
from synapse_plugins.ray_executors.bootstrap import code_root
from synapse_plugins.ray_executors.spool import SIZE, Spool, rest_of, sweep

WAIT = 60


@pytest.fixture(autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give each test a temporary folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("spools")
        patch.setattr("tempfile.tempdir", str(place))
        yield place / f"synapse-kernel-{os.getuid()}" / "spool"


@pytest.fixture
def spool() -> Iterator[Spool]:
    """Return a spool in which an attempt has begun."""
    made = Spool()
    made.begin("run-1")
    yield made
    made.remove()


def lines(*numbers: int, width: int = 8) -> bytes:
    return b"".join(b"%0*d\n" % (width - 1, number) for number in numbers)


def taken(spool: Spool) -> bytes:
    """Take all that is there."""
    found = b""
    while piece := spool.take(SIZE):
        found += piece
    return found


def test_what_is_written_is_taken_once_and_in_order(spool: Spool):
    spool.write(b"one\n")
    spool.write(b"two\n")

    assert b"one\ntw" == spool.take(6)
    assert b"o\n" == spool.take(6)
    assert b"" == spool.take(6)


def test_the_ring_goes_round(spool: Spool):
    block = lines(*range(SIZE // 4 // 8))
    for _ in range(9):
        spool.write(block)
        assert block == taken(spool)


def test_a_line_that_does_not_fit_before_the_end_of_the_ring_is_whole(spool: Spool):
    spool.write(b"x" * (SIZE // 2))
    taken(spool)
    spool.write(b"x" * (SIZE // 2 - 3))
    taken(spool)

    spool.write(b"across the end\n")

    assert b"across the end\n" == taken(spool)
    assert SIZE + 12 == spool.written == spool.read


@pytest.mark.parametrize("size", [SIZE - SIZE // 4, SIZE, 3 * SIZE + 7])
def test_a_line_that_is_longer_than_the_ring_comes_in_parts(spool: Spool, size: int):
    data = os.urandom(size)
    writer = threading.Thread(target=spool.write, args=(data,))
    writer.start()

    found = b""
    while len(found) < size:
        assert spool.wait(WAIT)
        found += spool.take(1 << 16)

    writer.join(WAIT)
    assert data == found


def test_who_writes_into_a_full_ring_waits_for_room(spool: Spool):
    spool.write(b"x" * (SIZE - SIZE // 4))
    written = threading.Event()
    writer = threading.Thread(target=lambda: (spool.write(b"more"), written.set()))
    writer.start()

    assert not written.wait(0.2)
    spool.take(100)

    assert written.wait(WAIT)
    writer.join(WAIT)


def test_waiting_ends_with_a_word_and_with_a_wake_and_with_time(spool: Spool):
    assert not spool.wait(0.01)
    threading.Timer(0.05, spool.write, [b"word\n"]).start()
    assert spool.wait(WAIT)
    taken(spool)
    threading.Timer(0.05, spool.wake).start()
    assert spool.wait(WAIT)


def test_a_reader_and_a_writer_lose_nothing(spool: Spool):
    count = 20_000
    writer = threading.Thread(target=lambda: [spool.write(lines(number)) for number in range(count)])
    writer.start()

    found = b""
    while len(found) < 8 * count:
        assert spool.wait(WAIT)
        found += spool.take(1000)

    writer.join(WAIT)
    assert lines(*range(count)) == found


# What is left of a process.


def test_the_rest_begins_where_the_reader_stopped(spool: Spool):
    spool.write(lines(1, 2, 3))
    spool.take(12)

    assert lines(1, 2, 3)[12:] == rest_of("run-1", spool.read)
    assert not spool.path.exists()


def test_the_rest_of_what_nobody_heard_of_is_all_since_the_attempt_began(spool: Spool):
    spool.write(lines(1))
    taken(spool)
    spool.begin("run-2")
    spool.write(lines(2))
    taken(spool)

    assert lines(2) == rest_of("run-2", None)


def test_an_attempt_of_which_nothing_is_known_has_no_rest(spool: Spool):
    spool.write(lines(1))

    assert rest_of("run-2", None) is None
    assert rest_of("run-1" * 100, None) is None
    assert spool.path.exists()


def test_long_keys_are_told_apart(spool: Spool):
    spool.begin("r" * 200 + "1")

    assert rest_of("r" * 200 + "2", None) is None
    assert b"" == rest_of("r" * 200 + "1", None)


def test_half_a_line_is_no_part_of_the_rest(spool: Spool):
    spool.write(b"whole\nhal")

    assert b"whole\n" == rest_of("run-1", 0)


def test_what_was_written_over_is_not_told_as_if_it_was_there(spool: Spool):
    for _ in range(3):
        spool.write(b"x" * (SIZE // 2))
        taken(spool)

    assert b"" == rest_of("run-1", 10)


def test_the_rest_across_the_end_of_the_ring_is_whole(spool: Spool):
    for _ in range(3):
        spool.write(lines(*range(SIZE // 4 // 8)))
        taken(spool)
    rest = lines(*range(SIZE // 2 // 8))
    spool.write(rest)

    assert rest == rest_of("run-1", spool.read)


def test_a_file_that_is_no_spool_is_passed_over(root: Path):
    root.mkdir(parents=True)
    (root / "1-odd.spool").write_bytes(b"short")

    assert rest_of("run-1", None) is None


def test_every_line_of_a_process_that_was_killed_is_there(root: Path):
    script = textwrap.dedent(
        f"""
        import tempfile
        tempfile.tempdir = {str(root.parent.parent)!r}
        from synapse_plugins.ray_executors.spool import Spool

        spool = Spool()
        spool.begin("killed")
        number = 0
        while True:
            spool.write(b"%07d\\n" % number)
            number += 1
            if number % 1000 == 0:
                spool.take(7000)
                print(number, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    heard = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    more, _ = process.communicate(timeout=WAIT)
    told = [*heard, *(int(line) for line in more.splitlines())][-1]
    position = told // 1000 * 7000

    rest = rest_of("killed", position)

    assert rest is not None
    first = position // 8
    count = len(rest) // 8
    assert lines(*range(first, first + count)) == rest
    assert told <= first + count


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=300).map(lambda data: data.replace(b"\n", b"") + b"\n"), st.integers(0, 400)
        ),
        max_size=60,
    )
)
def test_taken_and_rest_are_all_that_was_written(steps: list[tuple[bytes, int]]):
    spool = Spool()
    with pytest.MonkeyPatch.context() as patch:
        # Small enough for the ring to go round.
        patch.setattr(spools, "SIZE", 1024)
        patch.setattr(spools, "_KEPT", 256)
        spool.begin("property")
        found = b""
        for data, most in steps:
            while spool.written - spool.read + len(data) > 768:
                found += spool.take(100)
            spool.write(data)
            found += spool.take(most)
        rest = rest_of("property", spool.read)
    spool.remove()

    assert b"".join(data for data, _ in steps) == found + (rest or b"")


# What nobody needs any more.


def test_spools_of_dead_processes_go_after_some_minutes(
    root: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(WAIT)
    left = root / f"{dead.pid}-left.spool"
    left.touch()

    sweep()
    after_one = [path.suffix for path in sorted(root.iterdir(), key=lambda path: path.suffix)]
    sweep()
    soon = left.with_suffix(".left").exists()
    now = time.time()
    monkeypatch.setattr("synapse_plugins.ray_executors.spool.time", lambda: now + 601)
    sweep()

    assert ([".left", ".spool"], True) == (after_one, soon)
    assert [spool.path] == list(root.iterdir())


def test_what_a_dead_process_said_is_found_after_its_spool_was_swept(root: Path):
    made = Spool()
    made.begin("key")
    made.write(b"last words\n")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(WAIT)
    made.path.rename(root / f"{dead.pid}-dead.spool")

    sweep()

    assert b"last words\n" == rest_of("key", None)
    made.remove()


def test_a_spool_is_for_its_user_alone(root: Path, spool: Spool):
    assert [0o700, 0o600] == [path.stat().st_mode & 0o777 for path in (root, spool.path)]


def test_the_folder_around_it_is_too_whatever_the_umask(root: Path):
    """Code lies there as well, and is refused where others could have put it."""
    before = os.umask(0o002)
    try:
        Spool().remove()
    finally:
        os.umask(before)

    assert 0o700 == root.parent.stat().st_mode & 0o777
    assert str(root.parent / "code") == code_root()
