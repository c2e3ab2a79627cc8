"""The options of pose's augmentation, which specs have; without numpy and torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.datasets.augment import MAX_SIDE

Distance = Annotated[int, Field(ge=2, le=MAX_SIDE)]
"""Pixels."""


class PoseAugment(BaseModel):
    """Augmentation of a training sample of pose.

    The paper (appendix E) names flip, half body, scale 0.5 to 1.5, rotation -40 to 40 degrees, grid dropout and colour
    jitter (0.4, 0.4, 0.4, 0.2), without probabilities. Defaults and order are those of PCT's public hmp_base
    configuration, by the paper's co-first author, which also moves the box: box shift, flip, half body, scale,
    rotation, colour jitter, grid dropout. There 40 is the deviation of a normal distribution, cut at 80 degrees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    box_shift: float = Field(default=0.16, ge=0, le=1)
    """The box moves by up to this part of its padded width and height."""
    box_shift_prob: float = Field(default=0.3, ge=0, le=1)
    """Probability that the box is moved."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip; left and right joints change places."""
    half_body: float = Field(default=0.3, ge=0, le=1)
    """Probability that only the upper or the lower half of the body is shown."""
    half_body_above: int | None = Field(default=None, ge=0, le=1000)
    """Half body is for persons with more labelled joints than this. None: 8 of COCO's 17, 6 of CrowdPose's 14."""
    upper_half: float = Field(default=0.6914624612740131, ge=0, le=1)
    """Probability that the upper half is tried before the lower one. The public code compares a normal, not a uniform
    random number with 0.5, hence 0.69."""
    scale: float = Field(default=0.5, ge=0, lt=1)
    """Standard deviation of the factor of the box's size around 1, and the furthest that it may be from 1."""
    rotation: float = Field(default=40, ge=0, le=180)
    """Standard deviation of the rotation, in degrees."""
    rotation_limit: float = Field(default=80, ge=0, le=180)
    """The furthest rotation, in degrees; further ones are cut to it. The public code allows twice the deviation; 40
    keeps to the range that the paper names."""
    rotation_prob: float = Field(default=0.6, ge=0, le=1)
    """Probability of a rotation."""
    brightness: float = Field(default=0.4, ge=0, le=1)
    """The factor is uniform from 1 - this to 1 + this."""
    contrast: float = Field(default=0.4, ge=0, le=1)
    """As brightness."""
    saturation: float = Field(default=0.4, ge=0, le=1)
    """As brightness."""
    hue: float = Field(default=0.2, ge=0, le=0.5)
    """The shift is uniform from -this to this, in turns of the colour circle."""
    jitter_prob: float = Field(default=1.0, ge=0, le=1)
    """Probability of colour jitter: the four changes, in an order drawn anew for each image."""
    grid_dropout: float = Field(default=0.5, ge=0, le=1)
    """Probability that a grid of squares is blackened."""
    grid_unit: tuple[Distance, Distance] = (10, 40)
    """Least and greatest distance of the squares, in pixels of the input."""
    grid_hole: float = Field(default=0.5, gt=0, lt=1)
    """Side of a square as a part of their distance."""

    @field_validator("grid_unit")
    @classmethod
    def _is_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError(f"{list(value)} is no range: needs low <= high")
        return value

    @classmethod
    def none(cls) -> PoseAugment:
        """No randomness."""
        return cls(
            box_shift_prob=0, flip=0, half_body=0, scale=0, rotation_prob=0, jitter_prob=0, grid_dropout=0
        )  # fmt: skip
