"""Tiny data sets in the true layout on disk, of generated images, with the card that describes them."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as torchvision_datasets

from tasks.datasets import DATASETS, find_dataset
from tasks.datasets.labelled.dataset import LabelledDataset


def card_of(name: str) -> LabelledDataset:
    """A data set of labelled images as the list of all has it."""
    return find_dataset(name, LabelledDataset)


def draw(path: Path, seed: int) -> None:
    """A JPEG of 40 x 32 random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def plant(name: str, root: Path, patch: pytest.MonkeyPatch) -> LabelledDataset:
    """The tree of a data set under `root`, and its card with the counts of that tree."""
    made = TREES[name](root, patch)
    patch.setitem(DATASETS, name, made)
    return made


def food101(root: Path, patch: object = None) -> LabelledDataset:
    """3 classes of 10 images, 6 to train on and 4 to test on."""
    base = root / "food-101"
    classes = ["apple_pie", "baby_back_ribs", "baklava"]
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for c, name in enumerate(classes):
        ids = [f"{name}/{1000 * c + i}" for i in range(10)]
        lists["train"][name], lists["test"][name] = ids[:6], ids[6:]
        for i, image in enumerate(ids):
            draw(base / "images" / f"{image}.jpg", 100 * c + i)
    for part, content in lists.items():
        (base / "meta").mkdir(exist_ok=True)
        (base / "meta" / f"{part}.json").write_text(json.dumps(content))
    return replace(card_of("food101"), classes=3, train=15, val=3, test=12)


def dtd(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "dtd" / "dtd"
    for part, first in (("train", 0), ("val", 4), ("test", 8)):
        names = [f"{c}/{c}_{i:04d}.jpg" for c in ("banded", "zigzagged") for i in range(first, first + 4)]
        write(base / "labels" / f"{part}1.txt", names)
        for i, name in enumerate(names):
            draw(base / "images" / name, first * 10 + i)
    return replace(card_of("dtd"), classes=2, train=8, val=8, test=8)


def pets(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "oxford-iiit-pet"
    names = ((1, "Abyssinian"), (2, "american_bulldog"))
    rows = [(f"{name}_{i}", label) for label, name in names for i in range(1, 11)]
    for part, chosen in (("trainval", rows[:5] + rows[10:15]), ("test", rows[5:10] + rows[15:])):
        write(base / "annotations" / f"{part}.txt", [f"{name} {label} {label} 1" for name, label in chosen])
    for i, (name, _) in enumerate(rows):
        draw(base / "images" / f"{name}.jpg", i)
    return replace(card_of("pets"), classes=2, train=8, val=2, test=10)


def flowers(root: Path, patch: pytest.MonkeyPatch) -> LabelledDataset:
    base = root / "flowers-102"
    for i in range(1, 13):
        draw(base / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(base / "imagelabels.mat", {"labels": np.arange(12) % 2 + 1})
    savemat(base / "setid.mat", {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6, 7, 8]], "tstid": [[9, 10, 11, 12]]})
    files = {
        key: (name, md5(base / name) if name.endswith(".mat") else "")
        for key, (name, _) in torchvision_datasets.Flowers102._file_dict.items()
    }
    patch.setattr(torchvision_datasets.Flowers102, "_file_dict", files)
    return replace(card_of("flowers"), classes=2, train=4, val=4, test=4)


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> LabelledDataset:
    return _cifar("cifar10", root, patch, torchvision_datasets.CIFAR10, "labels", "label_names")


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> LabelledDataset:
    return _cifar("cifar100", root, patch, torchvision_datasets.CIFAR100, "fine_labels", "fine_label_names")


def _cifar(name: str, root: Path, patch: pytest.MonkeyPatch, kind: Any, labels: str, names: str) -> LabelledDataset:
    """20 training images (in 5 files of 4, or one) and 4 to test; torchvision's MD5 sums are replaced by theirs."""
    base = root / kind.base_folder
    base.mkdir(parents=True)
    random = np.random.RandomState(0)
    for listed, images in (("train_list", 20), ("test_list", 4)):
        each = images // len(getattr(kind, listed))
        for file, _ in getattr(kind, listed):
            data = random.randint(0, 256, (each, 3072), dtype=np.uint8)
            (base / file).write_bytes(pickle.dumps({"data": data, labels: [0, 1] * (each // 2)}))
        patch.setattr(kind, listed, [[file, md5(base / file)] for file, _ in getattr(kind, listed)])
    meta = base / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({names: ["first", "second"]}))
    patch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
    return replace(card_of(name), classes=2, train=16, val=4, test=4)


def aircraft(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "fgvc-aircraft-2013b" / "data"
    write(base / "variants.txt", ["707-320", "A300 B4"])
    for part, first in (("train", 0), ("val", 2), ("test", 4)):
        rows = [(f"{first + i:07d}", name) for i, name in enumerate(["A300 B4", "707-320"])]
        write(base / f"images_variant_{part}.txt", [f"{image} {name}" for image, name in rows])
        for image, _ in rows:
            draw(base / "images" / f"{image}.jpg", int(image))
    return replace(card_of("aircraft"), classes=2, train=2, val=2, test=2)


def cars(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "stanford_cars"
    kind = [("fname", "O"), ("class", "O")]
    for part, listed in (
        ("train", base / "devkit" / "cars_train_annos.mat"),
        ("test", base / "cars_test_annos_withlabels.mat"),
    ):
        listed.parent.mkdir(parents=True, exist_ok=True)
        rows = np.array([(f"{i:05d}.jpg", i % 2 + 1) for i in range(1, 11)], dtype=kind)
        savemat(listed, {"annotations": rows})
        for i in range(1, 11):
            draw(base / f"cars_{part}" / f"{i:05d}.jpg", i)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General", "Acura"], dtype=object)})
    return replace(card_of("cars"), classes=2, train=8, val=2, test=10)


def caltech101(root: Path, patch: object = None) -> LabelledDataset:
    """2 classes and the background, of 33, 31 and 32 images."""
    base = root / "caltech101" / "101_ObjectCategories"
    for name, count in (("BACKGROUND_Google", 32), ("accordion", 33), ("yin_yang", 31)):
        for i in range(1, count + 1):
            draw(base / name / f"image_{i:04d}.jpg", i)
    (base / "BACKGROUND_Google" / "tmp").write_text("as in the archive")
    return replace(card_of("caltech101"), classes=3, train=75, val=15, test=6, background=32)


def sun397(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "SUN397"
    classes = ["/a/abbey", "/a/apartment_building/outdoor"]
    write(base / "Partitions" / "ClassName.txt", classes)
    for listed, first in (("Training_01.txt", 0), ("Testing_01.txt", 5)):
        names = [f"{name}/sun_{i}.jpg" for name in classes for i in range(first, first + 5)]
        write(base / "Partitions" / listed, names)
        for i, name in enumerate(names):
            draw(base / name.lstrip("/"), first + i)
    return replace(card_of("sun397"), classes=2, train=8, val=2, test=10)


def birdsnap(root: Path, patch: object = None) -> LabelledDataset:
    base = root / "birdsnap"
    rows = [(f"{species}_{i}", species) for species in (1, 2) for i in range(8)]
    write(base / "images.txt", ["url\tmd5\tpath\tspecies_id"])
    with (base / "images.txt").open("a") as listing:
        for i, (name, species) in enumerate(rows):
            listing.write(f"http://x\t0\tBird_{species}/{name}.jpg\t{species}\n")
            draw(base / "images" / f"Bird_{species}" / f"{name}.jpg", i)
    write(base / "test_images.txt", ["path", *(f"Bird_{s}/{n}.jpg" for n, s in rows if n.endswith(("6", "7")))])
    return replace(card_of("birdsnap"), classes=2, train=10, val=2, test=4)


def voc2007(root: Path, patch: object = None) -> LabelledDataset:
    """3 classes; every image has one object, the first of each part a second one and a difficult third."""
    base = root / "VOCdevkit" / "VOC2007"
    for part, first in (("train", 1), ("val", 5), ("test", 9)):
        names = [f"{i:06d}" for i in range(first, first + 4)]
        write(base / "ImageSets" / "Main" / f"{part}.txt", names)
        for i, name in enumerate(names):
            things = [(VOC[i % 3], 0)] + ([(VOC[1], 0), (VOC[2], 1)] if i == 0 else [])
            annotation(base / "Annotations" / f"{name}.xml", things)
            draw(base / "JPEGImages" / f"{name}.jpg", int(name))
    return replace(card_of("voc2007"), classes=3, train=4, val=4, test=4)


VOC = ("aeroplane", "bicycle", "bird")


def annotation(path: Path, things: Iterable[tuple[str, int]]) -> None:
    objects = (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin></bndbox></object>"
        for name, difficult in things
    )
    write(path, ["<annotation>", *objects, "</annotation>"])


def imagenet(root: Path, patch: object = None) -> LabelledDataset:
    for part, count in (("train", 6), ("val", 3)):
        for c, wnid in enumerate(("n01440764", "n01443537")):
            for i in range(count):
                name = f"{wnid}_{i}" if part == "train" else f"ILSVRC2012_val_{2 * i + c:08d}"
                draw(root / "imagenet" / part / wnid / f"{name}.JPEG", 10 * c + i)
    return replace(card_of("imagenet"), classes=2, train=12, val=6)


def inat18(root: Path, patch: object = None) -> LabelledDataset:
    """Two species; ids of images and categories as in the lists, neither starting at nought nor in order."""
    base = root / "inat18"
    categories = [{"id": 7477, "name": "b", "supercategory": "Plantae"}, {"id": 12, "name": "a"}]
    for part, first in (("train", 0), ("val", 6)):
        images, annotations = [], []
        for i in range(first, first + (6 if part == "train" else 4)):
            category = (7477, 12)[i % 2]
            name = f"train_val2018/Plantae/{category}/{i:032x}.jpg"
            draw(base / name, i)
            images.append({"id": 500 - i, "file_name": name})
            annotations.append({"id": 500 - i, "image_id": 500 - i, "category_id": category})
        content = {"images": images, "annotations": annotations[::-1], "categories": categories}
        (base / f"{part}2018.json").write_text(json.dumps(content))
    return replace(card_of("inat18"), classes=2, train=6, val=4)


def cog(number: int) -> Callable[[Path, pytest.MonkeyPatch], LabelledDataset]:
    """Two concepts of a level with 10 and 12 images to train on and 4 to test on, lists as `data convert cog` writes
    them."""

    def level(root: Path, patch: pytest.MonkeyPatch) -> LabelledDataset:
        lists = {}
        for c, wnid in enumerate((f"n1{number}000002", f"n1{number}000001")):
            names = [f"{wnid}/{wnid}_{i}.JPEG" for i in range(14 + 2 * c)]
            lists[wnid] = {"train": names[4:], "test": names[:4]}
            for i, name in enumerate(names):
                draw(root / "imagenet21k" / name, 100 * c + i)
        (root / "cog").mkdir(exist_ok=True)
        (root / "cog" / f"l{number}.json").write_text(json.dumps(lists))
        return replace(card_of(f"cog-l{number}"), classes=2, train=18, val=4, test=8, per_class=(10, 12))

    return level


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


TREES: dict[str, Callable[[Path, pytest.MonkeyPatch], LabelledDataset]] = {
    "food101": food101, "cifar10": cifar10, "cifar100": cifar100, "birdsnap": birdsnap, "sun397": sun397, "cars": cars,
    "aircraft": aircraft, "voc2007": voc2007, "dtd": dtd, "pets": pets, "caltech101": caltech101, "flowers": flowers,
    "imagenet": imagenet, "inat18": inat18, **{f"cog-l{number}": cog(number) for number in range(1, 6)},
}  # fmt: skip
