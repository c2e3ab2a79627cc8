"""Labelled images that a spec describes: what all kinds have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.datasets.described import DatasetDescription
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.parts import Part, Read


MAX_IMAGES = 10**10


class Sizes(BaseModel):
    """Classes and images of described data, as planning found them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    classes: int = Field(ge=1, le=MAX_IMAGES)
    train: int = Field(ge=0, le=MAX_IMAGES)
    """With those that are held out as val, where the data name none."""
    val: int | None = Field(default=None, ge=0, le=MAX_IMAGES)
    """None: the data do not say which images are val."""
    test: int = Field(default=0, ge=0, le=MAX_IMAGES)


class LabelledDescription(DatasetDescription):
    """Images with one class each. A new kind is a subclass with `layout`, `parts` and `listed`."""

    metric: Literal["top1", "mean_per_class"] = "top1"
    """Trials are chosen by the share of images that is classified correctly, or by its mean over classes."""

    layout: ClassVar[str]
    """How the data must lie, in a sentence."""

    @abstractmethod
    def parts(self, base: Path) -> tuple[Part, ...]:
        """The parts that the data name: trainval or (train, val), and test where there is one."""

    @abstractmethod
    def listed(self, base: Path, part: Part) -> Read:
        """Files and class numbers of a part, always in the same order. Raises OSError or ValueError."""

    def sizes(self, root: Path) -> Sizes:
        """Counts of the data as they are now. Raises DataError when they are missing or cannot be listed."""
        from tasks.datasets.labelled.readers import classes_of, listed

        problem = self.missing(root)
        if problem:
            raise DataError(problem)
        labels = {part: listed(self.dataset(None), root, part, 0)[1] for part in self.parts(self.base(root))}
        learnt = labels["train"] if "train" in labels else labels["trainval"]
        return Sizes(
            classes=max(classes_of(learnt)) + 1,
            train=len(learnt),
            val=len(labels["val"]) if "val" in labels else None,
            test=len(labels.get("test", ())),
        )

    def dataset(self, sizes: Sizes | None) -> LabelledDataset:
        """The data as a data set like the named ones. `sizes`: None before the job is planned; counts are then 0."""
        return LabelledDataset(
            name=self.name,
            title=self.name,
            source="folder",
            split="as the data say; val, where they name none, held out of train, stratified and seeded",
            how_to_get=f"{self.path} must be {self.layout}",
            licence="",
            classes=sizes.classes if sizes else 0,
            metric=self.metric,
            train=sizes.train if sizes else 0,
            val=(sizes.val or 0) if sizes else 0,
            test=sizes.test if sizes else 0,
            official_val=sizes is not None and sizes.val is not None,
            own=self,
        )
