"""The store `postgres`, on a real server: the contract, and what the server or another program may do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from synapse_kernel import Kernel
from synapse_kernel.owners import this_process
from synapse_kernel.stores import RunStore, StoreError
from synapse_kernel.testing.run_store import RunStoreContract
from synapse_kernel.testing.run_store_parts import end, ended, log, record
from synapse_plugins.history.postgres_schema import VERSION
from synapse_plugins.history.urls import postgres_place

if TYPE_CHECKING:
    import psycopg
    from tests.plugins.history.conftest import Server

    from synapse_plugins.history.postgres_store import PostgresStore

ELSEWHERE = "name another store with the setting store, or the variable SYNAPSE_STORE"
TABLES = ("events", "tags", "cancels", "details", "checkpoints", "environments", "runs", "owners")


def open_postgres(url: str) -> PostgresStore:
    """Import on use: psycopg may not be there."""
    from synapse_plugins.history.postgres_store import PostgresStore

    return PostgresStore(url)


def opened(url: str) -> contextlib.closing[PostgresStore]:
    return contextlib.closing(open_postgres(url))


def shown(server: Server, schema: str) -> str:
    """Return how the store calls itself."""
    return f"postgresql://tester@/postgres?host={server.sockets}&schema={schema}"


@pytest.fixture(scope="session")
def admin(postgres: Server) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Connect to the server past the store."""
    import psycopg

    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def contract_url(postgres: Server) -> str:
    """Make the tables once: to do so takes longer than a test."""
    url = postgres.url(schema="contract")
    open_postgres(url).close()
    return url


class TestTheContract(RunStoreContract):
    @pytest.fixture
    def open_store(
        self, contract_url: str, admin: psycopg.Connection[tuple[object, ...]]
    ) -> Callable[[], RunStore]:
        admin.execute("; ".join(f"DELETE FROM contract.{table}" for table in TABLES))
        return lambda: open_postgres(contract_url)


def refused(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        open_postgres(url)
    assert "hush" not in str(caught.value)
    return str(caught.value)


def test_the_store_is_found_by_its_schemes(kernel: Kernel) -> None:
    pytest.importorskip("psycopg")
    from synapse_plugins.history.postgres_store import PostgresStore

    assert [PostgresStore] * 3 == [
        kernel.resolve("stores", name) for name in ("postgres", "postgresql", "postgres")
    ]


def test_a_store_never_shows_its_password(postgres: Server, url: str, schema: str) -> None:
    with opened(f"{url}&password=hush&timeout=5") as store:
        assert shown(postgres, schema) == store.url


def test_the_schema_is_named_in_the_url_or_ours(
    postgres: Server, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    with opened(postgres.url()) as store:
        ended(store, this_process(), "r1")
    assert (1,) == admin.execute("SELECT count(*) FROM synapse_kernel.runs").fetchone()
    admin.execute("DROP SCHEMA synapse_kernel CASCADE")


def test_the_variables_of_libpq_say_where_the_server_is(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    for name, value in (("PGHOST", postgres.sockets), ("PGUSER", "tester"), ("PGDATABASE", "postgres")):
        monkeypatch.setenv(name, value)
    for url in (f"postgres:?schema={schema}", f"postgresql://?schema={schema}"):
        with opened(url) as store:
            assert 0 == store.count()
            assert f"postgresql://?schema={schema}" == store.url


def test_all_that_is_wrong_with_a_url_is_told_at_once() -> None:
    pytest.importorskip("psycopg")

    assert (
        "The store postgresql://me@host/db?sslmode=require&schema=a%20b cannot be used:\n"
        "  schema is a name of letters, digits and _, not 'a b'\n"
        "  timeout is a number of seconds up to 86400, not '-1'"
    ) == refused("postgresql://me:hush@host/db?schema=a%20b&timeout=-1&sslmode=require")


def test_options_that_are_not_written_as_such_are_told() -> None:
    pytest.importorskip("psycopg")

    assert (
        "The store postgresql://h/db cannot be used:\n"
        "  a # must be written as %23\n"
        "  an option is written NAME=VALUE, and an & in its value as %26"
    ) == refused("postgresql://h/db?password=a&hush#hush")


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("postgresql://u:a/hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:a#hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:a?hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:a@hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:[hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:hush]@h/db?sslpassword=hush", "postgresql://***@h/db"),
        ("postgresql:u:hush@h/db", "postgresql://***@h/db"),
        ("postgresql://u:hush", "postgresql://***"),
        ("postgresql://h/db?password=a@hush", "postgresql://***"),
        ("postgresql://h/db?pass%77ord=a@hush", "postgresql://***"),
        ("postgresql://[hush", "postgresql://***"),
    ],
)
def test_a_password_that_is_not_quoted_is_told_and_not_shown(url: str, shown_as: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        open_postgres(url)

    assert (
        f"The store {shown_as} cannot be used:\n"
        "  where its password or name has one of # % / ? @ [ ], it must be quoted: "
        "%23 %25 %2F %3F %40 %5B %5D, in this order"
    ) == str(caught.value)
    assert shown_as == caught.value.url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hu%zzsh@127.0.0.1:1/db?timeout=2",
        "postgresql://127.0.0.1:1/db?password=hu%zzsh&timeout=2",
        "postgresql://127.0.0.1:1/db?port=hu%20%20sh&sslpassword=hu%20%20sh&timeout=2",
    ],
)
def test_what_libpq_repeats_of_a_password_is_not_shown(url: str) -> None:
    pytest.importorskip("psycopg")

    told = refused(url)
    assert "hu" not in told.partition(" cannot be used: ")[2]


def test_a_plus_in_a_password_is_a_plus() -> None:
    place = postgres_place("postgresql://h/db?password=a+b%20c")

    assert "postgresql://h/db?password=a%2Bb%20c" == place.conninfo
    assert ("a%2Bb%20c", "a+b c") == place.secrets


def test_a_server_that_is_not_there_is_told(postgres: Server) -> None:
    told = refused("postgresql://me:hush@127.0.0.1:1/db?timeout=2")

    assert told.startswith(
        "The run store postgresql://me@127.0.0.1:1/db cannot be used: connection failed: "
        'connection to server at "127.0.0.1", port 1 failed: Connection refused'
    )


def test_a_database_that_is_not_there_is_told(postgres: Server) -> None:
    told = refused(f"postgresql://tester:hush@/gone?host={postgres.sockets}")

    assert told.startswith(
        f"The run store postgresql://tester@/gone?host={postgres.sockets} cannot be used: connection failed: "
    )
    assert told.endswith('FATAL: database "gone" does not exist')


def test_a_user_that_may_not_make_the_schema_is_told(
    postgres: Server, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    admin.execute(f"CREATE ROLE guest_{schema} LOGIN")
    url = f"postgresql://guest_{schema}@/postgres?host={postgres.sockets}"

    assert (
        f"The run store {url}&schema={schema} cannot be used: permission denied for database postgres\n"
        f"  ask for the right to create the schema, or {ELSEWHERE}"
    ) == refused(f"{url}&schema={schema}")


def test_an_empty_schema_that_was_made_for_us_is_used(
    url: str, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    admin.execute(f"CREATE SCHEMA {schema}")

    with opened(url) as store:
        assert 0 == store.count()


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE {0}.runs (x int)",
        "CREATE VIEW {0}.anything AS SELECT 1",
        "CREATE TABLE {0}.about (x int)",
        "CREATE TABLE {0}.about (name text, value text);"
        "INSERT INTO {0}.about VALUES ('application', 'other')",
    ],
)
def test_a_schema_of_another_program_is_refused_and_left_as_it_is(
    postgres: Server,
    url: str,
    schema: str,
    admin: psycopg.Connection[tuple[object, ...]],
    tables: str,
) -> None:
    admin.execute(f"CREATE SCHEMA {schema}; {tables.format(schema)}")
    names = "SELECT relname, relkind FROM pg_class WHERE relnamespace = %s::regnamespace"
    before = admin.execute(names, (schema,)).fetchall()

    assert (
        f"The run store {shown(postgres, schema)} has a schema {schema!r} of another program; it was left as "
        f"it is\n  name another schema with ?schema=NAME, or {ELSEWHERE}"
    ) == refused(url)
    assert before == admin.execute(names, (schema,)).fetchall()


def test_a_store_of_a_newer_version_is_refused(
    postgres: Server, url: str, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    open_postgres(url).close()
    admin.execute(f"UPDATE {schema}.about SET value = '99' WHERE name = 'version'")

    assert (
        f"The run store {shown(postgres, schema)} was written by a newer synapse-kernel: its schema is 99, "
        f"this one knows {VERSION}\n  upgrade with: pip install --upgrade synapse-kernel\n  or {ELSEWHERE}"
    ) == refused(url)


def test_a_store_of_an_older_version_is_brought_up_to_date(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    from synapse_plugins.history import postgres_store

    with opened(url) as store:
        ended(store, this_process(), "r1")
    step = "ALTER TABLE runs ADD COLUMN colour text NOT NULL DEFAULT 'red'"
    monkeypatch.setattr(postgres_store, "MIGRATIONS", (*postgres_store.MIGRATIONS, step))
    monkeypatch.setattr(postgres_store, "VERSION", postgres_store.VERSION + 1)

    for _ in range(2):
        with opened(url) as store, store._reading() as tx:
            assert [("r1", "red")] == tx.execute("SELECT id, colour FROM runs").fetchall()


def test_cached_results_of_an_older_version_are_their_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    from synapse_plugins.history import postgres_store

    with monkeypatch.context() as older:
        older.setattr(postgres_store, "MIGRATIONS", postgres_store.MIGRATIONS[:1])
        older.setattr(postgres_store, "VERSION", 1)
        with opened(url) as store:
            ended(store, this_process(), "r1")
            values = {
                "a": b'{"run_id":"r1","result":"x\\u00e9"}',
                "b": b'{"run_id":"gone"}',
                "c": b"\xff{",
                "d": b"",
            }
            with store._writing() as tx:
                tx.executemany(
                    "INSERT INTO checkpoints (scope, key, value) VALUES ('cache', ?, ?)", values.items()
                )

    with opened(url) as store:
        assert ["a", "c", "d"] == [key for key, _ in store.entries("cache")]
        store.delete(["r1"])
        assert ["c", "d"] == [key for key, _ in store.entries("cache")]


def test_many_make_the_tables_at_once(url: str) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        try:
            barrier.wait()
            with opened(url) as store:
                store.put("s", {threading.current_thread().name: b""})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == errors
    with opened(url) as store:
        assert 8 == len(store.entries("s"))


def test_a_connection_that_the_server_dropped_is_made_anew(
    url: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    with opened(url) as store:
        store.start(record("r1"), this_process())
        for change in (lambda: store.append("r1", [log("r1")]), store.runs, store.reap):
            dropped(store, admin)
            change()

        assert 1 == len(store.events("r1"))


def dropped(store: PostgresStore, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    """End the store's session, as a server that is restarted does."""
    with store._reading() as tx:
        [(pid,)] = tx.execute("SELECT pg_backend_pid()").fetchall()
    assert (True,) == admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,)).fetchone()


def test_a_connection_that_is_dropped_in_the_midst_of_a_write_is_told_and_nothing_is_half_written(
    postgres: Server, url: str, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    with opened(url) as store:
        store.start(record("r1"), this_process())
        with pytest.raises(StoreError) as caught:
            drop_within(store, admin)

        assert str(caught.value).startswith(f"The run store {shown(postgres, schema)} cannot be used: ")
        assert [] == store.entries("s")
        assert ["r1"] == [run.run_id for run in store.runs()]


@pytest.mark.parametrize("change", [lambda store: store.put("x", {"k": b""}), lambda store: store.runs()])
def test_a_write_that_was_interrupted_before_it_could_end_is_taken_back_by_the_next(
    url: str, change: Callable[[RunStore], object]
) -> None:
    with opened(url) as store, opened(url) as other:
        store._begun("BEGIN").execute("INSERT INTO checkpoints (scope, key, value) VALUES ('s', 'half', '')")
        change(store)

        assert [] == other.entries("s")
        store.put("s", {"whole": b""})
        assert ["whole"] == [key for key, _ in other.entries("s")]


def drop_within(store: PostgresStore, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    with store._writing() as tx:
        tx.execute("INSERT INTO checkpoints (scope, key, value) VALUES ('s', 'k', '')")
        [(pid,)] = tx.execute("SELECT pg_backend_pid()").fetchall()
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        tx.execute("SELECT 1")


def test_a_run_that_another_keeps_locked_is_told_after_the_timeout(
    postgres: Server, url: str, schema: str
) -> None:
    with opened(url) as store, opened(f"{url}&timeout=0.1") as hasty:
        store.start(record("r1"), this_process())
        with store._writing() as tx:
            tx.execute("SELECT 1 FROM runs FOR UPDATE")
            with pytest.raises(StoreError) as caught:
                hasty.append("r1", [log("r1")])
        hasty.append("r1", [log("r1")])

    assert (
        f"The run store {shown(postgres, schema)} is locked by another process, for more than 0.1 s"
    ) == str(caught.value)


def test_silence_is_measured_by_the_servers_clock(
    url: str, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    far = msgspec.structs.replace(this_process(), namespace="another container")
    with opened(url) as store:
        store.start(record("r1"), far)
        admin.execute(f"UPDATE {schema}.owners SET seen = seen + 3600000000")
        assert [] == store.reap(lease=60), "one that is ahead of us is not dead"

        admin.execute(f"UPDATE {schema}.owners SET seen = seen - 7200000000")
        assert ["r1"] == store.reap(lease=60)


def test_a_child_that_was_forked_uses_the_store_beside_its_parent(url: str) -> None:
    code = """
        import os, sys
        from synapse_plugins.history.postgres_store import PostgresStore
        store = PostgresStore(sys.argv[1])
        store.put("s", {"before": b""})
        pid = os.fork()
        name = "p" if pid else "c"
        for n in range(20):
            store.put("s", {f"{name}{n}": b""})
        if not pid:
            sys.exit()
        print(os.waitpid(pid, 0)[1], len(store.entries("s")))
        store.close()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), url],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=120,
    )
    assert ("0 41\n", "") == (done.stdout, done.stderr)


def test_what_is_written_in_one_schema_is_not_seen_in_another(
    postgres: Server, url: str, schema: str
) -> None:
    with opened(url) as store, opened(postgres.url(schema=f"{schema}_other")) as other:
        store.start(record("r1"), this_process())
        store.finish(end("r1"))
        assert [1, 0] == [store.count(), other.count()]


def test_events_below_one_run_get_their_positions_in_the_order_of_their_commits(
    url: str, schema: str, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Who follows the run would otherwise miss what is committed later under a lower position."""
    with opened(url) as store, opened(url) as other:
        for name in ("a", "b"):
            store.start(record(name, parent="top"), this_process())
        late = threading.Thread(target=other.append, args=("b", [log("b", 1)]))
        with store._writing() as tx:
            store._add_events(tx, store._kept(tx, "a"), [log("a", 1)])
            late.start()
            while (
                late.is_alive() and not admin.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall()
            ):
                time.sleep(0.001)
            assert late.is_alive()
        late.join()

        assert ["a", "b"] == [run_id for (run_id,) in in_order(admin, schema)]


def in_order(admin: psycopg.Connection[tuple[object, ...]], schema: str) -> list[tuple[object, ...]]:
    return admin.execute(
        f"SELECT r.id FROM {schema}.events e JOIN {schema}.runs r ON r.key = e.run ORDER BY e.position"
    ).fetchall()
