"""Google's client, one for each request under way: its connections are not made for several threads."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import google.auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage  # type: ignore[import-untyped]
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials as UserCredentials

from synapse_kernel.storage.errors import StorageConfigError
from synapse_kernel.storage.explaining import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_write"]


class Connections:
    """Clients that were used and wait for the next request, with the same credentials."""

    def __init__(
        self,
        bucket: str,
        *,
        credentials: str | None,
        anonymous: bool,
        project: str | None,
        endpoint: str | None,
    ) -> None:
        self._bucket = bucket
        self._asked = credentials
        self._anonymous = anonymous
        self._project = project
        self._endpoint = endpoint
        self._found: Credentials | None = None
        self._idle: list[storage.Client] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def bucket(self) -> Iterator[storage.Bucket]:
        """Give the bucket with a client that nobody else uses in the block."""
        with self._lock:
            client = self._idle.pop() if self._idle else None
            if client is None and self._found is None:
                self._found = self._credentials()
        client = client or self._made()
        try:
            yield client.bucket(self._bucket)
        finally:
            with self._lock:
                self._idle.append(client)

    def close(self) -> None:
        """Close the connections that wait."""
        with self._lock:
            clients, self._idle = self._idle, []
        for client in clients:
            client.close()

    def _made(self) -> storage.Client:
        client = storage.Client(
            # It may not be None; only buckets are made in a project.
            project=self._project or "none",
            credentials=self._found,
            client_options={"api_endpoint": self._endpoint} if self._endpoint else None,
        )
        # It would ask for the bucket's place in a thread of its own, only to name it in traces.
        vars(client)["_bucket_metadata_cache"] = None
        return client

    def _credentials(self) -> Credentials:
        if self._anonymous or (self._asked is None and self._endpoint is not None):
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        if self._asked is None:
            found, project = google.auth.default(scopes=_SCOPES)
            self._project = self._project or project
            return found
        if self._asked.lstrip().startswith("{"):
            return self._account(self._asked, "the JSON in it")
        try:
            text = Path(self._asked).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(f"the file {self._asked}: {reason_of(error)}") from None
        return self._account(text, f"the file {self._asked}")

    def _account(self, text: str, what: str) -> Credentials:
        try:
            account = json.loads(text)
            kind = account["type"]
            self._project = self._project or account.get("project_id") or account.get("quota_project_id")
            if kind == "service_account":
                found = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                    account, scopes=_SCOPES
                )
            elif kind == "authorized_user":
                found = UserCredentials.from_authorized_user_info(  # type: ignore[no-untyped-call]
                    account, scopes=_SCOPES
                )
            else:
                raise _unusable(
                    f"{what} is of the type {kind!r}; types: service_account, authorized_user. For others "
                    "set GOOGLE_APPLICATION_CREDENTIALS to the file"
                )
        except (ValueError, TypeError, KeyError, AttributeError, GoogleAuthError):
            raise _unusable(f"{what} is not that of a Google account") from None
        return cast("Credentials", found)


def _unusable(why: str) -> StorageConfigError:
    return StorageConfigError(f"the credentials cannot be used: {why}", provider="gcs", operation="open")
