"""Draws which anchors and proposals of an image enter the losses, from the sample alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler


class SeededSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler with random numbers of its own for every image.

    torchvision's draws from torch's global generator, so that what is sampled of an image depends on the images before
    it in the batch, and so on the number of workers.
    """

    seeds: Sequence[int] = ()
    """One for each image of the batch."""

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of candidates, one tensor an image: above 0 positive, 0 negative, -1 neither. Returns for each image
        the positives and the negatives that were chosen, as flags."""
        if len(self.seeds) != len(matched_idxs):
            raise ValueError(f"{len(self.seeds)} seeds for {len(matched_idxs)} images")
        chosen = [self._of(labels, seed) for labels, seed in zip(matched_idxs, self.seeds, strict=True)]
        return [positive for positive, _ in chosen], [negative for _, negative in chosen]

    def _of(self, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(device=labels.device).manual_seed(seed)
        flags = []
        left = self.batch_size_per_image
        for candidates, most in (
            (torch.where(labels >= 1)[0], int(left * self.positive_fraction)),
            (torch.where(labels == 0)[0], left),
        ):
            count = min(len(candidates), most, left)
            left -= count
            order = torch.randperm(len(candidates), generator=generator, device=labels.device)
            flag = torch.zeros_like(labels, dtype=torch.uint8)
            flag[candidates[order[:count]]] = 1
            flags.append(flag)
        return flags[0], flags[1]
