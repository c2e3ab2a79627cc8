"""Generated pictures of ships on water: images of 48 x 64 pixels, with 0 to 3 boxes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.base import Batch
from tasks.datasets.images.source import Arrays
from tasks.datasets.samples import PickledTargets, Records, Sample

HEIGHT, WIDTH = 48, 64
SITES = {"training": (0, 60), "harbour": (1, 20), "sea": (2, 30)}
"""Split -> (seed, images)."""


def records(site: str) -> Records:
    """The images of a site, with boxes (n, 4) as x0, y0, x1, y1 in pixels, n from 0 to 3."""
    seed, count = SITES[site]
    rng = np.random.default_rng(seed)
    images, boxes = zip(*(_scene(rng) for _ in range(count)), strict=True)
    return Records(Arrays("ships", np.stack(images)), PickledTargets(boxes))


def _scene(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    image = rng.integers(60, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    boxes = []
    for _ in range(rng.integers(0, 4)):
        height, width = rng.integers(6, 12), rng.integers(8, 16)
        top, left = rng.integers(0, HEIGHT - height), rng.integers(0, WIDTH - width)
        image[top : top + height, left : left + width] = rng.integers(180, 250, 3)
        boxes.append((left, top, left + width, top + height))
    return image, np.array(boxes, dtype=np.float32).reshape(-1, 4)


def evaluated(sample: Sample) -> Sample:
    """The image as a float tensor (3, 48, 64), the boxes as a tensor (n, 4)."""
    pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1).float().div(127.5).sub(1)
    return replace(sample, image=pixels, target=torch.from_numpy(sample.target.copy()))


def trained(sample: Sample) -> Sample:
    """The same, mirrored half the time, image and boxes together."""
    sample = evaluated(sample)
    if torch.rand(()) < 0.5:
        return sample
    boxes = sample.target.clone()
    boxes[:, [0, 2]] = WIDTH - sample.target[:, [2, 0]]
    return replace(sample, image=sample.image.flip(-1), target=boxes)


def collated(samples: Sequence[Sample]) -> Batch:
    """Images stacked, boxes as a list, and the position of each image in its site."""
    return {
        "images": torch.stack([sample.image for sample in samples]),
        "boxes": [sample.target for sample in samples],
        "numbers": torch.tensor([sample.index for sample in samples]),
    }
