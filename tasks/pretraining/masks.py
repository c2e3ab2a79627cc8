"""Lays masks over batches of images for pre-training: drawn anew in training, fixed on val."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.base import Batch, DataContext
from tasks.datasets.loaders import BatchTransform
from tasks.datasets.transforms import derived_seed
from tasks.pretraining.masking import Masking

VAL_SEED = 0
"""Seed of the masks on val, which are the same in every epoch and for every seed of a trial, so that losses compare."""


class Masks(BatchTransform):
    """Batches of `images` and `masks` (n, grid, grid), true: hidden; without labels.

    A training mask depends on (seed, epoch, index of the image) alone, a val mask on the index alone: neither on the
    number of workers, nor on the batch, nor on where a run was resumed.
    """

    def __init__(self, masking: Masking, context: DataContext) -> None:
        self._masking, self._context = masking, context

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        return self._masked(batch, [derived_seed(self._context.seed, "mask", epoch, i) for i in indices.tolist()])

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        return self._masked(batch, [derived_seed(VAL_SEED, "val mask", i) for i in indices.tolist()])

    def _masked(self, batch: Batch, seeds: list[int]) -> Batch:
        masks = torch.from_numpy(self._masking.stacked(seeds))
        return {"images": batch["images"], "masks": masks.to(self._context.device, non_blocking=True)}
