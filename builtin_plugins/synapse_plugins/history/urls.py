"""The URLs of the stores: what they may say, and what is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from synapse_kernel.errors import suggest
from synapse_kernel.settings import state_home
from synapse_kernel.stores import StoreError

WAIT_SECONDS = 60.0
"""How long a write waits for other processes."""

_SYNCHRONOUS = ("normal", "full", "extra")
_SCHEMA = "synapse_kernel"
_SECRET_OPTIONS = ("password", "sslpassword")
# How the place of a server ends: without a port, or with a number. Else it is a password without its host.
_PORT = re.compile(r"^(\[.*\]|[^:]*)(:\d*)?$")


class SqlitePlace(NamedTuple):
    """Where a SQLite store is, and how it is written."""

    path: Path
    synchronous: str
    timeout: float


def sqlite_place(url: str) -> SqlitePlace:
    """Read the URL of a SQLite store; raises `StoreError` with every mistake in it."""
    try:
        parts = urlsplit(url if ":" in url else f"{url}:")
    except ValueError:
        raise unusable(url, ["its [ or ] must be written as %5B or %5D"]) from None
    problems = []
    if parts.netloc:
        problems.append(f"{parts.netloc!r} stands where a host would; write sqlite:///absolute/path.db")
    if parts.fragment:
        problems.append("a # must be written as %23")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = ("synchronous", "timeout")
    problems += [
        f"{name!r} is no option{suggest(name, known)}; there are {' and '.join(known)}"
        for name in options
        if name not in known
    ]
    synchronous = options.get("synchronous", "normal").lower()
    if synchronous not in _SYNCHRONOUS:
        problems.append(f"synchronous is one of {', '.join(_SYNCHRONOUS)}, not {synchronous!r}")
    timeout = timeout_of(options, problems)
    if problems:
        raise unusable(url, problems)
    path = unquote(parts.path)
    if path.startswith("//"):  # as others write an absolute path: sqlite:////tmp/file.db
        path = f"/{path.lstrip('/')}"
    place = Path(path).expanduser().absolute() if path else state_home() / "history.db"
    return SqlitePlace(place, synchronous, timeout)


def timeout_of(options: dict[str, str], problems: list[str]) -> float:
    """Return the seconds of the option timeout; what is wrong with it is added to the problems."""
    given = options.get("timeout", "")
    try:
        seconds = float(given or WAIT_SECONDS)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86_400:
        problems.append(f"timeout is a number of seconds up to 86400, not {given!r}")
    return seconds


def unusable(url: str, problems: list[str]) -> StoreError:
    """Make the error that tells what is wrong with a URL."""
    lines = "".join(f"\n  {problem}" for problem in problems)
    return StoreError(f"The store {url} cannot be used:{lines}", url=url)


class PostgresPlace(NamedTuple):
    """Where a PostgreSQL store is: what libpq is told, and what people are shown."""

    conninfo: str
    shown: str
    secrets: tuple[str, ...]
    schema: str
    timeout: float


def postgres_place(url: str) -> PostgresPlace:
    """
    Read the URL of a PostgreSQL store; raises `StoreError` with every mistake in it.

    No password is in what it says, also where the URL is read otherwise than it was meant.
    """
    parts = _postgres_parts(url if ":" in url else f"{url}://")
    problems: list[str] = []
    if parts.fragment:
        problems.append("a # must be written as %23")
    if any("=" not in option for option in parts.query.split("&") if option):
        problems.append("an option is written NAME=VALUE, and an & in its value as %26")
    # In a form, a + is a space; to libpq it is a +.
    options = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    schema = options.pop("schema", _SCHEMA)
    if not schema.isidentifier() or len(schema) > 63:
        problems.append(f"schema is a name of letters, digits and _, not {schema!r}")
    timeout = timeout_of(options, problems)
    options.pop("timeout", None)
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    hidden = {unquote(password), *(options.get(key, "") for key in _SECRET_OPTIONS)}
    # Also as they are quoted: libpq repeats what it cannot read.
    secrets = {password, *hidden, *(quote(each, safe="/") for each in hidden)}
    open_options = {key: value for key, value in options.items() if value and key not in _SECRET_OPTIONS}
    if schema != _SCHEMA:
        open_options["schema"] = schema
    shown = _postgres_url(f"{name}{at}{host}", parts.path, open_options)
    if problems:
        raise unusable(shown, problems)
    return PostgresPlace(
        conninfo=_postgres_url(parts.netloc, parts.path, options),
        shown=shown,
        # The longest first: one may be a part of another.
        secrets=tuple(sorted(filter(None, secrets), key=len, reverse=True)),
        schema=schema,
        timeout=timeout,
    )


def _postgres_parts(url: str) -> SplitResult:
    problem = (
        "where its password or name has one of # % / ? @ [ ], it must be quoted: "
        "%23 %25 %2F %3F %40 %5B %5D, in this order"
    )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise unusable(_masked(url), [problem]) from None
    user, _, host = parts.netloc.rpartition("@")
    rest = f"{parts.path}?{parts.query}#{parts.fragment}"
    if "@" in user or "@" in rest or not all(map(_PORT.search, host.split(","))):
        raise unusable(_masked(url), [problem])
    return parts


def _masked(url: str) -> str:
    """Return what of a URL holds no password for sure, wherever in it that begins."""
    scheme, _, rest = url.partition(":")
    before, at, after = rest.rpartition("@")
    host = re.split(r"[?#]", after)[0] if at and "password" not in unquote(before).lower() else ""
    return f"{scheme}://***{at and host and '@'}{host}"


def _postgres_url(netloc: str, path: str, options: dict[str, str]) -> str:
    query = urlencode(options, quote_via=quote, safe="/")
    return f"postgresql://{netloc}{path}{'?' if query else ''}{query}"
