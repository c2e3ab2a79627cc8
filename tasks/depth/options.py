"""The options of depth's augmentation, which specs have; without numpy and torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


class DepthAugment(BaseModel):
    """Augmentation of training images.

    Source of the defaults: appendix E of the paper; for what it leaves open (contrast, all probabilities, the width of
    CutDepth) its depth code, SwinTransformer/MIM-Depth-Estimation, that is the defaults of albumentations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    flip: Probability = 0.5
    """Probability of a left-right flip."""
    brightness_contrast: Probability = 0.5
    """Probability that brightness and contrast are changed."""
    brightness: float = Field(default=0.2, ge=0, le=1)
    """At most so much, as a share of white, is added or taken away."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """Pixels are multiplied by 1 +- at most this. The paper does not name it; its code has it."""
    gamma: Probability = 0.5
    """Probability of a gamma correction."""
    gamma_range: float = Field(default=0.2, ge=0, lt=1)
    """The exponent is 1 +- at most this."""
    hue_saturation_value: Probability = 0.5
    """Probability that hue, saturation and value are shifted."""
    hue: float = Field(default=20, ge=0, le=90)
    """At most so many units of 2 degrees (OpenCV's, which are albumentations')."""
    saturation: float = Field(default=30, ge=0, le=255)
    """At most so much of 255."""
    value: float = Field(default=20, ge=0, le=255)
    """At most so much of 255."""
    cut_depth: Probability = 0.25
    """Probability of vertical CutDepth: a strip of the image, over its whole height, is replaced by the depth map. (The
    depth code does it to every fourth sample of a loader process.)"""
    cut_depth_width: Probability = 0.75
    """Width of the widest strip, as a share of the image to the right of the strip's left edge."""
    cut_depth_values: Literal["scaled", "uint8_wrap"] = "scaled"
    """What the strip shows. `scaled`: black at 0 m to white at the longest depth. `uint8_wrap`: as in the depth code,
    which copies the numbers of the depth file (millimetres for NYUv2) into 8 bits, where they begin anew at every 256.
    """
