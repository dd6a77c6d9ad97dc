"""Files that are got once and kept: which copy is whose, what is gone on with, and what is not."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from synapse_kernel import Kernel
from synapse_kernel.settings import Settings
from synapse_kernel.storage import (
    Location,
    StorageConfigError,
    StorageIntegrityError,
    StorageNotFoundError,
    TransferProgress,
)
from synapse_kernel.storage.downloads import download_file

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(Settings()) as kernel:
        yield kernel


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Return a file that stands for one far away."""
    file = tmp_path / "there" / "model v1.tar.gz"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_file_is_got_under_a_name_that_shows_its_own(kernel: Kernel, there: Path, cache: Path) -> None:
    digest = hashlib.sha256(there.as_uri().replace("%20", " ").encode()).hexdigest()[:16]

    copy = download_file(str(there), cache, kernel=kernel)

    assert cache / f"{digest}-model v1.tar.gz" == copy
    assert CONTENT == copy.read_bytes()


def test_a_file_that_is_there_and_the_same_is_not_got_again(kernel: Kernel, there: Path, cache: Path) -> None:
    first = download_file(str(there), cache, kernel=kernel)
    inode = first.stat().st_ino

    again = download_file(str(there), cache, kernel=kernel)

    assert (first, inode) == (again, again.stat().st_ino)


def test_a_file_that_changed_is_got_again(kernel: Kernel, there: Path, cache: Path) -> None:
    download_file(str(there), cache, kernel=kernel)
    there.write_bytes(b"new")

    assert b"new" == download_file(str(there), cache, kernel=kernel).read_bytes()


def test_a_copy_with_the_right_checksum_is_taken_without_asking(
    kernel: Kernel, there: Path, cache: Path
) -> None:
    first = download_file(str(there), cache, kernel=kernel)
    there.unlink()

    assert first == download_file(str(there), cache, checksum=sha256(CONTENT), kernel=kernel)


def test_a_damaged_copy_is_got_again_where_a_checksum_tells(kernel: Kernel, there: Path, cache: Path) -> None:
    first = download_file(str(there), cache, kernel=kernel)
    cache.joinpath(f".{first.name}.json").unlink()
    first.write_bytes(b"damaged")

    copy = download_file(str(there), cache, checksum=sha256(CONTENT), kernel=kernel)

    assert CONTENT == copy.read_bytes()


def test_a_file_with_another_checksum_is_not_kept(kernel: Kernel, there: Path, cache: Path) -> None:
    wrong = sha256(b"other")
    with pytest.raises(StorageIntegrityError) as caught:
        download_file(str(there), cache, checksum=wrong, kernel=kernel)

    assert str(caught.value) == (
        f"Storage 'local': download {str(there)[1:]!r}: its sha256 is {sha256(CONTENT)[7:]}, "
        f"and it should be {wrong[7:]}"
    )
    assert [] == [file.name for file in cache.iterdir() if not file.name.endswith((".lock", ".json"))]


def test_a_checksum_that_is_none_is_said_before_anything_is_got(
    kernel: Kernel, there: Path, cache: Path
) -> None:
    with pytest.raises(StorageConfigError, match="'abc' is no checksum: write algorithm:digits"):
        download_file(str(there), cache, checksum="abc", kernel=kernel)

    assert not cache.exists()


def test_a_part_of_the_same_file_is_gone_on_with(kernel: Kernel, there: Path, cache: Path) -> None:
    told: list[TransferProgress] = []
    copy = leave_part(kernel, there, cache, CONTENT[:1000])

    download_file(str(there), cache, progress=told.append, kernel=kernel)

    assert CONTENT == copy.read_bytes()
    assert (1, len(CONTENT)) == (told[-1].files, told[-1].bytes)


def test_a_part_of_a_file_that_changed_is_thrown_away(kernel: Kernel, there: Path, cache: Path) -> None:
    copy = leave_part(kernel, there, cache, CONTENT[:1000])
    there.write_bytes(CONTENT[::-1])
    os.utime(there, (1, 1))

    download_file(str(there), cache, kernel=kernel)

    assert CONTENT[::-1] == copy.read_bytes()


def test_a_part_is_never_taken_for_the_whole(kernel: Kernel, there: Path, cache: Path) -> None:
    copy = leave_part(kernel, there, cache, CONTENT[:1000])
    there.unlink()

    with pytest.raises(StorageNotFoundError):
        download_file(str(there), cache, kernel=kernel)
    assert not copy.exists()


def test_a_part_without_a_note_is_thrown_away(kernel: Kernel, there: Path, cache: Path) -> None:
    copy = leave_part(kernel, there, cache, b"x" * 1000)
    cache.joinpath(f".{copy.name}.part.json").unlink()

    download_file(str(there), cache, kernel=kernel)

    assert CONTENT == copy.read_bytes()


def test_a_folder_is_no_file(kernel: Kernel, there: Path, cache: Path) -> None:
    with pytest.raises(StorageConfigError) as caught:
        download_file(str(there.parent), cache, kernel=kernel)

    assert str(caught.value) == (
        f"Storage 'local': download {str(there.parent)[1:]!r}: it is a folder: name one file, "
        "or use Storage.download"
    )


def test_the_root_is_no_file(kernel: Kernel, there: Path, cache: Path) -> None:
    with pytest.raises(StorageConfigError) as caught:
        download_file(Location(kernel.storage(there.parent.as_uri()), ""), cache, kernel=kernel)

    assert str(caught.value) == (
        "Storage 'local': download: the address of a file is needed, and this is the root"
    )


def test_a_location_and_a_path_of_a_storage_name_the_same_copy(
    kernel: Kernel, there: Path, cache: Path
) -> None:
    storage = kernel.storage(there.parent.as_uri())
    copies = {
        download_file(Location(storage, there.name), cache, kernel=kernel),
        download_file(storage.get_pathlib(there.name), cache, kernel=kernel),
    }

    assert 1 == len(copies)


def test_two_files_of_one_name_have_a_copy_each(kernel: Kernel, there: Path, cache: Path) -> None:
    other = there.parent / "deeper" / there.name
    other.parent.mkdir()
    other.write_bytes(b"other")

    copies = [download_file(str(file), cache, kernel=kernel).read_bytes() for file in (there, other)]

    assert [CONTENT, b"other"] == copies


def test_a_long_name_keeps_its_end(kernel: Kernel, there: Path, cache: Path) -> None:
    long = there.with_name("é" * 120 + ".json")
    long.write_bytes(b"{}")

    name = download_file(str(long), cache, kernel=kernel).name

    assert name.endswith("é.json")
    assert len(f".{name}.part.json".encode()) <= 255


def test_processes_that_want_one_file_at_once_all_get_it_whole(
    there: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They import this module by its name, however pytest was started.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        copies = pool.starmap_async(_fetched, [(str(there), str(cache))] * 6).get(timeout=120)

    assert [sha256(CONTENT)] * 6 == copies
    assert 1 == len([file for file in cache.iterdir() if not file.name.startswith(".")])


def _fetched(source: str, cache: str) -> str:
    with Kernel(Settings()) as kernel:
        return sha256(download_file(source, cache, kernel=kernel).read_bytes())


def leave_part(kernel: Kernel, file: Path, cache: Path, part: bytes) -> Path:
    """Leave what a download of a file that broke off leaves; return where its copy will be."""
    copy = download_file(str(file), cache, kernel=kernel)
    note = cache / f".{copy.name}.json"
    content = msgspec.json.decode(note.read_bytes())
    cache.joinpath(f".{copy.name}.part.json").write_bytes(
        msgspec.json.encode({"content": content, "is_left": True})
    )
    cache.joinpath(f".{copy.name}.part").write_bytes(part)
    note.unlink()
    copy.unlink()
    return copy
