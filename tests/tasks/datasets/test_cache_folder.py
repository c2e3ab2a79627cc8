"""The folder of a node's decoded images: its place, its limit, who may write to it, and which files make room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.datasets.images.cache_folder import CacheFolder, node_cache_folder
from tasks.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a cache that is on."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "node"))
    return tmp_path / "node" / f"orchestrator-cache-{os.getuid()}"


@pytest.mark.parametrize("amount", ["lots", "0", "-1", "nan"])
def test_an_impossible_limit_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, amount: str) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GB", amount)
    with pytest.raises(DataError, match=f"ORCHESTRATOR_CACHE_GB '{amount}' is not a number above 0"):
        node_cache_folder()


def test_a_home_that_is_unknown_makes_no_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(
        DataError, match="ORCHESTRATOR_CACHE '~nobody-of-this-name/cache': the home folder that ~ stands"
    ):
        node_cache_folder()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    for mode in (0o777, 0o720, 0o702):
        folder.chmod(mode)
        with pytest.raises(DataError, match=r"image cache .*: others can write to it.*set ORCHESTRATOR_CACHE"):
            node_cache_folder()
    folder.chmod(0o755)
    assert isinstance(node_cache_folder(), CacheFolder)


@pytest.mark.parametrize(
    ("amount", "limit"), [("", 20 * 10**9), ("1.5", 15 * 10**8), ("50", 50 * 10**9), ("51", 50 * 10**9 + 500)]
)
def test_the_limit_is_as_stated_and_at_most_half_of_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, amount: str, limit: int
) -> None:
    """100 GB are free, and the cache holds 1001 bytes already, which it could have again."""

    class Disk:
        f_bavail, f_frsize, f_bsize = 25_000_000, 4000, 1

    folder.mkdir(parents=True)
    (folder / "a.pixels").write_bytes(bytes(1001))
    monkeypatch.setattr(os, "statvfs", lambda path: Disk())
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GB", amount)
    assert node_cache_folder() == CacheFolder(folder, limit)


def test_the_cache_is_private_and_can_be_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(node_cache_folder(), CacheFolder)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "off")
    assert node_cache_folder() == "off (ORCHESTRATOR_CACHE)"


@pytest.mark.parametrize(("needed", "left"), [(700, {"c", "d"}), (500, {"b", "c", "d"}), (0, {"a", "b", "c", "d"})])
def test_no_more_files_are_removed_than_the_room_needs(tmp_path: Path, needed: int, left: set[str]) -> None:
    """Four files of 300 bytes in 1400, opened in the order of their names."""
    for number, name in enumerate("abcd"):
        file = tmp_path / f"{name}.{'part' if name == 'a' else 'pixels'}"
        file.write_bytes(bytes(300))
        os.utime(file, (1000 + number, 1000 + number))
    assert CacheFolder(tmp_path, 1400).make_room(needed)
    assert {path.stem for path in tmp_path.iterdir()} == left


def test_room_beyond_the_limit_is_never_made(tmp_path: Path) -> None:
    assert CacheFolder(tmp_path, 1400).make_room(1400)
    assert not CacheFolder(tmp_path, 1400).make_room(1401)
