"""Turns persons in photographs into samples: what worker processes cut and draw, and what the device makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Batch
from tasks.datasets.loaders import BatchTransform
from tasks.datasets.samples import Sample
from tasks.datasets.transforms import Normalizing, Size, mean_std, on_device
from tasks.pose import boxes, pixels
from tasks.pose.augment import Drawn, Person, draw
from tasks.pose.boxes import Floats
from tasks.pose.joints import Skeleton
from tasks.pose.options import PoseAugment

WARPED_AT_ONCE = 64
"""Images of one warp on a GPU: cut pieces of photographs differ in size, and are padded to the largest of so many."""
_BOX, _SCORE = 4, 1


def rows(found_boxes: Floats, scores: Floats, joints: Floats) -> Floats:
    """(n, 4 + 1 + 3 k): boxes (n, 4), scores (n,) and joints (n, k, 3), one target of a sample in each row."""
    return np.concatenate([found_boxes, scores[:, None], joints.reshape(len(joints), 3 * joints.shape[1])], 1)


@dataclass(frozen=True)
class Cut:
    """Cuts from a photograph the part that a person's input is made of, and draws the augmentation.

    A sample's image becomes a tensor (h, w, 3): the warp reads that as fast as (3, h, w), which would take a copy. Its
    target becomes a mapping: `matrix` (2, 3) from the cut part to the input, `back` (2, 3) from the input to
    the photograph, `drawn`, `joints` (k, 2) in pixels of the input, `visible` (k,), `score`, and `area` of the padded
    box in square pixels.
    """

    size: Size
    """(height, width) of the input in pixels."""
    padding: float
    skeleton: Skeleton
    augment: PoseAugment

    def __call__(self, sample: Sample) -> Sample:
        row: Floats = sample.target
        box, score, joints = row[:_BOX], row[_BOX], row[_BOX + _SCORE :].reshape(-1, 3)
        person = Person(joints[:, :2], joints[:, 2] > 0, *boxes.centre_and_scale(box, self.size, self.padding))
        # the global generator is seeded for (seed, epoch, sample); all of it is drawn from it, augmented or not
        drawn = draw(self.augment, person, self.skeleton, self.size, np.random.default_rng(np.random.randint(2**62)))
        matrix = drawn.matrix(self.size)
        back = boxes.inverse(matrix)
        rows, columns = boxes.source_window(back, self.size, sample.image.shape[:2])
        places, labelled = drawn.joints(person, self.skeleton, matrix)
        target = {
            "matrix": boxes.in_window(matrix, (rows, columns)), "back": back, "drawn": drawn,
            "joints": places.astype(np.float32), "visible": labelled.astype(np.float32), "score": float(score),
            "area": float(np.prod(person.scale)),
        }  # fmt: skip
        cut = torch.from_numpy(sample.image[rows, columns].copy())
        return replace(sample, image=cut, target=target)


def collate(samples: Sequence[Sample]) -> Batch:
    """The cut parts one after the other in one tensor, which is passed on and moved at once; and numbers by name. What
    the CPU needs of them stays in arrays, which are not moved."""
    targets: list[dict[str, Any]] = [sample.target for sample in samples]
    drawn: list[Drawn] = [target["drawn"] for target in targets]
    return {
        "parts": torch.cat([sample.image.flatten() for sample in samples]),
        "joints": torch.from_numpy(np.stack([target["joints"] for target in targets])),
        "visible": torch.from_numpy(np.stack([target["visible"] for target in targets])),
        "numbers": {
            "sizes": [tuple(sample.image.shape[:2]) for sample in samples],
            "matrices": np.stack([target["matrix"] for target in targets]),
            "back": np.stack([target["back"] for target in targets]),
            "scores": np.array([target["score"] for target in targets]),
            "areas": np.array([target["area"] for target in targets]),
            "colours": np.stack([each.colours for each in drawn]),
            "order": np.stack([each.colour_order for each in drawn]),
            "grids": np.stack([each.grid for each in drawn]),
        },
    }


class Warp(BatchTransform):
    """Warps the cut parts of photographs to inputs, with colour jitter and grid dropout in training, on the device.

    Training batches: `images` (n, 3, *size) normalised, `joints` (n, k, 2) in pixels of the input, `visible` (n, k).
    Evaluation batches: `images`, and of each box `back` (n, 2, 3) from the input to the photograph, `scores` and
    `areas` (n,), and `image_ids`, all in arrays; `joints` and `visible` as above.
    """

    def __init__(self, size: Size, normalize: Normalizing, jitters: bool, image_ids: NDArray[np.int64]) -> None:
        """`jitters`: False where colours never change. `image_ids` (boxes,): the id of each evaluated box's image."""
        self._size, self._normalize, self._jitters, self._image_ids = size, normalize, jitters, image_ids

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        numbers = batch["numbers"]
        colours, order, grids = (torch.from_numpy(numbers[name]) for name in ("colours", "order", "grids"))

        def changed(images: Tensor, piece: slice) -> Tensor:
            if self._jitters:
                images = pixels.jittered(images, colours[piece], order[piece])
            return pixels.with_holes(images, grids[piece])

        images = self._inputs(batch["parts"], numbers, changed)
        return {"images": images, "joints": batch["joints"], "visible": batch["visible"]}

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        numbers = batch["numbers"]
        return {
            "images": self._inputs(batch["parts"], numbers, lambda images, piece: images),
            "joints": batch["joints"], "visible": batch["visible"],
            "image_ids": self._image_ids[indices.numpy()],
            "back": numbers["back"], "scores": numbers["scores"], "areas": numbers["areas"],
        }  # fmt: skip

    def _inputs(self, joined: Tensor, numbers: Batch, changed: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Warped, changed and normalised. On a CPU one by one: an input does not depend in its last bits on what else
        is in the batch, and stays in the processor's cache from one operation to the next."""
        device, sizes, matrices = joined.device, numbers["sizes"], numbers["matrices"]
        mean, std = (on_device(torch.tensor(v).view(1, 3, 1, 1) * 255, device) for v in mean_std(self._normalize))
        pieces = torch.split(joined, [3 * height * width for height, width in sizes])
        parts = [piece.view(*size, 3).permute(2, 0, 1) for piece, size in zip(pieces, sizes, strict=True)]
        at_once = WARPED_AT_ONCE if joined.is_cuda else 1
        out = torch.empty(len(parts), 3, *self._size, device=device)
        for start in range(0, len(parts), at_once):
            piece = slice(start, start + at_once)
            images = boxes.warped_images(boxes.padded(parts[piece]), matrices[piece], self._size)
            torch.sub(changed(images, piece), mean, out=out[piece]).div_(std)
        return out
