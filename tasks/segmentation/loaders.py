"""Loaders of segmentation: squares with their class maps to train on; whole images, and their maps as in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare
from tasks.datasets.class_maps.types import IGNORED, ClassMapSet, Pixels
from tasks.datasets.loaders import BatchTransform, Pipeline, SampleLoaders
from tasks.datasets.samples import Sample, Samples, stacked
from tasks.datasets.transforms import Normalizing, derived_seed, normalized, normalized_within
from tasks.errors import DataError
from tasks.segmentation.augment import Cut, augmented, resized, scaled_size
from tasks.segmentation.options import SegmentationAugment

EVALUATED_AT_ONCE = 8
"""Images of one batch of evaluation."""
LARGEST_COUNT = 1 << 28
"""Numbers of the table of classes by place, beyond which no baseline is made of it."""


class MapSamples(Samples):
    """Images with their class maps."""

    def __init__(self, maps: ClassMapSet) -> None:
        self.images, self._maps = maps.images, maps

    def __len__(self) -> int:
        return len(self._maps)

    def sample(self, index: int) -> Sample:
        image, classes = self._maps.load(index, self.images.pixels(index))
        return Sample(image, classes, index)

    def content(self) -> Iterator[bytes]:
        """Names of images and classes. (The manifest has the content of every map.)"""
        yield from self.images.content()
        yield "\n".join(self._maps.classes).encode(errors="surrogateescape")


@dataclass(frozen=True)
class Prepared:
    """How images become input of the model."""

    side: int
    """Of the square that it is trained on, in pixels."""
    short: int
    long: int
    """Of an image that is evaluated; see TestOptions."""
    augment: SegmentationAugment
    normalize: Normalizing

    def train(self, sample: Sample) -> Sample:
        """A square, augmented; the target is a `Cut`."""
        # the global generator is seeded for (seed, epoch, sample)
        rng = np.random.default_rng(np.random.randint(2**62))
        cut = augmented(sample.image, sample.target, self.short, self.long, self.side, self.augment, rng)
        return replace(sample, image=_tensor(cut.image), target=cut)

    def evaluate(self, sample: Sample) -> Sample:
        """The whole image, scaled; the target is the map as it is in the file."""
        height, width = sample.target.shape
        size = scaled_size(height, width, self.short, self.long)
        truth = torch.from_numpy(sample.target.copy())
        return replace(sample, image=_tensor(resized(sample.image, size)), target=truth)


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def collated(samples: Sequence[Sample]) -> Batch:
    """`images` (n, 3, h, w) uint8 and `maps` (n, h, w) uint8; lists where sizes differ. Of training also `sizes`:
    height and width of what shows the image."""
    images = [sample.image for sample in samples]
    if isinstance(samples[0].target, Cut):
        cuts = [sample.target for sample in samples]
        maps = [torch.from_numpy(cut.classes) for cut in cuts]
        return {"images": stacked(images), "maps": stacked(maps), "sizes": [cut.size for cut in cuts]}
    truths = [sample.target for sample in samples]
    return {"images": _stacked(images), "maps": _stacked(truths)}


def _stacked(tensors: list[Tensor]) -> Tensor | list[Tensor]:
    return stacked(tensors) if all(each.shape == tensors[0].shape for each in tensors) else tensors


class Normalise(BatchTransform):
    """Normalises pixels; what lies beyond an image becomes 0, that is the mean colour. Gives each image of a training
    batch a seed for the points that are drawn for it."""

    def __init__(self, normalize: Normalizing, seed: int) -> None:
        self._normalize, self._seed = normalize, seed

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        images = normalized_within(batch["images"], batch["sizes"], self._normalize)
        seeds = [derived_seed(self._seed, "points", epoch, index) for index in indices.tolist()]
        return {"images": images, "maps": batch["maps"], "seeds": seeds}

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        images = batch["images"]
        whole = isinstance(images, Tensor)
        how = self._normalize
        done = normalized(images, how) if whole else [normalized(each[None], how)[0] for each in images]
        return {**batch, "images": done, "indices": indices.tolist()}


class SegmentationLoaders(SampleLoaders):
    """Training batches: `images` (n, 3, side, side), `maps` (n, side, side), `seeds`. Evaluation batches: `images` and
    `maps` of whole images, `indices`, `classes` (their names), `side` (of a square), and perhaps `frequent`, a map for
    each image."""

    def __init__(
        self, training: ClassMapSet, evaluated: ClassMapSet, how: Prepared, frequent: bool, context: DataContext
    ) -> None:
        """`frequent`: also give the most frequent class of each place. Raises DataError."""
        if training.classes != evaluated.classes:
            raise DataError(f"{training.name}: the classes of train are not those of {evaluated.part}")
        transform = Normalise(how.normalize, context.seed)
        pipeline = Pipeline(how.train, how.evaluate, collated, transform, EVALUATED_AT_ONCE)
        super().__init__(MapSamples(training), MapSamples(evaluated), pipeline, context)
        self.evaluated_set, self._side = evaluated, how.side
        self._frequent = torch.from_numpy(most_frequent(training)) if frequent else None

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return map(self._completed, super().evaluation(share))

    def pictured(self, count: int) -> Iterable[Batch]:
        """Batches as those of `evaluation`, of `count` images at even distances through the evaluated part."""
        return map(self._completed, self.at_even_distances(count))

    def _completed(self, batch: Batch) -> Batch:
        more: dict[str, Any] = {"classes": self.evaluated_set.classes, "side": self._side}
        if self._frequent is not None:
            for truth, index in zip(batch["maps"], batch["indices"], strict=True):
                if truth.shape != self._frequent.shape:
                    here, there = ("{} x {}".format(*each.shape) for each in (truth, self._frequent))
                    raise DataError(
                        f"{self.evaluated_set.name}: image {self.evaluated_set.image_name(index)} has {here} pixels "
                        f"(height x width) and the training maps {there}: set task.baseline none"
                    )
            more["frequent"] = [self._frequent.to(truth.device) for truth in batch["maps"]]
        return {**batch, **more}


def most_frequent(maps: ClassMapSet) -> NDArray[np.uint8]:
    """(height, width): the class that each place has in most of these maps; the first of several.

    Raises DataError when the maps differ in size, or are too large to count.
    """
    total: NDArray[np.int32] | None = None
    for index in range(len(maps)):
        classes = maps.load(index)[1]
        if total is None:
            if classes.size * len(maps.classes) > LARGEST_COUNT:
                raise DataError(f"{maps.name}: maps are too large to count classes by place: set task.baseline none")
            total = np.zeros((len(maps.classes), *classes.shape), np.int32)
        if classes.shape != total.shape[1:]:
            raise DataError(f"{maps.name}: training maps differ in size: set task.baseline none")
        rows, columns = np.nonzero(classes != IGNORED)
        total[classes[rows, columns], rows, columns] += 1
    assert total is not None  # the loaders have at least a batch
    most: NDArray[np.uint8] = total.argmax(0).astype(np.uint8)
    return most
