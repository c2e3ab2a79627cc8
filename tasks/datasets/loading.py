"""The only place that turns data sets into batches: order, shares of ranks, resuming, mixing; from memory or files."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tasks.base import Batch, DataError, DataPlace, Loaders
from tasks.datasets import transforms
from tasks.datasets.augment import Augment
from tasks.datasets.folder import Images
from tasks.datasets.splits import Indices
from tasks.datasets.transforms import Normalize, derived_seed

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
            # One strength for the batch is the same on every rank; those of pairs and images are each rank's own.
            own = place.rank if self._augment.mixup_mode != "batch" else 0
            seed = derived_seed(place.seed, "mix", epoch, step, *([own] if own else []))
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
        for start in range(0, len(labels), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            yield {"images": images[part], "labels": labels[part]}


class _Decoded(Dataset[Tensor]):
    """Decodes and augments one image at a time; randomness from (seed, epoch, index) alone. Pickles to workers."""

    def __init__(self, name: str, images: Images, transform: Callable[[Any], Tensor], seed: int, epoch: int) -> None:
        self._name, self._images, self._transform = name, images, transform
        self._seed, self._epoch = seed, epoch

    def __getitem__(self, index: int) -> Tensor:
        image = self._open(index)
        with transforms.seeded(derived_seed(self._seed, "augment", self._epoch, index)):
            return self._transform(image)

    def _open(self, index: int) -> Any:
        from PIL import Image

        if isinstance(self._images, np.ndarray):
            return Image.fromarray(self._images[index])
        path = self._images[index]
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
            raise DataError(f"{self._name}: cannot read image {path} ({error}); get this file again") from error


class FileLoaders(ImageLoaders):
    """Images decoded by worker processes, a batch at a time, and then moved to the device."""

    def __init__(
        self,
        name: str,
        train: tuple[Images, Sequence[int]],
        evaluation: tuple[Images, Sequence[int]],
        root: Path,
        classes: int,
        place: DataPlace,
        augment: Augment,
        normalize: Normalize,
    ) -> None:
        super().__init__(torch.tensor(train[1]).to(place.device), classes, place, augment, normalize)
        self._name, self._train, self._evaluation = name, train[0], evaluation[0]
        self._evaluation_labels = torch.tensor(evaluation[1])
        self.digest = _digest(root, train, evaluation)

    def _images(self, epoch: int, first_step: int, mine: Tensor) -> Iterator[Tensor]:
        transform = transforms.single_image(self._place.image_size, self._augment, self._normalize, training=True)
        return self._decode(_Decoded(self._name, self._train, transform, self._place.seed, epoch), mine.tolist())

    def _decode(self, images: _Decoded, batches: list[list[int]]) -> Iterator[Tensor]:
        place = self._place
        on_cuda = place.device.startswith("cuda")
        # A generator of its own: without, it draws a seed (that nothing here uses) from the global one.
        loader = DataLoader(
            images, batch_sampler=batches, num_workers=place.loader_workers, pin_memory=on_cuda,
            generator=torch.Generator(),
        )  # fmt: skip
        try:
            for pixels in loader:
                yield pixels.to(place.device, non_blocking=True)
        except DataError as error:
            # From a worker process it comes with the traceback as text; the message proper is its last line.
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None

    def evaluation(self) -> Iterable[Batch]:
        place = self._place
        transform = transforms.single_image(place.image_size, self._augment, self._normalize, training=False)
        images = _Decoded(self._name, self._evaluation, transform, place.seed, 0)
        parts = torch.split(torch.arange(len(self._evaluation_labels)), EVALUATION_BATCH)
        for part, pixels in zip(parts, self._decode(images, [part.tolist() for part in parts]), strict=True):
            yield {"images": pixels, "labels": self._evaluation_labels[part].to(place.device)}


def _digest(root: Path, *parts: tuple[Images, Sequence[int]]) -> str:
    """SHA-256 over pixels, or else names of files below the root (their bytes are not read), and labels."""
    content = hashlib.sha256()
    for images, labels in parts:
        if isinstance(images, np.ndarray):
            content.update(images.tobytes())
        else:
            content.update("\n".join(str(path.relative_to(root)) for path in images).encode())
        content.update(np.asarray(labels, dtype=np.int64).tobytes())
    return content.hexdigest()
