"""The only place that says what is stated of a data set before it is opened, and how a cut of it is named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tasks.datasets.info import Download

Metric = Literal["top1", "mean_per_class", "map11"]


@dataclass(frozen=True)
class LabelledDataset:
    """What is known of a data set before it is opened. Counts are expectations: the loaders check them on disk."""

    name: str
    title: str
    """As the paper's tables head the column."""
    classes: int
    metric: Metric
    """What the paper reports (appendix, K12): top-1, the mean of the accuracies of each class, or 11-point mAP."""
    train: int
    val: int
    """`train + val` is the official training set. Without an official val these two are the published cut (tables
    of Kornblith et al. and BYOL); ours holds out `Classify.val_fraction` of the sum instead."""
    test: int
    source: Literal["wheel", "made", "folder"]
    """`wheel`: the images ship inside a Python package that we depend on. `made`: drawn by this project, synthetic.
    `folder`: files under the data root."""
    official_val: bool
    """Whether the makers (for `wheel` and `made`: this project, once and for all) say which images are val."""
    split: str
    """The rule of the split, in a sentence."""
    how_to_get: str
    licence: str
    needs: tuple[str, ...] = ()
    """Files and folders, under the data root, that must be there; a quick look, not a count."""
    several_labels: bool = False
    """Whether an image may be of several classes: labels are then rows of 1 (there), 0 (not there), -1 (ignored)."""
    per_class: tuple[int, int] | None = None
    """Fewest and most training images of a class. Given where the makers publish no total: `train` is then a guess
    for `plan`, and these bounds are what is checked."""
    draws_test: bool = False
    """Whether test images are drawn by the split seed: the makers say of none that it is test."""
    background: int = 0
    """Images in the class BACKGROUND_Google, which `Classify.caltech_background` leaves in or out (0: none)."""
    left_out: tuple[str, ...] = ()
    """Classes on disk that are not read."""
    downloads: tuple[Download, ...] = ()
    """Empty where the makers give no address that a program may use: then `how_to_get` is all there is."""
    digest: str = ""
    """Of the manifest, for images that are the same for everybody (`wheel`, `made`); a test computes it."""

    @property
    def trainval(self) -> int:
        return self.train + self.val

    def missing(self, root: Path) -> str | None:
        """None when what it needs lies under `root`; else what does not, and how to get it."""
        missing = [name for name in self.needs if not (root / name).exists() and not _packed(root, name)]
        if not missing:
            return None
        here = "" if root.is_dir() else " (no such folder on this machine; another with --data-root or DATA_ROOT)"
        return f"{self.name}: not found under {root}{here}: {', '.join(missing)}. {self.how_to_get}"


def _packed(root: Path, name: str) -> bool:
    """Whether a folder of images may be in the set's tar files instead (see shards.py; a list of images never is)."""
    path = root / name
    return not path.suffix and (root / Path(name).parts[0] / "shards" / "index.npz").is_file()


@dataclass(frozen=True)
class SplitSpec:
    """Which images of a data set are train, val and test: its name and all that the rule leaves open."""

    dataset: str
    val_fraction: float = 0.2
    split_seed: int = 0
    caltech_background: bool = True
    official_val: Literal["val", "test"] = "val"

    def of(self, card: LabelledDataset) -> LabelledDataset:
        """The card with the counts and classes that this cut has of it."""
        if not self.caltech_background:
            val = card.val // card.classes
            card = replace(
                card, classes=card.classes - 1, train=card.train - (CALTECH_TRAIN - val), val=card.val - val,
                test=card.test - (card.background - CALTECH_TRAIN), left_out=("BACKGROUND_Google",),
            )  # fmt: skip
        if self.official_val == "test":
            card = replace(card, val=0, test=card.val, official_val=False)
        return card

    def test_rule(self, card: LabelledDataset) -> str:
        """The field that settles which images are test, with its value: cuts that agree in it take no image for train
        or val that is test to another of them."""
        if card.draws_test:
            return f"split_seed: {self.split_seed}"
        return f"dataset: {self.dataset}" if card.test else f"official_val: {self.official_val}"

    def own(self, manifests: dict[str, str], card: LabelledDataset) -> dict[str, str]:
        """Of digests by name, this cut's, or none."""
        return {name: digest for name, digest in manifests.items() if name == self.name(card)}

    def name(self, card: LabelledDataset) -> str:
        """For example `pets/0.2/0` (part held out, seed), or `dtd/official` where nothing is open."""
        parts = [self.dataset]
        parts += ["official"] if self.of(card).official_val else [f"{self.val_fraction:.12g}", str(self.split_seed)]
        parts += ["no-background"] if not self.caltech_background else []
        parts += ["official-val-is-test"] if self.official_val == "test" else []
        return "/".join(parts)


DIGEST = "^[0-9a-f]{64}$"
"""The form of a SHA-256."""

CALTECH_TRAIN = 30
"""Images of each class of Caltech-101 to train on; all others are test (Kornblith et al.)."""


def held_out_images(trainval: int, val_fraction: float) -> int:
    """How many of the official training images become val where there is no official val (halves are rounded up)."""
    return int(trainval * val_fraction + 0.5)
