"""The only place that turns data sets into batches: order, shares of ranks, resuming, mixing; from memory or files."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from tasks.base import Batch, DataError, DataPlace, Loaders
from tasks.datasets import transforms
from tasks.datasets.augment import Augment
from tasks.datasets.splits import Indices
from tasks.datasets.transforms import Normalize, derived_seed

EVALUATION_BATCH = 256
"""Most images of one forward pass in evaluation."""


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


class ImageLoaders(Loaders):
    """What loading from memory and from files have in common; labels are int64, one per training image."""

    def __init__(self, labels: Tensor, classes: int, place: DataPlace, augment: Augment, normalize: Normalize) -> None:
        """Raises DataError when the batch does not fit the data or the number of workers."""
        self.train_images = len(labels)
        self.steps_per_epoch = self.train_images // place.batch
        self._labels, self._classes, self._place = labels, classes, place
        self._augment, self._normalize = augment, normalize
        if self.steps_per_epoch == 0:
            raise DataError(
                f"optim.batch {place.batch} is larger than the training set of {self.train_images} images: lower it"
            )
        if place.batch % place.world:
            raise DataError(f"optim.batch {place.batch} does not divide by {place.world} workers: choose a multiple")
        if augment.mixes and place.batch // place.world % 2:
            raise DataError(
                f"mixup and cutmix pair images: optim.batch {place.batch} over {place.world} worker(s) must be even"
            )
        self._share = share(place.batch, place.rank, place.world)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        place = self._place
        generator = torch.Generator().manual_seed(derived_seed(place.seed, "order", epoch))
        order = torch.randperm(self.train_images, generator=generator)
        steps = order[: self.steps_per_epoch * place.batch].view(-1, place.batch)
        mine = steps[first_step:, self._share]
        batches = zip(mine, self._images(epoch, first_step, mine), strict=True)
        for step, (indices, images) in enumerate(batches, first_step):
            labels = self._labels[indices.to(self._labels.device)]
            if not self._augment.mixes:
                yield {"images": images, "labels": labels}
                continue
            seed = derived_seed(place.seed, "mix", epoch, step)
            images, targets = transforms.mixed(images, labels, self._classes, self._augment, seed)
            yield {"images": images, "labels": labels, "targets": targets}

    @abstractmethod
    def _images(self, epoch: int, first_step: int, mine: Tensor) -> Iterator[Tensor]:
        """Augmented images of each row of `mine` (steps, share), on the device."""


class MemoryLoaders(ImageLoaders):
    """All images on the device once, as uint8; batches are augmented there."""

    def __init__(
        self,
        images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
        labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        train: Indices,
        evaluation: Indices,
        classes: int,
        place: DataPlace,
        augment: Augment,
        normalize: Normalize,
    ) -> None:
        """`images`: grey (n, height, width)."""
        pixels = torch.from_numpy(images).unsqueeze(1)
        targets = torch.from_numpy(labels)
        super().__init__(targets[train].to(place.device), classes, place, augment, normalize)
        self._pixels = pixels[train].to(place.device)
        ready = transforms.normalized(transforms.centre(pixels[evaluation], place.image_size, augment), normalize)
        self._evaluation = ready.to(place.device), targets[evaluation].to(place.device)
        self._transform = None
        if augment.per_image:
            self._transform = transforms.single_image(place.image_size, augment, normalize, training=True)
        content = hashlib.sha256()
        for part in (train, evaluation):
            content.update(images[part].tobytes() + labels[part].tobytes())
        self.digest = content.hexdigest()

    def _images(self, epoch: int, first_step: int, mine: Tensor) -> Iterator[Tensor]:
        place, augment, device = self._place, self._augment, self._place.device
        for step, indices in enumerate(mine, first_step):
            if self._transform is not None:
                yield self._one_by_one(epoch, indices)
                continue
            seed = derived_seed(place.seed, "augment", epoch, step)
            draws = transforms.Draws.of(seed, place.batch, place.image_size, augment).share(self._share, device)
            pixels = self._pixels[indices.to(device)]
            yield transforms.augmented(pixels, draws, place.image_size, augment, self._normalize)

    def _one_by_one(self, epoch: int, indices: Tensor) -> Tensor:
        """The slow road, for augmentations that exist for single PIL images only (see Augment.per_image)."""
        from PIL import Image

        assert self._transform is not None
        images = []
        for index in indices.tolist():
            with transforms.seeded(derived_seed(self._place.seed, "augment", epoch, index)):
                grey = Image.fromarray(self._pixels[index, 0].cpu().numpy())
                images.append(self._transform(grey.convert("RGB")))
        return torch.stack(images).to(self._place.device)

    def evaluation(self) -> Iterable[Batch]:
        images, labels = self._evaluation
        size = min(EVALUATION_BATCH, self._place.batch)
        for start in range(0, len(labels), size):
            yield {"images": images[start : start + size], "labels": labels[start : start + size]}
