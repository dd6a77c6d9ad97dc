"""Where the keys for S3 come from: the configuration, else what the AWS tools of this machine would take."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.storage.errors import StorageConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import S3Credential, S3CredentialProvider

_ELSEWHERE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Keys(msgspec.Struct, frozen=True):
    """Keys that stay the same."""

    access_key: str
    secret_key: str
    session_token: str | None = None

    def __call__(self) -> S3Credential:
        """Return them as obstore asks for them."""
        return {
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "token": self.session_token,
            "expires_at": None,
        }


def found_keys() -> S3CredentialProvider | None:
    """
    Return the keys of this machine: of the environment, else of a profile of ``~/.aws``.

    None leaves it to obstore, which asks the token file, container or machine that AWS runs this on. Raises
    `StorageConfigError` for a profile that cannot be used.
    """
    access_key, secret_key = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        return Keys(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None)
    asked = os.environ.get("AWS_PROFILE")
    if not asked and any(os.environ.get(name) for name in _ELSEWHERE):
        return None
    values = _profile(asked or "default")
    if "aws_access_key_id" in values and "aws_secret_access_key" in values:
        return Keys(
            values["aws_access_key_id"], values["aws_secret_access_key"], values.get("aws_session_token")
        )
    # A role, a single sign-on or a program gives the keys: boto3 knows how to ask each.
    if values.keys() & {"role_arn", "sso_session", "sso_account_id", "credential_process"}:
        return _by_boto3(asked or "default")
    if asked:
        raise StorageConfigError(
            f"the profile {asked!r} (AWS_PROFILE) has no keys in {_credentials_file()} or {_config_file()}",
            provider="s3",
            operation="open",
        )
    return None


def found_region() -> str | None:
    """Return the region that the environment or the profile names."""
    return (
        os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or _profile(os.environ.get("AWS_PROFILE") or "default").get("region")
    )


def _by_boto3(profile: str) -> S3CredentialProvider:
    try:
        import boto3  # type: ignore[import-untyped]
    except ImportError:
        raise StorageConfigError(
            f"the AWS profile {profile!r} gets its keys from a role, a single sign-on or a program, which "
            "needs the package 'boto3'. Install it with: pip install boto3",
            provider="s3",
            operation="open",
        ) from None
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider(boto3.session.Session(profile_name=profile))


def _profile(name: str) -> Mapping[str, str]:
    section = name if name == "default" else f"profile {name}"
    return {**_section(_config_file(), section), **_section(_credentials_file(), name)}


def _section(path: Path, name: str) -> Mapping[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        raise StorageConfigError(
            f"{path} is not a file of AWS profiles: mend it", provider="s3", operation="open"
        ) from None
    return dict(parser.items(name)) if parser.has_section(name) else {}


def _credentials_file() -> Path:
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()


def _config_file() -> Path:
    return Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
