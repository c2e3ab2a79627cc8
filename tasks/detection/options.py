"""The options of detection, which specs have; without numpy and torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.datasets.augment import is_range

Channels = Annotated[int, Field(ge=1, le=1 << 14)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
MOST = 100
"""Detections of one image that published code hands to COCO's evaluation, which itself takes as many of each class."""


class DetectionAugment(BaseModel):
    """Large-scale jitter (appendix E of the paper; Ghiasi et al. 2021), in the order scale, crop, flip.

    The image is first made so large that its longer side is that of the model's input, then scaled by a random factor.
    A part of the size of the input is cut at random from a larger one; a smaller one is padded on the right and below.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    scale: tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]] = (0.1, 2.0)
    """Range of the factor, uniform."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    least_side: float = Field(default=1.0, ge=0.01, le=100)
    """Objects of which the crop shows less, in pixels of the input along a side, are not trained on. The public code
    (mmdetection) has 0.01, which keeps objects whose mask has no pixel any more."""

    @field_validator("scale")
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        return is_range(value)

    @classmethod
    def none(cls) -> DetectionAugment:
        """No randomness."""
        return cls(scale=(1, 1), flip=0)


class DetectorOptions(BaseModel):
    """Mask R-CNN's sizes and thresholds (He et al. 2017, with the pyramid of Lin et al. 2017).

    Defaults are those of mmdetection's mask_rcnn_r50_fpn, which the public detection code for Swin builds on and the
    paper most likely too; it names none of them. Where torchvision's differ, the field says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    channels: Channels = 256
    """Of every map of the pyramid."""
    level_norm: bool = True
    """A LayerNorm over the channels of every map that the pyramid takes from the backbone, as in the public code for
    Swin. False suits convolutional networks (ResNet)."""
    anchor_scale: float = Field(default=8, ge=0.5, le=128)
    """Side of the square anchors over the stride of their map: 8 gives 32 pixels on that of stride 4."""
    anchor_ratios: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=1, max_length=20)] = (
        0.5, 1.0, 2.0,
    )  # fmt: skip
    """Height over width."""
    anchors: Count = 256
    """Sampled of an image for the loss of the region proposals, half of them positive where there are so many."""
    proposals_per_level: Count = 2000
    """The best of each map before suppression, in training; half as many in evaluation."""
    proposals: Count = 1000
    """That remain of an image after suppression, in training and in evaluation. (torchvision: 2000 in training.)"""
    regions: Count = 512
    """Sampled of the proposals and objects of an image for the losses of the heads, a quarter positive."""
    box_channels: Channels = 1024
    """Of the two layers that classes and boxes are predicted from."""
    mask_channels: Channels = 256
    """Of the four convolutions, and of the deconvolution, that masks are predicted from."""
    score: float = Field(default=0.05, ge=0, lt=1)
    """Detections with lower scores are dropped."""
    suppression: Share = 0.5
    """IoU from which on of two boxes of a class the one with the lower score is dropped."""
    detections: Annotated[int, Field(ge=1, le=1000)] = MOST
    """Of an image at most, over all classes. Published figures are of 100; more can only raise them, since COCO's
    evaluation takes 100 of an image of each class."""
