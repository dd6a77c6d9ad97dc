"""What `Storage` does above any provider: tries again, verifies, counts, bounds and cleans up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.kernel.storage.memory import MemoryProvider, in_memory, texts_of

from synapse_kernel.storage import (
    Entry,
    RetryPolicy,
    Source,
    Storage,
    StorageConfigError,
    StorageConnectionError,
    StorageError,
    StorageIntegrityError,
    StoragePermissionError,
    TransferProgress,
    TransferReport,
)
from synapse_kernel.testing.storage_parts import Heard, keys_of, tree_of, write_tree

QUICK = RetryPolicy(attempts=4, initial=0.001, maximum=0.001)


class Failing(MemoryProvider):
    """Fails the first times, after half of the content was told of."""

    def __init__(self, *, times: int, error: Callable[[], Exception] = ConnectionResetError) -> None:
        super().__init__()
        self.left = times
        self.error = error
        self.tries = 0

    def fail(self, told: Callable[[int], None], size: int) -> None:
        self.tries += 1
        if self.left:
            self.left -= 1
            told(size // 2)
            raise self.error()

    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        self.fail(told, source.size)
        super().put_file(source, key, told)

    def get_file(self, entry: Entry, target: Path, told: Callable[[int], None]) -> None:
        self.fail(told, entry.size or 0)
        super().get_file(entry, target, told)


def test_what_passes_is_tried_again_and_counted_once(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    provider = Failing(times=3)
    heard = Heard()

    report = Storage(provider, retries=QUICK).upload(tmp_path / "file", "key", progress=heard)

    assert (4, TransferReport(files=1, bytes=100)) == (provider.tries, report)
    assert ("upload", 1, 100) == heard.last


def test_a_download_that_is_tried_again_is_counted_once(tmp_path: Path):
    provider = Failing(times=0)
    storage = Storage(provider, retries=QUICK)
    storage.write_bytes("key", b"x" * 100)
    provider.left = 2

    assert TransferReport(files=1, bytes=100) == storage.download("key", tmp_path / "file")
    assert {"file": b"x" * 100} == tree_of(tmp_path)


def test_the_last_try_s_error_is_raised(tmp_path: Path):
    provider = Failing(times=9)
    with pytest.raises(StorageConnectionError) as caught:
        Storage(provider, retries=QUICK).write_bytes("key", b"content")

    assert "Storage 'memory': write 'key': the connection broke off: ConnectionResetError" == str(
        caught.value
    )
    assert (4, {}) == (provider.tries, provider.files)


def test_what_does_not_pass_is_tried_once():
    provider = Failing(times=9, error=PermissionError)
    with pytest.raises(StoragePermissionError):
        Storage(provider, retries=QUICK).write_bytes("key", b"content")

    assert 1 == provider.tries


def test_a_file_that_changed_during_a_try_is_taken_as_it_is_at_the_next(tmp_path: Path):
    local = tmp_path / "file"
    local.write_bytes(b"before")
    storage = in_memory()
    storage._retries = QUICK

    def change(progress: TransferProgress) -> None:
        if local.read_bytes() == b"before":
            local.write_bytes(b"afterwards")

    report = storage.upload(local, "key", progress=change)

    assert ({"key": "afterwards"}, 10) == (texts_of(storage), report.bytes)


class Short(MemoryProvider):
    def get_file(self, entry: Entry, target: Path, told: Callable[[int], None]) -> None:
        target.write_bytes(b"x")


def test_a_download_of_another_size_is_refused(tmp_path: Path):
    storage = Storage(Short())
    storage.write_bytes("key", b"content")
    with pytest.raises(StorageIntegrityError) as caught:
        storage.download("key", tmp_path / "file")

    assert "Storage 'memory': download 'key': 1 bytes came, and it has 7" == str(caught.value)
    assert {} == tree_of(tmp_path)


class Evil(MemoryProvider):
    keys: tuple[str, ...] = ()

    def entries(self, folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        yield from (Entry(key=key, size=1) for key in self.keys)


@pytest.mark.parametrize("key", ["folder/../../x", "folder//x", "folder/.", "folder//etc/x", "folder/a\0b"])
def test_a_key_that_a_service_lists_does_not_lead_out_of_the_target(tmp_path: Path, key: str):
    provider = Evil()
    provider.files = {"folder/x": (b"1", 0.0), key: (b"1", 0.0)}
    provider.keys = (key,)
    with pytest.raises(StorageConfigError):
        Storage(provider).download("folder", tmp_path / "in" / "target")

    assert {} == tree_of(tmp_path)


class Slow(MemoryProvider):
    """Counts how many files are written at once."""

    concurrency = 3

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.all = threading.Barrier(3, timeout=30)
        self.lock = threading.Lock()

    def put_file(self, source: Source, key: str, told: Callable[[int], None]) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.all.wait()
        super().put_file(source, key, told)
        with self.lock:
            self.now -= 1


def test_as_many_files_are_moved_at_once_as_the_provider_says(tmp_path: Path):
    folder = write_tree(tmp_path, {str(number): b"1" for number in range(12)})
    provider = Slow()
    Storage(provider).upload(folder, "")

    assert (3, 12) == (provider.most, len(provider.files))


def test_the_first_failure_stops_the_files_that_wait(tmp_path: Path):
    folder = write_tree(tmp_path, {f"{number:03}": b"1" for number in range(200)})
    storage = in_memory()
    provider = storage.provider
    assert isinstance(provider, MemoryProvider)

    def refuse(operation: str, key: str) -> None:
        if key == "005":
            raise PermissionError

    provider.before = refuse
    with pytest.raises(StoragePermissionError, match="upload '005'"):
        storage.upload(folder, "")

    # Those that were under way, or drawn already.
    assert len(provider.files) <= 5 + 3 * provider.concurrency


def test_many_keys_are_deleted_in_batches():
    storage = in_memory({f"folder/{number}": "" for number in range(1200)})
    provider = storage.provider
    sizes = []
    delete = provider.delete
    provider.delete = lambda keys: (sizes.append(len(keys)), delete(keys))[1]  # type: ignore[method-assign]

    assert 1200 == storage.delete("folder", recursive=True).files
    assert [200, 500, 500] == sorted(sizes)


class Unable(MemoryProvider):
    """Cannot copy by itself."""

    def copy_file(self, source: str, target: str) -> bool:
        return False


def test_what_a_service_cannot_copy_goes_through_this_machine():
    provider = Unable()
    storage = Storage(provider)
    storage.write_bytes("a/b", b"content")

    assert TransferReport(files=1, bytes=7) == storage.copy("a", "c")
    assert TransferReport(files=1, bytes=7) == storage.move("a", "d")
    assert {"c/b": "content", "d/b": "content"} == texts_of(storage)


def test_a_copy_that_fails_leaves_its_source_and_no_target():
    provider = Failing(times=0, error=PermissionError)
    provider.copy_file = lambda source, target: False  # type: ignore[method-assign]
    storage = Storage(provider)
    storage.write_bytes("a", b"content")
    provider.left = 1
    with pytest.raises(StoragePermissionError):
        storage.move("a", "b")

    assert {"a": "content"} == texts_of(storage)


def test_the_listener_of_a_storage_hears_every_transfer(tmp_path: Path):
    heard = Heard()
    storage = Storage(MemoryProvider(), progress=heard)
    (tmp_path / "file").write_bytes(b"content")
    storage.upload(tmp_path / "file", "a")
    storage.at("").download("a", tmp_path / "b")
    storage.copy("a", "c")

    assert ["upload", "download", "copy"] == list(dict.fromkeys(told.operation for told in heard.told))


def test_a_link_that_the_provider_cannot_make_is_a_copy(tmp_path: Path):
    storage = in_memory()
    (tmp_path / "file").write_bytes(b"content")
    storage.upload(tmp_path / "file", "a", link="hardlink")
    report = storage.download("a", tmp_path / "b", link="reflink")

    assert (TransferReport(files=1, bytes=7), b"content") == (report, (tmp_path / "b").read_bytes())


def test_a_file_that_is_being_written_is_not_uploaded(tmp_path: Path):
    storage = in_memory()
    write_tree(tmp_path, {"a": b"1", ".synapse-0123456789abcdef.part": b"half"})
    storage.upload(tmp_path, "")

    assert {"a": "1"} == texts_of(storage)


def test_a_folder_that_cannot_be_made_here_is_named(tmp_path: Path):
    storage = in_memory({"key": "content"})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        storage.download("key", tmp_path / "file" / "in" / "target")

    assert (
        f"Storage 'memory': download 'key': the local folder {tmp_path}/file/in cannot be made: "
        f"Not a directory"
    ) == str(caught.value)


def test_a_listing_that_fails_in_the_middle_says_where():
    storage = in_memory({"a": "", "b": ""})
    provider = storage.provider

    def broken(folder: str, *, recursive: bool = False) -> Iterator[Entry]:
        yield Entry(key="a", size=0)
        raise ConnectionResetError

    provider.entries = broken  # type: ignore[method-assign]
    found = storage.list()

    assert "a" == next(found).key
    with pytest.raises(StorageConnectionError) as caught:
        next(found)
    assert "Storage 'memory': list: the connection broke off: ConnectionResetError" == str(caught.value)


def test_a_storage_shows_its_url():
    storage = in_memory().at("folder")

    assert f"Storage('memory://{id(storage.provider)}/folder')" == repr(storage)


def test_entries_are_relative_to_where_the_storage_begins():
    storage = in_memory({"one/two/three": "", "one/two/four/five": ""}).at("one").at("two")

    assert ["four/", "three"] == keys_of(storage.list())
    assert ["four/five", "three"] == keys_of(storage.list(recursive=True))


class Untold(MemoryProvider):
    """Tells no size, as a server may that makes its answers as it goes."""

    def stat(self, key: str) -> Entry:
        return msgspec.structs.replace(super().stat(key), size=None)

    def read_whole(self, key: str) -> bytes:
        return self.files[key][0]


def test_a_file_of_a_size_that_nobody_tells_is_read_to_its_end():
    storage = Storage(Untold())
    storage.write_bytes("file", b"content")

    with storage.open("file", "rb") as file:
        assert b"content" == file.read()
    assert b"tent" == storage.read_bytes("file", start=3)
