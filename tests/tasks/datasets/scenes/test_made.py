"""Generated sets on disk: written once, whole or not at all, whoever asks first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.datasets.scenes import made
from tasks.errors import DataError

NAME = "scene-rooms"
TWO = """
import sys, time
from pathlib import Path
from tasks.datasets.scenes import made
root, number = Path(sys.argv[1]), sys.argv[2]
def write(folder):
    with (root / "writers").open("a") as file:
        file.write(number)
    (folder / "first").write_text(number)
    while not (root / "both").exists():
        time.sleep(0.01)
    (folder / "second").write_text(number)
made._writers = lambda: {"scene-rooms": write}
(root / ("asks" + number)).touch()
folder = made.made("scene-rooms", root)
print((folder / "first").read_text() == (folder / "second").read_text())
"""


def writing(monkeypatch: pytest.MonkeyPatch, write: object) -> None:
    monkeypatch.setattr(made, "_writers", lambda: {NAME: write})


def test_two_processes_write_it_once(tmp_path: Path) -> None:
    run = [sys.executable, "-c", TWO, str(tmp_path)]
    both = [subprocess.Popen([*run, number], stdout=subprocess.PIPE, text=True) for number in "12"]
    while not all((tmp_path / f"asks{number}").exists() for number in "12"):
        assert all(process.poll() is None for process in both)
    (tmp_path / "both").touch()
    assert [process.communicate()[0] for process in both] == ["True\n", "True\n"]
    assert len((tmp_path / "writers").read_text()) == 1


def test_what_was_cut_off_is_removed_and_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    writing(monkeypatch, cut)
    with pytest.raises(KeyboardInterrupt):
        made.made(NAME, tmp_path)
    assert list((tmp_path / "made").glob("*")) == [tmp_path / "made" / f".{NAME}.lock"]
    killed = tmp_path / "made" / f".{NAME}-v1.123"
    killed.mkdir()
    writing(monkeypatch, lambda folder: (folder / "whole").touch())
    folder = made.made(NAME, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not killed.exists()
    writing(monkeypatch, cut)
    assert made.made(NAME, tmp_path) == folder


def test_a_data_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"scene-rooms is generated on first use, and .*scene-rooms-v1 cannot be "
                                        r"written \(.*\); choose another data root with --data-root"):  # fmt: skip
        made.made(NAME, tmp_path / "file")


def test_another_version_or_table_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made.recipe(NAME)
    assert first != made.recipe("scene-crops")
    monkeypatch.setitem(made.VERSIONS, NAME, 2)
    assert made.recipe(NAME) != first
    assert made.place(NAME, Path("/data")) == Path("/data/made/scene-rooms-v2")
