"""The only place that turns data sets into batches: order, shares of ranks, resuming, mixing; from memory or files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tasks.base import DataContext, EvaluationShare, Loaders
from tasks.datasets.images.reader import Item, Reader
from tasks.datasets.transforms import derived_seed
from tasks.errors import DataError

EVALUATION_BATCH = 256
"""Images of one forward pass in evaluation; not a part of the spec, so figures do not depend on the training batch."""


def share(batch: int, rank: int, world: int) -> Tensor:
    """Positions within the global batch that `rank` trains on: batch / world of them.

    A block and its mirror image, so that mixing (each image with its mirror) pairs the same images whatever the
    number of workers (their strengths are the same too in mixup_mode batch, not in pair and elem, where each rank draws
    its own); a plain block where the share is odd (then nothing is mixed).
    """
    size = batch // world
    if size % 2:
        return torch.arange(rank * size, (rank + 1) * size)
    half = size // 2
    front = torch.arange(rank * half, (rank + 1) * half)
    return torch.cat([front, batch - 1 - front.flip(0)])


def evaluation_parts(samples: int, share: EvaluationShare) -> list[tuple[str, slice]]:
    """(item, positions) of the evaluation batches in this share; an item is named by its first position."""
    starts = range(0, samples, EVALUATION_BATCH)
    named = [(f"{start:012d}", slice(start, min(start + EVALUATION_BATCH, samples))) for start in starts]
    return [part for position, part in enumerate(named) if share.wants(position, part[0])]


class OrderedLoaders(Loaders):
    """Which images make which batch: an order per (seed, epoch), the rank's share of it, read from any step on."""

    def __init__(self, train_samples: int, place: DataContext) -> None:
        """Raises DataError when the batch does not fit the data or the number of workers."""
        self.train_samples = train_samples
        self.steps_per_epoch = train_samples // place.batch
        self.unreadable: list[str] = []
        self._place = place
        if self.steps_per_epoch == 0:
            raise DataError(
                f"optim.batch {place.batch} is larger than the training set of {train_samples} images: lower it"
            )
        if place.batch % place.world:
            raise DataError(f"optim.batch {place.batch} does not divide by {place.world} workers: choose a multiple")
        self._share = share(place.batch, place.rank, place.world)
        self._ahead: tuple[int, Iterator[tuple[Any, Tensor]]] | None = None

    def rows(self, epoch: int) -> Tensor:
        """(steps, share): indices of the images of each of this rank's batches."""
        return _rows(self.train_samples, self._share, self._place, epoch)

    def read(self, reader: Reader, epoch: int, first_step: int) -> Iterator[tuple[Any, Tensor]]:
        """What the reader gives for each of this rank's batches, and the indices of the images really shown.

        Worker processes live on from one epoch to the next, and read its first images while this one is evaluated.
        Raises DataError when more images had to be replaced than `max_unreadable` of the rank's share of the epoch
        (since `first_step`).
        """
        wanted = self.rows(epoch)[first_step:]
        if not len(wanted):
            return
        at, batches = self._ahead or (None, iter(()))
        self._ahead = None  # two epochs at once: the second begins anew
        if at != epoch or first_step:
            batches = reader.read(_items(self.train_samples, self._share, self._place, epoch, first_step))
        replaced, images = 0, self.steps_per_epoch * len(self._share)
        for row in wanted:
            values, indices = next(batches)
            replaced += int((indices != row).sum())
            self.unreadable += [failure for failure in reader.failures if failure not in self.unreadable]
            if replaced > self._place.max_unreadable * images:
                raise DataError(
                    f"{replaced} of {images} images of epoch {epoch + 1} cannot be read, more than "
                    f"runtime.max_unreadable {self._place.max_unreadable:g} allows; {_some(self.unreadable)}"
                )
            yield values, indices
        self._ahead = epoch + 1, batches


def _rows(images: int, share: Tensor, place: DataContext, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(place.seed, "order", epoch))
    order = torch.randperm(images, generator=generator)
    return order[: images // place.batch * place.batch].view(-1, place.batch)[:, share]


def _items(images: int, share: Tensor, place: DataContext, epoch: int, first_step: int) -> Iterator[list[Item]]:
    """Batches of this and all later epochs. (A function: a method would keep its loaders, and so the worker processes
    that read for them, alive in a circle.)"""
    for later in itertools.count(epoch):
        for row in _rows(images, share, place, later)[first_step if later == epoch else 0 :].tolist():
            yield [(later, index) for index in row]


def _some(failures: list[str]) -> str:
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return "; ".join(failures[:5]) + more
