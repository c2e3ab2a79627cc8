"""Reads the lists of the paper's data sets as they lie on disk: files, labels and parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.labelled.card import CALTECH_TRAIN, LabelledCard
from tasks.errors import DataError

Part = Literal["train", "val", "trainval", "test"]
Images: TypeAlias = Sequence[Path] | NDArray[np.uint8]
"""Files; or pixels, grey (n, height, width) or colour (n, height, width, 3)."""
Labels: TypeAlias = Sequence[Any] | NDArray[Any]
"""One class number for each image; or rows (n, classes) of 1, 0 and -1 (see LabelledCard.several_labels)."""
Read = tuple[Images, list[Any]]
"""Images and their labels."""
Reader = Callable[[LabelledCard, Path, Part, int], Read]


class LabelledPart(NamedTuple):
    """Images with their labels."""

    images: Images
    labels: Labels


def read(card: LabelledCard, root: Path, part: Part, split_seed: int, any_count: bool = False) -> Read:
    """Images and labels of a part as its makers split it: train, val, test where val is official, else trainval, test.

    Raises DataError when files are missing, or when counts or classes are not as the card states (with `any_count`,
    only when classes are impossible).
    """
    images, labels = listed(card, root, part, split_seed)
    checked(card, root, part, labels, any_count)
    return images, labels


def listed(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """`read` without checking counts. Raises DataError when files are missing or lists are damaged."""
    problem = card.missing(root)
    if problem:
        raise DataError(problem)
    try:
        if card.own:
            return card.own.listed(card.base(root), part)
        return _READERS[card.name](card, root, part, split_seed)
    except (RuntimeError, OSError, LookupError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError | TypeError) else error
        where = "" if card.own else f"lists under {root} cannot be read: "
        raise DataError(f"{card.name}: {where}{reason}. {card.how_to_get}") from error


def checked(card: LabelledCard, root: Path, part: Part, labels: list[Any], any_count: bool) -> None:
    """Raises DataError as `read` does, for a part of these labels."""
    problem = wrong_counts(card, part, labels)
    if problem and not any_count:
        raise DataError(
            f"{card.name}: {problem[0]} under {root}, expected {problem[1]}; get the missing ones "
            f"({card.how_to_get}) or set task.counts: any, and call the result not comparable"
        )
    classes = classes_of(labels)
    if not labels or not classes <= set(range(card.classes)) or (len(classes) < card.classes and not any_count):
        raise DataError(f"{card.name}: {len(classes)} classes in {part} under {root}, expected {card.classes}")


def wrong_counts(card: LabelledCard, part: Part, labels: list[Any]) -> tuple[str, str] | None:
    """(counts on disk, counts expected) in words, when they differ; else None."""
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
    """Reads a data set of torchvision that is a list of files: its loader returns the path instead of the image."""

    def listing(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        split = "train" if part == "trainval" else part
        dataset = getattr(torchvision.datasets, name)(root, split=split, download=False, loader=Path, **fixed)
        pairs = [dataset[i] for i in range(len(dataset))]
        return [path for path, _ in pairs], [int(label) for _, label in pairs]

    return listing


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
        return _torchvision("Flowers102")(card, root, part, split_seed)
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


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _pets(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    folder = root / "oxford-iiit-pet"
    path = folder / "annotations" / f"{part}.txt"
    rows = [line.split() for line in path.read_text(errors="replace").splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[1].isdecimal():
            raise ValueError(f"{path}:{number}: {' '.join(row)!r} is no name and class")
    return [folder / "images" / f"{row[0]}.jpg" for row in rows], [int(row[1]) - 1 for row in rows]


def _caltech(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
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


def _sun397(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """Partition 1 of ten; 50 images of each class to train on and 50 to test on."""
    folder = root / "SUN397"
    classes = (folder / "Partitions" / "ClassName.txt").read_text().split()
    label = {name: i for i, name in enumerate(classes)}
    listing = "Training_01.txt" if part == "trainval" else "Testing_01.txt"
    names = (folder / "Partitions" / listing).read_text().split()
    for name in names:
        if name.rpartition("/")[0] not in label:
            raise ValueError(f"{folder / 'Partitions' / listing}: {name} is of no class that ClassName.txt lists")
    return [folder / name.lstrip("/") for name in names], [label[name.rpartition("/")[0]] for name in names]


def _birdsnap(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The listed images that are on disk: many can no longer be downloaded (`read` checks their count)."""
    folder = root / "birdsnap"
    test = set((folder / "test_images.txt").read_text().splitlines()[1:])
    header, *lines = (folder / "images.txt").read_text().splitlines() or [""]
    columns = header.split("\t")
    if not {"path", "species_id"} <= set(columns):
        raise ValueError(f"{folder / 'images.txt'}: its first line does not name the columns path and species_id")
    path, species = columns.index("path"), columns.index("species_id")
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 2):
        if len(row) < len(columns) or not row[species].isdecimal():
            raise ValueError(f"{folder / 'images.txt'}:{number}: not {len(columns)} columns, or no number of a species")
    wanted = [row for row in rows if (row[path] in test) == (part == "test")]
    on_disk = [row for row in wanted if (folder / "images" / row[path]).is_file()]
    return [folder / "images" / row[path] for row in on_disk], [int(row[species]) - 1 for row in on_disk]


VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _voc(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """A row per image: 1 where an object of the class is there, -1 (ignored) where all of them are marked difficult,
    as VOC 2007's own lists per class say, else 0. Read from the annotations, which hold the same."""
    folder = root / "VOCdevkit" / "VOC2007"
    names = (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
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
    import xml.etree.ElementTree as Xml

    try:
        objects = list(Xml.parse(path).iter("object"))
    except Xml.ParseError as error:
        raise ValueError(f"{path}: {error}") from error
    named = [(str(thing.findtext("name")), thing.findtext("difficult") == "1") for thing in objects]
    unknown = [name for name, _ in named if name not in VOC_CLASSES]
    if unknown:
        raise ValueError(f"{path}: {unknown[0]!r} is no class of VOC 2007")
    return named


def _inat(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The lists name each file below the folder; a label is the rank of its category's id."""
    folder = root / "inat18"
    split = "train" if part in ("train", "trainval") else "val"  # val is test where the cut says so
    path = folder / f"{split}2018.json"
    content = _json(path)
    try:
        label = {number: rank for rank, number in enumerate(sorted(c["id"] for c in content["categories"]))}
        category = {row["image_id"]: row["category_id"] for row in content["annotations"]}
        images = [(row["id"], row["file_name"]) for row in content["images"]]
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path}: not the lists of iNaturalist 2018 ({type(error).__name__}: {error})") from error
    lost = [name for number, name in images if category.get(number) not in label]
    if lost:
        raise ValueError(f"{path}: {len(lost)} images have no category: {lost[0]}")
    rows = [(folder / name, label[category[number]]) for number, name in images]
    return [path for path, _ in rows], [label for _, label in rows]


def _imagenet(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """A folder per WordNet id; the label is its rank among those of train, for val too, so that a class missing from
    val shifts no other. Tar files, if there are any, replace the folders (shards.py)."""
    import os

    from tasks.datasets.images.shards import packed_below

    base = root / "imagenet"
    folder = base / ("train" if part in ("train", "trainval") else "val")
    in_tars = {name: packed_below(root, base / name) for name in dict.fromkeys(("train", folder.name))}
    classes = {
        name: {entry.name for entry in os.scandir(base / name) if entry.is_dir()}
        if packed is None
        else {path.parent.name for path in packed}
        for name, packed in in_tars.items()
    }
    rank = {name: number for number, name in enumerate(sorted(classes["train"]))}
    unknown = sorted(classes[folder.name] - set(rank))
    if unknown:
        raise ValueError(f"{folder}: {len(unknown)} folders that train has not: {unknown[0]}")
    packed = in_tars[folder.name]
    pairs = sorted(
        ((c, name) for c in classes[folder.name] for name in os.listdir(folder / c) if not name.startswith("."))
        if packed is None
        else ((path.parent.name, path.name) for path in packed)
    )
    return [folder / c / name for c, name in pairs], [rank[c] for c, _ in pairs]


def _cog(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The lists that `data convert cog` wrote; a label is the rank of the WordNet id."""
    path = root / "cog" / f"{card.name.removeprefix('cog-')}.json"
    level, split = _json(path), "train" if part == "trainval" else "test"
    if not isinstance(level, dict) or not all(
        isinstance(c, dict) and {"train", "test"} <= set(c) for c in level.values()
    ):
        raise ValueError(f"{path}: not what `data convert cog` writes; write it again")
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
    "flowers": _flowers,
    "imagenet": _imagenet,
    "inat18": _inat,
    **{f"cog-l{number}": _cog for number in range(1, 6)},
}
