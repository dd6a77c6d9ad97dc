"""
Bundles: the code that a task needs, named by its content, so that a worker that has it is sent nothing.

A folder bundle is an action plugin's folder. A path bundle holds packages and modules, and goes on a
worker's `sys.path`. Only names, contents and whether a file is executable count, never its times. The zip is
made when someone asks for it; a folder that has not changed is not even read again.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from synapse_kernel.errors import UsageError
from synapse_kernel.event_text import size_text
from synapse_kernel.ignoring import OWN_IGNORE
from synapse_plugins.ray_executors.folder_files import FolderFiles, FoundFile
from synapse_plugins.ray_executors.settings import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 100 * MIB
# No code is packed to less: files that are larger together are refused without being read.
_BEST_RATIO = 10
# What a zip adds to a file besides its name, twice, at most.
_ZIP_ENTRY = 160
# Zips are kept for a while: the next worker may ask for the same.
_KEPT_ZIPS = 128 * MIB
# A file this young may change again without its times telling.
_SETTLED_NS = 2_000_000_000
_CHUNK = 1 << 20
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class Source(msgspec.Struct, frozen=True):
    """A file of a bundle: its name there, the hash of its content, and where that is."""

    member: str
    digest: str
    executable: bool = False
    path: str | None = None
    content: bytes = b""
    """What it holds, where it is no file."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    Files under a name made of their content.

    `size` is that of the files together, in bytes. On a worker, a folder is `name` inside of what was
    unpacked, and a path bundle is all of it.
    """

    digest: str
    name: str
    kind: Literal["folder", "path"]
    size: int
    sources: list[Source] = []

    @property
    def inside(self) -> str:
        """The part of what is unpacked that is meant, relative to it."""
        return self.name if self.kind == "folder" else ""

    def data(self) -> bytes:
        """Return the zip; raises `UsageError` if a file has changed since it was looked at."""
        with _zips_lock:
            packed = _zips.pop(self.digest, None)
            if packed is None:
                packed = _pack(self, None)
                assert packed is not None
            _keep(self.digest, packed)
        return packed


def folder_bundle(folder: str | Path, *, limit: int = LIMIT, keep: Sequence[str] = ()) -> Bundle:
    """
    Bundle an action plugin's folder, without what its ignore files name.

    `keep` are relative paths of files that come along all the same. Raises `UsageError` for a folder that is
    larger than `limit` bytes when it is packed, or that cannot be read.
    """
    path = str(folder)
    if not os.path.isabs(path):  # noqa: PTH117 - on the way of every run: to resolve links doubles its cost
        path = os.path.realpath(path)
    with _trees_lock:
        tree = _trees.get(path)
        if tree is None:
            tree = _trees[path] = _Tree(path)
    return tree.bundle(limit, tuple(keep))


def path_bundle(name: str, sources: Sequence[Source], size: int, *, limit: int = LIMIT) -> Bundle:
    """Bundle what goes on a worker's `sys.path`; raises `UsageError` if it is larger than `limit`."""
    ordered = sorted(sources, key=lambda source: source.member)
    bundle = Bundle(digest=_digest(ordered), name=name, kind="path", size=size, sources=ordered)
    _check_size(bundle, limit, f"The code of {name}")
    return bundle


def sources_of(files: Sequence[FoundFile], prefix: str = "") -> list[Source]:
    """Read the files and return them as parts of a bundle, below `prefix`."""
    return [_source(file, prefix, _hash_of(file.path)) for file in files]


def text_source(member: str, text: str) -> Source:
    """Return a file of a bundle that is none here."""
    content = text.encode()
    return Source(member, hashlib.sha256(content).hexdigest(), content=content)


class _Tree:
    """A folder, and what is known of it from the last look."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._files = FolderFiles(path)
        self._lock = threading.Lock()
        self._hashes: dict[FoundFile, str] = {}
        self._listed: list[FoundFile] = []
        self._kept: tuple[str, ...] = ()
        self._bundle: Bundle | None = None
        self._fits = -1
        self._looked = 0.0

    def bundle(self, limit: int, keep: tuple[str, ...]) -> Bundle:
        asked = time.monotonic()
        with self._lock:
            # Many runs at once: one that waited here while another looked need not look again.
            if self._bundle is None or self._looked < asked or keep != self._kept or limit != self._fits:
                self._look(limit, keep)
            assert self._bundle is not None
            return self._bundle

    def _look(self, limit: int, keep: tuple[str, ...]) -> None:
        looked = time.monotonic()
        files = self._files.look(keep)
        settled = all(file in self._hashes for file in files)
        if self._bundle is None or files != self._listed or not settled or limit != self._fits:
            self._bundle = self._made(files, limit)
        self._listed, self._kept, self._fits, self._looked = files, keep, limit, looked

    def _made(self, files: list[FoundFile], limit: int) -> Bundle:
        size = sum(file.size for file in files)
        name = Path(os.path.realpath(self.path)).name or "root"
        what = f"The folder {self.path}"
        if size > limit * _BEST_RATIO:
            raise _too_large(what, limit, size, [(file.size, file.relative) for file in files])
        before = time.time_ns() - _SETTLED_NS
        sources, hashes = [], {}
        for file in files:
            digest = self._hashes.get(file) or _hash_of(file.path)
            if file.mtime_ns < before:
                hashes[file] = digest
            sources.append(_source(file, f"{name}/", digest))
        # A folder without files is one all the same.
        sources.insert(0, Source(f"{name}/", ""))
        self._hashes = hashes
        bundle = Bundle(digest=_digest(sources), name=name, kind="folder", size=size, sources=sources)
        _check_size(bundle, limit, what)
        return bundle


_trees: dict[str, _Tree] = {}
_trees_lock = threading.Lock()
_zips: dict[str, bytes] = {}
_zips_lock = threading.Lock()


def _source(file: FoundFile, prefix: str, digest: str) -> Source:
    try:
        file.relative.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{file.path!r} cannot be shipped: its name is not UTF-8\n"
            f"  rename it, or name it in {OWN_IGNORE} if the action does not need it"
        ) from None
    return Source(f"{prefix}{file.relative}", digest, file.executable, file.path)


def _hash_of(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be shipped: {error.strerror or error}") from None


def _digest(sources: Sequence[Source]) -> str:
    lines = hashlib.sha256()
    for source in sources:
        lines.update(f"{source.member}\0{'x' if source.executable else '-'}{source.digest}\0".encode())
    # Half of it is more than enough, and paths stay readable.
    return lines.hexdigest()[:32]


def _check_size(bundle: Bundle, limit: int, what: str) -> None:
    most = bundle.size + sum(_ZIP_ENTRY + 2 * len(source.member) for source in bundle.sources)
    if most <= limit or bundle.digest in _zips:
        return
    packed = _pack(bundle, limit)
    if packed is None:
        sizes = [(_size(source), source.member) for source in bundle.sources]
        prefix = f"{bundle.inside}/" if bundle.inside else ""
        raise _too_large(what, limit, bundle.size, [(size, m.removeprefix(prefix)) for size, m in sizes])
    with _zips_lock:
        _keep(bundle.digest, packed)


def _size(source: Source) -> int:
    return len(source.content) if source.path is None else Path(source.path).stat().st_size


def _too_large(what: str, limit: int, size: int, files: list[tuple[int, str]]) -> UsageError:
    largest = sorted(files, key=lambda one: (-one[0], one[1]))[:5]
    lines = [f"    {size_text(each):>10}  {relative}" for each, relative in largest]
    place = what.removeprefix("The folder ")
    ignore = Path(place, OWN_IGNORE) if place != what else OWN_IGNORE
    return UsageError(
        f"{what} is too large to ship: {size_text(size)} of files are more than {size_text(limit)} when "
        f"packed\n  the largest:\n" + "\n".join(lines) + "\n"
        f"  name what the action does not need in {ignore}, as in a .gitignore;\n"
        f"  give it data by a path or URL that the workers reach, or raise the setting ray.upload_limit"
    )


def _keep(digest: str, packed: bytes) -> None:
    _zips[digest] = packed
    while len(_zips) > 1 and sum(map(len, _zips.values())) > _KEPT_ZIPS:
        del _zips[next(iter(_zips))]


def _pack(bundle: Bundle, limit: int | None) -> bytes | None:
    """Return the zip, or None as soon as it is larger than `limit`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for source in bundle.sources:
            info = zipfile.ZipInfo(source.member, _ZIP_DATE)
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            if info.is_dir():
                info.external_attr = 0o40755 << 16 | 0x10
                packed.writestr(info, b"")
                continue
            info.external_attr = (0o100755 if source.executable else 0o100644) << 16
            if not _write(packed, info, source, buffer, limit):
                return None
    return buffer.getvalue()


def _write(
    packed: zipfile.ZipFile, info: zipfile.ZipInfo, source: Source, buffer: io.BytesIO, limit: int | None
) -> bool:
    digest = hashlib.sha256()
    try:
        with (
            io.BytesIO(source.content) if source.path is None else Path(source.path).open("rb") as stream,
            packed.open(info, "w") as member,
        ):
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                member.write(chunk)
                if limit is not None and buffer.tell() > limit:
                    return False
    except OSError as error:
        raise UsageError(f"{source.path} cannot be shipped: {error.strerror or error}") from None
    if digest.hexdigest() != source.digest:
        raise UsageError(f"{source.path} was changed while it was packed for a worker: run it again")
    return True
