"""Digests of files: each is read once, and again when anything about it changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tasks.datasets import contents as module
from tasks.datasets.contents import Content, contents, digest_of, digest_of_file, remembered_in
from tasks.errors import DataError


class Reads:
    """Reads files, and remembers which."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, path: Path) -> list[Content]:
        self.files.append(path.name)
        return digest_of_file(path)

    def taken(self) -> list[str]:
        taken, self.files = sorted(self.files), []
        return taken


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that were changed long enough ago."""
    monkeypatch.setattr(module, "RECENT", -60.0)
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / name).write_text(f"content {name}")
    return tmp_path / "data"


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path, base: Path) -> None:
    reads, kept = Reads(), [tmp_path / "kept"]
    first = contents("x", base, list("abc"), kept, reads)
    assert first == [[(9, hashlib.sha256(f"content {name}".encode()).hexdigest()[:32])] for name in "abc"]
    assert reads.taken() == ["a", "b", "c"]
    assert contents("x", base, list("abc"), kept, reads) == first
    assert reads.taken() == []
    before = (base / "b").stat()
    (base / "b").write_text("CONTENT b")
    os.utime(base / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents("x", base, list("abc"), kept, reads)[1] == [digest_of(b"CONTENT b")]
    assert reads.taken() == ["b"]
    assert contents("x", base, ["c"], kept, reads, what="another column")[0] == first[2]
    assert reads.taken() == ["c"]


def test_a_file_that_changed_just_now_is_not_believed(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT", 3600.0)
    reads = Reads()
    for _ in range(2):
        contents("x", base, ["a"], [tmp_path / "kept"], reads)
        assert reads.taken() == ["a"]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0}', '{"version": 1, "files": {"a": [[1], 2]}}', "\udcff"])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, base: Path, content: str) -> None:
    contents("x", base, list("ab"), [tmp_path / "kept"])
    (path,) = (tmp_path / "kept").iterdir()
    before = path.read_text()
    path.write_bytes(content.encode(errors="surrogateescape"))
    reads = Reads()
    contents("x", base, list("ab"), [tmp_path / "kept"], reads)
    assert reads.taken() == ["a", "b"]
    assert json.loads(path.read_text()) == json.loads(before)


def test_without_a_folder_that_can_be_written_all_is_read_each_time(tmp_path: Path, base: Path) -> None:
    (tmp_path / "file").write_text("")
    reads = Reads()
    for _ in range(2):
        contents("x", base, ["a"], [tmp_path / "file" / "below"], reads)
        assert reads.taken() == ["a"]


def test_missing_and_empty_files_are_named(tmp_path: Path, base: Path) -> None:
    (base / "a").write_text("")
    with pytest.raises(
        DataError, match=r"^x: 2 of 3 files are not there or empty: a, d; they are looked for below .*a$"
    ):
        contents("x", base, ["a", "b", "d"], [])


def test_what_is_remembered_lies_beside_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "off")
    assert remembered_in(tmp_path, [tmp_path / "runs"]) == [tmp_path / "splits", tmp_path / "runs"]
    assert remembered_in(tmp_path / "nowhere") == []
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    assert remembered_in(tmp_path / "nowhere") == [tmp_path / f"orchestrator-cache-{os.getuid()}"]
