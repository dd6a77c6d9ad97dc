"""Who is let in, which host key is trusted, and what a failed connection says."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from tests.storage_servers.programs import free_port, need_program, wait_for
from tests.storage_servers.proxies import stalling_proxy
from tests.storage_servers.sftp import SftpServer

from synapse_kernel.storage import (
    Storage,
    StorageConfigError,
    StorageConnectionError,
    StorageError,
    StoragePermissionError,
)

from .conftest import Opened


def failure(storage: Storage, kind: type[StorageError]) -> str:
    with pytest.raises(kind) as caught:
        storage.exists("file")
    assert kind is type(caught.value)
    return str(caught.value).removeprefix("Storage 'sftp': exists 'file': ")


def works(storage: Storage) -> None:
    storage.write_bytes("file", b"content")
    assert b"content" == storage.read_bytes("file")


def offered(server: SftpServer) -> str:
    return f"ssh-ed25519 {asyncssh.import_public_key(server.host_key).get_fingerprint()}"


def test_a_key_may_be_given_as_its_text(opened: Opened, sftp: SftpServer, place: Path) -> None:
    works(opened(sftp, place, private_key=sftp.private_key.read_text()))


@pytest.mark.parametrize("as_text", [False, True])
def test_a_key_with_a_passphrase_lets_in(
    opened: Opened, sftp: SftpServer, place: Path, as_text: bool
) -> None:
    key = sftp.encrypted_key.read_text() if as_text else str(sftp.encrypted_key)

    works(opened(sftp, place, private_key=key, private_key_passphrase=sftp.passphrase))


def test_a_password_lets_in(opened: Opened, sftp: SftpServer, place: Path) -> None:
    works(opened(sftp, place, private_key=None, password=sftp.need_password()))


def test_a_key_of_the_home_folder_lets_in(opened: Opened, sftp: SftpServer, place: Path, home: Path) -> None:
    (home / ".ssh" / "id_ed25519").write_text(sftp.private_key.read_text())

    works(opened(sftp, place, private_key=None))


def test_a_key_of_the_agent_lets_in(
    opened: Opened, sftp: SftpServer, place: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    subprocess.run(["ssh-add", "-q", sftp.private_key], check=True, timeout=60, stdin=subprocess.DEVNULL)

    works(opened(sftp, place, private_key=None))


def test_an_alias_of_the_ssh_configuration_is_used(
    opened: Opened, sftp: SftpServer, place: Path, home: Path
) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host data\n HostName {sftp.host}\n Port {sftp.port}\n User {sftp.username}\n"
        f" IdentityFile {sftp.private_key}\n UserKnownHostsFile {sftp.known_hosts}\n Ciphers aes256-ctr\n"
    )

    works(opened(sftp, place, host="data", port=None, username=None, private_key=None, known_hosts=None))


def test_the_known_hosts_of_the_home_folder_are_used(
    opened: Opened, sftp: SftpServer, place: Path, home: Path
) -> None:
    (home / ".ssh" / "known_hosts").write_text(sftp.known_hosts.read_text())

    works(opened(sftp, place, known_hosts=None))


def test_an_unknown_key_is_refused(opened: Opened, sftp: SftpServer) -> None:
    storage = opened(sftp, private_key=str(sftp.unknown_key))

    assert (f"{sftp.host} port {sftp.port} refuses the private key of the user {sftp.username!r}") == failure(
        storage, StoragePermissionError
    )


def test_a_wrong_password_is_refused(opened: Opened, sftp: SftpServer) -> None:
    sftp.need_password()
    storage = opened(sftp, private_key=None, password="not-the-password")

    assert (f"{sftp.host} port {sftp.port} refuses the password of the user {sftp.username!r}") == failure(
        storage, StoragePermissionError
    )


def test_without_any_credentials_the_error_says_what_to_give(opened: Opened, sftp: SftpServer) -> None:
    storage = opened(sftp, private_key=None)

    assert (
        f"{sftp.host} port {sftp.port} refuses the keys of the agent and of ~/.ssh of the user "
        f"{sftp.username!r}. Give `private_key` or `password`, or add a key that is let in with ssh-add"
    ) == failure(storage, StoragePermissionError)


def test_a_missing_or_wrong_passphrase_is_told(opened: Opened, sftp: SftpServer) -> None:
    without = opened(sftp, private_key=str(sftp.encrypted_key))
    wrong = opened(sftp, private_key=str(sftp.encrypted_key), private_key_passphrase="wrong")

    assert (
        "the private key is encrypted: give `private_key_passphrase`, or add the key to the agent with "
        "ssh-add and leave `private_key` out"
    ) == failure(without, StorageConfigError)
    assert "private_key_passphrase: it is not the one of the private key" == failure(
        wrong, StorageConfigError
    )


def test_a_key_that_is_none_is_told(opened: Opened, sftp: SftpServer, tmp_path: Path) -> None:
    (tmp_path / "no key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nxx\n-----END")

    assert f"private_key: the file {tmp_path}/absent cannot be read: No such file or directory" == failure(
        opened(sftp, private_key=f"{tmp_path}/absent"), StorageConfigError
    )
    assert failure(opened(sftp, private_key=f"{tmp_path}/no key"), StorageConfigError).startswith(
        "private_key: it cannot be used: "
    )


@pytest.mark.parametrize("configuration", ["", "Host *\n UserKnownHostsFile none\n"])
def test_an_unknown_host_key_is_refused_with_the_way_to_trust_it(
    opened: Opened, sftp: SftpServer, home: Path, configuration: str
) -> None:
    if configuration:
        (home / ".ssh" / "config").write_text(configuration)
        (home / ".ssh" / "known_hosts").write_text(sftp.known_hosts.read_text())
    storage = opened(sftp, known_hosts=None)

    assert (
        f"the host key of {sftp.host} port {sftp.port} is not known: it is {offered(sftp)}. See with whoever "
        "runs the server that this is the right one, then trust it:\n"
        f"  ssh-keyscan -p {sftp.port} {sftp.host} >> ~/.ssh/known_hosts"
    ) == failure(storage, StorageConnectionError)


def test_another_host_key_than_the_known_one_is_refused(opened: Opened, sftp: SftpServer) -> None:
    storage = opened(sftp, known_hosts=str(sftp.wrong_known_hosts))

    assert (
        f"the host key of {sftp.host} port {sftp.port} is not the one that is known: it is {offered(sftp)} "
        "now. Somebody may listen in between, or the server was set up anew. See with whoever runs it that "
        "this is the right one, then:\n"
        f"  ssh-keygen -R '[{sftp.host}]:{sftp.port}' -f {sftp.wrong_known_hosts}\n"
        f"  ssh-keyscan -p {sftp.port} {sftp.host} >> {sftp.wrong_known_hosts}"
    ) == failure(storage, StorageConnectionError)


def test_a_file_of_known_hosts_that_is_absent_is_told(opened: Opened, sftp: SftpServer) -> None:
    assert "known_hosts: there is no file /absent" == failure(
        opened(sftp, known_hosts="/absent"), StorageConfigError
    )


def test_a_port_where_nobody_listens_is_told(opened: Opened, sftp: SftpServer) -> None:
    server = sftp.through(free_port())

    told = failure(opened(server), StorageConnectionError)

    assert (
        f"cannot connect to {sftp.host} port {server.port}: Connection refused. "
        "Are host and port right, and is an SSH server running?"
    ) == told


def test_a_host_that_is_not_known_is_told_at_once(opened: Opened, sftp: SftpServer) -> None:
    told = failure(opened(sftp, host="no-such-host.invalid"), StorageConnectionError)

    assert told.startswith(f"the host no-such-host.invalid port {sftp.port} is not known: ")


def test_a_server_that_never_answers_is_given_up(opened: Opened, sftp: SftpServer) -> None:
    with stalling_proxy() as proxy:
        told = failure(opened(sftp.through(proxy.port), timeout=0.5), StorageConnectionError)

        assert 1 == proxy.connections
    assert told.startswith(f"cannot connect to {sftp.host} port {proxy.port}: ")


def test_what_is_no_ssh_server_is_told(opened: Opened, sftp: SftpServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"SSH-1.0-of old\r\n")
                client.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        told = failure(opened(sftp.through(port)), StorageConnectionError)
        thread.join(30)

    assert told.startswith(f"{sftp.host} port {port} does not speak as an SSH server does: ")


def test_threads_that_come_at_once_share_one_connection(
    opened: Opened, sftp: SftpServer, place: Path
) -> None:
    with stalling_proxy(sftp.port, times=0) as proxy:
        storage = opened(
            sftp.through(proxy.port), place, known_hosts=str(sftp.through(proxy.port).known_hosts)
        )
        threads = [
            threading.Thread(target=storage.write_bytes, args=(f"{number}", b"")) for number in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert [str(number) for number in sorted(range(16), key=str)] == sorted(
            entry.key for entry in storage.list()
        )
        assert 1 == proxy.connections


def test_a_closed_storage_connects_again(storage: Storage) -> None:
    works(storage)
    storage.close()

    works(storage)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the socket of an ssh-agent."""
    file = tmp_path_factory.mktemp("agent") / "socket"
    with subprocess.Popen(
        [need_program("ssh-agent", "openssh-client"), "-D", "-a", file], stdout=subprocess.DEVNULL
    ) as process:
        wait_for(file.exists, "the agent's socket")
        yield str(file)
        process.terminate()
