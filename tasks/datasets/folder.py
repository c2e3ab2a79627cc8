"""The only place that reads the paper's data sets as they lie on disk: which files, which labels, which part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.datasets import Card, held_out_images
from tasks.datasets.splits import Indices, stratified

Part = Literal["train", "val", "trainval", "test"]
Images = Sequence[Path] | NDArray[np.uint8]
"""Files, or pixels (n, height, width, 3) where a data set is stored as arrays."""
Read = tuple[Images, list[int]]

CALTECH_TRAIN = 30
"""Images of each class of Caltech-101 to train on; all others are test (Kornblith et al.)."""


def read(card: Card, root: Path, part: Part, split_seed: int, any_count: bool = False) -> Read:
    """Images and labels of a part as its makers cut it: train, val, test where val is official, else trainval, test.

    Raises DataError when files are missing, or when there are other counts or classes than the card says
    (with `any_count`, only when classes are impossible).
    """
    problem = card.missing(root)
    if problem:
        raise DataError(problem)
    try:
        images, labels = _READERS[card.name](root, part, split_seed)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{card.name}: lists under {root} cannot be read: {error}. {card.how_to_get}") from error
    expected = getattr(card, part)
    if len(labels) != expected and not any_count:
        raise DataError(
            f"{card.name}: {len(labels)} images in {part} under {root}, expected {expected}; get the missing ones "
            f"({card.how_to_get}) or set task.counts: any, and call the result not comparable"
        )
    found = set(labels)
    if not labels or not found <= set(range(card.classes)) or (len(found) < card.classes and not any_count):
        raise DataError(f"{card.name}: {len(found)} classes in {part} under {root}, expected {card.classes}")
    return images, labels


def read_both(
    card: Card,
    root: Path,
    train: Literal["train", "trainval"],
    evaluate: Literal["val", "test"],
    val_fraction: float,
    split_seed: int,
    any_count: bool = False,
) -> tuple[Read, Read]:
    """What to train on and what to evaluate on; nothing else is opened. See `read`; where val is not official it is
    a stratified part of trainval."""
    if card.official_val:
        taken = read(card, root, "train", split_seed, any_count)
        if train == "trainval":
            val = read(card, root, "val", split_seed, any_count)
            taken = [*taken[0], *val[0]], taken[1] + val[1]
        return taken, read(card, root, evaluate, split_seed, any_count)
    whole = read(card, root, "trainval", split_seed, any_count)
    held_out = held_out_images(len(whole[1]), val_fraction)
    first, second = stratified(whole[1], [len(whole[1]) - held_out, held_out], split_seed)
    taken = whole if train == "trainval" else _some(whole, first)
    return taken, _some(whole, second) if evaluate == "val" else read(card, root, "test", split_seed, any_count)


def _some(of: Read, indices: Indices) -> Read:
    images, labels = of
    chosen = images[indices] if isinstance(images, np.ndarray) else [images[i] for i in indices]
    return chosen, [labels[i] for i in indices]


def _torchvision(name: str, **fixed: Any) -> Callable[[Path, Part, int], Read]:
    """A data set of torchvision that is a list of files: its loader is asked for the path instead of the image."""

    def listing(root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        split = "train" if part == "trainval" else part
        dataset = getattr(torchvision.datasets, name)(root, split=split, download=False, loader=Path, **fixed)
        pairs = [dataset[i] for i in range(len(dataset))]
        return [path for path, _ in pairs], [int(label) for _, label in pairs]

    return listing


def _cifar(name: str) -> Callable[[Path, Part, int], Read]:
    def arrays(root: Path, part: Part, split_seed: int) -> Read:
        import torchvision.datasets

        # torchvision compares MD5 sums before it unpickles these files
        dataset = getattr(torchvision.datasets, name)(root, train=part == "trainval", download=False)
        return dataset.data, [int(label) for label in dataset.targets]

    return arrays


def _pets(root: Path, part: Part, split_seed: int) -> Read:
    folder = root / "oxford-iiit-pet"
    rows = [line.split() for line in (folder / "annotations" / f"{part}.txt").read_text().splitlines()]
    return [folder / "images" / f"{row[0]}.jpg" for row in rows], [int(row[1]) - 1 for row in rows]


def _caltech(root: Path, part: Part, split_seed: int) -> Read:
    """Every folder is a class, BACKGROUND_Google too: so Kornblith et al. come to 102 classes and 9,144 images."""
    folders = sorted(path for path in (root / "caltech101" / "101_ObjectCategories").iterdir() if path.is_dir())
    random = np.random.RandomState(split_seed)
    chosen: list[tuple[Path, int]] = []
    for label, folder in enumerate(folders):
        files = sorted(folder.glob("image_*.jpg"))
        order = random.permutation(len(files))
        indices = order[:CALTECH_TRAIN] if part == "trainval" else order[CALTECH_TRAIN:]
        chosen += [(files[i], label) for i in sorted(indices)]
    return [path for path, _ in chosen], [label for _, label in chosen]


def _sun397(root: Path, part: Part, split_seed: int) -> Read:
    """Partition 1 of ten; 50 images of each class to train on and 50 to test on."""
    folder = root / "SUN397"
    classes = (folder / "Partitions" / "ClassName.txt").read_text().split()
    label = {name: i for i, name in enumerate(classes)}
    listed = "Training_01.txt" if part == "trainval" else "Testing_01.txt"
    names = (folder / "Partitions" / listed).read_text().split()
    return [folder / name.lstrip("/") for name in names], [label[name.rpartition("/")[0]] for name in names]


def _birdsnap(root: Path, part: Part, split_seed: int) -> Read:
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


_READERS: dict[str, Callable[[Path, Part, int], Read]] = {
    "food101": _torchvision("Food101"),
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "birdsnap": _birdsnap,
    "sun397": _sun397,
    "cars": _torchvision("StanfordCars"),
    "aircraft": _torchvision("FGVCAircraft", annotation_level="variant"),
    "dtd": _torchvision("DTD", partition=1),
    "pets": _pets,
    "caltech101": _caltech,
    "flowers": _torchvision("Flowers102"),
}
