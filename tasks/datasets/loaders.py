"""Loaders over samples: the order of an epoch, the share of each rank, resuming at any step, unreadable images."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.datasets.images.cache import cached
from tasks.datasets.reader import Item, Reader
from tasks.datasets.samples import Collate, Samples, Transform, stack
from tasks.datasets.transforms import derived_seed
from tasks.errors import DataError

EVALUATION_BATCH = 256
"""Samples of one forward pass in evaluation; not a part of the spec, so figures do not depend on the training batch."""


class BatchTransform:
    """A change of whole batches on the device, after they were collated: mixing, masks, warps. This one makes none."""

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        """`indices` (n,): the samples of the batch, on the CPU."""
        return batch

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        return batch


@dataclass(frozen=True)
class Pipeline:
    """How samples become batches."""

    train: Transform
    evaluate: Transform
    collate: Collate = stack
    batches: BatchTransform = field(default_factory=BatchTransform)
    evaluation_batch: int = EVALUATION_BATCH
    """Samples; lower it for inputs much larger than those of classification."""


def share(batch: int, rank: int, world: int) -> Tensor:
    """Positions within the global batch that `rank` trains on: batch / world of them.

    A block and its mirror image, so that mixing (each image with its mirror) pairs the same images whatever the
    number of workers; a plain block where the share is odd (then nothing is mixed).
    """
    size = batch // world
    if size % 2:
        return torch.arange(rank * size, (rank + 1) * size)
    half = size // 2
    front = torch.arange(rank * half, (rank + 1) * half)
    return torch.cat([front, batch - 1 - front.flip(0)])


def evaluation_parts(
    samples: int, share: EvaluationShare, size: int = EVALUATION_BATCH, prefix: str = ""
) -> list[tuple[str, slice]]:
    """(item, positions) of the evaluation batches in this share; an item is named by its first position, after
    `prefix`."""
    starts = range(0, samples, size)
    named = [(f"{prefix}{start:012d}", slice(start, min(start + size, samples))) for start in starts]
    return [part for position, part in enumerate(named) if share.wants(position, part[0])]


REFERENCE = "train "
"""Begins the items of training images that are measured; they sort after those to evaluate on."""


class OrderedLoaders(Loaders):
    """Decides which samples make which batch: an order for each (seed, epoch), and the rank's share of it."""

    measures_training: bool = False
    """True: `evaluation` also yields the training images, prepared as those to evaluate on, in batches with
    `reference`."""

    def __init__(self, train_samples: int, context: DataContext) -> None:
        """Raises DataError when the batch does not fit the data or the number of workers."""
        self.train_samples = train_samples
        self.steps_per_epoch = train_samples // context.batch
        self.unreadable: list[str] = []
        self._context = context
        if self.steps_per_epoch == 0:
            raise DataError(
                f"optim.batch {context.batch} is larger than the training set of {train_samples} images: lower it"
            )
        if context.batch % context.world:
            raise DataError(
                f"optim.batch {context.batch} does not divide by {context.world} workers: choose a multiple"
            )
        self.positions: Tensor = share(context.batch, context.rank, context.world)

    def rows(self, epoch: int) -> Tensor:
        """(steps, share): indices of the samples of each of this rank's batches."""
        return _rows(self.train_samples, self.positions, self._context, epoch)


class SampleLoaders(OrderedLoaders):
    """Samples of any kind: images from files or memory, decoded and transformed by worker processes."""

    def __init__(self, train: Samples, evaluation: Samples, pipeline: Pipeline, context: DataContext) -> None:
        """Raises DataError as OrderedLoaders does, and for an impossible image cache."""
        super().__init__(len(train), context)
        self._pipeline, self._evaluation_samples = pipeline, len(evaluation)
        content = hashlib.sha256()
        for part in (train, evaluation):
            for chunk in part.content():
                content.update(chunk)
        self.digest = content.hexdigest()
        train_images, train_cache = cached(train.images, context.loader_workers)
        evaluation_images, evaluation_cache = cached(evaluation.images, context.loader_workers)
        self.image_cache = f"training {train_cache}; evaluation {evaluation_cache}"
        skips = context.max_unreadable > 0
        self._training = Reader(train.over(train_images), pipeline.train, pipeline.collate, context, skips)
        # figures are over all samples, or there are none
        self._measuring, self._reference = (
            Reader(samples.over(images), pipeline.evaluate, pipeline.collate, context)
            for samples, images in ((evaluation, evaluation_images), (train, train_images))
        )
        self._ahead: tuple[int, Iterator[tuple[Batch, Tensor]]] | None = None

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step, (batch, indices) in enumerate(self._read(epoch, first_step), first_step):
            yield self._pipeline.batches.train(batch, epoch, step, indices)

    def _read(self, epoch: int, first_step: int) -> Iterator[tuple[Batch, Tensor]]:
        """Each of this rank's batches with the indices of the samples that it really holds.

        Worker processes live from one epoch to the next, and read its first samples while this one is evaluated.
        Raises DataError when more samples had to be replaced than `max_unreadable` of the rank's share of the epoch
        (since `first_step`).
        """
        wanted = self.rows(epoch)[first_step:]
        if not len(wanted):
            return
        at, batches = self._ahead or (None, iter(()))
        self._ahead = None  # two epochs at once: the second begins anew
        if at != epoch or first_step:
            items = _items(self.train_samples, self.positions, self._context, epoch, first_step)
            batches = self._training.read(items)
        replaced, samples = 0, self.steps_per_epoch * len(self.positions)
        for row in wanted:
            batch, indices = next(batches)
            replaced += int((indices != row).sum())
            self.unreadable += [failure for failure in self._training.failures if failure not in self.unreadable]
            if replaced > self._context.max_unreadable * samples:
                raise DataError(
                    f"{replaced} of {samples} images of epoch {epoch + 1} cannot be read, more than "
                    f"runtime.max_unreadable {self._context.max_unreadable:g} allows; {_first_few(self.unreadable)}"
                )
            yield batch, indices
        self._ahead = epoch + 1, batches

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        yield from self._measured(self._measuring, self._evaluation_samples, share)
        if self.measures_training:
            for batch in self._measured(self._reference, self.train_samples, share, REFERENCE):
                yield {**batch, "reference": True}

    def at_even_distances(self, count: int) -> Iterator[Batch]:
        """Batches as those of `evaluation`, without `item`, of `count` of its samples; of all where there are fewer."""
        whole, size = self._evaluation_samples, self._pipeline.evaluation_batch
        chosen = np.linspace(0, whole - 1, min(count, whole)).round().astype(int).tolist()
        wanted = [[(0, row) for row in chosen[start : start + size]] for start in range(0, len(chosen), size)]
        for batch, indices in self._measuring.read(wanted):
            yield self._pipeline.batches.evaluate(batch, indices)

    def evaluated(self) -> list[tuple[str, slice]]:
        """(item, positions of its samples) of the batches of `evaluation`, without those of training images."""
        return evaluation_parts(self._evaluation_samples, EVERYTHING, self._pipeline.evaluation_batch)

    def _measured(self, reader: Reader, samples: int, share: EvaluationShare, prefix: str = "") -> Iterator[Batch]:
        parts = evaluation_parts(samples, share, self._pipeline.evaluation_batch, prefix)
        wanted = [[(0, index) for index in range(samples)[part]] for _, part in parts]
        for (item, _), (batch, indices) in zip(parts, reader.read(wanted), strict=True):
            yield {**self._pipeline.batches.evaluate(batch, indices), "item": item}


def _rows(samples: int, share: Tensor, context: DataContext, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(context.seed, "order", epoch))
    order = torch.randperm(samples, generator=generator)
    return order[: samples // context.batch * context.batch].view(-1, context.batch)[:, share]


def _items(samples: int, share: Tensor, context: DataContext, epoch: int, first_step: int) -> Iterator[list[Item]]:
    """Batches of this and all later epochs. (A function: a method would keep its loaders, and so the worker processes
    that read for them, alive in a circle.)"""
    for later in itertools.count(epoch):
        for row in _rows(samples, share, context, later)[first_step if later == epoch else 0 :].tolist():
            yield [(later, index) for index in row]


def _first_few(failures: list[Any]) -> str:
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return "; ".join(failures[:5]) + more
