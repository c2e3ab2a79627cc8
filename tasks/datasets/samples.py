"""Samples: an image with whatever belongs to it, by index, and how several become a batch."""

from __future__ import annotations

import copy
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from tasks.base import Batch
from tasks.datasets.images.source import Source


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to train on or to measure."""

    image: Any
    """A PIL image in RGB, or its pixels (h, w, 3) in an array that may not be written to; a tuple of them where a
    sample has several. After the transform a tensor (3, h, w)."""
    target: Any
    """Label, boxes, key points, maps, or None."""
    index: int
    """Position in its `Samples`."""


Transform = Callable[[Sample], Sample]
"""Changes image and target together. Random numbers come from the global generators (Python, NumPy, torch), which are
seeded for each sample by (seed, epoch, index)."""
Collate = Callable[[Sequence[Sample]], Batch]
"""Makes a batch of transformed samples. Every value has one entry for each sample: a tensor, or a list."""


class Targets(ABC):
    """One target for each sample. Goes to worker processes: no Python object per sample (see images.source.Source)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Raises Unreadable for one that is read from a file (a depth map) and cannot be."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Bytes that tell these targets from any others; enter the digest of the data."""


class ArrayTargets(Targets):
    """Rows of one array: labels, boxes of a fixed number, poses."""

    def __init__(self, rows: NDArray[Any]) -> None:
        """`rows`: (n, ...)."""
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]

    def content(self) -> Iterator[bytes]:
        yield self._rows.tobytes()


class PickledTargets(Targets):
    """Annotations of any form and size, in two arrays that processes share: boxes of varying number, polygons."""

    def __init__(self, targets: Sequence[Any]) -> None:
        """`targets`: None, numbers, text, arrays and tensors, in lists and mappings of any depth."""
        encoded = [pickle.dumps(target, protocol=pickle.HIGHEST_PROTOCOL) for target in targets]
        self._bytes: NDArray[np.uint8] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        return pickle.loads(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())

    def content(self) -> Iterator[bytes]:
        return (_canonical(self[index]) for index in range(len(self)))


def _canonical(value: Any) -> bytes:
    """Bytes that are equal for equal values. (Pickles are not: they also encode which parts are one object.)"""
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}".encode() + value.tobytes()
    if isinstance(value, Mapping):
        parts = [_canonical(key) + b":" + _canonical(value[key]) for key in sorted(value)]
    elif isinstance(value, list | tuple):
        parts = [_canonical(part) for part in value]
    else:
        return json.dumps(value).encode()
    return b"[" + b",".join(parts) + b"]"


class Samples(ABC):
    """Samples by index: what a `Reader` reads. Goes to worker processes, as `images.source.Source` does."""

    images: Source
    """The images that samples are made of; the node's cache is put before these."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """May draw from the global generators, which are seeded as for a `Transform`: for example which two frames of a
        sequence make a pair. Raises Unreadable."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Bytes that tell these samples from any others; the digest of a data set is made from them."""

    def over(self, images: Source) -> Self:
        """The same samples with other copies of the same images (cached, or smaller)."""
        other = copy.copy(self)
        other.images = images
        return other


class Records(Samples):
    """One image and one target each; several may show the same image (persons in a photograph)."""

    def __init__(
        self, images: Source, targets: Targets | None, image_of: NDArray[np.int64] | None = None, pixels: bool = False
    ) -> None:
        """`targets`: None where samples have none. `image_of`: the image that each record shows; None: one each.
        `pixels`: samples have arrays for images, which are read faster.

        Raises ValueError when there is not one target for each record.
        """
        self.images, self.targets, self._image_of, self._pixels = images, targets, image_of, pixels
        if targets is not None and len(targets) != len(self):
            raise ValueError(f"{images.name}: {len(targets)} targets for {len(self)} records")

    def __len__(self) -> int:
        return len(self.images if self._image_of is None else self._image_of)

    def sample(self, index: int) -> Sample:
        image = index if self._image_of is None else int(self._image_of[index])
        shown = self.images.pixels(image) if self._pixels else self.images.image(image)
        return Sample(shown, None if self.targets is None else self.targets[index], index)

    def content(self) -> Iterator[bytes]:
        yield from self.images.content()
        if self._image_of is not None:
            yield self._image_of.tobytes()
        if self.targets is not None:
            yield from self.targets.content()


def on_image(change: Callable[[Any], Any]) -> Transform:
    """The transform that changes the image alone."""
    return lambda sample: replace(sample, image=change(sample.image))


def stack(samples: Sequence[Sample]) -> Batch:
    """The default collate: `images` (n, ...), and `targets` stacked if they are tensors, arrays or numbers, all of one
    shape; else as a list."""
    return {
        "images": stacked([sample.image for sample in samples]),
        "targets": _stacked([sample.target for sample in samples]),
    }


def stack_images(samples: Sequence[Sample]) -> Batch:
    """The collate for targets that vary in size: `images` (n, ...), `targets` as a list."""
    return {
        "images": stacked([sample.image for sample in samples]),
        "targets": [sample.target for sample in samples],
    }


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """torch.stack, which in a worker process writes into memory that is shared, so that nothing is copied again."""
    out: Tensor = default_collate(list(tensors))
    return out


def _stacked(targets: list[Any]) -> Any:
    """Decided by the type of the first target, never by whether shapes happen to agree in this batch."""
    if isinstance(targets[0], Tensor):
        return stacked(targets)
    if isinstance(targets[0], np.ndarray | np.generic | bool | int | float):
        return torch.from_numpy(np.stack(targets))
    return targets
