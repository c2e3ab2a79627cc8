"""Loaders of labelled images, from memory or from files."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
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
from tasks.datasets.images import open
from tasks.datasets.images import source as sources
from tasks.datasets.images.cache import cached
from tasks.datasets.images.reader import Reader
from tasks.datasets.images.source import Resized
from tasks.datasets.loaders import OrderedLoaders, evaluation_parts
from tasks.datasets.splits import Indices
from tasks.datasets.transforms import Normalize, derived_seed
from tasks.errors import DataError

Labels = Sequence[int] | NDArray[Any]
"""One class per image; or (n, classes), what is said of each class (see Card.several_labels), which is not mixed."""


class ImageLoaders(OrderedLoaders):
    """What loading from memory and from files have in common: images with labels, mixed where that is asked for."""

    def __init__(
        self, labels: Tensor, classes: int, place: DataContext, augment: Augment, normalize: Normalize
    ) -> None:
        """`labels`: int64 (n,), or float (n, classes). Raises DataError as OrderedLoaders does."""
        super().__init__(len(labels), place)
        self._labels, self._classes, self._augment, self._normalize = labels, classes, augment, normalize
        if augment.mixes and labels.ndim == 2:
            raise DataError("mixup and cutmix are for one label per image: set augment.mixup and augment.cutmix to 0")
        if augment.mixes and place.batch // place.world % 2:
            raise DataError(
                f"mixup and cutmix pair images: optim.batch {place.batch} over {place.world} worker(s) must be even"
            )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        place = self._place
        for step, (images, indices) in enumerate(self._images(epoch, first_step), first_step):
            labels = self._labels[indices.to(self._labels.device)]
            if not self._augment.mixes:
                yield {"images": images, "labels": labels}
                continue
            # One strength for the batch is the same on every rank; those of pairs and images are each rank's own.
            own = place.rank if self._augment.mixup_mode != "batch" else 0
            seed = derived_seed(place.seed, "mix", epoch, step, *([own] if own else []))
            images, targets = transforms.mixed(images, labels, self._classes, self._augment, seed)
            yield {"images": images, "labels": labels, "targets": targets}

    @abstractmethod
    def _images(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images of each of the rank's batches, on the device, and their indices."""


class MemoryLoaders(ImageLoaders):
    """All images on the device once, as uint8; batches are augmented there."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[Any],
        train: Indices,
        evaluation: Indices,
        classes: int,
        place: DataContext,
        augment: Augment,
        normalize: Normalize,
    ) -> None:
        """`images`: grey (n, height, width) or colour (n, height, width, 3); `labels`: see `Labels`."""
        _check_stored_size(place, augment)
        if augment.stored_size and augment.stored_size < min(images.shape[1:3]):
            smaller = (
                sources.shrunk(Image.fromarray(image), augment.stored_size, augment.interpolation) for image in images
            )
            images = np.stack([np.asarray(image) for image in smaller])
        pixels = torch.from_numpy(images)
        pixels = pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)
        targets = _targets(labels)
        super().__init__(targets[train].to(place.device), classes, place, augment, normalize)
        self._pixels = pixels[train].to(place.device)
        ready = transforms.normalized(transforms.centre(pixels[evaluation], place.image_size, augment), normalize)
        self._evaluation = ready.to(place.device), targets[evaluation].to(place.device)
        self._transform = None
        if augment.per_image:
            self._transform = transforms.single_image(place.image_size, augment, normalize, training=True)
        content = hashlib.sha256()
        for part in (train, evaluation):
            content.update(images[part].tobytes() + targets[part].numpy().tobytes())
        self.digest = content.hexdigest()

    def _images(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        place, augment, device = self._place, self._augment, self._place.device
        for step, indices in enumerate(self.rows(epoch)[first_step:], first_step):
            if self._transform is not None:
                yield self._one_by_one(epoch, indices), indices
                continue
            seed = derived_seed(place.seed, "augment", epoch, step)
            draws = transforms.Draws.of(seed, place.batch, place.image_size, augment).share(self._share, device)
            pixels = self._pixels[indices.to(device)]
            yield transforms.augmented(pixels, draws, place.image_size, augment, self._normalize), indices

    def _one_by_one(self, epoch: int, indices: Tensor) -> Tensor:
        """The slow road, for augmentations that exist for single PIL images only (see Augment.per_image)."""
        assert self._transform is not None
        images = []
        for index in indices.tolist():
            pixels = self._pixels[index].cpu().numpy()
            image = sources.picture(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            with transforms.seeded(derived_seed(self._place.seed, "augment", epoch, index)):
                images.append(self._transform(image))
        return torch.stack(images).to(self._place.device)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        images, labels = self._evaluation
        for item, part in evaluation_parts(len(labels), share):
            yield {"images": images[part], "labels": labels[part], "item": item}


class FileLoaders(ImageLoaders):
    """Images decoded by worker processes, a batch at a time, and then moved to the device."""

    def __init__(
        self,
        name: str,
        train: tuple[Any, Labels],
        evaluation: tuple[Any, Labels],
        root: Path,
        classes: int,
        place: DataContext,
        augment: Augment,
        normalize: Normalize,
    ) -> None:
        """`train`, `evaluation`: images as `sources.of` takes them, and their labels."""
        super().__init__(_targets(train[1]).to(place.device), classes, place, augment, normalize)
        self._evaluation_labels = _targets(evaluation[1])
        _check_stored_size(place, augment)
        shown, measured = open.open_images(name, root, train[0]), open.open_images(name, root, evaluation[0])
        content = hashlib.sha256()
        for source, labels in ((shown, train[1]), (measured, evaluation[1])):
            for part in source.content():
                content.update(part)
            content.update(_targets(labels).numpy().tobytes())
        self.digest = content.hexdigest()
        if augment.stored_size:
            shown, measured = (Resized(s, augment.stored_size, augment.interpolation) for s in (shown, measured))
        shown, first = cached(shown, place.loader_workers)
        measured, second = cached(measured, place.loader_workers)
        self.image_cache = f"training {first}; evaluation {second}"
        transform, plain = (
            transforms.single_image(place.image_size, augment, normalize, training) for training in (True, False)
        )
        self._training = Reader(shown, transform, place, replace_unreadable=place.max_unreadable > 0)
        self._measuring = Reader(measured, plain, place)  # figures are over all images, or there are none

    def _images(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.read(self._training, epoch, first_step)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        labels = self._evaluation_labels
        parts = evaluation_parts(len(labels), share)
        batches = self._measuring.read([[(0, index) for index in range(len(labels))[part]] for _, part in parts])
        for (item, _), (images, indices) in zip(parts, batches, strict=True):
            yield {"images": images, "labels": labels[indices].to(self._place.device), "item": item}


def _check_stored_size(place: DataContext, augment: Augment) -> None:
    least = augment.evaluation_side(place.image_size)
    if augment.stored_size and augment.stored_size < least:
        raise DataError(
            f"augment.stored_size {augment.stored_size} is less than the {least} pixels that evaluation resizes to "
            f"(image_size {place.image_size} / eval_crop {augment.eval_crop:g}): images would be made larger again"
        )


def _targets(labels: Labels) -> Tensor:
    """int64 (n,), or float32 (n, classes)."""
    array = np.asarray(labels)
    return torch.from_numpy(array.astype(np.int64) if array.ndim == 1 else array.astype(np.float32))
