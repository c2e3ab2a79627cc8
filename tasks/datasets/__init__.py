"""The only place that says which classification data sets are known: sizes, metric, where they lie, how to get them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Metric = Literal["top1", "mean_per_class"]


@dataclass(frozen=True)
class Card:
    """What is known of a data set before it is opened. Counts are expectations: the loaders check them on disk."""

    name: str
    title: str
    """As the paper's tables head the column."""
    classes: int
    metric: Metric
    """Which accuracy the paper reports (appendix, K12): top-1, or the mean of the accuracies of each class."""
    train: int
    val: int
    """`train + val` is the official training set. Without an official val these two are the published cut (tables
    of Kornblith et al. and BYOL); ours holds out `Classify.val_fraction` of the sum instead."""
    test: int
    source: Literal["wheel", "folder"]
    """`wheel`: the images ship inside a Python package that we depend on. `folder`: files under the data root."""
    official_val: bool
    how_to_get: str
    licence: str
    needs: tuple[str, ...] = ()
    """Files and folders, under the data root, that must be there; a quick look, not a count."""

    @property
    def trainval(self) -> int:
        return self.train + self.val

    def missing(self, root: Path) -> str | None:
        """None when what it needs lies under `root`; else what does not, and how to get it."""
        missing = [name for name in self.needs if not (root / name).exists()]
        if not missing:
            return None
        return f"{self.name}: not found under {root}: {', '.join(missing)}. {self.how_to_get}"


_SKLEARN = "Ships with scikit-learn (sklearn.datasets.load_digits)."
_WHEELS = (
    Card(
        name="digits", title="Digits", classes=10, metric="top1", train=300, val=299, test=300,
        source="wheel", official_val=True, how_to_get=_SKLEARN, licence="CC BY 4.0",
    ),
    Card(
        name="digits-pretrain", title="Digits, other half", classes=10, metric="top1", train=748, val=150, test=0,
        source="wheel", official_val=True, how_to_get=_SKLEARN, licence="CC BY 4.0",
    ),
    Card(
        name="faces", title="Faces", classes=2, metric="mean_per_class", train=40, val=80, test=80,
        source="wheel", official_val=True, how_to_get="Ships with scikit-image (skimage.data.lfw_subset).",
        licence="see scikit-image's data folder",
    ),
)  # fmt: skip

# Sizes: train + val and test as the data sets' own lists and torchvision say; the cut between train and val, where it
# is not official, from the tables of Kornblith et al. and BYOL. All are checked against what is on disk.
_RESEARCH = "research use; see the source"
_K12 = (
    Card(
        name="food101", title="Food101", classes=101, metric="top1", train=68_175, val=7_575, test=25_250,
        source="folder", official_val=False, licence=_RESEARCH, needs=("food-101/meta/train.json", "food-101/images"),
        how_to_get="Unpack http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz (4.7 GB) there.",
    ),
    Card(
        name="cifar10", title="CIFAR10", classes=10, metric="top1", train=45_000, val=5_000, test=10_000,
        source="folder", official_val=False, licence=_RESEARCH, needs=("cifar-10-batches-py",),
        how_to_get="Unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (163 MB) there.",
    ),
    Card(
        name="cifar100", title="CIFAR100", classes=100, metric="top1", train=44_933, val=5_067, test=10_000,
        source="folder", official_val=False, licence=_RESEARCH, needs=("cifar-100-python",),
        how_to_get="Unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz (161 MB) there.",
    ),
    Card(
        name="birdsnap", title="Birdsnap", classes=500, metric="top1", train=42_405, val=4_981, test=2_443,
        source="folder", official_val=False, licence=_RESEARCH,
        needs=("birdsnap/images.txt", "birdsnap/test_images.txt", "birdsnap/images"),
        how_to_get="Unpack birdsnap.tgz (lists, version 1.1, thomasberg.org) there and fetch the images it lists into "
        "birdsnap/images. Many of their addresses no longer answer: see task.counts.",
    ),
    Card(
        name="sun397", title="SUN397", classes=397, metric="top1", train=15_880, val=3_970, test=19_850,
        source="folder", official_val=False, licence=_RESEARCH,
        needs=("SUN397/Partitions/ClassName.txt", "SUN397/Partitions/Training_01.txt", "SUN397/a"),
        how_to_get="Unpack http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz (37 GB) there, and "
        "Partitions.zip (same site) into SUN397/Partitions.",
    ),
    Card(
        name="cars", title="Cars", classes=196, metric="top1", train=6_494, val=1_650, test=8_041,
        source="folder", official_val=False, licence=_RESEARCH,
        needs=("stanford_cars/devkit", "stanford_cars/cars_train", "stanford_cars/cars_test",
               "stanford_cars/cars_test_annos_withlabels.mat"),
        how_to_get="The original address is gone; from a mirror put cars_train, cars_test, devkit and "
        "cars_test_annos_withlabels.mat into stanford_cars (as torchvision.datasets.StanfordCars wants them).",
    ),
    Card(
        name="aircraft", title="Aircraft", classes=100, metric="mean_per_class", train=3_334, val=3_333, test=3_333,
        source="folder", official_val=True, licence="non-commercial research",
        needs=("fgvc-aircraft-2013b/data/images", "fgvc-aircraft-2013b/data/variants.txt"),
        how_to_get="Unpack fgvc-aircraft-2013b.tar.gz (2.6 GB) from "
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/ there.",
    ),
    Card(
        name="dtd", title="DTD", classes=47, metric="top1", train=1_880, val=1_880, test=1_880,
        source="folder", official_val=True, licence=_RESEARCH, needs=("dtd/dtd/images", "dtd/dtd/labels"),
        how_to_get="Unpack dtd-r1.0.1.tar.gz (600 MB) from https://www.robots.ox.ac.uk/~vgg/data/dtd/ into dtd.",
    ),
    Card(
        name="pets", title="Pets", classes=37, metric="mean_per_class", train=2_940, val=740, test=3_669,
        source="folder", official_val=False, licence="CC BY-SA 4.0",
        needs=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations/trainval.txt"),
        how_to_get="Unpack images.tar.gz and annotations.tar.gz (800 MB) from "
        "https://www.robots.ox.ac.uk/~vgg/data/pets/ into oxford-iiit-pet.",
    ),
    Card(
        name="caltech101", title="Caltech101", classes=102, metric="mean_per_class", train=2_550, val=510, test=6_084,
        source="folder", official_val=False, licence="CC BY 4.0", needs=("caltech101/101_ObjectCategories",),
        how_to_get="Unpack 101_ObjectCategories.tar.gz (132 MB) from https://data.caltech.edu/records/mzrjq-6wc02 into "
        "caltech101.",
    ),
    Card(
        name="flowers", title="Flowers", classes=102, metric="mean_per_class", train=1_020, val=1_020, test=6_149,
        source="folder", official_val=True, licence=_RESEARCH,
        needs=("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        how_to_get="Unpack 102flowers.tgz (345 MB), and put imagelabels.mat and setid.mat, from "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ into flowers-102.",
    ),
)  # fmt: skip

CARDS: dict[str, Card] = {card.name: card for card in (*_WHEELS, *_K12)}


def find(name: str) -> Card:
    """The card of a data set. Raises ValueError naming the nearest and all known names."""
    if name in CARDS:
        return CARDS[name]
    near = difflib.get_close_matches(name, CARDS, n=1, cutoff=0.0)
    raise ValueError(f"unknown data set {name!r}; nearest: {near[0]!r}; known: {', '.join(sorted(CARDS))}")


def held_out_images(trainval: int, val_fraction: float) -> int:
    """How many of the official training images become val where there is no official val (halves are rounded up)."""
    return int(trainval * val_fraction + 0.5)
