"""Synchronisation: what is carried, what is left, what is deleted, and what is refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.kernel.storage.memory import MemoryProvider, in_memory, texts_of

from synapse_kernel import Kernel
from synapse_kernel.current import working_for
from synapse_kernel.storage import Storage, StorageConfigError, StorageError, StorageNotFoundError
from synapse_kernel.storage.ends import End
from synapse_kernel.storage.excluding import excluding
from synapse_kernel.storage.listing_ahead import DrawnAhead
from synapse_kernel.storage.syncing import Change, SyncReport, sync
from synapse_kernel.storage.transfers import TransferProgress

EARLIER = 1_700_000_000.0

Folder = Callable[..., Path]


@pytest.fixture(autouse=True)
def here(kernel: Kernel) -> Iterator[None]:
    """Let paths and URLs be those of this test's kernel, not of one that later tests would find."""
    with working_for(kernel):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a function that makes a folder with files, all of one time."""

    def make(name: str, files: dict[str, str], *, modified: float = EARLIER) -> Path:
        made = tmp_path / name
        made.mkdir(exist_ok=True)
        for key, text in files.items():
            file = made / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            os.utime(file, (modified, modified))
        return made

    return make


def files_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def provider_of(storage: Storage) -> MemoryProvider:
    return cast("MemoryProvider", storage.provider)


def report(**counts: int) -> SyncReport:
    base = {"files": 0, "bytes": 0, "same": 0, "deleted": 0, "skipped": 0}
    return SyncReport(dry_run=False, **{**base, **counts})


# What is carried


def test_a_folder_comes_to_an_empty_storage(folder: Folder):
    source, target = folder("source", {"a.txt": "one", "a/b.txt": "two"}), in_memory()

    done = sync(source, target)

    assert report(files=2, bytes=6) == done
    assert {"a.txt": "one", "a/b.txt": "two"} == texts_of(target)


def test_what_is_there_already_is_not_carried_again(folder: Folder):
    source, target = folder("source", {"a.txt": "one", "a/b.txt": "two"}), in_memory()
    sync(source, target)
    provider_of(target).requests.clear()

    done = sync(source, target)

    assert report(same=2) == done
    assert [] == provider_of(target).asked("put")


def test_a_storage_comes_to_a_folder_that_is_not_there_with_its_times(tmp_path: Path):
    source = in_memory({"a.txt": "one", "b/c.txt": "two"}, modified=EARLIER)

    done = sync(source, tmp_path / "new/target")

    assert report(files=2, bytes=6) == done
    assert {"a.txt": "one", "b/c.txt": "two"} == files_in(tmp_path / "new/target")
    assert EARLIER == (tmp_path / "new/target/a.txt").stat().st_mtime
    assert report(same=2) == sync(source, tmp_path / "new/target")


def test_a_storage_comes_to_another_through_a_temporary_file():
    source, target = in_memory({"a.txt": "one"}), in_memory({"b.txt": "two"})

    done = sync(source, target)

    assert report(files=1, bytes=3) == done
    assert {"a.txt": "one", "b.txt": "two"} == texts_of(target)


def test_within_one_service_files_are_copied_by_it():
    storage = in_memory({"from/a.txt": "one"})

    sync(storage.at("from"), storage.at("to"))

    assert {"from/a.txt": "one", "to/a.txt": "one"} == texts_of(storage)
    assert ["to/a.txt"] == provider_of(storage).asked("copy")
    assert [] == provider_of(storage).asked("get")


def test_a_file_of_another_size_is_carried(folder: Folder):
    source, target = folder("source", {"a.txt": "new text"}), in_memory({"a.txt": "old"})
    told: list[Change] = []

    sync(source, target, told=told.append)

    assert [Change(action="copy", key="a.txt", size=8, reason="size")] == told
    assert {"a.txt": "new text"} == texts_of(target)


def test_a_newer_file_of_the_same_size_is_carried(folder: Folder):
    source = folder("source", {"a.txt": "new"}, modified=EARLIER + 60)
    target = in_memory({"a.txt": "old"}, modified=EARLIER)
    told: list[Change] = []

    sync(source, target, told=told.append)

    assert [Change(action="copy", key="a.txt", size=3, reason="time")] == told


def test_two_seconds_are_no_difference_of_time(folder: Folder):
    source = folder("source", {"a.txt": "new"}, modified=EARLIER + 1.9)

    assert report(same=1) == sync(source, in_memory({"a.txt": "old"}, modified=EARLIER))


def test_known_checksums_count_more_than_times():
    source = in_memory({"a.txt": "one", "b.txt": "new"}, modified=EARLIER + 60, checksums="md5")
    target = in_memory({"a.txt": "one", "b.txt": "old"}, modified=EARLIER, checksums="md5")
    told: list[Change] = []

    done = sync(source, target, told=told.append)

    assert report(files=1, bytes=3, same=1) == done
    assert [Change(action="copy", key="b.txt", size=3, reason="checksum")] == told


def test_with_checksum_contents_are_compared_whatever_the_times(folder: Folder):
    source = folder("source", {"a.txt": "one", "b.txt": "new"})
    target = in_memory({"a.txt": "one", "b.txt": "old"}, checksums="md5")

    assert report(same=2) == sync(source, target)
    assert report(files=1, bytes=3, same=1) == sync(source, target, checksum=True)
    assert [] == provider_of(target).asked("read")


def test_with_checksum_what_no_service_knows_is_calculated():
    source, target = in_memory({"a.txt": "one", "b.txt": "new"}), in_memory({"a.txt": "one", "b.txt": "old"})

    done = sync(source, target, checksum=True)

    assert report(files=1, bytes=3, same=1) == done
    assert ["a.txt", "b.txt"] == provider_of(source).asked("read") == provider_of(target).asked("read")


def test_with_checksum_a_service_is_asked_for_what_its_listing_lacks(folder: Folder):
    target = in_memory({"a.txt": "one"}, checksums="sha1", listed_checksums=False)

    sync(folder("source", {"a.txt": "one"}), target, checksum=True)

    assert "a.txt" in provider_of(target).asked("stat")
    assert [] == provider_of(target).asked("read")


@pytest.mark.parametrize("in_order", [True, False])
def test_listings_are_compared_in_whatever_order_they_come(in_order: bool):
    keys = ["a!.txt", "a.txt", "a/b.txt", "a0.txt", "é/ü.txt", "z/😀.txt", "z/\uffee.txt"]
    source = in_memory(dict.fromkeys(keys, "text"), modified=EARLIER, in_order=in_order)
    target = in_memory(dict.fromkeys([*keys[::2], "extra"], "text"))

    done = sync(source, target, delete=True)

    assert report(files=3, bytes=12, same=4, deleted=1) == done
    assert sorted(keys) == sorted(texts_of(target))


def test_a_folder_s_files_come_in_the_order_of_their_keys(folder: Folder):
    keys = ["a!.txt", "a.txt", "a/b.txt", "a/b/c.txt", "a0.txt", "b/z.txt", "c/é.txt"]
    keys.remove("a/b.txt")
    source = folder("source", dict.fromkeys(keys, "text"))

    assert sorted(keys) == [entry.key for entry in End.of(source).files()]


def test_files_are_carried_side_by_side(folder: Folder):
    target = in_memory()
    together = threading.Barrier(4)
    provider_of(target).before = lambda operation, _: (
        together.wait(timeout=60) and None if operation == "put" else None
    )

    done = sync(folder("source", {f"{n}.txt": "text" for n in range(8)}), target)

    assert 8 == done.files


def test_progress_knows_the_total_before_the_first_file_is_through(folder: Folder):
    target = in_memory()
    listed = threading.Event()
    source = in_memory({f"{n:03}": "text" for n in range(200)})
    provider = provider_of(source)
    original = provider.entries

    def entries(key: str, *, recursive: bool = False):
        yield from original(key, recursive=recursive)
        listed.set()

    provider.entries = entries  # type: ignore[method-assign]
    provider_of(target).before = lambda operation, _: (
        listed.wait(timeout=60) and None if operation == "put" else None
    )
    told: list[TransferProgress] = []

    sync(source, target, progress=told.append)

    done = [each for each in told if each.files]
    assert {200} == {each.total_files for each in done}
    assert (200, 800) == (told[-1].files, told[-1].bytes)


def test_a_dry_run_tells_all_and_changes_nothing(folder: Folder):
    source, target = folder("source", {"a.txt": "one"}), in_memory({"b.txt": "two"})
    told: list[Change] = []

    done = sync(source, target, delete=True, dry_run=True, told=told.append)

    assert SyncReport(files=1, bytes=3, same=0, deleted=1, skipped=0, dry_run=True) == done
    assert [
        Change(action="copy", key="a.txt", size=3, reason="new"),
        Change(action="delete", key="b.txt", size=3, reason="not in the source"),
    ] == told
    assert {"b.txt": "two"} == texts_of(target)


# What is left out


def test_what_is_excluded_is_neither_carried_nor_deleted(folder: Folder):
    source = folder("source", {"a.txt": "one", "b.tmp": "no", "cache/c.txt": "no", "raw/x/d.txt": "no"})
    target = in_memory({"old.tmp": "kept", "gone.txt": "not kept"})

    sync(source, target, delete=True, exclude=["*.tmp", "cache/", "raw/**"])

    assert {"a.txt": "one", "old.tmp": "kept"} == texts_of(target)


@pytest.mark.parametrize(
    ("pattern", "key", "is_excluded"),
    [
        ("*.tmp", "a.tmp", True),
        ("*.tmp", "deep/er/a.tmp", True),
        ("*.tmp", "a.tmp.txt", False),
        ("*.tmp", "folder.tmp/a.txt", True),
        ("cache", "cache", True),
        ("cache", "deep/cache/a.txt", True),
        ("cache/", "cache", False),
        ("cache/", "deep/cache/a.txt", True),
        ("cache/", "mycache/a.txt", False),
        ("a/b", "a/b/c.txt", True),
        ("a/b", "x/a/b", False),
        ("/a", "a/b", True),
        ("/a", "x/a", False),
        ("a/*.txt", "a/b.txt", True),
        ("a/*.txt", "a/b/c.txt", False),
        ("**/x", "a/b/x", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
    ],
)
def test_a_pattern_excludes(pattern: str, key: str, is_excluded: bool):
    assert is_excluded == excluding([pattern])(key)


def test_a_pattern_that_is_empty_is_refused():
    with pytest.raises(StorageConfigError) as raised:
        excluding(["/"])

    assert "Storage: the pattern '/' to exclude is empty: write it like '*.tmp', 'cache/' or 'raw/**'" == str(
        raised.value
    )


def test_a_link_that_leads_nowhere_and_a_pipe_are_passed_over_and_told(folder: Folder):
    source = folder("source", {"a.txt": "one"})
    (source / "dead").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    told: list[Change] = []

    done = sync(source, in_memory({"dead": "kept"}), delete=True, told=told.append)

    assert report(files=1, bytes=3, skipped=2) == done
    assert [
        Change(action="skip", key="dead", reason="it is a link that leads nowhere"),
        Change(action="skip", key="pipe", reason="it is neither a file nor a folder"),
    ] == [change for change in told if change.action == "skip"]


def test_keys_that_have_no_place_in_a_folder_are_passed_over(tmp_path: Path):
    source = in_memory({"a.txt": "one"})
    provider_of(source).files |= {"../out.txt": (b"bad", EARLIER), "b//c.txt": (b"odd", EARLIER)}

    done = sync(source, tmp_path / "target")

    assert report(files=1, bytes=3, skipped=2) == done
    assert ["target/a.txt"] == [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_that_goes_away_meanwhile_is_passed_over(folder: Folder):
    source, target = folder("source", {"a.txt": "one", "b.txt": "two"}), in_memory()

    def vanish(operation: str, key: str) -> None:
        if operation == "put" and key == "a.txt":
            (source / "a.txt").unlink()

    provider_of(target).before = vanish

    assert report(files=1, bytes=3, skipped=1) == sync(source, target)
    assert {"b.txt": "two"} == texts_of(target)


def test_a_file_of_a_storage_that_goes_away_meanwhile_is_passed_over(tmp_path: Path):
    source = in_memory({"a.txt": "one", "b.txt": "two"})
    provider = provider_of(source)
    provider.before = lambda operation, key: (
        provider.files.pop(key) and None if (operation, key) == ("get", "a.txt") else None
    )

    assert report(files=1, bytes=3, skipped=1) == sync(source, tmp_path / "target")
    assert {"b.txt": "two"} == files_in(tmp_path / "target")


# What is deleted


def test_without_delete_nothing_is_deleted(folder: Folder):
    target = in_memory({"b.txt": "two"})

    sync(folder("source", {"a.txt": "one"}), target)

    assert {"a.txt": "one", "b.txt": "two"} == texts_of(target)


def test_with_delete_files_that_the_source_lacks_go_and_so_do_their_empty_folders(folder: Folder):
    source = folder("source", {"a/b.txt": "one"})
    target = folder("target", {"a/c.txt": "two", "d/e/f.txt": "three"})

    done = sync(source, target, delete=True)

    assert report(files=1, bytes=3, deleted=2) == done
    assert ["a", "a/b.txt"] == sorted(str(path.relative_to(target)) for path in target.rglob("*"))


def test_nothing_is_deleted_if_a_file_could_not_be_carried(folder: Folder):
    target = in_memory({"old.txt": "kept"})

    def refuse(operation: str, key: str) -> None:
        if (operation, key) == ("put", "b.txt"):
            raise PermissionError("read only")

    provider_of(target).before = refuse

    with pytest.raises(StorageError) as raised:
        sync(folder("source", {"a.txt": "one", "b.txt": "two"}), target, delete=True)

    assert "Storage 'memory': upload 'b.txt': not allowed: read only" == str(raised.value)
    assert "kept" == texts_of(target)["old.txt"]


def test_an_empty_source_deletes_nothing(folder: Folder):
    source, target = folder("source", {}), in_memory({"a.txt": "one"})

    with pytest.raises(StorageConfigError) as raised:
        sync(source, target, delete=True)

    assert (
        f"Storage: sync: the source {source} is empty, and with delete all files of {target.url} would go: "
        "if they may, delete them with `synapse-kernel storage rm -r`"
    ) == str(raised.value)
    assert {"a.txt": "one"} == texts_of(target)


def test_a_source_of_which_all_is_excluded_deletes_nothing(folder: Folder):
    source, target = folder("source", {"a.tmp": ""}), in_memory({"a.txt": "one"})

    with pytest.raises(StorageConfigError, match="is empty"):
        sync(source, target, delete=True, exclude=["*.tmp"])


def test_more_deletions_than_allowed_are_none(folder: Folder):
    source, target = folder("source", {"a.txt": "one"}), in_memory({"b": "", "c": ""})

    with pytest.raises(StorageConfigError) as raised:
        sync(source, target, delete=True, max_delete=1)

    assert (
        f"Storage: sync: 2 files of {target.url} are not in the source {source}, and 1 may be deleted: none "
        "was; look with a dry run, and allow more if they may go"
    ) == str(raised.value)
    assert {"b", "c"} <= set(texts_of(target))
    assert 2 == sync(source, target, delete=True, max_delete=2).deleted


def test_nothing_is_deleted_behind_a_link_that_leads_out_of_the_target(folder: Folder, tmp_path: Path):
    elsewhere = folder("elsewhere", {"precious.txt": "text"})
    target = folder("target", {"a.txt": "one"})
    (target / "link").symlink_to(elsewhere)
    told: list[Change] = []

    done = sync(folder("source", {"a.txt": "one"}), target, delete=True, told=told.append)

    assert report(same=1, skipped=1) == done
    assert {"precious.txt": "text"} == files_in(elsewhere)
    assert ["it lies behind a link that leads out of the target"] == [change.reason for change in told]


# What is refused


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(StorageNotFoundError) as raised:
        sync(tmp_path / "nothing", in_memory({"a": ""}), delete=True)

    assert f"Storage: there is no local file or folder {tmp_path / 'nothing'}" == str(raised.value)


def test_a_folder_of_a_storage_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(StorageNotFoundError) as raised:
        sync(in_memory({"a": ""}).at("nothing"), tmp_path, delete=True)

    assert "Storage 'memory': info 'nothing': there is nothing under this key" == str(raised.value)


def test_a_source_that_is_a_file_is_refused(folder: Folder):
    source = folder("source", {"a.txt": "one"})

    with pytest.raises(StorageConfigError) as raised:
        sync(source / "a.txt", in_memory())

    assert (
        f"Storage: sync: the source {source}/a.txt is a file, and folders are synchronised: copy it with "
        "`synapse-kernel storage cp`"
    ) == str(raised.value)


def test_a_target_that_is_a_file_is_refused(folder: Folder):
    source = folder("source", {"a.txt": "one"})
    other = folder("other", {"a.txt": "one"})

    with pytest.raises(StorageConfigError) as raised:
        sync(source, other / "a.txt")

    assert f"Storage: sync: the target {other}/a.txt is a file, and the source is a folder" == str(
        raised.value
    )


def test_a_target_inside_the_source_is_refused(folder: Folder):
    source = folder("source", {"a.txt": "one"})
    (source.parent / "link").symlink_to(source)

    with pytest.raises(StorageConfigError) as raised:
        sync(source, source.parent / "link/inner")

    assert f"Storage: sync: the target {source.parent}/link/inner is inside the source {source}" == str(
        raised.value
    )


def test_a_target_inside_the_source_is_refused_in_a_storage_too():
    storage = in_memory({"a/b/c": ""})

    with pytest.raises(StorageConfigError, match=r"/a/b is inside the source"):
        sync(storage.at("a"), storage.at("a/b"))


def test_a_source_as_its_own_target_is_refused(folder: Folder):
    source = folder("source", {"a.txt": "one"})

    with pytest.raises(StorageConfigError) as raised:
        sync(source, source)

    assert f"Storage: sync: the target {source} is the source" == str(raised.value)


def test_a_source_inside_the_target_is_refused_with_delete_only(folder: Folder):
    target = folder("target", {"inner/a.txt": "one"})

    with pytest.raises(StorageConfigError) as raised:
        sync(target / "inner", target, delete=True)

    assert (
        f"Storage: sync: the source {target}/inner is inside the target {target}: with delete it would go too"
        == str(raised.value)
    )
    assert report(files=1, bytes=3) == sync(target / "inner", target)


def test_neighbours_whose_names_begin_alike_are_not_inside_each_other(folder: Folder):
    folder("data", {"a.txt": "one"})

    assert 1 == sync(folder("data", {}), folder("data2", {}), delete=True).files


def test_a_file_that_changes_all_the_time_is_an_error_and_the_target_keeps_what_it_has(folder: Folder):
    source, target = folder("source", {"a.txt": "one"}), in_memory({"a.txt": "before"})

    def change(operation: str, key: str) -> None:
        if operation == "put":
            (source / key).write_text(f"{time.monotonic_ns()} and more")

    provider_of(target).before = change

    with pytest.raises(StorageError, match="changed while it was read"):
        sync(source, target)

    assert {"a.txt": "before"} == texts_of(target)


def test_what_a_listener_raises_ends_it(folder: Folder):
    def stop(_: TransferProgress) -> None:
        raise KeyboardInterrupt

    target = in_memory({"old": ""})
    with pytest.raises(KeyboardInterrupt):
        sync(folder("source", {"a.txt": "one"}), target, delete=True, progress=stop)

    assert {"old": ""} == texts_of(target)


# Real storages


def test_two_folders_of_this_machine_as_storages(folder: Folder, kernel: Kernel):
    source = kernel.storage(f"file://{folder('source', {'a.txt': 'one', 'b/c.txt': 'two'})}")
    target = kernel.storage({"provider": "local", "configuration": {"location": str(folder("target", {}))}})

    assert report(files=2, bytes=6) == sync(source, target)
    assert report(same=2) == sync(source, target, checksum=True)
    assert {"a.txt": "one", "b/c.txt": "two"} == files_in(folder("target", {}))


def test_the_root_of_a_storage_is_not_left_through_a_link(folder: Folder, kernel: Kernel):
    outside, root = folder("outside", {}), folder("root", {})
    (root / "link").symlink_to(outside)
    target = kernel.storage({"provider": "local", "configuration": {"location": str(root)}})

    with pytest.raises(StorageError, match="leads out of the root"):
        sync(in_memory({"link/a.txt": "one"}), target)

    assert {} == files_in(outside)


def test_the_method_takes_texts_as_keys_and_paths_as_local(folder: Folder, tmp_path: Path):
    storage = in_memory()

    storage.sync(folder("source", {"a.txt": "one"}), "first")
    storage.sync("first", "second")
    storage.sync("second", tmp_path / "back")

    assert {"first/a.txt": "one", "second/a.txt": "one"} == texts_of(storage)
    assert {"a.txt": "one"} == files_in(tmp_path / "back")


# Listing ahead


def test_items_are_drawn_ahead_no_further_than_told():
    drawn: list[int] = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    with DrawnAhead(items(), most=5) as found:
        first = next(found)
        rest = list(found)

    assert list(range(100)) == [first, *rest] == drawn


def test_what_drawing_raises_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise LookupError("broken")

    found = []
    with DrawnAhead(items()) as drawn, pytest.raises(LookupError, match="broken"):
        found.extend(drawn)

    assert [1] == found or [] == found


def test_a_listing_that_nobody_needs_any_more_ends():
    drawn: list[int] = []

    def items():
        number = 0
        while True:
            drawn.append(number)
            yield number
            number += 1

    before = threading.active_count()
    with DrawnAhead(items(), most=3) as found:
        next(found)

    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert before == threading.active_count()
    assert len(drawn) < 10
