"""Loaders of tracking: pairs to train on, and whole sequences to track."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare
from tasks.datasets.loaders import Pipeline, SampleLoaders
from tasks.datasets.sequences.types import Pixels, SequenceSet
from tasks.datasets.transforms import Normalizing
from tasks.errors import DataError
from tasks.tracking.crops import Floats, clipped, corners, has_area
from tasks.tracking.options import TrackingAugment
from tasks.tracking.sampler import CutPair, OnDevice, PairSamples, Sampling, collated


@dataclass(frozen=True)
class TrackingInput:
    """How sequences become inputs."""

    template: int
    search: int
    """Sides of the two crops, in pixels."""
    sampling: Sampling
    augment: TrackingAugment
    normalize: Normalizing
    drop_path_from: float
    """Epochs after which the fusion drops paths."""


class Tracked:
    """A sequence to track: its frames are read one by one."""

    def __init__(self, some: SequenceSet, index: int, pool: ThreadPoolExecutor | None = None) -> None:
        """`pool`: decodes each frame while the one before it is looked at. Raises DataError for annotations that cannot
        be read, or a first frame that does not show the object."""
        self._set, self._index, self._pool, self.annotated = some, index, pool, some.load(index)
        self.boxes = corners(self.annotated.boxes)
        """(frames, 4) left, top, right, bottom; the first alone where the others are not public."""
        if not has_area(self.boxes[0]) or not self.annotated.visible[0]:
            raise self._untrackable("has no area, or is marked as hidden")

    def _untrackable(self, why: str) -> DataError:
        box = ", ".join(f"{value:g}" for value in self.annotated.boxes[0])
        return DataError(
            f"{self._set.name}: sequence {self.name} cannot be tracked: its first box ({box}) {why}; correct it, or "
            "leave the sequence out"
        )

    @property
    def name(self) -> str:
        return self.annotated.name

    @property
    def first_box(self) -> Floats:
        first: Floats = self.boxes[0]
        return first

    def __len__(self) -> int:
        return len(self.annotated.frames)

    def far_one(self) -> Tracked:
        """The sequence half of the set further on: neighbours often show alike objects (LaSOT's lists go by category).
        Raises DataError when there is none."""
        count = len(self._set)
        if count < 2:
            raise DataError(
                f"{self._set.name} has one sequence of {self._set.part}, and task.other_template needs another one's "
                "template: set it to false"
            )
        return Tracked(self._set, (self._index + count // 2) % count, self._pool)

    def size(self) -> tuple[int, int]:
        """Width and height of the frames. Raises DataError for one that cannot be read."""
        height, width = self._set.image(self.annotated.frames[0]).shape[:2]
        return width, height

    def frames(self, known: int = 1) -> Iterator[Pixels]:
        """The first one, then all but the first `known`. Raises DataError for one that cannot be read, and for a first
        box outside of its frame."""
        read = self._read((self.annotated.frames[0], *self.annotated.frames[known:]))
        first = next(read)
        height, width = first.shape[:2]
        if not has_area(clipped(self.first_box, width, height)):
            raise self._untrackable(f"lies outside of its frame of {width} x {height} pixels")
        yield first
        yield from read

    def _read(self, files: Sequence[str]) -> Iterator[Pixels]:
        if self._pool is None:
            yield from map(self._set.image, files)
            return
        coming = self._pool.submit(self._set.image, files[0])
        for following in files[1:]:
            frame, coming = coming.result(), self._pool.submit(self._set.image, following)
            yield frame
        yield coming.result()


class TrackingLoaders(SampleLoaders):
    """Training batches: see `sampler.collated`, and `drop`. An evaluation batch is a whole sequence: `images`, a
    `Tracked`, `sequences`, how many there are in all, and `begun`, pieces of the sequence (None: see EvaluationShare).
    Its item is the sequence's place in its set."""

    def __init__(
        self, trained: Sequence[SequenceSet], evaluated: SequenceSet, how: TrackingInput, context: DataContext
    ) -> None:
        """Raises DataError as SampleLoaders does."""
        pairs = PairSamples(trained, how.sampling)
        steps = len(pairs) // context.batch
        pipeline = Pipeline(
            CutPair(how.template, how.search, how.augment), CutPair(how.template, how.search, TrackingAugment.none()),
            collated, OnDevice(how.normalize, steps, how.drop_path_from),
        )  # fmt: skip
        super().__init__(pairs, pairs, pipeline, context)
        self.image_cache = "none: frames are read when they are drawn"
        self._evaluated = evaluated
        self._pool = ThreadPoolExecutor(context.loader_workers) if context.loader_workers else None
        content = PairSamples([evaluated], how.sampling).content()
        self.digest = hashlib.sha256(self.digest.encode() + b"".join(content)).hexdigest()

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterator[Batch]:
        count = len(self._evaluated)
        for index in range(count):
            item = f"{index:06d}"
            if share.wants(index, item):
                begun = None if share.begun is None else share.begun.get(item, [])
                video = Tracked(self._evaluated, index, self._pool)
                yield {"item": item, "images": video, "sequences": count, "begun": begun}

    def pictured(self, count: int) -> Iterable[Tracked]:
        """So many sequences at most, at even distances through those that are evaluated."""
        step = -(-len(self._evaluated) // count)
        return (Tracked(self._evaluated, index, self._pool) for index in range(0, len(self._evaluated), step))
