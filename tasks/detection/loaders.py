"""Loaders of detection: images with objects to train on; images to search, and what their annotations say."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare
from tasks.datasets.images.source import Source
from tasks.datasets.instances.types import Instances, InstanceSet, Integers, Pixels
from tasks.datasets.loaders import BatchTransform, Pipeline, SampleLoaders
from tasks.datasets.samples import Sample, Samples, stacked
from tasks.datasets.transforms import Normalizing, derived_seed, normalized_within
from tasks.detection.augment import Drawn, draw, scaled_size, shown
from tasks.detection.options import DetectionAugment
from tasks.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

EVALUATED_AT_ONCE = 8
"""Images of one forward pass in evaluation."""


class ShownImages(Source):
    """Some of the images of a set, each of the size that its annotations are for."""

    def __init__(self, objects: InstanceSet, rows: Integers) -> None:
        self.name, self._objects, self._rows = objects.name, objects, rows

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, index: int) -> Image.Image:
        from PIL import Image

        return Image.fromarray(self.pixels(index))

    def pixels(self, index: int) -> Pixels:
        return self._objects.image(int(self._rows[index]))

    def where(self, index: int) -> str:
        return self._objects.images.where(int(self._rows[index]))

    def content(self) -> Iterator[bytes]:
        yield from self._objects.images.content()
        yield self._rows.tobytes()

    def identity(self, first: int, last: int) -> bytes:
        images = self._objects.images
        return b"".join(images.identity(row, row + 1) for row in self._rows[first:last].tolist())


class ObjectSamples(Samples):
    """Images with their objects; the target is `Instances`."""

    def __init__(self, objects: InstanceSet, rows: Integers | None = None) -> None:
        """`rows`: the images that are samples; None: all."""
        self._rows = np.arange(len(objects)) if rows is None else rows
        self.images, self._objects = ShownImages(objects, self._rows), objects

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        return Sample(self.images.pixels(index), self._objects.load(int(self._rows[index])), index)

    def content(self) -> Iterator[bytes]:
        yield from self.images.content()
        for row in self._rows.tolist():
            each = self._objects.load(row)
            yield b"".join(array.tobytes() for array in (each.boxes, each.labels, each.crowd, each.area, each.learnt))
            yield b"".join(mask["counts"] for mask in each.masks)


@dataclass(frozen=True)
class Placed:
    """Turns a sample into an input of the model: scaled, cut, and put into a square of `side` pixels."""

    side: int
    augment: DetectionAugment | None
    """None: for evaluation, the whole image with its longer side that of the square, and no objects."""

    def __call__(self, sample: Sample) -> Sample:
        objects: Instances = sample.target
        height, width = objects.height, objects.width
        if self.augment is None:
            bare = replace(objects, learnt=np.zeros_like(objects.learnt))
            whole = Drawn(*scaled_size(height, width, self.side), 0, 0, False)
            made = shown(sample.image, bare, whole, self.side, 1)
        else:
            # the global generator is seeded for (seed, epoch, sample)
            random = np.random.default_rng(np.random.randint(2**62))
            drawn = draw(self.augment, height, width, self.side, random)
            made = shown(sample.image, objects, drawn, self.side, self.augment.least_side)
        return replace(sample, image=torch.from_numpy(made.image), target=(made, objects))


def collate(samples: Sequence[Sample]) -> Batch:
    """`images` (n, 3, side, side) in 8 bits; lists of each image's `sizes` within, `targets` (see model.Target), and
    `originals`: id, height and width of the image itself."""
    pairs = [sample.target for sample in samples]
    return {
        "images": stacked([sample.image for sample in samples]),
        "sizes": [made.size for made, _ in pairs],
        "targets": [
            {
                "boxes": torch.from_numpy(made.boxes),
                "labels": torch.from_numpy(made.labels.astype(np.int64) + 1),
                "masks": torch.from_numpy(made.masks),
            }
            for made, _ in pairs
        ],
        "originals": [(objects.image_id, objects.height, objects.width) for _, objects in pairs],
    }


class Prepare(BatchTransform):
    """Normalises; what lies beyond an image becomes 0, that is the mean colour. Gives each image of a training batch a
    seed for what is sampled of it."""

    def __init__(self, normalize: Normalizing, seed: int) -> None:
        self._normalize, self._seed = normalize, seed

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        seeds = [derived_seed(self._seed, "regions", epoch, index) for index in indices.tolist()]
        return {**self._inputs(batch), "targets": batch["targets"], "seeds": seeds}

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        return {**self._inputs(batch), "originals": batch["originals"], "indices": indices.tolist()}

    def _inputs(self, batch: Batch) -> Batch:
        images = normalized_within(batch["images"], batch["sizes"], self._normalize)
        return {"images": images, "sizes": batch["sizes"]}


class DetectionLoaders(SampleLoaders):
    """Training batches: `images` (n, 3, side, side), `sizes`, `targets`, `seeds`. Evaluation batches: `images`,
    `sizes`, `originals`, `indices`, `truth`: for each image {image, annotations} in COCO's form, and `categories`."""

    def __init__(
        self, training: InstanceSet, evaluated: InstanceSet, augment: DetectionAugment, normalize: Normalizing,
        context: DataContext,
    ) -> None:  # fmt: skip
        """Images without an object to learn are not trained on, as in mmdetection. Raises DataError."""
        rows = np.flatnonzero(training.object_counts)
        if not len(rows):
            raise DataError(f"{training.name}: no image of train shows an object to learn")
        if training.classes != evaluated.classes or training.category_ids != evaluated.category_ids:
            raise DataError(f"{training.name}: the categories of train are not those of {evaluated.part}")
        side = context.image_size
        pipeline = Pipeline(
            Placed(side, augment), Placed(side, None), collate, Prepare(normalize, context.seed), EVALUATED_AT_ONCE
        )
        super().__init__(ObjectSamples(training, rows), ObjectSamples(evaluated), pipeline, context)
        without = len(training) - len(rows)
        self.preprocessing = {"images_without_objects": without} if without else None
        self.evaluated_set = evaluated

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return map(self._with_truth, super().evaluation(share))

    def pictured(self, count: int) -> Iterable[Batch]:
        """Batches as those of `evaluation`, of `count` images at even distances through the evaluated part."""
        return map(self._with_truth, self.at_even_distances(count))

    def _with_truth(self, batch: Batch) -> Batch:
        truth = [self._truth[image] for image, *_ in batch["originals"]]
        return {**batch, "truth": truth, "categories": self._coco["categories"]}

    @functools.cached_property
    def _coco(self) -> dict[str, Any]:
        return self.evaluated_set.coco_json()

    @functools.cached_property
    def _truth(self) -> Mapping[int, dict[str, Any]]:
        """Image and annotations by the id of the image."""
        by_image = {image["id"]: {"image": image, "annotations": []} for image in self._coco["images"]}
        for annotation in self._coco["annotations"]:
            by_image[annotation["image_id"]]["annotations"].append(annotation)
        return by_image
