"""Chooses the images that an analysis looks at, and loads them in chunks."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.datasets import transforms
from tasks.datasets.images.arrow import ArrowImages
from tasks.datasets.images.open import open_images
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, channels_first
from tasks.datasets.labelled.parts import Images
from tasks.datasets.reader import Reader
from tasks.datasets.samples import Records, Sample, on_image
from tasks.errors import DataError


@dataclass(frozen=True)
class Choice:
    """How many images of a part, and which."""

    images: int | None
    """None: all."""
    seed: int
    largest_chunk: int
    """Images of a chunk: those of which results are written to disk together, and of one Gram matrix."""

    def of(self, count: int) -> list[int]:
        """The chosen positions among `count` images: a draw without replacement (NumPy's PCG64), in the order of the
        draw. Raises DataError if there are too few.

        Data sets lie sorted by class. Chunks of sorted images would hold a few classes each, and CKA over such batches
        is another number: 0.92 in place of 0.83 for simulated features of classes that lie in a hierarchy.
        """
        if self.images is not None and self.images > count:
            raise DataError(f"task.images {self.images} is more than the {count} images there are: lower it")
        drawn: list[int] = np.random.default_rng(self.seed).permutation(count)[: self.images].tolist()
        return drawn

    def chunks(self, count: int) -> list[slice]:
        """`count` chosen images in as few chunks as `largest_chunk` allows, whose sizes differ by 1 at most: no chunk
        is too small for an unbiased estimate, unless all images together are."""
        number = -(-count // self.largest_chunk)
        ends = [count * i // number for i in range(number + 1)]
        return [slice(first, last) for first, last in itertools.pairwise(ends)]


class ChosenImages(Loaders):
    """Batches of `images`, one for each chunk; there is nothing to train on."""

    def __init__(self, data: LabelledImages, choice: Choice, how: ImageInput, context: DataContext) -> None:
        """Opens `data.evaluation` alone, and prepares its images as any evaluation does. Raises DataError."""
        self.train_samples, self.steps_per_epoch = 0, 0
        images = data.evaluation.images
        chosen = choice.of(len(images))
        self._chunks = choice.chunks(len(chosen))
        if isinstance(images, ArrowImages):
            mine: Images = images.taken(chosen)
        else:
            mine = images[chosen] if isinstance(images, np.ndarray) else [images[i] for i in chosen]
        self._in_memory = torch.empty(0)
        samples = Records(open_images(data.name, data.root, mine), None)
        if data.small:
            centred = transforms.centre(channels_first(np.asarray(mine)), context.input_size, how.augment)
            self._in_memory = transforms.normalized(centred, how.normalize).to(context.device)
        content = hashlib.sha256()
        for part in samples.content():
            content.update(part)
        self.digest = content.hexdigest()
        transform = on_image(transforms.single_image(context.input_size, how.augment, how.normalize, training=False))
        self._reader = Reader(samples, transform, _images_alone, context)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        raise ValueError("an analysis has no training set")

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        named = [(f"{chunk.start:012d}", chunk) for chunk in self._chunks]
        parts = [part for position, part in enumerate(named) if share.wants(position, part[0])]
        if len(self._in_memory):
            return ({"images": self._in_memory[chunk], "item": item} for item, chunk in parts)
        wanted = [[(0, index) for index in range(chunk.start, chunk.stop)] for _, chunk in parts]
        read = self._reader.read(wanted)
        return ({**batch, "item": item} for (item, _), (batch, _) in zip(parts, read, strict=True))


def _images_alone(samples: Sequence[Sample]) -> Batch:
    return {"images": torch.stack([sample.image for sample in samples])}
