"""
The connection of this process to a Ray cluster: Ray knows one a process, whoever asks.

A cluster that was found is left as it is; one that was started here ends with the last kernel that uses it,
or with the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from concurrent.futures import Future
from time import monotonic, sleep
from typing import TYPE_CHECKING, ClassVar, Protocol

import ray
from ray import exceptions

from synapse_kernel.errors import SynapseError, UsageError
from synapse_plugins.ray_executors.board import DriverBoard
from synapse_plugins.ray_executors.heads import is_listening, outliving_the_head, why_no_head
from synapse_plugins.ray_executors.nodes import all_nodes, available_now, own_raylet, sums
from synapse_plugins.ray_executors.printing import keep_ray_quiet
from synapse_plugins.ray_executors.resources import is_possible, shortage, told, waiting_for
from synapse_plugins.ray_executors.settings import RaySettings
from synapse_plugins.ray_executors.tokens import use_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_kernel.kernel import Kernel

# How long what was read of the cluster is believed.
_NODES_SECONDS = 2.0
_WATCH_SECONDS = 1.0
# So many silent looks in a row mean that the cluster is gone.
_LOOKS = 5
_ANSWER_SECONDS = 2.0
# No call into Ray takes longer that waits for something.
_CALL_SECONDS = 7.0
_LEAVE_SECONDS = 30.0
_LAST_PORT = 65535


class ClusterError(SynapseError):
    """A Ray cluster that cannot be used: `address` is the one that was asked for."""

    exit_code = 1

    def __init__(self, message: str, *, address: str) -> None:
        self.address = address
        super().__init__(message)


class Waiting(Protocol):
    """An attempt that has not begun."""

    def look(self) -> None:
        """Say why, or give up where it never can."""


class Connection:
    """This process's connection; see `connect`."""

    def __init__(
        self, address: str, *, started: bool, foreign: bool, dashboard: str | None, namespace: str
    ) -> None:
        self.address = address
        """Where the cluster's head listens, as ``host:port``."""
        self.started = started
        """True if the cluster was started by this process."""
        self.foreign = foreign
        """True if the connection was there before; then it is not ours to end."""
        self.dashboard = dashboard
        """The dashboard's ``host:port``, where the cluster has one."""
        self.announced = False
        self.lost = threading.Event()
        """Set once the cluster is gone."""
        self.relievers: list[Callable[[], None]] = []
        """Called where a run has to wait: who holds what it does not use lets go of it."""
        self.board = DriverBoard(namespace)
        self.waiting: set[Waiting] = set()
        """Attempts that have not begun; they are looked after each second."""
        self._nodes: list[Mapping[str, float]] = []
        self._read_at = -_NODES_SECONDS
        self._available: dict[str, float] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._here = own_raylet()
        for work in (self._watch, self._look_after):
            threading.Thread(target=work, name="synapse-ray-watch", daemon=True).start()

    @property
    def announcement(self) -> str:
        """One line for the person who watches."""
        if self.started:
            return f"started a Ray cluster for this process: {told(sums(self.nodes()))}"
        return f"connected to the Ray cluster at {self.address}: {told(sums(self.nodes()))}"

    def nodes(self) -> list[Mapping[str, float]]:
        """Return what each node that is alive has, as of the last seconds."""
        with self._lock:
            if monotonic() - self._read_at > _NODES_SECONDS:
                self._nodes = [node["Resources"] for node in all_nodes() if node["Alive"]]
                self._read_at = monotonic()
            return self._nodes

    def node_ids(self) -> list[str]:
        """Return the nodes that are alive."""
        return [node["NodeID"] for node in all_nodes() if node["Alive"]]

    def why_impossible(self, demand: Mapping[str, float], *, fresh: bool = False) -> str | None:
        """Say why no node could ever meet a demand, or None if one can."""
        if fresh:
            self._read_at = -_NODES_SECONDS
        nodes = self.nodes()
        return None if is_possible(demand, nodes) else shortage(demand, nodes)

    def why_waiting(self, demand: Mapping[str, float]) -> str:
        """Say why a demand that can be met is not met yet, after a try to make room."""
        if self._available is None:
            for relieve in list(self.relievers):
                relieve()
            self._available = available_now()
        return waiting_for(demand, sums(self.nodes()), self._available)

    def answers(self) -> bool:
        """Tell whether the cluster can be asked something; waits while that is not certain."""
        while not self.lost.is_set():
            if self._is_there():
                return True
            self.lost.wait(_WATCH_SECONDS)
        return False

    def close(self) -> None:
        """End the connection if it was made here, and with it a cluster that was started here."""
        self._closed.set()
        if not self.foreign:
            ray.shutdown()

    def _is_there(self) -> bool:
        # Without the node of this process nothing is begun any more, though the head may live on.
        places = (self.address, self._here) if self._here else (self.address,)
        return all(is_listening(place, _ANSWER_SECONDS) for place in places)

    def _watch(self) -> None:
        """Look whether the cluster is still there, without Ray: what is asked of it then waits for ever."""
        silent = 0
        while not self._closed.wait(_WATCH_SECONDS):
            silent = 0 if self._is_there() else silent + 1
            if silent >= _LOOKS:
                self._lose()
                return

    def _look_after(self) -> None:
        while not (self._closed.wait(_WATCH_SECONDS) or self.lost.is_set()):
            self._available = None
            for each in list(self.waiting):
                each.look()

    def _lose(self) -> None:
        """Let go of a cluster that is gone: a later run may find another."""
        with _Process.lock:
            self.lost.set()
            if _Process.connection is not self:
                return
            _Process.connection = None
            _Process.users.clear()
            if not self.foreign:
                # Not in the way of those who wait: it takes its time.
                _Process.leaving = threading.Thread(target=_leave, name="synapse-ray-shutdown", daemon=True)
                _Process.leaving.start()


def _leave() -> None:
    # Ray ends the process if the connection goes while somebody is in a call: they have all seen it by then.
    sleep(_CALL_SECONDS)
    ray.shutdown()


class _Process:
    """What this process has: Ray itself keeps it by the process too."""

    connection: Connection | None = None
    users: ClassVar[set[int]] = set()
    leaving: threading.Thread | None = None
    """Lets go of a cluster that is gone."""
    lock = threading.Lock()


def connect(kernel: Kernel, user: object, *, dashboard: bool = False) -> Connection:
    """
    Return this process's connection, made by the kernel's settings if there is none, for `user`.

    With `dashboard`, a cluster that is started has one. Raises `ClusterError` for a cluster that does not
    answer in time, `UsageError` for an address that cannot be.
    """
    settings = kernel.settings.section("ray", RaySettings)
    with _Process.lock:
        if _Process.connection is not None and not ray.is_initialized():
            # Whoever embeds this has ended the connection.
            _Process.connection._closed.set()
            _Process.connection = None
            _Process.users.clear()
        if _Process.connection is None:
            _await_leaving(settings)
            if not ray.is_initialized():
                keep_ray_quiet()
            with outliving_the_head():
                _Process.connection = _connected(settings, dashboard=dashboard)
        _check_address(_Process.connection, settings)
        _Process.users.add(id(user))
        return _Process.connection


def release(user: object) -> None:
    """Say that a user needs the connection no more; the last one ends it."""
    with _Process.lock:
        if id(user) not in _Process.users:
            return
        _Process.users.discard(id(user))
        if _Process.users or _Process.connection is None:
            return
        # Who asks meanwhile waits: Ray would give it the connection that is being ended.
        _Process.connection.close()
        _Process.connection = None


def _await_leaving(settings: RaySettings) -> None:
    if _Process.leaving is None:
        return
    _Process.leaving.join(_LEAVE_SECONDS)
    if _Process.leaving.is_alive():
        raise ClusterError(
            "No Ray cluster can be used: this process does not get rid of one that it lost\n"
            "  start another process",
            address=settings.address or "auto",
        )
    _Process.leaving = None


def _connected(settings: RaySettings, *, dashboard: bool) -> Connection:
    if ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        if not is_listening(address, settings.connect_timeout):
            raise ClusterError(
                f"The Ray cluster at {address}, which this process is connected to, does not answer\n"
                "  disconnect from it with: ray.shutdown()",
                address=address,
            )
        return _described(settings, started=False, foreign=True)
    use_token(settings)
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith(("http://", "https://")):
        raise UsageError(
            f"ray.address {address!r} is a dashboard's, which takes jobs alone\n"
            "  give the head's host:port, or use --executor ray-job"
        )
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"ray.address {address!r} is of Ray Client, which streams no events\n"
            "  give the head's host:port, or its dashboard's http:// address with --executor ray-job"
        )
    if address in {None, "local"}:
        # Not one that happens to run on this machine, as Ray itself would: it may be anybody's.
        return _started(settings, dashboard=dashboard)
    assert address is not None
    try:
        return _joined(address, settings)
    except ConnectionError as error:
        if address == "auto":
            raise _unreachable(address, str(error)) from error
        # There is a head: see `_check_reachable`.
        raise _refused(address, error) from error


def _started(settings: RaySettings, *, dashboard: bool) -> Connection:
    def start() -> None:
        ray.init(
            address="local",
            namespace=settings.namespace,
            num_cpus=settings.local_cpus,
            object_store_memory=settings.local_memory,
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    try:
        _in_lasting_thread(start)
    except Exception as error:
        raise ClusterError(f"No Ray cluster can be started here: {_first(error)}", address="local") from error
    return _described(settings, started=True, foreign=False)


def _in_lasting_thread(call: Callable[[], None]) -> None:
    """
    Call in a thread that ends with this process.

    Linux kills the processes of a local cluster with the thread that started them, which may be a run's.
    """
    done: Future[None] = Future()

    def work() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)
            return
        done.set_result(None)
        threading.Event().wait()

    threading.Thread(target=work, name="synapse-ray-cluster", daemon=True).start()
    done.result()


def _joined(address: str, settings: RaySettings) -> Connection:
    if address != "auto":
        _check_reachable(address, settings.connect_timeout)
    try:
        ray.init(
            address=address, namespace=settings.namespace, log_to_driver=False, logging_level=logging.ERROR
        )
    except ConnectionError:
        raise
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise _refused(address, error) from error
    return _described(settings, started=False, foreign=False)


def _check_reachable(address: str, timeout: float) -> None:
    """Raise unless somebody listens there: Ray itself would try for long."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > _LAST_PORT:
        raise UsageError(
            f"ray.address {address!r} is no address\n"
            "  allowed: auto, local, host:port of the cluster's head, or the http:// URL of its dashboard"
        )
    why = why_no_head(address, timeout)
    if why is not None:
        raise _unreachable(address, why)


def _unreachable(address: str, reason: str) -> ClusterError:
    where = "of this machine" if address == "auto" else f"at {address}"
    return ClusterError(
        f"No Ray cluster answers {where}: {reason.partition(chr(10))[0]}\n"
        "  start one with: ray start --head\n"
        "  name another with: --set ray.address=HOST:PORT, or 'local' for one of this process",
        address=address,
    )


def _refused(address: str, error: Exception) -> ClusterError:
    text = str(error)
    if isinstance(error, ConnectionError):
        return ClusterError(
            f"A Ray cluster's head is at {address}, but refuses this connection; has it another token?\n"
            "  name the file that holds it with: --set ray.token_path=FILE",
            address=address,
        )
    if isinstance(error, exceptions.AuthenticationError) or "token" in text.lower():
        return ClusterError(
            f"The Ray cluster at {address} refuses the token: {_first(error)}\n"
            "  name the file that holds it with: --set ray.token_path=FILE",
            address=address,
        )
    return ClusterError(f"The Ray cluster at {address} cannot be used: {_first(error)}", address=address)


def _described(settings: RaySettings, *, started: bool, foreign: bool) -> Connection:
    # Asked of Ray again: it answers with what the connection is made of, without making one.
    context = ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
    url = context.dashboard_url
    return Connection(
        ray.get_runtime_context().gcs_address,
        started=started,
        foreign=foreign,
        dashboard=url or None,
        namespace=settings.namespace,
    )


def _check_address(connection: Connection, settings: RaySettings) -> None:
    address = settings.address
    if address is None or address in {"auto", "local", connection.address} or address.startswith("http"):
        return
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        if f"{socket.gethostbyname(host)}:{port}" == connection.address or (
            port == connection.address.rpartition(":")[2] and host in {"localhost", "127.0.0.1"}
        ):
            return
    raise UsageError(
        f"ray.address {address!r}: this process is connected to the Ray cluster at {connection.address}\n"
        "  one process has one Ray cluster; use another process for another cluster"
    )


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
