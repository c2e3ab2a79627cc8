"""The augmentations that a trial may ask for; `transforms` carries them out."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.bounds import Label

Share = Annotated[float, Field(gt=0, le=1)]
"""A part of an area."""
AspectRatio = Annotated[float, Field(gt=0, le=1000)]
MAX_SIDE = 1 << 14
"""Pixels. An image of this side takes 0.8 GB, more than any trial can use."""

Normalize = Literal["imagenet", "half"]
Channels = tuple[float, float, float]
MEAN_STD: dict[Normalize, tuple[Channels, Channels]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of pixels from 0 to 1, for red, green and blue."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {
        "crop_scale": [1, 1], "crop_ratio": [1, 1], "flip": 0, "color_jitter": 0, "rand_augment": "none",
        "auto_augment": "none", "erasing": 0, "mixup": 0, "cutmix": 0, "label_smoothing": 0, "eval_crop": 1,
    },
    "light": {
        "crop_scale": [0.6, 1], "crop_ratio": [0.75, 1.3333333333333333], "flip": 0.5, "color_jitter": 0,
        "rand_augment": "none", "auto_augment": "none", "erasing": 0, "mixup": 0, "cutmix": 0, "label_smoothing": 0,
        "eval_crop": 1,
    },
    "table7": {
        "crop_scale": [0.08, 1], "crop_ratio": [0.75, 1.3333333333333333], "flip": 0.5, "color_jitter": 0.4,
        "rand_augment": "rand-m9-mstd0.5-inc1", "auto_augment": "none", "erasing": 0.25, "mixup": 0.8, "cutmix": 1,
        "label_smoothing": 0.1, "eval_crop": 0.875,
    },
}  # fmt: skip
"""Name -> the fields of `Augment` that it stands for, as they are written in a spec. `none`: `Augment.none`. `light`:
our choice for small images, a gentle crop (the area of specs/k12_grid.yaml's laptop profile) and a flip. `table7`: the
defaults, Table 7 of the paper. A preset is never changed, so that a spec file means the same for ever."""

MADE_FOR = 192
"""Pixels of the smallest side at which the paper trains with Table 7's augmentation (Figure 2a)."""
SMALL_CROP = 0.2
"""Crops down to less of an image's area than this count as strong; Table 7 has 0.08, SimMIM's pre-training 0.67."""

_RAND = re.compile(r"rand(-(mstd\d+(\.\d+)?|mmax\d+|m\d+|n\d+|p\d+(\.\d+)?|inc[01]|t[a-z]+))*")


def is_range(value: tuple[float, float]) -> tuple[float, float]:
    """Returns the value. Raises ValueError unless it is a range of positive numbers."""
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"{list(value)} is no range: needs 0 < low <= high")
    return value


class Augment(BaseModel):
    """Augmentation of training images, and how images to evaluate on are cropped.

    The defaults are Table 7 of the paper and, where it is silent, SimMIM's public fine-tuning configuration
    (swinv2_base, 224, window 14). Table 7 calls 0.8 and 1.0 "Mixup prob" and "Cutmix prob"; in the code behind it these
    are the two alphas, and the probability that a batch is mixed at all is 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: Label = Field(default="", exclude_if=operator.not_)
    """What tables call it where several are compared; a preset in a list has its own. It changes nothing else, and is
    in no key."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Area of the random crop, as a fraction of the image."""
    crop_ratio: tuple[AspectRatio, AspectRatio] = (3 / 4, 4 / 3)
    """Width over height of the random crop."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    color_jitter: float = Field(default=0.4, ge=0, le=100)
    """Strength for brightness, contrast and saturation. timm ignores it beside `rand_augment` and `auto_augment`."""
    rand_augment: str = Field(default="rand-m9-mstd0.5-inc1", max_length=100)
    """timm's notation for RandAugment, or `none`."""
    auto_augment: Literal["none", "original"] = "none"
    """`original`: AutoAugment with the 25 policies that were learnt on ImageNet (Cubuk et al. 2019, Table 9), as timm
    has them, which appendix B.1 of the paper uses. Needs `rand_augment: none`."""
    erasing: float = Field(default=0.25, ge=0, le=1)
    """Probability that a rectangle of an image is erased."""
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"
    """Filling: normal noise per pixel, one random colour, or the mean colour."""
    erasing_count: int = Field(default=1, ge=1, le=100)
    """Rectangles per erased image (of images in files: one to so many, as timm draws); their area is divided by it."""
    mixup: float = Field(default=0.8, ge=0, le=1000)
    """Alpha of mixup (0: off)."""
    cutmix: float = Field(default=1.0, ge=0, le=1000)
    """Alpha of cutmix (0: off)."""
    mixup_prob: float = Field(default=1.0, ge=0, le=1)
    """Probability that a batch is mixed, one way or the other."""
    switch_prob: float = Field(default=0.5, ge=0, le=1)
    """Probability of cutmix where both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """The mixing strength is drawn per batch, per pair or per image."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    stored_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    """Pixels of the shorter side at which images are stored for all trials of a node: less memory and time, slightly
    different results. None: the size on disk, as far as memory allows (see tasks/datasets/images/cache.py)."""
    eval_crop: float = Field(default=224 / 256, gt=0, le=1)
    """Evaluation resizes the shorter side to image_size / eval_crop and takes the centre."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        return is_range(value)

    @field_validator("rand_augment")
    @classmethod
    def _is_rand_augment(cls, value: str) -> str:
        if value != "none" and not _RAND.fullmatch(value):
            raise ValueError(f"{value!r} is neither `none` nor timm's notation, for example rand-m9-mstd0.5-inc1")
        return value

    @model_validator(mode="after")
    def _one_policy(self) -> Augment:
        if self.auto_augment != "none" and self.rand_augment != "none":
            raise ValueError(
                f"auto_augment {self.auto_augment} takes the place of rand_augment: write rand_augment: none"
            )
        return self

    @classmethod
    def none(cls) -> Augment:
        """No randomness, no label smoothing, evaluation on the whole image."""
        return cls(
            crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, color_jitter=0, rand_augment="none", erasing=0,
            mixup=0, cutmix=0, label_smoothing=0, eval_crop=1,
        )  # fmt: skip

    def too_strong_for(self, height: int, width: int) -> str | None:
        """What of this augmentation is made for larger images than these (pixels), in words; None where nothing is.

        Images count as small below half of `MADE_FOR`. Mixing and erasing are shares of an image, whatever its size.
        """
        strong = [f"crops down to {100 * self.crop_scale[0]:g} % of the area"] * (self.crop_scale[0] < SMALL_CROP)
        strong += [f"{self.policy}"] if self.policy else []
        if not strong or min(height, width) >= MADE_FOR / 2:
            return None
        return (
            f"images of {height} x {width} pixels under augmentation made for {MADE_FOR} and more "
            f"({', '.join(strong)}): a model may learn next to nothing; small images: task.augment: light"
        )

    def evaluation_side(self, side: int) -> int:
        """Pixels that evaluation resizes a side of the image to, before it takes the central `side` pixels."""
        return math.floor(side / self.eval_crop)

    @property
    def mixes(self) -> bool:
        """True if images are mixed, so that labels become soft."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mixup_prob > 0

    @property
    def per_image(self) -> bool:
        """True if an augmentation is asked for that exists only as timm's transform of one PIL image."""
        return self.policy is not None or self.color_jitter > 0

    @property
    def policy(self) -> str | None:
        """What timm calls `auto_augment`: the notation of either policy; None without one."""
        return next((each for each in (self.rand_augment, self.auto_augment) if each != "none"), None)
