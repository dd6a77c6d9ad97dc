"""Folders of a web server: what it lists of them, and by which of three ways."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import IO, TYPE_CHECKING, TypeVar, cast

from synapse_kernel.storage.errors import StorageNotFoundError, StoragePermissionError
from synapse_kernel.storage.explaining import explain_os_error
from synapse_kernel.storage.retrying import RetryPolicy, call_again
from synapse_plugins.storage.http import answers, listings
from synapse_plugins.storage.http.client import CANNOT, RefusedError
from synapse_plugins.storage.http.explaining import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from urllib3.response import BaseHTTPResponse

    from synapse_kernel.storage.providers import Entry
    from synapse_plugins.storage.http.client import Client

    _EntriesOf = Callable[[str, str, Iterable[bytes]], Iterator[Entry]]

R = TypeVar("R")

_LISTING = {"Accept": "application/json, text/html;q=0.9, */*;q=0.1"}
_ITSELF = {"Depth": "0", "Content-Type": "application/xml"}
_INSIDE = {"Depth": "1", "Content-Type": "application/xml"}
_SIDE_BY_SIDE = 8
_LISTING_IN_MEMORY = 8 << 20


class Folders:
    """The folders of a server; `stat` looks at one key."""

    def __init__(self, client: Client, stat: Callable[[str], Entry]) -> None:
        self._client = client
        self._stat = stat
        self.known_webdav: bool | None = None
        """None until it was asked; see `speaks_webdav`."""

    def entries(self, folder: str, *, recursive: bool) -> Iterator[Entry]:
        """Yield what lies in a folder, by nginx's JSON, by WebDAV or by a page of links."""
        waiting = [folder]
        while waiting:
            for entry in self._listed(waiting.pop()):
                if entry.is_folder and recursive:
                    waiting.append(entry.key)
                else:
                    yield entry

    def properties_of(self, key: str) -> Entry:
        """Return the entry of a file or folder as WebDAV tells it."""
        with self._client.asking(
            "PROPFIND", key, _ITSELF, folder=not key, body=_properties, good=(207,)
        ) as answer:
            return listings.one_of_properties(key, answers.pieces(answer))

    def speaks_webdav(self) -> bool:
        """Tell whether the server says that it speaks WebDAV; it is asked once."""
        if self.known_webdav is None:
            try:
                with self._client.asking("OPTIONS", "", folder=True) as answer:
                    self.known_webdav = "DAV" in answer.headers
            except RefusedError as error:
                # One that passes says nothing.
                if error.status == 429 or (error.status >= 500 and error.status not in CANNOT):
                    raise
                self.known_webdav = False
        return self.known_webdav

    def _listed(self, folder: str) -> Iterator[Entry]:
        entries_of, listing = self._again(folder, lambda: self._listing(folder))
        with listing:
            found = entries_of(folder, self._client.url_of(folder, folder=True), answers.pieces(listing))
            if entries_of is not listings.of_links:
                yield from found
                return
            # A page of links tells no sizes, or rounded ones.
            with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="synapse-http-list") as pool:
                while some := list(islice(found, 4 * _SIDE_BY_SIDE)):
                    yield from filter(None, pool.map(self._looked_at, some))

    def _listing(self, folder: str) -> tuple[_EntriesOf, IO[bytes]]:
        if self.known_webdav:
            return listings.of_properties, self._asked_by_webdav(folder)
        try:
            with self._client.asking("GET", folder, _LISTING, folder=True, good=(200,)) as answer:
                if answers.is_json(answer):
                    return listings.of_json, _kept(answer)
                if answers.is_html(answer) and not self.speaks_webdav():
                    return listings.of_links, _kept(answer)
        except RefusedError as error:
            if error.status not in {400, 403, *CANNOT} or (error.status == 403 and not self.speaks_webdav()):
                raise
        if self.speaks_webdav():
            return listings.of_properties, self._asked_by_webdav(folder)
        raise listings.lists_nothing()

    def _asked_by_webdav(self, folder: str) -> IO[bytes]:
        with self._client.asking(
            "PROPFIND", folder, _INSIDE, folder=True, body=_properties, good=(207,)
        ) as answer:
            return _kept(answer)

    def _looked_at(self, entry: Entry) -> Entry | None:
        if entry.is_folder:
            return entry
        try:
            return self._again(entry.key, lambda: self._stat(entry.key))
        except StorageNotFoundError:
            return None
        except StoragePermissionError:
            return entry

    def _again(self, key: str, call: Callable[[], R]) -> R:
        # Nobody above can begin a listing again that has given entries; the operation is told there.
        return call_again(
            RetryPolicy(), call, lambda error: explain_os_error(explained(error), "http", "", key)
        )


def _properties() -> Iterable[bytes]:
    return [listings.PROPERTIES]


def _kept(answer: BaseHTTPResponse) -> IO[bytes]:
    # Whoever draws entries may take long over each, and no server waits for that.
    kept = tempfile.SpooledTemporaryFile(_LISTING_IN_MEMORY, prefix="synapse-")  # noqa: SIM115 - by the caller
    for piece in answers.pieces(answer):
        kept.write(piece)
    kept.seek(0)
    return cast("IO[bytes]", kept)
