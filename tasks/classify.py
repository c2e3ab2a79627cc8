"""Image classification: fine-tuning or from scratch, chosen on val, reported on test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from tasks import datasets
from tasks.base import Batch, DataError, DataPlace, Loaders, Task
from tasks.datasets.augment import Augment

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbone import BackboneSpec


class Classify(Task):
    """One label per image; a linear head on the pooled features of a timm backbone.

    Protocol of the paper's K12 study (appendix): settings are chosen on `val` after training on `train`; the chosen
    one is trained again on `trainval` and evaluated on `test`.
    """

    kind: Literal["classify"] = "classify"
    dataset: str
    """Name of a data set, for example digits, food101, pets."""
    train: Literal["train", "trainval"] = "train"
    evaluate: Literal["val", "test"] = "val"
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Part of the official training set that is held out, stratified, as val, where there is no official val."""
    split_seed: int = Field(default=0, ge=0)
    """Of that draw (and of the 30 images per class of Caltech-101)."""
    counts: Literal["exact", "any"] = "exact"
    """`exact`: stop when the number of images on disk is not the published one. `any`: go on; such a result cannot be
    compared with published ones (of Birdsnap, 39,000 to 47,000 of the 49,829 images can still be had)."""
    head: Literal["trunc_normal", "zero", "timm", "keep"] = "trunc_normal"
    """How the head starts: normal with standard deviation 0.02 cut at 2 (SimMIM's fine-tuning code), zero (Swin's code
    when the number of classes differs), as timm draws it for the model, or kept from the initial weights."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation taken from pixels: ImageNet's, or 0.5 and 0.5."""
    augment: Augment = Augment()

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return datasets.find(value).name

    @model_validator(mode="after")
    def _parts_fit(self) -> Classify:
        if self.train == "trainval" and self.evaluate == "val":
            raise ValueError("train: trainval holds the images of evaluate: val; evaluate on test, or train on train")
        if self.evaluate == "test" and self._card.test == 0:
            raise ValueError(f"{self.dataset} has no test images; evaluate on val")
        return self

    @property
    def _card(self) -> datasets.Card:
        return datasets.CARDS[self.dataset]

    @property
    def _val_images(self) -> int:
        card = self._card
        return card.val if card.official_val else datasets.held_out_images(card.trainval, self.val_fraction)

    @property
    def metric(self) -> str:
        return self._card.metric

    @property
    def mode(self) -> Literal["max", "min"]:
        return "max"

    @property
    def reads_test(self) -> bool:
        return self.evaluate == "test"

    @property
    def train_images(self) -> int:
        return self._card.trainval - (self._val_images if self.train == "train" else 0)

    @property
    def evaluation_images(self) -> int:
        return self._card.test if self.evaluate == "test" else self._val_images

    def missing_data(self, root: Path) -> str | None:
        return self._card.missing(root)

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        from tasks.backbone import build, draw_head, load

        model = build(backbone, self._card.classes)
        if weights is not None:
            load(model, weights, keep_head=self.head == "keep")
        if self.head in ("trunc_normal", "zero"):
            draw_head(model, zero=self.head == "zero")
        return model

    def loaders(self, place: DataPlace) -> Loaders:
        if self.reads_test and not place.may_test:
            raise DataError(
                f"{self.dataset}: test images are opened only by trials that come after every choice; "
                "this one was not planned as such"
            )
        if self._card.source != "folder":
            return self._from_memory(place)
        return self._from_files(place)

    def _from_memory(self, place: DataPlace) -> Loaders:
        from tasks.datasets import wheel
        from tasks.datasets.loading import MemoryLoaders

        part = wheel.load(self._card)
        train = part.train if self.train == "train" else _joined(part.train, part.val)
        evaluation = part.test if self.evaluate == "test" else part.val
        return MemoryLoaders(
            part.images, part.labels, train, evaluation, self._card.classes, place, self.augment, self.normalize
        )

    def _from_files(self, place: DataPlace) -> Loaders:
        from tasks.datasets import folder
        from tasks.datasets.loading import FileLoaders

        card = self._card
        train, evaluation = folder.read_both(
            card, place.root, self.train, self.evaluate, self.val_fraction, self.split_seed, self.counts == "any"
        )
        return FileLoaders(card.name, train, evaluation, place.root, card.classes, place, self.augment, self.normalize)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        from torch.nn import functional

        logits = model(batch["images"])
        if "targets" in batch:
            return {"loss": functional.cross_entropy(logits, batch["targets"])}
        smoothing = self.augment.label_smoothing
        return {"loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=smoothing)}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """`top1` and `mean_per_class` as fractions, and `loss`: cross entropy without smoothing.

        `mean_per_class` is the mean, over the classes that occur in the labels, of the part of their images that is
        classified right. (torchmetrics' macro average also counts, as zero, a class that is predicted but absent.)
        """
        import torch
        from torch.nn import functional

        classes = self._card.classes
        right, there = torch.zeros(classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64)
        loss = 0.0
        for batch in batches:
            logits, labels = model(batch["images"]).float(), batch["labels"]
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            there += labels.bincount(minlength=classes).cpu()
            right += labels[logits.argmax(1) == labels].bincount(minlength=classes).cpu()
        present = there > 0
        return {
            "top1": right.sum().item() / there.sum().item(),
            "mean_per_class": (right[present].double() / there[present]).mean().item(),
            "loss": loss / there.sum().item(),
        }


def _joined(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    return np.sort(np.concatenate([first, second]))
