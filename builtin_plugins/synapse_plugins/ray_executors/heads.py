"""
Whether a cluster's head is there, asked without Ray.

Ray itself would try an address for minutes, and end this process a minute after a head that it was
connected to is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
_YEAR_SECONDS = 365 * 24 * 3600
# What an HTTP/2 client says first, with empty settings; a gRPC server answers with its own settings.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEAD = 9
_SETTINGS_FRAME = 4


def is_listening(address: str, timeout: float) -> bool:
    """Tell whether somebody listens at ``host:port``."""
    try:
        socket.create_connection(_parts(address), timeout=timeout).close()
    except OSError:
        return False
    return True


def why_no_head(address: str, timeout: float) -> str | None:
    """Say why no cluster's head is at ``host:port``, or None where one may be."""
    deadline = monotonic() + timeout
    try:
        with socket.create_connection(_parts(address), timeout=timeout) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in {"", "0"}:
                return None
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < _FRAME_HEAD:
                connection.settimeout(max(0.001, deadline - monotonic()))
                piece = connection.recv(_FRAME_HEAD - len(answer))
                if not piece:
                    break
                answer += piece
    except TimeoutError:
        return f"nothing was said in {timeout:g} seconds"
    except (OSError, UnicodeError) as error:
        # What cannot be a name is one that is not found.
        return str(error)
    if len(answer) == _FRAME_HEAD and answer[3] == _SETTINGS_FRAME:
        return None
    return "what listens there is no cluster's head"


@contextlib.contextmanager
def outliving_the_head() -> Iterator[None]:
    """Let a connection that is made meanwhile not end this process once its head is gone."""
    if _RECONNECT in os.environ:
        yield
        return
    # Ray has no public setting for it; what it starts here takes over the variable, and ends by itself.
    os.environ[_RECONNECT] = str(_YEAR_SECONDS)
    read_variables()
    try:
        yield
    finally:
        del os.environ[_RECONNECT]


def read_variables() -> None:
    """Let Ray see the variables anew: it reads them as it is imported, and has no public call for this."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
