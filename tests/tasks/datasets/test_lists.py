"""Lists of images: one mapping of classes for all parts, headers, names that nobody has, names that lead elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest

from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.readers import listed
from tasks.errors import DataError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LabelledDataset]:
    return lambda name: trees.plant(name, tmp_path, monkeypatch)


def labels_of(card: LabelledDataset, root: Path, part: Any) -> dict[str, int]:
    """File -> class number, of a part."""
    images, labels = listed(card, root, part, 0)
    return dict(zip((str(path.relative_to(root)) for path in images), labels, strict=True))  # type: ignore[union-attr]


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# One mapping of classes for all parts.


def test_labels_of_inats_val_are_those_of_train_whatever_val_lists(
    tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("inat18")
    whole = labels_of(card, tmp_path, "val")
    path = tmp_path / "inat18" / "val2018.json"

    def of_its_own_images(content: Any) -> None:
        content["categories"] = [row for row in content["categories"] if row["id"] == 7477]
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] == 7477]
        kept = {row["image_id"] for row in content["annotations"]}
        content["images"] = [row for row in content["images"] if row["id"] in kept]

    change_json(path, of_its_own_images)
    fewer = labels_of(card, tmp_path, "val")
    assert set(fewer.values()) == {1}  # a rank among val's own would be 0
    assert fewer.items() <= whole.items()
    change_json(path, lambda content: content.update(categories=[]))
    assert labels_of(card, tmp_path, "val") == fewer


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("val", lambda c: c["categories"].append({"id": 99, "name": "new"}), r"category 99 \('new'\) is none of train"),
        ("val", lambda c: c["categories"][0].update(name="other"), "category 7477 is 'other' here, 'b' in train2018"),
        ("val", lambda c: c["annotations"][0].update(category_id=99), "1 images have no category of train2018.json"),
        ("train", lambda c: c["categories"].append({"id": 12, "name": "z"}), "category 12 has two names, 'a' and 'z'"),
        ("train", lambda c: c["annotations"].append({"image_id": 500, "category_id": 12}), "image 500 is of two cat"),
        ("train", lambda c: c.update(categories=7), r"not the lists of iNaturalist 2018 \(TypeError"),
        ("train", lambda c: c["images"][0].update(file_name=7), "train2018.json: 7 is no text"),
    ],
)
def test_lists_of_inat_that_contradict_each_other_are_refused(
    part: str, change: Callable[[Any], None], said: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("inat18")
    change_json(tmp_path / "inat18" / f"{part}2018.json", change)
    with pytest.raises(DataError, match=said):
        listed(card, tmp_path, part, 0)  # type: ignore[arg-type]


def test_labels_of_food101s_test_are_ranks_in_train(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("food101")
    whole = labels_of(card, tmp_path, "test")
    path = tmp_path / "food-101" / "meta" / "test.json"
    change_json(path, lambda content: content.pop("apple_pie"))
    assert labels_of(card, tmp_path, "test") == {name: label for name, label in whole.items() if label}
    change_json(path, lambda content: content.update(zabaglione=["x/1"]))
    with pytest.raises(DataError, match=r"test.json: 'zabaglione' is no class of train.json"):
        listed(card, tmp_path, "test", 0)


@pytest.mark.parametrize("part", ["val", "test"])
def test_labels_of_every_part_of_dtd_are_ranks_in_train(
    part: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("dtd")
    path = tmp_path / "dtd" / "dtd" / "labels" / f"{part}1.txt"
    trees.write(path, [line for line in path.read_text().splitlines() if line.startswith("zigzagged")])
    assert set(labels_of(card, tmp_path, part).values()) == {1}
    trees.write(path, ["woven/woven_1.jpg"])
    with pytest.raises(DataError, match=rf"{part}1.txt:1: 'woven' is no class of train1.txt"):
        listed(card, tmp_path, part, 0)  # type: ignore[arg-type]


TWICE = {
    "sun397": ("SUN397/Partitions/ClassName.txt", ["/a/abbey", "/a/abbey", "/a/apartment_building/outdoor"]),
    "aircraft": ("fgvc-aircraft-2013b/data/variants.txt", ["707-320", "A300 B4", "707-320"]),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_class_that_is_listed_twice_is_refused(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    """The classes after it would be numbered anew, and some number would have no class."""
    card, (path, lines) = tree(name), TWICE[name]
    trees.write(tmp_path / path, lines)
    with pytest.raises(DataError, match="is named twice"):
        listed(card, tmp_path, "test", 0)


# Headers, blanks, and names that nobody has.


def test_a_first_line_is_dropped_only_if_it_is_the_header(
    tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("birdsnap")
    before = [labels_of(card, tmp_path, part) for part in ("trainval", "test")]
    path = tmp_path / "birdsnap" / "test_images.txt"
    path.write_text(path.read_text().removeprefix("path\n"))
    assert [labels_of(card, tmp_path, part) for part in ("trainval", "test")] == before


@pytest.mark.parametrize(
    "spelt", ["./{}", "{}   ", "  {}", "{}\r", "{}\t", ".//{}", "{}\n\n\n", "\ufeff{}"], ids=lambda text: ascii(text)
)
@pytest.mark.parametrize("header", [True, False])
def test_a_test_image_is_one_however_its_name_is_spelt(
    spelt: str, header: bool, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("birdsnap")
    before = labels_of(card, tmp_path, "test")
    path = tmp_path / "birdsnap" / "test_images.txt"
    names = path.read_text().splitlines()[1:]
    if "\ufeff" in spelt and header:
        names = ["\ufeffpath", *names]
    else:
        names = ["path"] * header + [spelt.format(names[0]), *names[1:]]
    path.write_text("\n".join(names))
    assert labels_of(card, tmp_path, "test") == before


@pytest.mark.parametrize("wrong", ["bird_1/1_6.jpg", "Bird_1/1_6.JPG", "1_6.jpg", "Bird_1/1_9.jpg", "images/Bird_1"])
def test_a_test_image_that_is_not_listed_is_an_error(
    wrong: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    """It would be trained on under its true name."""
    card = tree("birdsnap")
    path = tmp_path / "birdsnap" / "test_images.txt"
    path.write_text(path.read_text().replace("Bird_1/1_6.jpg", wrong))
    for part in ("trainval", "test"):
        with pytest.raises(DataError, match=rf"test_images.txt:2: '{wrong}' is not in images.txt"):
            listed(card, tmp_path, part, 0)  # type: ignore[arg-type]


LISTS = {
    "pets": ("oxford-iiit-pet/annotations/test.txt", "test"),
    "sun397": ("SUN397/Partitions/Testing_01.txt", "test"),
    "dtd": ("dtd/dtd/labels/test1.txt", "test"),
    "aircraft": ("fgvc-aircraft-2013b/data/images_variant_test.txt", "test"),
    "voc2007": ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "test"),
    "birdsnap": ("birdsnap/images.txt", "trainval"),
}
"""Lists of lines, and the part that they list."""


@pytest.mark.parametrize("name", LISTS)
def test_blanks_line_ends_and_empty_lines_of_a_list_change_nothing(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card, (path, part) = tree(name), LISTS[name]
    before = labels_of(card, tmp_path, part)
    lines = (tmp_path / path).read_text().splitlines()
    (tmp_path / path).write_bytes(b"\xef\xbb\xbf" + "  \r\n\r\n".join(lines).encode() + b"\r\n\n\n")
    assert labels_of(card, tmp_path, part) == before


@pytest.mark.parametrize("name", [name for name in LISTS if name != "birdsnap"])
def test_a_line_that_is_no_image_of_the_set_is_an_error(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    """A header where none should be, for one."""
    card, (path, part) = tree(name), LISTS[name]
    (tmp_path / path).write_text("path label\n" + (tmp_path / path).read_text())
    with pytest.raises(DataError, match=rf"{Path(path).name}:1: |Annotations/path label.xml"):
        listed(card, tmp_path, part, 0)  # type: ignore[arg-type]


SWAPS = {
    "pets": lambda root: one_of_both(root / "oxford-iiit-pet" / "annotations", "test.txt", "trainval.txt"),
    "sun397": lambda root: one_of_both(root / "SUN397" / "Partitions", "Testing_01.txt", "Training_01.txt"),
    "dtd": lambda root: one_of_both(root / "dtd" / "dtd" / "labels", "val1.txt", "train1.txt"),
    "voc2007": lambda root: one_of_both(root / "VOCdevkit/VOC2007/ImageSets/Main", "test.txt", "val.txt"),
    "aircraft": lambda root: one_of_both(root / "fgvc-aircraft-2013b/data", *(f"images_variant_{p}.txt" for p in
                                                                               ("test", "train"))),
    "food101": lambda root: change_json(root / "food-101/meta/train.json",
                                        lambda c: c["baklava"].append("./baklava/2009")),
    "cog-l1": lambda root: change_json(root / "cog/l1.json", lambda c: c["n11000001"]["train"].append(
        "n11000001/./n11000001_0.JPEG")),
    "inat18": lambda root: change_json(root / "inat18/val2018.json", lambda c: c["images"][0].update(
        file_name=f"train_val2018/Plantae/7477/{0:032x}.jpg")),
}  # fmt: skip


def one_of_both(folder: Path, source: str, target: str) -> None:
    line = (folder / source).read_text().splitlines()[0]
    (folder / target).write_text((folder / target).read_text() + line + "\n")


@pytest.mark.parametrize("name", SWAPS)
def test_no_image_is_in_two_parts(name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree(name)
    SWAPS[name](tmp_path)
    with pytest.raises(DataError, match=f"{name}: 1 images are listed twice: "):
        partition.make(card, tmp_path, SplitSpec(name))
