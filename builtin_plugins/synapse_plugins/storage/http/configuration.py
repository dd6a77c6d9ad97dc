"""What the provider `http` is configured with, and how a URL says it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.providers import Configuration

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class HttpConfiguration(Configuration):
    """Where the files are, and what to say to be let in."""

    base_url: str = Field(description="The URL of the folder that is the root: https://host/path.")
    timeout: float = Field(
        default=15.0,
        gt=0,
        description="Seconds that the server may let pass without a byte; connecting takes at most 10.",
    )
    headers: dict[str, SecretStr] = Field(
        default={}, description="Headers sent with each request, to this server and no other."
    )
    username: str | None = Field(
        default=None, description="The name for basic authentication; else the one of the netrc file is used."
    )
    password: SecretStr | None = Field(default=None, description="The password for basic authentication.")
    token: SecretStr | None = Field(default=None, description="A bearer token, in place of a name.")
    query: SecretStr | None = Field(
        default=None,
        description="What each URL ends with behind '?', as it is: a token or signature that lets in.",
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        parts = split(value)
        if parts is None:
            raise ValueError("it must be http://host/path or https://host/path")
        if "@" in parts.netloc:
            raise ValueError("a name and a password have their own fields: username, password")
        if parts.query or parts.fragment:
            raise ValueError("what stands behind '?' has its own field: query")
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        # A client that finds such a value itself shows it in its error.
        for name, secret in value.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError("a header's name has letters, digits and '-' only")
            _check_header_value(secret.get_secret_value(), f"the value of the header {name!r}")
        return value

    @field_validator("token")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_header_value(value.get_secret_value(), "a token")
        return value

    @field_validator("query")
    @classmethod
    def _check_query(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else ""
        if not (text.isascii() and text.isprintable()) or " " in text or "#" in text:
            raise ValueError("it must be percent-encoded, as it stands in a URL")
        return SecretStr(text.removeprefix("?")) if text else None

    @model_validator(mode="after")
    def _check_credentials(self) -> HttpConfiguration:
        if self.token is not None and self.username is not None:
            raise ValueError("give either a token, or a username and a password")
        if self.password is not None and self.username is None:
            raise ValueError("a password needs a username")
        return self


def configuration_of(url: str) -> dict[str, object]:
    """
    Return the configuration that a URL stands for.

    ``https://name:password@host/path?query``: the name, the password and the query let in, and are never
    shown. Raises `StorageConfigError` for a URL that names no host.
    """
    parts = split(url)
    if parts is None:
        # Whatever it is, it may hold a password.
        raise StorageConfigError(
            "this is no URL of a web server: write https://host/path", provider="http", operation="open"
        )
    host = parts.netloc.rpartition("@")[2]
    found: dict[str, object] = {"base_url": urlunsplit((parts.scheme, host, parts.path, "", ""))}
    if parts.username:
        found["username"] = unquote(parts.username)
        found["password"] = unquote(parts.password or "")
    if parts.query:
        found["query"] = parts.query
    return found


def split(url: str) -> SplitResult | None:
    """Return the parts of a web address; None for what is none."""
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def _check_header_value(value: str, what: str) -> None:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what} can hold characters of Latin-1 only") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError(f"{what} cannot hold line ends or other control characters")
