"""From a configuration to an SSH connection: credentials, ~/.ssh/config, and the host key, always checked."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from synapse_kernel.storage.errors import (
    StorageConfigError,
    StorageConnectionError,
    StoragePermissionError,
)
from synapse_kernel.storage.explaining import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_plugins.storage.sftp.configuration import SftpConfiguration

_USER_KNOWN_HOSTS = "~/.ssh/known_hosts"
_MACHINE_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
# Not an empty text: asyncssh takes that for its default.
_NO_HOSTS = b"\n"
_QUICK = "-gcm@openssh.com"
_QUIET_PINGS = 3


async def connect(configuration: SftpConfiguration) -> asyncssh.SSHClientConnection:
    """
    Return a connection to the configured host.

    Raises `StorageConnectionError` for a host that cannot be reached or whose key is not the known one,
    `StoragePermissionError` for refused credentials, `StorageConfigError` for a key that cannot be used.
    """
    if logging.getLogger("asyncssh").level == logging.NOTSET:
        # It tells of each file at INFO.
        asyncssh.set_log_level(logging.WARNING)
    usual = await asyncio.to_thread(_usual_options, configuration)
    trusted = _trusted_files(configuration, usual.known_hosts)
    witness = _HostKeyWitness(trusted, configuration.known_hosts or _USER_KNOWN_HOSTS)
    credentials = await asyncio.to_thread(_credentials, configuration)
    where = f"{configuration.host}{f' port {configuration.port}' if configuration.port else ''}"
    try:
        return await asyncssh.connect(
            configuration.host,
            configuration.port or (),
            options=asyncssh.SSHClientConnectionOptions(
                host=configuration.host,
                **_names(configuration),
                **credentials,
                client_factory=lambda: witness,
                known_hosts=trusted or _NO_HOSTS,
                encryption_algs=_quick_first(usual.encryption_algs),
                connect_timeout=configuration.timeout,
                login_timeout=configuration.timeout,
                keepalive_interval=configuration.timeout / _QUIET_PINGS,
                keepalive_count_max=_QUIET_PINGS,
            ),
        )
    except asyncssh.PermissionDenied:
        raise StoragePermissionError(_refusal(configuration, usual.username, where)) from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise StorageConnectionError(witness.tell(reason_of(error))) from None
    except asyncssh.ConnectionLost as error:
        late = "timeout" in str(error).lower()
        raise _unreachable(where, reason_of(error), transient=not late) from None
    except asyncssh.KeyExchangeFailed as error:
        raise StorageConnectionError(
            f"{where} and this machine agree on no way to speak, or its host key is of another kind than the "
            f"known one: {reason_of(error)}"
        ) from None
    except asyncssh.Error as error:
        raise StorageConnectionError(
            f"{where} does not speak as an SSH server does: {reason_of(error)}"
        ) from None
    except TimeoutError:
        raise _unreachable(where, f"no answer within {configuration.timeout:g} s") from None
    except socket.gaierror as error:
        raise StorageConnectionError(f"the host {where} is not known: {reason_of(error)}") from None
    except OSError as error:
        # Where a name has several addresses, the error is one made of theirs.
        again = isinstance(error, ConnectionError) or error.errno is None
        reason = reason_of(error) if error.errno is None else os.strerror(error.errno)
        raise _unreachable(where, reason, transient=again) from None


def _unreachable(where: str, reason: str, *, transient: bool = False) -> StorageConnectionError:
    return StorageConnectionError(
        f"cannot connect to {where}: {reason}. Are host and port right, and is an SSH server running?",
        transient=transient,
    )


def _names(configuration: SftpConfiguration) -> dict[str, object]:
    names: dict[str, object] = {}
    if configuration.port is not None:
        names["port"] = configuration.port
    if configuration.username is not None:
        names["username"] = configuration.username
    return names


def _usual_options(configuration: SftpConfiguration) -> asyncssh.SSHClientConnectionOptions:
    """Return what ~/.ssh/config and asyncssh would do, without any keys loaded."""
    try:
        return asyncssh.SSHClientConnectionOptions(
            # As options alone, they are made without reading it.
            config=(),
            host=configuration.host,
            **_names(configuration),
            client_keys=None,
        )
    except (asyncssh.ConfigParseError, ValueError) as error:
        raise StorageConfigError(f"~/.ssh/config cannot be used: {reason_of(error)}") from None


def _trusted_files(configuration: SftpConfiguration, usual: object) -> list[str]:
    if configuration.known_hosts is not None:
        file = Path(configuration.known_hosts).expanduser()
        if not file.is_file():
            raise StorageConfigError(f"known_hosts: there is no file {file}")
        return [str(file)]
    if usual is None:
        # `UserKnownHostsFile none` is to trust no key, which asyncssh takes for trusting each.
        return []
    named = [str(file) for file in usual] if isinstance(usual, list) else []
    files = [Path(file).expanduser() for file in named or [_USER_KNOWN_HOSTS, *_MACHINE_KNOWN_HOSTS]]
    return [str(file) for file in files if file.is_file()]


def _quick_first(permitted: Sequence[bytes]) -> list[str]:
    """Return the ciphers that are permitted, those that a processor has instructions for first."""
    return sorted((cipher.decode() for cipher in permitted), key=lambda cipher: _QUICK not in cipher)


def _credentials(configuration: SftpConfiguration) -> dict[str, object]:
    found: dict[str, object] = {}
    if configuration.password is not None:
        found["password"] = configuration.password.get_secret_value()
    if configuration.private_key is not None:
        found |= {"client_keys": [_private_key(configuration)], "agent_path": None}
    elif configuration.password is not None:
        # A server counts each key that it is offered, and may hang up before it is told the password.
        found["client_keys"] = None
    return found


def _private_key(configuration: SftpConfiguration) -> asyncssh.SSHKey:
    assert configuration.private_key is not None
    text = configuration.private_key.get_secret_value()
    phrase = configuration.private_key_passphrase
    if "PRIVATE KEY" not in text:
        file = Path(text).expanduser()
        try:
            text = file.read_text()
        except (OSError, ValueError) as error:
            # What is no file may be a key that was cut: it is not shown.
            shown = f" {file}" if len(str(file)) < 200 and "\n" not in str(file) else ""
            raise StorageConfigError(
                f"private_key: the file{shown} cannot be read: {reason_of(error)}"
            ) from None
    try:
        return asyncssh.import_private_key(text, phrase.get_secret_value() if phrase else None)
    except asyncssh.KeyEncryptionError:
        raise StorageConfigError("private_key_passphrase: it is not the one of the private key") from None
    except asyncssh.KeyImportError as error:
        if phrase is None and "passphrase" in str(error).lower():
            raise StorageConfigError(
                "the private key is encrypted: give `private_key_passphrase`, or add the key to the agent "
                "with ssh-add and leave `private_key` out"
            ) from None
        raise StorageConfigError(f"private_key: it cannot be used: {reason_of(error)}") from None


def _refusal(configuration: SftpConfiguration, username: str, where: str) -> str:
    tried = []
    if configuration.private_key is not None:
        tried.append("the private key")
    if configuration.password is not None:
        tried.append("the password")
    what = " and ".join(tried) or "the keys of the agent and of ~/.ssh"
    hint = "" if tried else ". Give `private_key` or `password`, or add a key that is let in with ssh-add"
    return f"{where} refuses {what} of the user {username!r}{hint}"


class _HostKeyWitness(asyncssh.SSHClient):
    """Sees a host key that is not trusted, to tell which and what to do; it never lets one pass."""

    def __init__(self, trusted: list[str], file: str) -> None:
        self._trusted = trusted
        self._file = file
        self._seen: tuple[str, int, asyncssh.SSHKey, bool] | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Take note of the key."""
        known = asyncssh.match_known_hosts(
            self._trusted or _NO_HOSTS, host, addr, None if port == 22 else port
        )[0]
        self._seen = (host, port, key, bool(known))
        return False

    def tell(self, reason: str) -> str:
        """Return what to do about it."""
        if self._seen is None:
            return f"the server's host key is refused: {reason}"
        host, port, key, known = self._seen
        where = f"{host}{'' if port == 22 else f' port {port}'}"
        offered = f"{key.get_algorithm()} {key.get_fingerprint()}"
        file = self._file if self._file.startswith("~") else shlex.quote(self._file)
        options = "" if port == 22 else f"-p {port} "
        scan = f"  ssh-keyscan {options}{shlex.quote(host)} >> {file}"
        if not known:
            return (
                f"the host key of {where} is not known: it is {offered}. See with whoever runs the server "
                f"that this is the right one, then trust it:\n{scan}"
            )
        entry = shlex.quote(host if port == 22 else f"[{host}]:{port}")
        return (
            f"the host key of {where} is not the one that is known: it is {offered} now. Somebody may listen "
            "in between, or the server was set up anew. See with whoever runs it that this is the right one, "
            "then:\n"
            f"  ssh-keygen -R {entry} -f {file}\n{scan}"
        )
