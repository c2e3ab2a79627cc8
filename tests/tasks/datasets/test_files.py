"""Names and files of others: those that lead elsewhere, that are no UTF-8, that programs leave, that are no files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
from data_commands import command
from scipy.io import savemat

from tasks.classification.task import Classify
from tasks.datasets import manifest
from tasks.datasets.files import below, ignored, list_lines, plain
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.readers import listed, read
from tasks.errors import DataError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LabelledDataset]:
    return lambda name: trees.plant(name, tmp_path, monkeypatch)


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


UNKNOWN = "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    "description",
    [
        {"kind": "folder", "path": UNKNOWN},
        {"kind": "table", "path": f"{UNKNOWN}.csv"},
        {"kind": "huggingface", "path": UNKNOWN},
    ],
    ids=lambda description: description["kind"],
)
def test_a_home_that_is_unknown_is_a_folder_that_is_not_there(description: dict[str, str], tmp_path: Path) -> None:
    task = Classify.model_validate({"kind": "classify", "dataset": description})
    assert f"{tmp_path}/{description['path']}" in str(task.missing_data(tmp_path))
    with pytest.raises(DataError, match="~nobody-of-this-name"):
        task.planned_fields(tmp_path)


def test_a_home_is_replaced_in_one_way() -> None:
    """`Path.expanduser` raises RuntimeError where nobody has the name, which nothing catches."""
    root = Path(__file__).parents[3]
    packages = ("orchestrator", "tasks", "workers")
    found = [path for name in packages for path in (root / name).rglob("*.py") if ".expanduser()" in path.read_text()]
    assert found == []


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
