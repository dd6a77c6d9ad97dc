"""Storage providers that break the contract, each in one way; what `test_storage_contract` runs."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.kernel.storage.memory import MemoryProvider

from synapse_kernel.storage import Entry, Source, Storage, StorageError
from synapse_kernel.testing.storage import StorageContract


class Sound(MemoryProvider):
    """Nothing is wrong with it."""


class WritesInPieces(MemoryProvider):
    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        with source.open() as file:
            data = file.read()
        half = len(data) // 2
        self.files[key] = (data[:half], time.time())
        time.sleep(0.001)
        told(half)
        source.check()
        self.files[key] = (data, time.time())


class DoesNotCheckTheSource(MemoryProvider):
    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        with source.open() as file:
            self.files[key] = (file.read(), time.time())


class TakesPrefixesForFolders(MemoryProvider):
    def stat(self, key: str) -> Entry:
        if key not in self.files and any(name.startswith(key) for name in self.files):
            return Entry(key=key, is_folder=True)
        return super().stat(key)


class DecodesKeys(MemoryProvider):
    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        super().put_file(source, unquote(key), told)

    def stat(self, key: str) -> Entry:
        return super().stat(unquote(key))

    def read(self, entry: Entry, start: int, length: int) -> bytes:
        return self.files[unquote(entry.key)][0][start : start + length]


class NormalizesNames(MemoryProvider):
    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        super().put_file(source, unicodedata.normalize("NFC", key), told)

    def stat(self, key: str) -> Entry:
        return super().stat(unicodedata.normalize("NFC", key))


class ReadsOneByteTooMany(MemoryProvider):
    def read(self, entry: Entry, start: int, length: int) -> bytes:
        return super().read(entry, start, length + 1)


class ListsOnePage(MemoryProvider):
    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        for number, entry in enumerate(super().entries(folder, recursive=recursive)):
            if number == 100:
                return
            yield entry


class MindsWhatIsMissing(MemoryProvider):
    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self.files[key]


class ForgetsWhere(MemoryProvider):
    def explain(self, error: Exception, operation: str, key: str | None) -> StorageError:
        told = super().explain(error, operation, key)
        return type(told)("it did not work", provider=self.name, operation=operation)


class GetsHalf(MemoryProvider):
    def get_file(self, entry: Entry, target: Path, told: Callable[[int], None]) -> None:
        target.write_bytes(self.files[entry.key][0][: (entry.size or 0) // 2])


class Contract(StorageContract):
    provider: type[MemoryProvider]

    @pytest.fixture
    def storage(self) -> Storage:
        return Storage(self.provider())


class TestSound(Contract):
    provider = Sound


class TestWritesInPieces(Contract):
    provider = WritesInPieces


class TestDoesNotCheckTheSource(Contract):
    provider = DoesNotCheckTheSource


class TestTakesPrefixesForFolders(Contract):
    provider = TakesPrefixesForFolders


class TestDecodesKeys(Contract):
    provider = DecodesKeys


class TestNormalizesNames(Contract):
    provider = NormalizesNames


class TestReadsOneByteTooMany(Contract):
    provider = ReadsOneByteTooMany


class TestListsOnePage(Contract):
    provider = ListsOnePage


class TestMindsWhatIsMissing(Contract):
    provider = MindsWhatIsMissing


class TestForgetsWhere(Contract):
    provider = ForgetsWhere


class TestGetsHalf(Contract):
    provider = GetsHalf
