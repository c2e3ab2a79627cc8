"""A task over images with annotations: what detection and segmentation have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import field_validator, model_validator

from tasks.datasets.annotated import AnnotatedData, AnnotatedDataset, Evaluated
from tasks.datasets.augment import MEAN_STD
from tasks.datasets.one_set import OneDataSet

if TYPE_CHECKING:
    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec

Data = TypeVar("Data", bound=AnnotatedData)


class AnnotatedTask(OneDataSet[Data]):
    """A task with fields `dataset`, `evaluate`, `normalize` and `head`; see Detection."""

    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = ("evaluate",)
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)
    dataset_type: ClassVar[type[AnnotatedDataset]]
    """Of the named sets that the task takes."""
    data_type: ClassVar[type[AnnotatedData]]
    """What it makes of them."""

    if TYPE_CHECKING:  # fields of the tasks, which say what they mean
        evaluate: Evaluated
        normalize: Literal["imagenet", "half"]
        head: Literal["fresh", "keep"]

    @field_validator("dataset", check_fields=False)
    @classmethod
    def _known(cls, value: Any) -> Any:
        from tasks.datasets import find_dataset

        return find_dataset(value, cls.dataset_type).name if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_the_part(self) -> Self:
        counts = self._data.whole.counts
        if counts and not counts.get(self.evaluate):
            other = "test" if self.evaluate == "val" else "val"
            raise ValueError(f"{self._data.name} has no labelled {self.evaluate} part: set evaluate to {other}")
        return self

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> Data:
        from tasks.datasets import find_dataset

        dataset = fields["dataset"]
        whole = find_dataset(dataset, cls.dataset_type) if isinstance(dataset, str) else dataset
        return cast("Data", cls.data_type.of(whole, fields))

    @property
    def prepares(self) -> Preprocessing:
        from tasks.backbones.preprocessing import Preprocessing

        return Preprocessing(*MEAN_STD[self.normalize], "bilinear", 1.0)

    def check(self, backbone: BackboneSpec) -> None:
        if self.head == "keep" and backbone.init.kind == "none":
            raise ValueError("task.head keep takes the head of an earlier trial, and backbone.init is of kind none")

    @property
    def evaluation_samples(self) -> int:
        return self._data.samples(self.evaluate)
