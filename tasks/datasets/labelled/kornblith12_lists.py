"""Reads the lists of the twelve data sets of Kornblith et al.: files, labels and parts."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.files import ignored, list_lines, open_regular, plain, read_list, text_of
from tasks.datasets.labelled.card import CALTECH_TRAIN, LabelledCard
from tasks.datasets.labelled.parts import Part, Read, Reader


def read_json(path: Path) -> Any:
    """Raises OSError, and ValueError naming the file."""
    try:
        return json.loads(read_list(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _numbered(names: Sequence[str], path: Path) -> dict[str, int]:
    """Class -> its number, in the order of the names. Raises ValueError for a name that is there twice."""
    numbers = {name: number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        twice = next(name for number, name in enumerate(names) if numbers[name] != number)
        raise ValueError(f"{path}: class {twice!r} is named twice")
    return numbers


def _number_of(name: str, numbers: dict[str, int], where: str, listed: str) -> int:
    """Raises ValueError for a class that has no number."""
    if name not in numbers:
        raise ValueError(f"{where}: {name!r} is no class of {listed}")
    return numbers[name]


def _food101(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """A class is numbered by its rank in train.json, in test too. (torchvision ranks those of each list.)"""
    folder = root / "food-101"
    lists = {name: read_json(folder / "meta" / f"{name}.json") for name in ("train", "test")}
    for name, content in lists.items():
        if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
            raise ValueError(f"{folder / 'meta' / name}.json: not the names of images by class")
    numbers = _numbered(sorted(lists["train"]), folder / "meta" / "train.json")
    path = folder / "meta" / ("train.json" if part == "trainval" else "test.json")
    rows = [
        (folder / "images" / plain(f"{text_of(name, str(path))}.jpg"), number)
        for kind, names in lists[path.stem].items()
        for number in (_number_of(kind, numbers, str(path), "train.json"),)
        for name in names
    ]
    return [path for path, _ in rows], [label for _, label in rows]


def _dtd(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The first of ten partitions. A class is numbered by its rank in the list of train, in the other parts too.
    (torchvision ranks those of each list.)"""
    folder = root / "dtd" / "dtd"

    def rows(name: str) -> list[tuple[str, str, str]]:
        path = folder / "labels" / f"{name}1.txt"
        return [(f"{path}:{number}", *_class_and_name(line, f"{path}:{number}")) for number, line in list_lines(path)]

    numbers = _numbered(sorted({kind for _, kind, _ in rows("train")}), folder / "labels" / "train1.txt")
    chosen = rows(part)
    labels = [_number_of(kind, numbers, where, "train1.txt") for where, kind, _ in chosen]
    return [folder / "images" / kind / name for _, kind, name in chosen], labels


def _class_and_name(line: str, where: str) -> tuple[str, str]:
    kind, slash, name = plain(line).partition("/")
    if not slash or "/" in name:
        raise ValueError(f"{where}: {line!r} is no class and file")
    return kind, name


def _aircraft(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """Classes are the variants, numbered as variants.txt lists them."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    variants = [line for _, line in list_lines(folder / "variants.txt")]
    numbers = _numbered(variants, folder / "variants.txt")
    path = folder / f"images_variant_{part}.txt"
    images, labels = [], []
    for number, line in list_lines(path):
        name, _, variant = line.partition(" ")
        images.append(folder / "images" / plain(f"{name}.jpg"))
        labels.append(_number_of(variant.strip(), numbers, f"{path}:{number}", "variants.txt"))
    return images, labels


def _cars(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    base = root / "stanford_cars"
    for name in ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"):
        open_regular(base / name).close()  # scipy would wait for a named pipe
    return _torchvision("StanfordCars", card, root, part)


def _torchvision(name: str, card: LabelledCard, root: Path, part: Part) -> Read:
    """Reads a data set of torchvision that is a list of files: its loader returns the path instead of the image."""
    import torchvision.datasets

    split = "train" if part == "trainval" else part
    dataset = getattr(torchvision.datasets, name)(root, split=split, download=False, loader=Path)
    pairs = [dataset[i] for i in range(len(dataset))]
    return [path for path, _ in pairs], [int(label) for _, label in pairs]


def _cifar(name: str) -> Reader:
    def arrays(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        # torchvision compares MD5 sums before it unpickles these files
        kind = getattr(torchvision.datasets, name)
        try:
            dataset = kind(root, train=part == "trainval", download=False)
        except RuntimeError:
            sums = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
            _check_sums(root / kind.base_folder, sums)
            raise
        return dataset.data, [int(label) for label in dataset.targets]

    return arrays


def _flowers(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    import torchvision.datasets

    try:
        return _torchvision("Flowers102", card, root, part)
    except RuntimeError:
        files = torchvision.datasets.Flowers102._file_dict
        _check_sums(root / "flowers-102", [files["label"], files["setid"]])
        raise


def _check_sums(folder: Path, sums: list[tuple[str, str]]) -> None:
    """Raises ValueError naming the files that are not the published ones; torchvision does not name them."""
    from torchvision.datasets.utils import check_integrity

    wrong = [str(folder / name) for name, md5 in sums if not check_integrity(str(folder / name), md5)]
    if wrong:
        raise ValueError(f"not there, or not of the published MD5 sum: {', '.join(wrong)}")


def _pets(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    folder = root / "oxford-iiit-pet"
    path = folder / "annotations" / f"{part}.txt"
    images, labels = [], []
    for number, line in list_lines(path):
        name, *columns = line.split()
        if not columns or not columns[0].isdecimal():
            raise ValueError(f"{path}:{number}: {line!r} is no name and class")
        images.append(folder / "images" / plain(f"{name}.jpg"))
        labels.append(int(columns[0]) - 1)
    return images, labels


def _caltech(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """Every folder is a class, BACKGROUND_Google too: so Kornblith et al. come to 102 classes and 9,144 images.
    Each folder's draw is its own, so leaving the background out changes no other class."""
    base = root / "caltech101" / "101_ObjectCategories"
    folders = sorted(path for path in base.iterdir() if path.is_dir() and not ignored(path.name))
    random = np.random.RandomState(split_seed)
    chosen: list[tuple[Path, int]] = []
    label = 0
    for folder in folders:
        files = sorted(folder.glob("image_*.jpg"))
        if not files:
            raise ValueError(f"{folder}: no images image_*.jpg in it, so it is no class")
        order = random.permutation(len(files))
        if folder.name in card.left_out:
            continue
        indices = order[:CALTECH_TRAIN] if part == "trainval" else order[CALTECH_TRAIN:]
        chosen += [(files[i], label) for i in sorted(indices)]
        label += 1
    return [path for path, _ in chosen], [label for _, label in chosen]


def _sun397(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """Partition 1 of ten; 50 images of each class to train on and 50 to test on."""
    folder = root / "SUN397"
    lists = folder / "Partitions"
    classes = [line for _, line in list_lines(lists / "ClassName.txt")]
    numbers = _numbered([plain(name.lstrip("/")) for name in classes], lists / "ClassName.txt")
    path = lists / ("Training_01.txt" if part == "trainval" else "Testing_01.txt")
    names = [(number, plain(line.lstrip("/"))) for number, line in list_lines(path)]
    labels = [
        _number_of(name.rpartition("/")[0], numbers, f"{path}:{number}: {name}", "ClassName.txt")
        for number, name in names
    ]
    return [folder / name for _, name in names], labels


def _birdsnap(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The listed images that are on disk: many can no longer be downloaded (`read` checks their count)."""
    folder = root / "birdsnap"
    listed = _birdsnap_images(folder / "images.txt")
    test = _birdsnap_test(folder / "test_images.txt", set(listed))
    wanted = [name for name in listed if (name in test) == (part == "test")]
    on_disk = [name for name in wanted if (folder / "images" / name).is_file()]
    return [folder / "images" / name for name in on_disk], [listed[name] for name in on_disk]


def _birdsnap_images(path: Path) -> dict[str, int]:
    """Every listed image with its class."""
    (_, header), *lines = list_lines(path) or [(1, "")]
    columns = [column.strip() for column in header.split("\t")]
    if not {"path", "species_id"} <= set(columns):
        raise ValueError(f"{path}: its first line does not name the columns path and species_id")
    file, species = columns.index("path"), columns.index("species_id")
    listed: dict[str, int] = {}
    for number, line in lines:
        row = [column.strip() for column in line.split("\t")]
        if len(row) < len(columns) or not row[species].isdecimal():
            raise ValueError(f"{path}:{number}: not {len(columns)} columns, or no number of a species")
        name = plain(row[file])
        if name in listed:
            raise ValueError(f"{path}:{number}: {name!r} is listed twice")
        listed[name] = int(row[species]) - 1
    return listed


def _birdsnap_test(path: Path, known: set[str]) -> set[str]:
    """The names of the test images; a first line `path` is the header. A name that no image has would be trained on."""
    lines = list_lines(path)
    names = [(number, plain(line)) for number, line in (lines[1:] if lines and lines[0][1] == "path" else lines)]
    unknown = [f"{path}:{number}: {name!r}" for number, name in names if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is not in images.txt, nor are {len(unknown) - 1} others: no image by that name")
    return {name for _, name in names}


VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _voc(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """A row per image: 1 where an object of the class is there, -1 (ignored) where all of them are marked difficult,
    as VOC 2007's own lists per class say, else 0. Read from the annotations, which hold the same."""
    folder = root / "VOCdevkit" / "VOC2007"
    names = [plain(line) for _, line in list_lines(folder / "ImageSets" / "Main" / f"{part}.txt")]
    rows = []
    for name in names:
        row = [0] * card.classes
        for thing, difficult in _voc_objects(folder / "Annotations" / f"{name}.xml"):
            label = VOC_CLASSES.index(thing)
            row[label] = 1 if not difficult or row[label] == 1 else -1
        rows.append(row)
    return [folder / "JPEGImages" / f"{name}.jpg" for name in names], rows


def _voc_objects(path: Path) -> list[tuple[str, bool]]:
    """The class of each object in an annotation, and whether it is marked difficult."""
    try:
        with open_regular(path) as file:
            objects = list(Xml.parse(file).iter("object"))
    except Xml.ParseError as error:
        raise ValueError(f"{path}: {error}") from error
    named = [(str(thing.findtext("name")), thing.findtext("difficult") == "1") for thing in objects]
    unknown = [name for name, _ in named if name not in VOC_CLASSES]
    if unknown:
        raise ValueError(f"{path}: {unknown[0]!r} is no class of VOC 2007")
    return named


K12_READERS: dict[str, Reader] = {
    "food101": _food101,
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "birdsnap": _birdsnap,
    "sun397": _sun397,
    "cars": _cars,
    "aircraft": _aircraft,
    "voc2007": _voc,
    "dtd": _dtd,
    "pets": _pets,
    "caltech101": _caltech,
    "flowers": _flowers,
}
