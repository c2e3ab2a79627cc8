"""Masked image modelling, SimMIM: hide part of an image, predict its pixels; chosen by the error on held-out images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import MAX_NUMPY_SEED, Label
from tasks.datasets import find_dataset
from tasks.datasets.augment import MAX_SIDE, MEAN_STD, AspectRatio, Augment, Share, is_range
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.described import LabelledDescription, Sizes
from tasks.datasets.labelled.kinds import LabelledField
from tasks.datasets.labelled.task_data import SPLIT_FIELDS, LabelledData
from tasks.datasets.one_set import OneDataSet
from tasks.datasets.photo_tiles import PhotoTiles
from tasks.metrics import LOSS, Metric, Summary
from tasks.pretraining.masking import Masking, check_patch, expected_distance

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec
    from tasks.pretraining.simmim import SimMIM

SHOWN = 8
"""Images in a picture, at even distances through the val set."""


LOSS_OF_MEAN = Metric("loss_of_mean", "loss of the visible mean", "lower")
AVG_DIST = Metric("avg_dist", "AvgDist", "higher", "px", digits=2)


class Crop(BaseModel):
    """Augmentation of training images: a random crop, and a flip. Defaults: SimMIM's (data_simmim_pt.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    crop_scale: tuple[Share, Share] = (0.67, 1.0)
    """Area of the random crop, as a fraction of the image."""
    crop_ratio: tuple[AspectRatio, AspectRatio] = (3 / 4, 4 / 3)
    """Width over height of the random crop."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    eval_crop: float = Field(default=1.0, gt=0, le=1)
    """Held-out images: the shorter side becomes image_size / eval_crop, and the centre is taken. The reference
    evaluates no held-out images; 1 (all of the shorter side) is our choice."""
    stored_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    """Pixels of the shorter side at which images are stored for all trials of a node: less memory and time, slightly
    different results. None: the size on disk."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        return is_range(value)

    def whole(self) -> Augment:
        """The same augmentation in the form that loaders take."""
        return Augment.none().model_copy(update=self.model_dump())


class Pretrain(OneDataSet[LabelledData | PhotoTiles]):
    """SimMIM on any backbone that it is written for: timm's SwinV2, Swin, BEiT, plain ViT, and RepLKNet.

    Labels are not read, and neither are test images. Weights end as `encoder.` and the backbone's own names,
    `mask_token` and `decoder.`; a later stage takes the backbone out of them.
    """

    changeable: ClassVar[tuple[str, ...]] = ("augment.",)
    part_fields: ClassVar[tuple[str, ...]] = SPLIT_FIELDS

    kind: Literal["pretrain"] = "pretrain"
    dataset: LabelledField
    """Name or description of a data set that `classify` takes too (its labels are ignored), or photo-tiles: 612 tiles
    of 14 photographs inside packages, 89 of 2 others held out."""
    val_fraction: float = Field(default=0.02, gt=0, lt=1)
    """Part of the training images that is held out where there is no official val."""
    split_seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """Seed of that draw."""
    official_val: Literal["val", "test"] = "val"
    """Use of an official val. `val`: the loss is measured on it, and all training images are trained on, as in the
    reference. `test`: it is not opened, and part of the training images is held out."""
    counts: Literal["exact", "any"] = "exact"
    """`exact`: stop when the number of images on disk is not the published one. `any`: accept any number."""
    mask_patch: int = Field(default=32, ge=1, le=MAX_SIDE)
    """Side of the squares that are hidden or visible as a whole, in pixels of the input."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the squares that is hidden, rounded up to a whole square."""
    norm_target: Literal["auto", "on", "off"] = "auto"
    """Normalise the target of each pixel by the mean and deviation of its neighbourhood. `auto`: for SwinV2 alone, as
    in the public configurations and the released weights; the paper is silent. The fact `norm_target` records the
    choice. Losses with and without it cannot be compared."""
    norm_window: int = Field(default=47, ge=3, le=MAX_SIDE)
    """Side of that neighbourhood in pixels, odd."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5. The target is in these units."""
    augment: Crop = Crop()
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, Sizes] = Field(default={})
    """Name of a split -> classes and images of described data, filled in by `submit`; not part of the key."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | LabelledDescription) -> str | LabelledDescription:
        return find_dataset(value, LabelledDataset, PhotoTiles).name if isinstance(value, str) else value

    @field_validator("norm_window")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"norm_window {value} has no middle pixel: use {value - 1} or {value + 1}")
        return value

    @model_validator(mode="after")
    def _fits_the_data(self) -> Pretrain:
        data = self._data
        if isinstance(data, LabelledData):
            data.split.check(data.whole)
        elif self.official_val == "test":
            raise ValueError(f"official_val: test is for imagenet and inat18; {self.dataset} has its own parts")
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (LOSS, LOSS_OF_MEAN, AVG_DIST)

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"mask_patch": self.mask_patch}

    @property
    def prepares(self) -> Preprocessing:
        from tasks.backbones.preprocessing import Preprocessing

        return Preprocessing(*MEAN_STD[self.normalize], self.augment.interpolation, self.augment.eval_crop)

    @property
    def makes_weights(self) -> bool:
        return True

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> LabelledData | PhotoTiles:
        dataset = _resolved(fields["dataset"])
        return dataset if isinstance(dataset, PhotoTiles) else LabelledData.of(dataset, fields)

    @property
    def evaluation_samples(self) -> int:
        return self._data.samples("val")

    @property
    def train_samples(self) -> int:
        return self._data.samples("train")

    def masking(self, image_size: int) -> Masking:
        """Raises ValueError when the mask patch does not fit the image."""
        return Masking(image_size, self.mask_patch, self.mask_ratio)

    def check(self, backbone: BackboneSpec) -> None:
        """Checks the mask patch against the side of the model's patch as its arguments or its name in timm state it;
        `build` checks the model itself."""
        self.masking(backbone.image_size)
        named = re.search(r"_patch(\d+)_", backbone.model)
        patch = backbone.args.get("patch_size", int(named[1]) if named else None)
        if isinstance(patch, int):
            check_patch(self.mask_patch, patch)

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """`weights` are loaded into the backbone; mask token and decoder are always drawn."""
        from tasks.backbones.loading import load
        from tasks.backbones.model import build
        from tasks.pretraining.simmim import SimMIM

        encoder = build(backbone, 0)
        if weights is not None:
            load(encoder, weights)
        return SimMIM(encoder, backbone.image_size, self.mask_patch)

    def loaders(self, context: DataContext) -> Loaders:
        from tasks.datasets.labelled.loaders import ImageInput, labelled_loaders
        from tasks.pretraining.masks import Masks

        masks = Masks(self.masking(context.image_size), context)
        if isinstance(self._data, PhotoTiles):
            self._data.check_planned(self.manifests)
        images = self._data.read(context.root, "train", "val")
        return labelled_loaders(images, ImageInput(self.augment.whole(), self.normalize), context, masks)

    def _normalises(self, model: SimMIM) -> bool:
        return model.family.title == "SwinV2" if self.norm_target == "auto" else self.norm_target == "on"

    def _target(self, model: SimMIM, images: torch.Tensor) -> torch.Tensor:
        from tasks.pretraining.simmim import normalised_target

        return normalised_target(images, self.norm_window) if self._normalises(model) else images

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss`: l1 on hidden pixels, SimMIM's."""
        from tasks.pretraining.simmim import masked_l1

        images, masks = batch["images"], batch["masks"]
        return {"loss": masked_l1(self._target(unwrap(model), images), model(images, masks), masks)}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each batch the sums of the loss and of `loss_of_mean`, the number of hidden pixels, and the image
        size."""
        from tasks.pretraining.simmim import hidden_l1, upsample_mask

        net = unwrap(model)
        for batch in batches:
            images, masks = batch["images"], batch["masks"]
            target = self._target(net, images)
            error, count = hidden_l1(target, model(images, masks), masks)
            seen = 1 - upsample_mask(masks, self.mask_patch)[:, None].to(target.dtype)
            means = (target * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
            of_mean = hidden_l1(target, means.expand_as(target), masks)[0]
            yield batch["item"], (error.item(), of_mean.item(), count.item(), net.image_size)

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """`loss`: SimMIM's, over all hidden pixels of the held-out images. `loss_of_mean`: the loss of predicting, for
        all hidden pixels of an image, the mean of its visible pixels per channel. `avg_dist`: of the mask setting (see
        `facts`)."""
        from tasks.pretraining.simmim import EPS_COUNT

        total, of_mean, hidden = (sum(part[i] for _, part in parts) for i in range(3))
        channels, image_size = 3, parts[0][1][3]
        return Summary(
            {
                "loss": total / (hidden + EPS_COUNT) / channels,
                "loss_of_mean": of_mean / (hidden + EPS_COUNT) / channels,
                "avg_dist": expected_distance(self.masking(image_size)),
            }
        )

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`reconstructions`: held-out images, their visible part, and the model's prediction of the hidden part."""
        from tasks.pretraining.pictures import sheet

        net = unwrap(model)
        window = self.norm_window if self._normalises(net) else None
        return {"reconstructions": sheet(net, loaders, SHOWN, self.normalize, window)}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """`norm_target`: true if it was on; `mask`: for example 22 of 36; `avg_dist`: expected distance in pixels from
        a hidden pixel to the nearest visible one (section 3.1 of the paper)."""
        net = unwrap(model)
        masking = self.masking(net.image_size)
        return {
            "norm_target": self._normalises(net),
            "mask": f"{masking.count} of {masking.patches}",
            "avg_dist": expected_distance(masking),
        }


def _resolved(dataset: str | LabelledDescription) -> LabelledDataset | LabelledDescription | PhotoTiles:
    """The known data set of this name, or the description itself. Raises ValueError for an unknown name."""
    if not isinstance(dataset, str):
        return dataset
    info = find_dataset(dataset, LabelledDataset, PhotoTiles)
    assert isinstance(info, LabelledDataset | PhotoTiles)
    return info


def unwrap(model: nn.Module) -> SimMIM:
    """The model itself, out of DistributedDataParallel."""
    from typing import cast

    return cast("SimMIM", getattr(model, "module", model))
