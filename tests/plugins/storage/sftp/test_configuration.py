"""What the provider is configured with, and its URLs."""

from __future__ import annotations

import pytest

from synapse_kernel.storage import StorageConfigError
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.sftp.provider import SftpProvider

SECRET = "the-secret"


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("sftp://host", {"host": "host", "root_path": "/"}),
        ("sftp://host/", {"host": "host", "root_path": "/"}),
        ("sftp://me@host/data", {"host": "host", "username": "me", "root_path": "/data"}),
        ("sftp://host:2222/a/b/", {"host": "host", "port": 2222, "root_path": "/a/b/"}),
        ("sftp://[::1]:22/a", {"host": "::1", "port": 22, "root_path": "/a"}),
        ("sftp://me%40work@host/a", {"host": "host", "username": "me@work", "root_path": "/a"}),
        ("sftp://host/a b%20c#?é", {"host": "host", "root_path": "/a b%20c#?é"}),
    ],
)
def test_a_url_names_user_host_port_and_an_absolute_literal_path(url: str, values: dict[str, object]) -> None:
    assert values == SftpProvider.from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "sftp://host/",
        "sftp://me@host:2222/a/b",
        "sftp://me%40work@host/a",
        "sftp://[::1]:22/a",
        "sftp://h/%20#",
    ],
)
def test_a_url_leads_back_to_itself(url: str) -> None:
    provider = SftpProvider(configured(SftpProvider, SftpProvider.from_url(url)))

    assert url == provider.url_of("").rstrip("/") + ("/" if url == "sftp://host/" else "")
    assert f"{url.rstrip('/')}/in/file" == provider.url_of("in/file")


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(StorageConfigError) as caught:
        SftpProvider.from_url(f"sftp://me:{SECRET}@host/data")

    assert (
        "Storage 'sftp': open: a password in a URL ends up in logs and in the history of the shell: leave it "
        "out, and use a key, or give `password` in the configuration of a storage that the settings name"
    ) == str(caught.value)


@pytest.mark.parametrize("address", ["", "host:", "host:port", "[::1", "[::1]x", ":22"])
def test_a_url_without_a_host_or_with_a_wrong_port_is_refused(address: str) -> None:
    with pytest.raises(StorageConfigError) as caught:
        SftpProvider.from_url(f"sftp://{address}/data")

    assert (
        f"Storage 'sftp': open: this is no host, or host and port: {address!r}. "
        "Write sftp://user@host:port/path"
    ) == str(caught.value)


def test_mistakes_are_told_together_and_no_value_is_shown() -> None:
    with pytest.raises(StorageConfigError) as caught:
        configured(
            SftpProvider,
            {"host": f"me:{SECRET}@host", "root_path": "data", "port": 0, "passwort": SECRET, "timeout": 0},
        )

    assert (
        "Storage 'sftp': the configuration cannot be used:\n"
        "  host: Value error, it must be a host's name or address: user, port and path have fields of their "
        "own\n"
        "  port: Input should be greater than or equal to 1\n"
        "  root_path: Value error, it must be an absolute path without '..', as /home/me/data\n"
        "  timeout: Input should be greater than 0\n"
        "  passwort: there is no such key; did you mean 'password'?; keys: host, known_hosts, password, "
        "port, private_key, private_key_passphrase, root_path, timeout, username"
    ) == str(caught.value)


def test_secrets_are_not_in_what_is_printed() -> None:
    configuration = configured(
        SftpProvider,
        {"host": "h", "password": SECRET, "private_key": SECRET, "private_key_passphrase": SECRET},
    )

    assert SECRET not in repr(configuration)
    assert SECRET not in SftpProvider(configuration).url_of("key")
