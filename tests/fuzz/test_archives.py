"""Damaged and hostile archives end in files below their folder or in one line: nothing else on the disk changes."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
from pathlib import Path

from archives import Entry, tar, zipped
from fuzzing import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.assets.archives import AND_BYTES, MOST_TIMES, unpack
from orchestrator.errors import BadInput

TRIED = settings(
    max_examples=examples(40), deadline=None, database=None, derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
GOOD: list[Entry] = [("a/", None, {}), ("a/one.txt", b"1" * 700, {}), ("two.txt", b"22", {}), ("x" * 150, b"3", {})]


def check(content: bytes) -> list[str]:
    """The files in it. Fails where it reaches beyond its folder, leaves something that is no file, or raises more than
    a line."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "outside").mkdir()
        (base / "outside" / "a").write_text("not yours")
        (base / "archive").write_bytes(content)
        before = _tree(base)
        files: list[Path] = []
        said = ""
        try:
            files = unpack(base / "archive", base / "in" / "out")
        except BadInput as error:
            said = str(error)
        except OSError:  # names that the disk does not take
            said = "a line of the system"
        assert said.isprintable()
        assert len(said) < 2000
        inside = {path: state for path, state in _tree(base).items() if path.startswith("in/out")}
        assert _tree(base) == {**before, **inside, **({"in": "folder"} if inside else {})}
        assert all(state == "folder" or state.startswith("file ") for state in inside.values())
        written = sum(int(state.split()[1]) for state in inside.values() if state.startswith("file "))
        assert written <= AND_BYTES + MOST_TIMES * len(content)
        return [str(path.relative_to(base / "in" / "out")) for path in files]


def _tree(base: Path) -> dict[str, str]:
    """Everything below a folder: what it is, and of files the size and content."""
    found = {}
    for folder, folders, files in os.walk(base):
        for name in (*folders, *files):
            path = Path(folder) / name
            state = path.lstat()
            kind = "folder" if stat.S_ISDIR(state.st_mode) else "something else"
            if stat.S_ISREG(state.st_mode):
                kind = f"file {state.st_size} {path.read_bytes()[:100]!r} {state.st_mode & 0o7777:o}"
            found[path.relative_to(base).as_posix()] = kind
    return found


SEEDS = {"tar": tar(GOOD, zipped=False), "pax": tar(GOOD, zipped=False, form=tarfile.PAX_FORMAT), "zip": zipped(GOOD)}


def test_the_seeds_are_archives() -> None:
    for content in (*SEEDS.values(), gzip.compress(SEEDS["tar"])):
        assert sorted(check(content)) == ["a/one.txt", "two.txt", "x" * 150]


def _summed(content: bytearray) -> bytes:
    """A tar file whose headers have right sums again, so that what is in them is read."""
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content)


EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=12)), max_size=8)
"""(place as a share of the length, bytes that are written there)"""


@TRIED
@given(seed=st.sampled_from([*SEEDS]), edits=EDITS, cut=st.floats(0.5, 1), packed=st.booleans())
def test_changed_and_cut_archives(seed: str, edits: list[tuple[float, bytes]], cut: float, packed: bool) -> None:
    content = bytearray(SEEDS[seed])
    content = content[: int(cut * len(content))]
    for place, new in edits:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    changed = bytes(content) if seed == "zip" else _summed(content)
    check(gzip.compress(changed) if packed else changed)


@TRIED
@given(edits=EDITS, cut=st.floats(0, 1))
def test_changed_and_cut_gzip(edits: list[tuple[float, bytes]], cut: float) -> None:
    content = bytearray(gzip.compress(SEEDS["tar"]))
    for place, new in edits:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    check(bytes(content[: int(cut * len(content))]))


PLACES = ["a", "b", "..", ".", "", "outside", "in", "a\0b", "é", "\udce9", "\x1b[2J", "d" * 255, "e" * 300]
NAMES = st.lists(st.sampled_from(PLACES), min_size=1, max_size=6).map("/".join)
TYPES = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
         tarfile.BLKTYPE, tarfile.CONTTYPE, tarfile.AREGTYPE, b"Q"]  # fmt: skip


@TRIED
@given(
    rows=st.lists(st.tuples(NAMES, st.sampled_from(TYPES), NAMES, st.integers(0, 0o7777)), min_size=1, max_size=8),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@example(rows=[("a", tarfile.SYMTYPE, "../../outside", 0o777), ("a/a", tarfile.REGTYPE, "", 0o644)], form=1)
@example(rows=[("a", tarfile.LNKTYPE, "../../outside/a", 0o777), ("a", tarfile.REGTYPE, "", 0o644)], form=1)
def test_tar_files_of_any_members(rows: list[tuple[str, bytes, str, int]], form: int) -> None:
    entries: list[Entry] = [
        (name, b"mine" if kind == tarfile.REGTYPE else b"", {"type": kind, "linkname": link, "mode": mode})
        for name, kind, link, mode in rows
    ]
    check(tar(entries, form=form))


@TRIED
@given(
    rows=st.lists(st.tuples(NAMES, st.integers(0, 2**32 - 1), st.binary(max_size=50)), min_size=1, max_size=8),
    edits=EDITS,
)
def test_zip_files_of_any_members(rows: list[tuple[str, int, bytes]], edits: list[tuple[float, bytes]]) -> None:
    usable = [(name.encode(errors="replace").decode(), mode, data) for name, mode, data in rows if name]
    content = bytearray(zipped([(name, data, {"external_attr": mode}) for name, mode, data in usable]))
    check(bytes(content))
    for place, new in edits:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    check(bytes(content))
