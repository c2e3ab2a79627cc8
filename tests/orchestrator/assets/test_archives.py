"""Archives of strangers: plain files below one folder alone, of bounded size, read to the end; nothing else changes."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import tarfile
from pathlib import Path

import pytest
from archives import Entry, tar, zipped

from orchestrator.assets import archives
from orchestrator.assets.archives import move_into, unpack
from orchestrator.errors import BadInput

GOOD: list[Entry] = [
    ("./", None, {}), ("a/", None, {}), ("a/one.txt", b"1", {}), ("./two.txt", b"22", {}), ("e/", None, {}),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one file beside it, which must stay as it is."""
    (tmp_path / "outside.tar.gz").write_bytes(b"not yours")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def refused(place: Path, content: bytes, said: str) -> None:
    """Unpacking raises BadInput with one line that can be printed, and touches nothing outside its folder."""
    before = snapshot(place.parent)
    (place / "x").write_bytes(content)
    with pytest.raises(BadInput, match=rf"^{place / 'x'} is not unpacked: .*{said}") as caught:
        unpack(place / "x", place / "out")
    assert str(caught.value).isprintable()
    assert snapshot(place.parent) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    below = [path for path in folder.rglob("*") if "in/" not in f"{path}/"]
    return {str(path): path.read_bytes() for path in below if path.is_file()}


@pytest.mark.parametrize(
    "content", [tar(GOOD), tar(GOOD, zipped=False), tar(GOOD, form=tarfile.PAX_FORMAT), zipped(GOOD[1:])],
    ids=["tar.gz", "tar", "pax", "zip"],
)  # fmt: skip
def test_files_and_folders_are_unpacked(content: bytes, place: Path) -> None:
    (place / "x").write_bytes(content)
    files = unpack(place / "x", place / "out")
    assert {str(path.relative_to(place / "out")): path.read_bytes() for path in files} == {
        "a/one.txt": b"1", "two.txt": b"22",
    }  # fmt: skip
    assert (place / "out" / "e").is_dir()


def test_rights_owners_and_long_names_of_an_archive_are_its_own_matter(place: Path) -> None:
    name = "x" * 120 + "/" + "y" * 120
    (place / "x").write_bytes(tar([(name, b"1", {"mode": 0o6777, "uid": 12345, "uname": "root"})]))
    (made,) = unpack(place / "x", place / "out")
    assert made.relative_to(place / "out").as_posix() == name
    assert (made.stat().st_uid, made.stat().st_mode & 0o7111) == (os.getuid(), 0)


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize(
    "name",
    ["../outside.tar.gz", "/tmp/outside.tar.gz", "a/../../outside.tar.gz", "..", "a/..", "//x", "x/../../y.tar.gz"],
)
def test_a_name_that_leads_out_is_refused(name: str, make: object, place: Path) -> None:
    refused(place, make([("ok", b"1", {}), (name, b"mine", {})]), "is not below its folder")  # type: ignore[operator]
    assert not (place.parent / "y.tar.gz").exists()


LINKS = {
    "a symbolic link": [("x", b"", {"type": tarfile.SYMTYPE, "linkname": "../outside.tar.gz"})],
    "a link within": [("a", b"1", {}), ("b", b"", {"type": tarfile.SYMTYPE, "linkname": "a"})],
    "a hard link": [("x", b"", {"type": tarfile.LNKTYPE, "linkname": "../outside.tar.gz"})],
    "a dangling hard link": [("x", b"", {"type": tarfile.LNKTYPE, "linkname": "nowhere"})],
    "a link, then a file through it": [("d", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("d/z", b"1", {})],
    "a pipe": [("x", b"", {"type": tarfile.FIFOTYPE})],
    "a device": [("x", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})],
    "a disk": [("x", b"", {"type": tarfile.BLKTYPE, "devmajor": 8})],
    "a type of its own": [("x", b"", {"type": b"Q"})],
}


@pytest.mark.parametrize("what", LINKS)
def test_a_tar_file_holds_files_and_folders_alone(what: str, place: Path) -> None:
    refused(place, tar(LINKS[what]), "is neither a plain file nor a folder")  # type: ignore[arg-type]


def test_a_chain_of_long_links_leads_nowhere(place: Path) -> None:
    """It led out of the folder through tarfile's own filter: os.path.realpath gives up beyond 4,096 letters."""
    long, steps = "d" * 247, "abcdefghijklmnop"
    entries: list[Entry] = []
    path = ""
    for step in steps:
        entries.append((f"{path}{long}", None, {}))
        entries.append((f"{path}{step}", b"", {"type": tarfile.SYMTYPE, "linkname": long}))
        path += f"{long}/"
    short = "/".join(steps)
    entries.append((f"{short}/{'l' * 254}", b"", {"type": tarfile.SYMTYPE, "linkname": "../" * len(steps)}))
    entries.append(("escape", b"", {"type": tarfile.SYMTYPE, "linkname": f"{short}/{'l' * 254}/../../.."}))
    entries.append(("escape/outside.tar.gz", b"mine", {}))
    refused(place, tar(entries), "is neither a plain file nor a folder")


def test_a_sparse_file_is_refused(place: Path) -> None:
    """Its header may state any size for next to nothing."""
    header = bytearray(tar([("x", b"", {"type": tarfile.GNUTYPE_SPARSE})], zipped=False)[:512])
    header[386:398] = b"00000000000\0"  # offset and number of bytes of a first piece
    header[398:410] = b"00000000000\0"
    header[483:495] = b"77777777777\0"  # the true size: 8 GiB
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refused(place, bytes(header) + bytes(10240), "is neither a plain file nor a folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_zip_file_holds_files_and_folders_alone(kind: int, place: Path) -> None:
    entries: list[Entry] = [("x", b"../outside.tar.gz", {"external_attr": (kind | 0o777) << 16})]
    refused(place, zipped(entries), "'x' is neither a file nor a folder")


def test_a_zip_file_that_is_encrypted_or_compressed_otherwise_is_refused(place: Path) -> None:
    content = zipped([("x", b"1" * 100, {})])
    directory = content.index(b"PK\x01\x02")
    for offset, change, said in (
        (8, b"\x01\x00", "'x' is encrypted"),
        (10, b"\x5d\x00", r"'x' is compressed in a way \(93\) that is not read"),
        (10, b"\x0e\x00", r"'x' is compressed in a way \(14\) that is not read"),
        (6, b"\xff\x00", "zip file version 25.5"),
        (16, b"\0\0\0\0", "Bad CRC-32"),
    ):
        changed = bytearray(content)
        changed[directory + offset : directory + offset + 2] = change[:2]
        refused(place, bytes(changed), said)
        (place / "out").rename(place / f"out{offset}{change.hex()}")


def test_a_name_that_is_there_twice_is_refused(place: Path) -> None:
    refused(place, tar([("a", b"1", {}), ("./a", b"2", {})]), "'./a' is in it twice, or as a file and as a folder")


@pytest.mark.parametrize("second", ["a/b", "a/"])
def test_a_name_of_a_file_and_of_a_folder_is_refused(second: str, place: Path) -> None:
    entry: Entry = (second, None if second.endswith("/") else b"2", {})
    refused(place, tar([("a", b"1", {}), entry]), "in it (twice, or )?as a file and as a folder")


def test_an_archive_that_is_cut_anywhere_is_refused(place: Path) -> None:
    """tarfile takes the end of the file for the end of the archive, and never reads gzip's sum."""
    for number, content in enumerate((tar(GOOD), zipped(GOOD[1:]))):
        for cut in range(len(content)):
            (place / "x").write_bytes(content[:cut])
            with pytest.raises(BadInput, match="is not unpacked: it is "):
                unpack(place / "x", place / f"{number}-{cut}")
    plain = tar(GOOD, zipped=False)
    for cut in range(0, 3584, 256):  # five headers and the blocks of two files
        (place / "x").write_bytes(plain[:cut])
        with pytest.raises(BadInput, match="is not unpacked: it is "):
            unpack(place / "x", place / f"plain-{cut}")


def test_a_damaged_header_is_not_taken_for_the_end(place: Path) -> None:
    plain = bytearray(tar([("a", b"1", {}), ("b", b"2", {}), ("c", b"3", {})], zipped=False))
    plain[1024 + 10] ^= 1
    refused(place, bytes(plain), "it is damaged, or no archive: bad checksum")
    (place / "out" / "a").unlink()
    (place / "out").rmdir()
    two = tar([("a", b"1", {})], zipped=False) + tar([("b", b"2", {})], zipped=False)
    refused(place, two, "it has more after its end")


def test_a_changed_byte_is_noticed_by_the_sum_of_gzip(place: Path) -> None:
    content = bytearray(tar(GOOD))
    content[-6] ^= 1
    refused(place, bytes(content), "it is damaged: CRC check failed")


def test_what_an_archive_unpacks_to_is_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "AND_BYTES", 1 << 20)
    for content in (tar([("x", bytes(8 << 20), {})]), zipped([("x", bytes(8 << 20), {})])):
        refused(place, content, r"it unpacks to more than [\d,]+ bytes, too many for an archive of its size")
        assert sum(path.stat().st_size for path in (place / "out").iterdir()) < 4 << 20
        (place / "out").rename(place / f"out{len(content)}")
    padded = gzip.compress(tar([("x", b"", {})], zipped=False) + bytes(8 << 20))
    refused(place, padded, "it unpacks to more than")


def test_the_number_of_files_and_their_depth_are_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 5)
    refused(place, tar([(f"{i}", b"", {}) for i in range(6)]), "it has more than 5 files")
    (place / "out").rename(place / "before")
    refused(place, tar([("d/" * 70 + "x", b"", {})]), "lies more than 64 folders deep")


def test_a_header_that_states_gigabytes_is_not_read_into_memory(place: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    refused(place, member.tobuf(tarfile.GNU_FORMAT) + bytes(10240), "a header states a size of 8,589,934,592 bytes")
    (place / "out").rmdir()
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 8 << 30
    refused(place, member.tobuf(tarfile.GNU_FORMAT) + bytes(10240), "a header states a size of 8,589,934,592 bytes")


def test_a_name_that_no_terminal_can_show_is_escaped(place: Path) -> None:
    refused(
        place, tar([("\x1b]0;x\x07\udce9", b"", {"type": tarfile.FIFOTYPE})]), r"'\\x1b\]0;x\\x07\\udce9' is neither"
    )


@pytest.mark.parametrize(
    ("name", "reason"), [("../" + "e" * 60_000, "is not below its folder"), ("e" * 60_000 + "/..", "not below")]
)
@pytest.mark.parametrize("make", [tar, zipped])
def test_a_name_of_60000_letters_is_shown_by_its_beginning(make: object, name: str, reason: str, place: Path) -> None:
    """`make fuzz` found one."""
    (place / "x").write_bytes(make([(name, b"1", {})]))  # type: ignore[operator]
    with pytest.raises(BadInput, match=reason) as caught:
        unpack(place / "x", place / "out")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b"hi", b"PK\x03\x04", b"\x1f\x8b", b"<html>", bytes(512), bytes(10240)])
def test_what_is_no_archive_is_refused(content: bytes, place: Path) -> None:
    if content == bytes(10240):
        (place / "x").write_bytes(content)  # an empty tar file, as tar itself makes one
        assert unpack(place / "x", place / "out") == []
        return
    if content == bytes(512):
        (place / "x").write_bytes(content)
        assert unpack(place / "x", place / "out") == []
        return
    refused(place, content, "it is (damaged|cut short)")


def test_moving_replaces_those_files_alone(tmp_path: Path) -> None:
    for name, content in {
        "new/a/1": "new",
        "new/b/2": "new",
        "old/a/1": "old",
        "old/a/3": "old",
        "old/4": "old",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "old" / "a" / "1").unlink()
    (tmp_path / "old" / "a" / "1").symlink_to(tmp_path / "elsewhere")
    move_into(tmp_path / "new", tmp_path / "old")
    assert {path.relative_to(tmp_path / "old").as_posix(): path.read_text() for path in (tmp_path / "old").rglob("*")
            if path.is_file()} == {"a/1": "new", "a/3": "old", "b/2": "new", "4": "old"}  # fmt: skip
    assert (tmp_path / "elsewhere").read_text() == "old"


@pytest.mark.parametrize(("ours", "theirs"), [("a/x", "a"), ("a", "a/x")])
def test_a_file_in_the_place_of_a_folder_stays(ours: str, theirs: str, tmp_path: Path) -> None:
    for base, name in (("old", ours), ("new", theirs)):
        (tmp_path / base / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / base / name).write_text(base)
    with pytest.raises(FileExistsError, match=r"old/a is (no|a) folder; the archive has a (file|folder) of that name"):
        move_into(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / ours).read_text() == "old"


def test_a_zip_file_whose_entries_overlap_is_bounded(place: Path) -> None:
    """Many entries that share one compressed piece: 100 names for the bytes of one."""
    one = zipped([("x", bytes(1 << 20), {})])
    local, directory = one[: one.index(b"PK\x01\x02")], one[one.index(b"PK\x01\x02") : one.index(b"PK\x05\x06")]
    entries = b"".join(directory.replace(b"x", b"%c" % (33 + i % 90), 1) for i in range(600))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 600, 600, len(entries), len(local), 0)
    refused(place, local + entries + end, "")
    written = sum(path.stat().st_size for path in (place / "out").rglob("*") if path.is_file())
    assert written <= archives.AND_BYTES + archives.MOST_TIMES * len(local + entries + end)
