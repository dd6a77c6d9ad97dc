"""What the provider `sftp` is configured with, and how a URL says it."""

from __future__ import annotations

from urllib.parse import quote, unquote

from pydantic import Field, SecretStr, field_validator

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.providers import Configuration

_FORM = "sftp://user@host:port/path"


class SftpConfiguration(Configuration):
    """Which machine, which folder of it, and how to be let in."""

    host: str = Field(min_length=1, description="The host's name or address, or an alias of ~/.ssh/config.")
    username: str | None = Field(
        default=None, description="The user there; else the one of ~/.ssh/config, or of this machine."
    )
    password: SecretStr | None = Field(default=None, description="The user's password.")
    private_key: SecretStr | None = Field(
        default=None,
        description="A private key: its file, or its text. Without it and a password, the keys of the agent "
        "and of ~/.ssh are tried.",
    )
    private_key_passphrase: SecretStr | None = Field(
        default=None, description="What the private key is encrypted with."
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="The port; else the one of ~/.ssh/config, or 22."
    )
    root_path: str = Field(default="/", description="The folder there that is the root, as an absolute path.")
    known_hosts: str | None = Field(
        default=None,
        description="The file of host keys that are trusted; else ~/.ssh/known_hosts and the machine's own.",
    )
    timeout: float = Field(
        default=10.0, gt=0, description="Seconds to connect in, and that a server may be silent for."
    )

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if any(character in value for character in "/@") or value.startswith("-") or not value.isprintable():
            raise ValueError(
                "it must be a host's name or address: user, port and path have fields of their own"
            )
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        parts = [part for part in value.split("/") if part not in {"", "."}]
        if not value.startswith("/") or ".." in parts or "\0" in value:
            raise ValueError("it must be an absolute path without '..', as /home/me/data")
        return f"/{'/'.join(parts)}"


def configuration_of(url: str) -> dict[str, object]:
    """
    Return the configuration that ``sftp://user@host:port/path`` stands for: the path is absolute, literal.

    Raises `StorageConfigError` for a URL with a password in it, which is not shown, or without a host.
    """
    authority, _, path = url.partition("://")[2].partition("/")
    user, separator, address = authority.rpartition("@")
    if ":" in user:
        raise _wrong(
            "a password in a URL ends up in logs and in the history of the shell: leave it out, and use a "
            "key, or give `password` in the configuration of a storage that the settings name"
        )
    if separator and not user:
        raise _wrong(f"there is no user before the '@': write {_FORM}")
    host, port = _host_and_port(address)
    found: dict[str, object] = {"host": host, "root_path": f"/{path}"}
    if user:
        found["username"] = unquote(user)
    if port is not None:
        found["port"] = port
    return found


def url_in(configuration: SftpConfiguration, key: str) -> str:
    """Return the URL of a key; `configuration_of` leads there again, as far as a URL says it."""
    user = f"{quote(configuration.username, safe='')}@" if configuration.username else ""
    host = f"[{configuration.host}]" if ":" in configuration.host else configuration.host
    port = f":{configuration.port}" if configuration.port else ""
    return f"sftp://{user}{host}{port}{configuration.root_path.rstrip('/')}/{key}"


def _host_and_port(address: str) -> tuple[str, int | None]:
    if address.startswith("["):
        host, closed, rest = address[1:].partition("]")
        separator, port = rest[:1], rest[1:]
        good = bool(closed) and separator in {"", ":"}
    else:
        host, separator, port = address.partition(":")
        good = True
    if not host or not good or (separator and not (port.isascii() and port.isdigit())):
        raise _wrong(f"this is no host, or host and port: {address!r}. Write {_FORM}")
    return host, int(port) if separator else None


def _wrong(text: str) -> StorageConfigError:
    return StorageConfigError(text, provider="sftp", operation="open")
