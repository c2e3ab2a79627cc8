"""Files for the servers of GOT-10k and TrackingNet: read back as their own code does, and a line for each fault."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sequence_trees as trees

from tasks.datasets.sequences.catalog import GOT10K, LASOT, TRACKINGNET
from tasks.datasets.sequences.dataset import SequenceDataset
from tasks.datasets.sequences.submission import Tracked, check_submission, write_submission
from tasks.datasets.sequences.types import Sequence
from tasks.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.all_four(tmp_path_factory.mktemp("data"))


def sequences_of(card: SequenceDataset, root: Path) -> dict[str, Sequence]:
    opened = card.open(root, "test")
    sequences = [opened.load(index) for index in range(len(opened))]
    return {sequence.name: sequence for sequence in sequences}


def tracked(sequences: dict[str, Sequence]) -> dict[str, Tracked]:
    found = {}
    for number, (name, sequence) in enumerate(sequences.items()):
        boxes = sequence.boxes[0] + np.arange(len(sequence.frames))[:, None] * [1.23456, -0.5, 0.125, 0] + number * 0
        found[name] = Tracked(boxes, np.linspace(0.01, 0.02, len(sequence.frames)))
    return found


def test_got10k_as_its_toolkit_writes_it(root: Path, tmp_path: Path) -> None:
    sequences = sequences_of(GOT10K, root)
    results = tracked(sequences)
    packed = write_submission(GOT10K, results, tmp_path / "got10k")
    assert packed == tmp_path / "got10k.zip"
    assert check_submission(GOT10K, sequences, tmp_path / "got10k") == []
    name = "GOT-10k_Test_000002"
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist()[2:] == [f"{name}/{name}_001.txt", f"{name}/{name}_time.txt"]
        boxes = np.loadtxt(io.BytesIO(archive.read(f"{name}/{name}_001.txt")), delimiter=",")
        seconds = np.loadtxt(io.BytesIO(archive.read(f"{name}/{name}_time.txt")), delimiter=",")
        second = archive.read(f"{name}/{name}_001.txt").decode().splitlines()[1]
    np.testing.assert_allclose(boxes, results[name].boxes, atol=0.0005)
    np.testing.assert_allclose(seconds, results[name].seconds, atol=1e-8)
    assert second == "7.235,4.500,16.125,12.000"  # '%.3f' with commas
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_trackingnet_as_its_development_kit_reads_it(root: Path, tmp_path: Path) -> None:
    sequences = sequences_of(TRACKINGNET, root)
    results = tracked(sequences)
    packed = write_submission(TRACKINGNET, results, tmp_path / "trackingnet")
    assert check_submission(TRACKINGNET, sequences, tmp_path / "trackingnet") == []
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["-3TIfnTSM6c_2.txt", "a1qoB1eERn0_0.txt"]
        for name, sequence in sequences.items():
            lines = archive.read(f"{name}.txt").decode().split("\n")
            assert lines.pop() == ""
            read = [[float(value) for value in each.split(",")] for each in lines]
            assert len(read) == len(sequence.frames)
            np.testing.assert_allclose(read, results[name].boxes, atol=0.005)


def changed(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_each_fault_is_a_line(root: Path, tmp_path: Path) -> None:
    sequences = sequences_of(GOT10K, root)
    folder = tmp_path / "got10k"
    write_submission(GOT10K, tracked(sequences), folder)
    one, two = (folder / name / name for name in sequences)

    def faults() -> list[str]:
        return check_submission(GOT10K, sequences, folder)

    changed(Path(f"{one}_001.txt"), lambda lines: lines[:-1])
    assert faults() == [f"{one}_001.txt has 7 boxes, and the sequence 8 frames: track it again"]
    write_submission(GOT10K, tracked(sequences), folder)
    changed(Path(f"{one}_001.txt"), lambda lines: [*lines[:2], "1,2,0,4", *lines[3:]])
    assert faults() == [f"{one}_001.txt, line 3: a box without area; a tracker gives one in every frame"]
    changed(Path(f"{one}_001.txt"), lambda lines: ["9,9,9,9", *lines[1:]])
    assert f"{one}_001.txt, line 3" in faults()[0]
    write_submission(GOT10K, tracked(sequences), folder)
    changed(Path(f"{two}_001.txt"), lambda lines: ["9,9,9,9", *lines[1:]])
    assert faults()[0].startswith(f"{two}_001.txt, line 1: [9.0, 9.0, 9.0, 9.0] is not the box that was given, [")
    changed(Path(f"{two}_001.txt"), lambda lines: ["9,9,nan,9", *lines[1:]])
    assert faults() == [f"{two}_001.txt, line 1: '9,9,nan,9' is no box; write x, y, width, height in pixels"]
    write_submission(GOT10K, tracked(sequences), folder)
    changed(Path(f"{two}_time.txt"), lambda lines: ["-1", *lines[1:]])
    assert faults() == [f"{two}_time.txt has 8 times for 8 frames, or one below 0; track the sequence again"]
    Path(f"{two}_time.txt").unlink()
    assert "no seconds for each frame" in faults()[0]
    Path(f"{two}_001.txt").rename(folder / "other.txt")
    assert faults()[:2] == [
        f"{folder} lacks 1 files: GOT-10k_Test_000002/GOT-10k_Test_000002_001.txt",
        f"{folder} should not have 1 files: other.txt",
    ]


def test_a_set_with_public_boxes_has_no_server(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lasot has no server: its boxes are public, and figures are measured here"):
        check_submission(LASOT, {}, tmp_path)
    with pytest.raises(DataError, match="lasot has no server"):
        write_submission(LASOT, {"bear-2": Tracked(np.ones((1, 4)), np.ones(1))}, tmp_path / "lasot")
    assert not (tmp_path / "lasot").exists()
