"""The storage provider `http`: files of a web server, read by ranges and written whole by PUT."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import IO, TYPE_CHECKING, ClassVar, TypeVar, cast

from synapse_kernel.storage.errors import (
    StorageIntegrityError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUploadError,
)
from synapse_kernel.storage.explaining import explain_os_error
from synapse_kernel.storage.keys import join_key, name_of, parent_key
from synapse_kernel.storage.providers import Configuration, Entry, Provider
from synapse_kernel.storage.retrying import RetryPolicy, call_again
from synapse_plugins.storage.http import answers, listings
from synapse_plugins.storage.http.client import Client, RefusedError
from synapse_plugins.storage.http.configuration import HttpConfiguration, configuration_of
from synapse_plugins.storage.http.explaining import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from urllib3.response import BaseHTTPResponse

    from synapse_kernel.storage.errors import StorageError
    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source

    _EntriesOf = Callable[[str, str, Iterable[bytes]], Iterator[Entry]]

R = TypeVar("R")

_PIECE = 1 << 18
_WORTH_GOING_ON = 1 << 20
"""A transfer that broke off after this many bytes goes on at once, without counting as a failed try."""
_SIDE_BY_SIDE = 8
_LISTING_IN_MEMORY = 8 << 20
_CANNOT = {405, 501}
"""The statuses of a method that a server does not have."""


class HttpProvider(Provider):
    """
    The files below a URL.

    A folder is what the server shows at a URL that ends with ``/``. nginx's list leaves out names that
    begin with a dot.
    """

    name: ClassVar[str] = "http"
    configuration_type: ClassVar[type[Configuration]] = HttpConfiguration
    concurrency: ClassVar[int] = 16

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._client = Client(cast("HttpConfiguration", configuration))
        self._speaks_webdav: bool | None = None
        """None until it was asked."""

    @classmethod
    def from_url(cls, url: str) -> Mapping[str, object]:
        """Return the configuration of ``https://name:password@host/path?query``."""
        return configuration_of(url)

    def url_of(self, key: str) -> str:
        """Return the URL of a key, percent-encoded and without what lets in."""
        return self._client.url_of(key)

    # What is there

    def stat(self, key: str) -> Entry:
        """Return what HEAD tells; where that is refused, what the answer to a GET of one byte tells."""
        if self._speaks_webdav:
            return self._properties_of(key)
        try:
            with self._client.asking("HEAD", key, folder=not key) as answer:
                if not key or answers.is_folder(answer):
                    return Entry(key=key, is_folder=True)
                entry = answers.entry_of(key, answer)
        except IsADirectoryError:
            return Entry(key=key, is_folder=True)
        except RefusedError as error:
            if not key or error.status not in {400, 403, *_CANNOT}:
                raise
            return self._stat_by_range(key)
        return entry if entry.size is not None else self._stat_by_range(key)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what the server lists, by JSON, by WebDAV or by a page of links."""
        waiting = [folder]
        while waiting:
            for entry in self._listed(waiting.pop()):
                if entry.is_folder and recursive:
                    waiting.append(entry.key)
                else:
                    yield entry

    # Reading

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """Return a range; what a server that ignores ranges sends before it is passed over."""
        if length <= 0:
            return b""
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        with self._client.asking("GET", entry.key, wanted, good=(200, 206, 416)) as answer:
            answers.check_same(entry, answer)
            if answer.status == 416:
                return b""
            skip = 0 if answer.status == 206 else start
            if answer.status == 206:
                answers.check_range(answer, start)
            while skip and (passed := len(answer.read(min(skip, _PIECE)))):
                skip -= passed
            return b"" if skip else answers.take(answer, length)

    def read_whole(self, key: str) -> bytes:
        """Return the content by one request."""
        with self._client.asking("GET", key, folder=not key, good=(200,)) as answer:
            if not key or answers.is_folder(answer):
                raise IsADirectoryError(key)
            return answer.read()

    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """Write a file's content to `target`; a transfer that breaks off is gone on with while it gets on."""
        while True:
            before = target.stat().st_size if target.exists() else 0
            try:
                self._get_rest(entry, target, told)
            except Exception as error:
                gained = target.stat().st_size - before if target.exists() else 0
                if gained < _WORTH_GOING_ON or not self.explain(error, "download", entry.key).transient:
                    raise
            else:
                return

    # Writing

    def put_file(self, source: Source, key: str, told: Told) -> None:
        """Write a file by PUT: a server shows what is there before until it has all of it."""
        try:
            self._put(source, key, told)
        except RefusedError as error:
            if error.status not in {404, 409} or not parent_key(key):
                raise
            self.make_folder(parent_key(key))
            self._put(source, key, told)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files, several at once."""
        if len(keys) == 1:
            self._delete(keys[0], folder=False)
            return
        with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="synapse-http-delete") as pool:
            for _ in pool.map(lambda key: self._delete(key, folder=False), keys):
                pass

    def delete_folder(self, key: str) -> None:
        """
        Delete a folder in which the server lists no file at any depth.

        The server deletes all that is in it: what it does not list, and what comes between, is deleted too.
        """
        try:
            left = next(self.entries(key, recursive=True), None)
        except StorageNotFoundError:
            return
        if left is None:
            self._delete(key, folder=True)

    def make_folder(self, key: str) -> None:
        """Make a folder by MKCOL, and those above it that are missing."""
        if not key:
            return
        try:
            self._make_one(key)
        except RefusedError as error:
            if error.status not in {404, 409}:
                raise
            self.make_folder(parent_key(key))
            self._make_one(key)

    def copy_file(self, source: str, target: str) -> bool:
        """Copy a file by COPY to a name beside the target, and MOVE it there: a copy is seen as it grows."""
        part = join_key(parent_key(target), f".{name_of(target)[:80]}.{uuid.uuid4().hex[:8]}.part")
        if not self._carry("COPY", source, part):
            return False
        try:
            if self._carry("MOVE", part, target):
                return True
        except BaseException:
            with suppress(Exception):
                self._delete(part, folder=False)
            raise
        self._delete(part, folder=False)
        return False

    def move_file(self, source: str, target: str) -> bool:
        """Move a file by MOVE."""
        return self._carry("MOVE", source, target)

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Say what a status or a failure of the connection means."""
        return explain_os_error(explained(error), self.name, operation, key)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # Inner steps

    def _stat_by_range(self, key: str) -> Entry:
        with self._client.asking("GET", key, {"Range": "bytes=0-0"}, good=(200, 206, 416)) as answer:
            return answers.entry_of(key, answer)

    def _properties_of(self, key: str) -> Entry:
        with self._client.asking(
            "PROPFIND", key, answers.PROPFIND_ONE, folder=not key, body=_properties, good=(207,)
        ) as answer:
            return listings.one_of_properties(key, _pieces(answer))

    def _listed(self, folder: str) -> Iterator[Entry]:
        entries_of, listing = self._again(folder, lambda: self._listing(folder))
        with listing:
            found = entries_of(folder, self._client.url_of(folder, folder=True), _pieces(listing))
            if entries_of is not listings.of_links:
                yield from found
                return
            # A page of links tells no sizes, or rounded ones.
            with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="synapse-http-list") as pool:
                while some := list(islice(found, 4 * _SIDE_BY_SIDE)):
                    yield from filter(None, pool.map(self._looked_at, some))

    def _listing(self, folder: str) -> tuple[_EntriesOf, IO[bytes]]:
        if self._speaks_webdav:
            return listings.of_properties, self._asked_by_webdav(folder)
        page, refused = None, None
        try:
            with self._client.asking("GET", folder, answers.LISTING, folder=True, good=(200,)) as answer:
                if answers.is_json(answer):
                    return listings.of_json, _kept(answer)
                page = _kept(answer) if answers.is_html(answer) else None
        except RefusedError as error:
            if error.status not in {400, 403, *_CANNOT}:
                raise
            refused = error
        if self._speaks_webdav is None:
            try:
                return listings.of_properties, self._asked_by_webdav(folder)
            except RefusedError as error:
                # One that passes says nothing about WebDAV.
                if error.status == 429 or (error.status >= 500 and error.status not in _CANNOT):
                    raise
                self._speaks_webdav = False
        if refused is not None and refused.status not in _CANNOT:
            raise refused
        if page is None:
            raise listings.lists_nothing()
        return listings.of_links, page

    def _asked_by_webdav(self, folder: str) -> IO[bytes]:
        with self._client.asking(
            "PROPFIND", folder, answers.PROPFIND_INSIDE, folder=True, body=_properties, good=(207,)
        ) as answer:
            self._speaks_webdav = True
            return _kept(answer)

    def _looked_at(self, entry: Entry) -> Entry | None:
        if entry.is_folder:
            return entry
        try:
            return self._again(entry.key, lambda: self.stat(entry.key))
        except StorageNotFoundError:
            return None
        except StoragePermissionError:
            return entry

    def _again(self, key: str, call: Callable[[], R]) -> R:
        # Nobody above can begin a listing again that has given entries; the operation is told there.
        return call_again(RetryPolicy(), call, lambda error: self.explain(error, "", key))

    def _get_rest(self, entry: Entry, target: Path, told: Told) -> None:
        have = target.stat().st_size if target.exists() else 0
        known = answers.stamp_of(entry)
        if have and (known is None or (entry.size is not None and have > entry.size)):
            told(-have)
            have = 0
        wanted = {"Range": f"bytes={have}-", "If-Range": known} if have and known else {}
        with self._client.asking("GET", entry.key, wanted, good=(200, 206, 416)) as answer:
            answers.check_same(entry, answer)
            if answer.status == 206:
                answers.check_range(answer, have)
            elif have and not (answer.status == 416 and have == entry.size):
                told(-have)
                have = 0
            if answer.status == 416 and have != entry.size:
                target.unlink(missing_ok=True)
                raise StorageIntegrityError("the server has no such part of it any more", transient=True)
            with target.open("r+b" if have else "wb", buffering=0) as file:
                file.truncate(have)
                file.seek(have)
                if answer.status != 416:
                    for piece in _pieces(answer):
                        file.write(piece)
                        told(len(piece))
            checksums = {**answers.checksums_of(answer), **entry.checksums}
        _verify(target, checksums, told)

    def _put(self, source: Source, key: str, told: Told) -> None:
        sent = 0

        def body() -> Iterator[bytes]:
            nonlocal sent
            if sent:
                sent = _taken_back(sent, told)
            with source.open() as file:
                while True:
                    piece = file.read(min(_PIECE, source.size - sent))
                    if not piece and sent < source.size:
                        source.check()
                        raise StorageUploadError("the file became shorter while it was read", transient=True)
                    if sent + len(piece) == source.size:
                        # The server has not all of it yet, and keeps nothing of what is not whole.
                        source.check()
                    yield piece
                    sent += len(piece)
                    told(len(piece))
                    if sent == source.size:
                        return

        headers = {"Content-Length": str(source.size), "Content-Type": "application/octet-stream"}
        try:
            with self._client.asking("PUT", key, headers, body=body):
                pass
        except BaseException:
            _taken_back(sent, told)
            raise

    def _delete(self, key: str, *, folder: bool) -> None:
        try:
            with self._client.asking("DELETE", key, folder=folder, good=(200, 202, 204)):
                pass
        except RefusedError as error:
            if error.status not in {404, 410}:
                raise

    def _make_one(self, key: str) -> None:
        try:
            with self._client.asking("MKCOL", key, folder=True):
                pass
        except RefusedError as error:
            # 405 is said of a folder that is there, too.
            if error.status != 405 or not self._is_folder(key):
                raise

    def _is_folder(self, key: str) -> bool:
        try:
            return self.stat(key).is_folder
        except RefusedError:
            return False

    def _carry(self, method: str, source: str, target: str) -> bool:
        headers = {"Destination": self._client.url_of(target), "Overwrite": "T"}
        try:
            self._ask(method, source, headers)
        except RefusedError as error:
            if error.status in _CANNOT:
                return False
            # nginx answers 500 where the folder of the target is missing.
            folder = parent_key(target)
            if error.status not in {409, 500} or not folder or self._is_folder(folder):
                raise
            self.make_folder(folder)
            self._ask(method, source, headers)
        return True

    def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> None:
        with self._client.asking(method, key, headers):
            pass


def _properties() -> Iterable[bytes]:
    return [listings.PROPERTIES]


def _pieces(answer: BaseHTTPResponse | IO[bytes]) -> Iterator[bytes]:
    while piece := answer.read(_PIECE):
        yield piece


def _kept(answer: BaseHTTPResponse) -> IO[bytes]:
    # Whoever draws entries may take long over each, and no server waits for that.
    kept = tempfile.SpooledTemporaryFile(_LISTING_IN_MEMORY, prefix="synapse-")  # noqa: SIM115 - by the caller
    for piece in _pieces(answer):
        kept.write(piece)
    kept.seek(0)
    return cast("IO[bytes]", kept)


def _taken_back(sent: int, told: Told) -> int:
    if sent:
        told(-sent)
    return 0


def _verify(file: Path, checksums: Mapping[str, str], told: Told) -> None:
    for name, expected in checksums.items():
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, name).hexdigest()
        if actual != expected:
            told(-file.stat().st_size)
            file.unlink()
            raise StorageIntegrityError(
                f"the {name} of what came is {actual}, and the server says {expected}", transient=True
            )
