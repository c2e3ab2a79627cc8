"""The card of a data set of labelled images: what is known of it before it is opened, and the names of its splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from tasks.bounds import MAX_NUMPY_SEED
from tasks.datasets.info import DatasetInfo, SplitOption
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.listing import Listing

Metric = Literal["top1", "mean_per_class", "map11"]
Card = TypeVar("Card", bound="LabelledCard")

DIGEST = "^[0-9a-f]{64}$"
"""The form of a SHA-256."""
CALTECH_TRAIN = 30
"""Images of each class of Caltech-101 to train on; all others are test (Kornblith et al.)."""

VAL_FRACTION = SplitOption(
    "val_fraction", "--val-fraction", "fraction", 0.2, "Part that is held out as val, where there is no official val."
)
SPLIT_SEED = SplitOption("split_seed", "--split-seed", "count", 0, most=MAX_NUMPY_SEED)
BACKGROUND = SplitOption(
    "caltech_background", "--no-background", "switch", True, "Caltech-101 without BACKGROUND_Google."
)
OFFICIAL_VAL = SplitOption(
    "official_val", "--official-val", "word", "val", "What the official val of imagenet and inat18 is.",
    ("val", "test"),
)  # fmt: skip


class OwnImages(Protocol):
    """Images that a spec describes (see described.LabelledDescription)."""

    layout: ClassVar[str]

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def place(self) -> str: ...

    @property
    def several_labels(self) -> bool: ...

    @property
    def test_fraction(self) -> float: ...

    @property
    def test_seed(self) -> int: ...

    def base(self, root: Path) -> Path: ...

    def missing(self, root: Path) -> str | None: ...

    def listing(self, root: Path) -> Listing: ...

    def opened(self, base: Path, names: Sequence[str]) -> Any: ...

    def contents(self, root: Path, names: Sequence[str], folders: Sequence[Path]) -> list[tuple[int, str]]: ...

    def bytes_now(self, images: Any) -> list[int | None]: ...


@dataclass(frozen=True, kw_only=True)
class LabelledCard(DatasetInfo):
    """Facts about labelled images before they are opened. Counts are expectations: loaders check them on disk."""

    classes: int
    metric: Metric
    """The paper's metric (appendix, K12): top-1, the mean of the accuracies of each class, or 11-point mAP."""
    train: int
    val: int
    """`train + val` is the official training set. Without an official val these two are the published cut (tables
    of Kornblith et al. and BYOL); ours holds out `Classify.val_fraction` of the sum instead."""
    test: int
    official_val: bool
    """True if the makers (for `wheel` and `made`: this project, once and for all) say which images are val."""
    several_labels: bool = False
    """True if an image may be of several classes: labels are then rows of 1 (there), 0 (not there), -1 (ignored)."""
    per_class: tuple[int, int] | None = None
    """Fewest and most training images of a class. Given where the makers publish no total: `train` is then a guess
    for `plan`, and these bounds are what is checked."""
    draws_test: bool = False
    """True if test images are drawn by the split seed, because the makers name none."""
    partly_lost: bool = False
    """True if many of the published images can no longer be had."""
    background: int = 0
    """Images in the class BACKGROUND_Google, which `Classify.caltech_background` includes or not (0: none)."""
    left_out: tuple[str, ...] = ()
    """Classes on disk that are not read."""
    digest: str = ""
    """SHA-256 of the manifest, for images that are the same for everybody (`wheel`, `made`); a test computes it."""
    own: OwnImages | None = None
    """The description, for data that a spec describes."""

    @property
    def trainval(self) -> int:
        return self.train + self.val

    @property
    def known(self) -> bool:
        """False for described data before they are listed: all counts are then 0."""
        return self.classes > 0

    @property
    def val_may_be_test(self) -> bool:
        """True for files whose test labels are not public: their official val may serve as test."""
        return self.source == "folder" and self.official_val and not self.test

    @property
    def options(self) -> tuple[SplitOption, ...]:
        background = (BACKGROUND,) if self.background else ()
        return (VAL_FRACTION, SPLIT_SEED, *background, *((OFFICIAL_VAL,) if self.val_may_be_test else ()))

    def base(self, root: Path) -> Path:
        """The folder that files are named below. `root`: the data root."""
        return self.own.base(root) if self.own else root

    def files_root(self, root: Path) -> Path:
        """The folder above that of the data, so that packed copies of described data lie in their own folder."""
        return self.own.base(root).parent if self.own else root

    def missing(self, root: Path) -> str | None:
        return self.own.missing(root) if self.own else super().missing(root)

    def facts(self) -> Mapping[str, Any]:
        val = "official" if self.official_val else "held out; the published cut is counted here"
        return {
            "classes": self.classes, "metric": self.metric, "train": self.train, "val": self.val, "test": self.test,
            "val_is": val, "split": self.split, "several_labels": self.several_labels,
        }  # fmt: skip


@dataclass(frozen=True)
class SplitSpec:
    """Which images of a data set are train, val and test: its name and all that the rule leaves open."""

    dataset: str
    val_fraction: float = 0.2
    split_seed: int = 0
    caltech_background: bool = True
    official_val: Literal["val", "test"] = "val"

    def check(self, card: LabelledCard) -> None:
        """Raises ValueError when the data set does not offer these choices. `card`: as the catalogue has it."""
        if not self.caltech_background and not card.background:
            raise ValueError(f"caltech_background: {self.dataset} has no class BACKGROUND_Google; leave it out")
        if not 0 <= self.split_seed <= MAX_NUMPY_SEED:
            raise ValueError(f"split_seed: {self.split_seed} is not between 0 and {MAX_NUMPY_SEED}")
        if self.official_val == "test" and card.known and not card.val_may_be_test:
            why = "has its own test images" if card.test else "has no official val that may be test"
            own = " and described data with val but no test" if card.own else ""
            raise ValueError(f"official_val: test is for imagenet and inat18{own}; {self.dataset} {why}")
        of = self.of(card)
        if card.known and not of.official_val:
            try:
                self.check_held_out(card.name, of.trainval)
            except DataError as error:
                raise ValueError(str(error)) from error

    def check_held_out(self, name: str, trainval: int) -> None:
        """Raises DataError where no image, or every one, of the official training set would be held out as val."""
        held_out = held_out_images(trainval, self.val_fraction)
        if not 0 < held_out < trainval:
            raise DataError(
                f"{name}: val_fraction {self.val_fraction:g} of {trainval:,} images holds out {held_out:,} as val and "
                f"leaves {trainval - held_out:,} to train on; choose it so that both have some"
            )

    def of(self, card: Card) -> Card:
        """The card with the counts and classes that this split has of it."""
        if not self.caltech_background:
            val = card.val // card.classes
            card = replace(
                card, classes=card.classes - 1, train=card.train - (CALTECH_TRAIN - val), val=card.val - val,
                test=card.test - (card.background - CALTECH_TRAIN), left_out=("BACKGROUND_Google",),
            )  # fmt: skip
        if self.official_val == "test":
            card = replace(card, val=0, test=card.val, official_val=False)
        return card

    def test_rule(self, card: LabelledCard) -> str:
        """The field that settles which images are test, with its value: splits that agree in it take no image for train
        or val that is test to another of them."""
        if card.own:
            return "official_val: test" if self._val_is_test else f"dataset: {card.own.place}"
        if card.draws_test:
            return f"split_seed: {self.split_seed}"
        return f"dataset: {self.dataset}" if card.test else f"official_val: {self.official_val}"

    def name(self, card: LabelledCard) -> str:
        """For example `pets/0.2/0` (part held out, seed), or `dtd/official` where nothing is open.

        For described data it contains a digest of their path instead of what is known only after they were listed.
        """
        if not card.own:
            return self.rule(card)
        place = hashlib.sha256(card.own.place.encode()).hexdigest()[:8]
        open_ = [f"{self.val_fraction:.12g}", str(self.split_seed), *([self.official_val] * self._val_is_test)]
        return "/".join([f"{card.name}-{place}", *open_])

    def rule(self, card: LabelledCard) -> str:
        """The name that enters the manifest's digest: that of described data is the same wherever they lie."""
        parts = [card.own.kind if card.own else self.dataset]
        parts += ["official"] if self.of(card).official_val else [f"{self.val_fraction:.12g}", str(self.split_seed)]
        parts += ["no-background"] if not self.caltech_background else []
        parts += ["official-val-is-test"] if self._val_is_test else []
        return "/".join(parts)

    @property
    def _val_is_test(self) -> bool:
        return self.official_val == "test"


def held_out_images(trainval: int, val_fraction: float) -> int:
    """How many of the official training images become val where there is no official val (halves are rounded up)."""
    return int(trainval * val_fraction + 0.5)
