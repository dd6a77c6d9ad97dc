"""The storage provider `http`: files of a web server, read by ranges and written whole by PUT."""

from __future__ import annotations

import hashlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar, cast

from synapse_kernel.storage.errors import (
    StorageIntegrityError,
    StorageNotFoundError,
    StorageUploadError,
)
from synapse_kernel.storage.explaining import explain_os_error
from synapse_kernel.storage.keys import join_key, parent_key
from synapse_kernel.storage.providers import Configuration, Entry, Provider
from synapse_plugins.storage.http import answers
from synapse_plugins.storage.http.client import CANNOT, Client, RefusedError
from synapse_plugins.storage.http.configuration import HttpConfiguration, configuration_of
from synapse_plugins.storage.http.explaining import explained
from synapse_plugins.storage.http.folders import Folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from synapse_kernel.storage.errors import StorageError
    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source

_WORTH_GOING_ON = 1 << 20
"""A transfer that broke off after this many bytes goes on at once, without counting as a failed try."""
_SIDE_BY_SIDE = 8


class HttpProvider(Provider):
    """
    The files below a URL.

    A folder is what the server shows at a URL that ends with ``/``. nginx's list leaves out names that
    begin with a dot.
    """

    name: ClassVar[str] = "http"
    configuration_type: ClassVar[type[Configuration]] = HttpConfiguration
    concurrency: ClassVar[int] = 16
    gets_in_order: ClassVar[bool] = True

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._client = Client(cast("HttpConfiguration", configuration))
        self._folders = Folders(self._client, self.stat)

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
        if self._folders.known_webdav:
            return self._folders.properties_of(key)
        try:
            with self._client.asking("HEAD", key, folder=not key) as answer:
                if not key or answers.is_folder(answer):
                    return Entry(key=key, is_folder=True)
                entry = answers.entry_of(key, answer)
        except IsADirectoryError:
            return Entry(key=key, is_folder=True)
        except RefusedError as error:
            if not key or error.status not in {400, 403, *CANNOT}:
                raise
            # A WebDAV server may know no HEAD of a folder.
            return (
                self._folders.properties_of(key)
                if self._folders.speaks_webdav()
                else self._stat_by_range(key)
            )
        return entry if entry.size is not None else self._stat_by_range(key)

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what the server lists, by JSON, by WebDAV or by a page of links."""
        return self._folders.entries(folder, recursive=recursive)

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
            while skip and (passed := len(answer.read(min(skip, answers.PIECE)))):
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
        """
        Write a file by PUT.

        A plain web server shows what was there before until it has all of it. One that speaks WebDAV may
        keep what came before a connection broke off: there it is written beside its place, and moved.
        """
        if not self._folders.speaks_webdav():
            self._put_with_folder(source, key, told)
            return
        part = _part_beside(key)
        with self._deleted_on_failure(part):
            self._put_with_folder(source, part, told)
            if not self._carry("MOVE", part, key):
                raise StorageUploadError("the server has no MOVE, without which half a file may be seen")

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
        part = _part_beside(target)
        with self._deleted_on_failure(part):
            if not self._carry("COPY", source, part):
                return False
            if self._carry("MOVE", part, target):
                return True
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
                    for piece in answers.pieces(answer):
                        file.write(piece)
                        told(len(piece))
            checksums = {**answers.checksums_of(answer), **entry.checksums}
        _verify(target, checksums, told)

    def _put_with_folder(self, source: Source, key: str, told: Told) -> None:
        try:
            self._put(source, key, told)
        except RefusedError as error:
            if error.status not in {404, 409} or not parent_key(key):
                raise
            if self._is_folder(key):
                raise IsADirectoryError(key) from None
            # Another thread may have made it meanwhile.
            self.make_folder(parent_key(key))
            self._put(source, key, told)

    @contextmanager
    def _deleted_on_failure(self, part: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # A server may be at it still, and only then find out that its client is gone.
            for wait in (0.0, 0.05, 0.2, 0.5):
                time.sleep(wait)
                with suppress(Exception):
                    self._delete(part, folder=False)
            raise

    def _put(self, source: Source, key: str, told: Told) -> None:
        sent = 0

        def body() -> Iterator[bytes]:
            nonlocal sent
            if sent:
                sent = _taken_back(sent, told)
            with source.open() as file:
                while True:
                    piece = file.read(min(answers.PIECE, source.size - sent))
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
        if self._folders.speaks_webdav() and self._is_folder(target):
            # It would be deleted first, with all that is in it.
            raise IsADirectoryError(target)
        headers = {"Destination": self._client.url_of(target), "Overwrite": "T"}
        try:
            self._ask(method, source, headers)
        except RefusedError as error:
            if error.status in CANNOT:
                return False
            # Where the folder of the target is missing nginx answers 500, and others 403.
            if error.status not in {403, 409, 500} or not parent_key(target):
                raise
            self.make_folder(parent_key(target))
            self._ask(method, source, headers)
        return True

    def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> None:
        with self._client.asking(method, key, headers):
            pass


def _part_beside(key: str) -> str:
    return join_key(parent_key(key), f".synapse-{uuid.uuid4().hex[:16]}.part")


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
