"""A storage as an fsspec file system: for pandas, zarr, datasets and whatever else speaks fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from synapse_kernel.storage.errors import StorageNotFoundError

if TYPE_CHECKING:
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.storage import Storage

PROTOCOL = "synapse"


class StorageFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """
    The keys of one storage as paths: ``coco/labels.json`` is that key.

    Its errors are those of `open`, as callers of fsspec expect: `FileNotFoundError` for what is not there.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self, storage: Storage, **options: object) -> None:
        super().__init__(**options)
        self.storage = storage

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix(f"{PROTOCOL}://").strip("/")

    def info(self, path: str, **options: object) -> dict[str, object]:
        """Return an entry as fsspec has it."""
        del options
        try:
            return _detail(self.storage.info(self._strip_protocol(path)))
        except StorageNotFoundError as error:
            raise FileNotFoundError(str(error)) from error

    def ls(self, path: str, detail: bool = True, **options: object) -> list[object]:
        """List a folder, or the file itself."""
        del options
        key = self._strip_protocol(path)
        try:
            entry = self.storage.info(key)
            found = list(self.storage.list(key)) if entry.is_folder else [entry]
        except StorageNotFoundError as error:
            raise FileNotFoundError(str(error)) from error
        return [_detail(entry) if detail else entry.key for entry in found]

    def _open(self, path: str, mode: str = "rb", **options: object) -> object:
        del options
        try:
            return self.storage.open(path, mode if "b" in mode else f"{mode}b")
        except StorageNotFoundError as error:
            raise FileNotFoundError(str(error)) from error

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: object
    ) -> bytes:
        """Return a file's content, or the bytes from `start` to `end`."""
        if (start or 0) < 0 or (end is not None and end < 0):
            return cast("bytes", super().cat_file(path, start, end, **options))
        length = None if end is None else max(0, end - (start or 0))
        try:
            return self.storage.read_bytes(self._strip_protocol(path), start=start or 0, length=length)
        except StorageNotFoundError as error:
            raise FileNotFoundError(str(error)) from error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        """Write a file."""
        del options
        key = self._strip_protocol(path)
        if mode == "create" and self.storage.exists(key):
            raise FileExistsError(key)
        self.storage.write_bytes(key, value)

    def get_file(self, rpath: str, lpath: str, **options: object) -> None:
        """Get one file."""
        del options
        if self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        self.storage.download(self._strip_protocol(rpath), lpath)

    def put_file(self, lpath: str, rpath: str, **options: object) -> None:
        """Put one file."""
        del options
        key = self._strip_protocol(rpath)
        if Path(lpath).is_dir():
            self.storage.make_folder(key)
        else:
            self.storage.upload(lpath, key)

    def mkdir(self, path: str, create_parents: bool = True, **options: object) -> None:
        """Make a folder, where the service has folders."""
        del create_parents, options
        self.storage.make_folder(self._strip_protocol(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and those above it."""
        key = self._strip_protocol(path)
        if not exist_ok and self.storage.provider.has_folders and self.storage.exists(key):
            raise FileExistsError(key)
        self.storage.make_folder(key)

    def rmdir(self, path: str) -> None:
        """Delete an empty folder."""
        self.storage.delete_folder(self._strip_protocol(path))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete a file, or with `recursive` a folder."""
        del maxdepth
        for one in [path] if isinstance(path, str) else path:
            self.storage.delete(self._strip_protocol(one), recursive=recursive)

    def _rm(self, path: str) -> None:
        self.storage.delete(self._strip_protocol(path))

    def cp_file(self, path1: str, path2: str, **options: object) -> None:
        """Copy a file."""
        del options
        self.storage.copy(self._strip_protocol(path1), self._strip_protocol(path2))

    def mv(self, path1: str, path2: str, **options: object) -> None:
        """Move a file or folder."""
        del options
        self.storage.move(self._strip_protocol(path1), self._strip_protocol(path2))

    def sign(self, path: str, expiration: int = 100, **options: object) -> str:
        """Return a signed URL."""
        del options
        return self.storage.signed_url(self._strip_protocol(path), expiration)

    def modified(self, path: str) -> object:
        """Return when a file was written."""
        return self.info(path)["mtime"]


def _detail(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.key,
        "size": None if entry.is_folder else entry.size,
        "type": "directory" if entry.is_folder else "file",
        "mtime": entry.modified,
        "etag": entry.etag,
    }
