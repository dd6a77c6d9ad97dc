"""The store `sqlite`: the contract, its file, and all that can be wrong with one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from synapse_kernel import Kernel
from synapse_kernel.owners import this_process
from synapse_kernel.stores import Environment, RunQuery, StoreError
from synapse_kernel.testing.run_store import RunStoreContract
from synapse_kernel.testing.run_store_parts import end, ended, log, record
from synapse_plugins.history.sqlite_schema import APPLICATION_ID, VERSION
from synapse_plugins.history.sqlite_store import SqliteStore

ELSEWHERE = "name another file with the setting store, or the variable SYNAPSE_STORE"


class TestTheContract(RunStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], SqliteStore]:
        return lambda: SqliteStore(f"sqlite:{tmp_path}/history.db")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a store that is not there yet."""
    return tmp_path / "history.db"


def opened(place: Path, options: str = "") -> contextlib.closing[SqliteStore]:
    return contextlib.closing(SqliteStore(f"sqlite://{place}{options}"))


def made(place: Path) -> Path:
    """Make a store with one ended run."""
    with opened(place) as store:
        ended(store, this_process(), "r1")
    return place


def refused(place: Path, options: str = "") -> str:
    """Return what is said of a file that is no store, which must be left as it is."""
    before = {path: path.read_bytes() for path in place.parent.iterdir() if path.is_file()}
    with pytest.raises(StoreError) as caught, opened(place, options) as store:
        store.runs()
    assert before == {path: path.read_bytes() for path in place.parent.iterdir() if path.is_file()}
    assert f"sqlite://{place}" == caught.value.url
    return str(caught.value)


def sql(place: Path, *statements: str) -> list[tuple[object, ...]]:
    """Carry statements out past the store, and return what the last one found."""
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def child(code: str, *arguments: object) -> str:
    """Run code in a process of its own, and return what it printed."""
    text = f"import sys\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_the_contract_fails_for_a_store_that_does_not_ask_whether_the_owner_lives(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from synapse_kernel.testing.run_store import RunStoreContract
            from synapse_plugins.history.sqlite_store import SqliteStore

            class Broken(SqliteStore):
                def claim(self, run_id, owner, *, lease=0, **options):
                    self._lives = lambda row, lease: False
                    try:
                        return super().claim(run_id, owner, lease=lease, **options)
                    finally:
                        del self._lives

            class TestBroken(RunStoreContract):
                @pytest.fixture
                def open_store(self, tmp_path):
                    return lambda: Broken(f"sqlite:{tmp_path}/history.db")
            """
        )
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "claim",
            "--tb=no",
            "-rf",
            ".",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    failed = {
        line.split("::")[-1].split(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")
    }
    assert {
        "test_a_claim_that_is_refused_changes_nothing",
        "test_a_run_of_the_callers_own_that_goes_on_cannot_be_claimed",
        "test_a_run_out_of_sight_can_be_claimed_after_its_lease",
        "test_a_run_whose_process_lives_cannot_be_claimed",
        "test_of_many_that_claim_a_run_one_wins",
        "test_who_knows_that_a_run_goes_on_elsewhere_no_more_claims_it",
    } == failed


def test_the_plugin_contributes_both_stores(kernel: Kernel) -> None:
    found = {c.spec.name: (c.spec.schemes, c.spec.extra) for c in kernel.contributions("stores")}

    assert {
        "sqlite": (("sqlite",), None),
        "postgres": (("postgresql", "postgres"), "postgres"),
    } == found
    assert SqliteStore is kernel.resolve("stores", "sqlite")


@pytest.mark.parametrize("url", ["sqlite", "sqlite:", "sqlite:?timeout=5"])
def test_the_default_place_is_a_file_in_the_state_folder(own_home: Path, url: str) -> None:
    with contextlib.closing(SqliteStore(url)) as store:
        assert own_home / "history.db" == store.path
        assert f"sqlite://{own_home}/history.db" == store.url
    assert store.path.is_file()


def test_a_url_names_a_file_from_the_root_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    urls = {
        f"sqlite://{tmp_path}/a.db": "a.db",
        f"sqlite:///{tmp_path}/a.db": "a.db",
        "sqlite:b.db": "b.db",
        "sqlite:deep/er/c.db": "deep/er/c.db",
        f"sqlite:{tmp_path}/with%20space%3F.db": "with space?.db",
        "sqlite:~/d.db": "home/d.db",
        "sqlite:ünï%23%25.db": "ünï#%.db",
    }
    for url, relative in urls.items():
        with contextlib.closing(SqliteStore(url)) as store:
            assert tmp_path / relative == store.path
        assert (tmp_path / relative).is_file()
        # What it calls itself leads there again.
        with contextlib.closing(SqliteStore(store.url)) as again:
            assert store.path == again.path


def test_all_that_is_wrong_with_a_url_is_told_at_once() -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore("sqlite://host/a.db?sinchronous=full&synchronous=off&timeout=soon#x")

    assert (
        "The store sqlite://host/a.db?sinchronous=full&synchronous=off&timeout=soon#x cannot be used:\n"
        "  'host' stands where a host would; write sqlite:///absolute/path.db\n"
        "  a # must be written as %23\n"
        "  'sinchronous' is no option; did you mean 'synchronous'?; there are synchronous and timeout\n"
        "  synchronous is one of normal, full, extra, not 'off'\n"
        "  timeout is a number of seconds up to 86400, not 'soon'"
    ) == str(caught.value)


def test_a_new_file_says_what_it_is_and_lets_readers_go_on_while_one_writes(file: Path) -> None:
    with opened(file):
        pass
    assert [(APPLICATION_ID,)] == sql(file, "PRAGMA application_id")
    assert [(VERSION,)] == sql(file, "PRAGMA user_version")
    assert [("wal",)] == sql(file, "PRAGMA journal_mode")


@pytest.mark.parametrize(("options", "level"), [("", 1), ("?synchronous=full", 2), ("?synchronous=EXTRA", 3)])
def test_a_write_survives_a_loss_of_power_where_it_is_asked_for(file: Path, options: str, level: int) -> None:
    with opened(file, options) as store, store._reading() as tx:
        assert (level,) == tx.execute("PRAGMA synchronous").fetchone()


def test_a_database_without_anything_in_it_becomes_a_store(file: Path) -> None:
    sql(file, "PRAGMA journal_mode = wal", "CREATE TABLE t (x)", "DROP TABLE t")
    made(file)

    assert [(APPLICATION_ID,)] == sql(file, "PRAGMA application_id")


def foreign(why: str, place: Path) -> str:
    return f"The run store {place} {why}; it was left as it is\n  move it away, or {ELSEWHERE}"


def test_a_database_of_another_program_is_refused(file: Path) -> None:
    sql(file, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)")
    assert foreign("is a database of another program", file) == refused(file)

    sql(file, "PRAGMA application_id = 252006673", "DROP TABLE theirs")
    assert foreign("is a database of another program", file) == refused(file)

    sql(file, "CREATE TABLE runs (x)", "PRAGMA journal_mode = wal")
    assert foreign("is a database of another program", file) == refused(file)


def test_a_database_that_another_program_has_open_is_refused_and_not_tidied_up(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as theirs:
        theirs.execute("PRAGMA journal_mode = wal")
        theirs.execute("PRAGMA wal_autocheckpoint = 0")
        theirs.execute("CREATE TABLE theirs (x)")
        assert foreign("is a database of another program", file) == refused(file)


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    for content in (b"x", b"# notes\n" * 1000, os.urandom(5000)):
        file.write_bytes(content)
        assert foreign("is not a database", file) == refused(file)


def test_a_damaged_store_is_refused(file: Path) -> None:
    content = bytearray(made(file).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)

    assert (
        f"The run store {file} is damaged (database disk image is malformed); it was left as it is\n"
        f"  move it away, or {ELSEWHERE}\n  save what can be saved with: sqlite3 {file} .recover"
    ) == refused(file)


def test_a_store_that_was_cut_short_is_refused(file: Path) -> None:
    file.write_bytes(made(file).read_bytes()[:6000])

    assert refused(file).startswith(f"The run store {file} is damaged (")


def test_a_store_of_a_newer_version_is_refused(file: Path) -> None:
    sql(made(file), f"PRAGMA user_version = {VERSION + 1}", "PRAGMA journal_mode = delete")

    assert (
        f"The run store {file} was written by a newer synapse-kernel: its schema is {VERSION + 1}, this one "
        f"knows {VERSION}\n  upgrade with: pip install --upgrade synapse-kernel\n  or {ELSEWHERE}"
    ) == refused(file)


def test_a_history_of_the_first_schema_is_brought_up_to_date(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(Path(__file__).with_name("schema_v1.sql").read_text(encoding="utf-8"))

    with opened(file) as store:
        assert ["r2", "r1"] == [run.run_id for run in store.runs(RunQuery(tags=("nightly",)))]
        assert ["r1"] == [run.run_id for run in store.runs(RunQuery(tags=("ünï",)))]
        first = store.get("r1")
        assert first is not None
        assert ({"epochs": 3}, "succeeded", 4242) == (
            first.params,
            first.status,
            first.owner and first.owner.pid,
        )
        assert {"result": {"path": "/a"}} == store.outcome("r1")
        assert [("r2", "n", "failed", 2)] == [
            (c.run_id, c.node, c.status, c.attempt) for c in store.children("r1")
        ]
        assert [1] == [stored.event.seq for stored in store.events("r1")]
        assert [("epoch", b"3")] == store.entries("r2")
        assert Environment(id="e1", python="3.11", platform="Linux") == store.environment("e1")

        me = this_process()
        assert 3 == store.claim("r2", me).attempt
        assert store.request_cancel("r2")
        ended(store, me, "r3")
        assert 3 == store.count()
    assert [(VERSION,)] == sql(file, "PRAGMA user_version")


def test_an_old_history_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.executescript(Path(__file__).with_name("schema_v1.sql").read_text(encoding="utf-8"))
    for place in (old, new):
        with opened(place):
            pass

    def shape(place: Path) -> list[str]:
        found = sql(place, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        return ["".join(str(text).split()) for (text,) in found]

    assert shape(new) == shape(old)


def test_cached_results_of_an_old_history_are_their_runs(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(Path(__file__).with_name("schema_v1.sql").read_text(encoding="utf-8"))
        values = {"a": b'{"run_id":"r1","result":1}', "b": b'{"run_id":"gone"}', "c": b"\xff{", "d": b"[1]"}
        connection.executemany(
            "INSERT INTO checkpoints (scope, key, value) VALUES ('cache', ?, ?)", values.items()
        )
        connection.commit()

    with opened(file) as store:
        assert ["a", "c", "d"] == [key for key, _ in store.entries("cache")]
        store.delete(["r1"])
        assert ["c", "d"] == [key for key, _ in store.entries("cache")]


def test_a_sqlite_that_is_too_old_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")

    assert (
        f"The run store {file} needs SQLite 3.35 or later; this Python comes with 3.34.1\n"
        "  use a Python that has a newer one, or name a PostgreSQL database with the setting store, or the "
        "variable SYNAPSE_STORE"
    ) == refused(file)


def test_a_url_that_cannot_be_read_is_told() -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore("sqlite://[x")

    assert ("The store sqlite://[x cannot be used:\n  its [ or ] must be written as %5B or %5D") == str(
        caught.value
    )


def test_a_folder_in_the_way_is_told(file: Path) -> None:
    file.mkdir()

    assert f"The run store {file} cannot be opened: a folder or device is there\n  {ELSEWHERE}" == refused(
        file
    )


def test_a_file_where_its_folder_should_be_is_told(file: Path) -> None:
    file.write_text("")
    inside = file / "deep" / "history.db"
    with pytest.raises(StoreError) as caught, opened(inside):
        pass

    assert (f"The run store {inside} cannot be made: Not a directory: {inside.parent}\n  {ELSEWHERE}") == str(
        caught.value
    )


AS_ANOTHER = """
    import os
    from synapse_kernel.owners import this_process
    from synapse_kernel.stores import StoreError
    from synapse_kernel.testing.run_store_parts import record
    from synapse_plugins.history.sqlite_store import SqliteStore
    me = this_process()
    if os.getuid() == 0:
        # Python's own files may be closed to others: what is needed of them is loaded by now.
        os.setuid(65534)
    try:
        store = SqliteStore("sqlite:" + sys.argv[1])
        store.start(record("new"), me)
    except StoreError as error:
        print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that any user can enter; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="synapse-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_told(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    file = open_folder / "history.db"
    deep = open_folder / "deep" / "history.db"

    assert (
        f"The run store {file} cannot be used: unable to open database file\n"
        f"  let your user write it and its folder, or {ELSEWHERE}\n"
    ) == child(AS_ANOTHER, file)
    assert (
        f"The run store {deep} cannot be made: Permission denied: {deep.parent}\n  {ELSEWHERE}\n"
    ) == child(AS_ANOTHER, deep)


def test_a_file_that_cannot_be_written_is_told(open_folder: Path) -> None:
    file = made(open_folder / "history.db")
    file.chmod(0o444)
    open_folder.chmod(0o777)

    assert (
        f"The run store {file} cannot be used: attempt to write a readonly database\n"
        f"  let your user write it and its folder, or {ELSEWHERE}\n"
    ) == child(AS_ANOTHER, file)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk with room for two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if os.getuid() != 0 or mount is None:
        pytest.skip("only root can mount a disk to fill")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(store: SqliteStore) -> None:
    for number in range(1000):
        store.put("s", {f"k{number}": b"x" * 50_000})


def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    file = small_disk / "history.db"
    with opened(file) as store:
        store.start(record("r1"), this_process())
        (small_disk / "other").write_bytes(bytes(500_000))
        with pytest.raises(StoreError) as caught:
            fill(store)

        assert (
            f"The run store {file} cannot be written: the disk is full\n"
            f"  free some space there, or {ELSEWHERE}"
        ) == str(caught.value)
        kept = [key for key, _ in store.entries("s")]
        assert [f"k{n}" for n in range(len(kept))] == kept
        assert 5 < len(kept)

        (small_disk / "other").unlink()
        store.finish(end("r1", "failed"))
        assert [("ok",)] == sql(file, "PRAGMA integrity_check")


def test_a_file_that_may_not_grow_is_told_and_loses_nothing(file: Path) -> None:
    told = child(
        """
        import resource
        from synapse_kernel.stores import StoreError
        from synapse_plugins.history.sqlite_store import SqliteStore
        store = SqliteStore("sqlite:" + sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            for n in range(1000):
                store.put("s", {f"k{n}": b"x" * 50_000})
        except StoreError as error:
            print(n, error)
        """,
        file,
    )
    kept, _, message = told.partition(" ")
    assert f"The run store {file} cannot be used: disk I/O error\n  {ELSEWHERE}\n" == message
    with opened(file) as store:
        assert [f"k{n}" for n in range(int(kept))] == [key for key, _ in store.entries("s")]
    assert [("ok",)] == sql(file, "PRAGMA integrity_check")


def test_a_store_that_another_process_keeps_locked_is_told_after_the_timeout(file: Path) -> None:
    made(file)
    with (
        contextlib.closing(sqlite3.connect(file, isolation_level=None)) as theirs,
        opened(file, "?timeout=0.1") as store,
    ):
        theirs.execute("BEGIN EXCLUSIVE")
        assert ["r1"] == [run.run_id for run in store.runs()]
        with pytest.raises(StoreError) as caught:
            store.put("r1", {"k": b"v"})
        theirs.execute("ROLLBACK")
        store.put("r1", {"k": b"v"})

    assert (
        f"The run store {file} is locked by another process, for more than 0.1 s\n"
        f"  see which with: fuser {file}"
    ) == str(caught.value)


def test_a_store_that_another_process_keeps_locked_is_waited_for(file: Path) -> None:
    made(file)
    code = """
        import sqlite3, time
        theirs = sqlite3.connect(sys.argv[1], isolation_level=None)
        theirs.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        time.sleep(0.3)
        theirs.execute("INSERT INTO checkpoints (scope, key, value) VALUES ('s', 'theirs', x'00')")
        theirs.execute("COMMIT")
        theirs.close()
    """
    with (
        opened(file) as store,
        subprocess.Popen(
            [sys.executable, "-c", f"import sys\n{textwrap.dedent(code)}", str(file)], stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        assert b"locked\n" == process.stdout.readline()
        store.put("s", {"ours": b""})
        assert ["theirs", "ours"] == [key for key, _ in store.entries("s")]


def set_back(place: Path, **columns: int) -> None:
    """Move the clocks' readings in the file by some seconds."""
    changes = ", ".join(f"{name} = {name} + {seconds * 1_000_000}" for name, seconds in columns.items())
    sql(place, f"UPDATE owners SET {changes}")


def test_silence_on_this_machine_is_measured_by_a_clock_that_no_one_can_set(file: Path) -> None:
    far = msgspec.structs.replace(this_process(), namespace="another container")
    with opened(file) as store:
        store.start(record("r1"), far)
        set_back(file, seen=-3600)
        assert [] == store.reap(lease=60)

        set_back(file, seen=7200, ticks=-3600)
        assert ["r1"] == store.reap(lease=60)


def test_while_the_machine_sleeps_no_one_is_silent(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, slept = time.clock_gettime_ns, 0
    # What Linux counts a sleep by.
    counting = getattr(time, "CLOCK_BOOTTIME", None)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: real(clock) + slept * (clock == counting))
    far = msgspec.structs.replace(this_process(), namespace="another container")
    with opened(file) as store:
        store.start(record("r1"), far)
        set_back(file, seen=-3600)
        slept = 3600 * 10**9

        assert [] == store.reap(lease=60)


def test_a_reading_of_another_clock_is_not_taken_for_a_sign_of_life(file: Path) -> None:
    """An older version read one that is ahead by as long as the machine had slept."""
    far = msgspec.structs.replace(this_process(), namespace="another container")
    with opened(file) as store:
        store.start(record("r1"), far)
        set_back(file, seen=-7200, ticks=3600)

        assert ["r1"] == store.reap(lease=60)


def test_silence_of_another_machine_or_boot_is_measured_by_the_wall_clock(file: Path) -> None:
    far = msgspec.structs.replace(this_process(), boot="another")
    with opened(file) as store:
        store.start(record("r1"), far)
        set_back(file, ticks=-3600)
        assert [] == store.reap(lease=60)

        set_back(file, seen=3600)
        assert [] == store.reap(lease=60), "one that is ahead of us is not dead"

        set_back(file, seen=-7200)
        assert ["r1"] == store.reap(lease=60)


def test_a_process_that_has_no_runs_any_more_is_forgotten_with_the_last(file: Path) -> None:
    me, gone = this_process("me"), this_process("gone")
    with opened(file) as store:
        ended(store, me, "r1")
        ended(store, gone, "r2", "r3")
        store.forget(gone)
        store.delete(["r2"])
        assert [("gone",), ("me",)] == sql(file, "SELECT token FROM owners ORDER BY token")

        store.delete(["r1", "r3"])
        assert [("me",)] == sql(file, "SELECT token FROM owners"), "it may still say something"


def test_a_child_that_was_forked_uses_the_store_beside_its_parent(file: Path) -> None:
    told = child(
        """
        import os, threading
        from synapse_plugins.history.sqlite_store import SqliteStore
        store = SqliteStore("sqlite:" + sys.argv[1])
        store.put("s", {"before": b""})
        pids = []
        for name in ("a", "b"):
            pid = os.fork()
            if not pid:
                for n in range(50):
                    store.put("s", {f"{name}{n}": b""})
                os._exit(0)
            pids.append(pid)
        for n in range(50):
            store.put("s", {f"p{n}": b""})
        print([os.waitpid(pid, 0)[1] for pid in pids], len(store.entries("s")))
        """,
        file,
    )
    assert "[0, 0] 151\n" == told
    assert [("ok",)] == sql(file, "PRAGMA integrity_check")


def test_a_process_forks_while_its_threads_open_stores(file: Path) -> None:
    told = child(
        """
        import os, threading
        from synapse_plugins.history import sqlite_store
        from synapse_plugins.history.sqlite_store import SqliteStore

        class Blank(SqliteStore):
            def _open(self):
                pass

        sys.setswitchinterval(1e-6)
        sys.unraisablehook = lambda told: print(told.exc_value)
        going = True
        kept = [Blank() for n in range(200)]

        def work():
            while going:
                kept.append(Blank())
                del kept[200:400]

        thread = threading.Thread(target=work)
        thread.start()
        for n in range(300):
            pid = os.fork()
            if not pid:
                Blank()
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            if status:
                print(status)
        going = False
        thread.join()
        """,
        file,
    )
    assert "" == told


def test_another_connection_of_this_process_does_not_lose_its_locks(file: Path) -> None:
    """POSIX drops the locks of a process on a file when it closes any descriptor of that file."""
    with opened(file) as store, opened(file):
        with store._writing() as tx:
            tx.execute("INSERT INTO checkpoints (scope, key, value) VALUES ('s', 'k', x'00')")
            with opened(file):
                pass
            told = child(
                """
                from synapse_kernel.stores import StoreError
                from synapse_plugins.history.sqlite_store import SqliteStore
                store = SqliteStore("sqlite:" + sys.argv[1] + "?timeout=0.1")
                try:
                    store.put("s", {"k": b"theirs"})
                except StoreError as error:
                    print("locked" in str(error))
                """,
                file,
            )
        assert "True\n" == told
        assert b"\0" == store.value("s", "k")


def interrupted(store: SqliteStore) -> None:
    with store._writing() as tx:
        tx.execute("DELETE FROM runs")
        raise KeyboardInterrupt


def test_an_error_in_the_midst_of_a_write_takes_it_back(file: Path) -> None:
    with opened(file) as store:
        store.start(record("r1"), this_process())
        with pytest.raises(KeyboardInterrupt):
            interrupted(store)
        assert ["r1"] == [run.run_id for run in store.runs()]
        store.append("r1", [log("r1")])


def test_a_write_that_was_interrupted_before_it_could_end_is_taken_back_by_the_next(file: Path) -> None:
    with opened(file) as store:
        with store._reading() as tx:
            tx.execute("BEGIN IMMEDIATE")
            tx.execute("INSERT INTO checkpoints (scope, key, value) VALUES ('s', 'half', x'')")
        store.put("s", {"whole": b""})

        assert ["whole"] == [key for key, _ in store.entries("s")]
