"""The list of described data: every image with its label, and the parts that the data themselves name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_IMAGES = 10**10

PART_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What people call parts -> the name that is read."""


class Sizes(BaseModel):
    """Classes and images of described data, as planning found them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    classes: int = Field(ge=1, le=MAX_IMAGES)
    train: int = Field(ge=0, le=MAX_IMAGES)
    """With those that are held out as val, where the data name none."""
    val: int | None = Field(default=None, ge=0, le=MAX_IMAGES)
    """None: the data do not say which images are val."""
    test: int = Field(default=0, ge=0, le=MAX_IMAGES)
    held_out: int | None = Field(default=None, ge=0, le=MAX_IMAGES)
    """Images of `train` that are held out as val, where whole groups are; None: as many as val_fraction says."""


@dataclass(frozen=True)
class Listing:
    """All images of described data, in an order that is the same on every machine."""

    images: list[str]
    """Names below the folder of the data; of images inside files, the file and the row."""
    labels: list[Any]
    """Class numbers: ranks in `names`. Or, of data with several labels per image, rows of 1 and 0."""
    names: Sequence[str]
    """Of the classes."""
    parts: list[str] | None = None
    """train, val or test of each image; None: the data name no parts."""
    groups: list[str] | None = None
    """Images of one group are all in one part."""
