"""Checksums of what lies anywhere, in the form they are written."""

from __future__ import annotations

import io
import sys
import tracemalloc
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_kernel.errors import MissingPackageError
from synapse_kernel.storage import (
    Location,
    StorageConfigError,
    StorageIntegrityError,
    StorageNotFoundError,
    TransferProgress,
)
from synapse_kernel.storage.checksums import (
    ALGORITHMS,
    Checksum,
    calculate_checksum,
    parse_checksum,
    verify_checksum,
)

# From the programs of the coreutils; of the two CRCs it is the check value that their definitions publish.
OF_123456789 = {
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "crc32": "cbf43926",
    "crc32c": "e3069283",
}
SHA256 = f"sha256:{OF_123456789['sha256']}"
LISTED = "blake2b, blake2s, crc32, crc32c, md5, sha1, sha256, sha512, xxh3, xxh3_128, xxh3_64"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ü 1.bin"
    path.write_bytes(b"123456789")
    return path


@pytest.mark.parametrize("algorithm", OF_123456789)
def test_a_checksum_is_the_one_that_others_calculate(file: Path, algorithm: str):
    assert OF_123456789[algorithm] == calculate_checksum(file, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_can_be_parsed_and_verified_in_any_case(file: Path, algorithm: str):
    digits = calculate_checksum(file, algorithm)

    verify_checksum(file, f"{algorithm.upper()}:{digits.upper()}")
    assert Checksum(algorithm, digits) == parse_checksum(f"{algorithm}:{digits}")
    assert f"{algorithm}:{digits}" == str(parse_checksum(f"{algorithm}:{digits}"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_of_pieces_is_that_of_the_whole(tmp_path: Path, algorithm: str):
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)

    assert calculate_checksum(content, algorithm) == calculate_checksum(tmp_path / "large", algorithm)


def test_xxh3_is_the_one_of_64_bits(file: Path):
    assert calculate_checksum(file, "xxh3_64") == calculate_checksum(file, "xxh3")
    assert 32 == len(calculate_checksum(file, "xxh3_128"))


def test_a_checksum_is_the_same_wherever_the_content_is(file: Path, kernel: Kernel):
    storage = kernel.storage(f"file://{file.parent}")
    expected = OF_123456789["sha256"]

    assert expected == calculate_checksum(file)
    assert expected == calculate_checksum(str(file))
    assert expected == calculate_checksum(b"123456789")
    assert expected == calculate_checksum(memoryview(b"123456789"))
    assert expected == calculate_checksum(io.BytesIO(b"123456789"))
    assert expected == calculate_checksum(Location(storage, file.name))
    assert expected == calculate_checksum(storage.get_pathlib(file.name))


def test_a_large_file_is_not_held_in_memory(tmp_path: Path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        calculate_checksum(tmp_path / "sparse", "crc32")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_a_storage_is_read_in_large_ranges(tmp_path: Path, kernel: Kernel):
    (tmp_path / "a").write_bytes(bytes(20 << 20))
    storage = kernel.storage(f"file://{tmp_path}")
    asked: list[int] = []
    read = storage.provider.read
    storage.provider.read = lambda entry, start, length: (  # type: ignore[method-assign]
        asked.append(length) or read(entry, start, length)  # type: ignore[func-returns-value]
    )

    assert calculate_checksum(tmp_path / "a") == calculate_checksum(Location(storage, "a"))
    assert [8 << 20, 8 << 20, 4 << 20] == asked


def test_progress_is_told_in_bytes_of_the_whole(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    told: list[TransferProgress] = []

    calculate_checksum(tmp_path / "a", progress=told.append)

    last = told[-1]
    assert ("checksum", 1, 3 << 20, 1, 3 << 20) == (
        last.operation,
        last.files,
        last.bytes,
        last.total_files,
        last.total_bytes,
    )
    assert len(told) > 2


def test_another_content_is_an_error_with_both_values(file: Path):
    with pytest.raises(StorageIntegrityError) as raised:
        verify_checksum(file, "md5:00000000000000000000000000000000")

    assert (
        f"Storage: checksum {str(file)!r}: its md5 is 25f9e794323b453885f5181f1b624d0b, and it should be "
        f"00000000000000000000000000000000" == str(raised.value)
    )


def test_another_content_in_a_storage_is_told_with_its_provider(file: Path, kernel: Kernel):
    place = Location(kernel.storage(f"file://{file.parent}"), file.name)

    with pytest.raises(StorageIntegrityError) as raised:
        verify_checksum(place, "crc32:00000000")

    assert "Storage 'local': checksum 'ü 1.bin': its crc32 is cbf43926, and it should be 00000000" == str(
        raised.value
    )


def test_a_download_that_differs_names_its_key_and_leaves_nothing(file: Path, tmp_path: Path, kernel: Kernel):
    storage = kernel.storage(f"file://{file.parent}")
    storage.download(file.name, tmp_path / "right", checksum=SHA256)

    with pytest.raises(StorageIntegrityError) as raised:
        storage.download(file.name, tmp_path / "wrong", checksum="crc32:00000000")

    assert "Storage 'local': download 'ü 1.bin': its crc32 is cbf43926, and it should be 00000000" == str(
        raised.value
    )
    assert ["right", "ü 1.bin"] == sorted(path.name for path in tmp_path.iterdir())


def test_an_unknown_algorithm_is_told_with_those_there_are():
    with pytest.raises(StorageConfigError) as raised:
        calculate_checksum(b"", "sha265")

    assert f"Storage: there is no checksum 'sha265'; did you mean 'sha256'?\n  algorithms: {LISTED}" == str(
        raised.value
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "abc",
            f"'abc' is no checksum: write algorithm:digits, such as sha256:e3b0c4…\n  algorithms: {LISTED}",
        ),
        ("md5:ab", "'md5:ab' is no checksum: one of md5 has 32 hexadecimal digits, and this has 2"),
        ("crc32:ghghghgh", "'crc32:ghghghgh' is no checksum: one of crc32 has 8 hexadecimal digits"),
        (
            "md6:ab",
            f"there is no checksum 'md6'; did you mean 'md5'?\n  algorithms: {LISTED}",
        ),
    ],
)
def test_what_is_no_checksum_is_told_why(text: str, reason: str):
    with pytest.raises(StorageConfigError) as raised:
        parse_checksum(text)

    assert f"Storage: {reason}" == str(raised.value)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "xxhash", None)

    with pytest.raises(MissingPackageError) as raised:
        calculate_checksum(b"", "xxh3")

    assert (
        "Checksum 'xxh3' needs the package 'xxhash', which is not installed. "
        "Install it with: pip install 'synapse-kernel[archives]'" == str(raised.value)
    )


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path):
    with pytest.raises(StorageNotFoundError) as raised:
        calculate_checksum(tmp_path / "no")

    assert f"Storage: checksum: there is no local file {tmp_path / 'no'}" == str(raised.value)


def test_a_folder_has_no_checksum(tmp_path: Path):
    with pytest.raises(StorageConfigError) as raised:
        calculate_checksum(tmp_path)

    assert f"Storage: checksum: a checksum is one file's, and {tmp_path} is a folder" == str(raised.value)


def test_text_has_no_checksum(file: Path):
    with file.open() as text, pytest.raises(StorageConfigError) as raised:
        calculate_checksum(text)  # type: ignore[arg-type]

    assert (
        "Storage: checksum: a checksum is of bytes, and this file is open for text: open it with mode 'rb'"
        == str(raised.value)
    )
