"""Images per second of loaders at 640 pixels: ours, and the pipeline of torchvision's segmentation references."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sides.turns import in_turns, row
from torchvision import tv_tensors
from torchvision.transforms import v2

from tasks.base import DataContext
from tasks.datasets.augment import MEAN_STD
from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.loaders import SegmentationLoaders
from tasks.segmentation.task import Segmentation

SIDE, BATCH, CLASSES = 640, 4, 150
"""Pixels; images of a batch."""
SIZE = (512, 683)
"""Height and width of a file: ADE20K's most common size."""
SAME = {"most_of_one_class": 1, "colours": 0}
"""Of `task.augment`: what torchvision's references do too."""


def write(root: Path, images: int) -> None:
    """JPEGs of areas of 16 classes each, and their maps."""
    random = np.random.default_rng(0)
    (root / "classes.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    for part, count in (("train", images), ("val", 1)):
        for what in ("images", "annotations"):
            (root / what / part).mkdir(parents=True)
        for number in range(count):
            classes = random.integers(0, CLASSES, 16)[random.integers(0, 16, (8, 10))].astype(np.uint8)
            small = random.integers(0, 255, (16, 21, 3), np.uint8)
            Image.fromarray(classes).resize(SIZE[::-1], Image.Resampling.NEAREST).save(
                root / "annotations" / part / f"{number:05d}.png"
            )
            Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(
                root / "images" / part / f"{number:05d}.jpg"
            )


class Reference:
    """Resize, flip, crop, floats and normalisation, as references/segmentation/presets.py orders them, a batch at a
    time; with `colours` also v2's distortion of them, which the references do not have."""

    def __init__(self, root: Path, colours: bool) -> None:
        self._images = sorted((root / "images" / "train").iterdir())
        self._maps = root / "annotations" / "train"
        fill = {tv_tensors.Mask: IGNORED, "others": 0}
        self._transforms = v2.Compose([
            v2.RandomResize(SIDE // 2, 2 * SIDE),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(SIDE, pad_if_needed=True, fill=fill),  # type: ignore[arg-type]
            *([v2.RandomPhotometricDistort()] if colours else []),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
            v2.Normalize(*MEAN_STD["imagenet"]),
        ])  # fmt: skip

    def batch(self, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        made = [self._one(path) for path in self._images[first : first + BATCH]]
        return torch.stack([image for image, _ in made]), torch.stack([classes for _, classes in made])

    def _one(self, path: Path) -> Any:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(path)))
        classes = v2.functional.pil_to_tensor(Image.open(self._maps / f"{path.stem}.png"))[0]
        return self._transforms(image, tv_tensors.Mask(classes))  # type: ignore[call-arg]


def our_loaders(root: Path, augment: dict[str, Any]) -> SegmentationLoaders:
    dataset = {"kind": "class_maps", "path": str(root)}
    task = Segmentation.model_validate({"kind": "segmentation", "dataset": dataset, "augment": augment})
    loaders = task.loaders(DataContext(root, (SIDE, SIDE), "cpu", 0, BATCH))
    assert isinstance(loaders, SegmentationLoaders)
    return loaders


def compare(images: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Each turn reads all images once; without colours and with them."""
    images -= images % BATCH
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, images)
        for part, augment in (("loader", SAME), ("loader, colours", {})):
            ours, theirs, epochs = our_loaders(root, augment), Reference(root, bool(not augment)), itertools.count()

            def read(ours: SegmentationLoaders = ours, epochs: Iterator[int] = epochs) -> int:
                return sum(len(batch["images"]) for batch in ours.epoch(next(epochs)))

            def read_by_reference(theirs: Reference = theirs) -> int:
                return sum(len(theirs.batch(first)[0]) for first in range(0, images, BATCH))

            sides = {"ours": read, "torchvision's references": read_by_reference}
            seconds, given = in_turns(sides, rounds)
            if len(set(given.values())) > 1:
                raise SystemExit(f"not as many images: {given}")
            made = row(part, f"images/s at {SIDE} pixels", seconds, images, "at least 1.0")
            yield {**made, "images": images, "classes": CLASSES}
