"""The threads in which nodes run: as many as are needed at once, and none afterwards."""

from __future__ import annotations

import threading
import time

from synapse_plugins.pipelines.workers import Workers

WAIT = 60


def alive(name: str) -> list[threading.Thread]:
    """Return the threads of workers of a name."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def wait_until_gone(name: str) -> None:
    """Wait until the threads have ended."""
    until = time.monotonic() + WAIT
    while alive(name):
        assert time.monotonic() < until
        time.sleep(0.001)


def test_calls_that_need_each_other_run_side_by_side() -> None:
    workers, barrier, done = Workers("side"), threading.Barrier(5), threading.Semaphore(0)

    def meet() -> None:
        barrier.wait(WAIT)
        done.release()

    for _ in range(5):
        workers.start(meet)

    assert all(done.acquire(timeout=WAIT) for _ in range(5))
    workers.close()
    wait_until_gone("side")


def test_a_thread_that_is_free_is_used_again() -> None:
    workers, threads = Workers("again"), set()
    for _ in range(50):
        done = threading.Event()

        def note(done: threading.Event = done) -> None:
            threads.add(threading.get_ident())
            done.set()

        workers.start(note)
        assert done.wait(WAIT)
        # It is free a moment after it has said so.
        assert workers._idle.acquire(timeout=WAIT)
        workers._idle.release()

    assert (1, 1) == (len(threads), len(alive("again")))
    workers.close()
    wait_until_gone("again")


def test_work_under_way_is_finished_after_the_close() -> None:
    workers, go_on, done = Workers("finish"), threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(WAIT)
        done.set()

    workers.start(work)
    workers.close()
    go_on.set()

    assert done.wait(WAIT)
    wait_until_gone("finish")


def test_workers_that_were_never_needed_have_no_thread() -> None:
    Workers("none").close()

    assert [] == alive("none")
