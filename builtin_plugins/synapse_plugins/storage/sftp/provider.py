"""The provider `sftp`: a folder of a machine that one reaches with SSH."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from synapse_kernel.storage.providers import Configuration, Entry, Provider
from synapse_plugins.storage.sftp import downloads, folders, uploads
from synapse_plugins.storage.sftp.configuration import SftpConfiguration, configuration_of, url_in
from synapse_plugins.storage.sftp.explaining import LOST, explain_sftp_error
from synapse_plugins.storage.sftp.sessions import Sessions, wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from synapse_kernel.storage.errors import StorageError
    from synapse_kernel.storage.providers import Told
    from synapse_kernel.storage.sources import Source

_SCANS = 8


class SftpProvider(Provider):
    """
    Files of a machine that serves SFTP, below one folder.

    One SSH connection, made on first use and again after it broke, serves all threads. Host keys are always
    checked. A link is followed where it stays below the root; a listing passes over the others, those that
    lead to nothing or to a folder above, and files that are being written.
    """

    name = "sftp"
    configuration_type: ClassVar[type[Configuration]] = SftpConfiguration

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._sftp = cast("SftpConfiguration", configuration)
        self._sessions = Sessions(self._sftp)

    @classmethod
    def from_url(cls, url: str) -> Mapping[str, object]:
        """Return the configuration of ``sftp://user@host:port/path``; the path is absolute."""
        return configuration_of(url)

    def url_of(self, key: str) -> str:
        """Return a key's URL, without a password."""
        return url_in(self._sftp, key)

    def stat(self, key: str) -> Entry:
        """Return an entry; a link's is that of its end."""
        return self._sessions.call(lambda session: folders.stat(session, key))

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what lies in a folder; several folders are listed side by side."""
        waiting = deque([folders.Scan(folder)])
        under_way: deque[tuple[folders.Scan, Future[tuple[list[Entry], bool]]]] = deque()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _SCANS:
                    scan = waiting.pop()
                    under_way.append((scan, self._sessions.start(scan.page)))
                scan, future = under_way.popleft()
                found, is_all = wait(future)
                if not is_all:
                    under_way.append((scan, self._sessions.start(scan.page)))
                for entry in found:
                    if not recursive or not entry.is_folder:
                        yield entry
                    else:
                        waiting.append(scan.inner(entry.key))
        finally:
            for scan, future in under_way:
                future.cancel()
                self._sessions.start(scan.close)

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        """Return a range of a file."""
        return self._sessions.call(lambda session: downloads.read_range(session, entry, start, length))

    def read_whole(self, key: str) -> bytes:
        """Return a file's content."""
        return self._sessions.call(lambda session: downloads.read_whole(session, key))

    def get_file(self, entry: Entry, target: Path, told: Told) -> None:
        """Write a file's content to a local file, after what an earlier call got of it."""
        downloads.get_file(self._sessions, entry, target, told)

    def put_file(self, source: Source, key: str, told: Told) -> None:
        """Write a file under a hidden name, and then rename it; a broken connection is taken up again."""
        uploads.put_file(self._sessions, source, key, told)

    def deletable(self, folder: str) -> Iterator[str]:
        """Yield the keys of the files in a folder and of the links, wherever they lead."""
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            files, inner = self._sessions.call(partial(folders.deletable, folder=current))
            waiting += inner
            yield from files

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; of a link, the link."""
        self._sessions.call(lambda session: folders.delete_files(session, keys))

    def delete_folder(self, key: str) -> None:
        """Delete a folder that holds no files."""
        self._sessions.call(lambda session: folders.delete_folder(session, key))

    def make_folder(self, key: str) -> None:
        """Make a folder and those above it."""
        self._sessions.call(lambda session: folders.make_folder(session, key))

    def copy_file(self, source: str, target: str) -> bool:
        """Copy a file without its content coming here, where the server can (OpenSSH 9 and later)."""
        return self._sessions.call(lambda session: uploads.copy_file(session, source, target))

    def move_file(self, source: str, target: str) -> bool:
        """Rename a file."""
        try:
            return self._sessions.call(lambda session: uploads.move_file(session, source, target))
        except LOST:
            if not self._sessions.call(lambda session: uploads.was_moved(session, source, target)):
                raise
            return True

    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        """Return the storage's error for one of asyncssh's."""
        return explain_sftp_error(error, operation, key)

    def close(self) -> None:
        """Hang up."""
        self._sessions.close()
