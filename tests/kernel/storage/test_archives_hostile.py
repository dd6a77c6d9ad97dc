"""Archives that are damaged or made to do harm: nothing is unpacked, least of all outside of the target."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.kernel.storage.archive_trees import FORMATS, make_tree, names_in, read_tree

from synapse_kernel import Kernel
from synapse_kernel.storage import (
    Location,
    StorageConfigError,
    StorageError,
    StorageNotFoundError,
    TransferProgress,
)
from synapse_kernel.storage.archive_formats import ArchiveError
from synapse_kernel.storage.archive_reading import extract_archive
from synapse_kernel.storage.archives import ArchiveReport, create_archive

# An entry: its name, and its content, or what kind it is and where it leads.
Entry = tuple[str, bytes | tuple[str, str]]
Packed = Callable[..., Path]

_MODES = {"link": stat.S_IFLNK, "fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "folder": stat.S_IFDIR}
_TYPES = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "folder": tarfile.DIRTYPE,
}


def pack_zip(path: Path, entries: list[Entry]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            # As it is: the constructor cuts a name at a NUL.
            info = zipfile.ZipInfo("x")
            info.filename = name
            kind, target = content if isinstance(content, tuple) else ("file", "")
            info.external_attr = (_MODES.get(kind, stat.S_IFREG) | 0o7777) << 16
            archive.writestr(info, target if isinstance(content, tuple) else content)
    return path


def pack_tar(path: Path, entries: list[Entry]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o7777
            if isinstance(content, tuple):
                info.type, info.linkname = _TYPES[content[0]], content[1]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(params=["zip", "tar.gz"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Packed:
    """Return a function that packs entries as no decent program would."""
    writer = pack_zip if request.param == "zip" else pack_tar

    def pack(*entries: Entry) -> Path:
        return writer(tmp_path / f"bad.{request.param}", list(entries))

    return pack


def refused(archive: Path, **options: int) -> str:
    """Return why an archive is refused; nothing of it may be left anywhere."""
    folder = archive.parent
    before = names_in(folder)
    with pytest.raises(ArchiveError) as raised:
        extract_archive(archive, folder / "target", **options)
    assert before == names_in(folder)
    assert f"Storage: extract_archive {str(archive)!r}: {raised.value.reason}" == str(raised.value)
    return raised.value.reason


# Names


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("../x", "leads out of the folder with '..'"),
        ("a/../../x", "leads out of the folder with '..'"),
        ("a/..", "leads out of the folder with '..'"),
        ("C:/x", "begins with a drive letter"),
        ("c:x", "begins with a drive letter"),
        ("..\\x", "holds a backslash, which separates folders on some systems"),
        ("\\\\host\\x", "holds a backslash, which separates folders on some systems"),
        (".", "is no name"),
    ],
)
def test_a_name_that_leaves_the_target_is_refused(packed: Packed, name: str, reason: str):
    assert f"the name {name!r} in it {reason}" == refused(packed(("ok", b"1"), (name, b"2")))


def test_a_name_with_a_nul_is_refused(tmp_path: Path):
    archive = pack_zip(tmp_path / "a.zip", [("a\0b", b"1")])

    assert "the name 'a\\x00b' in it holds a NUL character" == refused(archive)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(os.fsdecode(b"\xff")))

    assert "the name '\\udcff' in it is not valid UTF-8" == refused(tmp_path / "a.tgz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_harmless_forms_of_a_name_are_taken(packed: Packed, tmp_path: Path):
    archive = packed(("./", ("folder", "")), ("./a//b", b"1"), ("c/", ("folder", "")), ("c/", ("folder", "")))

    extract_archive(archive, tmp_path / "target")

    assert {"a/b": b"1", "c": None} == read_tree(tmp_path / "target")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a", "./a", ".//a"])
def test_a_name_that_comes_twice_is_refused(packed: Packed, second: str):
    assert "it holds 'a' twice" == refused(packed(("a", b"1"), (second, b"2")))


def test_a_file_in_a_file_is_refused(packed: Packed):
    assert "the name 'a/b' in it lies behind the file 'a'" == refused(packed(("a", b"1"), ("a/b", b"2")))


def test_a_file_in_place_of_a_folder_is_refused(packed: Packed):
    assert "it holds 'a' twice" == refused(packed(("a/b", b"1"), ("a", b"2")))


def test_a_name_longer_than_the_file_system_takes_is_told(packed: Packed):
    name = "x" * 300

    assert f"{name!r} in it cannot be written here: File name too long" == refused(packed((name, b"")))


# Links


@pytest.mark.parametrize(
    "target", ["..", "../x", "a/../../x", "sub/../../target-of-nobody", "back/..", "back/../sub/../.."]
)
def test_a_link_that_leaves_the_target_is_refused(packed: Packed, target: str):
    entries: list[Entry] = [("sub/x", b""), ("back", ("link", "sub/.."))]

    assert f"the link 'l' -> {target!r} in it leads out of the target" == refused(
        packed(*entries, ("l", ("link", target)))
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc", "is absolute"),
        ("", "leads nowhere"),
        ("..\\x", "holds a backslash, which separates folders on some systems"),
        ("c:/x", "begins with a drive letter"),
    ],
)
def test_a_link_to_what_is_no_name_in_the_target_is_refused(packed: Packed, target: str, reason: str):
    assert f"the link 'l' -> {target!r} in it {reason}" == refused(packed(("l", ("link", target))))


def test_a_link_that_leaves_only_by_way_of_a_later_one_is_refused(packed: Packed):
    archive = packed(("a/b/l", ("link", "../../up/../x")), ("up", ("link", "a/.")), ("a/x", b""))
    harmless = read_after(archive)
    assert "../../up/../x" == harmless["a/b/l"]

    reason = refused(
        packed(("d/l", ("link", "../up/..")), ("d/e/f", b""), ("up", ("link", "up2")), ("up2", ("link", ".")))
    )

    assert "the link 'd/l' -> '../up/..' in it leads out of the target" == reason


def read_after(archive: Path) -> dict[str, bytes | str | None]:
    extract_archive(archive, archive.parent / "harmless")
    return read_tree(archive.parent / "harmless")


@pytest.mark.parametrize("target", ["/tmp", "..", "sub"])
def test_nothing_is_written_through_a_link(packed: Packed, target: str):
    reason = refused(packed(("sub/x", b""), ("l", ("link", target)), ("l/written", b"1")))

    assert "the name 'l/written' in it lies behind the link 'l'" == reason


def test_a_link_is_not_followed_where_a_file_of_its_name_comes(packed: Packed):
    assert "it holds 'l' twice" == refused(packed(("l", ("link", "../x")), ("./l", b"1")))


@pytest.mark.parametrize("target", ["../x", "/etc/passwd", "nobody", "later", "l", "folder"])
def test_a_hard_link_to_anything_but_an_earlier_file_is_refused(tmp_path: Path, target: str):
    archive = pack_tar(
        tmp_path / "a.tgz",
        [
            ("folder", ("folder", "")),
            ("l", ("link", "folder")),
            ("h", ("hard link", target)),
            ("later", b"1"),
        ],
    )

    assert f"the hard link 'h' in it is to {target!r}, which is no file in it before the link" == refused(
        archive
    )


def test_a_hard_link_to_an_earlier_file_is_made(tmp_path: Path):
    archive = pack_tar(
        tmp_path / "a.tgz", [("d/a", b"1"), ("b", ("hard link", "./d/a")), ("c", ("hard link", "b"))]
    )

    extract_archive(archive, tmp_path / "target")

    assert {"d/a": b"1", "b": b"1", "c": b"1"} == read_tree(tmp_path / "target")


# Kinds and modes


@pytest.mark.parametrize(("kind", "told"), [("fifo", "a named pipe"), ("device", "a device")])
def test_devices_and_pipes_are_refused(packed: Packed, kind: str, told: str):
    assert f"its entry 'x' is {told}, and not unpacked" == refused(packed(("x", (kind, ""))))


def test_no_bit_but_that_of_execution_is_kept(packed: Packed, tmp_path: Path):
    extract_archive(packed(("x", b"1")), tmp_path / "target")
    umask = os.umask(0)
    os.umask(umask)

    assert 0o777 & ~umask == stat.S_IMODE((tmp_path / "target/x").stat().st_mode)


# Bounds


@pytest.mark.parametrize("kind", FORMATS)
def test_more_bytes_than_allowed_are_refused_as_they_come(tmp_path: Path, kind: str):
    folder = make_tree(tmp_path / "in", {"a": bytes(1 << 20), "b": bytes(64 << 20)})
    create_archive(folder, tmp_path / f"a.{kind}")
    told: list[TransferProgress] = []

    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError) as raised:
            extract_archive(tmp_path / f"a.{kind}", tmp_path / "out", max_size=8 << 20, progress=told.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (
        "it unpacks to more than max_size=8388608 bytes: allow more if you know where it comes from"
        == raised.value.reason
    )
    assert 8 << 20 == told[-1].bytes
    assert peak < 24 << 20
    assert {"in", f"a.{kind}"} == set(names_in(tmp_path))


def test_what_is_just_allowed_is_unpacked(packed: Packed, tmp_path: Path):
    archive = packed(("a/b", b"12345"), ("c", b"12345"))

    assert ArchiveReport(files=2, bytes=10) == extract_archive(
        archive, tmp_path / "target", max_size=10, max_files=3
    )


def test_more_files_and_folders_than_allowed_are_refused(packed: Packed):
    told = (
        "it holds more than max_files=2 files, links and folders: allow more if you know where it comes from"
    )

    assert told == refused(packed(("a", b""), ("b", ("link", "a")), ("c", b"")), max_files=2)
    assert told == refused(packed(("a/b/c/d", b"")), max_files=2)


@pytest.mark.parametrize("told", [3, 5_000])
def test_a_zip_that_lies_about_a_size_is_damaged(tmp_path: Path, told: int):
    archive = pack_zip(tmp_path / "a.zip", [("a", b"x" * 1000)])
    data = archive.read_bytes()
    for magic, offset in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)]:
        at = data.index(magic) + offset
        data = data[:at] + struct.pack("<L", told) + data[at + 4 :]
    archive.write_bytes(data)

    reasons = {
        3: "it is damaged or cut off: Bad CRC-32 for file 'a'",
        5_000: "it is damaged or cut off: 'a' should have 5000 bytes, and 1000 came",
    }
    assert reasons[told] == refused(archive)


def test_a_sparse_file_counts_with_the_zeros_that_are_not_in_the_archive(tmp_path: Path):
    info = tarfile.TarInfo("a")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,512",
        "GNU.sparse.size": str(1 << 50),
        "GNU.sparse.numblocks": "1",
    }
    info.size = 512
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(bytes(512)))

    assert (
        "it unpacks to more than max_size=4194304 bytes: allow more if you know where it comes from"
        == refused(tmp_path / "a.tgz", max_size=4 << 20)
    )


def test_a_header_that_says_it_is_huge_is_not_read(tmp_path: Path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))

    tracemalloc.start()
    try:
        reason = refused(tmp_path / "a.tgz")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert f"it is damaged or cut off: a header of {1 << 32} bytes" == reason


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_size_below_zero_is_damage_and_has_an_end(tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, -1024
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) * 4 + bytes(1024))

    assert refused(tmp_path / "a.tgz").startswith("it is damaged or cut off: ")


# Damage


@pytest.mark.parametrize("content", [b"", b"text that is no archive", b"PK", b"\x7fELF" + bytes(100)])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "a.zip").write_bytes(content)

    what = "no archive" if content else "empty"
    assert f"it is {what}: it begins as none of zip, tar.gz, tar.zst does" == refused(tmp_path / "a.zip")


def test_a_stream_that_holds_no_tar_is_told(tmp_path: Path):
    (tmp_path / "a.tgz").write_bytes(gzip.compress(b"only text" * 200))

    assert refused(tmp_path / "a.tgz").startswith("it is damaged or cut off: ")


def test_an_encrypted_zip_is_told(tmp_path: Path):
    archive = pack_zip(tmp_path / "a.zip", [("a", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)

    assert "its entry 'a' is encrypted, and there is no way to give a password" == refused(archive)


def test_a_zip_packed_in_an_unknown_way_is_told(tmp_path: Path):
    archive = pack_zip(tmp_path / "a.zip", [("a", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x03\x04") + 8] = 99
    data[data.index(b"PK\x01\x02") + 10] = 99
    archive.write_bytes(data)

    assert refused(archive).startswith("it is packed in a way that is not supported here: ")


def made(folder: Path, kind: str) -> bytes:
    content = b"".join(struct.pack(">L", number * 2_654_435_761 % 2**32) for number in range(5000))
    make_tree(folder / "in", {"a/b": content, "c": b"2", "l": "c"})
    create_archive(folder / "in", folder / f"a.{kind}")
    return (folder / f"a.{kind}").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_that_is_cut_off_anywhere_is_damaged(tmp_path: Path, kind: str):
    whole = made(tmp_path, kind)

    for length in [5, 30, *range(100, len(whole) - 1, len(whole) // 15), len(whole) - 1]:
        (tmp_path / f"a.{kind}").write_bytes(whole[:length])
        assert refused(tmp_path / f"a.{kind}").startswith("it is damaged or cut off: "), length


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_other_byte_is_an_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, value: int
):
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(made(folder, kind))
    data[int(at * len(data))] = value
    (folder / f"a.{kind}").write_bytes(data)

    try:
        extract_archive(folder / f"a.{kind}", folder / "out")
    except ArchiveError:
        assert not (folder / "out").exists()
    else:
        # A zip checks contents alone, and not what else it tells of them.
        assert kind == "zip" or read_tree(folder / "in") == read_tree(folder / "out")


def test_a_header_that_is_damaged_between_two_good_ones_is_no_end(tmp_path: Path):
    archive = pack_tar(tmp_path / "a.tgz", [("a", b"1"), ("b", b"2"), ("c", b"3")])
    data = bytearray(gzip.decompress(archive.read_bytes()))
    data[1024] ^= 1
    archive.write_bytes(gzip.compress(bytes(data)))

    assert "it is damaged or cut off: a header that is none" == refused(archive)


def test_what_follows_the_end_of_a_tar_is_told(tmp_path: Path):
    archive = pack_tar(tmp_path / "a.tgz", [("a", b"1")])
    data = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(data + data))

    assert "it is damaged or cut off: something follows its end" == refused(archive)


# The target


def test_an_empty_folder_is_a_target(packed: Packed, tmp_path: Path):
    (tmp_path / "target").mkdir()

    extract_archive(packed(("a", b"1")), tmp_path / "target")

    assert {"a": b"1"} == read_tree(tmp_path / "target")


def test_a_folder_that_holds_something_is_refused_unless_it_is_to_be_replaced(packed: Packed, tmp_path: Path):
    make_tree(tmp_path / "target", {"old": b"0"})
    archive = packed(("a", b"1"))

    with pytest.raises(StorageConfigError) as raised:
        extract_archive(archive, tmp_path / "target")
    kept = read_tree(tmp_path / "target")
    extract_archive(archive, tmp_path / "target", overwrite=True)

    assert (
        f"Storage: extract_archive {str(archive)!r}: the target {tmp_path / 'target'} is not empty: name a "
        f"folder that is, or is not there yet, or have all in it replaced with overwrite=True"
        == str(raised.value)
    )
    assert {"old": b"0"} == kept
    assert {"a": b"1"} == read_tree(tmp_path / "target")
    assert {archive.name, "target"} == set(names_in(tmp_path))


def test_a_bad_archive_replaces_nothing(packed: Packed, tmp_path: Path):
    make_tree(tmp_path / "target", {"old": b"0"})
    archive = packed(("a", b"1"), ("../b", b"2"))

    with pytest.raises(ArchiveError):
        extract_archive(archive, tmp_path / "target", overwrite=True)

    assert {"old": b"0"} == read_tree(tmp_path / "target")
    assert {archive.name, "target"} == set(names_in(tmp_path))


def test_a_link_to_a_folder_stands_for_it_as_target(packed: Packed, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "target").symlink_to("real")

    extract_archive(packed(("a", b"1")), tmp_path / "target")

    assert (tmp_path / "target").is_symlink()
    assert {"a": b"1"} == read_tree(tmp_path / "real")


def test_what_a_listener_raises_ends_it_and_leaves_nothing(packed: Packed, tmp_path: Path):
    def stop(progress: TransferProgress) -> None:
        raise ValueError("enough")

    archive = packed(("a", b"1"))

    with pytest.raises(ValueError, match="enough"):
        extract_archive(archive, tmp_path / "target", progress=stop)

    assert [archive.name] == names_in(tmp_path)


def test_sources_and_targets_that_cannot_be_are_told(packed: Packed, tmp_path: Path, kernel: Kernel):
    archive = packed(("a", b"1"))
    storage = kernel.storage(f"file://{tmp_path}")
    told = []
    for source, target in [
        (tmp_path / "no", tmp_path / "t"),
        (tmp_path, tmp_path / "t"),
        (archive, archive),
        (archive, storage.get_pathlib("t")),
    ]:
        with pytest.raises((StorageConfigError, StorageNotFoundError)) as raised:
            extract_archive(source, target)
        told.append(raised.value.reason)

    assert [
        f"there is no local file {tmp_path / 'no'}",
        f"an archive is a file, and {tmp_path} is none",
        f"the target {archive} is a file: name a folder",
        "an archive is unpacked into a local folder: upload the folder then with Storage.upload",
    ] == told


def test_an_archive_that_is_not_in_its_storage_is_not_found(tmp_path: Path, kernel: Kernel):
    with pytest.raises(StorageError) as raised:
        extract_archive(Location(kernel.storage(f"file://{tmp_path}"), "no.zip"), tmp_path / "t")

    assert "Storage 'local': download 'no.zip': there is nothing under this key" == str(raised.value)
    assert [] == names_in(tmp_path)
