"""The `data` commands about a user's own data, by their path: what they take a path for, and every fault in a line."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import own_tables as tables
import pytest
import sequence_trees
from data_commands import command, problems
from dataset_trees import draw
from depth_sets import write_own

from tasks.datasets import DESCRIBED
from tasks.datasets.depth_pairs.described import DepthPairs
from tasks.datasets.depth_pairs.task_data import DepthData
from tasks.datasets.described import DatasetDescription
from tasks.datasets.images import open as opening
from tasks.datasets.images.shards import Packed
from tasks.datasets.images.source import Files
from tasks.errors import DataError


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    for p, part in enumerate(("train", "val", "test")):
        for c, name in enumerate(("ant", "bee")):
            for i in range(4):
                draw(tmp_path / "own" / "insects" / part / name / f"{i}.jpg", 100 * p + 10 * c + i)
    return tmp_path / "own" / "insects"


def test_a_folder_is_checked_by_its_path(tmp_path: Path, insects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the data root, absolute, and below the folder of the command: the same data, the same name of the split."""
    monkeypatch.chdir(insects.parent)
    outputs = set()
    for path in ("own/insects", insects, "insects"):
        result = command(tmp_path, "check", path, "--images")
        assert result.exit_code == 0, result.output
        outputs.add(result.stdout)
    (output,) = outputs
    assert output.startswith(
        "insects: complete\nimages   24 of 24 expected, 2 classes\nparts    train 8, val 8, test 8\n"
    )
    assert "opened   24 images" in output
    row = json.loads(command(tmp_path, "ls", "own/insects", "-o", "json").stdout)
    assert (row["train"], row["val"], row["test"], row["there"], row["metric"]) == (8, 8, 8, True, "top1")


def test_a_folder_with_the_name_of_a_known_set_is_said_to_be_another(
    tmp_path: Path, insects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(insects, tmp_path / "work" / "digits")
    monkeypatch.chdir(tmp_path / "work")
    result = command(tmp_path, "check", "digits")
    assert result.stderr == (
        "note: digits is taken as the known data set of this name; write ./digits for the folder or file here\n"
    )
    assert "899 of 899 expected" in result.stdout
    own = command(tmp_path, "check", "./digits")
    assert "24 of 24 expected" in own.stdout
    assert own.stderr == ""


def test_faults_of_a_folder_are_lines(tmp_path: Path, insects: Path) -> None:
    shutil.copy(insects / "train" / "ant" / "0.jpg", insects / "test" / "ant" / "9.jpg")
    (insects / "val" / "bee" / "3.jpg").write_bytes(b"cut short")
    result = command(tmp_path, "check", "own/insects", "--images")
    assert result.exit_code == 1
    (line,) = problems(result, "insects")
    assert line.startswith("insects: 1 of 25 images cannot be read: insects/val/bee/3.jpg (no whole image")
    assert "1 images of test have the very bytes of images of train" in result.stdout
    (insects / "val" / "bee" / "2.jpg").write_bytes(b"")
    result = command(tmp_path, "check", "own/insects")
    (line,) = problems(result, "insects")
    assert (result.exit_code, line.partition(";")[0]) == (
        1, "insects: 1 of 25 files are not there or empty: val/bee/2.jpg"
    )  # fmt: skip


def test_a_table_is_checked_with_its_fields(tmp_path: Path) -> None:
    rows = tables.birds(tmp_path / "lab")
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    fields = ["--field", "test_fraction=0.25", "--field", "group=bird", "--val-fraction", 0.3]
    result = command(tmp_path, "check", "lab/birds.csv", *fields)
    assert result.exit_code == 0, result.output
    assert "parts    train 12, val 6, test 6" in result.stdout
    path, digest = command(tmp_path, "split", "lab/birds.csv", *fields).stdout.splitlines()
    described = {"kind": "table", "path": "lab/birds.csv", "test_fraction": 0.25, "group": "bird"}
    planned = tables.planned(tmp_path, described, val_fraction=0.3)
    assert [*planned.manifests.values()] == [digest]
    assert [entry["file"] for entry in tables.entries(tmp_path)] == [row["path"] for row in rows]
    assert Path(path).parent == tmp_path / "splits"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere/insects"], 4, "no file or folder nowhere/insects here or below the data root"),
        (["nowhere", "--kind", "folder"], 4, "no file or folder nowhere here .*; --kind and --field are for a path"),
        (["petz"], 4, "unknown data set 'petz'; nearest: 'pets'"),
        (["own/insects", "--kind", "foldr"], 2, "--kind foldr: known: folder, table, huggingface, coco, depth_pairs"),
        (["own/insects", "--kind", "table"], 4, "is a folder, and kind table reads a file"),
        (["own/insects", "--field", "label"], 2, "--field label: must be FIELD=VALUE"),
        (["own/insects", "--field", "metrics=top1"], 2, "metrics: Extra inputs are not permitted; nearest: metric"),
        (["own/insects", "--field", "test_fraction=2"], 2, "test_fraction: Input should be less than 1"),
        (["own/insects", "--field", "test_fraction=0.2"], 1, "test_fraction cuts data that name no parts"),
        (["own/insects", "--official-val", "test"], 2, "--official-val is no option of insects"),
        (["own"], 0, "one class only: for tasks that read no labels"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, insects: Path, arguments: list[Any], code: int, said: str) -> None:
    result = command(tmp_path, "check", *arguments)
    assert (result.exit_code, bool(re.search(said, result.output))) == (code, True), result.output


def test_options_of_a_path_are_refused_without_one(tmp_path: Path) -> None:
    result = command(tmp_path, "ls", "--kind", "folder")
    assert (result.exit_code, "--kind and --field are for a path" in result.output) == (2, True)


def test_poses_of_ones_own_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    result = command(tmp_path, "ls", "people", "--kind", "coco", "-o", "json")
    assert json.loads(result.stdout)["joints"] == 17


def test_depth_of_ones_own_is_checked_and_listed_by_its_path(tmp_path: Path) -> None:
    write_own(tmp_path / "rooms")
    result = command(tmp_path, "check", "rooms")
    assert result.exit_code == 0, result.output
    assert "parts    train 30, val 8, test 6" in result.stdout
    row = json.loads(command(tmp_path, "ls", tmp_path / "rooms", "--kind", "depth_pairs", "-o", "json").stdout)
    assert (row["train"], row["val"], row["test"], row["there"], row["metric"]) == (30, 8, 6, True, "rmse")
    path, digest = command(tmp_path, "split", "rooms").stdout.splitlines()
    planned = DepthPairs.model_validate({"kind": "depth_pairs", "path": "rooms"})
    assert digest == DepthData.of(planned, {"evaluate": "val"}).planned(tmp_path, [])["manifests"]["rooms/lists"]
    assert Path(path).parent == tmp_path / "splits"


def test_faults_of_depth_of_ones_own_are_lines(tmp_path: Path) -> None:
    write_own(tmp_path / "rooms")
    result = command(tmp_path, "check", "rooms", "--field", "steps_per_metre=1")
    assert result.exit_code == 1
    assert "steps_per_metre" in problems(result, "rooms")[0]
    (tmp_path / "rooms" / "train.txt").unlink()
    result = command(tmp_path, "check", "rooms", "--kind", "depth_pairs")
    assert result.exit_code != 0
    assert "train.txt" in result.output
    result = command(tmp_path, "check", "rooms", "--kind", "depth_pairs", "--field", "steps_per_meter=1000")
    assert (result.exit_code, "nearest: steps_per_metre" in result.output) == (2, True)


def test_sequences_of_ones_own_are_known_by_their_boxes(tmp_path: Path) -> None:
    sequence_trees.own(tmp_path / "videos")
    result = command(tmp_path, "check", "videos")
    assert result.exit_code == 0, result.output
    assert result.stdout == command(tmp_path, "check", "videos", "--kind", "sequences").stdout
    assert "sequences 7" in result.stdout


def test_every_kind_of_description_is_one_of_the_data_commands() -> None:
    """Of any task: a kind that a spec describes is known to `data check` and `data ls`."""

    def kinds(described: type[DatasetDescription]) -> set[type[DatasetDescription]]:
        return {described}.union(*(kinds(each) for each in described.__subclasses__()))

    concrete = {each for each in kinds(DatasetDescription) if not inspect.isabstract(each)}
    assert concrete == set(DESCRIBED.values())
    for name, described in DESCRIBED.items():
        of_spec = {"coco_instances": "coco"}.get(name, name)  # two tasks have data sets of the kind coco
        assert get_args(described.model_fields["kind"].annotation) == (of_spec,)


def test_a_packed_folder_is_read_from_tar_files(tmp_path: Path, insects: Path) -> None:
    """The same images; and one that is changed afterwards is not taken from the tar file without a word."""
    result = command(tmp_path, "pack", "own/insects")
    assert result.exit_code == 0, result.output
    assert f"insects: 24 images in 1 tar files in {insects / 'shards'}" in result.output
    assert command(tmp_path, "check", "own/insects").exit_code == 0
    data = tables.planned(tmp_path, {"kind": "folder", "path": "own/insects"})._data
    images = data.read(tmp_path, "train", "val")
    source = opening.open_images("insects", images.root, images.train.images)
    assert isinstance(source, Packed)
    plain = Files("insects", images.root, images.train.images)
    assert [source.image(i).tobytes() for i in range(8)] == [plain.image(i).tobytes() for i in range(8)]
    draw(insects / "train" / "bee" / "1.jpg", 77)
    with pytest.raises(DataError, match=r"insects: 1 images were changed since they were packed .*train/bee/1.jpg"):
        data.planned(tmp_path, [])
