"""Labelled images that a spec describes: what all kinds have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tasks.bounds import MAX_NUMPY_SEED
from tasks.datasets.contents import Content, contents
from tasks.datasets.described import DatasetDescription
from tasks.datasets.labelled.card import Metric
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.listing import Listing, Sizes
from tasks.datasets.labelled.own_manifest import read_listing, sizes_of
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.images.arrow import ArrowImages

__all__ = ["LabelledDescription", "Sizes"]


class LabelledDescription(DatasetDescription):
    """Images with their classes. A new kind is a subclass with `layout`, `chosen_by` and `listing`."""

    test_fraction: float = Field(default=0, ge=0, lt=1)
    """Share of the images that is cut off as test, where the data name no parts; 0: there is no test."""
    test_seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """Seed of that cut. It is not task.split_seed, so that val can be drawn anew while test stays the same."""

    covered: ClassVar[frozenset[str]] = frozenset({"path", "test_fraction", "test_seed"})

    layout: ClassVar[str]
    """How the data must lie, in a sentence."""

    @property
    @abstractmethod
    def chosen_by(self) -> Metric:
        """The metric that trials are chosen by."""

    @property
    def several_labels(self) -> bool:
        """True if an image may be of several classes, or of none."""
        return False

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """Every image, without opening any. Raises DataError, or OSError and ValueError for what is not `layout`."""

    def opened(self, base: Path, names: Sequence[str]) -> Sequence[Path] | ArrowImages:
        """The images of these names in a listing. `base`: the folder of the data."""
        return [base / name for name in names]

    def contents(self, root: Path, names: Sequence[str], folders: Sequence[Path]) -> list[Content]:
        """Size and digest of every image (see tasks.datasets.contents). Raises DataError."""
        return [each for (each,) in contents(self.name, self.base(root), names, folders)]

    def bytes_now(self, images: Any) -> list[int | None]:
        """Size of each of the images that `opened` gave; None: not there. Quick: no image is read."""
        return [_size(path) for path in images]

    @property
    def place(self) -> str:
        """Tells these data from others before they are read: the path, and the other fields that say what is read."""
        others = self.model_dump_json(include=set(self.covered - {"path"}), exclude_defaults=True)
        return self.path if others == "{}" else f"{self.path} {others}"

    def info(self, root: Path) -> LabelledDataset:
        """The data set for the `data` commands; without counts where the data cannot be listed, which they then say."""
        try:
            return self.dataset(sizes_of(self, read_listing(self, root)))
        except DataError:
            return self.dataset(None)

    def dataset(self, sizes: Sizes | None) -> LabelledDataset:
        """The data as a data set like the named ones. `sizes`: None before the job is planned; counts are then 0."""
        facts: dict[str, Any] = {"classes": 0, "train": 0, "val": 0, "test": 0, "official_val": False}
        if sizes is not None:
            facts = {
                "classes": sizes.classes, "train": sizes.train, "val": sizes.val or 0, "test": sizes.test,
                "official_val": sizes.val is not None,
            }  # fmt: skip
        return LabelledDataset(
            name=self.name, title=self.name, source="folder", licence="", metric=self.chosen_by,
            split="as the data say; what they name no parts for is cut, stratified and seeded, groups whole",
            how_to_get=f"{self.path} must be {self.layout}", several_labels=self.several_labels, own=self, **facts,
        )  # fmt: skip


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
