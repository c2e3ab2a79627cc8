"""Class maps as ADE20K publishes them and of one's own: numbers, names, colours, parts, manifests and faults."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import class_map_trees as trees
import numpy as np
import pytest
from data_commands import command, problems
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from tasks.datasets.annotated import ImageCounts
from tasks.datasets.class_maps.catalog import ADE20K, SCENE_MAPS, SCENE_MAPS_SMALL
from tasks.datasets.class_maps.described import ClassMaps
from tasks.datasets.class_maps.maps import read_map
from tasks.datasets.class_maps.names import default_palette
from tasks.datasets.class_maps.task_data import ClassMapData
from tasks.datasets.images.decode import Unreadable
from tasks.errors import DataError


def own(**fields: Any) -> ClassMaps:
    return ClassMaps.model_validate({"kind": "class_maps", "path": "own", **fields})


def test_ade20k_has_150_classes_with_their_colours(tmp_path: Path) -> None:
    names, palette = ADE20K.classes(tmp_path)
    assert (len(set(names)), palette.shape, palette.dtype) == (150, (150, 3), np.uint8)
    assert (names[0], names[2], names[12], names[149]) == ("wall", "sky", "person", "flag")
    assert palette[[0, 2, 12, 149]].tolist() == [[120, 120, 120], [6, 230, 230], [150, 5, 61], [92, 0, 255]]
    assert dict(ADE20K.counts) == {"train": 20_210, "val": 2_000}


def test_ade20ks_numbers_begin_at_1_and_0_is_ignored(tmp_path: Path) -> None:
    base = trees.write_ade20k(tmp_path)
    raw = trees.numbers(2, 0, 150)
    raw[:8, :8], raw[:8, 8:16] = 0, 150
    trees.write_map(base / "annotations" / "training" / "ADE_train_00000002.png", raw)
    opened = ADE20K.open(tmp_path, "train")
    image, classes = opened.load(1)
    assert (image.shape, classes.shape, classes.dtype) == ((24, 32, 3), (24, 32), np.uint8)
    np.testing.assert_array_equal(classes.astype(int), np.where(raw == 0, 255, raw.astype(int) - 1))
    assert (classes[0, 0], classes[0, 8]) == (opened.ignore, 149)
    assert opened.image_name(1) == "images/training/ADE_train_00000002.jpg"


def test_parts_are_training_and_validation(tmp_path: Path) -> None:
    trees.write_ade20k(tmp_path)
    data = ClassMapData.of(ADE20K, {"evaluate": "val"})
    assert [(each.part, len(each)) for each in data.read(tmp_path)] == [("train", 5), ("val", 3)]
    assert (data.samples("train"), data.samples("val"), data.samples("test")) == (20_210, 2_000, 0)
    problem = ClassMapData.of(ADE20K, {"evaluate": "test"}).missing(tmp_path)
    assert problem is not None
    assert problem.startswith(f"ade20k: no {tmp_path}/ADEChallengeData2016/annotations/test, the annotations of test")
    assert "ade20k: not found under" in str(data.missing(tmp_path / "elsewhere"))
    lines = problems(command(tmp_path, "check", "ade20k"), "ade20k")
    assert [line.partition(": ")[2] for line in lines] == [
        "5 images of train, expected 20,210", "3 images of val, expected 2,000",
    ]  # fmt: skip


def test_maps_of_ones_own_begin_at_0_and_have_their_colours(tmp_path: Path) -> None:
    trees.write_own(tmp_path / "own")
    opened = own().dataset().open(tmp_path, "test")
    assert opened.classes == ("sky", "road", "tree")
    assert opened.palette[1].tolist() == [0x80, 0x40, 0x80]
    np.testing.assert_array_equal(opened.palette[[0, 2]], default_palette(3)[[0, 2]])
    np.testing.assert_array_equal(opened.load(1)[1], trees.numbers(1, 0, 2))
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again.load(0)[1], opened.load(0)[1])


def test_default_colours_are_pascal_vocs() -> None:
    expected = [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128]]
    assert default_palette(8).tolist() == [*expected, [64, 0, 0]]
    assert len(np.unique(default_palette(255), axis=0)) == 255


def test_a_table_as_ade20ks_gives_the_names(tmp_path: Path) -> None:
    trees.write_own(
        tmp_path / "own", "Idx\tRatio\tTrain\tVal\tName\n1\t.1\t9\t3\twall\n2\t.1\t9\t3\tbuilding, edifice\n"
    )
    for part, count in trees.OWN.items():
        for number in range(count):
            trees.write_map(tmp_path / "own" / "annotations" / part / f"{part}{number}.png", trees.numbers(1, 0, 2))
    opened = own(zero="ignored").dataset().open(tmp_path, "train")
    assert opened.classes == ("wall", "building")
    assert set(np.unique(opened.load(0)[1])) <= {0, 1, 255}


READ: dict[str, Callable[[NDArray[np.uint8]], Image.Image]] = {
    "grey": Image.fromarray,
    "indices of a palette": lambda each: paletted(each),
    "16 bits": lambda numbers: Image.fromarray(numbers.astype(np.uint16)),
}


def paletted(numbers: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette(list(range(255, -1, -1)) * 3)
    assert image.mode == "P"
    return image


@pytest.mark.parametrize("what", READ)
def test_numbers_are_read_from_every_form_of_one_channel(tmp_path: Path, what: str) -> None:
    numbers = trees.numbers(3, 0, 2)
    numbers[0, 0] = 255
    READ[what](numbers).save(tmp_path / "map.png")
    np.testing.assert_array_equal(read_map(tmp_path / "map.png", "own", 3, False), numbers)
    raised = np.where(numbers == 255, 255, numbers.astype(int) - 1) % 256
    np.testing.assert_array_equal(read_map(tmp_path / "map.png", "own", 2, True), raised)


def test_two_classes_may_be_one_bit(tmp_path: Path) -> None:
    numbers = trees.numbers(3, 0, 1)
    Image.fromarray(numbers * 255).convert("1").save(tmp_path / "map.png")
    np.testing.assert_array_equal(read_map(tmp_path / "map.png", "own", 2, False), numbers)


REFUSED: dict[str, tuple[Image.Image, str]] = {
    "colours": (Image.new("RGB", (4, 4)), r"its mode is RGB, colours, and a class map has one channel .*; save the"),
    "colours with alpha": (Image.new("RGBA", (4, 4)), r"its mode is RGBA, colours"),
    "grey with alpha": (Image.new("LA", (4, 4)), r"its mode is LA, colours"),
    "an unknown number": (
        Image.fromarray(np.array([[0, 3], [7, 255]], np.uint8)),
        r"2 pixels have the number 3 and 1 other numbers, and the 3 classes are 0 to 2; 255 is ignored\); correct the",
    ),
    "a number above 255": (
        Image.fromarray(np.array([[0, 300]], np.uint16)), r"the number 300 is no class\); number classes from 0 on"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_class_map_is_one_line(tmp_path: Path, what: str) -> None:
    image, message = REFUSED[what]
    path = tmp_path / "map.png"
    image.save(path)
    with pytest.raises(Unreadable, match=rf"^own: cannot read class map {path} \({message}"):
        read_map(path, "own", 3, False)


def test_damaged_maps_and_jpeg_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.fromarray(trees.numbers(1, 0, 2)).save(path, format="JPEG")
    with pytest.raises(Unreadable, match=r"no whole PNG, TIFF or BMP file\); save the numbers of the classes as PNG"):
        read_map(path, "own", 3, False)
    Image.fromarray(trees.numbers(1, 0, 2)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Unreadable, match=r"own: cannot read class map .*map\.png \(.*\); get this file again"):
        read_map(path, "own", 3, False)


def test_0_where_it_is_no_class_and_a_map_has_one_number_more(tmp_path: Path) -> None:
    trees.write_map(tmp_path / "map.png", np.array([[0, 1, 2, 3]], np.uint8))
    with pytest.raises(Unreadable, match=r"1 pixels have the number 3, and the 2 classes are 1 to 2; 255 is ignored"):
        read_map(tmp_path / "map.png", "own", 2, True)


def test_a_map_of_another_size_is_one_line(tmp_path: Path) -> None:
    trees.write_own(tmp_path / "own")
    trees.write_map(tmp_path / "own" / "annotations" / "val" / "val1.png", np.zeros((24, 30), np.uint8))
    with pytest.raises(Unreadable, match=r"own: image images/val/val1\.png has 24 x 32 pixels and its map annotations/"
                                         r"val/val1\.png 24 x 30 \(height x width\): these do not"):  # fmt: skip
        own().dataset().open(tmp_path, "val").load(1)


def test_images_and_maps_without_the_other_are_one_line(tmp_path: Path) -> None:
    base = trees.write_own(tmp_path / "own")
    (base / "annotations" / "train" / "train2.png").unlink()
    with pytest.raises(DataError, match=r"own: 1 of 6 images have no class map of the same name in .*/annotations/"
                                        r"train: train2\.png; add them"):  # fmt: skip
        own().dataset().open(tmp_path, "train")
    (base / "images" / "val" / "val0.png").unlink()
    with pytest.raises(DataError, match=r"own: 1 of 3 class maps have no image of the same name in .*images/val: val0"):
        own().dataset().open(tmp_path, "val")
    (base / "images" / "test" / "test0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"own: .*images/test has test0\.jpg and test0\.png; keep one of them"):
        own().dataset().open(tmp_path, "test")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("sky\nroad\nsky\n", r"names the class 'sky' twice; keep one line of it"),
        ("sky\nroad\tred\n", r"classes\.txt, line 2: 'road\\tred' has no colour #rrggbb after its name"),
        ("", r"names 0 classes; a map of 8 bits tells 1 to 255 apart"),
        ("\n".join(map(str, range(256))), r"names 256 classes; a map of 8 bits tells 1 to 255 apart"),
    ],
)
def test_a_wrong_list_of_classes_is_one_line(tmp_path: Path, classes: str, message: str) -> None:
    trees.write_own(tmp_path / "own", classes)
    with pytest.raises(DataError, match=f"^own: .*{message}"):
        own().dataset().open(tmp_path, "val")


def test_a_missing_list_of_classes_is_one_line(tmp_path: Path) -> None:
    (trees.write_own(tmp_path / "own") / "classes.txt").unlink()
    with pytest.raises(
        DataError, match=r"own: cannot read the list of classes .*classes\.txt \(No such file.*\); write"
    ):
        own().dataset().open(tmp_path, "val")


def test_a_folder_without_a_part_name_is_one_message() -> None:
    with pytest.raises(ValidationError, match=r"'maps' must name the part: write \{part\} where train, val or test"):
        own(maps="maps")


def planned(root: Path, evaluate: str = "val") -> ClassMapData:
    """Of data of one's own, with what planning found."""
    found = ClassMapData.of(own(), {"evaluate": evaluate}).planned(root, [])
    sizes = {name: ImageCounts(**each) for name, each in found["sizes"].items()}
    return ClassMapData.of(own(), {"evaluate": evaluate, "manifests": found["manifests"], "sizes": sizes})


def test_data_of_ones_own_are_planned_as_they_are(tmp_path: Path) -> None:
    trees.write_own(tmp_path / "own")
    data = planned(tmp_path, "test")
    assert (data.samples("train"), data.learnt, data.samples("test")) == (6, 6, 2)
    assert [len(each) for each in data.read(tmp_path)] == [6, 2]
    trees.write_map(tmp_path / "own" / "annotations" / "train" / "train0.png", trees.numbers(77, 0, 2))
    with pytest.raises(DataError, match=r"own: the annotations are not those that the trial was planned with"):
        data.read(tmp_path)
    (tmp_path / "own" / "classes.txt").write_text("sky\ntree\nroad\n")  # other names, other content
    digests = {data.digest, planned(tmp_path).digest}
    trees.write_own(tmp_path / "own", "sky\ntree\nroad\n")
    assert len({*digests, planned(tmp_path).digest}) == 3


def test_generated_data_are_planned_before_they_are_made(tmp_path: Path) -> None:
    data = ClassMapData.of(SCENE_MAPS_SMALL, {"evaluate": "val"})
    assert data.planned(tmp_path, []) == {"manifests": {"scene-maps-small/official": SCENE_MAPS_SMALL.recipe()}}
    assert not list(tmp_path.iterdir())
    assert len(SCENE_MAPS.names) == len(set(SCENE_MAPS.colours)) == 7


def test_the_commands_know_maps_of_ones_own(tmp_path: Path) -> None:
    trees.write_own(tmp_path / "own")
    result = command(tmp_path, "check", "own", "--images")
    assert result.exit_code == 0, result.output
    assert "parts    train 6, val 3, test 2" in result.stdout
    assert "opened   11 images" in result.stdout
    row = json.loads(command(tmp_path, "ls", tmp_path / "own", "-o", "json").stdout)
    assert (row["metric"], row["there"]) == ("mIoU", True)
    path, digest = command(tmp_path, "split", "own").stdout.splitlines()
    assert (Path(path).name, digest) == ("own-official.jsonl", planned(tmp_path).digest)
    trees.write_map(tmp_path / "own" / "annotations" / "val" / "val1.png", trees.numbers(1, 0, 9))
    result = command(tmp_path, "check", "own", "--kind", "class_maps")
    assert result.exit_code == 1
    assert "1 of 3 images of val that were opened: cannot read class map" in problems(result, "own")[-1]
