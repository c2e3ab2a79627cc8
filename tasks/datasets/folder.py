"""The only place that reads the paper's data sets as they lie on disk: which files, which labels, which part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.datasets.cards import CALTECH_TRAIN, Card

Part = Literal["train", "val", "trainval", "test"]
Images = Sequence[Path] | NDArray[np.uint8]
"""Files, or pixels (n, height, width, 3) where a data set is stored as arrays."""
Read = tuple[Images, list[Any]]
"""Images and their labels: class numbers, or for `several_labels` rows of 1, 0, -1 (see Card)."""
Reader = Callable[[Card, Path, Part, int], Read]


def read(card: Card, root: Path, part: Part, split_seed: int, any_count: bool = False) -> Read:
    """Images and labels of a part as its makers cut it: train, val, test where val is official, else trainval, test.

    Raises DataError when files are missing, or when there are other counts or classes than the card says
    (with `any_count`, only when classes are impossible).
    """
    images, labels = listed(card, root, part, split_seed)
    checked(card, root, part, labels, any_count)
    return images, labels


def listed(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """`read` without a look at the counts. Raises DataError when files are missing or lists are damaged."""
    problem = card.missing(root)
    if problem:
        raise DataError(problem)
    try:
        return _READERS[card.name](card, root, part, split_seed)
    except (RuntimeError, OSError, LookupError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        said = f"{type(error).__name__}: {error}" if isinstance(error, LookupError | TypeError) else error
        raise DataError(f"{card.name}: lists under {root} cannot be read: {said}. {card.how_to_get}") from error


def checked(card: Card, root: Path, part: Part, labels: list[Any], any_count: bool) -> None:
    """Raises DataError as `read` does, for a part of these labels."""
    problem = wrong_counts(card, part, labels)
    if problem and not any_count:
        raise DataError(
            f"{card.name}: {problem[0]} under {root}, expected {problem[1]}; get the missing ones "
            f"({card.how_to_get}) or set task.counts: any, and call the result not comparable"
        )
    found = classes_of(labels)
    if not labels or not found <= set(range(card.classes)) or (len(found) < card.classes and not any_count):
        raise DataError(f"{card.name}: {len(found)} classes in {part} under {root}, expected {card.classes}")


def wrong_counts(card: Card, part: Part, labels: list[Any]) -> tuple[str, str] | None:
    """What is found and what was expected, when these are not as many images as the card says."""
    if card.per_class is None or part == "test":
        expected = getattr(card, part)
        return (f"{len(labels)} images in {part}", str(expected)) if len(labels) != expected else None
    low, high = card.per_class
    odd = [(label, count) for label, count in sorted(Counter(labels).items()) if not low <= count <= high]
    if not odd:
        return None
    label, count = odd[0]
    more = f" (and {len(odd) - 1} other classes)" if len(odd) > 1 else ""
    return f"{count} images in {part} of class {label}{more}", f"{low} to {high}"


def classes_of(labels: list[Any]) -> set[int]:
    """The classes that occur."""
    if labels and isinstance(labels[0], list):
        return {number for row in labels for number, there in enumerate(row) if there == 1}
    return set(labels)


def _torchvision(name: str, **fixed: Any) -> Reader:
    """A data set of torchvision that is a list of files: its loader is asked for the path instead of the image."""

    def listing(card: Card, root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        split = "train" if part == "trainval" else part
        dataset = getattr(torchvision.datasets, name)(root, split=split, download=False, loader=Path, **fixed)
        pairs = [dataset[i] for i in range(len(dataset))]
        return [path for path, _ in pairs], [int(label) for _, label in pairs]

    return listing


def _cifar(name: str) -> Reader:
    def arrays(card: Card, root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        # torchvision compares MD5 sums before it unpickles these files
        dataset = getattr(torchvision.datasets, name)(root, train=part == "trainval", download=False)
        return dataset.data, [int(label) for label in dataset.targets]

    return arrays


def _pets(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    folder = root / "oxford-iiit-pet"
    rows = [line.split() for line in (folder / "annotations" / f"{part}.txt").read_text().splitlines()]
    return [folder / "images" / f"{row[0]}.jpg" for row in rows], [int(row[1]) - 1 for row in rows]


def _caltech(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """Every folder is a class, BACKGROUND_Google too: so Kornblith et al. come to 102 classes and 9,144 images.
    Each folder's draw is its own, so leaving the background out changes no other class."""
    folders = sorted(path for path in (root / "caltech101" / "101_ObjectCategories").iterdir() if path.is_dir())
    random = np.random.RandomState(split_seed)
    chosen: list[tuple[Path, int]] = []
    label = 0
    for folder in folders:
        files = sorted(folder.glob("image_*.jpg"))
        order = random.permutation(len(files))
        if folder.name in card.left_out:
            continue
        indices = order[:CALTECH_TRAIN] if part == "trainval" else order[CALTECH_TRAIN:]
        chosen += [(files[i], label) for i in sorted(indices)]
        label += 1
    return [path for path, _ in chosen], [label for _, label in chosen]


def _sun397(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """Partition 1 of ten; 50 images of each class to train on and 50 to test on."""
    folder = root / "SUN397"
    classes = (folder / "Partitions" / "ClassName.txt").read_text().split()
    label = {name: i for i, name in enumerate(classes)}
    listing = "Training_01.txt" if part == "trainval" else "Testing_01.txt"
    names = (folder / "Partitions" / listing).read_text().split()
    return [folder / name.lstrip("/") for name in names], [label[name.rpartition("/")[0]] for name in names]


def _birdsnap(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """The images of the list that are there: many could never be fetched (their count is checked by `read`)."""
    folder = root / "birdsnap"
    test = set((folder / "test_images.txt").read_text().splitlines()[1:])
    header, *lines = (folder / "images.txt").read_text().splitlines()
    columns = header.split("\t")
    path, species = columns.index("path"), columns.index("species_id")
    rows = [line.split("\t") for line in lines]
    wanted = [row for row in rows if (row[path] in test) == (part == "test")]
    there = [row for row in wanted if (folder / "images" / row[path]).is_file()]
    return [folder / "images" / row[path] for row in there], [int(row[species]) - 1 for row in there]


VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _voc(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """A row per image: 1 where an object of the class is there, -1 (ignored) where all of them are marked difficult,
    as VOC 2007's own lists per class say, else 0. Read from the annotations, which hold the same."""
    import xml.etree.ElementTree as Xml

    folder = root / "VOCdevkit" / "VOC2007"
    names = (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
    rows = []
    for name in names:
        row = [0] * card.classes
        for thing in Xml.parse(folder / "Annotations" / f"{name}.xml").iter("object"):
            label = VOC_CLASSES.index(str(thing.findtext("name")))
            difficult = thing.findtext("difficult") == "1"
            row[label] = 1 if not difficult or row[label] == 1 else -1
        rows.append(row)
    return [folder / "JPEGImages" / f"{name}.jpg" for name in names], rows


def _inat(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """The lists name each file below the folder; a label is the rank of its category's id."""
    folder = root / "inat18"
    split = "train" if part in ("train", "trainval") else "val"  # val is test where the cut says so
    content = json.loads((folder / f"{split}2018.json").read_text())
    label = {number: rank for rank, number in enumerate(sorted(c["id"] for c in content["categories"]))}
    category = {row["image_id"]: row["category_id"] for row in content["annotations"]}
    rows = [(folder / row["file_name"], label[category[row["id"]]]) for row in content["images"]]
    return [path for path, _ in rows], [label for _, label in rows]


def _imagenet(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """A folder per WordNet id; the label is its rank. Tar files, where there are any, say what is there (shards.py)."""
    import os

    from tasks.datasets.shards import packed_below

    folder = root / "imagenet" / ("train" if part in ("train", "trainval") else "val")
    packed = packed_below(root, folder)
    if packed is not None:
        found = sorted((path.parent.name, path.name) for path in packed)
        rank = {name: number for number, name in enumerate(sorted({name for name, _ in found}))}
        return [folder / c / name for c, name in found], [rank[c] for c, _ in found]
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    rows = [
        (folder / c / name, i)
        for i, c in enumerate(classes)
        for name in sorted(os.listdir(folder / c))
        if not name.startswith(".")
    ]
    return [path for path, _ in rows], [label for _, label in rows]


def _cog(card: Card, root: Path, part: Part, split_seed: int) -> Read:
    """The lists that `data convert cog` wrote; a label is the rank of the WordNet id."""
    level = json.loads((root / "cog" / f"{card.name.removeprefix('cog-')}.json").read_text())
    split = "train" if part == "trainval" else "test"
    rows = [(root / "imagenet21k" / name, i) for i, c in enumerate(sorted(level)) for name in level[c][split]]
    return [path for path, _ in rows], [label for _, label in rows]


_READERS: dict[str, Reader] = {
    "food101": _torchvision("Food101"),
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "birdsnap": _birdsnap,
    "sun397": _sun397,
    "cars": _torchvision("StanfordCars"),
    "aircraft": _torchvision("FGVCAircraft", annotation_level="variant"),
    "voc2007": _voc,
    "dtd": _torchvision("DTD", partition=1),
    "pets": _pets,
    "caltech101": _caltech,
    "flowers": _torchvision("Flowers102"),
    "imagenet": _imagenet,
    "inat18": _inat,
    **{f"cog-l{number}": _cog for number in range(1, 6)},
}
