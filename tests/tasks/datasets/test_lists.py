"""Lists of images: one mapping of classes for all parts, headers, names that nobody has, names that lead elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
from data_commands import command
from pydantic import ValidationError
from scipy.io import savemat

from tasks.classification.task import Classify
from tasks.datasets import manifest
from tasks.datasets.files import below, ignored, list_lines, plain
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.readers import listed, read
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain


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


# Names that lead elsewhere, and names that no terminal can show.

OUTSIDE = {
    "pets": ("oxford-iiit-pet/annotations/test.txt", "{} 1 1 1\n"),
    "birdsnap": ("birdsnap/images.txt", "url\tmd5\tpath\tspecies_id\nx\t0\t{}\t1\n"),
    "sun397": ("SUN397/Partitions/Testing_01.txt", "/a/abbey/{}\n"),
    "inat18": ("inat18/train2018.json", '{{"images": [{{"id": 1, "file_name": "{}"}}], "annotations": [{{"image_id": 1,'
               ' "category_id": 1}}], "categories": [{{"id": 1}}]}}'),
    "cog-l1": ("cog/l1.json", '{{"n11000001": {{"train": ["{0}"], "test": ["{0}"]}}}}'),
    "food101": ("food-101/meta/test.json", '{{"apple_pie": ["{}"]}}'),
    "dtd": ("dtd/dtd/labels/test1.txt", "{}\n"),
    "aircraft": ("fgvc-aircraft-2013b/data/images_variant_test.txt", "{} A300 B4\n"),
    "voc2007": ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "{}\n"),
}  # fmt: skip


@pytest.mark.parametrize("climbs", ["../../../secret", "/etc/secret", "banded/../../../../secret"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_list_names_no_file_outside_its_folder(
    name: str, climbs: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    if (name, climbs) == ("sun397", "/etc/secret"):
        climbs = "/../../../etc/secret"  # names in this list begin with a slash
    root = tmp_path / "root"
    card = trees.TREES[name](root, pytest.MonkeyPatch())
    path, content = OUTSIDE[name]
    (root / path).write_text(content.format(climbs))
    with pytest.raises(DataError, match="names no file below the folder of the data"):
        read(card, root, "train" if name == "inat18" else "test", split_seed=0)


def test_files_of_cars_lie_below_its_folder_too(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("cars")
    rows = np.array([("1.jpg", 1), ("../../../secret.jpg", 1)], dtype=[("fname", "O"), ("class", "O")])
    savemat(tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat", {"annotations": rows})
    with pytest.raises(DataError, match="is not below"):
        listed(card, tmp_path, "test", 0)


def test_nothing_outside_the_data_root_is_packed(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    from tasks.datasets.images import shards

    (tmp_path / "secret.jpg").write_bytes(b"secret")
    root = tmp_path / "root"
    trees.pets(root)
    path = root / "oxford-iiit-pet" / "annotations" / "test.txt"
    path.write_text(path.read_text() + "../../../secret 1 1 1\n")
    result = command(root, "pack", "pets")
    assert (result.exit_code, "names no file below" in result.output) == (4, True)
    assert not (root / "oxford-iiit-pet" / "shards").exists()
    for outside in (root / ".." / "secret.jpg", tmp_path / "secret.jpg"):
        with pytest.raises(DataError, match=r"secret\.jpg' is not below"):
            shards.pack(root, [outside], None, root / "out")
    assert not (root / "out").exists()


def test_a_manifest_names_no_file_outside_the_data_root(tmp_path: Path) -> None:
    manifest.Manifest("x", ["../secret.jpg"], [0], ["train"], 1).write(tmp_path / "m.jsonl")
    with pytest.raises(DataError, match=r"m.jsonl is no split manifest .*'../secret.jpg' names no file below"):
        manifest.load(tmp_path / "m.jsonl")


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/..", "a/../b", "../a", "a\0b"])
def test_names_that_are_not_plain(name: str) -> None:
    with pytest.raises(ValueError, match="names no file below the folder of the data"):
        plain(name)


def test_names_that_are_plain() -> None:
    assert [plain(name) for name in ("a/b.jpg", "./a//b.jpg", "a/./b.jpg", "..a/b..", "a b.jpg")] == [
        "a/b.jpg", "a/b.jpg", "a/b.jpg", "..a/b..", "a b.jpg",
    ]  # fmt: skip
    assert list(below(Path("/r"), [Path("/r/a/b.jpg")])) == list(below(Path(), [Path("a/b.jpg")])) == ["a/b.jpg"]
    for path in ("/r", "/rest/a", "/r/../a", "/r/a/../../b"):
        with pytest.raises(ValueError, match="is not below /r"):
            list(below(Path("/r"), [Path(path)]))


LATIN = os.fsdecode("caf\u00e9".encode("latin-1"))
"""A file name whose bytes are no UTF-8."""


def test_a_name_that_is_not_utf_8_is_read_like_any_other(
    tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    """From a list and from a folder, through manifest, check, tar files and training."""
    card = tree("pets")
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images" / "Abyssinian_6.jpg").rename(folder / "images" / f"{LATIN}.jpg")
    path = folder / "annotations" / "test.txt"
    path.write_bytes(path.read_bytes().replace(b"Abyssinian_6", b"caf\xe9"))
    made = partition.make(card, tmp_path, SplitSpec("pets"))
    assert f"oxford-iiit-pet/images/{LATIN}.jpg" in made.images
    made.write(tmp_path / "m.jsonl")
    assert manifest.load(tmp_path / "m.jsonl") == made
    assert rb"caf\udce9.jpg" in (tmp_path / "m.jsonl").read_bytes()  # JSON that every reader takes
    assert command(tmp_path, "split", "pets").exit_code == 0
    result = command(tmp_path, "check", "pets", "--images")
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "pets: complete")
    assert command(tmp_path, "pack", "pets").exit_code == 0
    assert command(tmp_path, "check", "pets", "--images").exit_code == 0
    shutil.rmtree(folder / "shards")
    (folder / "images" / f"{LATIN}.jpg").write_bytes(b"damaged")
    result = command(tmp_path, "check", "pets", "--images", "-o", "json")
    assert result.exit_code == 1
    assert r"caf\\udce9.jpg" in result.output
    (folder / "images" / f"{LATIN}.jpg").unlink()
    result = command(tmp_path, "check", "pets")
    assert r"1 of 20 images that the lists name are not there or empty: oxford-iiit-pet/images/caf\udce9.jpg" in (
        result.output
    )


# What programs leave in folders.


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "Thumbs.db", ".DS_Store", "__MACOSX", "._x.jpg",
                                  "desktop.ini", "lost+found", "THUMBS.DB", "#recycle", "$RECYCLE.BIN"])  # fmt: skip
def test_what_programs_leave_in_folders_is_neither_class_nor_image(
    name: str, tree: Callable[[str], LabelledDataset], tmp_path: Path
) -> None:
    assert ignored(name)
    cards = {kind: tree(kind) for kind in ("imagenet", "caltech101")}
    trees.draw(tmp_path / "own" / "train" / "a" / "1.jpg", 0)
    trees.draw(tmp_path / "own" / "train" / "b" / "2.jpg", 0)
    before = {kind: partition.make(card, tmp_path, SplitSpec(kind)).digest for kind, card in cards.items()}
    own = planned(tmp_path)
    folders = [
        tmp_path / "imagenet" / "train", tmp_path / "imagenet" / "val", tmp_path / "imagenet" / "train" / "n01440764",
        tmp_path / "caltech101" / "101_ObjectCategories",
        tmp_path / "caltech101" / "101_ObjectCategories" / "accordion",
        tmp_path / "own" / "train", tmp_path / "own" / "train" / "a",
    ]  # fmt: skip
    for folder in folders:
        if "." in name[1:]:
            (folder / name).write_bytes(b"x")
        else:
            trees.draw(folder / name / "image_0001.jpg", 9)
    assert {kind: partition.make(card, tmp_path, SplitSpec(kind)).digest for kind, card in cards.items()} == before
    assert planned(tmp_path) == own


def planned(root: Path) -> Any:
    """What planning fills in for a folder of one's own."""
    return Classify(dataset={"kind": "folder", "path": "own"}, val_fraction=0.5).planned_fields(root)


def test_what_is_odd_in_imagenet_is_named(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    card = tree("imagenet")
    base = tmp_path / "imagenet"

    def said() -> str:
        with pytest.raises(DataError, match="imagenet: lists under") as caught:
            partition.make(card, tmp_path, SplitSpec("imagenet"))
        return str(caught.value)

    (base / "train" / "backup").mkdir()
    assert "imagenet/train: 'backup' is no folder of a class (a WordNet id like n01440764)" in said()
    (base / "train" / "backup").rmdir()
    (base / "train" / "n01440764" / "notes.txt").write_text("x")
    assert "imagenet/train/n01440764/notes.txt is no image; remove it" in said()
    (base / "train" / "n01440764" / "notes.txt").unlink()
    for path in sorted((base / "val").rglob("*.JPEG")):
        path.rename(base / "val" / path.name)
    text = said()
    assert "imagenet/val: 6 images lie in it, and not in the folder of their class: ILSVRC2012_val_00000000" in text
    assert "sort them into folders" in text


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["train/a/1.jpg", "valid/a/2.jpg"], "own: folder 'valid' is read as no part; call it 'val', or remove it"),
        (["train/a/1.jpg", "Test/a/2.jpg"], "own: folder 'Test' is read as no part; call it 'test', or remove it"),
        (["Train/a/1.jpg", "Val/a/2.jpg"], "own: folder 'Train' is read as no part; call it 'train', or remove it"),
        (["train/a/1.jpg", "train/2.jpg"], r"own/train: 1 images lie in it, and not in the folder of their class: 2"),
        (["1.jpg", "2.jpg"], r"own: 2 images lie in it, and not in the folder of their class: 1.jpg"),
        (["train/a/1.jpg", "val/2.jpg"], r"own/val: 1 images lie in it, and not in the folder of their class: 2"),
    ],
)  # fmt: skip
def test_what_is_odd_in_a_folder_of_ones_own_is_named(paths: list[str], said: str, tmp_path: Path) -> None:
    for number, path in enumerate(paths):
        trees.draw(tmp_path / "own" / path, number)
    with pytest.raises(DataError, match=said):
        planned(tmp_path)


def test_a_link_that_leads_back_is_named(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg"):
        trees.draw(tmp_path / "own" / name, 1)
    (tmp_path / "own" / "a" / "again").symlink_to("..")
    with pytest.raises(DataError, match=r"is a link to a folder that is read already: its images would count twice"):
        planned(tmp_path)


def test_a_pipe_in_the_place_of_a_list_blocks_nothing(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    places = {
        "pets": "oxford-iiit-pet/annotations/test.txt", "birdsnap": "birdsnap/test_images.txt",
        "inat18": "inat18/train2018.json", "cog-l1": "cog/l1.json", "food101": "food-101/meta/test.json",
        "dtd": "dtd/dtd/labels/test1.txt", "aircraft": "fgvc-aircraft-2013b/data/variants.txt",
        "cars": "stanford_cars/cars_test_annos_withlabels.mat", "sun397": "SUN397/Partitions/ClassName.txt",
        "voc2007": "VOCdevkit/VOC2007/Annotations/000009.xml", "flowers": "flowers-102/setid.mat",
        "cifar10": "cifar-10-batches-py/test_batch",
    }  # fmt: skip
    for name, path in places.items():
        card = tree(name)
        (tmp_path / path).unlink()
        os.mkfifo(tmp_path / path)
        with pytest.raises(DataError, match=r"is no file but a named pipe|not of the published MD5 sum"):
            listed(card, tmp_path, "train" if name == "inat18" else "test", 0)


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a\u2028b\x0cc\r\n\n  d \n".encode())
    assert list_lines(tmp_path / "list.txt") == [(1, "a\u2028b\x0cc"), (3, "d")]


# Empty parts, and seeds that no draw takes.


def test_an_empty_part_is_refused_when_the_spec_is_read() -> None:
    for fraction in (1e-6, 1 - 1e-6):
        for make in (Classify, Pretrain):
            with pytest.raises(ValidationError, match=r"pets: val_fraction .* of 3,680 images holds out (0|3,680) "):
                make(dataset="pets", val_fraction=fraction)
        with pytest.raises(ValidationError, match="inat18: val_fraction"):
            Classify(dataset="inat18", val_fraction=fraction / 100 if fraction < 0.5 else fraction + 9.9e-7,
                     official_val="test")  # fmt: skip
        assert Classify(dataset="dtd", val_fraction=fraction).val_fraction == fraction  # its val is official
    assert Classify(dataset="pets", val_fraction=2e-4).train_samples == 3679


def test_an_empty_part_is_refused_when_a_folder_is_listed(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        trees.draw(tmp_path / "own" / name, 1)
    with pytest.raises(DataError, match=r"own: val_fraction 0\.2 of 2 images holds out 0 as val and leaves 2 to tr"):
        Classify(dataset={"kind": "folder", "path": "own"}).planned_fields(tmp_path)
    assert planned(tmp_path)["sizes"]


def test_a_seed_that_no_draw_takes_is_refused(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    for make in (Classify, Pretrain):
        assert make(dataset="pets", split_seed=2**32 - 1).split_seed == 2**32 - 1
        for seed in (-1, 2**32, 2**63, 10**30):
            with pytest.raises(ValidationError, match=r"split_seed\n  Input should be (less|greater) than or equal to"):
                make(dataset="pets", split_seed=seed)
    card = tree("pets")
    assert partition.make(card, tmp_path, SplitSpec("pets", split_seed=2**32 - 1)).counts["val"] == 2
    result = command(tmp_path, "split", "pets", "--split-seed", 2**32)
    assert (result.exit_code, "is not in the range 0<=x<=4294967295" in result.output) == (2, True)
    result = command(tmp_path, "split", "pets", "--val-fraction", "1e-6")
    assert (result.exit_code, "holds out 0 as val" in result.output) == (4, True)
