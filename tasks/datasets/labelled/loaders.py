"""Loaders of labelled images: small sets kept on the device, all others read by worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare
from tasks.datasets import transforms
from tasks.datasets.augment import Augment
from tasks.datasets.images.arrow import ArrowImages
from tasks.datasets.images.open import open_images
from tasks.datasets.images.source import Resized, picture, shrunk
from tasks.datasets.labelled.parts import LabelledPart, Labels
from tasks.datasets.loaders import (
    REFERENCE,
    BatchTransform,
    OrderedLoaders,
    Pipeline,
    SampleLoaders,
    evaluation_parts,
    share,
)
from tasks.datasets.samples import ArrayTargets, Records, Sample, on_image, stack
from tasks.datasets.transforms import MixSeeds, Normalizing, derived_seed
from tasks.errors import DataError


@dataclass(frozen=True)
class LabelledImages:
    """Two parts of a data set: to train and to evaluate on."""

    name: str
    root: Path
    """Files lie below it."""
    train: LabelledPart
    evaluation: LabelledPart
    small: bool = False
    """Arrays that are kept on the device, where batches are augmented."""


@dataclass(frozen=True)
class ImageInput:
    """How images become input of the model."""

    augment: Augment
    normalize: Normalizing


def labelled_loaders(
    data: LabelledImages, how: ImageInput, context: DataContext, batches: BatchTransform, reference: bool = False
) -> OrderedLoaders:
    """Loaders of batches with `images` and `labels`, as `batches` changes them; `reference`: see
    OrderedLoaders.measures_training. Raises DataError."""
    make = MemoryLoaders if data.small else file_loaders
    loaders = make(data, how, context, batches)
    loaders.measures_training = reference
    return loaders


def class_names(part: LabelledPart) -> tuple[str, ...]:
    """Names of the classes by number, where each has a folder of its own; else none."""
    if isinstance(part.images, np.ndarray | ArrowImages) or np.ndim(part.labels) != 1:
        return ()
    folders: dict[int, set[str]] = {}
    for image, label in zip(part.images, part.labels, strict=True):
        folders.setdefault(int(label), set()).add(image.parent.name)
    names = [next(iter(folders[number])) for number in sorted(folders)]
    whole = sorted(folders) == list(range(len(folders))) and all(len(each) == 1 for each in folders.values())
    return tuple(names) if whole and len(set(names)) == len(names) else ()


class NamedClasses(BatchTransform):
    """Batches as another transform changes them; those of an evaluation with the names of the classes."""

    def __init__(self, inner: BatchTransform, train: LabelledPart) -> None:
        self._inner, self._train = inner, train
        self._names: tuple[str, ...] | None = None

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        return self._inner.train(batch, epoch, step, indices)

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        if self._names is None:  # at the first evaluation: a million paths take seconds
            self._names = class_names(self._train)
        return {**self._inner.evaluate(batch, indices), "class_names": self._names}


def file_loaders(data: LabelledImages, how: ImageInput, context: DataContext, batches: BatchTransform) -> SampleLoaders:
    """Loaders over images that are decoded one by one, from files or from arrays of any size. Raises DataError."""
    augment = how.augment
    _check_stored_size(context, augment)

    def records(part: LabelledPart) -> Records:
        images = open_images(data.name, data.root, part.images)
        if augment.stored_size:
            images = Resized(images, augment.stored_size, augment.interpolation)
        return Records(images, ArrayTargets(_targets(part.labels)))

    train, evaluate = (
        on_image(transforms.single_image(context.input_size, augment, how.normalize, training))
        for training in (True, False)
    )
    pipeline = Pipeline(train, evaluate, _collate, batches)
    return SampleLoaders(records(data.train), records(data.evaluation), pipeline, context)


def _collate(samples: Sequence[Sample]) -> Batch:
    batch = stack(samples)
    return {"images": batch["images"], "labels": batch["targets"]}


class MemoryLoaders(OrderedLoaders):
    """All images on the device once, as uint8; batches are augmented there."""

    def __init__(self, data: LabelledImages, how: ImageInput, context: DataContext, batches: BatchTransform) -> None:
        """`data`: arrays. Raises DataError as OrderedLoaders does."""
        _check_stored_size(context, how.augment)
        train, evaluation = (_stored(np.asarray(part.images), how.augment) for part in (data.train, data.evaluation))
        labels, evaluation_labels = (_targets(part.labels) for part in (data.train, data.evaluation))
        super().__init__(len(labels), context)
        self._how, self._batches = how, batches
        self._labels = torch.from_numpy(labels).to(context.device)
        self._pixels = channels_first(train).to(context.device)
        self._evaluation = (
            self._prepared(channels_first(evaluation)), torch.from_numpy(evaluation_labels).to(context.device)
        )  # fmt: skip
        self._transform = None
        if how.augment.per_image:
            self._transform = transforms.single_image(context.input_size, how.augment, how.normalize, training=True)
        content = hashlib.sha256()
        for images, targets in ((train, labels), (evaluation, evaluation_labels)):
            content.update(images.tobytes() + targets.tobytes())
        self.digest = content.hexdigest()

    def _prepared(self, pixels: Tensor) -> Tensor:
        """Images (n, channels, h, w) as the model takes them in an evaluation, on the device."""
        centred = transforms.centre(pixels, self._context.input_size, self._how.augment)
        return transforms.normalized(centred, self._how.normalize).to(self._context.device)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step, indices in enumerate(self.rows(epoch)[first_step:], first_step):
            batch = {
                "images": self._augmented(epoch, step, indices),
                "labels": self._labels[transforms.on_device(indices, self._labels.device)],
            }
            yield self._batches.train(batch, epoch, step, indices)

    def _augmented(self, epoch: int, step: int, indices: Tensor) -> Tensor:
        context, how = self._context, self._how
        if self._transform is not None:
            return self._one_by_one(epoch, indices)
        seed = derived_seed(context.seed, "augment", epoch, step)
        draws = transforms.Draws.of(seed, context.batch, context.input_size, how.augment)
        own = draws.share(self.positions, context.device)
        pixels = self._pixels[transforms.on_device(indices, context.device)]
        return transforms.augmented(pixels, own, context.input_size, how.augment, how.normalize)

    def _one_by_one(self, epoch: int, indices: Tensor) -> Tensor:
        """The slow way, for augmentations that exist for single PIL images only (see Augment.per_image)."""
        assert self._transform is not None
        images = []
        for index in indices.tolist():
            pixels = self._pixels[index].cpu().numpy()
            image = picture(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            with transforms.seeded(derived_seed(self._context.seed, "augment", epoch, index)):
                images.append(self._transform(image))
        return torch.stack(images).to(self._context.device)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        images, labels = self._evaluation
        positions = torch.arange(len(labels))
        for item, part in evaluation_parts(len(labels), share):
            batch = {"images": images[part], "labels": labels[part]}
            yield {**self._batches.evaluate(batch, positions[part]), "item": item}
        if not self.measures_training:
            return
        for item, part in evaluation_parts(self.train_samples, share, prefix=REFERENCE):
            batch = {"images": self._prepared(self._pixels[part]), "labels": self._labels[part]}
            yield {**batch, "reference": True, "item": item}


class Mixing(BatchTransform):
    """Mixup and cutmix: mixed `images`, and soft `targets` (n, classes) beside the `labels`."""

    def __init__(self, classes: int, augment: Augment, context: DataContext) -> None:
        """Raises DataError when a rank's share of the batch is odd."""
        if context.batch // context.world % 2:
            raise DataError(
                f"mixup and cutmix pair images: optim.batch {context.batch} over {context.world} worker(s) must be even"
            )
        self._classes, self._augment, self._seed = classes, augment, context.seed
        self._positions = share(context.batch, context.rank, context.world).tolist()

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        images, labels = batch["images"], batch["labels"]
        if labels.ndim == 2:
            raise DataError("mixup and cutmix are for one label per image: set augment.mixup and augment.cutmix to 0")
        seeds = MixSeeds(derived_seed(self._seed, "mix", epoch, step), self._positions)
        images, targets = transforms.mixed(images, labels, self._classes, self._augment, seeds)
        return {"images": images, "labels": labels, "targets": targets}


def mixing(classes: int, augment: Augment, context: DataContext) -> BatchTransform:
    """Mixing if the augmentation asks for it; else a transform that changes nothing. Raises DataError (see Mixing)."""
    return Mixing(classes, augment, context) if augment.mixes else BatchTransform()


def _stored(images: NDArray[np.uint8], augment: Augment) -> NDArray[np.uint8]:
    """The images at the size at which they are kept."""
    if not augment.stored_size or augment.stored_size >= min(images.shape[1:3]):
        return images
    smaller = (shrunk(Image.fromarray(image), augment.stored_size, augment.interpolation) for image in images)
    return np.stack([np.asarray(image) for image in smaller])


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """(n, 1 or 3, height, width)"""
    pixels = torch.from_numpy(images)
    return pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)


def _check_stored_size(context: DataContext, augment: Augment) -> None:
    side = min(context.input_size)
    least = augment.evaluation_side(side)
    if augment.stored_size and augment.stored_size < least:
        raise DataError(
            f"augment.stored_size {augment.stored_size} is less than the {least} pixels that evaluation resizes to "
            f"(image_size {side} / eval_crop {augment.eval_crop:g}): images would be made larger again"
        )


def _targets(labels: Labels) -> NDArray[Any]:
    """int64 (n,), or float32 (n, classes)."""
    array = np.asarray(labels)
    return array.astype(np.int64) if array.ndim == 1 else array.astype(np.float32)
