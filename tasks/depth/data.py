"""Pairs of image and depth map as batches: prepared, augmented, and looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Batch, DataContext
from tasks.datasets.checks import spread
from tasks.datasets.depth_pairs import survey
from tasks.datasets.depth_pairs.layout import DepthFormat, DepthLayout
from tasks.datasets.depth_pairs.maps import read_raw
from tasks.datasets.depth_pairs.pairs import Pairs
from tasks.datasets.depth_pairs.task_data import OpenedPairs
from tasks.datasets.depth_pairs.window import evaluated_part
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.source import Files, StringTable
from tasks.datasets.loaders import BatchTransform, Pipeline, SampleLoaders
from tasks.datasets.samples import Sample, Samples, stacked
from tasks.depth.augment import DepthScale, augmented, planes
from tasks.depth.options import DepthAugment
from tasks.depth.sliding import uncovered_columns
from tasks.errors import DataError

Resize = Literal["none", "height"]
EVALUATION_BATCH = 16
"""Images; each becomes as many crops as there are windows, twice with the flip."""
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class DepthTarget:
    """What belongs to an image."""

    depth: Any
    """(height, width) in metres, 0 where it is not known; after the transform a tensor (1, height, width)."""
    name: str
    """The image's file, below the folder of the data set."""
    apart: bool = False
    """The image counts apart from the others."""


class DepthSamples(Samples):
    """The pairs of one list, or of two of which the second stands apart."""

    def __init__(self, layout: DepthLayout, pairs: Pairs, apart: Pairs | None = None) -> None:
        self.images = Files(layout.name, layout.base, [layout.base / name for name in _both(pairs, apart, "images")])
        self._layout, self._depths = layout, StringTable(_both(pairs, apart, "depths"))
        self._names, self._apart_from = StringTable(_both(pairs, apart, "images")), len(pairs)

    def __len__(self) -> int:
        return len(self._depths)

    def sample(self, index: int) -> Sample:
        name, depth = self._names[index], self._depths[index]
        raw = read_raw(self._layout.base / depth, self._layout.name)
        image = self.images.pixels(index)
        survey.check_sizes(self._layout.name, name, image.shape[:2], depth, raw.shape)
        raw /= np.float32(self._layout.format.steps_per_metre)
        return Sample(image, DepthTarget(raw, name, index >= self._apart_from), index)

    def content(self) -> Iterator[bytes]:
        """Names, as for other images in files; and what the numbers mean."""
        yield from self.images.content()
        yield "\n".join(self._depths).encode(errors="surrogateescape")
        yield repr(self._layout.format).encode()


def _both(pairs: Pairs, apart: Pairs | None, what: Literal["images", "depths"]) -> list[str]:
    return [*getattr(pairs, what), *(getattr(apart, what) if apart else ())]


@dataclass(frozen=True)
class Prepared:
    """How pairs become input and target of the model."""

    name: str
    format: DepthFormat
    side: int
    """Of the square that the model takes, in pixels."""
    resize: Resize
    augment: DepthAugment

    def train(self, sample: Sample) -> Sample:
        """A square crop, augmented. Random numbers come from NumPy's generator, which is seeded for the sample."""
        image, depth = self.whole(sample)
        generator = np.random.default_rng(np.random.randint(0, 2**31, size=4).tolist())
        scale = DepthScale(self.format.longest, self.format.steps_per_metre)
        try:
            image, depth = augmented(image, depth, (self.side, self.side), self.augment, scale, generator)
        except ValueError as error:
            raise Unreadable(f"{self.name}: image {sample.target.name}: {error}") from error
        return _tensors(sample, image, depth)

    def evaluate(self, sample: Sample) -> Sample:
        image, depth = self.whole(sample)
        self.check_evaluated(sample.target.name, *depth.shape)
        return _tensors(sample, image, depth)

    def check_evaluated(self, image: str, height: int, width: int) -> None:
        """Raises Unreadable for an image (height, width in pixels, as it is evaluated) in which no window fits."""
        if height == self.side <= width:
            return
        why = f"windows of {self.side} x {self.side} pixels (backbone.image_size) slide along the width of an image"
        raise Unreadable(
            f"{self.name}: image {image} has {height} x {width} pixels (height x width), and {why} of that height that "
            "is no taller than wide: set another image_size, or task.resize height"
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after `resize`."""
        if self.resize == "none" or height == self.side:
            return height, width
        return self.side, max(1, round(width * self.side / height))

    def whole(self, sample: Sample) -> tuple[NDArray[np.uint8], Depth]:
        """The pair as it is evaluated: cut, and of another size, where that is asked for. Raises Unreadable."""
        from PIL import Image

        image, depth, name = sample.image, sample.target.depth, sample.target.name
        if self.format.kb_crop:
            image, depth = (survey.kb_crop(pixels, self.name, name) for pixels in (image, depth))
        height, width = self.size(*depth.shape)
        if (height, width) != depth.shape:
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image, depth = np.asarray(resized), nearest(depth, height, width)
        return image, depth


def nearest(depth: Depth, height: int, width: int) -> Depth:
    """A depth map of another size; every pixel is one of the old ones, because depths of different objects have no
    mean."""
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(depth[rows][:, columns])


def _tensors(sample: Sample, image: NDArray[np.uint8], depth: Depth) -> Sample:
    """Pixels in 8 bits: a quarter of the bytes to pass between processes and to a GPU."""
    pixels = torch.from_numpy(planes(image))
    target = replace(sample.target, depth=torch.from_numpy(np.ascontiguousarray(depth))[None])
    return replace(sample, image=pixels, target=target)


def collated(samples: Sequence[Sample]) -> Batch:
    """`images` (n, 3, h, w) uint8, `depth` (n, 1, h, w) in metres, lists where sizes differ; and `names`, `apart`."""
    images, depths = [sample.image for sample in samples], [sample.target.depth for sample in samples]
    alike = all(image.shape == images[0].shape for image in images)
    return {
        "images": stacked(images) if alike else images,
        "depth": stacked(depths) if alike else depths,
        "names": [sample.target.name for sample in samples],
        "apart": [sample.target.apart for sample in samples],
    }


class FromZeroToOne(BatchTransform):
    """Pixels as floats from 0 to 1, without mean and deviation, as in the paper's depth code."""

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        return {**batch, "images": _from_zero_to_one(batch["images"])}

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        images = batch["images"]
        whole = isinstance(images, Tensor)
        return {**batch, "images": _from_zero_to_one(images) if whole else [_from_zero_to_one(each) for each in images]}


def _from_zero_to_one(pixels: Tensor) -> Tensor:
    if pixels.is_cuda:
        return pixels.float().div_(255)
    return torch.from_numpy(np.divide(pixels.numpy(), np.float32(255)))  # in one pass: a third of torch's time


def check_mean_map(image: str, size: tuple[int, ...], mean: Tensor) -> None:
    """Raises DataError for an image that has another size (height, width) than the training maps."""
    if size != tuple(mean.shape[1:]):
        raise DataError(
            f"image {image} has {size} and the training maps {tuple(mean.shape[1:])} pixels (height, width): set "
            "task.baseline none"
        )


class WithMeanMap(FromZeroToOne):
    """Adds `mean_map` (n, 1, h, w) to batches of evaluation: the mean depth of every pixel over the training maps."""

    def __init__(self, mean: Tensor) -> None:
        """`mean`: (1, h, w)."""
        self._mean = mean

    def evaluate(self, batch: Batch, indices: Tensor) -> Batch:
        """Raises DataError for an image that counts and has another size than the training maps."""
        mean = self._mean.to(batch["depth"][0].device)
        for depth, name, apart in zip(batch["depth"], batch["names"], batch["apart"], strict=True):
            if not apart:
                check_mean_map(name, tuple(depth.shape[1:]), mean)
        return {**super().evaluate(batch, indices), "mean_map": [mean] * len(batch["names"])}


def depth_loaders(
    pairs: OpenedPairs, how: Prepared, windows: int | None, baseline: bool, context: DataContext
) -> SampleLoaders:
    """Loaders of the pairs, after a look at them. `windows`: None for as few as cover the images that are evaluated.

    The loaders' `preprocessing` records what is not in the spec. Raises DataError.
    """
    layout = replace(pairs.layout, format=how.format)
    for part, what in ((pairs.train, "train"), (pairs.evaluation, "the part to evaluate"), (pairs.apart, "apart")):
        if part is not None:
            survey.check_files(layout, part, what)
    learnt = survey.look(layout, pairs.train, spread(len(pairs.train), survey.GLANCE))
    measured = survey.look(layout, pairs.evaluation, range(len(pairs.evaluation)))
    survey.check_unit(layout.name, [*learnt, *measured], how.format)
    survey.check_truth(layout.name, measured, how.format)
    _check_crops(learnt, how)
    sizes = []
    for each in measured:
        sizes.append(how.size(*each.size))
        how.check_evaluated(each.image, *sizes[-1])
    facts = _windows_of(layout.name, sizes, windows, how.format)
    without = pairs.train.without + pairs.evaluation.without
    train = DepthSamples(layout, pairs.train)
    batches = FromZeroToOne()
    if baseline:
        mean = mean_map(train, how)
        for each, size in zip(measured, sizes, strict=True):  # before the training, not after it
            check_mean_map(each.image, size, mean)
        batches = WithMeanMap(mean)
    pipeline = Pipeline(how.train, how.evaluate, collated, batches, EVALUATION_BATCH)
    loaders = SampleLoaders(train, DepthSamples(layout, pairs.evaluation, pairs.apart), pipeline, context)
    loaders.preprocessing = {
        "depth": {**vars(how.format), "side": how.side, "resize": how.resize}, **facts,
        **({"images_without_depth_map": without} if without else {}),
    }  # fmt: skip
    return loaders


def _check_crops(looked: Sequence[survey.Looked], how: Prepared) -> None:
    for each in looked:
        height, width = how.size(*each.size)
        if min(height, width) < how.side:
            raise DataError(
                f"{how.name}: training crops of {how.side} x {how.side} pixels (backbone.image_size) are larger "
                f"than image {each.image} of {height} x {width} (height x width): lower image_size, or set task.resize "
                "height"
            )


def windows_for(height: int, width: int, windows: int | None) -> int:
    """The number of windows, or as few as cover an image of this size."""
    return windows or -(-width // height)


def _windows_of(
    name: str, sizes: Sequence[tuple[int, int]], windows: int | None, format: DepthFormat
) -> dict[str, Any]:
    """Facts of the sliding windows. Raises DataError when they leave gaps between them or a wide edge: their number is
    too small for the width."""
    counts, most, evaluated = set(), 0, 0
    for height, width in sorted(set(sizes)):
        count = windows_for(height, width, windows)
        counts.add(count)
        left = uncovered_columns(height, width, count)
        if len(left) >= max(count, 2) or (count == 1 and left):
            raise DataError(
                f"{name}: {count} square windows leave {len(left)} of {width} columns of images of {height} x {width} "
                "pixels (height x width) without a prediction: set task.windows to "
                f"{windows_for(height, width, None)} or more"
            )
        columns = evaluated_part(format.window, height, width)[1]
        most = max(most, len(left))
        evaluated = max(evaluated, sum(columns.start <= column < columns.stop for column in left))
    return {"windows": sorted(counts), "uncovered_columns": most, "uncovered_columns_evaluated": evaluated}


def mean_map(samples: DepthSamples, how: Prepared) -> Tensor:
    """(1, h, w): the mean depth of every pixel over all training maps that know it; where none does, over all pixels.

    Raises DataError when the maps differ in size.
    """
    total: NDArray[np.float64] | None = None
    for index in range(len(samples)):
        depth = how.whole(samples.sample(index))[1]
        if total is None:
            total, known = np.zeros(depth.shape), np.zeros(depth.shape)
        if depth.shape != total.shape:
            raise DataError(f"{how.name}: training maps differ in size and have no mean map: set task.baseline none")
        total += depth
        known += depth > 0
    assert total is not None
    mean = np.where(known > 0, total / np.maximum(known, 1), total.sum() / max(known.sum(), 1))
    return torch.from_numpy(mean.astype(np.float32))[None]
