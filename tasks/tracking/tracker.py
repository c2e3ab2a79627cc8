"""Follows objects through sequences, several at once as one batch, each in the region around its last box."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tasks.datasets.sequences.types import Pixels
from tasks.datasets.transforms import Normalizing, normalized, on_device
from tasks.tracking.crops import (
    SEARCH_FACTOR,
    TEMPLATE_FACTOR,
    Colour,
    Floats,
    clipped,
    cut,
    has_area,
    mean_colour,
    region,
    with_least_size,
)
from tasks.tracking.model import TrackingModel, hann_window
from tasks.tracking.options import Inference


class Video(Protocol):
    """A sequence to track."""

    @property
    def first_box(self) -> Floats:
        """(4,) left, top, right, bottom of the object in frame 0, in pixels."""

    def __len__(self) -> int:
        """Frames."""

    def frames(self) -> Iterator[Pixels]:
        """All of them. Raises DataError for one that cannot be read."""


@dataclass
class _Target:
    """The state of a tracked object."""

    video: Video
    frames: Iterator[Pixels]
    """Those that are still to come."""
    template: Tensor
    """(tokens, width)"""
    colour: Colour
    """Of what lies beyond a frame: the mean of the first one."""
    boxes: list[Floats] = field(default_factory=list)
    """Of the frames so far (left, top, right, bottom), the first being the given one; all reach into their frame."""
    seconds: list[float] = field(default_factory=list)
    """That each took: its share of the time for a batch."""

    @property
    def ended(self) -> bool:
        return len(self.boxes) == len(self.video)


class Tracker:
    """A model with the rules of inference of SwinTrack's public code."""

    def __init__(self, model: TrackingModel, how: Inference, normalize: Normalizing) -> None:
        self._model, self._how, self._normalize = model, how, normalize
        self._device = next(model.parameters()).device
        self._window = hann_window(model.grid).to(self._device)
        self.frames, self.seconds = 0, 0.0
        """Frames so far, the first of each video included, and how long they took, with reading them."""

    @torch.no_grad()
    def track(self, videos: Iterable[Video], at_once: int) -> Iterator[tuple[Video, Floats, Floats]]:
        """Yields each video, as soon as it ends, with its boxes (frames, 4), left, top, right, bottom, and the seconds
        (frames,) that each frame took, as a share of its batch's.

        So many videos are tracked at a time. Every batch has `at_once` rows, repeating one where there are fewer
        videos, so that the boxes of a video do not depend on what is tracked beside it.
        """
        queue, targets = iter(videos), list[_Target]()
        while True:
            new = list(itertools.islice(queue, at_once - len(targets)))
            if new:
                with self._timed(begun := list[_Target]()):
                    begun += self._begun(new, at_once)
                targets += begun
            if not targets:
                return
            running = [target for target in targets if not target.ended]
            if running:
                with self._timed(running):
                    self._step(running, at_once)
            for target in targets:
                if target.ended:
                    yield target.video, np.stack(target.boxes), np.array(target.seconds)
            targets = [target for target in targets if not target.ended]

    @contextmanager
    def _timed(self, targets: list[_Target]) -> Iterator[None]:
        """Shares the time of a batch out to its targets."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.frames += len(targets)
        self.seconds += seconds
        for target in targets:
            target.seconds.append(seconds / len(targets))

    def _begun(self, videos: Sequence[Video], rows: int) -> list[_Target]:
        """The targets of videos, in their first frame."""
        ahead = [video.frames() for video in videos]
        first = [next(frames) for frames in ahead]
        crops = [
            cut(frame, region(video.first_box, TEMPLATE_FACTOR), self._model.template_side)
            for frame, video in zip(first, videos, strict=True)
        ]
        tokens: Tensor = self._model(templates=self._batch(crops, rows))
        colours = [mean_colour(frame) for frame in first]
        return [
            _Target(video, frames, template, colour, [np.asarray(video.first_box, np.float64)])
            for video, frames, template, colour in zip(videos, ahead, tokens, colours, strict=False)
        ]

    def _step(self, targets: Sequence[_Target], rows: int) -> None:
        """Finds each target in its next frame."""
        frames = [next(target.frames) for target in targets]
        regions = [region(with_least_size(target.boxes[-1], self._how.least_size), SEARCH_FACTOR) for target in targets]
        crops = [
            cut(frame, part, self._model.search_side, target.colour)
            for frame, part, target in zip(frames, regions, targets, strict=True)
        ]
        tokens = torch.stack(_filled([target.template for target in targets], rows))
        scores, boxes = self._model(tokens=tokens, searches=self._batch(crops, rows))
        penalty = self._how.window_penalty
        best = (scores * (1 - penalty) + self._window * penalty).flatten(1).argmax(1)
        chosen = boxes.flatten(1, 2)[torch.arange(rows, device=best.device), best].double().cpu().numpy()
        for target, frame, part, (x, y, width, height) in zip(targets, frames, regions, chosen, strict=False):
            inside = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            found = clipped(part.outside(inside), frame.shape[1], frame.shape[0])
            target.boxes.append(found if has_area(found) else target.boxes[-1])

    def _batch(self, crops: Sequence[Any], rows: int) -> Tensor:
        """(rows, 3, s, s) normalised, on the device."""
        pixels = [torch.from_numpy(np.array(crop)).permute(2, 0, 1) for crop in crops]
        return normalized(on_device(torch.stack(_filled(pixels, rows)), self._device), self._normalize)


def _filled(rows: list[Tensor], count: int) -> list[Tensor]:
    """So many rows: the last one is repeated."""
    return rows + rows[-1:] * (count - len(rows))
