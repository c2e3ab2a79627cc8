"""The only place that lays masks over batches of images for pre-training: drawn anew in training, fixed on val."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import EVERYTHING, Batch, EvaluationShare
from tasks.datasets.labelled.loaders import FileLoaders, ImageLoaders, MemoryLoaders
from tasks.datasets.transforms import derived_seed
from tasks.pretraining.masking import Masking

VAL_SEED = 0
"""Of the masks on val, which are the same in every epoch and for every seed of a trial, so that losses compare."""


class _MaskedLoaders(ImageLoaders):
    """Batches of `images` and `masks` (n, grid, grid), true: hidden.

    A training mask depends on (seed, epoch, index of the image) alone, a val mask on the index alone: neither on the
    number of workers, nor on the batch, nor on where a run was resumed.
    """

    masking: Masking

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for images, indices in self._images(epoch, first_step):
            seeds = [derived_seed(self._place.seed, "mask", epoch, index) for index in indices.tolist()]
            yield {"images": images, "masks": self._masks(seeds)}

    def _masked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Evaluation batches with the mask of each image; `item` is the position of the first."""
        for batch in batches:
            images, first = batch["images"], int(batch["item"])
            seeds = [derived_seed(VAL_SEED, "val mask", i) for i in range(first, first + len(images))]
            yield {"images": images, "masks": self._masks(seeds), "item": batch["item"]}

    def _masks(self, seeds: list[int]) -> Tensor:
        masks = np.stack([self.masking.of(seed) for seed in seeds])
        return torch.from_numpy(masks).to(self._place.device, non_blocking=True)


class MaskedMemory(_MaskedLoaders, MemoryLoaders):
    """Images in memory, with masks."""

    def __init__(self, masking: Masking, *arguments: Any) -> None:
        """`arguments`: those of MemoryLoaders."""
        super().__init__(*arguments)
        self.masking = masking

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return self._masked(super().evaluation(share))


class MaskedFiles(_MaskedLoaders, FileLoaders):
    """Images decoded by worker processes, with masks."""

    def __init__(self, masking: Masking, *arguments: Any) -> None:
        """`arguments`: those of FileLoaders."""
        super().__init__(*arguments)
        self.masking = masking

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return self._masked(super().evaluation(share))
