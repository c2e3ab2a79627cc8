"""Image classification: fine-tuning or from scratch, chosen on val, reported on test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders, Task
from tasks.datasets.augment import Augment
from tasks.datasets.labelled.card import DIGEST, LabelledDataset, SplitSpec, held_out_images
from tasks.datasets.labelled.catalog import CARDS, find
from tasks.errors import DataError
from tasks.metrics import LOSS, Metric, Summary, percent

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.spec import BackboneSpec


TOP1 = percent("top1", "top-1 accuracy", complement="error rate")
MEAN_PER_CLASS = percent("mean_per_class", "mean per-class accuracy", complement="mean per-class error rate")
AUGMENT_TITLES = {
    "augment.label_smoothing": "Label smoothing",
    "augment.crop_scale": "Random crop scale",
    "augment.crop_ratio": "Random resize ratio",
    "augment.flip": "Random horizontal flip",
    "augment.color_jitter": "Color jitter",
    "augment.rand_augment": "Rand augment",
    "augment.erasing": "Random erasing prob.",
    "augment.mixup": "Mixup alpha",
    "augment.cutmix": "Cutmix alpha",
}
"""Rows of Table 7 (appendix E). Its "Mixup prob. 0.8" and "Cutmix prob. 1.0" are the two alphas, as in the public
code."""
MEAN_AP = percent("map11", "11-point mAP")


class Classify(Task):
    """One label per image (VOC 2007: several); a linear head on the pooled features of a timm backbone.

    Protocol of the paper's K12 study (appendix): settings are chosen on `val` after training on `train`; the chosen
    one is trained again on `trainval` and evaluated on `test`.
    """

    split_field: ClassVar[str] = "evaluate"
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)
    setting_titles: ClassVar[Mapping[str, str]] = AUGMENT_TITLES

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
    caltech_background: bool = True
    """Whether BACKGROUND_Google is a class of Caltech-101: with it there are the 102 classes and 9,144 images that
    Kornblith et al. count; torchvision and many others leave it out."""
    official_val: Literal["val", "test"] = "val"
    """What the official validation set of imagenet and inat18 is, whose test labels are not public. `val`: settings may
    be chosen and figures are reported on it, as in the field. `test`: it is opened once, after every choice, and val is
    held out of the training set."""
    head: Literal["trunc_normal", "zero", "timm", "keep"] = "trunc_normal"
    """How the head starts: normal with standard deviation 0.02 cut at 2 (SimMIM's fine-tuning code), zero (Swin's code
    when the number of classes differs), as timm draws it for the model, or kept from the initial weights."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation taken from pixels: ImageNet's, or 0.5 and 0.5."""
    augment: Augment = Augment()
    manifests: dict[str, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a cut -> SHA-256 of its split manifest (see tasks/datasets/manifest.py). `submit` fills it in from the
    data that are there; a trial keeps its own cut's alone, and refuses to run on others. Empty: not compared."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return find(value).name

    @field_validator("manifests")
    @classmethod
    def _own_manifest(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if not value or not {"dataset", *_CUT} <= set(info.data):
            return value  # another field is wrong, and says so
        cut = SplitSpec(info.data["dataset"], **{name: info.data[name] for name in _CUT})
        return cut.own(value, CARDS[cut.dataset])

    @model_validator(mode="after")
    def _fits_the_data(self) -> Classify:
        card = CARDS[self.dataset]
        if not self.caltech_background and not card.background:
            raise ValueError(f"caltech_background: {self.dataset} has no class BACKGROUND_Google; leave it out")
        if self.official_val == "test" and (card.source != "folder" or card.test):
            raise ValueError(f"official_val: test is for imagenet and inat18; {self.dataset} has its own test images")
        if card.several_labels and (self.augment.mixes or self.augment.label_smoothing):
            raise ValueError(
                f"{self.dataset} has several labels per image, for which mixing and smoothing labels is not defined "
                "here: set augment.mixup, augment.cutmix and augment.label_smoothing to 0"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Classify:
        if self.train == "trainval" and self.evaluate == "val":
            raise ValueError("train: trainval holds the images of evaluate: val; evaluate on test, or train on train")
        if self.evaluate == "test" and self._card.test == 0:
            raise ValueError(f"{self.dataset} has no test images; evaluate on val")
        return self

    @property
    def cut(self) -> SplitSpec:
        """Which images are train, val and test."""
        return SplitSpec(self.dataset, **{name: getattr(self, name) for name in _CUT})

    @property
    def _card(self) -> LabelledDataset:
        return self.cut.of(CARDS[self.dataset])

    @property
    def _val_images(self) -> int:
        card = self._card
        return card.val if card.official_val else held_out_images(card.trainval, self.val_fraction)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        if self._card.several_labels:
            return (MEAN_AP, LOSS)
        first, second = (TOP1, MEAN_PER_CLASS) if self._card.metric == "top1" else (MEAN_PER_CLASS, TOP1)
        return (first, second, LOSS)

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"classes": self._card.classes, "head": self.head}

    @property
    def caveats(self) -> tuple[str, ...]:
        if self.counts == "exact":
            return ()
        return ("fewer or more images than published may have been used (task.counts any): not comparable",)

    def batch_multiple(self, workers: int) -> tuple[int, str]:
        if not self.augment.mixes:
            return super().batch_multiple(workers)
        return 2 * workers, "mixup and cutmix pair the images of each worker's share"

    @property
    def reads_test(self) -> bool:
        return self.evaluate == "test"

    @property
    def opens(self) -> dict[str, str]:
        return {self.dataset: self.cut.test_rule(CARDS[self.dataset])}

    @property
    def train_samples(self) -> int:
        return self._card.trainval - (self._val_images if self.train == "train" else 0)

    @property
    def evaluation_samples(self) -> int:
        return self._card.test if self.evaluate == "test" else self._val_images

    def missing_data(self, root: Path) -> str | None:
        return self._card.missing(root)

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        from tasks.backbones.loading import load
        from tasks.backbones.model import build, draw_head

        model = build(backbone, self._card.classes)
        if weights is not None:
            load(model, weights, keep_head=self.head == "keep")
        if self.head in ("trunc_normal", "zero"):
            draw_head(model, zero=self.head == "zero")
        return model

    def loaders(self, context: DataContext) -> Loaders:
        if self.reads_test and not context.may_test:
            raise DataError(
                f"{self.dataset}: test images are opened only by trials that come after every choice; "
                "this one was not planned as such"
            )
        if self._card.source != "folder":
            return self._from_memory(context)
        return self._from_files(context)

    @property
    def _expected(self) -> str:
        return next(iter(self.manifests.values()), "")

    def _from_memory(self, context: DataContext) -> Loaders:
        from tasks.datasets.labelled import bundled_images, partition
        from tasks.datasets.labelled.loaders import MemoryLoaders

        partition.check_memory(self._card, self.cut, self._expected)
        part = bundled_images.load_bundled(self._card)
        train = part.train if self.train == "train" else _joined(part.train, part.val)
        evaluation = part.test if self.evaluate == "test" else part.val
        return MemoryLoaders(
            part.images, part.labels, train, evaluation, self._card.classes, context, self.augment, self.normalize
        )

    def _from_files(self, context: DataContext) -> Loaders:
        from tasks.datasets.labelled import partition
        from tasks.datasets.labelled.loaders import FileLoaders

        card, any_count = CARDS[self.dataset], self.counts == "any"
        train, evaluation = partition.read_both(
            card, context.root, self.cut, self.train, self.evaluate, self._expected, any_count
        )
        card = self._card
        return FileLoaders(
            card.name, train, evaluation, context.root, card.classes, context, self.augment, self.normalize
        )

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        from torch.nn import functional

        logits = model(batch["images"])
        if self._card.several_labels:
            return {"loss": _binary_loss(logits, batch["labels"])}
        if "targets" in batch:
            return {"loss": functional.cross_entropy(logits, batch["targets"])}
        smoothing = self.augment.label_smoothing
        return {"loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=smoothing)}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        from torch.nn import functional

        for batch in batches:
            logits, labels = model(batch["images"]).float(), batch["labels"]
            if self._card.several_labels:
                yield batch["item"], (logits.cpu(), labels.cpu())
                continue
            right = labels[logits.argmax(1) == labels]
            counts = [each.bincount(minlength=self._card.classes).cpu() for each in (right, labels)]
            yield batch["item"], (*counts, functional.cross_entropy(logits, labels, reduction="sum").item())

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """`top1` and `mean_per_class` as fractions, and `loss`: cross entropy without smoothing. For several labels per
        image: `map11` as a fraction, and `loss`: binary cross entropy.

        `mean_per_class` is the mean, over the classes that occur in the labels, of the part of their images that is
        classified right. (torchmetrics' macro average also counts, as zero, a class that is predicted but absent.)
        """
        if self._card.several_labels:
            return _several([part for _, part in parts])
        right, there = (sum(part[i] for _, part in parts) for i in (0, 1))
        loss, present = sum(part[2] for _, part in parts), there > 0
        return Summary(
            {
                "top1": right.sum().item() / there.sum().item(),
                "mean_per_class": (right[present].double() / there[present]).mean().item(),
                "loss": loss / there.sum().item(),
            }
        )


_CUT = ("val_fraction", "split_seed", "caltech_background", "official_val")
"""Fields that say which images are in which part."""


def _binary_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy over images and classes, (n, classes) both; labels of -1 do not count."""
    from torch.nn import functional

    counted = labels >= 0
    return functional.binary_cross_entropy_with_logits(logits[counted], labels[counted].to(logits.dtype))


def _several(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Summary:
    import torch

    from tasks.classification.voc_precision import mean_average_precision

    logits, labels = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
    precision = mean_average_precision(logits.numpy(), labels.numpy())
    return Summary({"map11": precision, "loss": _binary_loss(logits, labels).item()})


def _joined(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    return np.sort(np.concatenate([first, second]))
