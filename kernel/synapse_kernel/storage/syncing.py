"""
Synchronisation: a target gets what of a source it lacks, and with `delete` loses what the source lacks.

Both are listed side by side. Where both listings come in the order of their keys (folders of this machine,
buckets), only what is under way is in memory. Where one does not, the target's files are: an index by key.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Literal

import msgspec

from synapse_kernel.storage.ends import End, Unusable, carry, most_at_once
from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.storage.excluding import excluding
from synapse_kernel.storage.keys import folders_of
from synapse_kernel.storage.listing_ahead import DrawnAhead
from synapse_kernel.storage.transfers import Meter, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from synapse_kernel.storage.ends import Place
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.transfers import TransferProgress

    Pair: TypeAlias = tuple[Entry | None, Entry | None]
    """What the source and the target have under one key."""

COARSE = 2.0
"""Seconds by which clocks and file systems may tell another time for the same moment."""
_DELETE_AT_ONCE = 500
# Calculated where a service knows none, the first of those that the other side knows.
_ALGORITHMS = ("sha256", "sha1", "md5", "crc32")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a synchronisation did with one file, or would do."""

    action: Literal["copy", "delete", "skip"]
    key: str
    """Below the source and the target."""
    size: int | None = None
    reason: str
    """Why: ``new``, ``size``, ``time`` or ``checksum`` of a copy, ``not in the source`` of a deletion."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a synchronisation did, or, on trial, would do."""

    files: int
    """How many were carried to the target."""
    bytes: int
    same: int
    """How many were there already."""
    deleted: int
    skipped: int
    """How many went away meanwhile, or cannot be carried: links that lead nowhere, sockets…"""
    dry_run: bool


def sync(
    source: Place,
    target: Place,
    *,
    delete: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    exclude: Iterable[str] = (),
    max_delete: int | None = None,
    progress: Callable[[TransferProgress], None] | None = None,
    told: Callable[[Change], None] | None = None,
) -> SyncReport:
    """
    Make a folder hold the files of another; only what differs is carried.

    Each is a local path, a URL, a `Storage`, a `Location` or a `StoragePath`. A file is the same if the sizes
    are equal and, where both sides know a checksum of one kind, the checksums; else if the target's is not
    older than the source's, by two seconds at most. With `checksum` contents are compared, which reads the
    files of a service that knows none.

    `delete` deletes what the source does not have, once everything is carried; not what `exclude` matches
    (see `excluding`), nothing if that were more than `max_delete` files, and nothing if the source is empty.
    `told` is called with each `Change`, from the threads that make it. Folders without files are not carried.

    Raises `StorageNotFoundError` if the source is not there, `StorageConfigError` if it is a file, or if one
    of both lies in the other; what the first failed file raises, after which nothing is deleted.
    """
    work = _Sync(
        End.of(source),
        End.of(target),
        delete=delete,
        checksum=checksum,
        dry_run=dry_run,
        is_excluded=excluding(exclude),
        max_delete=max_delete,
        meter=Meter("sync", progress),
        told=told,
    )
    return work.run()


class _Sync:
    """One synchronisation."""

    def __init__(
        self,
        source: End,
        target: End,
        *,
        delete: bool,
        checksum: bool,
        dry_run: bool,
        is_excluded: Callable[[str], bool],
        max_delete: int | None,
        meter: Meter,
        told: Callable[[Change], None] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._delete = delete
        self._checksum = checksum
        self._dry_run = dry_run
        self._is_excluded = is_excluded
        self._max_delete = max_delete
        self._meter = meter
        self._told = told
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._files = self._bytes = 0
        self._restart()

    def _restart(self) -> None:
        """Begin again, after listings that were not in order; what was carried is there now, and the same."""
        self._is_disordered = False
        self._seen = False
        self._extra: list[tuple[str, int | None]] = []
        self._same = 0 if self._dry_run else -self._files
        self._skipped = self._deleted = 0

    def run(self) -> SyncReport:
        """Do it."""
        self._check_ends()
        in_order = self._source.in_order and self._target.in_order
        self._transfer(self._merged() if in_order else self._indexed())
        if self._is_disordered:
            self._restart()
            self._transfer(self._indexed())
        if self._delete:
            self._delete_extra()
        return SyncReport(
            files=self._files,
            bytes=self._bytes,
            same=self._same,
            deleted=self._deleted,
            skipped=self._skipped,
            dry_run=self._dry_run,
        )

    def _check_ends(self) -> None:
        source, target = self._source, self._target
        if target.is_at(source):
            what = "the source" if source.is_at(target) else f"inside the source {source.text}"
            raise StorageConfigError(f"the target {target.text} is {what}", operation="sync")
        if self._delete and source.is_at(target):
            raise StorageConfigError(
                f"the source {source.text} is inside the target {target.text}: with delete it would go too",
                operation="sync",
            )
        if not source.entry().is_folder:
            raise StorageConfigError(
                f"the source {source.text} is a file, and folders are synchronised: copy it with "
                "`synapse-kernel storage cp`",
                operation="sync",
            )
        with contextlib.suppress(StorageNotFoundError):
            if not target.entry().is_folder:
                raise StorageConfigError(
                    f"the target {target.text} is a file, and the source is a folder", operation="sync"
                )

    # What differs

    def _merged(self) -> Iterator[Pair]:
        """Pair two listings that come in the order of their keys; end, and say so, where one does not."""
        try:
            yield from _merge(_ascending(self._listed(self._source)), _ascending(self._listed(self._target)))
        except _NotInOrderError:
            self._is_disordered = True

    def _indexed(self) -> Iterator[Pair]:
        """Pair the source's listing with an index of the target's."""
        index = {entry.key: entry for entry in self._listed(self._target)}
        for entry in self._listed(self._source):
            yield entry, index.pop(entry.key, None)
        for entry in index.values():
            yield None, entry

    def _listed(self, end: End) -> Iterator[Entry]:
        return (entry for entry in end.files() if not self._is_excluded(entry.key))

    def _plan(self, pairs: Iterable[Pair]) -> Iterator[tuple[Entry, Entry | None, str]]:
        """Yield what may have to be carried, and why; take note of the rest."""
        for mine, its in pairs:
            if mine is None:
                if its is not None and self._delete:
                    self._note_extra(its)
                continue
            self._seen = True
            if isinstance(mine, Unusable):
                self._skip(mine, mine.reason)
            elif its is None or isinstance(its, Unusable):
                yield self._expected(mine), None, "new"
            elif mine.size is None or mine.size != its.size:
                yield self._expected(mine), None, "size"
            elif self._checksum:
                yield mine, its, "checksum"
            elif reason := difference(mine, its):
                yield self._expected(mine), None, reason
            else:
                self._count_same()
        if not self._is_disordered:
            self._check_extra()

    def _check_extra(self) -> None:
        if self._extra and not self._seen:
            raise StorageConfigError(
                f"the source {self._source.text} is empty, and with delete all files of {self._target.text} "
                "would go: if they may, delete them with `synapse-kernel storage rm -r`",
                operation="sync",
            )
        if self._max_delete is not None and len(self._extra) > self._max_delete:
            raise StorageConfigError(
                f"{len(self._extra)} files of {self._target.text} are not in the source {self._source.text}, "
                f"and {self._max_delete} may be deleted: none was; look with a dry run, and allow more if "
                "they may go",
                operation="sync",
            )

    def _expected(self, entry: Entry) -> Entry:
        self._meter.expect(entry.size)
        return entry

    def _note_extra(self, entry: Entry) -> None:
        if isinstance(entry, Unusable) and self._target.path_of(entry.key) is None:
            self._skip(entry, entry.reason)
            return
        if self._target.leads_out(entry.key):
            self._skip(entry, "it lies behind a link that leads out of the target")
            return
        self._extra.append((entry.key, entry.size))

    # What is done

    def _transfer(self, pairs: Iterable[Pair]) -> None:
        with DrawnAhead(self._plan(pairs)) as planned:
            run_all(planned, self._work, limit=self._limit, meter=self._meter)

    @property
    def _limit(self) -> int:
        return most_at_once([self._source, self._target])

    def _work(self, item: tuple[Entry, Entry | None, str]) -> None:
        entry, there, reason = item
        try:
            if there is not None:
                if same_content(self._source, entry, self._target, there):
                    self._count_same()
                    return
                self._expected(entry)
            if not self._dry_run:
                carry(entry, self._source, self._target, entry.key, self._meter)
        except StorageError:
            if self._source.exists(entry.key):
                raise
            self._skip(entry, "it went away meanwhile")
            return
        with self._lock:
            if entry.key in self._changed:
                return
            if self._dry_run:
                # Only a trial comes to the same file twice, after a listing that was not in order.
                self._changed.add(entry.key)
            self._files += 1
            self._bytes += entry.size or 0
            self._tell(Change(action="copy", key=entry.key, size=entry.size, reason=reason))

    def _delete_extra(self) -> None:
        if not self._dry_run:
            batches = (
                self._extra[start : start + _DELETE_AT_ONCE]
                for start in range(0, len(self._extra), _DELETE_AT_ONCE)
            )
            run_all(batches, self._delete_batch, limit=self._limit, meter=self._meter)
            # The deepest first; one that still holds something stays.
            for folder in sorted(folders_of(key for key, _ in self._extra), reverse=True):
                self._target.delete_folder_if_empty(folder)
        else:
            self._note_deleted(self._extra)

    def _delete_batch(self, batch: Sequence[tuple[str, int | None]]) -> None:
        self._target.delete([key for key, _ in batch])
        self._note_deleted(batch)

    def _note_deleted(self, batch: Sequence[tuple[str, int | None]]) -> None:
        with self._lock:
            for key, size in batch:
                self._deleted += 1
                self._tell(Change(action="delete", key=key, size=size, reason="not in the source"))

    def _count_same(self) -> None:
        with self._lock:
            self._same += 1

    def _skip(self, entry: Entry, reason: str) -> None:
        with self._lock:
            self._skipped += 1
            self._tell(Change(action="skip", key=entry.key, size=entry.size, reason=reason))

    def _tell(self, change: Change) -> None:
        if self._told is not None:
            self._told(change)


def difference(source: Entry, target: Entry) -> str | None:
    """Return why a file of the target is not the source's, by what their listings say; None if it is."""
    if source.size is None or source.size != target.size:
        return "size"
    common = source.checksums.keys() & target.checksums.keys()
    if common:
        is_same = all(source.checksums[kind] == target.checksums[kind] for kind in common)
        return None if is_same else "checksum"
    if source.modified is None or target.modified is None:
        return "time"
    return None if target.modified >= source.modified - COARSE else "time"


def same_content(source: End, mine: Entry, target: End, its: Entry) -> bool:
    """Tell whether two files have one checksum: by what their services know, else calculated."""
    from synapse_kernel.storage.checksums import calculate_checksum

    known, there = _checksums(source, mine), _checksums(target, its)
    common = known.keys() & there.keys()
    if common:
        return all(known[kind] == there[kind] for kind in common)
    kind = next((kind for kind in _ALGORITHMS if kind in known or kind in there), _ALGORITHMS[0])
    values = [
        sums.get(kind) or calculate_checksum(end.content(entry.key), kind)
        for end, entry, sums in ((source, mine, known), (target, its, there))
    ]
    return values[0] == values[1]


def _checksums(end: End, entry: Entry) -> dict[str, str]:
    if entry.checksums or not end.is_remote:
        return entry.checksums
    # A service may tell more of one file than of each in a list, and to ask is less than to read it.
    return end.entry(entry.key).checksums


class _NotInOrderError(Exception):
    """A listing is not in the order of its keys."""


def _merge(left: Iterator[Entry], right: Iterator[Entry]) -> Iterator[Pair]:
    mine, its = next(left, None), next(right, None)
    while mine is not None or its is not None:
        if its is None or (mine is not None and mine.key < its.key):
            yield mine, None
            mine = next(left, None)
        elif mine is None or its.key < mine.key:
            yield None, its
            its = next(right, None)
        else:
            yield mine, its
            mine, its = next(left, None), next(right, None)


def _ascending(entries: Iterable[Entry]) -> Iterator[Entry]:
    before = None
    for entry in entries:
        if before is not None and entry.key <= before:
            raise _NotInOrderError
        before = entry.key
        yield entry
