"""A real PostgreSQL for the tests of the store `postgres`."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

_numbers = itertools.count(1)


class Server(msgspec.Struct, frozen=True):
    """A PostgreSQL server that belongs to this session of tests."""

    data: str
    sockets: str
    pg_ctl: str
    user: str | None
    """Whom it runs as, where that is not us: it refuses to run as root."""

    def url(self, **options: str) -> str:
        """Return the URL of its database."""
        query = "&".join(f"{name}={value}" for name, value in {"host": self.sockets, **options}.items())
        return f"postgresql://tester:hush@/postgres?{query}"

    def run(self, *command: str) -> None:
        """Carry out a command as the server's user."""
        done = subprocess.run(command, user=self.user, capture_output=True, text=True, cwd="/")
        assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"

    def restart(self) -> None:
        """Drop all connections."""
        self.run(self.pg_ctl, "-D", self.data, "-m", "immediate", "-w", "stop")
        self.start()

    def start(self) -> None:
        """Listen on a socket in a folder, and on no port."""
        options = f"-k {self.sockets} -c listen_addresses='' -c fsync=off"
        self.run(
            self.pg_ctl, "-D", self.data, "-w", "-t", "60", "-l", f"{self.data}/log", "-o", options, "start"
        )


def _program(name: str) -> str | None:
    newest_first = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return next((str(path) for path in newest_first), None) or shutil.which(name)


def _server_user() -> str | None:
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Start a server of our own, with an empty database."""
    pytest.importorskip("psycopg", reason="psycopg, the extra postgres, is not installed")
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    user = _server_user()
    # Not below pytest's folder: a socket's path has room for a hundred characters, and it is not the user's.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        if user is not None:
            shutil.chown(folder, user)
        server = Server(data=f"{folder}/data", sockets=folder, pg_ctl=pg_ctl, user=user)
        server.run(initdb, "-D", server.data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        server.start()
        yield server
        server.run(pg_ctl, "-D", server.data, "-m", "immediate", "-w", "stop")


@pytest.fixture
def schema() -> str:
    """Name a schema that no other test uses."""
    return f"test_{next(_numbers)}"


@pytest.fixture
def url(postgres: Server, schema: str) -> str:
    """Return the URL of a store that is not there yet."""
    return postgres.url(schema=schema)
