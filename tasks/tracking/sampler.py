"""Draws training pairs: a data set, a sequence of it, two frames that are not far apart, and their crops.

Source of the rules: SwinTrack's public sampler ("interval"): equal weight for every data set, both orders of the two
frames, boxes clipped to their frames, and no frame whose box lies outside. There each epoch takes sequences of a set
without replacement; here every pair is drawn by itself, from the seed, the epoch and its place in the epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tasks.base import Batch
from tasks.datasets.images.source import Arrays
from tasks.datasets.loaders import BatchTransform
from tasks.datasets.samples import Sample, Samples, stacked
from tasks.datasets.sequences.types import Sequence as Frames
from tasks.datasets.sequences.types import SequenceSet
from tasks.datasets.transforms import Normalizing, normalized
from tasks.errors import DataError
from tasks.tracking.crops import SEARCH_FACTOR, TEMPLATE_FACTOR, Floats, Region, clipped, corners, cut, has_area, region
from tasks.tracking.options import TrackingAugment

TRIES = 100
"""Sequences, or search regions, that are drawn in a row; when none will do, it is not chance."""
USUAL_FPS = 30.0
"""Frames per second at which the greatest distance of two frames is `frame_gap`."""


@dataclass(frozen=True)
class Sampling:
    """How pairs are drawn."""

    pairs: int
    """In an epoch."""
    frame_gap: int
    """Frames at 30 per second that two frames of a pair are apart at most."""


@dataclass(frozen=True)
class PairTarget:
    """What belongs to a pair."""

    search: Any
    """The frame of the search region; after the transform a tensor (3, s, s), uint8."""
    boxes: Floats
    """(2, 4) left, top, right, bottom in pixels of the frames of template and search region, clipped to these; after
    the transform (4,) of the search region alone, as parts of its sides."""


class PairSamples(Samples):
    """Pairs of frames. `image` of a sample is the template's frame, `target` a PairTarget."""

    def __init__(self, sets: Sequence[SequenceSet], how: Sampling) -> None:
        self.images = Arrays("pairs", [])  # frames are read as they are drawn: nothing for the node's cache
        self._sets, self._how = sets, how

    def __len__(self) -> int:
        return self._how.pairs

    def content(self) -> Iterator[bytes]:
        """Names and lengths; that annotations are those of the plan, their manifest says."""
        for some in self._sets:
            yield f"{some.name}/{some.part}".encode()
            yield "\n".join(some.sequence_name(index) for index in range(len(some))).encode()
            yield some.lengths.tobytes()

    def sample(self, index: int) -> Sample:
        """Random numbers come from NumPy's generator, which is seeded for the sample, and from `index`: one that takes
        the place of an unreadable pair is another. Raises Unreadable for a frame, DataError for annotations."""
        generator = np.random.default_rng([*np.random.randint(0, 2**31, size=4).tolist(), index])
        some = self._sets[int(generator.integers(len(self._sets)))]
        for _ in range(TRIES):
            frames, rows = self._drawn(some, generator)
            template = some.image(frames.frames[rows[0]])
            alike = frames.frames[rows[0]] == frames.frames[rows[1]]
            search = template if alike else some.image(frames.frames[rows[1]])
            boxes = np.stack([
                clipped(box, image.shape[1], image.shape[0])
                for box, image in zip(corners(frames.boxes[list(rows)]), (template, search), strict=True)
            ])  # fmt: skip
            if all(map(has_area, boxes)):
                return Sample(template, PairTarget(search, boxes), index)
        raise DataError(
            f"{some.name}: of {TRIES} pairs of {some.part} drawn at random each has a box outside its frame: check the "
            "annotations (`data check`)"
        )

    def _drawn(self, some: SequenceSet, generator: np.random.Generator) -> tuple[Frames, tuple[int, int]]:
        """A sequence that has a pair, and the two rows. Raises DataError when a hundred have none."""
        for _ in range(TRIES):
            frames = some.load(int(generator.integers(len(some))))
            rows = pair(frames, self._how.frame_gap, generator)
            if rows is not None:
                return frames, rows
        raise DataError(
            f"{some.name}: of {TRIES} sequences of {some.part} drawn at random none has two frames, at most "
            f"task.frame_gap {self._how.frame_gap} apart, that show the object: check the annotations (`data check`)"
        )


def pair(frames: Frames, gap: int, generator: np.random.Generator) -> tuple[int, int] | None:
    """Two rows of a sequence, of template and search region, in either order; None where there is none.

    A visible frame is drawn, then two different visible ones of the gap + 1 frames around it; `gap` is for 30 frames
    per second. A still image: a row with itself.
    """
    shown = np.flatnonzero(frames.visible)
    if frames.still:
        return (int(row := generator.choice(shown)), int(row)) if len(shown) else None
    if len(shown) < 2:
        return None
    reach = max(round(frames.fps / USUAL_FPS * gap), 1) + 1
    if reach < len(frames.frames):
        middle = int(generator.choice(shown))
        first = middle - reach // 2
        shown = shown[(shown >= first) & (shown < first + reach)]
    if len(shown) < 2:
        return None
    template, search = generator.choice(shown, 2, replace=False).tolist()
    return template, search


@dataclass(frozen=True)
class CutPair:
    """The transform of a pair: crops and augmentation."""

    template: int
    search: int
    """Sides in pixels."""
    augment: TrackingAugment

    def __call__(self, sample: Sample) -> Sample:
        """Random numbers come from NumPy's and torch's generators, which are seeded for the sample."""
        generator = np.random.default_rng(np.random.randint(0, 2**31, size=4).tolist())
        first, second = sample.target.boxes
        images = [cut(sample.image, region(first, TEMPLATE_FACTOR), self.template)]
        around, box = jittered(second, self.augment, generator)
        images.append(cut(sample.target.search, around, self.search))
        if generator.random() < self.augment.grey:
            images = [image.convert("L").convert("RGB") for image in images]
        template, search = (pil_to_tensor(self._coloured(image)) for image in images)
        return replace(sample, image=search, target=PairTarget(template, box))

    def _coloured(self, image: Any) -> Any:
        from torchvision.transforms import ColorJitter

        strength = (self.augment.brightness, self.augment.contrast, self.augment.saturation)
        return ColorJitter(*strength)(image) if any(strength) else image


def jittered(box: Floats, augment: TrackingAugment, generator: np.random.Generator) -> tuple[Region, Floats]:
    """A search region around a box (left, top, right, bottom), and the box in it as parts of its sides, clipped.

    Width and height of the region are changed each by itself, then it is moved; drawn again while it would not show the
    object. Raises DataError when it never does.
    """
    plain = region(box, SEARCH_FACTOR)
    size = box[2:] - box[:2]
    for _ in range(TRIES):
        sides = np.asarray(plain.sides) * np.exp(generator.standard_normal(2) * augment.scale_jitter)
        mean = float((size / sides).mean())  # of the object's sides, as parts of the region's
        moved = (generator.random(2) - 0.5) * augment.shift_jitter * mean * sides
        x, y = (np.asarray(plain.centre) + moved).tolist()
        around = Region((x, y), (float(sides[0]), float(sides[1])))
        inside = clipped(around.inside(box), 1, 1)
        if has_area(inside):
            return around, inside
    raise DataError(f"task.augment: {TRIES} search regions in a row do not show their object; lower shift_jitter")


def collated(samples: Sequence[Sample]) -> Batch:
    """`images` (n, 3, s, s), the search regions, and `templates` (n, 3, t, t), uint8; `boxes` (n, 4) float: see
    PairTarget."""
    return {
        "images": stacked([sample.image for sample in samples]),
        "templates": stacked([sample.target.search for sample in samples]),
        "boxes": torch.from_numpy(np.stack([sample.target.boxes for sample in samples])).float(),
    }


@dataclass(frozen=True)
class OnDevice(BatchTransform):
    """Normalises both crops; says of each pair whether the fusion drops paths by now."""

    normalize: Normalizing
    steps_per_epoch: int
    drop_path_from: float
    """Epochs."""

    def train(self, batch: Batch, epoch: int, step: int, indices: Tensor) -> Batch:
        done = epoch + step / max(1, self.steps_per_epoch)
        crops = {name: normalized(batch[name], self.normalize) for name in ("images", "templates")}
        return {**batch, **crops, "drop": [done >= self.drop_path_from] * len(indices)}
