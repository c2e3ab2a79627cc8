"""Cards, splits, the images in wheels, and the paper's data sets as they lie on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from tasks.datasets import find_dataset
from tasks.datasets.labelled import bundled_images
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.catalog import LABELLED
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.partition import read_both
from tasks.datasets.labelled.readers import classes_of, read
from tasks.datasets.labelled.synthetic import signs
from tasks.datasets.scenes import crops
from tasks.errors import DataError

SMALL = [card for card in LABELLED if card.source != "folder" and card.name != crops.NAME]
NOWHERE = Path("/nowhere")


@pytest.mark.parametrize("card", SMALL, ids=lambda card: card.name)
def test_wheel_sets_hold_what_their_cards_say(card: LabelledDataset) -> None:
    part = bundled_images.load_bundled(card, NOWHERE)
    assert [len(part.train), len(part.val), len(part.test)] == [card.train, card.val, card.test]
    assert sorted(np.concatenate([part.train, part.val, part.test])) == list(range(len(part.labels)))
    for indices in (part.train, part.val):
        assert set(part.labels[indices]) == set(range(card.classes))
    assert part.images.dtype == np.uint8
    assert part.images.max() > 200
    seen = {name: {part.images[i].tobytes() for i in getattr(part, name)} for name in ("train", "val", "test")}
    assert not seen["train"] & (seen["val"] | seen["test"])
    assert not seen["val"] & seen["test"]


def test_the_two_halves_of_digits_share_no_image() -> None:
    from sklearn.datasets import load_digits

    halves = ("digits", "digits-pretrain")
    ours = [
        image.tobytes() for name in halves for image in bundled_images.load_bundled(trees.card_of(name), NOWHERE).images
    ]
    all_there_are = [np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images]
    assert sorted(ours) == sorted(all_there_are)  # so each image is in one half, once


def test_a_wheel_set_of_another_count_is_refused() -> None:
    with pytest.raises(DataError, match="899 images of 10 classes in the installed package, expected 900"):
        bundled_images.load_bundled(replace(trees.card_of("digits"), train=301), NOWHERE)


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match="unknown data set 'food-101'; nearest: 'food101'; known: aircraft, birdsnap"):
        find_dataset("food-101", LabelledDataset)


def test_patches_of_photographs_share_no_pixel() -> None:
    """The photograph, put together again from the three parts, column by column."""
    from skimage import data

    part = bundled_images.load_bundled(trees.card_of("textures"), NOWHERE)
    for label, photo in enumerate([data.brick(), data.grass(), data.gravel()]):
        sides = []
        for indices in (part.train, part.val, part.test):
            patches = part.images[indices[part.labels[indices] == label]].reshape(16, -1, 32, 32)
            sides.append(patches.swapaxes(1, 2).reshape(512, -1))
        assert [side.shape[1] for side in sides] == [192, 160, 160]
        assert np.array_equal(np.concatenate(sides, axis=1), photo)


def test_drawn_levels_are_ever_less_like_what_was_seen() -> None:
    seen, _ = signs(0, 20)
    prototypes = seen.reshape(20, 10, 16, 16).mean(0)

    def likeness(level: int) -> float:
        own = signs(level, 20)[0].reshape(20, 10, 16, 16).mean(0)
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(own, prototypes, strict=True)]))

    found = [likeness(level) for level in range(1, 6)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] + 0.2


def test_the_sets_of_the_paper_with_their_metrics() -> None:
    paper = {card.name: card for card in LABELLED if card.source == "folder"}
    assert len(paper) == 12 + 2 + 5
    by_class = {name for name, card in paper.items() if card.metric == "mean_per_class"}
    assert by_class == {"aircraft", "pets", "caltech101", "flowers"}
    assert [card.name for card in paper.values() if card.metric == "map11"] == ["voc2007"]
    for card in paper.values():
        assert "there" in card.how_to_get or "into" in card.how_to_get
        assert card.missing(Path("/nowhere")) is not None
        assert card.split
        assert card.licence


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LabelledDataset]:
    return lambda name: trees.plant(name, tmp_path, monkeypatch)


def test_every_set_on_disk_has_a_tree() -> None:
    assert set(trees.TREES) == {card.name for card in LABELLED if card.source == "folder"}


@pytest.mark.parametrize("name", trees.TREES)
def test_parts_on_disk_are_complete_and_disjoint(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree(name)
    assert card.missing(tmp_path) is None
    cut = SplitSpec(name, official_val="val" if card.test else "test")
    parts = {
        (train, evaluate): read_both(card, tmp_path, cut, train, evaluate)  # type: ignore[arg-type]
        for train, evaluate in (("train", "val"), ("trainval", "test"))
    }
    (train, val), (trainval, test) = parts["train", "val"], parts["trainval", "test"]
    card = cut.of(card)
    contents = [sorted(_content(images, labels)) for images, labels in (train, val, trainval, test)]
    assert sorted(contents[0] + contents[1]) == contents[2]
    assert not set(contents[2]) & set(contents[3])
    assert [len(content) for content in contents[2:]] == [card.trainval, card.test]
    expected_val = card.val if card.official_val else round(0.2 * card.trainval + 1e-9)
    assert len(contents[1]) == expected_val
    assert classes_of(train[1]) == classes_of(test[1]) == set(range(card.classes))


def _content(images: object, labels: list[object]) -> list[tuple[object, str]]:
    if isinstance(images, np.ndarray):
        return [(image.tobytes(), str(label)) for image, label in zip(images, labels, strict=True)]
    assert isinstance(images, list)
    assert all(path.is_file() for path in images)
    return list(zip(map(str, images), map(str, labels), strict=True))


def test_labels_come_from_the_lists(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    for name, label_of in {
        "food101": lambda path: ["apple_pie", "baby_back_ribs", "baklava"].index(path.parent.name),
        "pets": lambda path: ["Abyssinian", "american_bulldog"].index(path.stem.rpartition("_")[0]),
        "sun397": lambda path: int("outdoor" in path.parts),
        "birdsnap": lambda path: int(path.parent.name.removeprefix("Bird_")) - 1,
        "aircraft": lambda path: int(int(path.stem) % 2 == 0),  # variants.txt lists 707-320 first
        "caltech101": lambda path: ["BACKGROUND_Google", "accordion", "yin_yang"].index(path.parent.name),
        "imagenet": lambda path: ["n01440764", "n01443537"].index(path.parent.name),
        "inat18": lambda path: ["12", "7477"].index(path.parent.name),
        "cog-l4": lambda path: ["n14000001", "n14000002"].index(path.parent.name),  # the list names the second first
    }.items():
        card = tree(name)
        images, labels = read(card, tmp_path, "test" if card.test else "val", split_seed=0)
        assert labels == [label_of(path) for path in images], name


def test_caltech_draws_thirty_per_class_by_seed(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("caltech101")
    first, labels = read(card, tmp_path, "trainval", split_seed=0)
    assert list(np.bincount(labels)) == [30, 30, 30]
    assert list(first) == list(read(card, tmp_path, "trainval", split_seed=0)[0])
    assert list(first) != list(read(card, tmp_path, "trainval", split_seed=1)[0])


def test_missing_data_say_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"food101: not found under {tmp_path}: food-101/meta/train.json.*cvl/food-101"):
        read(trees.card_of("food101"), tmp_path, "train", split_seed=0)


def test_another_count_is_refused_unless_accepted(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("birdsnap")
    (tmp_path / "birdsnap" / "images" / "Bird_1" / "1_0.jpg").unlink()
    with pytest.raises(DataError, match=r"birdsnap: 11 images in trainval .*, expected 12;.*task.counts: any"):
        read(card, tmp_path, "trainval", split_seed=0)
    assert len(read(card, tmp_path, "trainval", split_seed=0, any_count=True)[1]) == 11


def test_other_classes_are_refused(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("pets")
    with pytest.raises(DataError, match=r"pets: 2 classes in test .*, expected 3"):
        read(replace(card, classes=3), tmp_path, "test", split_seed=0)
    with pytest.raises(DataError, match=r"pets: 2 classes in test .*, expected 1"):
        read(replace(card, classes=1), tmp_path, "test", split_seed=0, any_count=True)


def test_a_damaged_list_is_a_data_error(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("food101")
    (tmp_path / "food-101" / "meta" / "test.json").write_text("{")
    with pytest.raises(DataError, match=r"food101: lists under .* cannot be read"):
        read(card, tmp_path, "test", split_seed=0)


def test_archives_that_were_changed_are_not_unpickled(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("cifar10")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"not of the published MD5 sum: .*/cifar-10-batches-py/test_batch\. Unpack"):
        read(card, tmp_path, "test", split_seed=0)


def test_a_class_that_imagenets_val_lacks_moves_no_other(
    tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card = tree("imagenet")
    shutil.rmtree(tmp_path / "imagenet" / "val" / "n01440764")
    images, labels = read(card, tmp_path, "val", split_seed=0, any_count=True)
    assert {path.parent.name for path in images} == {"n01443537"}  # type: ignore[union-attr]
    assert set(labels) == {1}
    (tmp_path / "imagenet" / "val" / "n99999999").mkdir()
    with pytest.raises(DataError, match="imagenet/val: 1 folders that train has not: n99999999"):
        read(card, tmp_path, "val", split_seed=0, any_count=True)


DAMAGED = {
    "pets": ("oxford-iiit-pet/annotations/test.txt", "Abyssinian_6 1\nAbyssinian_7\n",
             "test.txt:2: 'Abyssinian_7' is no name and class"),
    "sun397": ("SUN397/Partitions/Testing_01.txt", "/a/abbey/sun_5.jpg\n/a/abb",
               "Testing_01.txt:2: a/abb: 'a' is no class of ClassName.txt"),
    "birdsnap": ("birdsnap/images.txt", "url\tpath\tspecies_id\nx\tBird_1/1_0.jpg\n", "images.txt:2: not 3 columns"),
    "voc2007": ("VOCdevkit/VOC2007/Annotations/000010.xml", "<annotation><obj", "Annotations/000010.xml: "),
    "inat18": ("inat18/val2018.json",
               '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}',
               "val2018.json: 1 images have no category of train2018.json: a.jpg"),
    "cog-l1": ("cog/l1.json", '{"n11000001": ["a"]}', "l1.json: not what `data convert cog` writes"),
    "flowers": ("flowers-102/setid.mat", "", "MD5 sum: .*/flowers-102/setid.mat"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_with_a_list_is_said_with_its_file(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    card, (path, content, said) = tree(name), DAMAGED[name]
    (tmp_path / path).write_text(content)
    with pytest.raises(DataError, match=said):
        read(card, tmp_path, "test" if card.test else "val", split_seed=0)
